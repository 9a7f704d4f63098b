//! PayPal's event types (<https://developer.paypal.com/api/rest/webhooks/event-names/>) and what grantonce does with each.

use super::super::table::{Page, Row};
use crate::domain::IgnoredWhy::{NoMoney, NoPayment, SaidByAnotherEvent};

/// The kind of `resource`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// A capture or an authorization, or a refund, whose parent is the capture.
    Capture,
    /// An order, or the approval of one.
    Order,
    /// An event about a dispute.
    Dispute,
}

pub(super) static ROWS: &[Row<Read>] = &[
    Row::hint("PAYMENT.CAPTURE.COMPLETED", Read::Capture, "Money of a buyer came in."),
    Row::hint("PAYMENT.CAPTURE.PENDING", Read::Capture, "A capture waits."),
    Row::hint("PAYMENT.CAPTURE.DECLINED", Read::Capture, "A capture was declined."),
    Row::hint("PAYMENT.CAPTURE.DENIED", Read::Capture, "A capture was denied."),
    Row::hint("PAYMENT.CAPTURE.REFUNDED", Read::Capture, "It names a refund, which is asked about by its own id."),
    Row::hint(
        "PAYMENT.CAPTURE.REVERSED",
        Read::Capture,
        "PayPal took back a capture or a part of it. It names a refund, which is asked about by its own id, because PayPal does \
         not list every one with its order.",
    ),
    Row::hint("PAYMENT.CAPTURE.*", Read::Capture, "It names a capture, or a refund of one."),
    Row::hint("PAYMENT.REFUND.*", Read::Capture, "It names a refund of a capture."),
    Row::hint("PAYMENT.AUTHORIZATION.CREATED", Read::Capture, "Money is held, and may be captured."),
    Row::hint("PAYMENT.AUTHORIZATION.VOIDED", Read::Capture, "Money is no longer held; none will come."),
    Row::hint("PAYMENT.AUTHORIZATION.*", Read::Capture, "It names an authorization."),
    Row::hint("CHECKOUT.ORDER.APPROVED", Read::Order, "The buyer agreed: the payment is captured."),
    Row::hint("CHECKOUT.ORDER.COMPLETED", Read::Order, "It names an order at PayPal."),
    Row::hint("CHECKOUT.ORDER.PROCESSED", Read::Order, "It names an order at PayPal."),
    Row::hint("CHECKOUT.ORDER.*", Read::Order, "It names an order at PayPal."),
    Row::hint(
        "CHECKOUT.PAYMENT-APPROVAL.REVERSED",
        Read::Order,
        "PayPal canceled an approved order that nobody captured.",
    ),
    Row::hint("CHECKOUT.PAYMENT-APPROVAL.*", Read::Order, "It names an order at PayPal."),
    Row::hint("CUSTOMER.DISPUTE.CREATED", Read::Dispute, "It names the captures that are disputed."),
    Row::hint("CUSTOMER.DISPUTE.UPDATED", Read::Dispute, "It names the captures that are disputed."),
    Row::hint("CUSTOMER.DISPUTE.RESOLVED", Read::Dispute, "It names the captures that are disputed."),
    Row::hint("CUSTOMER.DISPUTE.*", Read::Dispute, "It names the captures that are disputed."),
    Row::ignored("RISK.DISPUTE.CREATED", SaidByAnotherEvent, "CUSTOMER.DISPUTE.CREATED took its place."),
    Row::dead_letter_if_ours(
        "PAYMENT.SALE.*",
        "Money of a subscription or of an old integration, which cannot be asked about. Where `custom` or `custom_id` is an \
         order's id, an operator decides.",
    ),
    Row::dead_letter_if_ours(
        "INVOICING.INVOICE.PAID",
        "Money of an invoice, which cannot be asked about. Where it names an order, an operator decides.",
    ),
    Row::dead_letter_if_ours(
        "INVOICING.INVOICE.REFUNDED",
        "Money of an invoice went back, which cannot be asked about. Where it names an order, an operator decides.",
    ),
    Row::ignored("INVOICING.*", NoMoney, "An invoice was made, sent, changed or canceled."),
    Row::ignored(
        "PAYMENTS.PAYMENT.CREATED",
        NoMoney,
        "A buyer agreed to a payment of an old integration; no money moved.",
    ),
    Row::ignored(
        "CHECKOUT.CHECKOUT.BUYER-APPROVED",
        NoMoney,
        "A buyer agreed to a payment of an old integration; no money moved.",
    ),
    Row::ignored("PAYMENT.ORDER.CREATED", NoMoney, "An order of an old integration was made; no money moved."),
    Row::ignored("PAYMENT.ORDER.CANCELLED", NoMoney, "An order of an old integration was canceled; no money moved."),
    Row::ignored("PAYMENT.PAYOUTSBATCH.*", NoPayment, "A payout, which is no payment of an order."),
    Row::ignored("PAYMENT.PAYOUTS-ITEM.*", NoPayment, "A payout, which is no payment of an order."),
    Row::ignored("PAYMENT.REFERENCED-PAYOUT-ITEM.*", NoPayment, "A payout, which is no payment of an order."),
    Row::dead_letter(
        "PAYMENT.*",
        "A type about payments that this release does not know: an operator sees whether money moved.",
    ),
    Row::ignored("BILLING.*", NoMoney, "About a plan or a subscription. PAYMENT.SALE.* reports the money."),
    Row::ignored("CATALOG.*", NoMoney, "About a product."),
    Row::ignored("VAULT.*", NoMoney, "About stored payment details."),
    Row::ignored("IDENTITY.*", NoMoney, "About a consent."),
    Row::ignored("MERCHANT.*", NoMoney, "About a merchant's account."),
    Row::ignored("CUSTOMER.MERCHANT-INTEGRATION.*", NoMoney, "About a merchant's account."),
    Row::ignored("CUSTOMER.MANAGED-ACCOUNT.*", NoMoney, "About an account."),
    Row::ignored("CUSTOMER.ACCOUNT-LIMITATION.*", NoMoney, "About an account."),
    Row::dead_letter_if_ours(
        "*",
        "A type that this release does not know. Where it names an order, an operator decides.",
    ),
];

pub(super) fn page() -> Page {
    let intro = "What grantonce does with each type of event that PayPal publishes. No body of PayPal's is believed: what \
                 names a payment is a\nhint, and PayPal is asked.";
    Page::new("PayPal's events", intro, ROWS)
}

//! Stripe's event types (<https://docs.stripe.com/api/events/types>, <https://docs.stripe.com/api/v2/core/events/event-types>)
//! and what grantonce does with each.

use super::super::table::{Page, Row};
use crate::domain::IgnoredWhy::{NoMoney, NoPayment, NotOurs, SaidByAnotherEvent, UnknownType};

/// How an event is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// `data.object` is a payment intent.
    Intent(Intent),
    /// `data.object` is a checkout session.
    Session(Session),
    /// `data.object` is a charge. It counts if it was made without a payment intent.
    Charge(Charge),
    /// `data.object` is a charge with the sum of its refunds.
    ChargeRefunded,
    /// `data.object` is a refund.
    Refund,
    /// `data.object` is a dispute.
    Dispute,
    DisputeReinstated,
    /// A thin event: its related object leads to the payment.
    Related,
}

/// What has happened to a payment intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    Paid,
    Pending,
    Failed,
    Canceled,
}

/// What has happened to a checkout session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Session {
    Completed,
    LaterPaid,
    LaterFailed,
    Expired,
}

/// What has happened to a charge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Charge {
    Paid,
    /// A change of any kind. It may be a late capture.
    Updated,
    Pending,
    Failed,
    Expired,
}

const CHARGE: &str = "Read where the charge has no payment intent; otherwise the intent's events report the same.";
const NOT_PAYMENT: &str = "It moves money of the Stripe account, not of a buyer's payment to us.";
const INVOICE: &str = "An invoice is not a payment that an order can be made with: if it names an order of ours, somebody \
                       has paid for that order in a way that grantonce cannot apply.";

pub(super) static ROWS: &[Row<Read>] = &[
    Row::applied("payment_intent.succeeded", Read::Intent(Intent::Paid), "`amount_received` was captured."),
    Row::applied("payment_intent.processing", Read::Intent(Intent::Pending), "The payment waits for the bank."),
    Row::applied("payment_intent.requires_action", Read::Intent(Intent::Pending), "The payment waits for the buyer."),
    Row::applied(
        "payment_intent.amount_capturable_updated",
        Read::Intent(Intent::Pending),
        "The money is authorised and not captured.",
    ),
    Row::applied(
        "payment_intent.partially_funded",
        Read::Intent(Intent::Pending),
        "A part of a bank transfer came in, and the rest is awaited.",
    ),
    Row::applied(
        "payment_intent.payment_failed",
        Read::Intent(Intent::Failed),
        "An attempt failed; another may follow.",
    ),
    Row::applied("payment_intent.canceled", Read::Intent(Intent::Canceled), "No money comes by this payment intent."),
    Row::ignored("payment_intent.created", NoMoney, "Nothing is paid yet."),
    Row::dead_letter("payment_intent.*", "A new type about payment intents may report money."),
    Row::applied(
        "checkout.session.completed",
        Read::Session(Session::Completed),
        "Paid where `payment_status` says so, with the tax and discount that the session tells.",
    ),
    Row::applied(
        "checkout.session.async_payment_succeeded",
        Read::Session(Session::LaterPaid),
        "A payment method that takes days has paid.",
    ),
    Row::applied(
        "checkout.session.async_payment_failed",
        Read::Session(Session::LaterFailed),
        "A payment method that takes days has failed.",
    ),
    Row::applied("checkout.session.expired", Read::Session(Session::Expired), "The buyer can no longer pay by it."),
    Row::dead_letter("checkout.session.*", "A new type about checkout sessions may report money."),
    Row::applied("charge.succeeded", Read::Charge(Charge::Paid), CHARGE),
    Row::applied("charge.captured", Read::Charge(Charge::Paid), CHARGE),
    Row::applied("charge.updated", Read::Charge(Charge::Updated), CHARGE),
    Row::applied("charge.pending", Read::Charge(Charge::Pending), CHARGE),
    Row::applied("charge.failed", Read::Charge(Charge::Failed), CHARGE),
    Row::applied("charge.expired", Read::Charge(Charge::Expired), CHARGE),
    Row::applied(
        "charge.refunded",
        Read::ChargeRefunded,
        "The sum of the charge's refunds; before 2025-03-31.basil without the released part of a hold.",
    ),
    Row::applied("refund.created", Read::Refund, "One refund and its state; a released hold is ignored."),
    Row::applied("refund.updated", Read::Refund, "One refund and its state; a released hold is ignored."),
    Row::applied("refund.failed", Read::Refund, "One refund that came back."),
    Row::applied("refund.*", Read::Refund, "The refund's state counts, whatever the event is called."),
    Row::applied("charge.refund.updated", Read::Refund, "The older name of `refund.updated`."),
    Row::applied("charge.dispute.created", Read::Dispute, "One dispute and its state."),
    Row::applied("charge.dispute.updated", Read::Dispute, "One dispute and its state."),
    Row::applied("charge.dispute.closed", Read::Dispute, "One dispute and its state."),
    Row::applied("charge.dispute.funds_withdrawn", Read::Dispute, "One dispute and its state."),
    Row::applied(
        "charge.dispute.funds_reinstated",
        Read::DisputeReinstated,
        "The disputed money is back, except what the dispute's balance transactions still take.",
    ),
    Row::applied("charge.dispute.*", Read::Dispute, "The dispute's state counts, whatever the event is called."),
    Row::dead_letter("charge.*", "A new type about charges may report money."),
    Row::dead_letter_if_ours("invoice.paid", INVOICE),
    Row::dead_letter_if_ours("invoice.payment_succeeded", INVOICE),
    Row::dead_letter_if_ours("invoice.overpaid", INVOICE),
    Row::dead_letter_if_ours("invoice.payment.overpaid", INVOICE),
    Row::ignored("invoice_payment.*", SaidByAnotherEvent, "The invoice and its payment intent report the same money."),
    Row::ignored("invoice.created", NoMoney, "A draft: nothing is paid by it."),
    Row::ignored("invoice.deleted", NoMoney, "A draft was deleted: nothing was paid by it."),
    Row::ignored("invoice.finalization_failed", NoMoney, "Nothing is paid by it."),
    Row::ignored("invoice.finalized", NoMoney, "Nothing is paid yet."),
    Row::ignored("invoice.marked_uncollectible", NoMoney, "Nothing was paid by it."),
    Row::ignored("invoice.overdue", NoMoney, "Nothing is paid yet."),
    Row::ignored("invoice.payment_action_required", NoMoney, "Nothing is paid yet."),
    Row::ignored("invoice.payment_attempt_required", NoMoney, "Nothing is paid yet."),
    Row::ignored("invoice.payment_failed", NoMoney, "An attempt failed: nothing was paid by it."),
    Row::ignored("invoice.sent", NoMoney, "Nothing is paid yet."),
    Row::ignored("invoice.upcoming", NoMoney, "Nothing is paid yet."),
    Row::ignored("invoice.updated", NoMoney, "What is paid by it is reported by `invoice.paid`."),
    Row::ignored("invoice.voided", NoMoney, "Nothing can be paid by it any more."),
    Row::ignored("invoice.will_be_due", NoMoney, "Nothing is paid yet."),
    Row::dead_letter_if_ours("invoice.*", "A new type about invoices may report money."),
    Row::ignored("invoiceitem.*", NoMoney, "A line of an invoice: what is paid is reported by the invoice."),
    Row::dead_letter_if_ours(
        "credit_note.created",
        "Money of an invoice goes back to the buyer: if it names an order of ours, its credits have to be decided by hand.",
    ),
    Row::ignored("credit_note.updated", NoMoney, "The note itself is reported by `credit_note.created`."),
    Row::ignored("credit_note.voided", NoMoney, "A refund that it stood for is reported by the refund's events."),
    Row::dead_letter_if_ours("credit_note.*", "A new type about credit notes may report money."),
    Row::ignored(
        "cash_balance.funds_available",
        NoPayment,
        "A buyer's balance at Stripe: no payment was made from it.",
    ),
    Row::ignored(
        "customer_cash_balance_transaction.created",
        NoPayment,
        "A buyer's balance at Stripe: a payment made from it is reported by its payment intent.",
    ),
    Row::ignored(
        "radar.early_fraud_warning.*",
        NoMoney,
        "A warning: a refund or dispute is reported by its own events.",
    ),
    Row::ignored("review.*", NoMoney, "A review: a refund that follows from it is reported by its own events."),
    Row::ignored("source.*", NoMoney, "A way to pay: the money is reported by the charge that is made with it."),
    Row::ignored("setup_intent.*", NoMoney, "A way to pay is kept for later: nothing is taken."),
    Row::ignored("mandate.*", NoMoney, "A permission to take money later: nothing is taken."),
    Row::ignored("payment_link.*", NoMoney, "A page to pay at: the checkout session reports the money."),
    Row::ignored("payment_method.*", NoMoney, "A way to pay: nothing is taken."),
    Row::ignored("quote.*", NoMoney, "An offer: nothing is paid by it."),
    Row::ignored(
        "customer.*",
        NoMoney,
        "A buyer, a subscription or a discount: invoices and payments report the money.",
    ),
    Row::ignored("subscription_schedule.*", NoMoney, "A plan: invoices report the money."),
    Row::ignored("terminal.*", NoMoney, "A card reader: the payment intent reports the money."),
    Row::ignored("application_fee.*", NotOurs, "A platform's fee, which is no part of what the buyer paid."),
    Row::ignored("balance.*", NotOurs, NOT_PAYMENT),
    Row::ignored("balance_settings.*", NoMoney, "A setting of the Stripe account."),
    Row::ignored("payout.*", NotOurs, NOT_PAYMENT),
    Row::ignored("topup.*", NotOurs, NOT_PAYMENT),
    Row::ignored("transfer.*", NotOurs, NOT_PAYMENT),
    Row::ignored("reserve.*", NotOurs, NOT_PAYMENT),
    Row::ignored("treasury.*", NotOurs, NOT_PAYMENT),
    Row::ignored("issuing_*", NotOurs, "Cards that the account's owner has issued: it is money that they spend."),
    Row::ignored("climate.*", NotOurs, NOT_PAYMENT),
    Row::ignored("capital.*", NotOurs, NOT_PAYMENT),
    Row::ignored("account.*", NoMoney, "A setting of the Stripe account, or of a connected one."),
    Row::ignored("account_notice.*", NoMoney, "A notice to the account's owner."),
    Row::ignored("billing.*", NoMoney, "Usage and credit of Stripe Billing: invoices report the money."),
    Row::ignored("billing_portal.*", NoMoney, "A page for the buyer's subscriptions."),
    Row::ignored("capability.*", NoMoney, "What the Stripe account may do."),
    Row::ignored("coupon.*", NoMoney, "A discount that may be used later."),
    Row::ignored("entitlements.*", NoMoney, "What a subscription allows."),
    Row::ignored("file.*", NoMoney, "A file was uploaded."),
    Row::ignored("financial_connections.*", NoMoney, "A bank account that a buyer has linked: nothing is taken."),
    Row::ignored("fx_quote.*", NoMoney, "An exchange rate: nothing is taken."),
    Row::ignored("identity.*", NoMoney, "A check of a person's identity."),
    Row::ignored("person.*", NoMoney, "A person behind a connected account."),
    Row::ignored("plan.*", NoMoney, "The catalogue: nothing is taken."),
    Row::ignored("price.*", NoMoney, "The catalogue: nothing is taken."),
    Row::ignored("privacy.*", NoMoney, "A deletion of personal data."),
    Row::ignored("product.*", NoMoney, "The catalogue: nothing is taken."),
    Row::ignored("promotion_code.*", NoMoney, "A discount that may be used later."),
    Row::ignored("reporting.*", NoMoney, "A report is ready."),
    Row::ignored("sigma.*", NoMoney, "A query has ended."),
    Row::ignored("tax.*", NoMoney, "A setting or form about taxes."),
    Row::ignored("tax_rate.*", NoMoney, "The catalogue: nothing is taken."),
    Row::ignored("test_helpers.*", NoMoney, "A clock of Stripe's test mode."),
    Row::hint("v1.payment_intent.*", Read::Related, "A thin event: Stripe is asked about the payment intent."),
    Row::hint("v1.checkout.session.*", Read::Related, "A thin event: Stripe is asked about the checkout session."),
    Row::hint(
        "v1.charge.*",
        Read::Related,
        "A thin event: Stripe is asked about the charge, its refund or its dispute.",
    ),
    Row::hint("v1.refund.*", Read::Related, "A thin event: Stripe is asked about the refund."),
    Row::ignored(
        "v1.*",
        NoMoney,
        "A thin event: a hint where its related object is a payment intent, checkout session, charge, refund or dispute.",
    ),
    Row::ignored(
        "v2.*",
        NoMoney,
        "A thin event: a hint where its related object is a payment intent, checkout session, charge, refund or dispute.",
    ),
    Row::ignored("*", UnknownType, "A type that this release does not know, of no family that reports payments."),
];

pub(super) fn page() -> Page {
    let intro = "What grantonce does with each type of event that Stripe publishes, in API versions from 2020-08-27 on: \
                 snapshot events, and\nthin events (`v1.…`, `v2.…`). Send at least those that are applied.";
    Page::new("Stripe's events", intro, ROWS)
}

//! PayPal's event types (<https://developer.paypal.com/api/rest/webhooks/event-names/>) and what we do with each.

use super::super::table::{Page, Row};
use crate::domain::IgnoredWhy::UnknownType;

/// What `resource` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// A capture, or a refund, whose parent is the capture.
    Capture,
    /// An order, or the approval of one.
    Order,
    /// A dispute.
    Dispute,
}

pub(super) static ROWS: &[Row<Read>] = &[
    Row::hint("PAYMENT.CAPTURE.*", Read::Capture, "It names a capture, or a refund of one."),
    Row::hint("PAYMENT.REFUND.*", Read::Capture, "It names a refund of a capture."),
    Row::hint("CHECKOUT.ORDER.*", Read::Order, "It names an order at PayPal."),
    Row::hint("CHECKOUT.PAYMENT-APPROVAL.*", Read::Order, "It names an order at PayPal."),
    Row::hint("CUSTOMER.DISPUTE.*", Read::Dispute, "It names the captures that are disputed."),
    Row::ignored("*", UnknownType, "A type that this release does not know, of no family that reports payments."),
];

pub(super) fn page() -> Page {
    let intro = "What grantonce does with each type of event that PayPal publishes. No body of PayPal's is believed: what \
                 names a payment is a\nhint, and PayPal is asked.";
    Page::new("PayPal's events", intro, ROWS)
}

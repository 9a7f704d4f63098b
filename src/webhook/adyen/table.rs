//! Adyen's event codes (<https://docs.adyen.com/development-resources/webhooks/webhook-types/>) and what we do with each.

use super::super::table::{Page, Row};
use crate::domain::IgnoredWhy::{NoMoney, UnknownType};

/// How an item is read. Its code decides further, and whether it says `success`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// By its code.
    ByCode,
}

pub(super) static ROWS: &[Row<Read>] = &[
    Row::applied("AUTHORISATION", Read::ByCode, "Paid, authorised or refused."),
    Row::applied("CAPTURE", Read::ByCode, "One capture."),
    Row::applied("CAPTURE_FAILED", Read::ByCode, "One capture that failed."),
    Row::applied("PENDING", Read::ByCode, "The payment waits for the bank."),
    Row::applied("CANCELLATION", Read::ByCode, "No money comes by this payment."),
    Row::applied("TECHNICAL_CANCEL", Read::ByCode, "No money comes by this payment."),
    Row::applied("OFFER_CLOSED", Read::ByCode, "No money comes by this payment."),
    Row::applied("EXPIRE", Read::ByCode, "No money comes by this payment."),
    Row::applied("REFUND", Read::ByCode, "One refund."),
    Row::applied("CANCEL_OR_REFUND", Read::ByCode, "One refund."),
    Row::applied("REFUND_FAILED", Read::ByCode, "One refund that came back."),
    Row::applied("REFUNDED_REVERSED", Read::ByCode, "One refund that came back."),
    Row::applied("REQUEST_FOR_INFORMATION", Read::ByCode, "One dispute and its state."),
    Row::applied("NOTIFICATION_OF_CHARGEBACK", Read::ByCode, "One dispute and its state."),
    Row::applied("CHARGEBACK", Read::ByCode, "One dispute and its state."),
    Row::applied("CHARGEBACK_REVERSED", Read::ByCode, "One dispute and its state."),
    Row::applied("SECOND_CHARGEBACK", Read::ByCode, "One dispute and its state."),
    Row::applied("PREARBITRATION_WON", Read::ByCode, "One dispute and its state."),
    Row::applied("PREARBITRATION_LOST", Read::ByCode, "One dispute and its state."),
    Row::ignored("REPORT_AVAILABLE", NoMoney, "A report is ready."),
    Row::ignored("*", UnknownType, "A code that this release does not know."),
];

pub(super) fn page() -> Page {
    let intro = "What grantonce does with each event code that Adyen publishes for the standard webhook.";
    Page::new("Adyen's events", intro, ROWS)
}

//! Adyen's event codes and what grantonce does with each.
//!
//! From <https://docs.adyen.com/api-explorer/Webhooks/latest/overview>,
//! <https://docs.adyen.com/development-resources/webhooks/webhook-types/> and
//! <https://docs.adyen.com/risk-management/disputes-api/dispute-notifications/>.

use super::super::table::{Page, Row};
use crate::domain::DisputeState::{self, Inquiry, Lost, Open, Won};
use crate::domain::IgnoredWhy::{NoMoney, NoPayment, NotOurs, SaidByAnotherEvent};

/// How an item is read. Its `success` decides further.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    Authorisation,
    /// A change of the authorised amount.
    Adjustment,
    Capture,
    CaptureFailed,
    Pending,
    /// The end of an authorisation that the item's original reference names.
    Cancellation,
    Expiry,
    OfferClosed,
    CancelOrRefund,
    Refund,
    /// A refund that failed or came back.
    RefundUndone,
    PostponedRefund,
    VoidedRefund,
    /// The end of an Adyen order of several payments.
    OrderClosed,
    ReviewRejected,
    /// A step of a dispute. Steps of the same time are ordered by round, then by state.
    Dispute {
        round: u32,
        state: DisputeState,
    },
}

const fn dispute(name: &'static str, round: u32, state: DisputeState, why: &'static str) -> Row<Read> {
    Row::applied(name, Read::Dispute { round, state }, why)
}

pub(super) static ROWS: &[Row<Read>] = &[
    Row::applied(
        "AUTHORISATION",
        Read::Authorisation,
        "The payment is paid (automatic capture) or authorised (manual capture), or was refused. An amount of 0 is a check of \
         a card, and ignored.",
    ),
    Row::applied(
        "AUTHORISATION_ADJUSTMENT",
        Read::Adjustment,
        "With manual capture it is ignored, because the capture tells the amount. With automatic capture it becomes a dead \
         letter: the amount that will be captured is no longer known.",
    ),
    Row::applied(
        "CAPTURE",
        Read::Capture,
        "One capture. With automatic capture it replaces the one that the authorisation announced. Not successful: the request \
         was refused, and nothing changes.",
    ),
    Row::applied("CAPTURE_FAILED", Read::CaptureFailed, "The capture failed after all; the money does not come."),
    Row::applied("PENDING", Read::Pending, "The payment waits for the buyer or the bank."),
    Row::applied(
        "CANCELLATION",
        Read::Cancellation,
        "The authorisation ended before it was captured, so no money comes. Not successful: the request was refused.",
    ),
    Row::applied(
        "TECHNICAL_CANCEL",
        Read::Cancellation,
        "The authorisation ended before it was captured, so no money comes. Not successful: the request was refused.",
    ),
    Row::applied("EXPIRE", Read::Expiry, "What was not captured in time is released. What was captured by hand stays."),
    Row::applied("OFFER_CLOSED", Read::OfferClosed, "The buyer did not pay in time."),
    Row::applied(
        "CANCEL_OR_REFUND",
        Read::CancelOrRefund,
        "A cancellation or a refund, as `modification.action` says. Without it, a refund, which takes the same credits.",
    ),
    Row::applied(
        "REVERSAL",
        Read::CancelOrRefund,
        "A cancellation or a refund, as `modification.action` says. Another action becomes a dead letter.",
    ),
    Row::applied("REFUND", Read::Refund, "One refund. Not successful: that refund does not take place."),
    Row::applied("REFUND_WITH_DATA", Read::Refund, "One refund. Not successful: that refund does not take place."),
    Row::applied("REFUND_FAILED", Read::RefundUndone, "The refund did not reach the buyer; the money is still there."),
    Row::applied("REFUNDED_REVERSED", Read::RefundUndone, "The refunded money came back."),
    Row::applied("POSTPONED_REFUND", Read::PostponedRefund, "A refund that follows the capture. It counts at once."),
    Row::applied(
        "VOID_PENDING_REFUND",
        Read::VoidedRefund,
        "A refund was called off, and the message does not say which: a dead letter. Not successful: nothing changes.",
    ),
    Row::ignored(
        "REFUND_NOT_CLEARED",
        SaidByAnotherEvent,
        "The buyer has the money of a refund that REFUND reported; only the settlement with the acquirer is open.",
    ),
    Row::dead_letter(
        "SETTLED_REVERSED",
        "Adyen takes back a settled payment that it did not receive itself, and tells no later settlement: an operator decides.",
    ),
    Row::dead_letter(
        "HANDLED_EXTERNALLY",
        "The payment was handled outside Adyen; an operator decides whether the money is there.",
    ),
    Row::ignored(
        "ORDER_OPENED",
        SaidByAnotherEvent,
        "An Adyen order of several payments began; each payment has an AUTHORISATION.",
    ),
    Row::applied(
        "ORDER_CLOSED",
        Read::OrderClosed,
        "Not successful: every payment of the Adyen order was canceled or refunded. Successful: ignored, because each payment has \
         an AUTHORISATION.",
    ),
    Row::ignored("MANUAL_REVIEW_ACCEPT", NoMoney, "The payment stays as it is."),
    Row::applied(
        "MANUAL_REVIEW_REJECT",
        Read::ReviewRejected,
        "With automatic capture a dead letter, because the payment counts as paid and may be given back without a message. With \
         manual capture it is ignored.",
    ),
    // Rounds: 1 the chargeback, 2 its reversal, 3 pre-arbitration and the second chargeback, 4 the result of a pre-arbitration,
    // 5 the scheme's arbitration.
    dispute("REQUEST_FOR_INFORMATION", 1, Inquiry, "A question of the buyer's bank; no money moved."),
    dispute("NOTIFICATION_OF_CHARGEBACK", 1, Open, "A dispute is open; the money is going to be taken."),
    dispute("DISPUTE_OPENED_WITH_CHARGEBACK", 1, Lost, "A dispute began with a chargeback: the money is gone."),
    dispute("CHARGEBACK", 1, Lost, "The money is gone, and stays gone unless a later step brings it back."),
    dispute("CHARGEBACK_REVERSED", 2, Won, "The money is back; a later step can take it again."),
    dispute(
        "ISSUER_RESPONSE_TIMEFRAME_EXPIRED",
        2,
        Won,
        "The bank accepted the defense or did not answer: the dispute is won.",
    ),
    dispute("PREARBITRATION_OPEN", 3, Open, "The bank opens the dispute again."),
    dispute("PREARBITRATION_DECLINED", 3, Open, "You declined; the dispute is still open."),
    dispute("PREARBITRATION_ISSUER_WITHDRAWN", 3, Won, "The bank withdrew."),
    dispute("PREARBITRATION_ACCEPTED", 3, Lost, "You accepted; a second chargeback takes the money."),
    dispute("SECOND_CHARGEBACK", 3, Lost, "The money is gone again. The amount may contain fees of the card scheme."),
    dispute("PREARBITRATION_WON", 4, Won, "The dispute is won. CHARGEBACK_REVERSED reports the same money."),
    dispute("PREARBITRATION_LOST", 4, Lost, "The dispute is lost; the money stays gone."),
    dispute("SCHEME_ARBITRATION", 5, Open, "The card scheme is asked to decide; the dispute is open."),
    dispute("SCHEME_ARBITRATION_WON", 5, Won, "The card scheme decided for you."),
    dispute(
        "SCHEME_ARBITRATION_LOST",
        5,
        Lost,
        "The card scheme decided against you; a second chargeback takes the money.",
    ),
    Row::ignored(
        "NOTIFICATION_OF_FRAUD",
        NoMoney,
        "A report of the buyer's bank. It is no dispute, and no money moves.",
    ),
    Row::ignored("INFORMATION_SUPPLIED", NoMoney, "Documents went to the bank; where the money is does not change."),
    Row::ignored(
        "DISPUTE_DEFENSE_PERIOD_ENDED",
        SaidByAnotherEvent,
        "The dispute stays as it is; CHARGEBACK reports the money.",
    ),
    Row::ignored("ISSUER_COMMENTS", NoMoney, "Words of the bank."),
    Row::ignored(
        "AUTORESCUE",
        SaidByAnotherEvent,
        "The end of Adyen's retries of a refused payment; a payment that succeeds has an AUTHORISATION.",
    ),
    Row::ignored("AUTORESCUE_NEXT_ATTEMPT", NoMoney, "When Adyen tries a refused payment again."),
    Row::ignored("CANCEL_AUTORESCUE", NoMoney, "Adyen no longer tries a refused payment."),
    Row::ignored("AUTHENTICATION", NoMoney, "The buyer was authenticated, and nothing was taken."),
    Row::ignored("RECURRING_CONTRACT", NoMoney, "Payment details were stored."),
    Row::ignored("DISABLE_RECURRING", NoMoney, "Stored payment details were removed."),
    Row::ignored("REPORT_AVAILABLE", NoMoney, "A report can be downloaded."),
    Row::ignored(
        "DONATION",
        NotOurs,
        "A buyer gave money to a charity. It is a payment of its own, to the account of the charity.",
    ),
    Row::ignored("PAYOUT_THIRDPARTY", NoPayment, "A payout, which is no payment of an order."),
    Row::ignored("PAYOUT_DECLINE", NoPayment, "A payout, which is no payment of an order."),
    Row::ignored("PAYOUT_EXPIRE", NoPayment, "A payout, which is no payment of an order."),
    Row::ignored("PAIDOUT_REVERSED", NoPayment, "A payout that came back; it is no payment of an order."),
    Row::ignored(
        "ach.notificationOfChange",
        NoMoney,
        "Bank details changed; the message has a `type` and no event code.",
    ),
    Row::ignored("ACH_NOTIFICATION_OF_CHANGE", NoMoney, "Bank details changed."),
    Row::ignored("DIRECT_DEBIT_NOTICE_OF_CHANGE_NOTIFICATION", NoMoney, "Bank details changed."),
    Row::ignored(
        "balancePlatform.*",
        NoPayment,
        "About accounts of a balance platform; the message has a `type` and no event code.",
    ),
    Row::dead_letter(
        "*",
        "A code that this release does not know: an operator sees whether it moves money of an order.",
    ),
];

pub(super) fn page() -> Page {
    let intro = "What grantonce does with each event code that Adyen publishes for the standard webhook. An item may say \
                 `success` or not; the\nlast column tells what that changes.";
    Page::new("Adyen's events", intro, ROWS)
}

//! What a provider can say of a payment, in words that belong to no provider.

use super::ids::{FactId, MessageId, OrderId, PaymentId, Provider, ProviderAccount};
use super::money::{AMOUNT_MINOR_MAX, Money};
use super::text::tidy;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How many further ids of the same payment one message may carry.
pub const RELATED_IDS_MAX: usize = 8;

/// Longest failure reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 500;

named! {
    /// How one capture stands. Of two states that the provider reports for the same time, the later variant counts.
    #[derive(PartialOrd, Ord)]
    pub enum CaptureState {
        /// The money is there.
        Succeeded = "succeeded",
        /// The money is gone again: the capture failed after it had been reported.
        Failed = "failed",
    }
}

named! {
    /// How one refund stands. Of two states that the provider reports for the same time, the later variant counts.
    #[derive(PartialOrd, Ord)]
    pub enum RefundState {
        /// On its way to the buyer; counts as taken.
        Pending = "pending",
        /// The buyer has the money.
        Succeeded = "succeeded",
        /// It came back to us (also: canceled), even after it had been reported as succeeded.
        Failed = "failed",
    }
}

named! {
    /// How one round of a dispute stands. Of two states that the provider reports for the same time and round, the later variant
    /// counts.
    #[derive(PartialOrd, Ord)]
    pub enum DisputeState {
        /// A question of the buyer's bank; no money moved.
        Inquiry = "inquiry",
        /// The money is held back.
        Open = "open",
        /// The money is ours again.
        Won = "won",
        /// The money is the buyer's.
        Lost = "lost",
    }
}

named! {
    /// Whether an open dispute takes the credits at once or only when it is lost.
    pub enum DisputePolicy {
        /// At once; a won dispute gives them back. The default.
        Hold = "hold",
        /// Only when the dispute is lost.
        Lost = "lost",
    }
}

#[expect(clippy::derivable_impls, reason = "variants of named! have documentation and no attributes")]
impl Default for DisputePolicy {
    fn default() -> Self {
        Self::Hold
    }
}

/// The parts of a captured total that an order's price may leave out: what came on top of it and what was taken off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Breakdown {
    /// Tax that was added on top, in minor units. Tax that the price contains is not counted here.
    tax_minor: i64,
    /// What was taken off, in minor units.
    discount_minor: i64,
}

/// Why the parts of a total are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BreakdownError {
    /// Below zero, or above every amount that we take.
    #[error("{field} is {minor}; it must lie between 0 and {AMOUNT_MINOR_MAX}")]
    OutOfRange {
        /// The name of the part.
        field: &'static str,
        /// The part in minor units.
        minor: i64,
    },
    /// More tax than money.
    #[error("tax_minor is {tax_minor}, more than the total of {total_minor} that it is a part of")]
    TaxAboveTotal {
        /// The tax in minor units.
        tax_minor: i64,
        /// The total in minor units.
        total_minor: i64,
    },
}

impl Breakdown {
    /// The parts of a total, in its minor units.
    pub fn new(total: Money, tax_minor: i64, discount_minor: i64) -> Result<Self, BreakdownError> {
        for (field, minor) in [("tax_minor", tax_minor), ("discount_minor", discount_minor)] {
            if !(0..=AMOUNT_MINOR_MAX).contains(&minor) {
                return Err(BreakdownError::OutOfRange { field, minor });
            }
        }
        let total_minor = total.amount_minor();
        if tax_minor > total_minor {
            return Err(BreakdownError::TaxAboveTotal { tax_minor, total_minor });
        }
        Ok(Self { tax_minor, discount_minor })
    }

    /// Tax that was added on top, in minor units.
    pub fn tax_minor(self) -> i64 {
        self.tax_minor
    }

    /// What was taken off, in minor units.
    pub fn discount_minor(self) -> i64 {
        self.discount_minor
    }
}

/// One thing a provider says of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentStatus {
    /// Under way: authorised only, waiting for the buyer's bank, or the like.
    Pending,
    /// Money was taken. With a `capture_id` it is one of possibly several captures, without one it is the whole sum
    /// that has been captured of the payment so far.
    Captured {
        /// The amount that was captured.
        money: Money,
        /// The id of the capture, if it has one.
        capture_id: Option<FactId>,
        /// Whether the capture stands.
        state: CaptureState,
        /// The parts of this amount, where the provider tells them.
        breakdown: Option<Breakdown>,
    },
    /// A capture that an authorisation had announced will never take place (Adyen's delayed capture): no money comes.
    CaptureCanceled {
        /// The id of the capture.
        capture_id: FactId,
    },
    /// An attempt failed. Never the end: the buyer may try another card.
    Failed {
        /// The provider's words, for the buyer and support; at most 500 bytes.
        reason: String,
    },
    /// The payment was given up or expired. Not the end either: a later success still grants.
    Canceled,
    /// All parts of the price that were captured until then are given back, because the rest did not come (an Adyen order of
    /// several payments). A capture of the whole price is no part.
    PartsCanceled,
    /// The state of one refund.
    Refund {
        /// The id of the refund.
        refund_id: FactId,
        /// The state of the refund.
        state: RefundState,
        /// The amount that goes back.
        money: Money,
    },
    /// The sum of all refunds so far.
    RefundedTotal {
        /// The amount that went back in total.
        money: Money,
    },
    /// A dispute, chargeback or inquiry.
    Dispute {
        /// The id of the dispute.
        dispute_id: FactId,
        /// The state of the dispute.
        state: DisputeState,
        /// From 1. A later round (second chargeback: 2, pre-arbitration: 3) overrules an earlier one.
        round: u32,
        /// How much is disputed; may be in another currency than the payment.
        money: Money,
    },
}

impl PaymentStatus {
    /// A failed attempt; the reason is made safe to keep.
    pub fn failed(reason: &str) -> Self {
        Self::Failed { reason: tidy(reason, REASON_BYTES_MAX) }
    }

    /// The name that stands in the wire contract's `status.type`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Captured { .. } => "captured",
            Self::Failed { .. } => "failed",
            Self::Canceled | Self::CaptureCanceled { .. } => "canceled",
            Self::PartsCanceled => "parts_canceled",
            Self::Refund { .. } => "refund",
            Self::RefundedTotal { .. } => "refunded_total",
            Self::Dispute { .. } => "dispute",
        }
    }

    /// The name that stands in the wire contract's `status.state`, of the kinds that have one.
    pub fn state_name(&self) -> Option<&'static str> {
        match self {
            Self::Captured { state, .. } => Some(state.name()),
            Self::Refund { state, .. } => Some(state.name()),
            Self::Dispute { state, .. } => Some(state.name()),
            Self::Pending
            | Self::CaptureCanceled { .. }
            | Self::Failed { .. }
            | Self::Canceled
            | Self::PartsCanceled
            | Self::RefundedTotal { .. } => None,
        }
    }

    /// Whether it says that money came in.
    pub fn reports_money(&self) -> bool {
        matches!(self, Self::Captured { state: CaptureState::Succeeded, .. })
    }

    /// The amount that it speaks of, of the kinds that have one.
    pub fn money(&self) -> Option<Money> {
        match self {
            Self::Captured { money, .. }
            | Self::Refund { money, .. }
            | Self::RefundedTotal { money }
            | Self::Dispute { money, .. } => Some(*money),
            Self::Pending
            | Self::CaptureCanceled { .. }
            | Self::Failed { .. }
            | Self::Canceled
            | Self::PartsCanceled => None,
        }
    }
}

/// A provider's word about one payment: what travels from the receiver to the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentEvent {
    /// The provider that reports the event.
    pub provider: Provider,
    /// The id under which it is admitted, once.
    pub message_id: MessageId,
    /// The payment it is about.
    pub payment_id: PaymentId,
    /// Further ids of the same payment, at most [`RELATED_IDS_MAX`].
    pub related_ids: Vec<PaymentId>,
    /// The account at the provider; none is our own.
    pub provider_account: Option<ProviderAccount>,
    /// Our order, where the provider carried our id back to us.
    pub order_id: Option<OrderId>,
    /// The fact about the payment.
    pub status: PaymentStatus,
    /// When it happened, by the provider's clock. The same for every copy of the message.
    pub occurred_at: OffsetDateTime,
    /// When the provider said so, by its clock, where it was asked: what it says then outranks what it reported until then.
    /// `None` where the message reports a change at the time of the change.
    pub as_of: Option<OffsetDateTime>,
    /// Whether real money moved.
    pub livemode: bool,
}

/// Something has happened to a payment, and that is all that is believed: its provider is to be asked what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// The provider to ask.
    pub provider: Provider,
    /// The id of the message that said so.
    pub message_id: MessageId,
    /// The payment, or something that leads to it at the provider: a checkout session, a charge, a capture, a refund.
    pub payment_id: PaymentId,
    /// Further ids of the same payment, at most [`RELATED_IDS_MAX`].
    pub related_ids: Vec<PaymentId>,
    /// The account at the provider; none is our own.
    pub provider_account: Option<ProviderAccount>,
    /// Whether it is said to be about real money.
    pub livemode: bool,
}

impl Hint {
    /// The payment's ids, the main one first.
    pub fn payment_ids(&self) -> impl Iterator<Item = &PaymentId> + Clone {
        std::iter::once(&self.payment_id).chain(&self.related_ids)
    }
}

impl AsRef<PaymentEvent> for PaymentEvent {
    fn as_ref(&self) -> &PaymentEvent {
        self
    }
}

impl PaymentEvent {
    /// The payment's ids, the main one first.
    pub fn payment_ids(&self) -> impl Iterator<Item = &PaymentId> + Clone {
        std::iter::once(&self.payment_id).chain(&self.related_ids)
    }
}

//! What a provider can say of a payment, in words that belong to no provider.

use super::ids::{FactId, MessageId, OrderId, PaymentId, Provider, ProviderAccount};
use super::money::Money;
use super::text::tidy;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// How many further ids of the same payment one message may carry.
pub const RELATED_IDS_MAX: usize = 8;

/// Longest failure reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// How one capture stands. Later variants overrule earlier ones, whatever arrives first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureState {
    /// The money is there.
    Succeeded,
    /// The money is gone again: the capture failed after it had been reported.
    Failed,
}

/// How one refund stands. Later variants overrule earlier ones, whatever arrives first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundState {
    /// On its way to the buyer; counts as taken.
    Pending,
    /// The buyer has the money.
    Succeeded,
    /// It came back to us (also: canceled), even after it had been reported as succeeded.
    Failed,
}

/// How one round of a dispute stands. Later variants overrule earlier ones, whatever arrives first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisputeState {
    /// A question of the buyer's bank; no money moved.
    Inquiry,
    /// The money is held back.
    Open,
    /// The money is ours again.
    Won,
    /// The money is the buyer's.
    Lost,
}

/// Whether an open dispute takes the credits at once or only when it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DisputePolicy {
    /// At once; a won dispute gives them back. The default.
    #[default]
    Hold,
    /// Only when the dispute is lost.
    Lost,
}

/// One thing a provider says of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PaymentStatus {
    /// Under way: authorised only, waiting for the buyer's bank, or the like.
    Pending,
    /// Money was taken. With a `capture_id` it is one of possibly several captures, without one it is the whole sum
    /// that has been captured of the payment so far.
    Captured {
        /// How much.
        money: Money,
        /// Which capture.
        capture_id: Option<FactId>,
        /// Whether it stands.
        state: CaptureState,
    },
    /// An attempt failed. Never the end: the buyer may try another card.
    Failed {
        /// The provider's words, for the buyer and support; at most 500 bytes.
        reason: String,
    },
    /// The payment was given up or expired. Not the end either: a later success still grants.
    Canceled,
    /// One refund.
    Refund {
        /// Which.
        refund_id: FactId,
        /// How it stands.
        state: RefundState,
        /// How much.
        money: Money,
    },
    /// The sum of all refunds so far.
    RefundedTotal {
        /// How much altogether.
        money: Money,
    },
    /// A dispute, chargeback or inquiry.
    Dispute {
        /// Which.
        dispute_id: FactId,
        /// How it stands.
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
            Self::Canceled => "canceled",
            Self::Refund { .. } => "refund",
            Self::RefundedTotal { .. } => "refunded_total",
            Self::Dispute { .. } => "dispute",
        }
    }
}

/// A provider's word about one payment: what travels from the receiver to the worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PaymentEvent {
    /// Who says so.
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
    /// What is said.
    pub status: PaymentStatus,
    /// When it happened, by the provider's clock. The same for every copy of the message.
    pub occurred_at: OffsetDateTime,
    /// Whether real money moved.
    pub livemode: bool,
}

/// Something has happened to a payment, and that is all that is believed: its provider is to be asked what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hint {
    /// Whom to ask.
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
    pub fn payment_ids(&self) -> impl Iterator<Item = &PaymentId> {
        std::iter::once(&self.payment_id).chain(&self.related_ids)
    }
}

impl PaymentEvent {
    /// The payment's ids, the main one first.
    pub fn payment_ids(&self) -> impl Iterator<Item = &PaymentId> {
        std::iter::once(&self.payment_id).chain(&self.related_ids)
    }
}

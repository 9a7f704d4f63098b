//! A payment at the simulated provider: what has become of it, and its events as the webhooks of that provider would tell
//! them. Below it, one file a provider: its words for the same things, which webhooks and API share.

mod paypal;
mod standard;
mod stripe;

pub(super) use paypal::{
    capture as paypal_capture, capture_id as paypal_capture_id, dispute as paypal_dispute, order as paypal_order,
    refund as paypal_refund,
};
pub(super) use stripe::{
    Intent, charge as stripe_charge, dispute as stripe_dispute, intent as stripe_intent, refund as stripe_refund,
    session as stripe_session,
};

use crate::domain::{Currency, DisputeState, Money, OrderId, RefundState};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Whose payment it is, and whose webhooks are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Seller {
    /// Stripe's events, signed as Stripe signs.
    Stripe,
    /// `payment-status.v1`, signed by Standard Webhooks 1.0. Nobody can be asked about these payments.
    Standard,
    /// PayPal's orders. Its webhooks need certificates, so none is sent: whoever wants to know has to ask.
    Paypal,
}

impl Seller {
    /// The name in an order and in the receiver's path.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Standard => "standard",
            Self::Paypal => "paypal",
        }
    }
}

/// What becomes of a payment once the buyer has acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Paid.
    Succeeded,
    /// The card was declined. The buyer may try again.
    Failed,
    /// Given up, for good.
    Canceled,
}

/// How a payment stands with its buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    /// Nobody has tried.
    Open,
    /// The last try failed.
    Failed,
    /// PayPal: the buyer has agreed, and nobody has taken the money yet.
    Approved,
    /// Paid. Some or all of it may have gone back.
    Succeeded,
    /// Given up.
    Canceled,
}

impl Status {
    /// The name that the provider's control shows.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "awaiting_payment",
            Self::Failed => "failed",
            Self::Approved => "approved",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }
}

/// Money that goes back to the buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refund {
    /// From 1.
    pub(super) number: usize,
    pub(super) money: Money,
    pub(super) state: RefundState,
    pub(super) at: OffsetDateTime,
}

/// Money that the buyer's bank wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dispute {
    /// From 1.
    pub(super) number: usize,
    pub(super) money: Money,
    pub(super) state: DisputeState,
    pub(super) at: OffsetDateTime,
    /// When the state became that.
    pub(super) since: OffsetDateTime,
}

/// What has become of a payment: what its provider's API tells whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) status: Status,
    /// When the status became that.
    pub(super) since: OffsetDateTime,
    pub(super) refunds: Vec<Refund>,
    pub(super) disputes: Vec<Dispute>,
}

impl State {
    /// Of a payment that waits for its buyer.
    pub(super) fn new(at: OffsetDateTime) -> Self {
        Self { status: Status::Open, since: at, refunds: Vec::new(), disputes: Vec::new() }
    }

    /// The sum of the refunds that did not fail, in minor units.
    pub(super) fn refunded_minor(&self) -> i64 {
        let stands = |refund: &&Refund| refund.state != RefundState::Failed;
        self.refunds.iter().filter(stands).map(|refund| refund.money.amount_minor()).sum()
    }

    /// The sum that is held back or was lost in disputes, in minor units.
    pub(super) fn disputed_minor(&self) -> i64 {
        let is_gone = |dispute: &&Dispute| match dispute.state {
            DisputeState::Open | DisputeState::Lost => true,
            DisputeState::Inquiry | DisputeState::Won => false,
        };
        self.disputes.iter().filter(is_gone).map(|dispute| dispute.money.amount_minor()).sum()
    }
}

/// What happens to a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Created,
    FundsWithdrawn,
    FundsReinstated,
    Closed,
}

/// What one event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The payment exists: genuine, and none of our business.
    Created,
    /// The bank is at it.
    Processing,
    /// An attempt failed.
    AttemptFailed,
    /// Paid.
    Succeeded,
    /// Paid, in other words: the checkout session that the payment belongs to is complete.
    SessionCompleted,
    /// Given up.
    Canceled,
    /// How much went back so far, in minor units.
    RefundedTotal(i64),
    /// One refund was made.
    RefundMade(Refund),
    /// One refund stands otherwise than before.
    RefundChanged(Refund),
    /// One dispute.
    Disputed(Dispute, Step),
}

impl Said {
    /// Whether whoever hears it owes the buyer the credits.
    pub(super) fn is_paid(self) -> bool {
        match self {
            Self::Succeeded | Self::SessionCompleted => true,
            Self::Created
            | Self::Processing
            | Self::AttemptFailed
            | Self::Canceled
            | Self::RefundedTotal(_)
            | Self::RefundMade(_)
            | Self::RefundChanged(_)
            | Self::Disputed(..) => false,
        }
    }
}

/// What stays of a payment as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payment {
    /// `pi_…` at Stripe, `PAYPAL…` at PayPal, `pay_…` else.
    pub(super) id: String,
    /// What all ids of this payment end with.
    pub(super) tag: String,
    pub(super) seller: Seller,
    pub(super) money: Money,
    pub(super) created_at: OffsetDateTime,
}

/// One event of a payment. It holds all that its webhook says, so that every copy has the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) said: Said,
    pub(super) at: OffsetDateTime,
    /// The order's id, where the payment carried it when this happened.
    pub(super) order_id: Option<OrderId>,
}

impl Payment {
    pub(super) fn new(seller: Seller, tag: String, money: Money, created_at: OffsetDateTime) -> Self {
        let id = match seller {
            Seller::Stripe => format!("pi_{tag}"),
            Seller::Standard => format!("pay_{tag}"),
            Seller::Paypal => format!("PAYPAL{}", tag.to_ascii_uppercase()),
        };
        Self { id, tag, seller, money, created_at }
    }

    /// The `number`th event of this payment.
    pub(super) fn event(&self, number: usize, said: Said, order_id: Option<OrderId>, at: OffsetDateTime) -> Event {
        let prefix = match self.seller {
            Seller::Stripe => "evt_",
            Seller::Standard => "msg_",
            Seller::Paypal => "WH-",
        };
        Event { id: format!("{prefix}{}e{number:03}", self.tag), said, at, order_id }
    }

    /// The provider's name for what an event says.
    pub(super) fn kind(&self, said: Said) -> &'static str {
        match self.seller {
            Seller::Stripe => stripe::kind(said),
            Seller::Standard => standard::kind(said),
            Seller::Paypal => paypal::kind(said),
        }
    }

    /// The body of the event's webhook. PayPal's are never sent, and have none.
    pub(super) fn body(&self, event: &Event) -> Bytes {
        match self.seller {
            Seller::Stripe => Bytes::from(stripe::event(self, event).to_string()),
            Seller::Standard => standard::message(self, event).unwrap_or_default(),
            Seller::Paypal => Bytes::new(),
        }
    }

    /// What the seller has of it in the end, in minor units: what was paid, less what went back or is disputed.
    pub(super) fn kept_minor(&self, state: &State) -> i64 {
        let paid = if state.status == Status::Succeeded { self.money.amount_minor() } else { 0 };
        (paid - state.refunded_minor() - state.disputed_minor()).max(0)
    }

    /// The same money's worth in another amount: of a refund, or a dispute.
    pub(super) fn part(&self, amount_minor: i64) -> Result<Money, crate::domain::MoneyError> {
        Money::new(amount_minor, self.money.currency())
    }
}

/// Money as a site names it.
pub(super) fn money(amount_minor: i64, currency: &str) -> Result<Money, crate::domain::MoneyError> {
    Money::new(amount_minor, Currency::new(currency)?)
}

#[cfg(test)]
mod tests;

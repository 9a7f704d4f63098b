//! A payment at the simulated provider: what has become of it, and its events as the webhooks of that provider would tell
//! them. Below it, one file a provider: its words for the same things, which webhooks and API share.

mod paypal;
mod standard;
mod stripe;

pub(super) use paypal::{
    capture as paypal_capture, capture_id as paypal_capture_id, dispute as paypal_dispute, order as paypal_order,
    refund as paypal_refund,
};
pub(crate) use stripe::{
    Intent, charge as stripe_charge, dispute as stripe_dispute, intent as stripe_intent, refund as stripe_refund,
    session as stripe_session,
};

use crate::OrderId;
use crate::money::{Currency, Money, MoneyError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Whose payment it is, and whose webhooks are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seller {
    /// Stripe's events, signed as Stripe signs.
    Stripe,
    /// `payment-status.v1`, signed by Standard Webhooks 1.0. Nobody can be asked about these payments.
    Standard,
    /// PayPal's orders. Its webhooks need certificates, so none is sent: whoever wants to know has to ask.
    Paypal,
}

impl Seller {
    /// The name in an order and in the receiver's path.
    pub fn name(self) -> &'static str {
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
pub enum Outcome {
    /// Paid.
    Succeeded,
    /// The card was declined. The buyer may try again.
    Failed,
    /// Given up, for good.
    Canceled,
}

/// How a payment stands with its buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
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
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "awaiting_payment",
            Self::Failed => "failed",
            Self::Approved => "approved",
            Self::Succeeded => "succeeded",
            Self::Canceled => "canceled",
        }
    }
}

/// How a refund stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundState {
    /// It is on its way.
    Pending,
    /// The buyer has the money.
    Succeeded,
    /// The money came back to the seller.
    Failed,
}

/// How a dispute stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisputeState {
    /// The bank asks. No money is held back.
    Inquiry,
    /// The money is held back.
    Open,
    /// The seller keeps the money.
    Won,
    /// The buyer keeps the money.
    Lost,
}

/// Money that goes back to the buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refund {
    /// From 1.
    pub number: usize,
    /// How much goes back.
    pub money: Money,
    /// How the refund stands.
    pub state: RefundState,
    /// When it was made.
    pub at: OffsetDateTime,
}

/// Money that the buyer's bank wants back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispute {
    /// From 1.
    pub number: usize,
    /// How much the bank wants back.
    pub money: Money,
    /// How the dispute stands.
    pub state: DisputeState,
    /// When it was opened.
    pub at: OffsetDateTime,
    /// When the state became that.
    pub since: OffsetDateTime,
}

/// What has become of a payment: what its provider's API tells whoever asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// How the payment stands with its buyer.
    pub status: Status,
    /// When the status became that.
    pub since: OffsetDateTime,
    /// The refunds, oldest first.
    pub refunds: Vec<Refund>,
    /// The disputes, oldest first.
    pub disputes: Vec<Dispute>,
}

impl State {
    /// Of a payment that waits for its buyer.
    pub fn new(at: OffsetDateTime) -> Self {
        Self { status: Status::Open, since: at, refunds: Vec::new(), disputes: Vec::new() }
    }

    /// The sum of the refunds that did not fail, in minor units.
    pub fn refunded_minor(&self) -> i64 {
        let stands = |refund: &&Refund| refund.state != RefundState::Failed;
        self.refunds.iter().filter(stands).map(|refund| refund.money.amount_minor()).sum()
    }

    /// The sum that is held back or was lost in disputes, in minor units.
    pub fn disputed_minor(&self) -> i64 {
        let is_gone = |dispute: &&Dispute| match dispute.state {
            DisputeState::Open | DisputeState::Lost => true,
            DisputeState::Inquiry | DisputeState::Won => false,
        };
        self.disputes.iter().filter(is_gone).map(|dispute| dispute.money.amount_minor()).sum()
    }
}

/// What happens to a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The bank opened it.
    Created,
    /// The bank took the money.
    FundsWithdrawn,
    /// The bank gave the money back.
    FundsReinstated,
    /// The bank decided.
    Closed,
}

/// What one event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
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
    pub fn is_paid(self) -> bool {
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
pub struct Payment {
    /// `pi_…` at Stripe, `PAYPAL…` at PayPal, `pay_…` else.
    pub id: String,
    /// What all ids of this payment end with.
    pub tag: String,
    /// The provider of the payment.
    pub seller: Seller,
    /// The price.
    pub money: Money,
    /// When the payment was made.
    pub created_at: OffsetDateTime,
}

/// One event of a payment. It holds all that its webhook says, so that every copy has the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The id of the event.
    pub id: String,
    /// What the event says.
    pub said: Said,
    /// When it happened.
    pub at: OffsetDateTime,
    /// The order's id, where the payment carried it when this happened.
    pub order_id: Option<OrderId>,
}

impl Payment {
    /// A payment whose ids end with `tag`.
    pub fn new(seller: Seller, tag: String, money: Money, created_at: OffsetDateTime) -> Self {
        let id = match seller {
            Seller::Stripe => format!("pi_{tag}"),
            Seller::Standard => format!("pay_{tag}"),
            Seller::Paypal => format!("PAYPAL{}", tag.to_ascii_uppercase()),
        };
        Self { id, tag, seller, money, created_at }
    }

    /// The `number`th event of this payment.
    pub fn event(&self, number: usize, said: Said, order_id: Option<OrderId>, at: OffsetDateTime) -> Event {
        let prefix = match self.seller {
            Seller::Stripe => "evt_",
            Seller::Standard => "msg_",
            Seller::Paypal => "WH-",
        };
        Event { id: format!("{prefix}{}e{number:03}", self.tag), said, at, order_id }
    }

    /// The provider's name for what an event says.
    pub fn kind(&self, said: Said) -> &'static str {
        match self.seller {
            Seller::Stripe => stripe::kind(said),
            Seller::Standard => standard::kind(said),
            Seller::Paypal => paypal::kind(said),
        }
    }

    /// The body of the event's webhook. PayPal's are never sent, and have none.
    pub fn body(&self, event: &Event) -> Bytes {
        match self.seller {
            Seller::Stripe => Bytes::from(stripe::event(self, event).to_string()),
            Seller::Standard => Bytes::from(standard::message(self, event).to_string()),
            Seller::Paypal => Bytes::new(),
        }
    }

    /// What the seller has of it in the end, in minor units: what was paid, less what went back or is disputed.
    pub fn kept_minor(&self, state: &State) -> i64 {
        let paid = if state.status == Status::Succeeded { self.money.amount_minor() } else { 0 };
        (paid - state.refunded_minor() - state.disputed_minor()).max(0)
    }

    /// The same money's worth in another amount: of a refund, or a dispute.
    pub fn part(&self, amount_minor: i64) -> Result<Money, MoneyError> {
        Money::new(amount_minor, self.money.currency())
    }
}

/// Money as a site names it.
pub fn money(amount_minor: i64, currency: &str) -> Result<Money, MoneyError> {
    Money::new(amount_minor, Currency::new(currency)?)
}

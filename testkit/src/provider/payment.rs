//! A payment at the simulated provider: its state, and its events as the webhooks of its provider report them. Each provider has
//! its own file below. It contains the format that webhooks and API share.

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

/// The provider of a payment, and the format of its webhooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Seller {
    /// Stripe's events, with Stripe's signature.
    Stripe,
    /// `payment-status.v1`, signed with Standard Webhooks 1.0. This provider has no API that shows a payment.
    Standard,
    /// PayPal's orders. Its webhooks need certificates, so none is sent: a client must ask.
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

/// The result of the buyer's action.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The payment is paid.
    Succeeded,
    /// The card was declined. The buyer may try again.
    Failed,
    /// The buyer abandoned the payment for good.
    Canceled,
}

/// The state of a payment from the buyer's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The buyer has not tried yet.
    Open,
    /// The last attempt failed.
    Failed,
    /// PayPal: the buyer has agreed, and the seller has not taken the money yet.
    Approved,
    /// The payment is paid. Some or all of the money may have been refunded.
    Succeeded,
    /// The payment was abandoned.
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

/// The state of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefundState {
    /// The refund has not arrived yet.
    Pending,
    /// The buyer has the money.
    Succeeded,
    /// The money came back to the seller.
    Failed,
}

/// The state of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DisputeState {
    /// The bank asks for information. No money is held back.
    Inquiry,
    /// The money is held back.
    Open,
    /// The seller keeps the money.
    Won,
    /// The buyer keeps the money.
    Lost,
}

/// Money that the seller returns to the buyer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refund {
    /// The number of the refund, from 1.
    pub number: usize,
    /// The refunded amount.
    pub money: Money,
    /// The state of the refund.
    pub state: RefundState,
    /// The time when the refund was created.
    pub at: OffsetDateTime,
}

/// Money that the buyer's bank demands back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dispute {
    /// The number of the dispute, from 1.
    pub number: usize,
    /// The disputed amount.
    pub money: Money,
    /// The state of the dispute.
    pub state: DisputeState,
    /// The time when the dispute was opened.
    pub at: OffsetDateTime,
    /// The time of the last change of the state.
    pub since: OffsetDateTime,
}

/// The state of a payment, as the provider's API shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The state of the payment from the buyer's view.
    pub status: Status,
    /// The time of the last change of the status.
    pub since: OffsetDateTime,
    /// The refunds, oldest first.
    pub refunds: Vec<Refund>,
    /// The disputes, oldest first.
    pub disputes: Vec<Dispute>,
}

impl State {
    /// The state of a payment that waits for its buyer.
    pub fn new(at: OffsetDateTime) -> Self {
        Self { status: Status::Open, since: at, refunds: Vec::new(), disputes: Vec::new() }
    }

    /// The sum of the refunds that did not fail, in minor units.
    pub fn refunded_minor(&self) -> i64 {
        let stands = |refund: &&Refund| refund.state != RefundState::Failed;
        self.refunds.iter().filter(stands).map(|refund| refund.money.amount_minor()).sum()
    }

    /// The sum that is held back or lost in disputes, in minor units.
    pub fn disputed_minor(&self) -> i64 {
        let is_gone = |dispute: &&Dispute| match dispute.state {
            DisputeState::Open | DisputeState::Lost => true,
            DisputeState::Inquiry | DisputeState::Won => false,
        };
        self.disputes.iter().filter(is_gone).map(|dispute| dispute.money.amount_minor()).sum()
    }
}

/// A change of a dispute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The bank opened the dispute.
    Created,
    /// The bank took the money.
    FundsWithdrawn,
    /// The bank gave the money back.
    FundsReinstated,
    /// The bank decided the dispute.
    Closed,
}

/// The content of one event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The payment exists. The event is genuine, and it reports no money.
    Created,
    /// The bank processes the payment.
    Processing,
    /// An attempt failed.
    AttemptFailed,
    /// The payment is paid.
    Succeeded,
    /// The payment is paid, in another event: its checkout session is complete.
    SessionCompleted,
    /// The payment was abandoned.
    Canceled,
    /// The refunded total so far, in minor units.
    RefundedTotal(i64),
    /// A refund was created.
    RefundMade(Refund),
    /// The state of a refund has changed.
    RefundChanged(Refund),
    /// A dispute, and its change.
    Disputed(Dispute, Step),
}

impl Said {
    /// Returns whether the event means that the buyer must get the credits.
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

/// The fields of a payment that never change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payment {
    /// The id: `pi_…` at Stripe, `PAYPAL…` at PayPal, `pay_…` at other providers.
    pub id: String,
    /// The end of all ids of this payment.
    pub tag: String,
    /// The provider of the payment.
    pub seller: Seller,
    /// The price of the payment.
    pub money: Money,
    /// The time when the payment was created.
    pub created_at: OffsetDateTime,
}

/// One event of a payment. It contains everything that its webhook reports, so every copy has the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The id of the event.
    pub id: String,
    /// The content of the event.
    pub said: Said,
    /// The time of the event.
    pub at: OffsetDateTime,
    /// The order's id, if the payment carried it at the time of the event.
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

    /// The provider's name of an event's type.
    pub fn kind(&self, said: Said) -> &'static str {
        match self.seller {
            Seller::Stripe => stripe::kind(said),
            Seller::Standard => standard::kind(said),
            Seller::Paypal => paypal::kind(said),
        }
    }

    /// The body of the event's webhook. PayPal's webhooks are never sent, and have no body.
    pub fn body(&self, event: &Event) -> Bytes {
        match self.seller {
            Seller::Stripe => Bytes::from(stripe::event(self, event).to_string()),
            Seller::Standard => Bytes::from(standard::message(self, event).to_string()),
            Seller::Paypal => Bytes::new(),
        }
    }

    /// The amount that the seller keeps, in minor units: the paid amount without refunds and disputes.
    pub fn kept_minor(&self, state: &State) -> i64 {
        let paid = if state.status == Status::Succeeded { self.money.amount_minor() } else { 0 };
        (paid - state.refunded_minor() - state.disputed_minor()).max(0)
    }

    /// An amount in the currency of this payment, for a refund or a dispute.
    pub fn part(&self, amount_minor: i64) -> Result<Money, MoneyError> {
        Money::new(amount_minor, self.money.currency())
    }
}

/// Creates money from the fields of a site's request.
pub fn money(amount_minor: i64, currency: &str) -> Result<Money, MoneyError> {
    Money::new(amount_minor, Currency::new(currency)?)
}

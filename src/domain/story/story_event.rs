//! The events of an order's story, with their fields and sentences.

use super::Decision;
use crate::domain::{AccountId, OrderId};
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

/// One event of the story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// When the event happened.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The kind of the event and its fields.
    #[serde(flatten)]
    pub what: StoryEvent,
    /// The event in a sentence.
    pub text: String,
}

/// The kinds of events. In JSON, the name of the variant is the entry's `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(
    missing_docs,
    reason = "the fields are those of the tables, and are described in contract/story.v1.schema.json"
)]
pub enum StoryEvent {
    /// The site created the order, with its price at that time.
    OrderCreated {
        order_id: OrderId,
        account_id: AccountId,
        credits: i64,
        amount_minor: Option<i64>,
        currency: Option<String>,
        provider: String,
    },
    /// An operator changed the price of the order.
    OrderAmended {
        order_id: OrderId,
        actor: String,
        is_self_declared: bool,
        reason: Option<String>,
        before: Option<Value>,
        after: Option<Value>,
    },
    /// The provider was called to create the payment of the order.
    PaymentAttempted {
        order_id: OrderId,
        number: i32,
        #[serde(with = "time::serde::rfc3339")]
        last_sent_at: OffsetDateTime,
        is_burnt: bool,
        payment_id: Option<String>,
    },
    /// An id of a payment was registered to the order. This never changes.
    PaymentRegistered { order_id: OrderId, provider: String, payment_id: String },
    /// A message came before its order, and waits in a retry queue.
    MessagePutOff {
        message_id: String,
        provider: String,
        payment_id: String,
        order_id: Option<OrderId>,
        said: String,
        put_offs: i64,
        #[serde(with = "time::serde::rfc3339")]
        last_noted_at: OffsetDateTime,
        is_waiting: bool,
    },
    /// A message was admitted, and its fact was joined to the order's facts.
    MessageAdmitted {
        message_id: String,
        order_id: OrderId,
        said: Option<String>,
        copies: i64,
        #[serde(with = "time::serde::rfc3339::option")]
        last_copy_at: Option<OffsetDateTime>,
        decision: Decision,
        credits: i64,
    },
    /// The grant of the order. There is only one.
    CreditsGranted { order_id: OrderId, account_id: String, credits: i64, message_id: String, is_message_pruned: bool },
    /// An adjustment with its sign.
    CreditsAdjusted {
        order_id: OrderId,
        revision: i32,
        credits: i64,
        reason: String,
        message_id: String,
        is_message_pruned: bool,
    },
    /// A message could not be applied.
    LetterReceived {
        letter_id: Uuid,
        message_id: Option<String>,
        payment_id: Option<String>,
        order_id: Option<OrderId>,
        reason: String,
        detail: String,
        origin: String,
        attempts: i32,
        said: Option<String>,
        state: String,
        seen: i32,
        #[serde(with = "time::serde::rfc3339")]
        last_seen_at: OffsetDateTime,
        replays: i32,
        verdict: Option<String>,
        verdict_detail: Option<String>,
    },
    /// A dead letter changed its state.
    LetterChanged { letter_id: Uuid, state: String, actor: Option<String>, reason: Option<String> },
    /// A dead letter was replayed.
    LetterReplayed {
        letter_id: Uuid,
        replay_id: i64,
        number: i32,
        actor: String,
        is_self_declared: bool,
        reason: String,
        state: String,
        #[serde(with = "time::serde::rfc3339::option")]
        ended_at: Option<OffsetDateTime>,
    },
    /// The provider was asked about the payment, or a first look is due.
    ProviderAsked {
        provider: String,
        payment_id: String,
        order_id: Option<OrderId>,
        #[serde(with = "time::serde::rfc3339::option")]
        asked_at: Option<OffsetDateTime>,
        said: Option<String>,
        #[serde(with = "time::serde::rfc3339::option")]
        next_at: Option<OffsetDateTime>,
        failures: i32,
        wanted: i32,
    },
    /// An operator did something else.
    ActedByHand {
        action: String,
        subject: String,
        actor: String,
        is_self_declared: bool,
        reason: Option<String>,
        count: i32,
    },
}

impl StoryEvent {
    /// The public name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OrderCreated { .. } => "order_created",
            Self::OrderAmended { .. } => "order_amended",
            Self::PaymentAttempted { .. } => "payment_attempted",
            Self::PaymentRegistered { .. } => "payment_registered",
            Self::MessagePutOff { .. } => "message_put_off",
            Self::MessageAdmitted { .. } => "message_admitted",
            Self::CreditsGranted { .. } => "credits_granted",
            Self::CreditsAdjusted { .. } => "credits_adjusted",
            Self::LetterReceived { .. } => "letter_received",
            Self::LetterChanged { .. } => "letter_changed",
            Self::LetterReplayed { .. } => "letter_replayed",
            Self::ProviderAsked { .. } => "provider_asked",
            Self::ActedByHand { .. } => "acted_by_hand",
        }
    }

    /// The order of entries with the same time.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::OrderCreated { .. } => 0,
            Self::OrderAmended { .. } => 1,
            Self::PaymentAttempted { .. } => 2,
            Self::PaymentRegistered { .. } => 3,
            Self::MessagePutOff { .. } => 4,
            Self::LetterReceived { .. } => 5,
            Self::LetterReplayed { .. } => 6,
            Self::MessageAdmitted { .. } => 7,
            Self::CreditsGranted { .. } => 8,
            Self::CreditsAdjusted { .. } => 9,
            Self::LetterChanged { .. } => 10,
            Self::ProviderAsked { .. } => 11,
            Self::ActedByHand { .. } => 12,
        }
    }
}

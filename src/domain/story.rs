//! The whole story of an order, made from its records: oldest first, with a summary of what is missing.
//!
//! The store reads records, `tell` makes the [`Story`], and every output shows the same sentences and fields. The JSON form of a
//! story is public: `contract/story.v1.schema.json`.

mod decision;
mod entries;
mod missing;
mod money;
mod records;
mod story_event;
mod tell;

pub use decision::Decision;
pub use missing::{Missing, MissingCode};
pub(crate) use records::{
    AdjustmentRecord, AdmittedRecord, AttemptRecord, AuditRecord, GrantRecord, LetterRecord, LookRecord, NoteRecord,
    OrderRecord, PaymentRecord, Records, ReplayRecord,
};
pub use story_event::{Entry, StoryEvent};
pub(crate) use tell::{Terms, tell};

use super::ids::{AccountId, OrderId};
use super::order::OrderStatus;
use serde::Serialize;
use time::OffsetDateTime;

named! {
    /// The kinds of ids for which a story can be requested. An id is looked up in this order: if it matches several kinds, the
    /// first is told.
    pub enum SubjectKind {
        /// Our id of an order.
        Order = "order",
        /// The id of a dead letter.
        Letter = "letter",
        /// The id of a message (`message_id`).
        Message = "message",
        /// One of the ids of a payment at its provider.
        Payment = "payment",
        /// The site's id of the account that gets the credits.
        Account = "account",
    }
}

/// The subject of a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// The kind of the id.
    pub kind: SubjectKind,
    /// The id from the request.
    pub id: String,
}

/// The story of one subject.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    /// The subject of the story.
    pub subject: Subject,
    /// The present state of the order.
    pub summary: Summary,
    /// The orders of the story. For an account, the newest come first.
    pub orders: Vec<OrderLine>,
    /// The events, oldest first. For an account, each order has its own story.
    pub entries: Vec<Entry>,
    /// The number of earlier entries that did not fit.
    pub entries_left_out: usize,
    /// What is left out, because it is no longer kept or because there are too many rows.
    pub gaps: Vec<String>,
}

/// The present state of the subject of a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// The state in a sentence.
    pub text: String,
    /// Whether a person has to act.
    pub needs_attention: bool,
    /// What is missing, what to do next, and what is awaited.
    pub missing: Vec<Missing>,
}

/// An order in one line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderLine {
    /// Our id of the order.
    pub order_id: OrderId,
    /// The account that gets the credits.
    pub account_id: AccountId,
    /// The state of the order.
    pub status: OrderStatus,
    /// Credits sold, before refunds.
    pub credits: i64,
    /// Net credits of the account from this order.
    pub credits_granted: i64,
    /// The price, in minor units.
    pub amount_minor: i64,
    /// The currency of the price (ISO 4217).
    pub currency: String,
    /// The provider that takes the money.
    pub provider: String,
    /// The account at the provider. `None`: our own.
    pub provider_account: Option<String>,
    /// The ids of its payments, the first one first.
    pub payment_ids: Vec<String>,
    /// When the order was created.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When the order last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// The state in a sentence.
    pub text: String,
    /// Whether a person has to act.
    pub needs_attention: bool,
    /// What is missing, what to do next, and what is awaited.
    pub missing: Vec<Missing>,
}

#[cfg(test)]
mod tests;

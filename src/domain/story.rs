//! An order's whole story, told from what is written about it: oldest first, with a summary of what is missing.
//!
//! The store reads records, `tell` makes the [`Story`] of them, and whoever shows it shows the same sentences and fields.
//! The JSON form of a story is public: `contract/story.v1.schema.json`.

mod decision;
mod entries;
mod happening;
mod missing;
mod money;
mod records;
mod tell;

pub use decision::Decision;
pub use happening::{Entry, Happening};
pub use missing::{Missing, MissingCode};
pub(crate) use records::{
    AdjustmentRecord, AdmittedRecord, AttemptRecord, AuditRecord, GrantRecord, LetterRecord, LookRecord, NoteRecord,
    OrderRecord, PaymentRecord, Records, ReplayRecord,
};
pub(crate) use tell::{Terms, tell};

use super::ids::{AccountId, OrderId};
use super::order::OrderStatus;
use serde::Serialize;
use time::OffsetDateTime;

/// What a story can be asked for by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SubjectKind {
    /// Our id of an order.
    Order,
    /// The id of a dead letter.
    Letter,
    /// The id of a message.
    Message,
    /// One of the ids by which a provider knows a payment.
    Payment,
    /// The site's id of whoever gets the credits.
    Account,
}

impl SubjectKind {
    /// Every kind, in the order in which an id is looked up: where it stands for more than one thing, the first is
    /// told.
    pub const ALL: [Self; 5] = [Self::Order, Self::Letter, Self::Message, Self::Payment, Self::Account];

    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Order => "order",
            Self::Letter => "letter",
            Self::Message => "message",
            Self::Payment => "payment",
            Self::Account => "account",
        }
    }

    /// The other way round.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// What a story is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// What the id stands for.
    pub kind: SubjectKind,
    /// The id, as it was asked for.
    pub id: String,
}

/// A story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Story {
    /// What it is about.
    pub subject: Subject,
    /// How it stands now.
    pub summary: Summary,
    /// The orders that it is about; an account's are the newest first.
    pub orders: Vec<OrderLine>,
    /// What happened, oldest first. An account's orders have each its own story.
    pub entries: Vec<Entry>,
    /// Earlier entries for which there was no room.
    pub entries_left_out: usize,
    /// What is not told because it is no longer kept, or was more than is read.
    pub gaps: Vec<String>,
}

/// How the subject of a story stands now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// In a sentence.
    pub text: String,
    /// Whether a person has to do something about it.
    pub needs_attention: bool,
    /// What is missing or to be done next, and what is waited for.
    pub missing: Vec<Missing>,
}

/// An order in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderLine {
    /// Our id.
    pub order_id: OrderId,
    /// Who gets the credits.
    pub account_id: AccountId,
    /// How it stands.
    pub status: OrderStatus,
    /// Credits sold.
    pub credits: i64,
    /// Credits that the account has of it, net.
    pub credits_granted: i64,
    /// What it costs, in minor units.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// Who takes the money.
    pub provider: String,
    /// At which account there; none is our own.
    pub provider_account: Option<String>,
    /// The ids of its payment, the first one first.
    pub payment_ids: Vec<String>,
    /// When it was made.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// When it last changed.
    #[serde(with = "time::serde::rfc3339")]
    pub updated_at: OffsetDateTime,
    /// In a sentence.
    pub text: String,
    /// Whether a person has to do something about it.
    pub needs_attention: bool,
    /// What is missing or to be done next, and what is waited for.
    pub missing: Vec<Missing>,
}

#[cfg(test)]
mod tests;

//! The stored rows about an order, as the store reads them. Ids are as in their columns.

use crate::domain::{Order, Separated};
use serde_json::Value;
use time::{Date, OffsetDateTime};
use uuid::Uuid;

/// All records of a story. Lists are in any order and may be cut.
#[derive(Debug, Clone, Default)]
pub(crate) struct Records {
    pub(crate) orders: Vec<OrderRecord>,
    pub(crate) payments: Vec<PaymentRecord>,
    pub(crate) attempts: Vec<AttemptRecord>,
    pub(crate) admitted: Vec<AdmittedRecord>,
    pub(crate) notes: Vec<NoteRecord>,
    pub(crate) grants: Vec<GrantRecord>,
    pub(crate) adjustments: Vec<AdjustmentRecord>,
    pub(crate) letters: Vec<LetterRecord>,
    pub(crate) replays: Vec<ReplayRecord>,
    pub(crate) looks: Vec<LookRecord>,
    pub(crate) audit: Vec<AuditRecord>,
    /// The first day for which the inbox has a partition of its own. Older rows may be gone.
    pub(crate) inbox_since: Option<Date>,
    /// Tables with more rows than were read. The oldest rows are missing.
    pub(crate) cut: Vec<&'static str>,
}

/// An order, with the columns that the worker does not need.
#[derive(Debug, Clone)]
pub(crate) struct OrderRecord {
    pub(crate) order: Order,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

#[derive(Debug, Clone)]
pub(crate) struct PaymentRecord {
    pub(crate) order_id: Uuid,
    pub(crate) provider: String,
    /// Empty: our own account.
    pub(crate) provider_account: String,
    pub(crate) payment_id: String,
    pub(crate) registered_at: OffsetDateTime,
}

#[derive(Debug, Clone)]
pub(crate) struct AttemptRecord {
    pub(crate) order_id: Uuid,
    pub(crate) number: i32,
    pub(crate) first_sent_at: OffsetDateTime,
    pub(crate) last_sent_at: OffsetDateTime,
    pub(crate) is_burnt: bool,
    pub(crate) payment_id: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct AdmittedRecord {
    pub(crate) message_id: String,
    pub(crate) order_id: Uuid,
    /// `None`: it was admitted by a release that did not store it.
    pub(crate) said: Option<String>,
    pub(crate) admitted_at: OffsetDateTime,
}

#[derive(Debug, Clone)]
pub(crate) struct NoteRecord {
    pub(crate) message_id: String,
    pub(crate) provider: String,
    pub(crate) payment_id: String,
    pub(crate) order_id: Option<Uuid>,
    pub(crate) said: String,
    pub(crate) copies: i64,
    pub(crate) put_offs: i64,
    /// The name of a [`crate::domain::Separated`]. `None`: it waits for its order, or for nothing.
    pub(crate) waits_for: Option<String>,
    pub(crate) first_noted_at: OffsetDateTime,
    pub(crate) last_noted_at: OffsetDateTime,
    /// Whether the inbox contains the message.
    pub(crate) is_admitted: bool,
}

impl NoteRecord {
    /// Why the message waits, if not for its order.
    pub(super) fn cause(&self) -> Option<&str> {
        let name = self.waits_for.as_deref()?;
        Some(match Separated::from_name(name) {
            Some(cause) => cause.words(),
            None => name,
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct GrantRecord {
    pub(crate) order_id: Uuid,
    pub(crate) account_id: String,
    pub(crate) credits: i64,
    pub(crate) message_id: String,
    pub(crate) at: OffsetDateTime,
}

#[derive(Debug, Clone)]
pub(crate) struct AdjustmentRecord {
    pub(crate) order_id: Uuid,
    pub(crate) revision: i32,
    pub(crate) credits: i64,
    pub(crate) reason: String,
    pub(crate) message_id: String,
    pub(crate) at: OffsetDateTime,
}

#[derive(Debug, Clone)]
pub(crate) struct LetterRecord {
    pub(crate) id: Uuid,
    /// Empty: it has none.
    pub(crate) message_id: String,
    pub(crate) reason: String,
    pub(crate) detail: String,
    pub(crate) origin: String,
    pub(crate) attempts: i32,
    pub(crate) provider: String,
    /// Empty: our own account.
    pub(crate) provider_account: String,
    pub(crate) payment_id: Option<String>,
    /// Every id of its payment in the message.
    pub(crate) payment_ids: Vec<String>,
    pub(crate) order_id: Option<Uuid>,
    /// Orders in the message. They may not be orders of ours.
    pub(crate) order_ids: Vec<Uuid>,
    /// Prose for people. Nothing is decided by it.
    pub(crate) said: Option<String>,
    /// Whether the next fields, the account and the lists of ids were filled from the body.
    pub(crate) is_read: bool,
    /// `status.type` of the contract. `None`: it cannot be read.
    pub(crate) said_type: Option<String>,
    pub(crate) said_state: Option<String>,
    pub(crate) amount_minor: Option<i64>,
    pub(crate) currency: Option<String>,
    pub(crate) state: String,
    pub(crate) state_at: OffsetDateTime,
    pub(crate) state_by: Option<String>,
    pub(crate) state_reason: Option<String>,
    pub(crate) first_seen_at: OffsetDateTime,
    pub(crate) last_seen_at: OffsetDateTime,
    pub(crate) seen: i32,
    pub(crate) replays: i32,
    pub(crate) verdict: Option<String>,
    pub(crate) verdict_detail: Option<String>,
}

impl LetterRecord {
    /// Whether it reports money that came in.
    pub(super) fn reports_money(&self) -> bool {
        self.said_type.as_deref() == Some("captured") && self.said_state.as_deref() == Some("succeeded")
    }

    /// Whether it may still be replayed or archived.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state.as_str(), "open" | "replaying")
    }
}

#[derive(Debug, Clone)]
pub(crate) struct ReplayRecord {
    pub(crate) replay_id: i64,
    pub(crate) letter_id: Uuid,
    pub(crate) number: i32,
    pub(crate) state: String,
    pub(crate) actor: String,
    pub(crate) is_self_declared: bool,
    pub(crate) reason: String,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) sent_at: Option<OffsetDateTime>,
    pub(crate) ended_at: Option<OffsetDateTime>,
}

#[derive(Debug, Clone)]
pub(crate) struct LookRecord {
    pub(crate) provider: String,
    pub(crate) payment_id: String,
    pub(crate) order_id: Option<Uuid>,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) due_at: Option<OffsetDateTime>,
    pub(crate) wanted: i32,
    pub(crate) asked_at: Option<OffsetDateTime>,
    pub(crate) said: Option<String>,
    pub(crate) failures: i32,
}

#[derive(Debug, Clone)]
pub(crate) struct AuditRecord {
    pub(crate) at: OffsetDateTime,
    pub(crate) actor: String,
    pub(crate) is_self_declared: bool,
    pub(crate) action: String,
    pub(crate) subject: String,
    pub(crate) reason: Option<String>,
    pub(crate) count: i32,
    pub(crate) before: Option<Value>,
    pub(crate) after: Option<Value>,
}

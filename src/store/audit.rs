//! The audit log: every action of a person is written down in the transaction that does it.

use super::error::StoreError;
use super::pool::Store;
use super::tx::Tx;
use crate::domain::AuditAction;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

/// The person who does something by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The person's name.
    pub name: String,
    /// Whether the caller gave this name without any proof.
    pub is_self_declared: bool,
}

/// The largest number of lines on one page of the audit log.
const PAGE_MAX: u16 = 500;

/// Selects lines of the audit log. A field that is `None` selects every line. Several fields together select the lines that
/// match all of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// The line with this number.
    pub id: Option<i64>,
    /// Lines of this actor.
    pub actor: Option<String>,
    /// Lines with this action, as `<noun>.<verb>`.
    pub action: Option<String>,
    /// Lines about this subject.
    pub subject: Option<String>,
    /// Lines that were written at exactly this time.
    pub at: Option<OffsetDateTime>,
    /// Lines with a smaller number than this one.
    pub before_id: Option<i64>,
}

/// One line of the audit log, for readers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditLine {
    /// The line's number. Later lines have greater numbers.
    pub id: i64,
    /// The time of the action.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// The name of the person.
    pub actor: String,
    /// Whether the person gave the name without any proof.
    pub is_self_declared: bool,
    /// The action, as `<noun>.<verb>`.
    pub action: String,
    /// The id of the thing that was changed.
    pub subject: String,
    /// The reason that the person gave.
    pub reason: Option<String>,
    /// The number of things that were changed.
    pub count: i32,
    /// The state before the action.
    pub before: Option<Value>,
    /// The state after the action.
    pub after: Option<Value>,
}

impl Store {
    /// Returns lines of the audit log, the newest first. `count_max` is at most 500.
    pub async fn audit_log(&self, filter: AuditFilter, count_max: u16) -> Result<Vec<AuditLine>, StoreError> {
        const WHAT: &str = "reading the audit log";
        self.run(WHAT, move |pool| async move {
            sqlx::query_as!(
                AuditLine,
                "SELECT id, at, actor, is_self_declared, action, subject, reason, count, before, after FROM audit_log
                 WHERE ($1::bigint IS NULL OR id = $1) AND ($2::text IS NULL OR actor = $2)
                   AND ($3::text IS NULL OR action = $3) AND ($4::text IS NULL OR subject = $4)
                   AND ($5::timestamptz IS NULL OR at = $5) AND ($6::bigint IS NULL OR id < $6)
                 ORDER BY id DESC LIMIT $7",
                filter.id,
                filter.actor,
                filter.action,
                filter.subject,
                filter.at,
                filter.before_id,
                i64::from(count_max.clamp(1, PAGE_MAX))
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))
        })
        .await
    }
}

/// One line of the audit log that is to be written.
#[derive(Debug)]
pub(super) struct AuditEntry<'a> {
    pub(super) at: OffsetDateTime,
    pub(super) by: &'a Actor,
    pub(super) action: AuditAction,
    /// The id of the thing that is changed.
    pub(super) subject: String,
    pub(super) reason: &'a str,
    /// The number of things that are changed.
    pub(super) count: i32,
    pub(super) before: Value,
    pub(super) after: Value,
}

impl Tx {
    /// Writes one line of the audit log.
    pub(super) async fn write_audit(&mut self, entry: AuditEntry<'_>) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO audit_log (at, actor, is_self_declared, action, subject, reason, count, before, after)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
            entry.at,
            entry.by.name,
            entry.by.is_self_declared,
            entry.action.name(),
            entry.subject,
            entry.reason,
            entry.count,
            entry.before,
            entry.after
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing the audit log"))?;
        Ok(())
    }
}

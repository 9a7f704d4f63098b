//! What people did by hand, written down in the transaction that does it.

use super::error::StoreError;
use super::pool::Store;
use super::tx::Tx;
use crate::domain::AuditAction;
use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

/// Who does something by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    /// The name.
    pub name: String,
    /// Whether nobody vouches for it but whoever gave it.
    pub is_self_declared: bool,
}

/// Most lines on one page of the audit log.
const PAGE_MAX: u16 = 500;

/// Which lines of the audit log. What is none is not asked for; the fields together narrow it down.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// This one.
    pub id: Option<i64>,
    /// What this one did.
    pub actor: Option<String>,
    /// What was done in this way, as `<noun>.<verb>`.
    pub action: Option<String>,
    /// What was done to this.
    pub subject: Option<String>,
    /// What was done at this very time.
    pub at: Option<OffsetDateTime>,
    /// Lines before this one.
    pub before_id: Option<i64>,
}

/// One line of the audit log, as people look at it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditLine {
    /// Its number: later lines have greater ones.
    pub id: i64,
    /// When.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// Whether nobody vouches for the name.
    pub is_self_declared: bool,
    /// What was done, as `<noun>.<verb>`.
    pub action: String,
    /// To what.
    pub subject: String,
    /// Why.
    pub reason: Option<String>,
    /// To how many.
    pub count: i32,
    /// How it was.
    pub before: Option<Value>,
    /// How it was then.
    pub after: Option<Value>,
}

impl Store {
    /// Lines of the audit log, the newest first; `count_max` is at most 500.
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

/// One line of the audit log, to be written.
#[derive(Debug)]
pub(super) struct AuditEntry<'a> {
    pub(super) at: OffsetDateTime,
    pub(super) by: &'a Actor,
    pub(super) action: AuditAction,
    /// To what: an id.
    pub(super) subject: String,
    pub(super) reason: &'a str,
    /// To how many.
    pub(super) count: i32,
    pub(super) before: Value,
    pub(super) after: Value,
}

impl Tx {
    /// Writes a line of the audit log.
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

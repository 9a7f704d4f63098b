//! What people did by hand, written down in the transaction that does it.

use super::error::StoreError;
use super::tx::Tx;
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

/// One line of the audit log.
#[derive(Debug)]
pub(super) struct AuditEntry<'a> {
    pub(super) at: OffsetDateTime,
    pub(super) by: &'a Actor,
    /// What was done, as `<noun>.<verb>`.
    pub(super) action: &'static str,
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
            entry.action,
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

//! One transaction, begun and ended explicitly.

use super::error::StoreError;
use sqlx::{AssertSqlSafe, PgPool, Postgres};
use std::time::Duration;

/// Proof that a transaction is committed. Nothing else makes one; a delivery cannot be acknowledged without it.
#[derive(Debug)]
pub struct Committed(());

impl Committed {
    /// Two committed transactions are as good as one.
    pub(super) fn and(self, _also: Self) -> Self {
        self
    }
}

/// An open transaction. Dropping it rolls it back.
#[derive(Debug)]
pub(super) struct Tx {
    inner: sqlx::Transaction<'static, Postgres>,
}

impl Tx {
    /// READ COMMITTED, which the whole design rests on: a statement sees what others committed before it began, and
    /// `ON CONFLICT DO NOTHING` waits for an uncommitted rival instead of failing.
    pub(super) async fn begin(pool: &PgPool) -> Result<Self, StoreError> {
        let inner = pool
            .begin_with("BEGIN ISOLATION LEVEL READ COMMITTED")
            .await
            .map_err(StoreError::sql("beginning a transaction"))?;
        Ok(Self { inner })
    }

    /// As [`Tx::begin`]. A row that another session has locked is waited for as long as `lock_wait`, and not as long as the
    /// connection's own setting says. Both are one message to the server.
    pub(super) async fn begin_waiting(pool: &PgPool, lock_wait: Duration) -> Result<Self, StoreError> {
        let begin =
            format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}", lock_wait.as_millis().max(1));
        let inner = pool.begin_with(AssertSqlSafe(begin)).await.map_err(StoreError::sql("beginning a transaction"))?;
        Ok(Self { inner })
    }

    /// For many reads that must fit together: all of them see what was committed before the first, and nothing is
    /// written.
    pub(super) async fn begin_reading(pool: &PgPool) -> Result<Self, StoreError> {
        let inner = pool
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await
            .map_err(StoreError::sql("beginning to read"))?;
        Ok(Self { inner })
    }

    /// The connection, for one statement.
    pub(super) fn connection(&mut self) -> &mut sqlx::PgConnection {
        &mut self.inner
    }

    /// Commits. An error means that the outcome is unknown.
    pub(super) async fn commit(self) -> Result<Committed, StoreError> {
        self.inner.commit().await.map_err(StoreError::sql("committing"))?;
        Ok(Committed(()))
    }

    /// Rolls back and says so, instead of leaving it to the drop.
    pub(super) async fn roll_back(self) -> Result<(), StoreError> {
        self.inner.rollback().await.map_err(StoreError::sql("rolling back"))
    }
}

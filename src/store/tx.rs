//! One transaction, begun and ended explicitly.

use super::error::StoreError;
use super::pool::{PooledConnection, Session};
use sqlx::{AssertSqlSafe, Executor, PgConnection, SqlSafeStr};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// Proof that a transaction is committed. Nothing else makes one; a delivery cannot be acknowledged without it.
#[derive(Debug)]
pub struct Committed(());

impl Committed {
    /// Two committed transactions are as good as one.
    pub(super) fn and(self, _also: Self) -> Self {
        self
    }
}

/// An open transaction. One that is dropped is rolled back before its connection is used for anything else.
#[derive(Debug)]
pub(super) struct Tx {
    session: OwnedMutexGuard<Session>,
}

impl Tx {
    /// READ COMMITTED, which the whole design rests on: a statement sees what others committed before it began, and
    /// `ON CONFLICT DO NOTHING` waits for an uncommitted rival instead of failing.
    pub(super) async fn begin(pooled: &PooledConnection) -> Result<Self, StoreError> {
        Self::begin_with(pooled, "BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// As [`Tx::begin`]. A row that another session has locked is waited for as long as `lock_wait`, and not as long as the
    /// connection's own setting says. Both are one message to the server.
    pub(super) async fn begin_waiting(pooled: &PooledConnection, lock_wait: Duration) -> Result<Self, StoreError> {
        let begin =
            format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}", lock_wait.as_millis().max(1));
        Self::begin_with(pooled, AssertSqlSafe(begin)).await
    }

    /// For many reads that must fit together: all of them see what was committed before the first, and nothing is
    /// written.
    pub(super) async fn begin_reading(pooled: &PooledConnection) -> Result<Self, StoreError> {
        Self::begin_with(pooled, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await
    }

    async fn begin_with(pooled: &PooledConnection, begin: impl SqlSafeStr) -> Result<Self, StoreError> {
        let mut session = pooled.session().await?;
        session.may_be_open = true;
        session.connection.execute(sqlx::raw_sql(begin)).await.map_err(StoreError::sql("beginning a transaction"))?;
        Ok(Self { session })
    }

    /// The connection, for one statement.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.session.connection
    }

    /// Commits. An error means that the outcome is unknown.
    pub(super) async fn commit(mut self) -> Result<Committed, StoreError> {
        self.session.connection.execute("COMMIT").await.map_err(StoreError::sql("committing"))?;
        self.session.may_be_open = false;
        Ok(Committed(()))
    }

    /// Rolls back and says so, instead of leaving it to the drop.
    pub(super) async fn roll_back(mut self) -> Result<(), StoreError> {
        self.session.roll_back().await.map_err(StoreError::sql("rolling back"))
    }
}

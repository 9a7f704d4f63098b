//! One transaction, with an explicit begin and end.

use super::error::StoreError;
use super::pool::{PooledConnection, Session};
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Postgres, SqlSafeStr};
use std::time::Duration;
use tokio::sync::OwnedMutexGuard;

/// Proof that a transaction is committed. Only `Tx::commit` and `Autocommit::commit` make one, and a delivery cannot be acknowledged
/// without it.
#[derive(Debug)]
pub struct Committed(());

impl Committed {
    /// The proof of two committed transactions is the proof of one.
    pub(super) fn and(self, _also: Self) -> Self {
        self
    }
}

/// An open transaction. If it is dropped, it is rolled back before its connection is used again.
#[derive(Debug)]
pub(super) struct Tx {
    session: OwnedMutexGuard<Session>,
}

impl Tx {
    /// Begins with READ COMMITTED. The whole design relies on it: a statement sees what others committed before it began,
    /// and `ON CONFLICT DO NOTHING` waits for another transaction that is not committed instead of failing.
    pub(super) async fn begin(pooled: &PooledConnection) -> Result<Self, StoreError> {
        Self::begin_with(pooled, "BEGIN ISOLATION LEVEL READ COMMITTED").await
    }

    /// Begins like [`Tx::begin`]. If another session has locked a row, the transaction waits for `lock_wait` instead of the
    /// time that the connection's setting says. Both statements are one message to the server.
    pub(super) async fn begin_waiting(pooled: &PooledConnection, lock_wait: Duration) -> Result<Self, StoreError> {
        let begin =
            format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = {}", lock_wait.as_millis().max(1));
        Self::begin_with(pooled, AssertSqlSafe(begin)).await
    }

    /// Begins a transaction for many reads that must fit together. All of them see what was committed before the first read.
    /// Nothing can be written.
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

    /// Commits. After an error the outcome is unknown.
    pub(super) async fn commit(mut self) -> Result<Committed, StoreError> {
        self.session.connection.execute("COMMIT").await.map_err(StoreError::sql("committing"))?;
        self.session.may_be_open = false;
        Ok(Committed(()))
    }

    /// Rolls back and reports an error, which a drop does not.
    pub(super) async fn roll_back(mut self) -> Result<(), StoreError> {
        self.session.roll_back().await.map_err(StoreError::sql("rolling back"))
    }
}

/// A connection on which each statement is a transaction of its own.
#[derive(Debug)]
pub(super) struct Autocommit {
    session: OwnedMutexGuard<Session>,
}

impl Autocommit {
    /// Takes the connection. No transaction is open on it.
    pub(super) async fn on(pooled: &PooledConnection) -> Result<Self, StoreError> {
        Ok(Self { session: pooled.session().await? })
    }

    /// The connection, for one statement that reads.
    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.session.connection
    }

    /// Runs one statement that writes. It is one transaction, so all of it is committed when Postgres is ready for the next
    /// statement, and sqlx returns only then. Without a connection error, an error means that nothing was written.
    pub(super) async fn commit(
        mut self,
        statement: Query<'_, Postgres, PgArguments>,
    ) -> Result<Committed, sqlx::Error> {
        statement.execute(&mut self.session.connection).await?;
        Ok(Committed(()))
    }

    /// The proof of a batch that has nothing to write: everything that it relies on was read, so it was committed before.
    pub(super) fn nothing_to_write(self) -> Committed {
        Committed(())
    }
}

//! Keeps the size of the inbox bounded.

use super::error::StoreError;
use super::pool::Store;
use super::tx::Tx;
use time::{Duration, OffsetDateTime};

/// The result of one round of maintenance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maintained {
    /// The number of partitions that were made for future days.
    pub made: i32,
    /// The number of partitions that were dropped, because their day is older than the retention.
    pub dropped: i32,
}

impl Store {
    /// Makes the partitions of the inbox for the days around `now`, and drops those that are older than `retention`. Many
    /// processes may call it at once: one of them does the work.
    pub async fn maintain_inbox(&self, now: OffsetDateTime, retention: Duration) -> Result<Maintained, StoreError> {
        const WHAT: &str = "maintaining the inbox";
        let today = now.to_offset(time::UtcOffset::UTC).date();
        let retention_days = i32::try_from(retention.whole_days().max(1)).unwrap_or(i32::MAX);
        // It locks whole partitions, and batches hold these locks.
        let lock_wait = self.deadline() / 2;
        self.run(WHAT, move |pool| async move {
            let mut tx = Tx::begin_waiting(&pool, lock_wait).await?;
            let row = sqlx::query!(
                r#"SELECT made AS "made!", dropped AS "dropped!" FROM inbox_maintain($1, $2)"#,
                today,
                retention_days
            )
            .fetch_one(tx.connection())
            .await
            .map_err(StoreError::sql(WHAT))?;
            tx.commit().await?;
            Ok(Maintained { made: row.made, dropped: row.dropped })
        })
        .await
    }
}

//! Keeping the inbox bounded.

use super::error::StoreError;
use super::pool::Store;
use super::tx::Tx;
use time::{Duration, OffsetDateTime};

/// What a round of maintenance did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maintained {
    /// Partitions made for days to come.
    pub made: i32,
    /// Partitions dropped because their day is past retention.
    pub dropped: i32,
}

impl Store {
    /// Makes the inbox's partitions for the days around `now` and drops those older than `retention`. Safe to call from
    /// many processes at once; all but one do nothing.
    pub async fn maintain_inbox(&self, now: OffsetDateTime, retention: Duration) -> Result<Maintained, StoreError> {
        const WHAT: &str = "maintaining the inbox";
        let today = now.to_offset(time::UtcOffset::UTC).date();
        let retention_days = i32::try_from(retention.whole_days().max(1)).unwrap_or(i32::MAX);
        self.run(WHAT, move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
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

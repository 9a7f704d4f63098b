//! An independent look at the ledger's public tables, for the demo's audit. It reads what any reporting user may read
//! and shares no code with what writes it: a witness that asked the accused would be none.

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use std::time::Duration;

/// How long one reading may take, waiting for a connection included.
const DEADLINE: Duration = Duration::from_secs(60);

/// Why nothing could be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WitnessError {
    /// Postgres said no, or nothing.
    #[error("reading the ledger's tables: {0}")]
    Sql(#[from] sqlx::Error),
    /// Postgres did not answer in time.
    #[error("reading the ledger's tables took longer than {} s", DEADLINE.as_secs())]
    TimedOut,
}

/// What the ledger holds for one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holding {
    /// Our order.
    pub(crate) order_id: String,
    /// Who has the credits.
    pub(crate) account_id: String,
    /// The grant and all adjustments.
    pub(crate) credits: i64,
}

/// What became of one order, for whoever looks on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Story {
    /// Ids of the messages that were admitted for it, in the order of their admission.
    pub(crate) admitted: Vec<String>,
    /// What was written to the ledger for it, the grant first.
    pub(crate) postings: Vec<Posting>,
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Posting {
    /// Signed.
    pub(crate) credits: i64,
    /// Why; `grant`, or the reason of the adjustment.
    pub(crate) reason: String,
    /// The message that brought it.
    pub(crate) message_id: String,
}

/// A reader of the ledger's tables.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    pool: PgPool,
}

impl Witness {
    /// Connects when it is first asked.
    pub(crate) fn new(url: &str) -> Result<Self, WitnessError> {
        let pool =
            PgPoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(10)).connect_lazy(url)?;
        Ok(Self { pool })
    }

    /// What the ledger holds, order by order.
    pub(crate) async fn holdings(&self) -> Result<Vec<Holding>, WitnessError> {
        let rows: Vec<(String, String, i64)> = in_time(
            sqlx::query_as(
                "SELECT g.order_id::text, g.account_id::text, (g.credits + COALESCE(a.credits, 0))::bigint \
                 FROM credit_grants g \
                 LEFT JOIN (SELECT order_id, sum(credits) AS credits FROM credit_adjustments GROUP BY order_id) a \
                 USING (order_id)",
            )
            .fetch_all(&self.pool),
        )
        .await?;
        Ok(rows.into_iter().map(|(order_id, account_id, credits)| Holding { order_id, account_id, credits }).collect())
    }

    /// How many grants and adjustments are written.
    pub(crate) async fn postings(&self) -> Result<(i64, i64), WitnessError> {
        in_time(
            sqlx::query_as("SELECT (SELECT count(*) FROM credit_grants), (SELECT count(*) FROM credit_adjustments)")
                .fetch_one(&self.pool),
        )
        .await
    }

    /// Whether the inbox has admitted a message whose id contains the provider's id of an event.
    pub(crate) async fn has_admitted(&self, event_id: &str) -> Result<bool, WitnessError> {
        in_time(
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM inbox WHERE strpos(message_id, $1) > 0)")
                .bind(event_id)
                .fetch_one(&self.pool),
        )
        .await
    }

    /// What was admitted and written for an order.
    pub(crate) async fn story(&self, order_id: &str) -> Result<Story, WitnessError> {
        let admitted = in_time(
            sqlx::query_scalar(
                "SELECT message_id FROM inbox WHERE order_id = $1::uuid ORDER BY admitted_at, message_id",
            )
            .bind(order_id)
            .fetch_all(&self.pool),
        );
        let postings = in_time(
            sqlx::query_as(
                "SELECT credits, reason, message_id FROM ( \
                 SELECT 0 AS revision, credits, 'grant' AS reason, message_id \
                 FROM credit_grants WHERE order_id = $1::uuid \
                 UNION ALL SELECT revision, credits, reason, message_id \
                 FROM credit_adjustments WHERE order_id = $1::uuid) AS lines ORDER BY revision",
            )
            .bind(order_id)
            .fetch_all(&self.pool),
        );
        let (admitted, postings) = tokio::try_join!(admitted, postings)?;
        let posting = |(credits, reason, message_id): (i64, String, String)| Posting { credits, reason, message_id };
        Ok(Story { admitted, postings: postings.into_iter().map(posting).collect() })
    }

    /// Ends its connections, so that the database can be dropped without force.
    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}

async fn in_time<T>(reading: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, WitnessError> {
    match tokio::time::timeout(DEADLINE, reading).await {
        Ok(read) => Ok(read?),
        Err(_) => Err(WitnessError::TimedOut),
    }
}

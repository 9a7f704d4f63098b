//! Groups dead letters by the order that they are about. Letters of a payment without an order are grouped by that payment.

use super::settle::ToWeigh;
use super::{LetterCursor, LetterFilter, LetterToWeigh, order_id};
use crate::domain::{LetterId, OrderId};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// How many letters are grouped at most: the newest ones that a filter finds. It bounds the work of one page.
pub const LETTERS_GROUPED_MAX: u32 = 10_000;

/// How many letters of one order are named, the newest first.
pub const LETTERS_NAMED_MAX: u16 = 10;

/// Orders on one page.
const ORDERS_PAGE_MAX: u32 = 200;

/// Longest body that is read for the figures of a page, in bytes. Bodies of providers are far shorter.
const BODY_READ_BYTES_MAX: i32 = 32 * 1024;

/// The letters of one order, or of one payment that has no order. A letter that names neither is alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderLetters {
    /// The order. `None` if no order is known. A message can name an order that does not exist.
    pub order_id: Option<OrderId>,
    /// The provider of the newest letter. It is empty if the message names none.
    pub provider: String,
    /// The account at the provider; empty where it is our own.
    pub provider_account: String,
    /// The payment of the newest letter.
    pub payment_id: Option<String>,
    /// The order's account, once it is known.
    pub account_id: Option<String>,
    /// How many letters the filter finds of it.
    pub letters: i64,
    /// How many of them a replay would help, as they were judged last.
    pub helpful: i64,
    /// When the first letter came.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest_at: OffsetDateTime,
    /// When the last letter came.
    #[serde(with = "time::serde::rfc3339")]
    pub newest_at: OffsetDateTime,
    /// Its letters, the newest first, at most [`LETTERS_NAMED_MAX`].
    pub ids: Vec<LetterId>,
}

/// A page of orders. The order with the newest letter comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrdersPage {
    /// The orders.
    pub orders: Vec<OrderLetters>,
    /// Where the next page begins. `None` if this is the last page.
    pub next: Option<LetterCursor>,
    /// How many orders there are from this page on.
    pub orders_left: i64,
    /// If the filter finds more letters than are grouped: when the oldest of the grouped ones came.
    pub grouped_since: Option<OffsetDateTime>,
}

struct Row {
    order_id: Option<Uuid>,
    provider: String,
    provider_account: String,
    payment_id: Option<String>,
    account_id: Option<String>,
    letters: i64,
    helpful: i64,
    oldest_at: OffsetDateTime,
    newest_at: OffsetDateTime,
    ids: Vec<Uuid>,
    orders_left: i64,
    grouped: i64,
    grouped_since: OffsetDateTime,
}

impl Store {
    /// Groups the letters of a filter by their order and lists the orders, the one with the newest letter first. At most the
    /// newest [`LETTERS_GROUPED_MAX`] letters are grouped; `count_max` is at most 200.
    pub async fn letters_by_order(
        &self,
        filter: LetterFilter,
        after: Option<LetterCursor>,
        count_max: u32,
    ) -> Result<OrdersPage, StoreError> {
        const WHAT: &str = "grouping dead letters by order";
        let count_max = count_max.clamp(1, ORDERS_PAGE_MAX);
        self.run(WHAT, move |pool| async move {
            let rows = query_of_filter!(
                Row,
                filter,
                "WITH chosen AS MATERIALIZED (
                     SELECT id, first_seen_at, verdict, order_id, account_id, provider, provider_account, payment_id
                     FROM dead_letters",
                r#"  ORDER BY first_seen_at DESC, id DESC LIMIT $14),
                 keyed AS (
                     SELECT *, CASE WHEN order_id IS NULL THEN payment_id END AS own_payment,
                            CASE WHEN order_id IS NULL THEN provider END AS own_provider,
                            CASE WHEN order_id IS NULL THEN provider_account END AS own_account,
                            CASE WHEN order_id IS NULL AND payment_id IS NULL THEN id END AS alone
                     FROM chosen),
                 grouped AS (
                     SELECT order_id, (array_agg(provider ORDER BY first_seen_at DESC, id DESC))[1] AS provider,
                            (array_agg(provider_account ORDER BY first_seen_at DESC, id DESC))[1] AS provider_account,
                            (array_agg(payment_id ORDER BY first_seen_at DESC, id DESC)
                                 FILTER (WHERE payment_id IS NOT NULL))[1] AS payment_id,
                            max(account_id) AS account_id, count(*) AS letters,
                            count(*) FILTER (WHERE verdict IN ('would_grant', 'would_adjust', 'would_change', 'would_ask'))
                                AS helpful,
                            min(first_seen_at) AS oldest_at, max(first_seen_at) AS newest_at,
                            array_agg(id ORDER BY first_seen_at DESC, id DESC) AS ids
                     FROM keyed GROUP BY order_id, own_payment, own_provider, own_account, alone)
                 SELECT order_id, provider AS "provider!", provider_account AS "provider_account!", payment_id, account_id,
                        letters AS "letters!", helpful AS "helpful!", oldest_at AS "oldest_at!", newest_at AS "newest_at!",
                        ids[1:$18] AS "ids!", count(*) OVER () AS "orders_left!",
                        (SELECT count(*) FROM chosen) AS "grouped!", (SELECT min(first_seen_at) FROM chosen) AS "grouped_since!"
                 FROM grouped
                 WHERE $15::timestamptz IS NULL OR (newest_at, ids[1]) < ($15, $16)
                 ORDER BY newest_at DESC, ids[1] DESC LIMIT $17"#,
                // One more, to see whether there are more.
                i64::from(LETTERS_GROUPED_MAX) + 1,
                after.map(|after| after.first_seen_at),
                after.map(|after| after.id.0),
                i64::from(count_max) + 1,
                i32::from(LETTERS_NAMED_MAX),
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let first = rows.first();
            let orders_left = first.map_or(0, |row| row.orders_left);
            let grouped_since =
                first.filter(|row| row.grouped > i64::from(LETTERS_GROUPED_MAX)).map(|row| row.grouped_since);
            let page = usize::try_from(count_max).unwrap_or(usize::MAX);
            let has_more = rows.len() > page;
            let orders: Vec<OrderLetters> = rows.into_iter().take(page).map(OrderLetters::from).collect();
            let last = orders.last().filter(|_| has_more);
            let next = last.and_then(|last| Some(LetterCursor { first_seen_at: last.newest_at, id: *last.ids.first()? }));
            Ok(OrdersPage { orders, next, orders_left, grouped_since })
        })
        .await
    }

    /// Returns letters with their bodies, to read their content. A body of more than 32 KiB counts as one that was not kept
    /// whole.
    pub async fn letters_to_read_again(&self, ids: Vec<LetterId>) -> Result<Vec<LetterToWeigh>, StoreError> {
        const WHAT: &str = "reading what dead letters say";
        let ids: Vec<Uuid> = ids.into_iter().map(|id| id.0).collect();
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query_as!(
                ToWeigh,
                r#"SELECT id, message_id, kind, routing_key, first_seen_at, body_bytes,
                          CASE WHEN body_bytes <= $2 THEN body ELSE substr(body, 1, 0) END AS body
                   FROM dead_letters WHERE id = ANY($1)"#,
                &ids,
                BODY_READ_BYTES_MAX
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            Ok(rows.into_iter().map(LetterToWeigh::from).collect())
        })
        .await
    }
}

impl From<Row> for OrderLetters {
    fn from(row: Row) -> Self {
        Self {
            order_id: order_id(row.order_id),
            provider: row.provider,
            provider_account: row.provider_account,
            payment_id: row.payment_id,
            account_id: row.account_id,
            letters: row.letters,
            helpful: row.helpful,
            oldest_at: row.oldest_at,
            newest_at: row.newest_at,
            ids: row.ids.into_iter().map(LetterId).collect(),
        }
    }
}

//! Letters to look at: lists, groups, one of them whole.

use super::{LetterFilter, order_id, state_of};
use crate::domain::{LetterId, LetterState, OrderId};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// Most letters on one page.
pub(crate) const PAGE_MAX: u32 = 500;

/// Most groups that are listed.
const GROUPS_MAX: i64 = 500;

/// Most orders that one letter is shown to concern.
const ORDERS_MAX: i64 = 20;

/// A letter, as a list shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterRow {
    /// Which.
    pub id: LetterId,
    /// The message's id; empty where it has none.
    pub message_id: String,
    /// The property `type`.
    pub kind: String,
    /// Why it is here.
    pub reason: String,
    /// What its group has in common.
    pub cause: String,
    /// Why exactly.
    pub detail: String,
    /// Who gave it up.
    pub origin: String,
    /// Tries before.
    pub attempts: i32,
    /// Whose payment; empty where it names none.
    pub provider: String,
    /// At which account there; empty where it is our own.
    pub provider_account: String,
    /// Which payment.
    pub payment_id: Option<String>,
    /// Every id by which it names the payment, that one included.
    pub payment_ids: Vec<String>,
    /// Which order. It may concern further ones, and is found by each of them.
    pub order_id: Option<OrderId>,
    /// Orders that it names. They need not be orders of ours.
    pub order_ids: Vec<Uuid>,
    /// Whose order.
    pub account_id: Option<String>,
    /// What it says, in words, for people.
    pub said: Option<String>,
    /// What it says: the contract's `status.type`; none: that cannot be read.
    pub said_type: Option<String>,
    /// The state of that capture, refund or dispute.
    pub said_state: Option<String>,
    /// Its amount, in minor units.
    pub amount_minor: Option<i64>,
    /// ISO 4217.
    pub currency: Option<String>,
    /// How it stands.
    pub state: LetterState,
    /// Since when.
    #[serde(with = "time::serde::rfc3339")]
    pub state_at: OffsetDateTime,
    /// By whom; none: by itself.
    pub state_by: Option<String>,
    /// And why.
    pub state_reason: Option<String>,
    /// When it first came.
    #[serde(with = "time::serde::rfc3339")]
    pub first_seen_at: OffsetDateTime,
    /// When it last came.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
    /// How often, copies included.
    pub seen: i32,
    /// How often it was replayed.
    pub replays: i32,
    /// What a replay would come to, when it was looked at last.
    pub verdict: Option<String>,
    /// The same in a sentence.
    pub verdict_detail: Option<String>,
}

/// A letter, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// What a list shows of it.
    #[serde(flatten)]
    pub row: LetterRow,
    /// The key under which it was published first.
    pub routing_key: String,
    /// Its headers, as an object, without the broker's own and ours.
    pub headers: serde_json::Value,
    /// Its body; none: emptied.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
    /// How long the body was, in bytes. More than `body` has: it was cut.
    pub body_bytes: i32,
    /// Orders of ours that it concerns: it names them, or their payment.
    pub orders: Vec<OrderId>,
    /// What became of its replays, the first one first.
    pub history: Vec<LetterReplay>,
}

/// What became of one replay of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterReplay {
    /// Of which replay it was a part.
    pub replay_id: i64,
    /// The letter's own number of it.
    pub number: i32,
    /// `queued`, `sent`, `resolved`, `dead_again`, `canceled` or `unanswered`.
    pub state: String,
    /// Who replayed.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub asked_at: OffsetDateTime,
    /// When the broker had it.
    #[serde(with = "time::serde::rfc3339::option")]
    pub sent_at: Option<OffsetDateTime>,
    /// When its outcome was known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
}

/// A page of letters, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LettersPage {
    /// The letters.
    pub letters: Vec<LetterRow>,
    /// Where the next page begins; none: this was the last one.
    pub next: Option<LetterCursor>,
}

/// Where a page begins: behind this letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LetterCursor {
    /// When it was first seen.
    #[serde(with = "time::serde::rfc3339")]
    pub first_seen_at: OffsetDateTime,
    /// Which.
    pub id: LetterId,
}

/// Letters with one reason, provider and cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterGroup {
    /// Why they are here.
    pub reason: String,
    /// Whose payments; empty where they name none.
    pub provider: String,
    /// What they have in common.
    pub cause: String,
    /// How many.
    pub letters: i64,
    /// How many of them a replay would help, as they were looked at last.
    pub helpful: i64,
    /// When the first one came.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest_at: OffsetDateTime,
    /// When the last one came.
    #[serde(with = "time::serde::rfc3339")]
    pub newest_at: OffsetDateTime,
}

struct Row {
    id: Uuid,
    message_id: String,
    kind: String,
    reason: String,
    cause: String,
    detail: String,
    origin: String,
    attempts: i32,
    provider: String,
    provider_account: String,
    payment_id: Option<String>,
    payment_ids: Vec<String>,
    order_id: Option<Uuid>,
    order_ids: Vec<Uuid>,
    account_id: Option<String>,
    said: Option<String>,
    said_type: Option<String>,
    said_state: Option<String>,
    amount_minor: Option<i64>,
    currency: Option<String>,
    state: String,
    state_at: OffsetDateTime,
    state_by: Option<String>,
    state_reason: Option<String>,
    first_seen_at: OffsetDateTime,
    last_seen_at: OffsetDateTime,
    seen: i32,
    replays: i32,
    verdict: Option<String>,
    verdict_detail: Option<String>,
}

impl TryFrom<Row> for LetterRow {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        Ok(Self {
            id: LetterId(row.id),
            message_id: row.message_id,
            kind: row.kind,
            reason: row.reason,
            cause: row.cause,
            detail: row.detail,
            origin: row.origin,
            attempts: row.attempts,
            provider: row.provider,
            provider_account: row.provider_account,
            payment_id: row.payment_id,
            payment_ids: row.payment_ids,
            order_id: order_id(row.order_id),
            order_ids: row.order_ids,
            account_id: row.account_id,
            said: row.said,
            said_type: row.said_type,
            said_state: row.said_state,
            amount_minor: row.amount_minor,
            currency: row.currency,
            state: state_of(&row.state)?,
            state_at: row.state_at,
            state_by: row.state_by,
            state_reason: row.state_reason,
            first_seen_at: row.first_seen_at,
            last_seen_at: row.last_seen_at,
            seen: row.seen,
            replays: row.replays,
            verdict: row.verdict,
            verdict_detail: row.verdict_detail,
        })
    }
}

impl Store {
    /// A page of letters, the newest first; `count_max` is at most 500.
    pub async fn letters(
        &self,
        filter: LetterFilter,
        after: Option<LetterCursor>,
        count_max: u32,
    ) -> Result<LettersPage, StoreError> {
        const WHAT: &str = "listing dead letters";
        let count_max = count_max.clamp(1, PAGE_MAX);
        self.run(WHAT, move |pool| async move {
            let mut rows = query_of_filter!(
                Row,
                filter,
                "SELECT id, message_id, kind, reason, cause, detail, origin, attempts, provider, provider_account,
                        payment_id, payment_ids, order_id, order_ids, account_id, said, said_type, said_state, amount_minor,
                        currency, state, state_at, state_by, state_reason, first_seen_at, last_seen_at, seen,
                        replays, verdict, verdict_detail
                 FROM dead_letters",
                "AND ($14::timestamptz IS NULL OR (first_seen_at, id) < ($14, $15))
                 ORDER BY first_seen_at DESC, id DESC LIMIT $16",
                after.map(|after| after.first_seen_at),
                after.map(|after| after.id.0),
                i64::from(count_max) + 1,
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let has_more = rows.len() > usize::try_from(count_max).unwrap_or(usize::MAX);
            if has_more {
                rows.pop();
            }
            let letters = rows.into_iter().map(LetterRow::try_from).collect::<Result<Vec<_>, _>>()?;
            let next = letters.last().filter(|_| has_more);
            let next = next.map(|last| LetterCursor { first_seen_at: last.first_seen_at, id: last.id });
            Ok(LettersPage { letters, next })
        })
        .await
    }

    /// How many letters that are.
    pub async fn count_letters(&self, filter: LetterFilter) -> Result<i64, StoreError> {
        Ok(self.letter_groups(filter).await?.iter().map(|group| group.letters).sum())
    }

    /// Letters by reason, provider and cause, the largest group first; at most 500 groups.
    pub async fn letter_groups(&self, filter: LetterFilter) -> Result<Vec<LetterGroup>, StoreError> {
        const WHAT: &str = "grouping dead letters";
        self.run(WHAT, move |pool| async move {
            query_of_filter!(
                LetterGroup,
                filter,
                r#"SELECT reason, provider, cause, count(*) AS "letters!",
                          count(*) FILTER (WHERE verdict IN ('would_grant', 'would_adjust', 'would_change', 'would_ask'))
                              AS "helpful!",
                          min(first_seen_at) AS "oldest_at!", max(first_seen_at) AS "newest_at!"
                   FROM dead_letters"#,
                "GROUP BY reason, provider, cause ORDER BY count(*) DESC, reason, provider, cause LIMIT $14",
                GROUPS_MAX,
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))
        })
        .await
    }

    /// One letter, whole.
    pub async fn letter(&self, id: LetterId) -> Result<Option<Letter>, StoreError> {
        const WHAT: &str = "reading a dead letter";
        let page = self.letters(LetterFilter::of_ids([id]), None, 1).await?;
        let Some(row) = page.letters.into_iter().next() else { return Ok(None) };
        self.run(WHAT, move |pool| async move {
            let rest = sqlx::query!(
                "SELECT routing_key, headers, body, body_bytes FROM dead_letters WHERE id = $1",
                id.0
            )
            .fetch_optional(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let Some(rest) = rest else { return Ok(None) };
            let history = sqlx::query_as!(
                LetterReplay,
                "SELECT l.replay_id, l.number, l.state, r.actor, r.reason, r.created_at AS asked_at, l.sent_at, l.ended_at
                 FROM replay_letters l JOIN replays r ON r.id = l.replay_id WHERE l.letter_id = $1 ORDER BY l.number",
                id.0
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let orders = sqlx::query_scalar!(
                "SELECT o.id FROM orders_of_letters(ARRAY[$1]::uuid[]) AS c JOIN orders o ON o.id = c.order_id
                 ORDER BY o.id LIMIT $2",
                id.0,
                ORDERS_MAX
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let orders = orders.into_iter().map(OrderId).collect();
            let (routing_key, headers) = (rest.routing_key, rest.headers);
            Ok(Some(Letter { row, routing_key, headers, body: rest.body, body_bytes: rest.body_bytes, orders, history }))
        })
        .await
    }

    /// How many letters there are in each state.
    pub async fn letter_counts(&self) -> Result<Vec<(LetterState, i64)>, StoreError> {
        const WHAT: &str = "counting dead letters";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(r#"SELECT state, count(*) AS "count!" FROM dead_letters GROUP BY state"#)
                .fetch_all(&mut *pool.connection().await?)
                .await
                .map_err(StoreError::sql(WHAT))?;
            rows.into_iter().map(|row| Ok((state_of(&row.state)?, row.count))).collect()
        })
        .await
    }
}

//! Reads dead letters: lists, groups, and one letter with everything.

use super::{LetterFilter, order_id, state_of};
use crate::domain::{LetterId, LetterState, OrderId};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use serde::Serialize;
use time::OffsetDateTime;
use uuid::Uuid;

/// The largest number of letters on one page.
pub(crate) const PAGE_MAX: u32 = 500;

/// The largest number of groups that are listed.
const GROUPS_MAX: i64 = 500;

/// The largest number of orders that are shown for one letter.
const ORDERS_MAX: i64 = 20;

/// One dead letter of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterRow {
    /// The id of the letter.
    pub id: LetterId,
    /// The id of the message. It is empty if the message has none.
    pub message_id: String,
    /// The property `type` of the message.
    pub kind: String,
    /// The reason for the dead letter.
    pub reason: String,
    /// The cause, which all letters of a group have in common.
    pub cause: String,
    /// The exact description of the problem.
    pub detail: String,
    /// Who gave up the message.
    pub origin: String,
    /// The number of tries before.
    pub attempts: i32,
    /// The provider of the payment. It is empty if the message names none.
    pub provider: String,
    /// The account at the provider. It is empty for our own account.
    pub provider_account: String,
    /// The payment that the message is about.
    pub payment_id: Option<String>,
    /// All ids by which the message names the payment, including this one.
    pub payment_ids: Vec<String>,
    /// The order of the letter. The letter may be about further orders, and a filter finds it by each of them.
    pub order_id: Option<OrderId>,
    /// The orders that the message names. They need not exist.
    pub order_ids: Vec<Uuid>,
    /// The account of the order.
    pub account_id: Option<String>,
    /// The content of the message in words, for people.
    pub said: Option<String>,
    /// The type of the content: `status.type` of the contract. `None` if the message cannot be read.
    pub said_type: Option<String>,
    /// The state of the capture, the refund or the dispute.
    pub said_state: Option<String>,
    /// The amount in minor units.
    pub amount_minor: Option<i64>,
    /// The ISO 4217 code of the currency.
    pub currency: Option<String>,
    /// The state of the letter.
    pub state: LetterState,
    /// When the letter got this state.
    #[serde(with = "time::serde::rfc3339")]
    pub state_at: OffsetDateTime,
    /// The person who changed the state. `None` if grantonce changed it.
    pub state_by: Option<String>,
    /// The reason for the change of the state.
    pub state_reason: Option<String>,
    /// When the letter arrived first.
    #[serde(with = "time::serde::rfc3339")]
    pub first_seen_at: OffsetDateTime,
    /// When the letter arrived last.
    #[serde(with = "time::serde::rfc3339")]
    pub last_seen_at: OffsetDateTime,
    /// How often the letter arrived, including copies.
    pub seen: i32,
    /// The number of replays of the letter.
    pub replays: i32,
    /// The outcome that a replay would have had, by the last prediction.
    pub verdict: Option<String>,
    /// The same prediction as a sentence.
    pub verdict_detail: Option<String>,
}

/// A dead letter with everything that is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// The fields that a list shows.
    #[serde(flatten)]
    pub row: LetterRow,
    /// The routing key with which the message was first published.
    pub routing_key: String,
    /// The headers of the message as a JSON object, without those of the broker and of grantonce.
    pub headers: serde_json::Value,
    /// The body of the message. `None` if it was emptied.
    #[serde(skip)]
    pub body: Option<Vec<u8>>,
    /// The length of the whole body in bytes. If `body` is shorter, only a part was kept.
    pub body_bytes: i32,
    /// Our orders that the letter is about: it names them, or their payment.
    pub orders: Vec<OrderId>,
    /// The outcomes of the letter's replays, the first replay first.
    pub history: Vec<LetterReplay>,
}

/// The outcome of one replay of a letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterReplay {
    /// The replay that the letter was part of.
    pub replay_id: i64,
    /// The number that this replay had for the letter.
    pub number: i32,
    /// The outcome: `queued`, `sent`, `resolved`, `dead_again`, `canceled` or `unanswered`.
    pub state: String,
    /// The person who began the replay.
    pub actor: String,
    /// The reason that the person gave.
    pub reason: String,
    /// When the replay was requested.
    #[serde(with = "time::serde::rfc3339")]
    pub asked_at: OffsetDateTime,
    /// When the broker had confirmed the message.
    #[serde(with = "time::serde::rfc3339::option")]
    pub sent_at: Option<OffsetDateTime>,
    /// When the outcome was known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
}

/// A page of letters, the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LettersPage {
    /// The letters of the page.
    pub letters: Vec<LetterRow>,
    /// Where the next page begins. `None` if this is the last page.
    pub next: Option<LetterCursor>,
}

/// The position in a list after which a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LetterCursor {
    /// When the last letter of the page was first seen.
    #[serde(with = "time::serde::rfc3339")]
    pub first_seen_at: OffsetDateTime,
    /// The id of the last letter of the page.
    pub id: LetterId,
}

/// A group of letters with the same reason, provider and cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LetterGroup {
    /// The reason of the letters.
    pub reason: String,
    /// The provider of the payments. It is empty if the messages name none.
    pub provider: String,
    /// The cause that the letters have in common.
    pub cause: String,
    /// The number of letters.
    pub letters: i64,
    /// The number of letters that a replay would help, by the last prediction.
    pub helpful: i64,
    /// When the first letter of the group arrived.
    #[serde(with = "time::serde::rfc3339")]
    pub oldest_at: OffsetDateTime,
    /// When the last letter of the group arrived.
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
    /// Returns a page of letters, the newest first. `count_max` is at most 500.
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

    /// Counts the letters of a filter.
    pub async fn count_letters(&self, filter: LetterFilter) -> Result<i64, StoreError> {
        Ok(self.letter_groups(filter).await?.iter().map(|group| group.letters).sum())
    }

    /// Groups letters by reason, provider and cause. Returns at most 500 groups, the largest first.
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

    /// Returns one letter with everything that is stored.
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

    /// Returns the number of letters in each state.
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

//! Settles dead letters: predicts their outcome, resolves and archives them, and deletes old ones.

use super::LetterFilter;
use crate::domain::{AuditAction, LetterId, LetterState, OrderId, Outlook};
use crate::store::audit::{Actor, AuditEntry};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::Tx;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// The largest number of letters that one call archives or restores.
const SETTLED_MAX: usize = 100_000;

/// The number of settled letters that one transaction deletes.
const EXPIRED_MAX: i64 = 5_000;

/// A letter whose outcome is to be predicted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetterToWeigh {
    /// The id of the letter.
    pub id: LetterId,
    /// The id of the message.
    pub message_id: String,
    /// The property `type` of the message.
    pub kind: String,
    /// The routing key with which the message was first published.
    pub routing_key: String,
    /// The body of the message. `None` if it was emptied.
    pub body: Option<Vec<u8>>,
    /// Whether the whole body was kept.
    pub is_whole: bool,
}

/// The prediction for one letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weight {
    /// The id of the letter.
    pub id: LetterId,
    /// The predicted outcome of a replay.
    pub outlook: Outlook,
    /// The order and its account, as far as they are known.
    pub order: Option<(OrderId, String)>,
}

/// Open letters by reason, for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenLetters {
    /// The number of open letters for each reason.
    pub by_reason: Vec<(String, i64)>,
    /// When the oldest open letter arrived.
    pub oldest_at: Option<OffsetDateTime>,
    /// The number of paid orders without a grant. An open letter or the provider says that they are paid.
    pub grants_missing: i64,
    /// The number of orders whose kept money is more than their price.
    pub overpaid_orders: i64,
}

impl Store {
    /// Returns letters whose outcome is to be predicted: letters that were sent each time, and others if the last prediction
    /// was before `since`.
    pub async fn letters_to_weigh(
        &self,
        since: OffsetDateTime,
        count_max: u16,
    ) -> Result<Vec<LetterToWeigh>, StoreError> {
        const WHAT: &str = "choosing dead letters to look at";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query_as!(
                ToWeigh,
                r#"WITH sent AS (
                       SELECT l.id FROM replay_letters r JOIN dead_letters l ON l.id = r.letter_id
                       WHERE r.state = 'sent' ORDER BY l.checked_at NULLS FIRST LIMIT $2),
                   stale AS (
                       SELECT id FROM dead_letters WHERE state IN ('open', 'replaying')
                          AND (checked_at IS NULL OR checked_at <= $1)
                       ORDER BY checked_at NULLS FIRST LIMIT $2)
                   SELECT l.id, l.message_id, l.kind, l.routing_key, l.body, l.body_bytes, l.first_seen_at
                   FROM dead_letters l JOIN (SELECT id FROM sent UNION SELECT id FROM stale) AS due ON due.id = l.id
                   WHERE l.state IN ('open', 'replaying')"#,
                since,
                i64::from(count_max)
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            Ok(rows.into_iter().map(LetterToWeigh::from).collect())
        })
        .await
    }

    /// Returns open letters of a selection, the oldest first. Their outcome is predicted before a replay.
    pub async fn letters_to_replay(
        &self,
        filter: LetterFilter,
        after: Option<(OffsetDateTime, LetterId)>,
        count_max: u16,
    ) -> Result<Vec<(OffsetDateTime, LetterToWeigh)>, StoreError> {
        const WHAT: &str = "choosing dead letters to replay";
        self.run(WHAT, move |pool| async move {
            let filter = filter.in_state(LetterState::Open);
            let rows = query_of_filter!(
                ToWeigh,
                filter,
                "SELECT id, message_id, kind, routing_key, body, body_bytes, first_seen_at FROM dead_letters",
                "AND ($14::timestamptz IS NULL OR (first_seen_at, id) > ($14, $15)) ORDER BY first_seen_at, id LIMIT $16",
                after.map(|(at, _)| at),
                after.map(|(_, id)| id.0),
                i64::from(count_max),
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            Ok(rows.into_iter().map(|row| (row.first_seen_at, row.into())).collect())
        })
        .await
    }

    /// Writes predictions. Letters that have nothing left to do are resolved. Returns how many of these were under replay.
    pub async fn note_weights(&self, weights: Vec<Weight>, now: OffsetDateTime) -> Result<u64, StoreError> {
        self.run("noting what dead letters would come to", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let mut weights = weights;
            weights.sort_by_key(|weight| weight.id);
            tx.lock_letters(weights.iter().map(|weight| weight.id)).await?;
            let replayed = tx.note_weights(&weights, now).await?;
            tx.commit().await?;
            Ok(replayed)
        })
        .await
    }

    /// Stops waiting for letters that were sent before `before` and had no outcome: they are open again. Ends the replays
    /// whose letters all have an outcome. Returns the number of letters that were opened again.
    pub async fn end_replays(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError> {
        self.run("ending replays", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let unanswered = tx.give_up_waiting(before, now).await?;
            tx.commit().await?;
            // A replay's row is locked before its letters, so this needs a transaction of its own.
            let mut tx = Tx::begin(&pool).await?;
            tx.finish_replays(now).await?;
            tx.commit().await?;
            Ok(unanswered)
        })
        .await
    }

    /// Archives open letters: somebody has decided to do nothing about them. Returns their number.
    pub async fn archive_letters(
        &self,
        filter: LetterFilter,
        by: Actor,
        reason: String,
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        self.move_letters(
            filter,
            (LetterState::Open, LetterState::Archived, AuditAction::LettersArchive),
            by,
            reason,
            now,
        )
        .await
    }

    /// Opens archived letters again. Returns their number.
    pub async fn restore_letters(
        &self,
        filter: LetterFilter,
        by: Actor,
        reason: String,
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        self.move_letters(
            filter,
            (LetterState::Archived, LetterState::Open, AuditAction::LettersRestore),
            by,
            reason,
            now,
        )
        .await
    }

    async fn move_letters(
        &self,
        filter: LetterFilter,
        (from, to, action): (LetterState, LetterState, AuditAction),
        by: Actor,
        reason: String,
        now: OffsetDateTime,
    ) -> Result<u64, StoreError> {
        const WHAT: &str = "moving dead letters";
        self.run(WHAT, move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let filter = filter.in_state(from);
            let moved = query_of_filter!(
                Moved,
                filter,
                "WITH locked AS (SELECT id FROM dead_letters",
                "ORDER BY id LIMIT $14 FOR UPDATE)
                 UPDATE dead_letters l SET state = $15, state_at = $16, state_by = $17, state_reason = $18
                 FROM locked WHERE l.id = locked.id RETURNING l.id",
                i64::try_from(SETTLED_MAX).unwrap_or(i64::MAX),
                to.name(),
                now,
                by.name,
                reason,
            )
            .fetch_all(tx.connection())
            .await
            .map_err(StoreError::sql(WHAT))?
            .len();
            if moved == 0 {
                tx.roll_back().await?;
                return Ok(0);
            }
            let subject = match filter.ids.as_deref() {
                Some([id]) => format!("letter {id}"),
                Some(_) | None => format!("{moved} letters"),
            };
            let entry = AuditEntry {
                at: now,
                by: &by,
                action,
                subject,
                reason: &reason,
                count: i32::try_from(moved).unwrap_or(i32::MAX),
                before: json!({ "state": from }),
                after: json!({ "state": to, "selection": filter }),
            };
            tx.write_audit(entry).await?;
            tx.commit().await?;
            Ok(u64::try_from(moved).unwrap_or(u64::MAX))
        })
        .await
    }

    /// Deletes letters that were settled before `before`, some thousands at a time, and writes down that they were deleted.
    /// Returns their number.
    pub async fn expire_letters(&self, before: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError> {
        const WHAT: &str = "deleting settled dead letters";
        self.run(WHAT, move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let gone = sqlx::query!(
                "DELETE FROM dead_letters WHERE id IN (
                     SELECT id FROM dead_letters WHERE state IN ('resolved', 'archived') AND state_at < $1
                     ORDER BY id LIMIT $2 FOR UPDATE SKIP LOCKED)",
                before,
                EXPIRED_MAX
            )
            .execute(tx.connection())
            .await
            .map_err(StoreError::sql(WHAT))?
            .rows_affected();
            if gone > 0 {
                let by = Actor { name: "grantonce".to_owned(), is_self_declared: false };
                let entry = AuditEntry {
                    at: now,
                    by: &by,
                    action: AuditAction::LettersExpire,
                    subject: format!("{gone} letters"),
                    reason: "settled for longer than GRANTONCE_DEAD_LETTER_RETENTION",
                    count: i32::try_from(gone).unwrap_or(i32::MAX),
                    before: json!({ "settled_before": before.to_string() }),
                    after: json!(null),
                };
                tx.write_audit(entry).await?;
            }
            tx.commit().await?;
            Ok(gone)
        })
        .await
    }

    /// Returns figures about open letters, for metrics and the console.
    pub async fn open_letters(&self, now: OffsetDateTime) -> Result<OpenLetters, StoreError> {
        const WHAT: &str = "counting open dead letters";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(
                r#"SELECT reason, count(*) AS "letters!", min(first_seen_at) AS "oldest_at!"
                   FROM dead_letters WHERE state IN ('open', 'replaying') GROUP BY reason"#
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let grants_missing = sqlx::query_scalar!(
                r#"SELECT count(*) AS "count!" FROM orders o JOIN (
                       SELECT order_id FROM orders_of_letters(ARRAY(
                           SELECT id FROM dead_letters WHERE state IN ('open', 'replaying')
                              AND said_type = 'captured' AND said_state = 'succeeded'))
                       UNION
                       SELECT order_id FROM provider_looks
                       WHERE order_id IS NOT NULL AND said = 'paid' AND asked_at <= $1 AND due_at <= $2) AS paid
                   ON paid.order_id = o.id WHERE NOT o.is_granted"#,
                now - PAID_AND_NOT_GRANTED,
                now + Duration::HOUR
            )
            .fetch_one(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let overpaid_orders =
                sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM overpaid_orders WHERE overpaid_minor > 0"#)
                    .fetch_one(&mut *pool.connection().await?)
                    .await
                    .map_err(StoreError::sql(WHAT))?;
            let oldest_at = rows.iter().map(|row| row.oldest_at).min();
            let by_reason = rows.into_iter().map(|row| (row.reason, row.letters)).collect();
            Ok(OpenLetters { by_reason, oldest_at, grants_missing, overpaid_orders })
        })
        .await
    }

    /// Returns the oldest letters with the reason of the broker's delivery limit that were never replayed.
    pub async fn letters_never_retried(&self, count_max: u16) -> Result<Vec<LetterId>, StoreError> {
        const WHAT: &str = "choosing letters to try once more";
        self.run(WHAT, move |pool| async move {
            let ids = sqlx::query_scalar!(
                "SELECT id FROM dead_letters
                 WHERE state = 'open' AND reason = 'delivery_limit' AND replays = 0 AND body IS NOT NULL
                 ORDER BY first_seen_at, id LIMIT $1",
                i64::from(count_max)
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            Ok(ids.into_iter().map(LetterId).collect())
        })
        .await
    }
}

/// How long a paid order may have no grant after the provider has said that it is paid. After that it counts as missing.
const PAID_AND_NOT_GRANTED: Duration = Duration::minutes(5);

/// The columns of a letter that a prediction needs.
pub(super) struct ToWeigh {
    pub(super) id: Uuid,
    pub(super) message_id: String,
    pub(super) kind: String,
    pub(super) routing_key: String,
    pub(super) body: Option<Vec<u8>>,
    pub(super) body_bytes: i32,
    pub(super) first_seen_at: OffsetDateTime,
}

impl From<ToWeigh> for LetterToWeigh {
    fn from(row: ToWeigh) -> Self {
        let kept = row.body.as_ref().map_or(0, Vec::len);
        let is_whole = usize::try_from(row.body_bytes).is_ok_and(|bytes| kept >= bytes);
        let ToWeigh { id, message_id, kind, routing_key, body, .. } = row;
        Self { id: LetterId(id), message_id, kind, routing_key, body, is_whole }
    }
}

/// A letter that was archived or restored.
struct Moved {
    #[expect(dead_code, reason = "they are only counted")]
    id: Uuid,
}

impl Tx {
    /// Writes predictions for letters that are locked.
    async fn note_weights(&mut self, weights: &[Weight], now: OffsetDateTime) -> Result<u64, StoreError> {
        const WHAT: &str = "noting what dead letters would come to";
        let (mut ids, mut names, mut details) = (vec![], vec![], vec![]);
        let (mut orders, mut accounts, mut done) = (vec![], vec![], vec![]);
        for weight in weights {
            ids.push(weight.id.0);
            names.push(weight.outlook.name().to_owned());
            details.push(weight.outlook.to_string());
            let (order, account) = weight.order.clone().unzip();
            orders.push(order.map(|id| id.0));
            accounts.push(account);
            if weight.outlook.is_done() {
                done.push(weight.id.0);
            }
        }
        sqlx::query!(
            "UPDATE dead_letters l
             SET verdict = n.verdict, verdict_detail = n.detail, checked_at = $6,
                 order_id = coalesce(n.order_id, l.order_id), account_id = coalesce(n.account_id, l.account_id)
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::text[])
                  AS n (id, verdict, detail, order_id, account_id)
             WHERE n.id = l.id AND l.state IN ('open', 'replaying')",
            &ids,
            &names,
            &details,
            &orders as &[Option<Uuid>],
            &accounts as &[Option<String>],
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        if done.is_empty() {
            return Ok(0);
        }
        sqlx::query!(
            "UPDATE dead_letters SET state = 'resolved', state_at = $2, state_by = NULL, state_reason = NULL
             WHERE id = ANY($1) AND state IN ('open', 'replaying')",
            &done,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let replayed = sqlx::query!(
            "UPDATE replay_letters r SET state = 'resolved', ended_at = $2
             FROM dead_letters l
             WHERE l.id = ANY($1) AND r.letter_id = l.id AND r.number = l.replays AND r.state IN ('queued', 'sent')",
            &done,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        Ok(replayed.rows_affected())
    }

    async fn give_up_waiting(&mut self, before: OffsetDateTime, now: OffsetDateTime) -> Result<u64, StoreError> {
        const WHAT: &str = "giving up waiting for replayed letters";
        let opened = sqlx::query_scalar!(
            "WITH silent AS (
                 SELECT l.id FROM replay_letters r JOIN dead_letters l ON l.id = r.letter_id
                 WHERE r.state = 'sent' AND r.sent_at <= $1 ORDER BY l.id FOR UPDATE OF l)
             UPDATE dead_letters l SET state = 'open', state_at = $2, state_by = NULL, state_reason = NULL
             FROM silent WHERE l.id = silent.id AND l.state = 'replaying' RETURNING l.id",
            before,
            now
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        sqlx::query!(
            "UPDATE replay_letters SET state = 'unanswered', ended_at = $2 WHERE state = 'sent' AND sent_at <= $1",
            before,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        Ok(u64::try_from(opened.len()).unwrap_or(u64::MAX))
    }

    async fn finish_replays(&mut self, now: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query!(
            "WITH locked AS (SELECT id FROM replays WHERE ended_at IS NULL ORDER BY id FOR UPDATE)
             UPDATE replays r
             SET ended_at = $1, state = CASE WHEN r.state IN ('canary', 'running') THEN 'finished' ELSE r.state END
             FROM locked
             WHERE r.id = locked.id AND r.ended_at IS NULL AND NOT EXISTS (
                 SELECT FROM replay_letters l WHERE l.replay_id = r.id AND l.state IN ('queued', 'sent'))",
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("finishing replays"))?;
        Ok(())
    }
}

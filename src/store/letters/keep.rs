//! Stores dead letters that the broker delivers.

use super::letter_content::Columns;
use crate::domain::{LetterContent, LetterId, Reason};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::{Committed, Tx};
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// How long the statement waits for the row of a letter. Only a person holds the row for longer.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// A dead letter as the broker delivered it.
#[derive(Debug, Clone)]
pub struct NewLetter {
    /// The id of the letter.
    pub id: LetterId,
    /// The id of the message. It is empty if the message has none.
    pub message_id: String,
    /// The property `type` of the message. It is empty if the message has none.
    pub kind: String,
    /// The routing key with which the message was first published.
    pub routing_key: String,
    /// The headers of the message as a JSON object, without those of the broker and of grantonce.
    pub headers: serde_json::Value,
    /// The body of the message, or the part of it that is kept.
    pub body: Vec<u8>,
    /// The length of the whole body, in bytes.
    pub body_bytes: usize,
    /// The reason for the dead letter.
    pub reason: Reason,
    /// The cause, which all letters of a group have in common.
    pub cause: String,
    /// The exact description of the problem.
    pub detail: String,
    /// Who gave up the message: a role, `broker`, or `publisher`.
    pub origin: &'static str,
    /// The number of tries before.
    pub attempts: u32,
    /// The number of the replay that published the message, or 0.
    pub replay: u32,
    /// The content of the message, as far as it can be read.
    pub content: LetterContent,
}

/// Removes NUL characters, because Postgres accepts none in a text. A foreign publisher may send them.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl Store {
    /// Stores letters. A copy of a letter that is stored already is only counted, unless the outcome of a replay was
    /// awaited: then the letter is open again. Returns the number of letters that were opened again.
    pub async fn keep_letters(
        &self,
        letters: Vec<NewLetter>,
        now: OffsetDateTime,
    ) -> Result<(Committed, u64), StoreError> {
        self.run("keeping dead letters", move |pool| async move {
            // A statement may contain each id only once. The last copy has the newest reason. The letters are locked in
            // ascending order of their ids, as everywhere.
            let mut once: BTreeMap<Uuid, (&NewLetter, i32)> = BTreeMap::new();
            for letter in &letters {
                let entry = once.entry(letter.id.0).or_insert((letter, 0));
                if letter.replay >= entry.0.replay {
                    entry.0 = letter;
                }
                entry.1 = entry.1.saturating_add(1);
            }
            let mut tx = Tx::begin_waiting(&pool, LOCK_WAIT).await?;
            let mut came_back = 0;
            for (letter, copies) in once.into_values() {
                came_back += u64::from(tx.keep_letter(letter, copies, now).await?);
            }
            Ok((tx.commit().await?, came_back))
        })
        .await
    }
}

impl Tx {
    /// Returns whether the letter came back from a replay.
    async fn keep_letter(&mut self, letter: &NewLetter, copies: i32, now: OffsetDateTime) -> Result<bool, StoreError> {
        const WHAT: &str = "keeping a dead letter";
        let replay = i32::try_from(letter.replay).unwrap_or(i32::MAX);
        let columns = Columns::of(&letter.content);
        let came_back = sqlx::query_scalar!(
            r#"INSERT INTO dead_letters AS l
                   (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail, origin, attempts,
                    provider, provider_account, payment_id, payment_ids, order_id, order_ids, account_id, said, state_at,
                    first_seen_at, last_seen_at, seen, is_read, said_type, said_state, amount_minor, currency)
               SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, ($15::text[])[1], $15,
                      coalesce(o.id, ($16::uuid[])[1]), $16, o.account_id, $17, $18, $18, $18, $19, true, $21, $22, $23, $24
               -- An order of ours: one that it names, else its payment's.
               FROM (SELECT 1) AS one LEFT JOIN orders o ON o.id = coalesce(
                   (SELECT named.id FROM orders named WHERE named.id = ANY($16) ORDER BY named.id LIMIT 1),
                   (SELECT p.order_id FROM payments p
                    WHERE p.payment_id = ANY($15) AND p.provider = $13 AND p.provider_account = $14 LIMIT 1))
               ON CONFLICT (id) DO UPDATE
               SET seen = l.seen + excluded.seen, last_seen_at = excluded.last_seen_at
               RETURNING l.state IN ('replaying', 'resolved') AND l.replays BETWEEN 1 AND $20 AS "came_back!""#,
            letter.id.0,
            text(&letter.message_id),
            text(&letter.kind),
            text(&letter.routing_key),
            letter.headers,
            letter.body,
            i32::try_from(letter.body_bytes).unwrap_or(i32::MAX),
            letter.reason.name(),
            text(&letter.cause),
            text(&letter.detail),
            letter.origin,
            i32::try_from(letter.attempts).unwrap_or(i32::MAX),
            columns.provider,
            columns.provider_account,
            &columns.payment_ids,
            &columns.order_ids,
            columns.words,
            now,
            copies,
            replay,
            columns.said_type,
            columns.said_state,
            columns.amount_minor,
            columns.currency
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        if came_back {
            self.reopen_letter(letter, now).await?;
        }
        Ok(came_back)
    }

    /// The letter came back from a replay. It is open again, with the new reason.
    async fn reopen_letter(&mut self, letter: &NewLetter, now: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE dead_letters SET state = 'open', state_at = $2, state_by = NULL, state_reason = NULL,
                    reason = $3, cause = $4, detail = $5, origin = $6, attempts = $7, verdict = NULL, verdict_detail = NULL,
                    checked_at = NULL
             WHERE id = $1",
            letter.id.0,
            now,
            letter.reason.name(),
            text(&letter.cause),
            text(&letter.detail),
            letter.origin,
            i32::try_from(letter.attempts).unwrap_or(i32::MAX)
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("opening a dead letter again"))?;
        sqlx::query!(
            "UPDATE replay_letters r SET state = 'dead_again', ended_at = $2
             FROM dead_letters l
             WHERE l.id = $1 AND r.letter_id = l.id AND r.number = l.replays AND r.state IN ('queued', 'sent', 'resolved')",
            letter.id.0,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("ending a letter's replay"))?;
        Ok(())
    }
}

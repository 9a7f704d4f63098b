//! What the broker has buffered becomes a row.

use super::letter_content::Columns;
use crate::domain::{LetterContent, LetterId, Reason};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::{Committed, Tx};
use std::collections::BTreeMap;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// How long a letter waits for its row. Who holds it longer than that is a person.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// A dead letter as it came from the broker.
#[derive(Debug, Clone)]
pub struct NewLetter {
    /// Which.
    pub id: LetterId,
    /// The message's id; empty where it has none.
    pub message_id: String,
    /// The property `type`; empty where it has none.
    pub kind: String,
    /// The key under which it was published first.
    pub routing_key: String,
    /// Its headers, as an object, without the broker's own and ours.
    pub headers: serde_json::Value,
    /// Its body, or as much of it as is kept.
    pub body: Vec<u8>,
    /// How long the body was, in bytes.
    pub body_bytes: usize,
    /// Why it is here.
    pub reason: Reason,
    /// What letters of its group have in common.
    pub cause: String,
    /// Why exactly.
    pub detail: String,
    /// Who gave it up: a role, `broker`, or `publisher`.
    pub origin: &'static str,
    /// Tries before.
    pub attempts: u32,
    /// The number of the replay by which it came back to work; 0 for none.
    pub replay: u32,
    /// What it says, as far as it can be read.
    pub content: LetterContent,
}

/// Postgres takes no NUL in a text, whatever a foreign publisher sends.
fn text(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

impl Store {
    /// Keeps letters. A copy of one that is there only counts, unless a replay was awaited: then the letter is open again.
    /// Gives the number of those, too.
    pub async fn keep_letters(
        &self,
        letters: Vec<NewLetter>,
        now: OffsetDateTime,
    ) -> Result<(Committed, u64), StoreError> {
        self.run("keeping dead letters", move |pool| async move {
            // One row at most for each id in one statement; the last copy has the newest reason. In ascending order of the
            // ids, as everywhere where several letters are locked.
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
    /// Gives whether it came back from a replay.
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

    /// A replay's letter came back: it is open again, with the new reason.
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

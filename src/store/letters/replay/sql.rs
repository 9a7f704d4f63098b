//! The statements of replays. A replay's row is locked before its letters. Letters are locked in ascending order of their
//! ids, and before their rows of `replay_letters`, as everywhere.

use super::{Claimed, NewReplay, ReplayPace, ReplayState, Sent};
use crate::domain::LetterId;
use crate::store::error::StoreError;
use crate::store::tx::Tx;
use std::collections::HashMap;
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// The progress of a replay that its pace depends on.
pub(super) struct Progress {
    pub(super) pace: ReplayPace,
    /// The outcome of the first letter.
    pub(super) first: String,
    /// Whether a letter was claimed recently and has no outcome yet.
    pub(super) is_waiting: bool,
}

impl Tx {
    /// Moves open letters to `replaying`. Returns each with the number of its replay, in the order that was asked for.
    pub(super) async fn take_for_replay(&mut self, replay: &NewReplay) -> Result<Vec<(Uuid, i32)>, StoreError> {
        let ids: Vec<Uuid> = replay.letters.iter().map(|id| id.0).collect();
        let taken = sqlx::query!(
            "WITH locked AS (
                 SELECT id FROM dead_letters WHERE id = ANY($1) AND state = 'open' AND body IS NOT NULL
                 ORDER BY id FOR UPDATE)
             UPDATE dead_letters l
             SET state = 'replaying', state_at = $2, state_by = $3, state_reason = $4, replays = l.replays + 1
             FROM locked WHERE l.id = locked.id RETURNING l.id, l.replays",
            &ids,
            replay.now,
            replay.by.name,
            replay.reason
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("taking dead letters for a replay"))?;
        let mut numbers: HashMap<Uuid, i32> = taken.into_iter().map(|row| (row.id, row.replays)).collect();
        Ok(ids.into_iter().filter_map(|id| Some((id, numbers.remove(&id)?))).collect())
    }

    /// Writes a replay with its letters.
    pub(super) async fn write_replay(&mut self, replay: &NewReplay, taken: &[(Uuid, i32)]) -> Result<i64, StoreError> {
        const WHAT: &str = "writing a replay";
        let selection = serde_json::to_value(&replay.selection).unwrap_or_default();
        let state = match replay.pace {
            ReplayPace::Canary => ReplayState::Canary,
            ReplayPace::Steady | ReplayPace::Singly => ReplayState::Running,
        };
        let id = sqlx::query_scalar!(
            "INSERT INTO replays
                 (created_at, actor, is_self_declared, reason, selection, per_s_max, pace, state, letters, busy_until)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $1) RETURNING id",
            replay.now,
            replay.by.name,
            replay.by.is_self_declared,
            replay.reason,
            selection,
            i32::from(replay.per_s_max.max(1)),
            replay.pace.name(),
            state.name(),
            i32::try_from(taken.len()).unwrap_or(i32::MAX)
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let (ids, numbers): (Vec<Uuid>, Vec<i32>) = taken.iter().copied().unzip();
        sqlx::query!(
            "INSERT INTO replay_letters (replay_id, position, letter_id, number)
             SELECT $1, at, id, number FROM unnest($2::uuid[], $3::integer[]) WITH ORDINALITY AS n (id, number, at)",
            id,
            &ids,
            &numbers
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        Ok(id)
    }

    /// Ends a replay that is sending, and returns its state before. The outcome of letters that were sent is still awaited.
    pub(super) async fn end_replay(
        &mut self,
        id: i64,
        state: ReplayState,
        note: Option<&str>,
        now: OffsetDateTime,
    ) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar!(
            "WITH before AS (SELECT id, state FROM replays WHERE id = $1 AND state IN ('canary', 'running') FOR UPDATE)
             UPDATE replays r SET state = $2, note = $3, ended_at = CASE WHEN EXISTS (
                 SELECT FROM replay_letters l WHERE l.replay_id = r.id AND l.state = 'sent') THEN NULL ELSE $4::timestamptz END
             FROM before WHERE r.id = before.id RETURNING before.state",
            id,
            state.name(),
            note,
            now
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql("ending a replay"))
    }

    /// Opens the letters again that were not sent. A letter that is claimed may be on its way. If its copy comes back, it
    /// finds the letter open.
    pub(super) async fn release_queued(&mut self, id: i64, now: OffsetDateTime) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "WITH queued AS (
                 SELECT l.id, r.position FROM replay_letters r JOIN dead_letters l ON l.id = r.letter_id
                 WHERE r.replay_id = $1 AND r.state = 'queued' ORDER BY l.id FOR UPDATE OF l),
             ended AS (
                 UPDATE replay_letters r SET state = 'canceled', ended_at = $2 FROM queued
                 WHERE r.replay_id = $1 AND r.position = queued.position)
             UPDATE dead_letters l SET state = 'open', state_at = $2, state_by = NULL, state_reason = NULL
             FROM queued WHERE l.id = queued.id AND l.state = 'replaying'",
            id,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("releasing letters of a replay"))?;
        Ok(done.rows_affected())
    }

    /// Locks a replay that is sending. Returns its rate, and the time until which the rate is used up. Returns `None` if the
    /// replay sends nothing any more.
    pub(super) async fn locked_replay(&mut self, id: i64) -> Result<Option<(u16, OffsetDateTime)>, StoreError> {
        let row = sqlx::query!(
            "SELECT per_s_max, busy_until FROM replays WHERE id = $1 AND state IN ('canary', 'running') FOR UPDATE",
            id
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql("locking a replay"))?;
        Ok(row.map(|row| (u16::try_from(row.per_s_max).unwrap_or(u16::MAX), row.busy_until)))
    }

    /// Letters that were claimed before `since` are no longer waited for.
    pub(super) async fn replay_progress(&mut self, id: i64, since: OffsetDateTime) -> Result<Progress, StoreError> {
        const WHAT: &str = "looking how far a replay is";
        let row = sqlx::query!(
            r#"SELECT pace, (SELECT state FROM replay_letters WHERE replay_id = $1 AND position = 1) AS "first!",
                      EXISTS (SELECT FROM replay_letters
                              WHERE replay_id = $1 AND state IN ('queued', 'sent') AND claimed_at > $2) AS "is_waiting!"
               FROM replays WHERE id = $1"#,
            id,
            since
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let pace = ReplayPace::from_name(&row.pace);
        let pace = pace.ok_or_else(|| StoreError::Corrupt {
            what: format!("replay {id}"),
            detail: format!("{:?} is not a pace of a replay", row.pace),
        })?;
        Ok(Progress { pace, first: row.first, is_waiting: row.is_waiting })
    }

    /// The first letter was applied, so the others may follow.
    pub(super) async fn all_clear(&mut self, id: i64) -> Result<(), StoreError> {
        sqlx::query!("UPDATE replays SET pace = 'steady', state = 'running' WHERE id = $1", id)
            .execute(self.connection())
            .await
            .map_err(StoreError::sql("going on with a replay"))?;
        Ok(())
    }

    pub(super) async fn set_replay_pace(&mut self, id: i64, busy_until: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query!("UPDATE replays SET busy_until = $2 WHERE id = $1", id, busy_until)
            .execute(self.connection())
            .await
            .map_err(StoreError::sql("writing a replay's pace"))?;
        Ok(())
    }

    pub(super) async fn claim_letters(
        &mut self,
        id: i64,
        count_max: u16,
        lease: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<Claimed>, StoreError> {
        let rows = sqlx::query!(
            "WITH next AS (
                 SELECT position, letter_id FROM replay_letters
                 WHERE replay_id = $1 AND state = 'queued' AND (claimed_at IS NULL OR claimed_at <= $3)
                 ORDER BY position LIMIT $4),
             locked AS (
                 SELECT id FROM dead_letters WHERE id IN (SELECT letter_id FROM next) ORDER BY id FOR UPDATE),
             claimed AS (
                 UPDATE replay_letters r SET claimed_at = $2 FROM next JOIN locked ON locked.id = next.letter_id
                 WHERE r.replay_id = $1 AND r.position = next.position AND r.state = 'queued'
                 RETURNING r.letter_id, r.number, r.position)
             SELECT l.id, c.number, l.message_id, l.kind, l.routing_key, l.headers, l.body
             FROM claimed c JOIN dead_letters l ON l.id = c.letter_id ORDER BY c.position",
            id,
            now,
            now - lease,
            i64::from(count_max)
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("claiming letters to send"))?;
        let claimed = rows.into_iter().map(|row| Claimed {
            id: LetterId(row.id),
            replay_id: id,
            number: row.number,
            message_id: row.message_id,
            kind: row.kind,
            routing_key: row.routing_key,
            headers: row.headers,
            body: row.body,
        });
        Ok(claimed.collect())
    }

    /// Locks letters in any state, in ascending order of their ids. Later writes in this transaction then wait for nobody.
    pub(in crate::store::letters) async fn lock_letters(
        &mut self,
        ids: impl Iterator<Item = LetterId>,
    ) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ids.map(|id| id.0).collect();
        sqlx::query!("SELECT id FROM dead_letters WHERE id = ANY($1) ORDER BY id FOR UPDATE", &ids)
            .fetch_all(self.connection())
            .await
            .map_err(StoreError::sql("locking dead letters"))?;
        Ok(())
    }

    /// Writes one outcome for letters that are locked, each with the number of its replay.
    pub(super) async fn note_sent(
        &mut self,
        letters: &[(LetterId, i32)],
        sent: Sent,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        const WHAT: &str = "noting sent letters";
        let (of_replay, of_letter) = match sent {
            Sent::Confirmed => ("sent", "replaying"),
            Sent::Resolved => ("resolved", "resolved"),
            Sent::Refused => ("dead_again", "open"),
        };
        let (ids, numbers): (Vec<Uuid>, Vec<i32>) = letters.iter().map(|(id, number)| (id.0, *number)).unzip();
        sqlx::query!(
            "UPDATE dead_letters l SET state = $3, state_at = CASE WHEN l.state = $3 THEN l.state_at ELSE $4 END
             FROM unnest($1::uuid[], $2::integer[]) AS n (id, number)
             WHERE l.id = n.id AND l.replays = n.number AND l.state = 'replaying'",
            &ids,
            &numbers,
            of_letter,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        sqlx::query!(
            "UPDATE replay_letters r
             SET state = $3, sent_at = CASE WHEN $3 = 'dead_again' THEN NULL ELSE $4::timestamptz END,
                 ended_at = CASE WHEN $3 = 'sent' THEN NULL ELSE $4 END
             FROM unnest($1::uuid[], $2::integer[]) AS n (id, number)
             WHERE r.letter_id = n.id AND r.number = n.number AND r.state IN ('queued', 'canceled')",
            &ids,
            &numbers,
            of_replay,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        Ok(())
    }
}

//! Sending letters back to work: what was asked for, how far it is, what became of each.
//!
//! A replay is rows, not a process: whoever runs it may be killed at any time, and any other goes on. A letter is in one replay
//! at a time, because taking it moves it out of the state `open`.

mod sql;

use super::LetterFilter;
use crate::domain::{AuditAction, LetterId, allowance, busy_until};
use crate::store::audit::{Actor, AuditEntry};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::Tx;
use serde::Serialize;
use serde_json::json;
use std::time::Duration;
use time::OffsetDateTime;

/// How long the letter before is waited for, where they are sent singly.
const ANSWER_EXPECTED: Duration = Duration::from_secs(60);

/// Most letters of one replay.
pub const REPLAY_LETTERS_MAX: usize = 100_000;

named! {
    /// How a replay's letters follow each other.
    pub enum ReplayPace {
        /// One first; the others when that one was applied.
        Canary = "canary",
        /// All at the replay's rate.
        Steady = "steady",
        /// Each when the one before it is settled.
        Singly = "singly",
    }
}

/// A replay to begin.
#[derive(Debug, Clone)]
pub struct NewReplay {
    /// The letters, the first one first. Those that are not open by then are left out.
    pub letters: Vec<LetterId>,
    /// What was asked for, for the record.
    pub selection: LetterFilter,
    /// Most letters a second.
    pub per_s_max: u16,
    /// How they follow each other.
    pub pace: ReplayPace,
    /// Who.
    pub by: Actor,
    /// Why, for the audit log.
    pub reason: String,
    /// When.
    pub now: OffsetDateTime,
}

/// A replay that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Its number.
    pub id: i64,
    /// Letters that it took.
    pub letters: usize,
}

named! {
    /// How a replay stands.
    pub enum ReplayState {
        /// Waits for the outcome of its first letter.
        Canary = "canary",
        /// Sends.
        Running = "running",
        /// Every letter's outcome is known.
        Finished = "finished",
        /// Somebody ended it; what was not sent is open again.
        Canceled = "canceled",
        /// Its first letter was refused; what was not sent is open again.
        Stopped = "stopped",
    }
}

/// What became of a replay's letters so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReplayCounts {
    /// Not sent yet.
    pub queued: i64,
    /// Sent; the outcome is not known yet.
    pub sent: i64,
    /// Applied.
    pub resolved: i64,
    /// Refused again.
    pub dead_again: i64,
    /// Not sent, because the replay was ended before.
    pub canceled: i64,
    /// Sent, and nothing was heard of it.
    pub unanswered: i64,
}

/// A replay, as people look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// Its number.
    pub id: i64,
    /// How it stands.
    pub state: ReplayState,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// Who.
    pub actor: String,
    /// Whether nobody vouches for the name.
    pub is_self_declared: bool,
    /// Why.
    pub reason: String,
    /// What was asked for.
    pub selection: serde_json::Value,
    /// Most letters a second.
    pub per_s_max: i32,
    /// Letters that it took.
    pub letters: i32,
    /// What became of them.
    pub counts: ReplayCounts,
    /// When its first letter was sent.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_sent_at: Option<OffsetDateTime>,
    /// When the last outcome was known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Why it was stopped.
    pub note: Option<String>,
}

/// A letter to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// Which.
    pub id: LetterId,
    /// Within which replay.
    pub replay_id: i64,
    /// The letter's own number of it.
    pub number: i32,
    /// The message's id.
    pub message_id: String,
    /// The property `type`.
    pub kind: String,
    /// The key under which it was published first.
    pub routing_key: String,
    /// Its headers.
    pub headers: serde_json::Value,
    /// Its body; none: emptied meanwhile.
    pub body: Option<Vec<u8>>,
}

/// What came of sending one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The broker has it; its outcome will show.
    Confirmed,
    /// The broker has all that it held, each a message of its own now: there is nothing left of the letter.
    Resolved,
    /// It cannot be sent: it is as it was.
    Refused,
}

impl Store {
    /// Takes letters for a replay, and writes down who wants it. None where not one of them is open.
    pub async fn begin_replay(&self, replay: NewReplay) -> Result<Option<Begun>, StoreError> {
        self.run("beginning a replay", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let taken = tx.take_for_replay(&replay).await?;
            if taken.is_empty() {
                tx.roll_back().await?;
                return Ok(None);
            }
            let id = tx.write_replay(&replay, &taken).await?;
            let entry = AuditEntry {
                at: replay.now,
                by: &replay.by,
                action: AuditAction::ReplayBegin,
                subject: format!("replay {id}"),
                reason: &replay.reason,
                count: i32::try_from(taken.len()).unwrap_or(i32::MAX),
                before: json!({ "state": "open" }),
                after: json!({ "state": "replaying", "selection": replay.selection }),
            };
            tx.write_audit(entry).await?;
            tx.commit().await?;
            Ok(Some(Begun { id, letters: taken.len() }))
        })
        .await
    }

    /// Ends a replay: what was not sent is open again; gives how many letters that were. None: it had ended before, or there is
    /// none.
    pub async fn cancel_replay(
        &self,
        id: i64,
        by: Actor,
        reason: String,
        now: OffsetDateTime,
    ) -> Result<Option<u64>, StoreError> {
        self.run("canceling a replay", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let Some(before) = tx.end_replay(id, ReplayState::Canceled, None, now).await? else {
                tx.roll_back().await?;
                return Ok(None);
            };
            let left = tx.release_queued(id, now).await?;
            let entry = AuditEntry {
                at: now,
                by: &by,
                action: AuditAction::ReplayCancel,
                subject: format!("replay {id}"),
                reason: &reason,
                count: i32::try_from(left).unwrap_or(i32::MAX),
                before: json!({ "state": before }),
                after: json!({ "state": ReplayState::Canceled }),
            };
            tx.write_audit(entry).await?;
            tx.commit().await?;
            Ok(Some(left))
        })
        .await
    }

    /// Ends a replay because of its first letter; the rest is as with [`Store::cancel_replay`].
    pub async fn stop_replay(&self, id: i64, note: String, now: OffsetDateTime) -> Result<Option<u64>, StoreError> {
        self.run("stopping a replay", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            if tx.end_replay(id, ReplayState::Stopped, Some(&note), now).await?.is_none() {
                tx.roll_back().await?;
                return Ok(None);
            }
            let left = tx.release_queued(id, now).await?;
            tx.commit().await?;
            Ok(Some(left))
        })
        .await
    }

    /// Claims letters of a replay that are to be sent now, by its rate and pace. Those whose sender died come again after
    /// `lease`.
    pub async fn claim_replay(
        &self,
        id: i64,
        lease: Duration,
        now: OffsetDateTime,
    ) -> Result<Vec<Claimed>, StoreError> {
        self.run("claiming letters to send", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let Some((per_s_max, busy)) = tx.locked_replay(id).await? else {
                tx.roll_back().await?;
                return Ok(vec![]);
            };
            let mut count_max = allowance(per_s_max, busy, now);
            let under_way = tx.replay_progress(id, now - ANSWER_EXPECTED).await?;
            match (under_way.pace, under_way.first.as_str()) {
                (ReplayPace::Canary, "resolved") => tx.all_clear(id).await?,
                // Not sent yet, or its sender died: then its lease passes.
                (ReplayPace::Canary, "queued") => count_max = count_max.min(1),
                (ReplayPace::Canary, _) => count_max = 0,
                (ReplayPace::Singly, _) => count_max = count_max.min(u16::from(!under_way.is_waiting)),
                (ReplayPace::Steady, _) => {}
            }
            let claimed = if count_max == 0 { vec![] } else { tx.claim_letters(id, count_max, lease, now).await? };
            let count = u16::try_from(claimed.len()).unwrap_or(u16::MAX);
            tx.set_replay_pace(id, busy_until(per_s_max, count, busy, now)).await?;
            tx.commit().await?;
            Ok(claimed)
        })
        .await
    }

    /// Notes what came of sending letters.
    pub async fn note_sent(&self, sent: Vec<(LetterId, i32, Sent)>, now: OffsetDateTime) -> Result<(), StoreError> {
        self.run("noting sent letters", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            tx.lock_letters(sent.iter().map(|(id, _, _)| *id)).await?;
            for outcome in [Sent::Confirmed, Sent::Resolved, Sent::Refused] {
                let of_it = sent.iter().filter(|(_, _, sent)| *sent == outcome);
                let letters: Vec<(LetterId, i32)> = of_it.map(|(id, number, _)| (*id, *number)).collect();
                if !letters.is_empty() {
                    tx.note_sent(&letters, outcome, now).await?;
                }
            }
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Replays that are under way, the oldest first.
    pub async fn replays_under_way(&self) -> Result<Vec<Replay>, StoreError> {
        self.replays_where(true, None, 100).await
    }

    /// The last replays, the newest first.
    pub async fn replays(&self, count_max: u16) -> Result<Vec<Replay>, StoreError> {
        self.replays_where(false, None, count_max).await
    }

    /// One replay.
    pub async fn replay(&self, id: i64) -> Result<Option<Replay>, StoreError> {
        Ok(self.replays_where(false, Some(id), 1).await?.pop())
    }

    async fn replays_where(&self, under_way: bool, id: Option<i64>, count_max: u16) -> Result<Vec<Replay>, StoreError> {
        const WHAT: &str = "listing replays";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(
                r#"SELECT r.id, r.state, r.created_at, r.actor, r.is_self_declared, r.reason, r.selection, r.per_s_max,
                          r.letters, r.ended_at, r.note,
                          (SELECT sent_at FROM replay_letters l WHERE l.replay_id = r.id AND l.position = 1) AS first_sent_at,
                          c.queued AS "queued!", c.sent AS "sent!",
                          c.resolved AS "resolved!", c.dead_again AS "dead_again!", c.canceled AS "canceled!",
                          c.unanswered AS "unanswered!"
                   FROM replays r CROSS JOIN LATERAL (
                       SELECT count(*) FILTER (WHERE state = 'queued') AS queued,
                              count(*) FILTER (WHERE state = 'sent') AS sent,
                              count(*) FILTER (WHERE state = 'resolved') AS resolved,
                              count(*) FILTER (WHERE state = 'dead_again') AS dead_again,
                              count(*) FILTER (WHERE state = 'canceled') AS canceled,
                              count(*) FILTER (WHERE state = 'unanswered') AS unanswered
                       FROM replay_letters l WHERE l.replay_id = r.id) c
                   WHERE ($1::bigint IS NULL OR r.id = $1) AND (NOT $2 OR r.ended_at IS NULL)
                   ORDER BY CASE WHEN $2 THEN r.id ELSE -r.id END LIMIT $3"#,
                id,
                under_way,
                i64::from(count_max)
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            rows.into_iter()
                .map(|row| {
                    let state = ReplayState::from_name(&row.state);
                    let state = state.ok_or_else(|| StoreError::Corrupt {
                        what: format!("replay {}", row.id),
                        detail: format!("{:?} is no state of a replay", row.state),
                    })?;
                    Ok(Replay {
                        id: row.id,
                        state,
                        created_at: row.created_at,
                        actor: row.actor,
                        is_self_declared: row.is_self_declared,
                        reason: row.reason,
                        selection: row.selection,
                        per_s_max: row.per_s_max,
                        letters: row.letters,
                        counts: ReplayCounts {
                            queued: row.queued,
                            sent: row.sent,
                            resolved: row.resolved,
                            dead_again: row.dead_again,
                            canceled: row.canceled,
                            unanswered: row.unanswered,
                        },
                        first_sent_at: row.first_sent_at,
                        ended_at: row.ended_at,
                        note: row.note,
                    })
                })
                .collect()
        })
        .await
    }
}

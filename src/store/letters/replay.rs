//! Replays of dead letters: which letters, how many were sent, and the outcome of each.
//!
//! A replay is rows, not a process. If the process that runs it is killed, another one continues. A letter is in one replay
//! at a time, because the replay moves it out of the state `open`.

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

/// How long the next letter waits for the outcome of the one before, if they are sent one by one.
const ANSWER_EXPECTED: Duration = Duration::from_secs(60);

/// The largest number of letters in one replay.
pub const REPLAY_LETTERS_MAX: usize = 100_000;

named! {
    /// The order in time in which the letters of a replay are sent.
    pub enum ReplayPace {
        /// One letter is sent first, and the others after it was applied.
        Canary = "canary",
        /// All letters are sent, at the replay's rate.
        Steady = "steady",
        /// Each letter is sent when the one before it is settled.
        Singly = "singly",
    }
}

/// A replay that is to begin.
#[derive(Debug, Clone)]
pub struct NewReplay {
    /// The letters in the order of the replay. Letters that are not open when it begins are left out.
    pub letters: Vec<LetterId>,
    /// The filter that was asked for. It is only written down.
    pub selection: LetterFilter,
    /// The largest number of letters a second.
    pub per_s_max: u16,
    /// How the letters follow each other.
    pub pace: ReplayPace,
    /// The person who begins the replay.
    pub by: Actor,
    /// The reason, for the audit log.
    pub reason: String,
    /// The time of the request.
    pub now: OffsetDateTime,
}

/// A replay that has begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// The number of the replay.
    pub id: i64,
    /// The number of letters that the replay took.
    pub letters: usize,
}

named! {
    /// The state of a replay.
    pub enum ReplayState {
        /// Waits for the outcome of its first letter.
        Canary = "canary",
        /// The replay sends its letters.
        Running = "running",
        /// Every letter's outcome is known.
        Finished = "finished",
        /// A person ended the replay. Letters that were not sent are open again.
        Canceled = "canceled",
        /// The first letter was refused. Letters that were not sent are open again.
        Stopped = "stopped",
    }
}

/// How many letters of a replay have which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ReplayCounts {
    /// The letter was not sent yet.
    pub queued: i64,
    /// The letter was sent, and its outcome is not known yet.
    pub sent: i64,
    /// The letter was applied.
    pub resolved: i64,
    /// The letter was refused again.
    pub dead_again: i64,
    /// The letter was not sent, because the replay was ended before.
    pub canceled: i64,
    /// The letter was sent, and no outcome was seen.
    pub unanswered: i64,
}

/// A replay, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replay {
    /// The number of the replay.
    pub id: i64,
    /// The state of the replay.
    pub state: ReplayState,
    /// When the replay was requested.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
    /// The person who began the replay.
    pub actor: String,
    /// Whether the person gave the name without any proof.
    pub is_self_declared: bool,
    /// The reason that the person gave.
    pub reason: String,
    /// The filter that was asked for.
    pub selection: serde_json::Value,
    /// The largest number of letters a second.
    pub per_s_max: i32,
    /// The number of letters that the replay took.
    pub letters: i32,
    /// The outcomes of the letters.
    pub counts: ReplayCounts,
    /// When the first letter was sent.
    #[serde(with = "time::serde::rfc3339::option")]
    pub first_sent_at: Option<OffsetDateTime>,
    /// When the last outcome was known.
    #[serde(with = "time::serde::rfc3339::option")]
    pub ended_at: Option<OffsetDateTime>,
    /// Why the replay was stopped.
    pub note: Option<String>,
}

/// A letter that is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    /// The id of the letter.
    pub id: LetterId,
    /// The replay that sends it.
    pub replay_id: i64,
    /// The number that this replay has for the letter.
    pub number: i32,
    /// The id of the message.
    pub message_id: String,
    /// The property `type` of the message.
    pub kind: String,
    /// The routing key with which the message was first published.
    pub routing_key: String,
    /// The headers of the message.
    pub headers: serde_json::Value,
    /// The body of the message. `None` if it was emptied meanwhile.
    pub body: Option<Vec<u8>>,
}

/// The result of sending a letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The broker has confirmed the message. Its outcome will follow.
    Confirmed,
    /// The letter contained several messages, and the broker has confirmed each of them as a message of its own. So the
    /// letter is resolved.
    Resolved,
    /// The letter cannot be sent, and its state is as before.
    Refused,
}

impl Store {
    /// Takes letters for a replay and writes down who wants it. Returns `None` if none of them is open.
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

    /// Ends a replay. Letters that were not sent are open again, and their number is returned. Returns `None` if the replay
    /// has ended before or does not exist.
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

    /// Ends a replay because of the outcome of its first letter. The rest is as with [`Store::cancel_replay`].
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

    /// Claims letters of a replay that are to be sent now, by its rate and its pace. If a process that has claimed letters
    /// ends, they can be claimed again after `lease`.
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
                // The first letter was not sent yet, or its process has ended. Then the lease of that process must end
                // first.
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

    /// Writes the results of sending letters.
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

    /// Returns replays that are running, the oldest first.
    pub async fn replays_under_way(&self) -> Result<Vec<Replay>, StoreError> {
        self.replays_where(true, None, 100).await
    }

    /// Returns the last replays, the newest first.
    pub async fn replays(&self, count_max: u16) -> Result<Vec<Replay>, StoreError> {
        self.replays_where(false, None, count_max).await
    }

    /// Returns one replay.
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
                        detail: format!("{:?} is not a state of a replay", row.state),
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

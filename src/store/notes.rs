//! Notes of the worker for the stories of orders and for charts: copies, messages that wait, and numbers of messages.
//!
//! Nothing is decided by notes, so they must not delay the worker. They are made *after* a batch is settled, gathered in
//! memory, and written about once a second. The transaction does not wait for the disk. A crash, an outage or too many notes
//! at once can lose some of them, and nothing else is lost.

use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::Tx;
use crate::domain::{OrderId, PaymentEvent, Separated};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use uuid::Uuid;

/// How long notes are gathered before they are written.
const WRITE_EVERY: Duration = Duration::from_secs(1);

/// The largest number of messages whose notes are kept in memory. Of further messages only their number is counted until the
/// next write.
const MESSAGES_MAX: usize = 5_000;

/// The largest number of minutes that are kept in memory.
const MINUTES_MAX: usize = 60;

/// How long minutes are stored, in days. `notes_maintain` deletes older ones.
const ACTIVITY_DAYS: i64 = 35;

/// The largest number of notes that one call of `notes_maintain` deletes.
const DELETED_MAX: i32 = 20_000;

/// How many messages had which outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Activity {
    /// Messages that were admitted and whose facts were added.
    pub applied: u32,
    /// Messages that were admitted before.
    pub duplicates: u32,
    /// Messages that wait for their order.
    pub put_off: u32,
    /// Messages that became dead letters.
    pub dead_lettered: u32,
    /// Grants that were written.
    pub grants: u32,
}

/// An event in the life of a message that is worth a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// A copy of the message was recognised.
    Copy,
    /// The order is unknown, so the message waits.
    PutOff,
    /// The message could not be settled, and its content is not the cause.
    Waits(Separated),
}

/// A note about one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageNote {
    message_id: String,
    provider: String,
    payment_id: String,
    order_id: Option<OrderId>,
    status: &'static str,
    noted: Noted,
}

impl MessageNote {
    /// Makes a note about the message of this event.
    pub fn new(event: &PaymentEvent, noted: Noted) -> Self {
        Self {
            message_id: event.message_id.as_str().to_owned(),
            provider: event.provider.as_str().to_owned(),
            payment_id: event.payment_id.as_str().to_owned(),
            order_id: event.order_id,
            status: event.status.name(),
            noted,
        }
    }
}

/// The notes about one message that are not written yet.
#[derive(Debug)]
struct PendingNote {
    note: MessageNote,
    copies: i64,
    put_offs: i64,
    waits_for: Option<Separated>,
    first_at: OffsetDateTime,
    last_at: OffsetDateTime,
}

#[derive(Debug, Default)]
struct PendingNotes {
    /// The key is the message id, so every worker writes the notes in the same order.
    messages: BTreeMap<String, PendingNote>,
    minutes: BTreeMap<OffsetDateTime, [i64; 5]>,
}

impl PendingNotes {
    fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.minutes.is_empty()
    }

    /// Returns the number of notes that found no room.
    fn add(&mut self, activity: Activity, notes: Vec<MessageNote>, now: OffsetDateTime) -> usize {
        let minute = now.truncate_to_minute();
        if self.minutes.len() < MINUTES_MAX || self.minutes.contains_key(&minute) {
            let Activity { applied, duplicates, put_off, dead_lettered, grants } = activity;
            let counts = self.minutes.entry(minute).or_default();
            for (count, more) in counts.iter_mut().zip([applied, duplicates, put_off, dead_lettered, grants]) {
                *count += i64::from(more);
            }
        }
        let mut dropped = 0;
        for note in notes {
            let is_known = self.messages.contains_key(&note.message_id);
            if !is_known && self.messages.len() >= MESSAGES_MAX {
                dropped += 1;
                continue;
            }
            let noted = note.noted;
            let pending = self.messages.entry(note.message_id.clone()).or_insert(PendingNote {
                note,
                copies: 0,
                put_offs: 0,
                waits_for: None,
                first_at: now,
                last_at: now,
            });
            match noted {
                Noted::Copy => pending.copies += 1,
                Noted::PutOff | Noted::Waits(_) => pending.put_offs += 1,
            }
            pending.waits_for = match noted {
                Noted::Waits(cause) => Some(cause),
                Noted::Copy | Noted::PutOff => None,
            };
            pending.first_at = pending.first_at.min(now);
            pending.last_at = pending.last_at.max(now);
        }
        dropped
    }
}

/// The worker's side: it takes notes and never delays the worker.
#[derive(Clone, Debug, Default)]
pub struct NoteBuffer {
    pending: Arc<Mutex<PendingNotes>>,
    has_some: Arc<Notify>,
}

impl NoteBuffer {
    fn pending(&self) -> MutexGuard<'_, PendingNotes> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the outcomes of a batch.
    pub fn note(&self, activity: Activity, notes: Vec<MessageNote>, now: OffsetDateTime) {
        let dropped = self.pending().add(activity, notes, now);
        if dropped > 0 {
            tracing::debug!(event = "notes_dropped", dropped, "the buffer is full until the next write");
        }
        self.has_some.notify_one();
    }

    /// Starts the task that writes the notes about once a second. Abort it when the store is no longer used.
    pub fn write_through(&self, store: Store) -> JoinHandle<()> {
        let note_buffer = self.clone();
        tokio::spawn(async move {
            loop {
                note_buffer.has_some.notified().await;
                tokio::time::sleep(WRITE_EVERY).await;
                note_buffer.write(&store).await;
            }
        })
    }

    /// Writes the notes now. Notes that cannot be written are lost. It is not always known whether they were written, and
    /// nothing may be counted twice because an answer is missing.
    pub async fn write(&self, store: &Store) {
        let pending = std::mem::take(&mut *self.pending());
        if pending.is_empty() {
            return;
        }
        let messages = pending.messages.len();
        if let Err(error) = store.write_notes(pending).await {
            tracing::debug!(event = "notes_lost", messages, cause = %error, "the notes will be missing from stories and charts");
        }
    }
}

/// One minute of all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct ActivityMinute {
    /// The beginning of the minute.
    #[serde(with = "time::serde::rfc3339")]
    pub minute: OffsetDateTime,
    /// Messages that were admitted and whose facts were added.
    pub applied: i64,
    /// Copies of messages that were admitted before.
    pub duplicates: i64,
    /// How often a message had to wait for its order.
    pub put_off: i64,
    /// Messages that became dead letters.
    pub dead_lettered: i64,
    /// Grants that were written.
    pub grants: i64,
}

impl Store {
    async fn write_notes(&self, pending: PendingNotes) -> Result<(), StoreError> {
        self.run("writing notes", move |pool| async move { write(&pool, pending).await }).await
    }

    /// The work of all workers in each minute from `since` on, the oldest first. Minutes without work are left out. Minutes
    /// that are older than 35 days are deleted.
    pub async fn activity(&self, since: OffsetDateTime) -> Result<Vec<ActivityMinute>, StoreError> {
        const WHAT: &str = "reading the workers' activity";
        self.run(WHAT, move |pool| async move {
            sqlx::query_as!(
                ActivityMinute,
                "SELECT minute, applied, duplicates, put_off, dead_lettered, grants FROM activity
                 WHERE minute >= $1 ORDER BY minute LIMIT $2",
                since,
                ACTIVITY_DAYS * 24 * 60
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))
        })
        .await
    }

    /// For each cause, the number of messages about which workers have noted since `since` that they wait and that their
    /// content is not the cause.
    pub async fn waiting_messages(&self, since: OffsetDateTime) -> Result<Vec<(Separated, i64)>, StoreError> {
        const WHAT: &str = "counting messages that wait";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(
                r#"SELECT waits_for AS "cause!", count(*) AS "messages!" FROM message_notes
                   WHERE waits_for IS NOT NULL AND last_noted_at >= $1 GROUP BY waits_for ORDER BY 2 DESC"#,
                since
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            // This release does not know the causes of a later one.
            Ok(rows.iter().filter_map(|row| Some((Separated::from_name(&row.cause)?, row.messages))).collect())
        })
        .await
    }

    /// Deletes notes that are older than `retention`, and old minutes. Returns the number of notes, and whether there are
    /// more.
    pub async fn maintain_notes(
        &self,
        now: OffsetDateTime,
        retention: time::Duration,
    ) -> Result<(i32, bool), StoreError> {
        const WHAT: &str = "maintaining the notes";
        let retention_days = i32::try_from(retention.whole_days().max(1)).unwrap_or(i32::MAX);
        self.run(WHAT, move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let notes =
                sqlx::query_scalar!(r#"SELECT notes AS "notes!" FROM notes_maintain($1, $2)"#, now, retention_days)
                    .fetch_one(tx.connection())
                    .await
                    .map_err(StoreError::sql(WHAT))?;
            tx.commit().await?;
            Ok((notes, notes >= DELETED_MAX))
        })
        .await
    }
}

async fn write(pool: &PooledConnection, pending: PendingNotes) -> Result<(), StoreError> {
    let mut tx = Tx::begin(pool).await?;
    // If this commit is lost, nothing important is lost. So it does not wait for the disk.
    sqlx::query("SELECT set_config('synchronous_commit', 'off', true)")
        .execute(tx.connection())
        .await
        .map_err(StoreError::sql("writing notes"))?;
    if !pending.messages.is_empty() {
        tx.write_message_notes(pending.messages.into_values().collect()).await?;
    }
    tx.write_activity(&pending.minutes).await?;
    tx.commit().await?;
    Ok(())
}

impl Tx {
    /// Writes in ascending order of the ids, so that two workers cannot wait for each other in a circle.
    async fn write_message_notes(&mut self, notes: Vec<PendingNote>) -> Result<(), StoreError> {
        let (mut messages, mut providers, mut payments) = (vec![], vec![], vec![]);
        let (mut orders, mut statuses): (Vec<Option<Uuid>>, _) = (vec![], vec![]);
        let (mut copies, mut put_offs, mut firsts, mut lasts) = (vec![], vec![], vec![], vec![]);
        let mut causes: Vec<Option<String>> = vec![];
        for PendingNote { note, copies: more_copies, put_offs: more_put_offs, waits_for, first_at, last_at } in notes {
            messages.push(note.message_id);
            providers.push(note.provider);
            payments.push(note.payment_id);
            orders.push(note.order_id.map(|id| id.0));
            statuses.push(note.status.to_owned());
            copies.push(more_copies);
            put_offs.push(more_put_offs);
            causes.push(waits_for.map(|cause| cause.name().to_owned()));
            firsts.push(first_at);
            lasts.push(last_at);
        }
        sqlx::query!(
            "INSERT INTO message_notes AS m (message_id, provider, payment_id, order_id, said, copies, put_offs,
                                             first_noted_at, last_noted_at, waits_for)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::bigint[], $7::bigint[],
                                  $8::timestamptz[], $9::timestamptz[], $10::text[])
             ON CONFLICT (message_id) DO UPDATE
             SET copies = m.copies + excluded.copies, put_offs = m.put_offs + excluded.put_offs,
                 last_noted_at = greatest(m.last_noted_at, excluded.last_noted_at), waits_for = excluded.waits_for",
            &messages,
            &providers,
            &payments,
            &orders as &[Option<Uuid>],
            &statuses,
            &copies,
            &put_offs,
            &firsts,
            &lasts,
            &causes as &[Option<String>]
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing notes of messages"))?;
        Ok(())
    }

    async fn write_activity(&mut self, minutes: &BTreeMap<OffsetDateTime, [i64; 5]>) -> Result<(), StoreError> {
        for (minute, [applied, duplicates, put_off, dead_lettered, grants]) in minutes {
            sqlx::query!(
                "INSERT INTO activity AS a (minute, applied, duplicates, put_off, dead_lettered, grants)
                 VALUES ($1, $2, $3, $4, $5, $6)
                 ON CONFLICT (minute) DO UPDATE
                 SET applied = a.applied + excluded.applied, duplicates = a.duplicates + excluded.duplicates,
                     put_off = a.put_off + excluded.put_off, dead_lettered = a.dead_lettered + excluded.dead_lettered,
                     grants = a.grants + excluded.grants",
                minute,
                applied,
                duplicates,
                put_off,
                dead_lettered,
                grants
            )
            .execute(self.connection())
            .await
            .map_err(StoreError::sql("writing the activity"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MessageId, PaymentId, PaymentStatus, Provider};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:59.5 UTC);

    fn note(message: usize, noted: Noted) -> MessageNote {
        let event = PaymentEvent {
            provider: Provider::STRIPE,
            message_id: MessageId::new(format!("stripe::evt_{message}")).unwrap(),
            payment_id: PaymentId::new("pi_1").unwrap(),
            related_ids: vec![],
            provider_account: None,
            order_id: None,
            status: PaymentStatus::Canceled,
            occurred_at: NOW,
            as_of: None,
            livemode: true,
        };
        MessageNote::new(&event, noted)
    }

    #[test]
    fn notes_of_one_message_and_counts_of_one_minute_are_added_up() {
        let mut pending = PendingNotes::default();
        let some = Activity { applied: 3, duplicates: 2, grants: 1, ..Activity::default() };
        assert_eq!(pending.add(some, vec![note(1, Noted::Copy), note(1, Noted::Copy), note(2, Noted::PutOff)], NOW), 0);
        let later = NOW + Duration::from_secs(1);
        assert_eq!(pending.add(Activity { put_off: 1, ..some }, vec![note(1, Noted::PutOff)], later), 0);
        let first = &pending.messages["stripe::evt_1"];
        assert_eq!((first.copies, first.put_offs, first.first_at, first.last_at), (2, 1, NOW, later));
        assert_eq!((pending.messages["stripe::evt_2"].put_offs, pending.messages.len()), (1, 2));
        let minutes: Vec<_> = pending.minutes.into_iter().collect();
        let (this, next) = (datetime!(2026-01-05 12:00 UTC), datetime!(2026-01-05 12:01 UTC));
        assert_eq!(minutes, [(this, [3, 2, 0, 0, 1]), (next, [3, 2, 1, 0, 1])]);
    }

    #[test]
    fn what_is_kept_in_hand_is_bounded() {
        let mut pending = PendingNotes::default();
        let many = (0..MESSAGES_MAX + 7).map(|n| note(n, Noted::Copy)).collect();
        assert_eq!(pending.add(Activity::default(), many, NOW), 7);
        assert_eq!(pending.add(Activity::default(), vec![note(0, Noted::Copy)], NOW), 0, "it is in hand already");
        assert_eq!((pending.messages.len(), pending.messages["stripe::evt_0"].copies), (MESSAGES_MAX, 2));
        for minute in 0..100 {
            pending.add(Activity::default(), vec![], NOW + time::Duration::minutes(minute));
        }
        assert_eq!(pending.minutes.len(), MINUTES_MAX);
    }
}

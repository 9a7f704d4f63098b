//! One batch: from its deliveries to what may be acknowledged of it.

use super::judge::{is_retry, judge};
use super::session::{Lost, Session};
use super::settle::{Decision, PendingCopy, Settled};
use super::trace::BatchTrace;
use crate::broker::Delivery;
use crate::domain::PaymentEvent;
use crate::message::Judgement;
use crate::store::{Activity, MessageNote};
use crate::telemetry::MessageOutcome;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;

/// A delivery with the event that it carries.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) delivery: Delivery,
    pub(super) event: Box<PaymentEvent>,
}

impl AsRef<PaymentEvent> for Job {
    fn as_ref(&self) -> &PaymentEvent {
        &self.event
    }
}

/// A batch that is being worked on.
pub(super) struct Batch {
    pub(super) session: Arc<Session>,
    pub(super) messages: usize,
    /// Whether no other batch of this session was under way when it began.
    pub(super) is_alone: bool,
    pub(super) began: Instant,
    /// The time by which its messages are judged, and which is written to rows.
    pub(super) now: OffsetDateTime,
    /// Deliveries that may be acknowledged.
    pub(super) settled: Vec<Settled>,
    /// Deliveries whose copies are not confirmed yet.
    pub(super) copying: Vec<PendingCopy>,
    pub(super) activity: Activity,
    pub(super) notes: Vec<MessageNote>,
    pub(super) trace: Option<BatchTrace>,
}

impl Batch {
    /// Works on deliveries until each of them is settled or waits for its copy. An error ends the session.
    pub(super) async fn work(
        deliveries: Vec<Delivery>,
        is_alone: bool,
        session: Arc<Session>,
    ) -> (Self, Result<(), Lost>) {
        let now = session.clock.now();
        if let Some(waited) = longest_wait(&deliveries, now) {
            session.metrics.queue_wait(waited);
        }
        let mut batch = Self {
            messages: deliveries.len(),
            is_alone,
            began: Instant::now(),
            now,
            settled: Vec::with_capacity(deliveries.len()),
            copying: Vec::new(),
            activity: Activity::default(),
            notes: Vec::new(),
            trace: BatchTrace::begin(&session.traces, &deliveries, now),
            session,
        };
        let worked = batch.work_through(deliveries).await;
        (batch, worked)
    }

    async fn work_through(&mut self, deliveries: Vec<Delivery>) -> Result<(), Lost> {
        let session = Arc::clone(&self.session);
        let mut jobs = Vec::with_capacity(deliveries.len());
        for delivery in deliveries {
            match judge(&delivery, session.config.livemode, self.now) {
                Judgement::Event(event) => jobs.push(Job { delivery, event }),
                Judgement::TestEvent => {
                    self.decide(&delivery, None, Decision::nothing(MessageOutcome::TestEventDropped));
                }
                Judgement::Refused(refusal) => self.decide(&delivery, None, Decision::refused(&delivery, &refusal)),
            }
        }
        for part in session.payment_locks.split(jobs) {
            let (jobs, _lock) = part.acquire().await;
            self.apply_in_parts(jobs).await?;
        }
        self.wait_for_copies().await?;
        session.note_buffer.note(self.activity, std::mem::take(&mut self.notes), self.now);
        Ok(())
    }
}

/// How long the oldest delivery waited in the queue. Deliveries from a retry queue do not count: they were meant to wait. `None`
/// if no sender gave a time; zero if a sender's clock is ahead of ours.
fn longest_wait(deliveries: &[Delivery], now: OffsetDateTime) -> Option<Duration> {
    let anew = deliveries.iter().filter(|delivery| !is_retry(delivery));
    let oldest = anew.filter_map(|delivery| delivery.published_at).min()?;
    Some(Duration::try_from(now - oldest).unwrap_or_default())
}

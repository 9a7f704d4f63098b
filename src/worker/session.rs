//! One consumer's life: from its first delivery until it is drained, or a dependency is lost.

use super::apply::{Outage, apply};
use super::job::Job;
use super::judge::{is_retry, judge};
use super::payment_locks::{PaymentLocks, Sorted};
use super::settle::{Decided, Settled, Settling, Waiting};
use super::trace::BatchTrace;
use super::unacknowledged::Unacknowledged;
use super::{Pace, Rules};
use crate::broker::{BrokerError, Consumer, Delivery, Publisher};
use crate::clock::Clock;
use crate::message::Judgement;
use crate::shutdown::Shutdown;
use crate::store::{BatchTerms, ChangedOrders, NoteBuffer, Store};
use crate::telemetry::{GivenBack, Metrics, Traces};
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long batches that are under way are waited for when a shutdown's time is over.
const LEFT_AFTER_DRAIN: Duration = Duration::from_secs(1);

/// And when a dependency is lost: each has its own deadlines, which together stay below this.
const LEFT_AFTER_LOSS: Duration = Duration::from_secs(60);

/// How a session ended. `acknowledged` deliveries were settled in it; `given_back` ones go back to the queue, once.
#[derive(Debug)]
pub(super) enum Ended {
    /// As asked: nothing is left in hand.
    Drained { acknowledged: u64 },
    /// As asked, but something was left in hand.
    Stopped { acknowledged: u64, given_back: u64, cause: Lost },
    /// Postgres is away.
    DatabaseOutage { acknowledged: u64, given_back: u64, cause: Outage },
    /// RabbitMQ, or the way to it, is away.
    BrokerLost { acknowledged: u64, given_back: u64, cause: Lost },
}

/// Why a session could not go on, or not settle all that it had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the consumer was canceled by the broker")]
    Canceled,
    #[error("the drain took longer than {} s", .0.as_secs())]
    DrainTooLong(Duration),
    #[error(transparent)]
    Outage(#[from] Outage),
    #[error("copies of {0} deliveries were not confirmed")]
    CopiesNotConfirmed(usize),
    #[error("a batch ended without an answer: {0}")]
    Panicked(#[from] JoinError),
}

impl Lost {
    /// The metric's label.
    pub(super) fn label(&self) -> GivenBack {
        match self {
            Self::CopiesNotConfirmed(_) => GivenBack::PublishFailed,
            Self::Panicked(_) => GivenBack::Bug,
            Self::DrainTooLong(_) => GivenBack::Shutdown,
            Self::Outage(outage) => outage.label(),
            Self::Broker(_) | Self::Canceled => GivenBack::ConnectionLost,
        }
    }
}

/// A batch that was worked on.
struct Worked {
    messages: usize,
    began: Instant,
    /// What may be acknowledged, and what waits for its copy.
    worked: Result<(Vec<Settled>, Vec<Waiting>), Lost>,
    trace: Option<BatchTrace>,
}

/// What a session works with.
pub(super) struct Session {
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) changed: ChangedOrders,
    pub(super) note_buffer: NoteBuffer,
    pub(super) rules: Rules,
    pub(super) pace: Pace,
    /// After so many acknowledgements the session ends.
    pub(super) acknowledged_max: Option<u64>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
    pub(super) payment_locks: PaymentLocks,
    /// No batch is held any longer: the process stops, or this session alone ends.
    pub(super) stopping: CancellationToken,
    /// Nothing is acknowledged any more, so no copy is waited for.
    pub(super) ended: CancellationToken,
}

impl Session {
    /// Works until the process stops and drains, or until a dependency is lost. Batches are worked on side by side and acknowledged
    /// in the order of their deliveries, so that one cumulative acknowledgement covers each.
    pub(super) async fn run(self, mut consumer: Consumer, shutdown: &Shutdown) -> Ended {
        let stop = shutdown.token();
        let session = Arc::new(self);
        let Self { pace, acknowledged_max, metrics, stopping, ended, .. } = session.as_ref();
        let mut unacknowledged = Unacknowledged::new(consumer.acknowledger(), metrics.clone());
        let mut in_flight: FuturesOrdered<JoinHandle<Worked>> = FuturesOrdered::new();
        let mut waiting: FuturesUnordered<Waiting> = FuturesUnordered::new();
        let mut batch: Vec<Delivery> = Vec::with_capacity(pace.batch_max);
        let mut draining_until: Option<Instant> = None;
        let mut is_exhausted = false;

        let lost: Result<(), Lost> = loop {
            if is_exhausted && in_flight.is_empty() {
                break Ok(());
            }
            let is_over = acknowledged_max.is_some_and(|max| unacknowledged.acknowledged() >= max);
            if is_over && in_flight.is_empty() && waiting.is_empty() {
                break Ok(());
            }
            // What a drain has still to take is little, and it waits for no copy.
            let has_room = waiting.len() < pace.waiting_max() || draining_until.is_some();
            let can_take = !is_exhausted && has_room && in_flight.len() < pace.batches_in_flight;
            // Like Nagle's algorithm: with nothing under way a delivery goes at once, else it waits for company.
            let linger = if in_flight.is_empty() { Duration::ZERO } else { pace.batch_wait };
            let drain_deadline = draining_until.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                Some(worked) = in_flight.next(), if !in_flight.is_empty() => {
                    match acknowledge(worked, &mut unacknowledged, metrics).await {
                        Ok(copies) => waiting.extend(copies),
                        Err(lost) => break Err(lost),
                    }
                    metrics.deliveries_waiting(waiting.len());
                }
                Some(copied) = waiting.next(), if !waiting.is_empty() => {
                    metrics.deliveries_waiting(waiting.len());
                    let settled = match copied {
                        Ok(settled) => settled.into_iter().collect(),
                        Err(panicked) => break Err(panicked.into()),
                    };
                    if let Err(error) = unacknowledged.acknowledge(settled).await {
                        break Err(error.into());
                    }
                }
                () = stop.cancelled(), if draining_until.is_none() => {
                    draining_until = Some(Instant::now() + shutdown.drain_deadline());
                    tracing::info!(event = "draining", in_flight = in_flight.len(), "taking no more deliveries");
                    consumer.cancel();
                }
                () = tokio::time::sleep_until(drain_deadline), if draining_until.is_some() => {
                    break Err(Lost::DrainTooLong(shutdown.drain_deadline()));
                }
                filled = consumer.fill(&mut batch, pace.batch_max, linger), if can_take => match filled {
                    Ok(Some(())) => {
                        let full = std::mem::replace(&mut batch, Vec::with_capacity(pace.batch_max));
                        unacknowledged.receive(&full);
                        in_flight.push_back(tokio::spawn(work(full, Arc::clone(&session))));
                    }
                    Ok(None) if draining_until.is_some() => is_exhausted = true,
                    Ok(None) => break Err(Lost::Canceled),
                    Err(error) => break Err(error.into()),
                },
            }
        };
        // Those that are still under way commit or not; unacknowledged, they come back and the inbox knows them. They
        // are waited for, so that the next session does not run into its own predecessor; but not past a shutdown's time.
        stopping.cancel();
        ended.cancel();
        let patience = if draining_until.is_some() { LEFT_AFTER_DRAIN } else { LEFT_AFTER_LOSS };
        let rest = async { while in_flight.next().await.is_some() {} };
        if tokio::time::timeout(patience, rest).await.is_err() {
            tracing::warn!(event = "batches_left", "batches are still under way; their transactions end by themselves");
        }
        metrics.deliveries_waiting(0);
        consumer.close().await;
        let (acknowledged, given_back) = (unacknowledged.acknowledged(), unacknowledged.given_back());
        match lost {
            Ok(()) if given_back == 0 => Ended::Drained { acknowledged },
            Ok(()) => Ended::Stopped { acknowledged, given_back, cause: Lost::CopiesNotConfirmed(waiting.len()) },
            Err(cause) if draining_until.is_some() => Ended::Stopped { acknowledged, given_back, cause },
            Err(Lost::Outage(cause)) => Ended::DatabaseOutage { acknowledged, given_back, cause },
            Err(cause) => Ended::BrokerLost { acknowledged, given_back, cause },
        }
    }
}

/// Acknowledges what is settled of a batch, and gives the copies that it waits for.
async fn acknowledge(
    worked: Result<Worked, JoinError>,
    unacknowledged: &mut Unacknowledged,
    metrics: &Metrics,
) -> Result<Vec<Waiting>, Lost> {
    let Worked { messages, began, worked, trace } = worked?;
    let acknowledged = match worked {
        Ok((settled, waiting)) => unacknowledged.acknowledge(settled).await.map(|()| waiting).map_err(Lost::from),
        Err(lost) => Err(lost),
    };
    if let Some(trace) = trace {
        trace.end(acknowledged.as_ref().err().map(Lost::label));
    }
    metrics.batch(messages, began.elapsed());
    acknowledged
}

async fn work(deliveries: Vec<Delivery>, session: Arc<Session>) -> Worked {
    let began = Instant::now();
    let messages = deliveries.len();
    let now = session.clock.now();
    if let Some(waited) = longest_wait(&deliveries, now) {
        session.metrics.queue_wait(waited);
    }
    let mut trace = BatchTrace::begin(&session.traces, &deliveries, now);
    let worked = work_through(deliveries, &session, now, trace.as_mut()).await;
    Worked { messages, began, worked, trace }
}

/// How long the delivery waited that waited longest, of those that came in anew: what was put off was to wait. `None` where no
/// sender gave a time; zero where a sender's clock is ahead of ours.
fn longest_wait(deliveries: &[Delivery], now: OffsetDateTime) -> Option<Duration> {
    let anew = deliveries.iter().filter(|delivery| !is_retry(delivery));
    let oldest = anew.filter_map(|delivery| delivery.published_at).min()?;
    Some(Duration::try_from(now - oldest).unwrap_or_default())
}

async fn work_through(
    deliveries: Vec<Delivery>,
    session: &Session,
    now: OffsetDateTime,
    mut trace: Option<&mut BatchTrace>,
) -> Result<(Vec<Settled>, Vec<Waiting>), Lost> {
    let mut settling = Settling::default();
    let mut decide = |decided: Decided, job: Option<&Job>| {
        if let Some(trace) = trace.as_deref_mut() {
            trace.decided(&decided);
        }
        settling.add(decided, job.map(Job::event), &session.publisher, &session.metrics, &session.ended);
    };
    let mut jobs = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        match judge(&delivery, session.rules.is_live, now) {
            Judgement::Event(event) => jobs.push(Job::new(delivery, event)),
            Judgement::TestEvent => decide(Decided::test_event(&delivery), None),
            Judgement::Refused(refusal) => decide(Decided::refused(&delivery, &refusal), None),
        }
    }
    let terms = BatchTerms { dispute_policy: session.rules.dispute_policy, now };
    let Sorted { free, held } = session.payment_locks.sort(jobs);
    for part in [free, held] {
        let (jobs, turn) = part.come().await;
        let done =
            apply(&session.store, jobs, &session.rules, terms, session.pace.outage_grace, &session.stopping).await?;
        drop(turn);
        session.changed.announce(done.changed);
        for (job, decided) in done.decided {
            decide(decided, Some(&job));
        }
    }
    settling.wait_for_copies(&session.metrics).await?;
    let Settling { settled, waiting, notes, .. } = settling;
    session.note_buffer.note(notes.activity, notes.messages, now);
    Ok((settled, waiting))
}

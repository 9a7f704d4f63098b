//! One consumer's life: from its first delivery until it is drained, or a dependency is lost.

use super::apply::{Outage, apply};
use super::job::Job;
use super::judge::{attempts_before, judge};
use super::settle::{BatchSettled, SettleError, Settling};
use super::trace::BatchTrace;
use super::turns::{Sorted, Turns};
use super::{DRAIN_DEADLINE, Pace, Rules};
use crate::broker::{Acknowledger, BrokerError, Consumer, Delivery, Publisher};
use crate::clock::Clock;
use crate::message::Judgement;
use crate::store::{BatchTerms, ChangedOrders, Notebook, Store};
use crate::telemetry::{GivenBack, Metrics, Traces};
use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
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

/// Why the broker is taken for lost.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("a batch could not be settled: {0}")]
    Settle(#[from] SettleError),
    #[error("the consumer was canceled by the broker")]
    Canceled,
    #[error("the drain took longer than {} s", .0.as_secs())]
    DrainTooLong(Duration),
    #[error(transparent)]
    Outage(#[from] Outage),
    #[error("a batch ended without an answer: {0}")]
    Panicked(#[from] tokio::task::JoinError),
}

impl Lost {
    /// The metric's label.
    pub(super) fn label(&self) -> GivenBack {
        match self {
            Self::Settle(SettleError::Copy(_)) => GivenBack::PublishFailed,
            Self::Settle(SettleError::NotEveryDelivery { .. }) => GivenBack::Bug,
            Self::DrainTooLong(_) => GivenBack::Shutdown,
            Self::Outage(outage) => outage.label(),
            Self::Broker(_) | Self::Canceled | Self::Panicked(_) => GivenBack::ConnectionLost,
        }
    }
}

/// Why a batch could not be settled.
enum Unsettled {
    Outage(Outage),
    Settle(SettleError),
}

impl From<Unsettled> for Failure {
    fn from(unsettled: Unsettled) -> Self {
        match unsettled {
            Unsettled::Outage(outage) => Self::Outage(outage),
            Unsettled::Settle(error) => Self::Lost(error.into()),
        }
    }
}

/// A batch that was worked on.
struct Worked {
    last_tag: u64,
    messages: usize,
    began: Instant,
    settled: Result<BatchSettled, Unsettled>,
    trace: Option<BatchTrace>,
}

/// What a session works with.
pub(super) struct Session {
    pub(super) consumer: Consumer,
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) changed: ChangedOrders,
    pub(super) notebook: Notebook,
    pub(super) rules: Rules,
    pub(super) pace: Pace,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
}

/// What every batch of a session shares.
struct Shared {
    store: Store,
    publisher: Publisher,
    changed: ChangedOrders,
    notebook: Notebook,
    rules: Rules,
    grace: Duration,
    clock: Clock,
    metrics: Metrics,
    traces: Traces,
    turns: Turns,
    ending: CancellationToken,
}

/// Counts what was received and what was settled.
#[derive(Default)]
struct Counts {
    last_received: u64,
    last_acknowledged: u64,
    acknowledged: u64,
}

impl Counts {
    fn given_back(&self) -> u64 {
        self.last_received.saturating_sub(self.last_acknowledged)
    }
}

impl Session {
    /// Works until `stop` and drains, or until a dependency is lost. Batches are worked on side by side and acknowledged
    /// in the order of their deliveries, so that one cumulative acknowledgement covers each.
    pub(super) async fn run(self, stop: &CancellationToken) -> Ended {
        let Self { mut consumer, store, publisher, changed, notebook, rules, pace, clock, metrics, traces } = self;
        let acknowledger = consumer.acknowledger();
        let grace = pace.outage_grace;
        // Also when this session alone ends: batches that are held then are held no longer.
        let ending = stop.child_token();
        let shared = Arc::new(Shared {
            store,
            publisher,
            changed,
            notebook,
            rules,
            grace,
            clock,
            metrics: metrics.clone(),
            traces,
            turns: Turns::default(),
            ending: ending.clone(),
        });
        let mut counts = Counts::default();
        let mut in_flight: FuturesOrdered<JoinHandle<Worked>> = FuturesOrdered::new();
        let mut batch: Vec<Delivery> = Vec::with_capacity(pace.batch_max);
        let mut draining_until: Option<Instant> = None;
        let mut is_exhausted = false;

        let lost: Result<(), Failure> = loop {
            if is_exhausted && in_flight.is_empty() {
                break Ok(());
            }
            let can_take = !is_exhausted && in_flight.len() < pace.batches_in_flight;
            // Like Nagle's algorithm: with nothing under way a delivery goes at once, else it waits for company.
            let linger = if in_flight.is_empty() { Duration::ZERO } else { pace.batch_wait };
            let drain_deadline = draining_until.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                Some(worked) = in_flight.next(), if !in_flight.is_empty() => {
                    if let Err(failure) = acknowledge(worked, &acknowledger, &mut counts, &metrics).await {
                        break Err(failure);
                    }
                }
                () = stop.cancelled(), if draining_until.is_none() => {
                    draining_until = Some(Instant::now() + DRAIN_DEADLINE);
                    tracing::info!(event = "draining", in_flight = in_flight.len(), "taking no more deliveries");
                    if let Err(error) = consumer.cancel().await {
                        break Err(Failure::Lost(error.into()));
                    }
                }
                () = tokio::time::sleep_until(drain_deadline), if draining_until.is_some() => {
                    break Err(Failure::Lost(Lost::DrainTooLong(DRAIN_DEADLINE)));
                }
                filled = consumer.fill(&mut batch, pace.batch_max, linger), if can_take => match filled {
                    Ok(Some(())) => {
                        let full = std::mem::replace(&mut batch, Vec::with_capacity(pace.batch_max));
                        counts.last_received = full.last().map_or(counts.last_received, |last| last.tag);
                        in_flight.push_back(tokio::spawn(work(full, Arc::clone(&shared))));
                    }
                    Ok(None) if draining_until.is_some() => is_exhausted = true,
                    Ok(None) => break Err(Failure::Lost(Lost::Canceled)),
                    Err(error) => break Err(Failure::Lost(error.into())),
                },
            }
        };
        // Those that are still under way commit or not; unacknowledged, they come back and the inbox knows them. They
        // are waited for, so that the next session does not run into its own predecessor; but not past a shutdown's time.
        ending.cancel();
        let patience = if draining_until.is_some() { LEFT_AFTER_DRAIN } else { LEFT_AFTER_LOSS };
        let rest = async { while in_flight.next().await.is_some() {} };
        if tokio::time::timeout(patience, rest).await.is_err() {
            tracing::warn!(event = "batches_left", "batches are still under way; their transactions end by themselves");
        }
        consumer.close().await;
        let (acknowledged, given_back) = (counts.acknowledged, counts.given_back());
        match lost {
            Ok(()) => Ended::Drained { acknowledged },
            Err(Failure::Lost(cause)) if draining_until.is_some() => Ended::Stopped { acknowledged, given_back, cause },
            Err(Failure::Outage(cause)) if draining_until.is_some() => {
                Ended::Stopped { acknowledged, given_back, cause: Lost::Outage(cause) }
            }
            Err(Failure::Outage(cause)) => Ended::DatabaseOutage { acknowledged, given_back, cause },
            Err(Failure::Lost(cause)) => Ended::BrokerLost { acknowledged, given_back, cause },
        }
    }
}

enum Failure {
    Outage(Outage),
    Lost(Lost),
}

impl Failure {
    /// The metric's label.
    fn label(&self) -> GivenBack {
        match self {
            Self::Outage(outage) => outage.label(),
            Self::Lost(lost) => lost.label(),
        }
    }
}

async fn acknowledge(
    worked: Result<Worked, tokio::task::JoinError>,
    acknowledger: &Acknowledger,
    counts: &mut Counts,
    metrics: &Metrics,
) -> Result<(), Failure> {
    let Worked { last_tag, messages, began, settled, trace } = worked.map_err(|error| Failure::Lost(error.into()))?;
    let acknowledged = match settled {
        Ok(settled) => {
            let acknowledged = acknowledger.acknowledge_through(last_tag, &settled).await;
            acknowledged.map_err(|error| Failure::Lost(error.into()))
        }
        Err(unsettled) => Err(unsettled.into()),
    };
    if let Some(trace) = trace {
        trace.end(acknowledged.as_ref().err().map(Failure::label));
    }
    acknowledged?;
    counts.acknowledged += last_tag.saturating_sub(counts.last_acknowledged);
    counts.last_acknowledged = last_tag;
    metrics.batch(messages, began.elapsed());
    Ok(())
}

async fn work(deliveries: Vec<Delivery>, shared: Arc<Shared>) -> Worked {
    let began = Instant::now();
    let last_tag = deliveries.last().map_or(0, |last| last.tag);
    let messages = deliveries.len();
    let now = shared.clock.now();
    if let Some(waited) = longest_wait(&deliveries, now) {
        shared.metrics.queue_wait(waited);
    }
    let mut trace = BatchTrace::begin(&shared.traces, &deliveries, now);
    let settled = work_through(deliveries, &shared, now, trace.as_mut()).await;
    Worked { last_tag, messages, began, settled, trace }
}

/// How long the delivery waited that waited longest, of those that came in anew: what was put off was to wait. `None` where no
/// sender gave a time; zero where a sender's clock is ahead of ours.
fn longest_wait(deliveries: &[Delivery], now: OffsetDateTime) -> Option<Duration> {
    let anew = deliveries.iter().filter(|delivery| attempts_before(delivery) == 0);
    let oldest = anew.filter_map(|delivery| delivery.published_at).min()?;
    Some(Duration::try_from(now - oldest).unwrap_or_default())
}

async fn work_through(
    deliveries: Vec<Delivery>,
    shared: &Shared,
    now: OffsetDateTime,
    trace: Option<&mut BatchTrace>,
) -> Result<BatchSettled, Unsettled> {
    let mut settling = Settling::of(&deliveries);
    let mut jobs = Vec::with_capacity(deliveries.len());
    for delivery in deliveries {
        match judge(&delivery, shared.rules.is_live, now) {
            Judgement::Event(event) => jobs.push(Job::new(delivery, event)),
            Judgement::TestEvent => settling.test_event(&delivery),
            Judgement::Refused(refusal) => settling.refused(&delivery, &refusal),
        }
    }
    let terms = BatchTerms { dispute_policy: shared.rules.dispute_policy, now };
    let Sorted { free, held } = shared.turns.sort(jobs);
    for part in [free, held] {
        let (jobs, turn) = part.come().await;
        let done = apply(&shared.store, jobs, terms, shared.grace, &shared.ending).await.map_err(Unsettled::Outage)?;
        drop(turn);
        shared.changed.announce(done.changed);
        for (job, result) in done.results {
            settling.done(&job, result, &shared.rules);
        }
    }
    if let Some(trace) = trace {
        trace.settled(settling.told());
    }
    let finished = settling.finish(&shared.publisher, shared.grace, &shared.metrics).await;
    let (settled, notes) = finished.map_err(Unsettled::Settle)?;
    shared.notebook.note(notes.activity, notes.messages, now);
    Ok(settled)
}

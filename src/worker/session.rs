//! One consumer's life: from its first delivery until it is drained, or a dependency is lost.

use super::batch::Batch;
use super::payment_locks::PaymentLocks;
use super::settle::{Copying, PendingCopy};
use super::unacknowledged::Unacknowledged;
use crate::broker::{BrokerError, Consumer, Delivery, Publisher};
use crate::clock::Clock;
use crate::config::WorkerConfig;
use crate::shutdown::Shutdown;
use crate::store::{ChangedOrders, Class, NoteBuffer, Store, StoreError};
use crate::telemetry::{Dependency, GivenBack, Metrics, Traces};
use futures_util::StreamExt;
use futures_util::stream::{FuturesOrdered, FuturesUnordered};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long the batches that are under way may take when a shutdown's time is over.
const LEFT_AFTER_DRAIN: Duration = Duration::from_secs(1);

/// How long they may take when a dependency is lost. Each has deadlines of its own, which together stay below this.
const LEFT_AFTER_LOSS: Duration = Duration::from_secs(60);

/// How a session ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Deliveries that it acknowledged.
    pub(super) acknowledged: u64,
    /// Deliveries that go back to the queue, once.
    pub(super) given_back: u64,
    /// Why it could not go on, or not settle everything. `None`: it ended as asked, and no delivery goes back.
    pub(super) lost: Option<Lost>,
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
    /// The database stayed away for longer than a batch is held, or does not answer.
    #[error("Postgres was away for {} s: {cause}", held.as_secs())]
    Outage { held: Duration, cause: StoreError },
    #[error("copies of {0} deliveries were not confirmed")]
    CopiesNotConfirmed(usize),
    #[error("a batch ended without an answer: {0}")]
    Panicked(#[from] JoinError),
}

impl Lost {
    /// The label for the metric of deliveries that were given back.
    pub(super) fn label(&self) -> GivenBack {
        match self {
            Self::CopiesNotConfirmed(_) => GivenBack::PublishFailed,
            Self::Panicked(_) => GivenBack::Bug,
            Self::DrainTooLong(_) => GivenBack::Shutdown,
            Self::Outage { cause: StoreError::Deadline { .. }, .. } => GivenBack::OutcomeUnknown,
            Self::Outage { cause, .. } => match cause.class() {
                Class::Bug => GivenBack::Bug,
                Class::Transient | Class::Contended | Class::Data => GivenBack::DatabaseOutage,
            },
            Self::Broker(_) | Self::Canceled => GivenBack::ConnectionLost,
        }
    }

    /// The dependency that is missing.
    pub(super) fn dependency(&self) -> Dependency {
        match self {
            Self::Outage { .. } => Dependency::Postgres,
            Self::Broker(_)
            | Self::Canceled
            | Self::DrainTooLong(_)
            | Self::CopiesNotConfirmed(_)
            | Self::Panicked(_) => Dependency::Rabbitmq,
        }
    }
}

/// What a session works with.
pub(super) struct Session {
    pub(super) config: WorkerConfig,
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) changed: ChangedOrders,
    pub(super) note_buffer: NoteBuffer,
    /// The session ends after so many acknowledgements.
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
        let (pace, metrics) = (&session.config.batch, &session.metrics);
        let mut unacknowledged = Unacknowledged::new(consumer.acknowledger(), metrics.clone());
        let mut in_flight: FuturesOrdered<JoinHandle<(Batch, Result<(), Lost>)>> = FuturesOrdered::new();
        let mut waiting: FuturesUnordered<Copying> = FuturesUnordered::new();
        // Half of the prefetch may wait for the confirms of copies. Then no more is taken.
        let waiting_max = usize::from(pace.prefetch / 2).max(1);
        let mut filling: Vec<Delivery> = Vec::with_capacity(pace.messages_max);
        // Batches that are not full begin this far apart. So a delivery after a pause goes at once, and in a stream the messages of
        // a few milliseconds share their round trips and their commit.
        let mut next_begins = Instant::now();
        let mut draining_until: Option<Instant> = None;
        let mut is_exhausted = false;

        let lost: Result<(), Lost> = loop {
            let is_over = session.acknowledged_max.is_some_and(|max| unacknowledged.acknowledged >= max);
            if in_flight.is_empty() && (is_exhausted || is_over && waiting.is_empty()) {
                break Ok(());
            }
            // A drain takes what is still on its way, which is little, and waits for no copy.
            let has_room = waiting.len() < waiting_max || draining_until.is_some();
            let can_take = !is_exhausted && has_room && in_flight.len() < pace.workers;
            let drain_deadline = draining_until.unwrap_or_else(Instant::now);
            tokio::select! {
                biased;
                Some(worked) = in_flight.next(), if !in_flight.is_empty() => {
                    match acknowledge(worked, &mut unacknowledged, metrics).await {
                        Ok(copies) => waiting.extend(copies.into_iter().map(|(copying, _noted)| copying)),
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
                filled = consumer.fill(&mut filling, pace.messages_max, next_begins), if can_take => match filled {
                    Ok(Some(())) => {
                        let deliveries = std::mem::replace(&mut filling, Vec::with_capacity(pace.messages_max));
                        unacknowledged.receive(&deliveries);
                        next_begins = Instant::now() + pace.wait;
                        let is_alone = in_flight.is_empty();
                        in_flight.push_back(tokio::spawn(Batch::work(deliveries, is_alone, Arc::clone(&session))));
                    }
                    Ok(None) if draining_until.is_some() => is_exhausted = true,
                    Ok(None) => break Err(Lost::Canceled),
                    Err(error) => break Err(error.into()),
                },
            }
        };
        // The batches that are still under way commit or not. Their deliveries are not acknowledged, so they come back and the inbox
        // knows them. The session waits for these batches, so that the next one does not meet them; but not past a shutdown's time.
        session.stopping.cancel();
        session.ended.cancel();
        let patience = if draining_until.is_some() { LEFT_AFTER_DRAIN } else { LEFT_AFTER_LOSS };
        let rest = async { while in_flight.next().await.is_some() {} };
        if tokio::time::timeout(patience, rest).await.is_err() {
            tracing::warn!(event = "batches_left", "some batches have not ended; their transactions have a deadline");
        }
        metrics.deliveries_waiting(0);
        consumer.close().await;
        let given_back = unacknowledged.given_back();
        let lost = match lost {
            Ok(()) if given_back == 0 => None,
            Ok(()) => Some(Lost::CopiesNotConfirmed(waiting.len())),
            Err(lost) => Some(lost),
        };
        Ended { acknowledged: unacknowledged.acknowledged, given_back, lost }
    }
}

/// Acknowledges what is settled of a batch, and returns the copies that are not confirmed yet.
async fn acknowledge(
    worked: Result<(Batch, Result<(), Lost>), JoinError>,
    unacknowledged: &mut Unacknowledged,
    metrics: &Metrics,
) -> Result<Vec<PendingCopy>, Lost> {
    let (batch, worked) = worked?;
    let acknowledged = match worked {
        Ok(()) => unacknowledged.acknowledge(batch.settled).await.map_err(Lost::from),
        Err(lost) => Err(lost),
    };
    if let Some(trace) = batch.trace {
        trace.end(acknowledged.as_ref().err().map(Lost::label));
    }
    metrics.batch(batch.messages, batch.began.elapsed());
    acknowledged.map(|()| batch.copying)
}

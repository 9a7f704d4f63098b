//! Takes the deliveries of a queue batch after batch, for the whole life of the process. Every role whose work is one
//! commit a batch uses this loop. The worker's session does more: it works on several batches side by side.

use super::consumer::{Consumer, Delivery, Durable, Window};
use super::error::BrokerError;
use crate::address::AmqpAddress;
use crate::domain::Refusal;
use crate::followed::Followed;
use crate::retry::{Backoff, Limits};
use std::error::Error;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// The pauses between two tries to reach the broker.
const RECONNECT: Limits =
    Limits { initial: Duration::from_millis(100), max: Duration::from_secs(2), give_up_after: None };

/// The pauses after a batch that failed although the database is there, for example because a right is missing. Every
/// round gives each delivery back once, and the broker counts that, so the pauses grow.
const FRUITLESS: Limits =
    Limits { initial: Duration::from_secs(1), max: Duration::from_secs(10 * 60), give_up_after: None };

/// The pauses between two tries of postponed deliveries. Locks end after some time.
const POSTPONED: Limits = Limits { initial: Duration::from_secs(1), max: Duration::from_secs(60), give_up_after: None };

/// The result of a batch.
#[derive(Debug)]
pub struct BatchResult<Proof> {
    /// Proof that everything except `postponed` is durable.
    pub proof: Proof,
    /// Deliveries that cannot be settled now, for a reason of their own. They stay in hand, within the window, and are
    /// tried again after a pause, without the others.
    pub postponed: Vec<Delivery>,
}

/// What an intake takes, and how much at once.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The address of the broker.
    pub url: Followed<AmqpAddress>,
    /// The name of the connection.
    pub name: &'static str,
    /// The queue that is consumed.
    pub queue: &'static str,
    /// The most deliveries in one batch.
    pub batch_max: usize,
    /// How much is taken ahead.
    pub window: Window,
}

/// Why a consumer was given up. Its deliveries in hand come again.
#[derive(Debug, thiserror::Error)]
enum Lost<E: Error + 'static> {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the consumer was canceled by the broker")]
    Canceled,
    #[error("{0}")]
    NotTaken(#[source] E),
}

impl<E: Error + 'static> Lost<E> {
    /// The cause in a few words of our own.
    fn in_short(&self) -> String {
        match self {
            Self::Broker(error) => error.in_short(),
            Self::Canceled => "RabbitMQ canceled the consumer".to_owned(),
            Self::NotTaken(_) => "what was in hand could not be taken; pausing".to_owned(),
        }
    }
}

impl Intake {
    /// Hands batches to `take` until `stop`, and acknowledges each after its proof. It consumes only while `may_take`
    /// is true. It calls `held` with whether there is a consumer, and why not, and `refused` for each delivery that the
    /// consumer refuses.
    pub async fn run<Take, Taking, Proof, Failure>(
        &self,
        take: Take,
        mut may_take: watch::Receiver<bool>,
        held: impl Fn(Result<(), String>),
        refused: impl Fn(&Refusal) + Clone + Send + Sync + 'static,
        stop: &CancellationToken,
    ) where
        Take: Fn(Vec<Delivery>) -> Taking,
        Taking: Future<Output = Result<BatchResult<Proof>, Failure>>,
        Proof: Durable,
        Failure: Error + 'static,
    {
        let (mut reconnect, mut fruitless) = (Backoff::new(RECONNECT), Backoff::new(FRUITLESS));
        loop {
            match stop.run_until_cancelled(may_take.wait_for(|may| *may)).await {
                Some(Ok(_may)) => {}
                // The sender is gone, or the process stops.
                Some(Err(_)) | None => return,
            }
            let mut has_taken = false;
            let Err(lost) = self.consume(&take, &mut has_taken, &held, refused.clone(), stop).await else { return };
            tracing::warn!(event = "intake_interrupted", queue = self.queue, cause = %lost, "unsettled deliveries will be delivered again");
            if has_taken {
                reconnect.reset();
                fruitless.reset();
            }
            held(Err(format!("nothing is consumed from {}: {}", self.queue, lost.in_short())));
            let pause = match lost {
                Lost::Broker(_) | Lost::Canceled => reconnect.next_pause(),
                Lost::NotTaken(_) => fruitless.next_pause(),
            };
            // No event tells when the cause is gone.
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Consumes until `stop`, or until something is lost. `has_taken` tells whether a batch was settled.
    async fn consume<Take, Taking, Proof, Failure>(
        &self,
        take: &Take,
        has_taken: &mut bool,
        held: &impl Fn(Result<(), String>),
        refused: impl Fn(&Refusal) + Send + Sync + 'static,
        stop: &CancellationToken,
    ) -> Result<(), Lost<Failure>>
    where
        Take: Fn(Vec<Delivery>) -> Taking,
        Taking: Future<Output = Result<BatchResult<Proof>, Failure>>,
        Proof: Durable,
        Failure: Error + 'static,
    {
        let opened = Consumer::open(&self.url, self.name, self.queue, self.window, refused);
        let Some(consumer) = stop.run_until_cancelled(opened).await else { return Ok(()) };
        let mut consumer = consumer?;
        held(Ok(()));
        tracing::info!(event = "consuming", queue = self.queue, prefetch = self.window.deliveries_max);
        let ended = async {
            let acknowledger = consumer.acknowledger();
            let (mut batch, mut postponed, mut pause) = (Vec::new(), Vec::<Delivery>::new(), Backoff::new(POSTPONED));
            let mut is_due_at = Instant::now();
            loop {
                let filled = consumer.fill(&mut batch, self.batch_max, Instant::now());
                let filled = async {
                    match postponed.as_slice() {
                        [] => Some(filled.await),
                        _ if Instant::now() < is_due_at => timeout_at(is_due_at, filled).await.ok(),
                        _ => None,
                    }
                };
                let deliveries = match stop.run_until_cancelled(filled).await {
                    None => return Ok(()),
                    Some(Some(filled)) => {
                        filled?.ok_or(Lost::Canceled)?;
                        std::mem::take(&mut batch)
                    }
                    // The postponed deliveries are due.
                    Some(None) => std::mem::take(&mut postponed),
                };
                let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
                let taken = take(deliveries).await.map_err(Lost::NotTaken)?;
                if postponed.is_empty() && taken.postponed.is_empty() {
                    pause.reset();
                    let Some(last) = tags.last() else { continue };
                    acknowledger.acknowledge_through(*last, &taken.proof).await?;
                } else {
                    for tag in tags.into_iter().filter(|tag| taken.postponed.iter().all(|other| other.tag != *tag)) {
                        acknowledger.acknowledge(tag, &taken.proof).await?;
                    }
                    if !taken.postponed.is_empty() {
                        is_due_at = Instant::now() + pause.next_pause();
                        postponed.extend(taken.postponed);
                    }
                }
                *has_taken = true;
            }
        };
        let ended = ended.await;
        consumer.close().await;
        ended
    }
}

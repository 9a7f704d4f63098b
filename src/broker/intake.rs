//! A queue's deliveries, batch after batch, for as long as the process lives: the loop of every role whose work is one commit a
//! batch. (The worker's session does more: several batches side by side.)

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

/// Between two tries to reach the broker.
const RECONNECT: Limits =
    Limits { initial: Duration::from_millis(100), max: Duration::from_secs(2), give_up_after: None };

/// After what was in hand could not be taken though the database is there, for want of a right for instance. Every round
/// costs each delivery one return, and the broker counts them: so it comes back ever more slowly.
const FRUITLESS: Limits =
    Limits { initial: Duration::from_secs(1), max: Duration::from_secs(10 * 60), give_up_after: None };

/// Between two tries of what was left. Whoever holds the lock ends some time.
const LEFT: Limits = Limits { initial: Duration::from_secs(1), max: Duration::from_secs(60), give_up_after: None };

/// What has become of a batch.
#[derive(Debug)]
pub struct BatchResult<Proof> {
    /// That all but what was left is durable.
    pub proof: Proof,
    /// What cannot be taken now, for a reason of its own. It stays in hand, within the window, and is tried again after a
    /// pause, without its neighbours.
    pub left: Vec<Delivery>,
}

/// What is taken, and how much at once.
#[derive(Debug, Clone)]
pub struct Intake {
    /// The broker.
    pub url: Followed<AmqpAddress>,
    /// What the connection is called.
    pub name: &'static str,
    /// From where.
    pub queue: &'static str,
    /// Deliveries in one batch.
    pub batch_max: usize,
    /// What is handed out ahead.
    pub window: Window,
}

/// Why a consumer was given up. What it had in hand comes again.
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
    /// In a few words of our own.
    fn in_short(&self) -> String {
        match self {
            Self::Broker(error) => error.in_short(),
            Self::Canceled => "RabbitMQ canceled the consumer".to_owned(),
            Self::NotTaken(_) => "what was in hand could not be taken; pausing".to_owned(),
        }
    }
}

impl Intake {
    /// Hands batches to `take` until `stop`, and acknowledges each for the proof that it gives. Nothing is consumed while
    /// `may_take` is false; `held` is told whether a consumer is held, and why not, and `refused` of what the consumer refuses.
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
                // The other side has gone, or we are to go.
                Some(Err(_)) | None => return,
            }
            let mut has_taken = false;
            let Err(lost) = self.consume(&take, &mut has_taken, &held, refused.clone(), stop).await else { return };
            tracing::warn!(event = "intake_interrupted", queue = self.queue, cause = %lost, "what was in hand comes again");
            if has_taken {
                reconnect.reset();
                fruitless.reset();
            }
            held(Err(format!("nothing is consumed from {}: {}", self.queue, lost.in_short())));
            let pause = match lost {
                Lost::Broker(_) | Lost::Canceled => reconnect.next_pause(),
                Lost::NotTaken(_) => fruitless.next_pause(),
            };
            // Not a wait for anything that could be seen from here.
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Consumes until `stop`, or until something is lost; says whether anything was taken.
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
            let (mut batch, mut left, mut pause) = (Vec::new(), Vec::<Delivery>::new(), Backoff::new(LEFT));
            let mut is_due_at = Instant::now();
            loop {
                let filled = consumer.fill(&mut batch, self.batch_max, Duration::ZERO);
                let filled = async {
                    match left.as_slice() {
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
                    // What was left is due.
                    Some(None) => std::mem::take(&mut left),
                };
                let tags: Vec<_> = deliveries.iter().map(|delivery| delivery.tag).collect();
                let taken = take(deliveries).await.map_err(Lost::NotTaken)?;
                if left.is_empty() && taken.left.is_empty() {
                    pause.reset();
                    let Some(last) = tags.last() else { continue };
                    acknowledger.acknowledge_through(*last, &taken.proof).await?;
                } else {
                    for tag in tags.into_iter().filter(|tag| taken.left.iter().all(|left| left.tag != *tag)) {
                        acknowledger.acknowledge(tag, &taken.proof).await?;
                    }
                    if !taken.left.is_empty() {
                        is_due_at = Instant::now() + pause.next_pause();
                        left.extend(taken.left);
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

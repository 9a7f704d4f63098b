//! Hints: what the receiver was told that something happened, without being told what to believe. They are noted in Postgres
//! as looks that are wanted, committed, and acknowledged; however long a provider cannot be asked then, no delivery waits.

use crate::broker::{
    BrokerError, Confirmed, Consumer, Delivery, Durable, HINTS_QUEUE, Letter, Outgoing, PublishError, Publisher,
};
use crate::clock::Clock;
use crate::domain::{Hint, Reason, Refusal};
use crate::http::ReadinessFlag;
use crate::message::{TRACEPARENT_HEADER, decode_hint};
use crate::retry::{Backoff, Limits};
use crate::store::{Class, Committed, Store, StoreError};
use crate::telemetry::{
    Carried, Dependency, HintOutcome, Metrics, Parent, Publishing, SpanKind, SpanStart, Traces, causes,
};
use bytes::Bytes;
use secrecy::SecretString;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Hints in one transaction.
const BATCH_MAX: usize = 100;

/// Deliveries handed out ahead.
const PREFETCH: u16 = 200;

/// Between two tries to reach the broker.
const RECONNECT: Limits =
    Limits { initial: Duration::from_millis(100), max: Duration::from_secs(2), give_up_after: None };

/// After hints could not be noted though the database is there, a missing right for instance. Every round costs what is in
/// hand one return, and the broker counts them: so it comes back ever more slowly.
const FRUITLESS: Limits =
    Limits { initial: Duration::from_secs(1), max: Duration::from_secs(10 * 60), give_up_after: None };

/// What taking hints needs.
pub(super) struct Hints {
    pub(super) amqp_url: SecretString,
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
    pub(super) rabbitmq: ReadinessFlag,
}

/// Why a consumer was given up. Its unacknowledged hints come again.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    #[error("the consumer was canceled by the broker")]
    Canceled,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a dead letter could not be published: {0}")]
    Letter(#[from] PublishError),
}

/// Proof that every hint of a batch is noted, or a confirmed dead letter.
#[derive(Debug)]
struct Noted {
    committed: Vec<Committed>,
    letters: Vec<Confirmed>,
}

impl Durable for Noted {}

impl Hints {
    /// Takes hints until `stop`, for as long as the database is there.
    pub(super) async fn take(self, mut is_database_up: watch::Receiver<bool>, stop: CancellationToken) {
        let (mut reconnect, mut fruitless) = (Backoff::new(RECONNECT), Backoff::new(FRUITLESS));
        loop {
            let up = is_database_up.wait_for(|is_up| *is_up);
            match stop.run_until_cancelled(up).await {
                Some(Ok(_up)) => {}
                // The other side has gone, or we are to go.
                Some(Err(_)) | None => return,
            }
            let mut noted = false;
            let Err(lost) = self.consume(&mut noted, &stop).await else { return };
            tracing::warn!(event = "hints_interrupted", cause = %causes(&lost), "what was in hand comes again");
            if noted {
                reconnect.reset();
                fruitless.reset();
            }
            let (is_up, pause) = match lost {
                Lost::Broker(_) | Lost::Canceled => (false, reconnect.next_delay().unwrap_or(RECONNECT.max)),
                Lost::Store(_) | Lost::Letter(_) => (true, fruitless.next_delay().unwrap_or(FRUITLESS.max)),
            };
            self.say_broker_is(is_up);
            // Not a wait for anything that could be seen from here.
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    fn say_broker_is(&self, up: bool) {
        self.rabbitmq.set(up);
        self.metrics.dependency(Dependency::Rabbitmq, up);
    }

    /// Consumes until `stop`, or until something is lost; says whether any hints were noted.
    async fn consume(&self, noted: &mut bool, stop: &CancellationToken) -> Result<(), Lost> {
        let opened = Consumer::open(&self.amqp_url, "reconciler hints", HINTS_QUEUE, PREFETCH);
        let Some(consumer) = stop.run_until_cancelled(opened).await else { return Ok(()) };
        let mut consumer = consumer?;
        self.say_broker_is(true);
        tracing::info!(event = "consuming", queue = HINTS_QUEUE, prefetch = PREFETCH);
        let ended = self.consume_with(&mut consumer, noted, stop).await;
        consumer.close().await;
        ended
    }

    async fn consume_with(
        &self,
        consumer: &mut Consumer,
        has_noted: &mut bool,
        stop: &CancellationToken,
    ) -> Result<(), Lost> {
        let acknowledger = consumer.acknowledger();
        let mut batch = Vec::new();
        loop {
            let filled = consumer.fill(&mut batch, BATCH_MAX, Duration::ZERO);
            match stop.run_until_cancelled(filled).await {
                None => return Ok(()),
                Some(filled) => filled?.ok_or(Lost::Canceled)?,
            }
            let deliveries = std::mem::take(&mut batch);
            let Some(last) = deliveries.last().map(|last| last.tag) else { continue };
            let (began_at, carried) = (self.clock.now(), self.carried(&deliveries));
            let noted = self.note(deliveries).await?;
            acknowledger.acknowledge_through(last, &noted).await?;
            self.tell(carried, began_at);
            *has_noted = true;
        }
    }

    /// The traces that these deliveries carry, with their message ids. None where traces are off.
    fn carried(&self, deliveries: &[Delivery]) -> Vec<(Carried, String)> {
        if !self.traces.is_on() {
            return vec![];
        }
        let carried = |delivery: &Delivery| {
            let carried = Carried::read(delivery.headers.text(TRACEPARENT_HEADER)?)?;
            Some((carried, delivery.message_id.clone().unwrap_or_default()))
        };
        deliveries.iter().filter_map(carried).collect()
    }

    /// Tells in their traces that these hints are settled.
    fn tell(&self, carried: Vec<(Carried, String)>, began_at: OffsetDateTime) {
        for (carried, message_id) in carried {
            let (name, kind) = ("process payments.hints", SpanKind::Consumer);
            let parent = Parent::Carried(&carried);
            let start = SpanStart { name, kind, parent, link: None, began_at: Some(began_at) };
            let mut span = self.traces.begin(start);
            span.messaging("process", "process", HINTS_QUEUE);
            span.text("messaging.message.id", &message_id);
        }
    }

    async fn note(&self, deliveries: Vec<Delivery>) -> Result<Noted, Lost> {
        let mut noted = Noted { committed: vec![], letters: vec![] };
        let (mut hints, mut kept) = (vec![], vec![]);
        for delivery in deliveries {
            match decode_hint(&delivery.body) {
                Ok(hint) => {
                    hints.push(hint);
                    kept.push(delivery);
                }
                Err(error) => {
                    let refusal = Refusal::new(Reason::Malformed, error.to_string());
                    noted.letters.push(self.give_up(delivery, &refusal).await?);
                }
            }
        }
        if hints.is_empty() {
            return Ok(noted);
        }
        match self.want(hints.clone()).await {
            Ok(committed) => noted.committed.push(committed),
            // Something in one of them that Postgres does not take: each by itself, so that the others go on.
            Err(error) if error.class() == Class::Data => {
                for (hint, delivery) in hints.into_iter().zip(kept) {
                    match self.want(vec![hint]).await {
                        Ok(committed) => noted.committed.push(committed),
                        Err(error) if error.class() == Class::Data => {
                            let detail = error.code().unwrap_or_default();
                            let refusal = Refusal::new(Reason::RejectedByDatabase, detail);
                            noted.letters.push(self.give_up(delivery, &refusal).await?);
                        }
                        Err(error) => return Err(error.into()),
                    }
                }
            }
            Err(error) => return Err(error.into()),
        }
        Ok(noted)
    }

    async fn want(&self, hints: Vec<Hint>) -> Result<Committed, StoreError> {
        let count = hints.len();
        let committed = self.store.want_looks(hints, self.clock.now()).await?;
        for _ in 0..count {
            self.metrics.hint(HintOutcome::Noted);
        }
        Ok(committed)
    }

    async fn give_up(&self, delivery: Delivery, refusal: &Refusal) -> Result<Confirmed, PublishError> {
        self.metrics.hint(HintOutcome::DeadLettered);
        self.metrics.dead_lettered(refusal.reason);
        let letter = Letter {
            origin: "reconciler",
            routing_key: delivery.routing_key,
            message_id: delivery.message_id.unwrap_or_default(),
            kind: delivery.kind.unwrap_or_default(),
            headers: delivery.headers.without_brokers_own(),
            body: Bytes::from(delivery.body),
        };
        let message = Outgoing::dead_letter(letter, refusal);
        let publishing = Publishing::untraced(&self.metrics, message.exchange);
        let published = self.publisher.publish(message).await;
        publishing.end(published.as_ref().err().map(PublishError::name));
        published
    }
}

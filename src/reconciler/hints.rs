//! Hints. The receiver learned that something happened to a payment, but not a fact that it could believe. Each hint is
//! committed to Postgres as a wanted look, and acknowledged. So no delivery waits while a provider cannot be asked.

use crate::address::AmqpAddress;
use crate::broker::{
    BatchResult, Confirmed, Delivery, Durable, HINTS_QUEUE, Intake, Letter, Outgoing, PublishError, Publisher, Window,
};
use crate::clock::Clock;
use crate::domain::{Hint, Reason, Refusal};
use crate::followed::Followed;
use crate::http::NeedFlag;
use crate::message::{TRACEPARENT_HEADER, decode_hint};
use crate::publishing::publish_as_is;
use crate::store::{Class, Committed, Store, StoreError};
use crate::telemetry::{Carried, HintOutcome, Metrics, Parent, SpanKind, SpanStart, Traces};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The most hints in one transaction.
const BATCH_MAX: usize = 100;

/// Deliveries that are taken ahead. Hints are short.
const WINDOW: Window = Window { deliveries_max: 200, bytes_max: 16 * 1024 * 1024 };

/// Everything that taking hints needs.
pub(super) struct Hints {
    pub(super) amqp_url: Followed<AmqpAddress>,
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
    pub(super) consumer: NeedFlag,
}

/// Why hints could not be taken.
#[derive(Debug, thiserror::Error)]
enum HintError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("a dead letter could not be published: {0}")]
    Letter(#[from] PublishError),
}

/// Proof that every hint of a batch is noted, or is a confirmed dead letter.
#[derive(Debug)]
struct Noted {
    committed: Vec<Committed>,
    letters: Vec<Confirmed>,
}

impl Durable for Noted {}

impl Hints {
    /// Takes hints until `stop`, while the database is there.
    pub(super) async fn take(self, is_database_up: watch::Receiver<bool>, stop: CancellationToken) {
        let intake = Intake {
            url: self.amqp_url.clone(),
            name: "reconciler hints",
            queue: HINTS_QUEUE,
            batch_max: BATCH_MAX,
            window: WINDOW,
        };
        let take = |deliveries: Vec<Delivery>| async {
            let (began_at, carried) = (self.clock.now(), self.carried(&deliveries));
            let noted = self.note(deliveries).await?;
            self.tell(carried, began_at);
            Ok::<_, HintError>(BatchResult { proof: noted, postponed: vec![] })
        };
        let metrics = self.metrics.clone();
        let refused = move |refusal: &Refusal| {
            metrics.hint(HintOutcome::DeadLettered);
            metrics.dead_lettered(refusal.reason);
        };
        intake.run(take, is_database_up, |held| self.consumer.set(held), refused, &stop).await;
    }

    /// The traces of these deliveries, with their message ids. Empty while traces are off.
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

    /// Makes a span in each of their traces: these hints are settled.
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

    async fn note(&self, deliveries: Vec<Delivery>) -> Result<Noted, HintError> {
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
            // Postgres refuses something in one of them. Each is noted alone, so that the others are not held up.
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
            headers: delivery.headers.to_copy(),
            body: delivery.body,
        };
        publish_as_is(&self.publisher, Outgoing::dead_letter(letter, refusal), &self.metrics).await
    }
}

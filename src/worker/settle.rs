//! Settling a batch: what was put off or refused is copied to where it belongs, confirmed; then the whole batch may be
//! acknowledged.

use super::Rules;
use super::apply::EventResult;
use super::judge::{attempts_before, first_routing_key};
use crate::broker::{Confirmed, Delivery, Durable, Letter, Outgoing, PublishError, Publisher, RETRY_EXCHANGE};
use crate::config::UnknownPayments;
use crate::domain::{PaymentEvent, Reason, Refusal};
use crate::failpoint::{self, Failpoint};
use crate::message::{self, ATTEMPT_HEADER, ROUTING_KEY_HEADER};
use crate::retry::{Backoff, Limits};
use crate::store::{Activity, Committed, MessageNote, Noted, Outcome};
use crate::telemetry::{MessageOutcome, Metrics, Publishing};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between tries to publish a copy.
const AGAIN: Limits = Limits { initial: Duration::from_millis(50), max: Duration::from_secs(1), give_up_after: None };

/// A delivery's first judgement; the events themselves stand apart, in the same order.
#[derive(Debug)]
pub(super) enum Judged {
    /// To be applied.
    Event,
    /// A test event in a live deployment.
    TestEvent,
    /// Never.
    Refused(Refusal),
}

/// What is to be done with a delivery.
#[derive(Debug)]
enum Fate {
    /// Its fact is committed.
    Committed(Arc<Committed>),
    /// It asks for nothing: a test event in a live deployment, a payment that is none of ours.
    Nothing,
    /// It is put off.
    Later { label: String, attempt: u32 },
    /// It becomes a dead letter.
    Dead(Refusal),
}

/// Why one delivery may be acknowledged.
#[derive(Debug)]
#[expect(dead_code, reason = "held as proofs, never read")]
enum Proof {
    Committed(Arc<Committed>),
    Copied(Confirmed),
    Nothing,
}

/// Proof that every delivery of a batch is durable in its own way.
#[derive(Debug)]
pub(super) struct BatchSettled {
    _proofs: Vec<Proof>,
}

impl Durable for BatchSettled {}

/// What is counted, and told in traces, of one delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) outcome: MessageOutcome,
    pub(super) reason: Option<Reason>,
    pub(super) granted: bool,
}

/// What is to be told of a settled batch, for stories and charts.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) activity: Activity,
    /// Of copies, and of messages that wait.
    pub(super) messages: Vec<MessageNote>,
}

impl Notes {
    fn count(&mut self, told: &Told) {
        let activity = &mut self.activity;
        match told.outcome {
            MessageOutcome::Applied => activity.applied += 1,
            MessageOutcome::Duplicate => activity.duplicates += 1,
            MessageOutcome::PutOff => activity.put_off += 1,
            MessageOutcome::DeadLettered => activity.dead_lettered += 1,
            MessageOutcome::TestEventDropped | MessageOutcome::IgnoredUnknown => {}
        }
        activity.grants += u32::from(told.granted);
    }

    fn add(&mut self, outcome: MessageOutcome, event: &PaymentEvent) {
        let noted = match outcome {
            MessageOutcome::Duplicate => Noted::Copy,
            MessageOutcome::PutOff => Noted::PutOff,
            MessageOutcome::Applied
            | MessageOutcome::DeadLettered
            | MessageOutcome::TestEventDropped
            | MessageOutcome::IgnoredUnknown => return,
        };
        self.messages.push(MessageNote::new(event, noted));
    }
}

/// Joins the first judgement of each delivery with what the database said of its event.
pub(super) struct Settling {
    deliveries: Vec<Delivery>,
    fates: Vec<Fate>,
    told: Vec<Told>,
    notes: Notes,
}

impl Settling {
    /// `results` are those of the deliveries judged to be events, in their order.
    pub(super) fn new<'a>(
        deliveries: Vec<Delivery>,
        judged: Vec<Judged>,
        results: impl IntoIterator<Item = (&'a PaymentEvent, EventResult)>,
        rules: &Rules,
    ) -> Self {
        let mut results = results.into_iter();
        let mut fates = Vec::with_capacity(deliveries.len());
        let mut told = Vec::with_capacity(deliveries.len());
        let mut notes = Notes::default();
        for (delivery, judged) in deliveries.iter().zip(judged) {
            let (fate, of_it) = match judged {
                Judged::TestEvent => (Fate::Nothing, Told::of(MessageOutcome::TestEventDropped)),
                Judged::Refused(refusal) => dead(refusal),
                Judged::Event => match results.next() {
                    Some((event, result)) => {
                        let (fate, of_it) = fate_of(delivery, event, result, rules);
                        notes.add(of_it.outcome, event);
                        (fate, of_it)
                    }
                    // Cannot be: there is a result for each event. Kept for a person to see.
                    None => dead(Refusal::new(Reason::RejectedByDatabase, "the batch had no result for this message")),
                },
            };
            notes.count(&of_it);
            fates.push(fate);
            told.push(of_it);
        }
        Self { deliveries, fates, told, notes }
    }

    /// What became of each delivery, in their order.
    pub(super) fn told(&self) -> &[Told] {
        &self.told
    }

    /// Publishes the copies and waits for their confirms, trying again until `patience` is over. What is to be noted of
    /// the batch is worth noting only then.
    pub(super) async fn finish(
        self,
        publisher: &Publisher,
        patience: Duration,
        metrics: &Metrics,
    ) -> Result<(BatchSettled, Notes), PublishError> {
        let until = Instant::now() + patience;
        let has_retries = self.fates.iter().any(|fate| matches!(fate, Fate::Later { .. }));
        let proofs = self.deliveries.into_iter().zip(self.fates).map(|(delivery, fate)| async move {
            Ok::<_, PublishError>(match fate {
                Fate::Committed(committed) => Proof::Committed(committed),
                Fate::Nothing => Proof::Nothing,
                Fate::Later { label, attempt } => {
                    Proof::Copied(publish(publisher, retry_copy(delivery, label, attempt), until, metrics).await?)
                }
                Fate::Dead(refusal) => {
                    Proof::Copied(publish(publisher, dead_letter(delivery, &refusal), until, metrics).await?)
                }
            })
        });
        let proofs = try_join_all(proofs).await?;
        if has_retries {
            failpoint::hit(Failpoint::AfterRetryPublish);
        }
        for told in self.told {
            metrics.message(told.outcome);
            if let Some(reason) = told.reason {
                metrics.dead_lettered(reason);
            }
            if told.granted {
                metrics.grants(1);
            }
        }
        Ok((BatchSettled { _proofs: proofs }, self.notes))
    }
}

impl Told {
    fn of(outcome: MessageOutcome) -> Self {
        Self { outcome, reason: None, granted: false }
    }
}

fn dead(refusal: Refusal) -> (Fate, Told) {
    let told = Told { outcome: MessageOutcome::DeadLettered, reason: Some(refusal.reason), granted: false };
    (Fate::Dead(refusal), told)
}

fn fate_of(delivery: &Delivery, event: &PaymentEvent, result: EventResult, rules: &Rules) -> (Fate, Told) {
    match (result.outcome, result.committed) {
        (Outcome::Applied { granted }, Some(committed)) => {
            (Fate::Committed(committed), Told { granted, ..Told::of(MessageOutcome::Applied) })
        }
        (Outcome::Duplicate, Some(committed)) => (Fate::Committed(committed), Told::of(MessageOutcome::Duplicate)),
        (Outcome::Refused(refusal), _) => dead(refusal),
        // Without a proof nothing was applied, whatever it says.
        (Outcome::OrderUnknown, _) | (Outcome::Applied { .. } | Outcome::Duplicate, None) => {
            put_off_or_give_up(delivery, event, rules)
        }
    }
}

fn put_off_or_give_up(delivery: &Delivery, event: &PaymentEvent, rules: &Rules) -> (Fate, Told) {
    let before = attempts_before(delivery);
    let attempt = before.saturating_add(1);
    let nth = usize::try_from(before).unwrap_or(usize::MAX);
    let delay = rules.retry_delays.get(nth).or_else(|| rules.retry_delays.last());
    match delay {
        Some(delay) if attempt < rules.attempts_max => {
            (Fate::Later { label: delay.label.clone(), attempt }, Told::of(MessageOutcome::PutOff))
        }
        Some(_) | None => {
            if rules.unknown_payments == UnknownPayments::Ignore && event.order_id.is_none() {
                return (Fate::Nothing, Told::of(MessageOutcome::IgnoredUnknown));
            }
            let detail = match event.order_id {
                Some(order) => format!("order {order} does not exist after {attempt} attempts; create it, then replay"),
                None => format!(
                    "no order has payment {} at {} after {attempt} attempts; attach it to its order, then replay",
                    event.payment_id, event.provider
                ),
            };
            dead(Refusal::new(Reason::UnknownPayment, detail))
        }
    }
}

fn retry_copy(delivery: Delivery, label: String, attempt: u32) -> Outgoing {
    let mut headers = delivery.headers.without_brokers_own();
    headers.set_integer(ATTEMPT_HEADER, i64::from(attempt));
    headers.set_text(ROUTING_KEY_HEADER, first_routing_key(&delivery));
    Outgoing {
        exchange: RETRY_EXCHANGE,
        routing_key: label,
        message_id: delivery.message_id.unwrap_or_default(),
        kind: delivery.kind.unwrap_or_default(),
        content_type: message::CONTENT_TYPE,
        headers,
        body: Bytes::from(delivery.body),
    }
}

fn dead_letter(delivery: Delivery, refusal: &Refusal) -> Outgoing {
    let mut headers = delivery.headers.without_brokers_own();
    headers.set_integer(ATTEMPT_HEADER, i64::from(attempts_before(&delivery).saturating_add(1)));
    let letter = Letter {
        origin: "worker",
        routing_key: first_routing_key(&delivery).to_owned(),
        message_id: delivery.message_id.unwrap_or_default(),
        kind: delivery.kind.unwrap_or_default(),
        headers,
        body: Bytes::from(delivery.body),
    };
    Outgoing::dead_letter(letter, refusal)
}

/// The copy keeps the trace that the message carries; the message's own span tells where it went.
async fn publish(
    publisher: &Publisher,
    message: Outgoing,
    until: Instant,
    metrics: &Metrics,
) -> Result<Confirmed, PublishError> {
    let mut backoff = Backoff::new(AGAIN);
    loop {
        let publishing = Publishing::untraced(metrics, message.exchange);
        let published = publisher.publish(message.clone()).await;
        publishing.end(published.as_ref().err().map(PublishError::name));
        let error = match published {
            Ok(confirmed) => return Ok(confirmed),
            Err(error) => error,
        };
        let pause = backoff.next_delay().unwrap_or(AGAIN.max);
        if Instant::now() + pause > until {
            return Err(error);
        }
        tokio::time::sleep(pause).await;
    }
}

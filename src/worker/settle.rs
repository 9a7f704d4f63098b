//! Settling a batch: what was put off or refused is copied to where it belongs, confirmed; then the whole batch may be
//! acknowledged.

use super::Rules;
use super::job::{Job, JobResult};
use super::judge::{attempts_before, first_routing_key};
use crate::broker::{Confirmed, Delivery, Durable, Letter, Outgoing, PublishError, Publisher, RETRY_EXCHANGE};
use crate::config::UnknownPayments;
use crate::domain::{PaymentEvent, Reason, Refusal};
use crate::failpoint::{self, Failpoint};
use crate::message::{self, ATTEMPT_HEADER, ROUTING_KEY_HEADER};
use crate::retry::{Backoff, Limits};
use crate::store::{Activity, Committed, MessageNote, Noted};
use crate::telemetry::{MessageOutcome, Metrics, Publishing};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Between tries to publish a copy.
const AGAIN: Limits = Limits { initial: Duration::from_millis(50), max: Duration::from_secs(1), give_up_after: None };

/// What is to be done with a delivery.
#[derive(Debug)]
enum Fate {
    /// Its fact is committed.
    Committed(Arc<Committed>),
    /// It asks for nothing: a test event in a live deployment, a payment that is none of ours.
    Nothing,
    /// It is put off: to be copied to a retry queue.
    Later(Box<Outgoing>),
    /// It becomes a dead letter.
    Dead(Box<Outgoing>),
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

/// Why a batch is not settled.
#[derive(Debug, thiserror::Error)]
pub(super) enum SettleError {
    /// A copy could not be published.
    #[error(transparent)]
    Copy(#[from] PublishError),
    /// A fault of this program. Nothing may be acknowledged.
    #[error("of {deliveries} deliveries {settled} were decided about; this is a fault of grantonce, please report it")]
    NotEveryDelivery {
        /// In the batch.
        deliveries: usize,
        /// With an outcome, each counted once.
        settled: usize,
    },
}

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

/// One delivery's outcome.
#[derive(Debug)]
struct Settled {
    tag: u64,
    fate: Fate,
    told: Told,
}

/// Collects what is to be done with each delivery of a batch, and does it.
#[derive(Debug)]
pub(super) struct Settling {
    /// Of all deliveries of the batch, ascending.
    tags: Vec<u64>,
    settled: Vec<Settled>,
    notes: Notes,
}

impl Settling {
    /// Of a batch, in the order of its deliveries.
    pub(super) fn of(deliveries: &[Delivery]) -> Self {
        let tags: Vec<u64> = deliveries.iter().map(|delivery| delivery.tag).collect();
        Self { settled: Vec::with_capacity(tags.len()), tags, notes: Notes::default() }
    }

    fn add(&mut self, tag: u64, (fate, told): (Fate, Told)) {
        self.notes.count(&told);
        self.settled.push(Settled { tag, fate, told });
    }

    /// A test event in a live deployment.
    pub(super) fn test_event(&mut self, delivery: &Delivery) {
        self.add(delivery.tag, (Fate::Nothing, Told::of(MessageOutcome::TestEventDropped)));
    }

    /// What will never be applied.
    pub(super) fn refused(&mut self, delivery: &Delivery, refusal: &Refusal) {
        self.add(delivery.tag, dead(delivery, refusal));
    }

    /// What the database has said about.
    pub(super) fn done(&mut self, job: &Job, result: JobResult, rules: &Rules) {
        let (fate, told) = fate_of(job, result, rules);
        self.notes.add(told.outcome, job.event());
        self.add(job.delivery().tag, (fate, told));
    }

    /// What became of each delivery, by its number.
    pub(super) fn told(&self) -> impl Iterator<Item = (u64, Told)> {
        self.settled.iter().map(|settled| (settled.tag, settled.told))
    }

    /// Whether each delivery was decided about, once: what is acknowledged is acknowledged for all of them.
    fn is_complete(&self) -> Result<(), SettleError> {
        let mut settled: Vec<u64> = self.settled.iter().map(|settled| settled.tag).collect();
        settled.sort_unstable();
        if settled == self.tags {
            return Ok(());
        }
        settled.dedup();
        Err(SettleError::NotEveryDelivery { deliveries: self.tags.len(), settled: settled.len() })
    }

    /// Publishes the copies and waits for their confirms, trying again until `patience` is over. What is to be noted of
    /// the batch is worth noting only then.
    pub(super) async fn finish(
        self,
        publisher: &Publisher,
        patience: Duration,
        metrics: &Metrics,
    ) -> Result<(BatchSettled, Notes), SettleError> {
        self.is_complete()?;
        let until = Instant::now() + patience;
        let has_retries = self.settled.iter().any(|settled| matches!(settled.fate, Fate::Later(_)));
        let (mut proofs, mut copies) = (Vec::with_capacity(self.settled.len()), vec![]);
        let mut told = Vec::with_capacity(self.settled.len());
        for settled in self.settled {
            told.push(settled.told);
            match settled.fate {
                Fate::Committed(committed) => proofs.push(Proof::Committed(committed)),
                Fate::Nothing => proofs.push(Proof::Nothing),
                Fate::Later(copy) | Fate::Dead(copy) => copies.push(publish(publisher, *copy, until, metrics)),
            }
        }
        proofs.extend(try_join_all(copies).await?.into_iter().map(Proof::Copied));
        if has_retries {
            failpoint::hit(Failpoint::AfterRetryPublish);
        }
        for told in told {
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

fn dead(delivery: &Delivery, refusal: &Refusal) -> (Fate, Told) {
    let told = Told { outcome: MessageOutcome::DeadLettered, reason: Some(refusal.reason), granted: false };
    (Fate::Dead(Box::new(dead_letter(delivery, refusal))), told)
}

fn fate_of(job: &Job, result: JobResult, rules: &Rules) -> (Fate, Told) {
    match result {
        JobResult::Applied { granted, committed } => {
            (Fate::Committed(committed), Told { granted, ..Told::of(MessageOutcome::Applied) })
        }
        JobResult::Duplicate { committed } => (Fate::Committed(committed), Told::of(MessageOutcome::Duplicate)),
        JobResult::Refused(refusal) => dead(job.delivery(), &refusal),
        JobResult::OrderUnknown => put_off_or_give_up(job.delivery(), job.event(), rules),
    }
}

fn put_off_or_give_up(delivery: &Delivery, event: &PaymentEvent, rules: &Rules) -> (Fate, Told) {
    let before = attempts_before(delivery);
    let attempt = before.saturating_add(1);
    let nth = usize::try_from(before).unwrap_or(usize::MAX);
    let delay = rules.retry_delays.get(nth).or_else(|| rules.retry_delays.last());
    match delay {
        Some(delay) if attempt < rules.attempts_max => {
            (Fate::Later(Box::new(retry_copy(delivery, &delay.label, attempt))), Told::of(MessageOutcome::PutOff))
        }
        Some(_) | None => {
            if rules.unknown_payments == UnknownPayments::Ignore && event.order_id.is_none() {
                return (Fate::Nothing, Told::of(MessageOutcome::IgnoredUnknown));
            }
            let named = event.order_id.map(|order| format!(" and order {order} does not exist")).unwrap_or_default();
            let detail = format!(
                "no order has payment {} at {}{named} after {attempt} attempts; create the order with it, then replay",
                event.payment_id, event.provider
            );
            dead(delivery, &Refusal::new(Reason::UnknownPayment, detail))
        }
    }
}

fn retry_copy(delivery: &Delivery, label: &str, attempt: u32) -> Outgoing {
    let mut headers = delivery.headers.without_brokers_own();
    headers.set_integer(ATTEMPT_HEADER, i64::from(attempt));
    headers.set_text(ROUTING_KEY_HEADER, first_routing_key(delivery));
    Outgoing {
        exchange: RETRY_EXCHANGE,
        routing_key: label.to_owned(),
        message_id: delivery.message_id.clone().unwrap_or_default(),
        kind: delivery.kind.clone().unwrap_or_default(),
        content_type: message::CONTENT_TYPE,
        headers,
        body: Bytes::copy_from_slice(&delivery.body),
    }
}

fn dead_letter(delivery: &Delivery, refusal: &Refusal) -> Outgoing {
    let mut headers = delivery.headers.without_brokers_own();
    headers.set_integer(ATTEMPT_HEADER, i64::from(attempts_before(delivery).saturating_add(1)));
    let letter = Letter {
        origin: "worker",
        routing_key: first_routing_key(delivery).to_owned(),
        message_id: delivery.message_id.clone().unwrap_or_default(),
        kind: delivery.kind.clone().unwrap_or_default(),
        headers,
        body: Bytes::copy_from_slice(&delivery.body),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Headers;

    fn delivery(tag: u64) -> Delivery {
        Delivery {
            tag,
            exchange: "payments".to_owned(),
            routing_key: "payment.stripe".to_owned(),
            message_id: None,
            kind: None,
            published_at: None,
            headers: Headers::default(),
            death: None,
            body: vec![],
        }
    }

    #[test]
    fn a_batch_is_settled_when_each_delivery_was_decided_about_once() {
        let deliveries = [delivery(4), delivery(5)];
        let mut settling = Settling::of(&deliveries);
        let [first, second] = &deliveries;
        settling.test_event(second);
        let error = settling.is_complete().unwrap_err();
        assert!(matches!(error, SettleError::NotEveryDelivery { deliveries: 2, settled: 1 }), "{error}");
        settling.refused(first, &Refusal::new(Reason::Malformed, "no message"));
        assert!(settling.is_complete().is_ok(), "in whatever order");
        settling.test_event(first);
        assert!(settling.is_complete().is_err(), "not twice");
    }
}

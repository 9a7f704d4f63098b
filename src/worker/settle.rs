//! Settling deliveries: what was put off or refused is copied to where it belongs, and the copy confirmed. A delivery whose copy
//! is not confirmed soon waits alone; the others of its batch are acknowledged.

use super::job::Job;
use super::judge::{attempts_before, first_routing_key, waits_before};
use super::{COPY_PATIENCE, Rules};
use crate::broker::{Confirmed, Delivery, Durable, Letter, Outgoing, PublishError, Publisher, RETRY_EXCHANGE};
use crate::config::{RetryDelay, UnknownPayments};
use crate::domain::{PaymentEvent, Reason, Refusal, Separated};
use crate::failpoint::{self, Failpoint};
use crate::message::{self, ATTEMPT_HEADER, ROUTING_KEY_HEADER, WAITS_HEADER};
use crate::retry::{Backoff, Limits};
use crate::store::{Activity, Committed, MessageNote, Noted, Outcome};
use crate::telemetry::{MessageOutcome, Metrics, Publishing};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between tries to publish a copy.
const AGAIN: Limits = Limits { initial: Duration::from_millis(50), max: Duration::from_secs(10), give_up_after: None };

/// The longest of the retry delays by which a delivery is put off that could not be applied through no fault of its own.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Why one delivery may be acknowledged.
#[derive(Debug)]
#[expect(dead_code, reason = "held as proofs, never read")]
enum Proof {
    /// Its fact is committed.
    Committed(Arc<Committed>),
    /// Its copy is confirmed.
    Copied(Confirmed),
    /// It asks for nothing: a test event in a live deployment, a payment that is none of ours.
    Nothing,
}

/// A delivery that may be acknowledged.
#[derive(Debug)]
pub(super) struct Settled {
    /// Its number on the channel.
    pub(super) tag: u64,
    pub(super) told: Told,
    _proof: Proof,
}

impl Durable for Settled {}

/// Proof that each of several deliveries may be acknowledged.
impl Durable for [Settled] {}

/// What is counted, and told in traces, of one delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Told {
    pub(super) outcome: MessageOutcome,
    pub(super) reason: Option<Reason>,
    pub(super) separated: Option<Separated>,
    pub(super) granted: bool,
}

/// What is to be told of a batch, for stories and charts.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) activity: Activity,
    /// Of copies, and of messages that wait.
    pub(super) messages: Vec<MessageNote>,
}

impl Notes {
    fn add(&mut self, told: &Told, event: Option<&PaymentEvent>) {
        let activity = &mut self.activity;
        let noted = match told.outcome {
            MessageOutcome::Applied => {
                activity.applied += 1;
                None
            }
            MessageOutcome::Duplicate => {
                activity.duplicates += 1;
                Some(Noted::Copy)
            }
            MessageOutcome::PutOff => {
                activity.put_off += 1;
                Some(told.separated.map_or(Noted::PutOff, Noted::Waits))
            }
            MessageOutcome::DeadLettered => {
                activity.dead_lettered += 1;
                None
            }
            MessageOutcome::TestEventDropped | MessageOutcome::IgnoredUnknown => None,
        };
        activity.grants += u32::from(told.granted);
        self.messages.extend(event.zip(noted).map(|(event, noted)| MessageNote::new(event, noted)));
    }
}

/// What is to be done with a delivery.
#[derive(Debug)]
enum Fate {
    Acknowledge(Proof),
    /// To a retry queue, or to the dead letters.
    Copy(Box<Outgoing>),
}

/// A delivery that was decided about.
#[derive(Debug)]
pub(super) struct Decided {
    pub(super) tag: u64,
    pub(super) told: Told,
    fate: Fate,
}

impl Decided {
    /// A test event in a live deployment.
    pub(super) fn test_event(delivery: &Delivery) -> Self {
        Self::nothing(delivery, MessageOutcome::TestEventDropped)
    }

    fn nothing(delivery: &Delivery, outcome: MessageOutcome) -> Self {
        Self { tag: delivery.tag, told: Told::of(outcome), fate: Fate::Acknowledge(Proof::Nothing) }
    }

    /// What will never be applied.
    pub(super) fn refused(delivery: &Delivery, refusal: &Refusal) -> Self {
        let told = Told { reason: Some(refusal.reason), ..Told::of(MessageOutcome::DeadLettered) };
        Self { tag: delivery.tag, told, fate: Fate::Copy(Box::new(dead_letter(delivery, refusal))) }
    }

    /// What the database has said about.
    pub(super) fn of(job: &Job, outcome: Outcome, committed: &Arc<Committed>, rules: &Rules) -> Self {
        let delivery = job.delivery();
        let settled =
            |told| Self { tag: delivery.tag, told, fate: Fate::Acknowledge(Proof::Committed(Arc::clone(committed))) };
        match outcome {
            Outcome::Applied { granted } => settled(Told { granted, ..Told::of(MessageOutcome::Applied) }),
            Outcome::Duplicate => settled(Told::of(MessageOutcome::Duplicate)),
            Outcome::Refused(refusal) => Self::refused(delivery, &refusal),
            Outcome::OrderUnknown => Self::put_off_or_give_up(delivery, job.event(), rules),
            Outcome::Unreadable(detail) => Self::separated(job, Separated::UnreadableOrder, &detail, rules),
        }
    }

    fn put_off_or_give_up(delivery: &Delivery, event: &PaymentEvent, rules: &Rules) -> Self {
        let before = attempts_before(delivery);
        let attempt = before.saturating_add(1);
        match nth(&rules.retry_delays, before) {
            Some(delay) if attempt < rules.attempts_max => {
                let mut copy = retry_copy(delivery, delay);
                copy.headers.set_integer(ATTEMPT_HEADER, i64::from(attempt));
                Self { tag: delivery.tag, told: Told::of(MessageOutcome::PutOff), fate: Fate::Copy(Box::new(copy)) }
            }
            Some(_) | None => {
                if rules.unknown_payments == UnknownPayments::Ignore && event.order_id.is_none() {
                    return Self::nothing(delivery, MessageOutcome::IgnoredUnknown);
                }
                let named = event.order_id.map(|order| format!(" and order {order} does not exist"));
                let detail = format!(
                    "no order has payment {} at {}{} after {attempt} attempts; create the order with it, then replay",
                    event.payment_id,
                    event.provider,
                    named.unwrap_or_default()
                );
                Self::refused(delivery, &Refusal::new(Reason::UnknownPayment, detail))
            }
        }
    }

    /// What nobody can settle now, through no fault of its own: comes back after a while that grows, however often, and uses no
    /// attempt up.
    pub(super) fn separated(job: &Job, why: Separated, detail: &str, rules: &Rules) -> Self {
        let (delivery, message_id) = (job.delivery(), job.event().message_id.as_str());
        tracing::warn!(
            event = "separated",
            cause = why.name(),
            message_id,
            detail,
            "put off, and no attempt is counted"
        );
        let waits = waits_before(delivery);
        let short: Vec<_> = rules.retry_delays.iter().filter(|retry| retry.delay <= WAIT_MAX).cloned().collect();
        let told = Told { separated: Some(why), ..Told::of(MessageOutcome::PutOff) };
        let Some(delay) = nth(&short, waits).or_else(|| rules.retry_delays.first()) else {
            return Self::refused(delivery, &Refusal::new(Reason::RejectedByDatabase, "there is no retry queue"));
        };
        let mut copy = retry_copy(delivery, delay);
        copy.headers.set_integer(ATTEMPT_HEADER, i64::from(attempts_before(delivery)));
        copy.headers.set_integer(WAITS_HEADER, i64::from(waits.saturating_add(1)));
        Self { tag: delivery.tag, told, fate: Fate::Copy(Box::new(copy)) }
    }
}

/// A delivery whose copy is not confirmed yet. It ends with its proof, or, when its session ends before, without.
pub(super) type Waiting = JoinHandle<Option<Settled>>;

/// A copy on its way, and what is to be noted if it is not confirmed soon.
type OnItsWay = (Waiting, Option<MessageNote>);

/// Deliveries of a batch, settled as far as may be.
#[derive(Debug, Default)]
pub(super) struct Settling {
    pub(super) settled: Vec<Settled>,
    pub(super) waiting: Vec<Waiting>,
    on_their_way: Vec<OnItsWay>,
    pub(super) notes: Notes,
}

impl Settling {
    /// Takes a decision down. A copy is on its way from now on.
    pub(super) fn add(
        &mut self,
        decided: Decided,
        event: Option<&PaymentEvent>,
        publisher: &Publisher,
        metrics: &Metrics,
        ended: &CancellationToken,
    ) {
        let Decided { tag, told, fate } = decided;
        self.notes.add(&told, event);
        match fate {
            Fate::Acknowledge(proof) => self.settled.push(Settled { tag, told, _proof: proof }),
            Fate::Copy(copy) => {
                let (publisher, metrics, ended) = (publisher.clone(), metrics.clone(), ended.clone());
                let copying = tokio::spawn(async move {
                    let is_retry = copy.exchange == RETRY_EXCHANGE;
                    let confirmed = tokio::select! {
                        () = ended.cancelled() => return None,
                        confirmed = publish(&publisher, *copy, &metrics) => confirmed,
                    };
                    if is_retry {
                        failpoint::hit(Failpoint::AfterRetryPublish);
                    }
                    Some(Settled { tag, told, _proof: Proof::Copied(confirmed) })
                });
                let note = event.map(|event| MessageNote::new(event, Noted::Waits(Separated::CopyNotConfirmed)));
                self.on_their_way.push((copying, note));
            }
        }
    }

    /// Waits a moment for the confirms of the copies: most come together, and the batch is acknowledged as one. Where one of
    /// them panicked, nobody would ever settle its delivery.
    pub(super) async fn wait_for_copies(&mut self, metrics: &Metrics) -> Result<(), JoinError> {
        let until = Instant::now() + COPY_PATIENCE;
        for (mut copy, note) in std::mem::take(&mut self.on_their_way) {
            match tokio::time::timeout_at(until, &mut copy).await {
                Ok(settled) => self.settled.extend(settled?),
                Err(_elapsed) => {
                    metrics.separated(Separated::CopyNotConfirmed);
                    self.notes.messages.extend(note);
                    self.waiting.push(copy);
                }
            }
        }
        self.settled.sort_unstable_by_key(|settled| settled.tag);
        Ok(())
    }
}

impl Told {
    fn of(outcome: MessageOutcome) -> Self {
        Self { outcome, reason: None, separated: None, granted: false }
    }

    /// Counts it.
    pub(super) fn count(&self, metrics: &Metrics) {
        metrics.message(self.outcome);
        if let Some(reason) = self.reason {
            metrics.dead_lettered(reason);
        }
        if let Some(why) = self.separated {
            metrics.separated(why);
        }
        if self.granted {
            metrics.grants(1);
        }
    }
}

/// The n-th of the delays, or the last.
fn nth(delays: &[RetryDelay], n: u32) -> Option<&RetryDelay> {
    delays.get(usize::try_from(n).unwrap_or(usize::MAX)).or_else(|| delays.last())
}

fn retry_copy(delivery: &Delivery, delay: &RetryDelay) -> Outgoing {
    let mut headers = delivery.headers.to_copy();
    headers.set_text(ROUTING_KEY_HEADER, &first_routing_key(delivery));
    Outgoing {
        exchange: RETRY_EXCHANGE,
        routing_key: delay.label.clone(),
        message_id: delivery.message_id.clone().unwrap_or_default(),
        kind: delivery.kind.clone().unwrap_or_default(),
        content_type: message::CONTENT_TYPE,
        headers,
        body: delivery.body.clone(),
    }
}

fn dead_letter(delivery: &Delivery, refusal: &Refusal) -> Outgoing {
    let mut headers = delivery.headers.to_copy();
    headers.set_integer(ATTEMPT_HEADER, i64::from(attempts_before(delivery).saturating_add(1)));
    let letter = Letter {
        origin: "worker",
        routing_key: first_routing_key(delivery).into_owned(),
        message_id: delivery.message_id.clone().unwrap_or_default(),
        kind: delivery.kind.clone().unwrap_or_default(),
        headers,
        body: delivery.body.clone(),
    };
    Outgoing::dead_letter(letter, refusal)
}

/// Tries until it is confirmed. The copy keeps the trace that the message carries; the message's own span tells where it went.
async fn publish(publisher: &Publisher, message: Outgoing, metrics: &Metrics) -> Confirmed {
    let mut backoff = Backoff::new(AGAIN);
    let mut is_told = false;
    loop {
        let publishing = Publishing::untraced(metrics, message.exchange);
        let published = publisher.publish(message.clone()).await;
        publishing.end(published.as_ref().err().map(PublishError::name));
        match published {
            Ok(confirmed) => return confirmed,
            Err(error) if !is_told => {
                is_told = true;
                let (exchange, routing_key) = (message.exchange, message.routing_key.as_str());
                tracing::warn!(event = "copy_not_confirmed", exchange, routing_key, message_id = message.message_id, cause = %error,
                    "its delivery waits for it, the others of its batch do not");
            }
            Err(_) => {}
        }
        tokio::time::sleep(backoff.next_delay().unwrap_or(AGAIN.max)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_that_panics_ends_its_session() {
        let copying = tokio::spawn(async { panic!("of a test") });
        let mut settling = Settling { on_their_way: vec![(copying, None)], ..Settling::default() };
        assert!(settling.wait_for_copies(&Metrics::new()).await.unwrap_err().is_panic());
    }
}

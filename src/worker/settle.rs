//! Decides about deliveries and settles them. A message that is put off or refused is copied to its new queue, and the copy must be
//! confirmed. If a confirm takes long, its delivery waits alone and the rest of the batch is acknowledged.

use super::COPY_PATIENCE;
use super::batch::{Batch, Job};
use super::judge::{attempts_before, first_routing_key, waits_before};
use super::session::Session;
use crate::broker::{Confirmed, Delivery, Durable, Letter, Outgoing, RETRY_EXCHANGE};
use crate::config::{RetryDelay, UnknownPayments, WorkerConfig};
use crate::domain::{PaymentEvent, Reason, Refusal, Separated};
use crate::failpoint::{self, Failpoint};
use crate::message::{self, ATTEMPT_HEADER, ROUTING_KEY_HEADER, WAITS_HEADER};
use crate::publishing::publish_as_is;
use crate::retry::{Backoff, Limits};
use crate::store::{Committed, MessageNote, Noted, Outcome};
use crate::telemetry::{MessageOutcome, Metrics};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::Instant;

/// The pauses between tries to publish a copy.
const AGAIN: Limits = Limits { initial: Duration::from_millis(50), max: Duration::from_secs(10), give_up_after: None };

/// The longest retry delay for a delivery that could not be applied through no fault of its own.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Why one delivery may be acknowledged.
#[derive(Debug)]
#[expect(dead_code, reason = "held as proofs, never read")]
enum Proof {
    /// Its fact is committed.
    Committed(Arc<Committed>),
    /// Its copy is confirmed.
    Copied(Confirmed),
    /// It asks for nothing: a test event in a live deployment, or a payment that is not ours.
    Nothing,
}

/// A delivery that may be acknowledged.
#[derive(Debug)]
pub(super) struct Settled {
    /// Its number on the channel.
    pub(super) tag: u64,
    pub(super) labels: Labels,
    _proof: Proof,
}

impl Durable for Settled {}

/// Proof that each of several deliveries may be acknowledged.
impl Durable for [Settled] {}

/// What metrics, traces and notes tell about one delivery.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels {
    pub(super) outcome: MessageOutcome,
    pub(super) reason: Option<Reason>,
    pub(super) separated: Option<Separated>,
    pub(super) granted: bool,
}

impl Labels {
    fn of(outcome: MessageOutcome) -> Self {
        Self { outcome, reason: None, separated: None, granted: false }
    }

    /// Counts the delivery by these labels.
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

/// The next step for a delivery.
#[derive(Debug)]
enum Next {
    Acknowledge(Proof),
    /// Publish a copy to a retry queue or to the dead letters.
    Copy(Outgoing),
}

/// A decision about one delivery.
#[derive(Debug)]
pub(super) struct Decision {
    labels: Labels,
    next: Next,
}

impl Decision {
    fn new(outcome: MessageOutcome, next: Next) -> Self {
        Self { labels: Labels::of(outcome), next }
    }

    /// The delivery is acknowledged and nothing else is done.
    pub(super) fn nothing(outcome: MessageOutcome) -> Self {
        Self::new(outcome, Next::Acknowledge(Proof::Nothing))
    }

    /// The message becomes a dead letter.
    pub(super) fn refused(delivery: &Delivery, refusal: &Refusal) -> Self {
        let labels = Labels { reason: Some(refusal.reason), ..Labels::of(MessageOutcome::DeadLettered) };
        Self { labels, next: Next::Copy(dead_letter(delivery, refusal)) }
    }

    /// Decides by the outcome of a committed transaction.
    pub(super) fn of(job: &Job, outcome: Outcome, committed: &Arc<Committed>, config: &WorkerConfig) -> Self {
        let proof = || Next::Acknowledge(Proof::Committed(Arc::clone(committed)));
        match outcome {
            Outcome::Applied { granted } => {
                Self { labels: Labels { granted, ..Labels::of(MessageOutcome::Applied) }, next: proof() }
            }
            Outcome::Duplicate => Self::new(MessageOutcome::Duplicate, proof()),
            Outcome::Refused(refusal) => Self::refused(&job.delivery, &refusal),
            Outcome::OrderUnknown => Self::order_unknown(job, config),
            Outcome::Unreadable(detail) => Self::separated(job, Separated::UnreadableOrder, &detail, config),
        }
    }

    /// The message is put off, until it has no attempt left.
    fn order_unknown(job: &Job, config: &WorkerConfig) -> Self {
        let Job { delivery, event } = job;
        let before = attempts_before(delivery);
        let attempt = before.saturating_add(1);
        if attempt < config.retry.attempts_max
            && let Some(delay) = nth(&config.retry.delays, before)
        {
            let mut copy = retry_copy(delivery, delay);
            copy.headers.set_integer(ATTEMPT_HEADER, i64::from(attempt));
            return Self::new(MessageOutcome::PutOff, Next::Copy(copy));
        }
        if config.unknown_payments == UnknownPayments::Ignore && event.order_id.is_none() {
            return Self::nothing(MessageOutcome::IgnoredUnknown);
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

    /// The message cannot be settled now, through no fault of its own. It comes back after a delay that grows, and no attempt is
    /// counted.
    pub(super) fn separated(job: &Job, why: Separated, detail: &str, config: &WorkerConfig) -> Self {
        let (delivery, message_id) = (&job.delivery, job.event.message_id.as_str());
        tracing::warn!(
            event = "separated",
            cause = why.name(),
            message_id,
            detail,
            "put off, and no attempt is counted"
        );
        let waits = waits_before(delivery);
        let delays = &config.retry.delays;
        let short = delays.iter().take_while(|retry| retry.delay <= WAIT_MAX).count();
        let Some(delay) = nth(delays.get(..short).unwrap_or_default(), waits).or_else(|| delays.first()) else {
            return Self::refused(delivery, &Refusal::new(Reason::RejectedByDatabase, "there is no retry queue"));
        };
        let mut copy = retry_copy(delivery, delay);
        copy.headers.set_integer(ATTEMPT_HEADER, i64::from(attempts_before(delivery)));
        copy.headers.set_integer(WAITS_HEADER, i64::from(waits.saturating_add(1)));
        let labels = Labels { separated: Some(why), ..Labels::of(MessageOutcome::PutOff) };
        Self { labels, next: Next::Copy(copy) }
    }
}

/// The publishing of a delivery's copy. It ends with the settled delivery, or with nothing if the session ends before.
pub(super) type Copying = JoinHandle<Option<Settled>>;

/// A copy on its way, with the note to write if its confirm takes long.
pub(super) type PendingCopy = (Copying, Option<MessageNote>);

impl Batch {
    /// Carries out a decision: the delivery is settled, or the publishing of its copy begins.
    pub(super) fn decide(&mut self, delivery: &Delivery, event: Option<&PaymentEvent>, decision: Decision) {
        let (tag, Decision { labels, next }) = (delivery.tag, decision);
        if let Some(trace) = &mut self.trace {
            trace.decided(tag, labels);
        }
        self.note(labels, event);
        match next {
            Next::Acknowledge(proof) => self.settled.push(Settled { tag, labels, _proof: proof }),
            Next::Copy(copy) => {
                let session = Arc::clone(&self.session);
                let copying = tokio::spawn(async move {
                    let is_retry = copy.exchange == RETRY_EXCHANGE;
                    let confirmed = session.ended.run_until_cancelled(publish_copy(&session, copy)).await?;
                    if is_retry {
                        failpoint::hit(Failpoint::AfterRetryPublish);
                    }
                    Some(Settled { tag, labels, _proof: Proof::Copied(confirmed) })
                });
                let note = event.map(|event| MessageNote::new(event, Noted::Waits(Separated::CopyNotConfirmed)));
                self.copying.push((copying, note));
            }
        }
    }

    /// Counts a decision for charts, and notes it for stories if the tables do not show it.
    fn note(&mut self, labels: Labels, event: Option<&PaymentEvent>) {
        let activity = &mut self.activity;
        let (count, noted) = match labels.outcome {
            MessageOutcome::Applied => (&mut activity.applied, None),
            MessageOutcome::Duplicate => (&mut activity.duplicates, Some(Noted::Copy)),
            MessageOutcome::PutOff => {
                (&mut activity.put_off, Some(labels.separated.map_or(Noted::PutOff, Noted::Waits)))
            }
            MessageOutcome::DeadLettered => (&mut activity.dead_lettered, None),
            MessageOutcome::TestEventDropped | MessageOutcome::IgnoredUnknown => return,
        };
        *count += 1;
        activity.grants += u32::from(labels.granted);
        self.notes.extend(event.zip(noted).map(|(event, noted)| MessageNote::new(event, noted)));
    }

    /// Waits a moment for the confirms of the copies. Most confirms come together, and the batch is acknowledged as one. Copies that
    /// take longer stay in `copying`.
    pub(super) async fn wait_for_copies(&mut self) -> Result<(), JoinError> {
        let (confirmed, late) = confirmed_by(Instant::now() + COPY_PATIENCE, std::mem::take(&mut self.copying)).await?;
        self.settled.extend(confirmed);
        self.settled.sort_unstable_by_key(|settled| settled.tag);
        for (copying, note) in late {
            self.session.metrics.separated(Separated::CopyNotConfirmed);
            self.notes.extend(note);
            self.copying.push((copying, None));
        }
        Ok(())
    }
}

/// The deliveries whose copies are confirmed by then, and the copies that are not. If a copy panicked, nobody would ever settle its
/// delivery, so that is an error.
async fn confirmed_by(until: Instant, copies: Vec<PendingCopy>) -> Result<(Vec<Settled>, Vec<PendingCopy>), JoinError> {
    let (mut confirmed, mut late) = (Vec::new(), Vec::new());
    for (mut copying, note) in copies {
        match tokio::time::timeout_at(until, &mut copying).await {
            Ok(settled) => confirmed.extend(settled?),
            Err(_elapsed) => late.push((copying, note)),
        }
    }
    Ok((confirmed, late))
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

/// Publishes until the copy is confirmed. The copy keeps the trace of its message, whose own span tells where the copy went.
async fn publish_copy(session: &Session, message: Outgoing) -> Confirmed {
    let mut backoff = Backoff::new(AGAIN);
    let mut is_logged = false;
    loop {
        match publish_as_is(&session.publisher, message.clone(), &session.metrics).await {
            Ok(confirmed) => return confirmed,
            Err(error) if !is_logged => {
                is_logged = true;
                let (exchange, routing_key) = (message.exchange, message.routing_key.as_str());
                tracing::warn!(event = "copy_not_confirmed", exchange, routing_key, message_id = message.message_id, cause = %error,
                    "its delivery waits for it, the others of its batch do not");
            }
            Err(_) => {}
        }
        tokio::time::sleep(backoff.next_pause()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_copy_that_panics_ends_its_session() {
        let copying = tokio::spawn(async { panic!("of a test") });
        let waited = confirmed_by(Instant::now() + COPY_PATIENCE, vec![(copying, None)]).await;
        assert!(waited.unwrap_err().is_panic());
    }
}

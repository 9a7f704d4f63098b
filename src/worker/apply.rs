//! Applying a batch, whatever it takes: contention is tried again at once, an outage is waited out for a while, and a
//! culprit in the data is narrowed down until it stands alone.

use crate::domain::{OrderId, PaymentEvent, Reason, Refusal};
use crate::retry::{Backoff, Limits};
use crate::store::{BatchTerms, Class, Committed, Outcome, Store, StoreError};
use crate::telemetry::GivenBack;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Between tries while the database is away.
const AWAY: Limits = Limits { initial: Duration::from_millis(50), max: Duration::from_secs(1), give_up_after: None };

/// Between tries when other transactions were in the way.
const CONTENDED: Limits =
    Limits { initial: Duration::from_millis(2), max: Duration::from_millis(100), give_up_after: None };

/// The database stayed away for longer than a batch is held, or does not answer.
#[derive(Debug, thiserror::Error)]
#[error("Postgres was away for {} s: {cause}", held.as_secs())]
pub(super) struct Outage {
    pub(super) held: Duration,
    pub(super) cause: StoreError,
}

impl Outage {
    /// The metric's label.
    pub(super) fn label(&self) -> GivenBack {
        if matches!(self.cause, StoreError::Deadline { .. }) {
            GivenBack::OutcomeUnknown
        } else {
            GivenBack::DatabaseOutage
        }
    }
}

/// What became of one event, with the proof where something was written.
#[derive(Debug)]
pub(super) struct EventResult {
    pub(super) outcome: Outcome,
    /// None only for what the database refused.
    pub(super) committed: Option<Arc<Committed>>,
}

/// A batch that is through.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// One for each event, in their order.
    pub(super) results: Vec<EventResult>,
    /// Orders whose readers see something new.
    pub(super) changed: Vec<OrderId>,
}

/// Applies the events. Fails only when the database is away for longer than `grace`.
pub(super) async fn apply(
    store: &Store,
    events: &Arc<[PaymentEvent]>,
    terms: BatchTerms,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<Done, Outage> {
    let mut done = Done::default();
    // Ranges still to do, the next one last: so that results come in the events' order.
    let whole: Range<usize> = 0..events.len();
    let mut ranges = Vec::from([whole]);
    while let Some(range) = ranges.pop() {
        if range.is_empty() {
            continue;
        }
        match apply_part(store, events, range.clone(), terms, grace, stop).await? {
            Part::Applied { outcomes, committed, changed } => {
                let committed = Arc::new(committed);
                done.changed.extend(changed);
                done.results.extend(
                    outcomes
                        .into_iter()
                        .map(|outcome| EventResult { outcome, committed: Some(Arc::clone(&committed)) }),
                );
            }
            Part::BadData(error) if range.len() == 1 => {
                let detail = error.code().unwrap_or_else(|| error.to_string());
                let detail = format!("Postgres refuses this message: {detail}");
                let outcome = Outcome::Refused(Refusal::new(Reason::RejectedByDatabase, detail));
                done.results.push(EventResult { outcome, committed: None });
            }
            Part::BadData(error) => {
                tracing::warn!(event = "narrowing", messages = range.len(), cause = %error, "one of these is refused by Postgres");
                let middle = range.start + range.len() / 2;
                ranges.push(middle..range.end);
                ranges.push(range.start..middle);
            }
        }
    }
    Ok(done)
}

enum Part {
    Applied { outcomes: Vec<Outcome>, committed: Committed, changed: Vec<OrderId> },
    BadData(StoreError),
}

async fn apply_part(
    store: &Store,
    events: &Arc<[PaymentEvent]>,
    range: Range<usize>,
    terms: BatchTerms,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<Part, Outage> {
    let began = Instant::now();
    let mut away = Backoff::new(AWAY);
    let mut contended = Backoff::new(CONTENDED);
    loop {
        let error = match store.apply_part(Arc::clone(events), range.clone(), terms).await {
            Ok(applied) => {
                return Ok(Part::Applied {
                    outcomes: applied.outcomes,
                    committed: applied.committed,
                    changed: applied.changed,
                });
            }
            Err(error) => error,
        };
        let pause = match (&error, error.class()) {
            // Whether it was written is unknown, and the connection may be dead without saying so.
            (StoreError::Deadline { .. }, _) => return Err(Outage { held: began.elapsed(), cause: error }),
            (_, Class::Data) => return Ok(Part::BadData(error)),
            (_, Class::Contended) => contended.next_delay().unwrap_or(CONTENDED.max),
            (_, Class::Transient | Class::Bug) => {
                tracing::warn!(event = "batch_held", messages = range.len(), cause = %error, "Postgres is away; trying again");
                away.next_delay().unwrap_or(AWAY.max)
            }
        };
        if began.elapsed() + pause > grace || stop.is_cancelled() {
            return Err(Outage { held: began.elapsed(), cause: error });
        }
        // Nothing tells when others are out of the way or the database is back, but a session that ends waits for none.
        tokio::select! {
            () = stop.cancelled() => return Err(Outage { held: began.elapsed(), cause: error }),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

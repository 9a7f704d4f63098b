//! Applying a batch, whatever it takes: contention is tried again at once, an outage is waited out for a while, and a
//! culprit in the data is narrowed down until it stands alone.

use super::job::{Job, JobResult};
use crate::domain::{OrderId, Reason, Refusal};
use crate::retry::{Backoff, Limits};
use crate::store::{Applied, BatchTerms, Class, Outcome, Store, StoreError};
use crate::telemetry::GivenBack;
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
        match (&self.cause, self.cause.class()) {
            (StoreError::Deadline { .. }, _) => GivenBack::OutcomeUnknown,
            (_, Class::Bug) => GivenBack::Bug,
            (_, Class::Transient | Class::Contended | Class::Data) => GivenBack::DatabaseOutage,
        }
    }
}

/// A batch that is through.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// Every job with what became of it.
    pub(super) results: Vec<(Job, JobResult)>,
    /// Orders whose readers see something new.
    pub(super) changed: Vec<OrderId>,
}

/// Applies the jobs. Fails only when the database is away, or this program, its schema or its rights are at fault, for longer
/// than `grace`.
pub(super) async fn apply(
    store: &Store,
    jobs: Vec<Job>,
    terms: BatchTerms,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<Done, Outage> {
    let mut done = Done::default();
    let mut parts: Vec<Arc<[Job]>> = Vec::from([Arc::from(jobs)]);
    while let Some(part) = parts.pop() {
        if part.is_empty() {
            continue;
        }
        match apply_part(store, &part, terms, grace, stop).await? {
            Part::Applied(applied) => {
                let committed = Arc::new(applied.committed);
                done.changed.extend(applied.changed);
                let of_outcome = |outcome| match outcome {
                    Outcome::Applied { granted } => JobResult::Applied { granted, committed: Arc::clone(&committed) },
                    Outcome::Duplicate => JobResult::Duplicate { committed: Arc::clone(&committed) },
                    Outcome::OrderUnknown => JobResult::OrderUnknown,
                    Outcome::Refused(refusal) => JobResult::Refused(refusal),
                };
                done.results.extend(part.iter().cloned().zip(applied.outcomes.into_iter().map(of_outcome)));
            }
            Part::BadData(error) => match part.as_ref() {
                [job] => {
                    let detail = error.code().unwrap_or_else(|| error.to_string());
                    let detail = format!("Postgres refuses this message: {detail}");
                    let refusal = Refusal::new(Reason::RejectedByDatabase, detail);
                    done.results.push((job.clone(), JobResult::Refused(refusal)));
                }
                jobs => {
                    tracing::warn!(event = "narrowing", messages = jobs.len(), cause = %error, "one of these is refused by Postgres");
                    let (first, second) = jobs.split_at(jobs.len() / 2);
                    parts.push(Arc::from(second));
                    parts.push(Arc::from(first));
                }
            },
        }
    }
    Ok(done)
}

enum Part {
    Applied(Applied),
    BadData(StoreError),
}

async fn apply_part(
    store: &Store,
    jobs: &Arc<[Job]>,
    terms: BatchTerms,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<Part, Outage> {
    let began = Instant::now();
    let mut away = Backoff::new(AWAY);
    let mut contended = Backoff::new(CONTENDED);
    loop {
        let error = match store.apply(Arc::clone(jobs), terms).await {
            Ok(applied) => return Ok(Part::Applied(applied)),
            Err(error) => error,
        };
        let pause = match (&error, error.class()) {
            // Whether it was written is unknown, and the connection may be dead without saying so.
            (StoreError::Deadline { .. }, _) => return Err(Outage { held: began.elapsed(), cause: error }),
            (_, Class::Data) => return Ok(Part::BadData(error)),
            (_, Class::Contended) => contended.next_delay().unwrap_or(CONTENDED.max),
            (_, class @ (Class::Transient | Class::Bug)) => {
                if class == Class::Bug {
                    tracing::error!(event = "batch_held", messages = jobs.len(), cause = %error, "held: schema, rights or program are at fault");
                } else {
                    tracing::warn!(event = "batch_held", messages = jobs.len(), cause = %error, "Postgres is away; trying again");
                }
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

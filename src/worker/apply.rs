//! Applying a batch, whatever it takes. An outage is waited out for a while. What one message or one locked row is to blame for
//! is narrowed down until it stands alone, and everything else is committed.

use super::Rules;
use super::job::Job;
use super::settle::Decided;
use crate::domain::{OrderId, Reason, Refusal, Separated};
use crate::retry::{Backoff, Limits};
use crate::store::{Applied, BatchTerms, Class, Store, StoreError};
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

/// How often a batch is tried while other transactions are in its way, before it is narrowed down.
const CONTENDED_TRIES_MAX: u32 = 5;

/// How long a batch waits for a row that another transaction has locked. Ours hold one for milliseconds.
const LOCK_WAIT: Duration = Duration::from_millis(500);

/// How long the parts wait of a batch in which one row was locked for longer than that.
const LOCK_WAIT_AGAIN: Duration = Duration::from_millis(100);

/// Most messages of a batch that are found to fail alone while none was applied. Then it is not for them.
const ALONE_MAX: usize = 16;

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
    /// Every job with what is to become of it.
    pub(super) decided: Vec<(Job, Decided)>,
    /// Orders whose readers see something new.
    pub(super) changed: Vec<OrderId>,
}

/// Jobs that go through one transaction.
struct Part {
    jobs: Arc<[Job]>,
    lock_wait: Duration,
    /// Whether their orders were found locked.
    is_locked: bool,
}

/// Applies the jobs. Fails only when the database is away, or this program, its schema or its rights are at fault, for longer
/// than `grace`.
pub(super) async fn apply(
    store: &Store,
    jobs: Vec<Job>,
    rules: &Rules,
    terms: BatchTerms,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<Done, Outage> {
    let mut done = Done::default();
    let (mut applied_any, mut alone) = (false, 0);
    let mut parts = Vec::from([Part { jobs: Arc::from(jobs), lock_wait: LOCK_WAIT, is_locked: false }]);
    while let Some(part) = parts.pop() {
        if part.jobs.is_empty() {
            continue;
        }
        let error = match apply_part(store, &part, terms, grace, stop).await? {
            Ok(applied) => {
                applied_any = true;
                done.add(&part.jobs, applied, rules);
                continue;
            }
            Err(error) => error,
        };
        if let [job] = part.jobs.as_ref() {
            alone += 1;
            if !applied_any && alone > ALONE_MAX {
                return Err(Outage { held: Duration::ZERO, cause: error });
            }
            done.decided.push((job.clone(), alone_with(&error, job, rules)));
            continue;
        }
        tracing::warn!(event = "narrowing", messages = part.jobs.len(), cause = %error, "one of these cannot be applied now");
        let is_locked = if error.is_lock_timeout() { locked(store, &part.jobs).await } else { Vec::new() };
        let (held, free): (Vec<_>, Vec<_>) =
            part.jobs.iter().enumerate().partition(|(at, _)| is_locked.get(*at).copied().unwrap_or(false));
        let jobs = |jobs: &[(usize, &Job)]| -> Arc<[Job]> { jobs.iter().map(|(_, job)| (*job).clone()).collect() };
        if held.is_empty() {
            let (first, second) = part.jobs.split_at(part.jobs.len() / 2);
            for half in [second, first] {
                parts.push(Part { jobs: Arc::from(half), lock_wait: LOCK_WAIT_AGAIN, is_locked: false });
            }
        } else if part.is_locked {
            done.decided.extend(held.iter().map(|(_, job)| ((*job).clone(), alone_with(&error, job, rules))));
            parts.push(Part { jobs: jobs(&free), lock_wait: LOCK_WAIT, is_locked: false });
        } else {
            parts.push(Part { jobs: jobs(&held), lock_wait: LOCK_WAIT_AGAIN, is_locked: true });
            parts.push(Part { jobs: jobs(&free), lock_wait: LOCK_WAIT, is_locked: false });
        }
    }
    Ok(done)
}

impl Done {
    fn add(&mut self, jobs: &[Job], applied: Applied, rules: &Rules) {
        let Applied { committed, outcomes, changed } = applied;
        let committed = Arc::new(committed);
        self.changed.extend(changed);
        let decided = |(job, outcome)| (Job::clone(job), Decided::of(job, outcome, &committed, rules));
        self.decided.extend(jobs.iter().zip(outcomes).map(decided));
    }
}

/// What becomes of a message that is to blame alone.
fn alone_with(error: &StoreError, job: &Job, rules: &Rules) -> Decided {
    let detail = error.code().unwrap_or_else(|| error.to_string());
    match error.class() {
        Class::Data => {
            let detail = format!("Postgres refuses this message: {detail}");
            Decided::refused(job.delivery(), &Refusal::new(Reason::RejectedByDatabase, detail))
        }
        Class::Contended => Decided::separated(job, Separated::Locked, &detail, rules),
        Class::Bug | Class::Transient => Decided::separated(job, Separated::Fault, &error.to_string(), rules),
    }
}

/// Which of the jobs are about an order that another transaction has locked. None where that cannot be told.
async fn locked(store: &Store, jobs: &Arc<[Job]>) -> Vec<bool> {
    store.about_locked_orders(Arc::clone(jobs)).await.unwrap_or_else(|error| {
        tracing::debug!(event = "locks_unknown", cause = %error);
        Vec::new()
    })
}

/// Applies a part. The inner error is about what is in it.
async fn apply_part(
    store: &Store,
    part: &Part,
    terms: BatchTerms,
    grace: Duration,
    stop: &CancellationToken,
) -> Result<Result<Applied, StoreError>, Outage> {
    let Part { jobs, lock_wait, .. } = part;
    let began = Instant::now();
    let mut away = Backoff::new(AWAY);
    let mut contended = Backoff::new(CONTENDED);
    let mut contended_tries = 0;
    loop {
        let error = match store.apply(Arc::clone(jobs), terms, *lock_wait).await {
            Ok(applied) => return Ok(Ok(applied)),
            Err(error) => error,
        };
        let pause = match (&error, error.class()) {
            // Whether it was written is unknown, and the connection may be dead without saying so.
            (StoreError::Deadline { .. }, _) => return Err(Outage { held: began.elapsed(), cause: error }),
            (_, Class::Data) => return Ok(Err(error)),
            (_, Class::Contended) => {
                contended_tries += 1;
                if error.is_lock_timeout() || contended_tries >= CONTENDED_TRIES_MAX {
                    return Ok(Err(error));
                }
                contended.next_delay().unwrap_or(CONTENDED.max)
            }
            (_, Class::Bug) => {
                tracing::error!(event = "batch_held", messages = jobs.len(), cause = %error, "held: schema, rights or program are at fault");
                // Where a batch of nothing goes through, it is for what is in this one.
                if store.rehearse(terms.now).await.is_ok() {
                    return Ok(Err(error));
                }
                away.next_delay().unwrap_or(AWAY.max)
            }
            (_, Class::Transient) => {
                tracing::warn!(event = "batch_held", messages = jobs.len(), cause = %error, "Postgres is away; trying again");
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

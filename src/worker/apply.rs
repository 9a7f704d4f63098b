//! Applies a batch. During an outage it tries again for a while. If one message or one locked row makes the batch fail, the batch is
//! split until that message is alone, and everything else is committed.

use super::batch::{Batch, Job};
use super::session::Lost;
use super::settle::Decision;
use crate::domain::{Reason, Refusal, Separated};
use crate::retry::{Backoff, Limits};
use crate::store::{Applied, ApplyOptions, BatchTerms, Class, StoreError};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The pauses between tries while the database is away.
const AWAY: Limits = Limits { initial: Duration::from_millis(50), max: Duration::from_secs(1), give_up_after: None };

/// The pauses between tries while other transactions are in the way.
const CONTENDED: Limits =
    Limits { initial: Duration::from_millis(2), max: Duration::from_millis(100), give_up_after: None };

/// How often a batch is tried while other transactions are in its way, before it is split.
const CONTENDED_TRIES_MAX: u32 = 5;

/// How long the parts of a batch wait if the whole batch waited for [`crate::store::LOCK_WAIT`] in vain.
const LOCK_WAIT_AGAIN: Duration = Duration::from_millis(100);

/// If more messages of a batch than this fail alone and none is applied, the messages are not the cause.
const ALONE_MAX: usize = 16;

/// Jobs that go through one transaction.
struct Part {
    jobs: Arc<[Job]>,
    /// `None`: as long as any batch.
    lock_wait: Option<Duration>,
    /// Whether their orders were found locked.
    is_locked: bool,
}

impl Batch {
    /// Applies the jobs and decides about each of them. It fails only if the database is away, or if the program, its schema or its
    /// rights are wrong, for longer than the outage grace.
    pub(super) async fn apply_in_parts(&mut self, jobs: Vec<Job>) -> Result<(), Lost> {
        let (mut applied_any, mut alone) = (false, 0);
        let part = |jobs, lock_wait, is_locked| Part { jobs, lock_wait, is_locked };
        let mut parts = Vec::from([part(jobs.into(), None, false)]);
        while let Some(Part { jobs, lock_wait, is_locked }) = parts.pop() {
            if jobs.is_empty() {
                continue;
            }
            let error = match self.commit_with_retries(&jobs, lock_wait).await? {
                Ok(applied) => {
                    applied_any = true;
                    self.decide_applied(&jobs, applied);
                    continue;
                }
                Err(error) => error,
            };
            if let [job] = jobs.as_ref() {
                alone += 1;
                if !applied_any && alone > ALONE_MAX {
                    return Err(Lost::Outage { held: Duration::ZERO, cause: error });
                }
                self.decide_failed(job, &error);
                continue;
            }
            tracing::warn!(event = "narrowing", messages = jobs.len(), cause = %error, "one of these cannot be applied now");
            let (locked, free) =
                if error.is_lock_timeout() { self.split_by_locks(&jobs).await } else { (vec![], vec![]) };
            if locked.is_empty() {
                let (first, second) = jobs.split_at(jobs.len() / 2);
                parts.extend([second, first].map(|half| part(half.into(), Some(LOCK_WAIT_AGAIN), false)));
                continue;
            }
            if is_locked {
                locked.iter().for_each(|job| self.decide_failed(job, &error));
            } else {
                parts.push(part(locked.into(), Some(LOCK_WAIT_AGAIN), true));
            }
            parts.push(part(free.into(), None, false));
        }
        Ok(())
    }

    fn decide_applied(&mut self, jobs: &[Job], applied: Applied) {
        let Applied { committed, outcomes, changed, overtaken } = applied;
        self.session.metrics.batch_overtaken(overtaken);
        let committed = Arc::new(committed);
        self.session.changed.announce(changed);
        for (job, outcome) in jobs.iter().zip(outcomes) {
            let decision = Decision::of(job, outcome, &committed, &self.session.config);
            self.decide(&job.delivery, Some(&job.event), decision);
        }
    }

    /// Decides about a message that fails alone.
    fn decide_failed(&mut self, job: &Job, error: &StoreError) {
        let detail = error.code().unwrap_or_else(|| error.to_string());
        let config = &self.session.config;
        let decision = match error.class() {
            Class::Data => {
                let detail = format!("Postgres refuses this message: {detail}");
                Decision::refused(&job.delivery, &Refusal::new(Reason::RejectedByDatabase, detail))
            }
            Class::Contended => Decision::separated(job, Separated::Locked, &detail, config),
            Class::Bug | Class::Transient => Decision::separated(job, Separated::Fault, &error.to_string(), config),
        };
        self.decide(&job.delivery, Some(&job.event), decision);
    }

    /// The jobs whose orders another transaction has locked, and the others. Nothing is known to be locked if the question fails.
    async fn split_by_locks(&self, jobs: &Arc<[Job]>) -> (Vec<Job>, Vec<Job>) {
        self.session.store.split_by_locks(Arc::clone(jobs)).await.unwrap_or_else(|error| {
            tracing::debug!(event = "locks_unknown", cause = %error);
            (Vec::new(), Vec::new())
        })
    }

    /// Commits the jobs in one transaction, and tries again while the cause is not among them. The inner error is caused by one of
    /// the jobs.
    async fn commit_with_retries(
        &self,
        jobs: &Arc<[Job]>,
        lock_wait: Option<Duration>,
    ) -> Result<Result<Applied, StoreError>, Lost> {
        let (store, config, stopping) = (&self.session.store, &self.session.config, &self.session.stopping);
        let terms = BatchTerms { dispute_policy: config.dispute_policy, now: self.now };
        let options = ApplyOptions { lock_wait, announces: self.is_alone };
        let began = Instant::now();
        let outage = |cause| Lost::Outage { held: began.elapsed(), cause };
        let (mut away, mut contended) = (Backoff::new(AWAY), Backoff::new(CONTENDED));
        let mut contended_tries = 0;
        loop {
            let error = match store.apply(Arc::clone(jobs), terms, options).await {
                Ok(applied) => return Ok(Ok(applied)),
                Err(error) => error,
            };
            let pause = match (&error, error.class()) {
                // Nobody knows whether it was written, and the connection may be dead without a sign.
                (StoreError::Deadline { .. }, _) => return Err(outage(error)),
                (_, Class::Data) => return Ok(Err(error)),
                (_, Class::Contended) => {
                    contended_tries += 1;
                    if error.is_lock_timeout() || contended_tries >= CONTENDED_TRIES_MAX {
                        return Ok(Err(error));
                    }
                    contended.next_pause()
                }
                (_, Class::Bug) => {
                    tracing::error!(event = "batch_held", messages = jobs.len(), cause = %error, "the batch is held: the schema, the rights or the program has a fault");
                    // If a batch of nothing goes through, a message of this batch is the cause.
                    if store.rehearse(terms.now).await.is_ok() {
                        return Ok(Err(error));
                    }
                    away.next_pause()
                }
                (_, Class::Transient) => {
                    tracing::warn!(event = "batch_held", messages = jobs.len(), cause = %error, "Postgres is down; trying again");
                    away.next_pause()
                }
            };
            // No event tells when the database is back. A session that ends does not wait for it.
            let is_over = began.elapsed() + pause > config.outage_grace;
            if is_over || stopping.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return Err(outage(error));
            }
        }
    }
}

//! Retries: how long to wait, and the one loop that waits.
//!
//! The delays come from the crate `backoff`, which is unmaintained (RUSTSEC-2025-0012; its `instant` is
//! RUSTSEC-2024-0384). So it is confined to this file. The interface does not show it, and only its arithmetic is used.
//! To replace it, rewrite [`Backoff`].

use crate::telemetry::causes;
use backoff::ExponentialBackoff;
use backoff::backoff::Backoff as _;
use std::error::Error;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A delay is drawn from ± this part of the interval, so that processes do not retry in step.
const JITTER: f64 = 0.5;

/// The interval grows by this factor after each failure.
const GROWTH: f64 = 2.0;

/// How delays grow, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The first interval. The delay is between half and one and a half of it.
    pub initial: Duration,
    /// The longest delay between two tries.
    pub max: Duration,
    /// How long after the first try (or the last reset) to give up. `None` never gives up.
    pub give_up_after: Option<Duration>,
}

/// Exponentially growing delays with jitter.
#[derive(Debug)]
pub struct Backoff {
    inner: ExponentialBackoff,
    max: Duration,
}

impl Backoff {
    /// Starts with the initial interval. The time until giving up begins now.
    pub fn new(limits: Limits) -> Self {
        let mut inner = ExponentialBackoff {
            initial_interval: limits.initial,
            max_interval: limits.max,
            max_elapsed_time: limits.give_up_after,
            randomization_factor: JITTER,
            multiplier: GROWTH,
            ..ExponentialBackoff::default()
        };
        // `current_interval` still has the default of the crate.
        inner.reset();
        Self { inner, max: limits.max }
    }

    /// How long to wait before the next try. `None` when it is time to give up.
    pub fn next_delay(&mut self) -> Option<Duration> {
        // The crate adds its jitter to the longest interval.
        self.inner.next_backoff().map(|delay| delay.min(self.max))
    }

    /// How long to wait before the next try, for a caller that never gives up.
    pub fn next_pause(&mut self) -> Duration {
        self.next_delay().unwrap_or(self.max)
    }

    /// Starts again with the initial interval, because something succeeded.
    pub fn reset(&mut self) {
        self.inner.reset();
    }
}

/// How a try failed.
#[derive(Debug)]
pub enum Failure<E> {
    /// Trying again may help.
    Transient(E),
    /// Trying again will not help.
    Permanent(E),
}

/// Why [`retry_until_ok`] ended without a result.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished<E: Error + 'static> {
    /// The process was asked to stop first.
    #[error("shutdown was requested")]
    Stopped,
    /// The last failure: it was permanent, or it was time to give up.
    #[error(transparent)]
    Failed(E),
}

/// Calls `op` until it succeeds, and waits in between. Each failure that is retried is logged once. The last failure is
/// returned and not logged.
///
/// `op` itself is never cancelled half-way, so it needs a deadline of its own. Shutdown ends the wait between two tries
/// and prevents a new one.
pub async fn retry_until_ok<T, E, F, Try>(
    limits: Limits,
    shutdown: &CancellationToken,
    what: &str,
    mut op: F,
) -> Result<T, Unfinished<E>>
where
    E: Error + 'static,
    F: FnMut() -> Try,
    Try: Future<Output = Result<T, Failure<E>>>,
{
    let mut backoff = Backoff::new(limits);
    loop {
        if shutdown.is_cancelled() {
            return Err(Unfinished::Stopped);
        }
        let cause = match op().await {
            Ok(done) => return Ok(done),
            Err(Failure::Permanent(cause)) => return Err(Unfinished::Failed(cause)),
            Err(Failure::Transient(cause)) => cause,
        };
        let Some(delay) = backoff.next_delay() else {
            return Err(Unfinished::Failed(cause));
        };
        tracing::warn!(
            event = "will_retry",
            what,
            cause = causes(&cause),
            next_delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            "{what} failed, trying again"
        );
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = shutdown.cancelled() => return Err(Unfinished::Stopped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::ready;
    use std::sync::atomic::{AtomicBool, Ordering};

    const MS: Duration = Duration::from_millis(1);
    const FAST: Limits = Limits { initial: MS, max: MS, give_up_after: None };

    #[derive(Debug, thiserror::Error)]
    #[error("try {0} failed")]
    struct Nope(u32);

    #[test]
    fn delays_grow_with_jitter_to_the_bound_and_start_over() {
        let limits = Limits { initial: 100 * MS, max: 1000 * MS, give_up_after: None };
        let mut backoff = Backoff::new(limits);
        for round in 0..50 {
            for interval_ms in [100, 200, 400, 800, 1000, 1000] {
                let delay = backoff.next_delay().unwrap();
                assert!(delay >= interval_ms * MS / 2, "{round}: {delay:?} at {interval_ms}");
                assert!(delay <= (interval_ms * MS * 3 / 2).min(limits.max), "{round}: {delay:?} at {interval_ms}");
            }
            backoff.reset();
        }
        let mut first = || {
            backoff.reset();
            backoff.next_delay()
        };
        let one = first();
        assert!((0..50).any(|_| first() != one), "there is jitter");
    }

    #[test]
    fn it_gives_up_when_the_next_delay_would_end_too_late() {
        let mut backoff =
            Backoff::new(Limits { initial: 100 * MS, max: 100 * MS, give_up_after: Some(Duration::from_secs(3600)) });
        assert!(backoff.next_delay().is_some());
        let mut backoff = Backoff::new(Limits { initial: 100 * MS, max: 100 * MS, give_up_after: Some(10 * MS) });
        assert_eq!(backoff.next_delay(), None);
    }

    #[tokio::test]
    async fn it_tries_until_it_succeeds() {
        let mut tries = 0;
        let token = CancellationToken::new();
        let done = retry_until_ok(FAST, &token, "test", || {
            tries += 1;
            ready(if tries < 4 { Err(Failure::Transient(Nope(tries))) } else { Ok(tries) })
        });
        assert_eq!(done.await.unwrap(), 4);
    }

    #[tokio::test]
    async fn a_permanent_failure_and_the_end_of_patience_return_the_cause() {
        let mut tries = 0;
        let token = CancellationToken::new();
        let end = retry_until_ok(FAST, &token, "test", || {
            tries += 1;
            ready(Err::<(), _>(if tries < 3 {
                Failure::Transient(Nope(tries))
            } else {
                Failure::Permanent(Nope(tries))
            }))
        });
        assert!(matches!(end.await, Err(Unfinished::Failed(Nope(3)))));

        let impatient = Limits { give_up_after: Some(Duration::ZERO), ..FAST };
        let end =
            retry_until_ok(impatient, &token, "test", async || -> Result<(), _> { Err(Failure::Transient(Nope(1))) });
        assert!(matches!(end.await, Err(Unfinished::Failed(Nope(1)))));
    }

    #[tokio::test]
    async fn shutdown_ends_the_wait_but_not_a_try_under_way() {
        let hour = Duration::from_secs(3600);
        let slow = Limits { initial: hour, max: hour, give_up_after: None };
        let token = CancellationToken::new();
        let finished = AtomicBool::new(false);
        let end = retry_until_ok(slow, &token, "test", || async {
            token.cancel();
            tokio::task::yield_now().await;
            finished.store(true, Ordering::SeqCst);
            Err::<(), _>(Failure::Transient(Nope(1)))
        });
        assert!(matches!(end.await, Err(Unfinished::Stopped)));
        assert!(finished.load(Ordering::SeqCst));
        let end =
            retry_until_ok(slow, &token, "test", async || -> Result<(), Failure<Nope>> { panic!("must not begin") });
        assert!(matches!(end.await, Err(Unfinished::Stopped)));
    }
}

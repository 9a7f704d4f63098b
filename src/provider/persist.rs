//! Trying again, a little: what only hiccuped should not cost a buyer an error page. What takes longer is the caller's
//! to come back to.

use super::{CallError, Retry};
use crate::retry::{self, Backoff};
use std::time::Duration;
use tokio::time::Instant;

/// How far one call goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Most tries.
    pub(super) tries_max: u32,
    /// How long after the first try's beginning another may begin.
    pub(super) last_try_after: Duration,
    /// The pauses between.
    pub(super) pauses: retry::Limits,
}

impl Patience {
    /// As far as the caller wants to go.
    pub(super) fn of(self, retry: Retry) -> Self {
        match retry {
            Retry::Never => Self { tries_max: 1, ..self },
            Retry::Backoff => self,
        }
    }
}

/// Tries until there is an answer that another try would not change, the tries are used up, or the provider wants to be
/// left alone for longer than we have. One log line a failure that is tried again; the last is returned and not logged.
pub(super) async fn persist<T, F, Try>(patience: Patience, what: &'static str, one_try: F) -> Result<T, CallError>
where
    F: Fn() -> Try,
    Try: Future<Output = Result<T, CallError>>,
{
    let began_at = Instant::now();
    let mut backoff = Backoff::new(patience.pauses);
    let mut tries = 1;
    loop {
        let (error, at_least) = match one_try().await {
            Ok(done) => return Ok(done),
            Err(CallError::Unavailable { detail, retry_after }) => {
                (CallError::Unavailable { detail, retry_after }, retry_after.unwrap_or_default())
            }
            Err(final_one) => return Err(final_one),
        };
        let pause = backoff.next_delay().map(|delay| delay.max(at_least));
        let Some(pause) = pause.filter(|pause| {
            tries < patience.tries_max && began_at.elapsed().saturating_add(*pause) <= patience.last_try_after
        }) else {
            return Err(error);
        };
        tracing::warn!(
            event = "will_retry",
            what,
            cause = %error,
            next_delay_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "{what} failed, trying again"
        );
        // The backoff's pause, or the one that the provider asked for.
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

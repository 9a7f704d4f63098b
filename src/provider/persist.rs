//! Tries again for a short time, so that a brief failure does not show the buyer an error page. If it takes longer, the
//! caller must come back.

use super::{CallError, Retry};
use crate::retry::{self, Backoff};
use std::time::Duration;
use tokio::time::Instant;

/// The limits of one call with all its tries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// The largest number of tries.
    pub(super) tries_max: u32,
    /// How long after the beginning of the first try another one may begin.
    pub(super) last_try_after: Duration,
    /// The pauses between the tries.
    pub(super) pauses: retry::Limits,
}

impl Patience {
    /// The limits that the caller wants.
    pub(super) fn of(self, retry: Retry) -> Self {
        match retry {
            Retry::Never => Self { tries_max: 1, ..self },
            Retry::Backoff => self,
        }
    }
}

/// Tries until another try would not change the answer, the tries are used up, or the provider asks us to wait longer than
/// the limits allow. Each failure that is tried again is one log line. The last failure is returned and not logged.
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
        // The pause is that of the backoff, or the one that the provider asked for.
        tokio::time::sleep(pause).await;
        tries += 1;
    }
}

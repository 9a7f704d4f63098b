//! The time. It is passed in, so that a test can set it.

use std::fmt;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use time::{Duration, OffsetDateTime};

/// A handle to a clock. It is cheap to clone. All clones of a fixed clock show the same time.
#[derive(Clone)]
pub struct Clock {
    source: Source,
    put_forward_ms: Arc<AtomicI64>,
}

#[derive(Clone)]
enum Source {
    System,
    Fixed(Arc<Mutex<OffsetDateTime>>),
}

impl Clock {
    /// The machine's clock, in UTC.
    pub fn system() -> Self {
        Self::from(Source::System)
    }

    /// A clock that stands still until [`Clock::advance`] moves it. For tests and simulations.
    pub fn fixed(at: OffsetDateTime) -> Self {
        Self::from(Source::Fixed(Arc::new(Mutex::new(at))))
    }

    /// The present time of this clock.
    pub fn now(&self) -> OffsetDateTime {
        let shown = match &self.source {
            Source::System => OffsetDateTime::now_utc(),
            Source::Fixed(at) => *hands(at),
        };
        shown + Duration::milliseconds(self.put_forward_ms.load(Ordering::Relaxed))
    }

    /// The same clock without what it was put forward by. From now on it is put forward separately.
    #[must_use]
    pub fn apart(&self) -> Self {
        Self::from(self.source.clone())
    }

    /// Puts the clock forward for all clones, because another clock is ahead by this much. It does nothing if the other
    /// clock is behind.
    pub fn put_forward(&self, by: Duration) {
        let ms = i64::try_from(by.whole_milliseconds()).unwrap_or(0);
        self.put_forward_ms.store(ms.max(0), Ordering::Relaxed);
    }

    /// Moves a fixed clock for all its clones. A negative duration moves it back. The system clock does not move.
    pub fn advance(&self, by: Duration) {
        match &self.source {
            Source::System => {}
            Source::Fixed(at) => {
                let mut at = hands(at);
                *at = at.saturating_add(by);
            }
        }
    }
}

impl From<Source> for Clock {
    fn from(source: Source) -> Self {
        Self { source, put_forward_ms: Arc::default() }
    }
}

/// The hands of a clock are one value, so a panic elsewhere cannot leave them half moved.
fn hands(at: &Mutex<OffsetDateTime>) -> MutexGuard<'_, OffsetDateTime> {
    at.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Source::System => f.write_str("Clock::system()"),
            Source::Fixed(at) => write!(f, "Clock::fixed({})", hands(at)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn a_fixed_clock_moves_for_all_its_clones_and_by_itself_not_at_all() {
        let clock = Clock::fixed(datetime!(2026-01-05 12:00 UTC));
        let clone = clock.clone();
        assert_eq!(clock.now(), datetime!(2026-01-05 12:00 UTC));
        clone.advance(Duration::hours(3));
        assert_eq!(clock.now(), datetime!(2026-01-05 15:00 UTC));
        clock.advance(-Duration::hours(4));
        assert_eq!(clone.now(), datetime!(2026-01-05 11:00 UTC));
    }

    #[test]
    fn a_clock_is_put_forward_for_its_clones_and_never_back() {
        let clock = Clock::fixed(datetime!(2026-01-05 12:00 UTC));
        let apart = clock.apart();
        apart.clone().put_forward(Duration::days(2));
        assert_eq!(apart.now(), datetime!(2026-01-07 12:00 UTC));
        assert_eq!(clock.now(), datetime!(2026-01-05 12:00 UTC));
        apart.put_forward(-Duration::days(2));
        assert_eq!(apart.now(), clock.now());
    }

    #[test]
    fn the_system_clock_runs_and_cannot_be_moved() {
        let clock = Clock::system();
        let before = clock.now();
        clock.advance(Duration::days(400));
        assert!(clock.now() - before < Duration::days(1));
    }
}

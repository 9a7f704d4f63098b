//! Waits for a condition by asking again and again, never for a fixed time.

use std::time::Duration;
use tokio::time::Instant;

/// The longest time that a condition may take on a busy machine. Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` is true. Panics with `what` after a minute.
pub async fn eventually<F>(what: &str, condition: F)
where
    F: AsyncFnMut() -> bool,
{
    eventually_within(PATIENCE, what, condition).await;
}

/// Waits until `condition` is true. Panics with `what` after `patience`.
pub async fn eventually_within<F>(patience: Duration, what: &str, mut condition: F)
where
    F: AsyncFnMut() -> bool,
{
    let until = Instant::now() + patience;
    while !condition().await {
        assert!(Instant::now() < until, "waited {} s in vain until {what}", patience.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

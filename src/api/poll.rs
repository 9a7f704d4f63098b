//! Waits for an order. The answer comes with the next change, at the end of the wait, or when the process stops.

use crate::domain::OrderId;
use crate::http::CONNECTIONS_MAX;
use crate::store::{OrderRead, OrderReader, Store, Watch};
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest wait, in seconds. It is below the idle timeout of usual proxies.
pub const WAIT_SECONDS_MAX: i64 = 30;

/// The most requests that wait at once. It is below the number of connections, so that waiting buyers never block a new
/// order. Above it, a request is answered at once with the present state.
pub const LONG_POLLS_MAX: usize = CONNECTIONS_MAX / 5 * 4;

/// All requests that wait.
#[derive(Clone)]
pub(super) struct Polls {
    watch: Watch,
    reader: OrderReader,
    slots: Arc<Semaphore>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Polls {
    /// Starts the only watch of the process, until `stop`.
    pub(super) fn start(store: Store, reader: OrderReader, metrics: Metrics, stop: CancellationToken) -> Self {
        let watch = Watch::start(store, reader.clone(), stop.clone());
        Self { watch, reader, slots: Arc::new(Semaphore::new(LONG_POLLS_MAX)), metrics, stop }
    }

    /// Reads an order when its version is greater than `since`, or, without `since`, when it is settled. At the end of
    /// the wait, or when the process stops, it returns the last state that it saw. `None` if there is no such order.
    pub(super) async fn order(&self, id: OrderId, since: Option<i64>, wait: Duration) -> OrderRead {
        let Ok(_slot) = self.slots.try_acquire() else {
            return self.reader.order(id).await;
        };
        let _counted = self.metrics.long_poll();
        let deadline = Instant::now() + wait;
        // The subscription begins before the order is read, so that no change is missed. Without `since` the version is
        // unknown: the first check of the watch may read the order once without news.
        let mut changes = self.watch.subscribe(id, since.unwrap_or(0));
        let mut read = self.reader.order(id).await?;
        while let Some(order) = read {
            let is_news = since.map_or_else(|| order.status.is_settled(), |since| order.version > since);
            let Some(changes) = changes.as_mut().filter(|_| !is_news) else { return Ok(Some(order)) };
            read = tokio::select! {
                changed = changes.next(&order) => changed.unwrap_or(Ok(Some(order)))?,
                () = tokio::time::sleep_until(deadline) => return Ok(Some(order)),
                () = self.stop.cancelled() => return Ok(Some(order)),
            };
        }
        Ok(None)
    }
}

//! Waiting for an order: the answer is given as soon as there is news, or the wait is over, or the process stops.

use crate::domain::OrderId;
use crate::http::CONNECTIONS_MAX;
use crate::store::{OrderRead, OrderReader, Store, Watch};
use crate::telemetry::Metrics;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest wait, in seconds: below the idle timeout of the proxies that may stand in front.
pub const WAIT_SECONDS_MAX: i64 = 30;

/// Most requests that wait at once. Below the listener's connections, so that waiting buyers never keep an order from
/// being made; over it, a request is answered at once with what is known.
pub const LONG_POLLS_MAX: usize = CONNECTIONS_MAX / 5 * 4;

/// All that wait.
#[derive(Clone)]
pub(super) struct Polls {
    watch: Watch,
    reader: OrderReader,
    slots: Arc<Semaphore>,
    metrics: Metrics,
    stop: CancellationToken,
}

impl Polls {
    /// Starts the process's one watch, until `stop`.
    pub(super) fn start(store: Store, reader: OrderReader, metrics: Metrics, stop: CancellationToken) -> Self {
        let watch = Watch::start(store, stop.clone());
        Self { watch, reader, slots: Arc::new(Semaphore::new(LONG_POLLS_MAX)), metrics, stop }
    }

    /// Reads an order when its version is past `since`, or, without that, when it is settled. At the end of the wait,
    /// or when the process stops, it is given as it was last seen. `None` when there is no such order.
    pub(super) async fn order(&self, id: OrderId, since: Option<i64>, wait: Duration) -> OrderRead {
        let Ok(_slot) = self.slots.try_acquire() else {
            return self.reader.order(id).await;
        };
        let _counted = self.metrics.long_poll();
        let deadline = Instant::now() + wait;
        // Subscribed before the order is read, so that no change falls between. Without `since` nothing is known of the
        // version yet: the first look of the watch may then wake us for nothing, once.
        let mut changes = self.watch.subscribe(id, since.unwrap_or(0));
        loop {
            let Some(order) = self.reader.order(id).await? else { return Ok(None) };
            let is_news = since.map_or_else(|| order.status.is_settled(), |since| order.version > since);
            let Some(changes) = changes.as_mut().filter(|_| !is_news) else { return Ok(Some(order)) };
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return Ok(Some(order)) },
                () = tokio::time::sleep_until(deadline) => return Ok(Some(order)),
                () = self.stop.cancelled() => return Ok(Some(order)),
            }
        }
    }
}

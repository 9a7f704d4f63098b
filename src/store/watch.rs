//! Telling readers that orders have changed, without a poll for each of them.
//!
//! The worker announces changed orders *after* its commit, in a transaction of its own: `NOTIFY` takes a lock that all
//! notifying transactions of a database share until their commit is on disk, which has no place on the worker's path.
//! An announcement may therefore be lost; a reader's watch also looks by itself once a second.

use super::error::StoreError;
use super::pool::Store;
use crate::domain::OrderId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CHANNEL: &str = "grantonce_orders";

/// Ids in one announcement: 32 hex digits each, and Postgres takes payloads below 8,000 bytes.
const IDS_PER_PAYLOAD: usize = 240;

/// Batches whose announcement may wait; more are dropped, and the once-a-second look finds them.
const ANNOUNCEMENTS_WAITING_MAX: usize = 256;

/// Between two announcements, at least: many small batches then share one. The first after a pause goes at once.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(2);

/// How often a watch looks by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long the listening connection may take to close.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(500);

/// How many orders may be watched in one process.
const WATCHED_MAX: usize = 100_000;

/// The worker's end: takes changed orders and announces them, without ever holding the worker up.
#[derive(Clone, Debug)]
pub struct ChangedOrders {
    queue: mpsc::Sender<Vec<OrderId>>,
}

impl ChangedOrders {
    /// Starts the task that announces; it ends when the last clone is dropped.
    pub fn announce_through(store: Store) -> Self {
        let (queue, mut waiting) = mpsc::channel::<Vec<OrderId>>(ANNOUNCEMENTS_WAITING_MAX);
        tokio::spawn(async move {
            let mut not_before = Instant::now();
            while let Some(mut ids) = waiting.recv().await {
                tokio::time::sleep_until(not_before).await;
                not_before = Instant::now() + ANNOUNCE_EVERY;
                while let Ok(more) = waiting.try_recv() {
                    ids.extend(more);
                }
                if let Err(error) = store.notify(&ids).await {
                    tracing::debug!(event = "announcement_lost", cause = %error, "readers will look by themselves");
                }
            }
        });
        Self { queue }
    }

    /// Queues an announcement; when the queue is full it is dropped.
    pub fn announce(&self, ids: Vec<OrderId>) {
        if !ids.is_empty() && self.queue.try_send(ids).is_err() {
            tracing::debug!(event = "announcement_dropped", "the queue is full; readers will look by themselves");
        }
    }
}

impl Store {
    /// Announces changed orders at once; to be called after the commit.
    pub(super) async fn notify(&self, ids: &[OrderId]) -> Result<(), StoreError> {
        const WHAT: &str = "announcing changed orders";
        for ids in ids.chunks(IDS_PER_PAYLOAD) {
            let mut payload = String::with_capacity(ids.len() * 33);
            for id in ids {
                payload.push_str(id.0.as_simple().encode_lower(&mut Uuid::encode_buffer()));
            }
            self.run(WHAT, move |pool| async move {
                // Nothing is lost that matters if this commit is, so it waits for no disk.
                sqlx::query("SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, $2)")
                    .bind(CHANNEL)
                    .bind(payload)
                    .execute(&mut *pool.connection().await?)
                    .await
                    .map_err(StoreError::sql(WHAT))?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    async fn versions(&self, ids: Vec<Uuid>) -> Result<Vec<(OrderId, i64)>, StoreError> {
        const WHAT: &str = "looking for changed orders";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!("SELECT id, version FROM orders WHERE id = ANY($1)", &ids)
                .fetch_all(&mut *pool.connection().await?)
                .await
                .map_err(StoreError::sql(WHAT))?;
            Ok(rows.into_iter().map(|row| (OrderId(row.id), row.version)).collect())
        })
        .await
    }
}

/// A watched order: wakes its readers by a change of the number.
#[derive(Debug)]
struct Watched {
    wake: watch::Sender<u64>,
    version: i64,
}

/// The readers' end: one a process, however many wait.
#[derive(Clone, Debug)]
pub struct Watch {
    watched: Arc<Mutex<HashMap<OrderId, Watched>>>,
}

fn lock(watched: &Mutex<HashMap<OrderId, Watched>>) -> MutexGuard<'_, HashMap<OrderId, Watched>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Starts the one task that listens and looks, until `stop`.
    pub fn start(store: Store, stop: CancellationToken) -> Self {
        let (watch, store) = (Self { watched: Arc::default() }, store.for_reading());
        tokio::spawn(listen(store.clone(), watch.clone(), stop.clone()));
        tokio::spawn(look(store, watch.clone(), stop));
        watch
    }

    /// Waits for changes of one order. Subscribe first, read the order then, wait last: nothing is missed. `None` when
    /// too many orders are watched already; the caller then answers with what it has.
    pub fn subscribe(&self, id: OrderId, version: i64) -> Option<watch::Receiver<u64>> {
        let mut watched = lock(&self.watched);
        if watched.len() >= WATCHED_MAX && !watched.contains_key(&id) {
            return None;
        }
        let entry = watched.entry(id).or_insert_with(|| Watched { wake: watch::channel(0).0, version });
        // A reader may know less than the watch; then the next look wakes it too.
        entry.version = entry.version.min(version);
        Some(entry.wake.subscribe())
    }

    /// How many orders are watched now.
    pub fn count(&self) -> usize {
        lock(&self.watched).len()
    }

    fn wake(&self, ids: impl Iterator<Item = OrderId>) {
        let watched = lock(&self.watched);
        for id in ids {
            if let Some(order) = watched.get(&id) {
                order.wake.send_modify(|changes| *changes += 1);
            }
        }
    }

    fn changed(&self, versions: &[(OrderId, i64)]) {
        let mut watched = lock(&self.watched);
        for (id, version) in versions {
            if let Some(order) = watched.get_mut(id)
                && order.version < *version
            {
                order.version = *version;
                order.wake.send_modify(|changes| *changes += 1);
            }
        }
    }

    /// Forgets orders that nobody waits for, and names the others.
    fn still_watched(&self) -> Vec<Uuid> {
        let mut watched = lock(&self.watched);
        watched.retain(|_, order| order.wake.receiver_count() > 0);
        watched.keys().map(|id| id.0).collect()
    }
}

async fn listen(store: Store, watch: Watch, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match store.listen(CHANNEL).await {
            Ok(mut listening) => {
                // To stop hearing half-way loses nothing: the connection is closed then.
                while let Some(Some(heard)) = stop.run_until_cancelled(listening.hear()).await {
                    let ids = heard.as_bytes().chunks(32);
                    watch.wake(ids.filter_map(|id| Uuid::try_parse_ascii(id).ok()).map(OrderId));
                }
                listening.close(GOODBYE_DEADLINE).await;
            }
            Err(error) => tracing::debug!(event = "listen_failed", cause = %error),
        }
        // The other task looks meanwhile.
        stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await;
    }
}

async fn look(store: Store, watch: Watch, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK_EVERY);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let ids = watch.still_watched();
        if ids.is_empty() {
            continue;
        }
        match store.versions(ids).await {
            Ok(versions) => watch.changed(&versions),
            Err(error) => tracing::warn!(event = "watch_blind", cause = %error, "cannot look for changed orders"),
        }
    }
}

//! Tells readers that orders have changed, without a poll for each reader.
//!
//! `NOTIFY` takes a lock that all notifying transactions of a database share until their commit is on disk. So a worker with
//! one batch under way announces in the batch's own transaction, which saves a round trip. A worker with several batches under
//! way must not have them wait for each other. It announces *after* the commit, in another transaction, and such an announcement
//! can be lost. Therefore the watch also reads the orders once a second.

use super::error::StoreError;
use super::orders::OrderView;
use super::pool::Store;
use super::reader::{LastRead, OrderRead, OrderReader};
use crate::domain::OrderId;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const CHANNEL: &str = "grantonce_orders";

/// The number of ids in one announcement: each has 32 hex digits, and Postgres accepts payloads below 8,000 bytes.
pub(super) const IDS_PER_PAYLOAD: usize = 240;

/// The number of batches whose announcement may wait. If there are more, they are dropped, and the check of every second
/// finds their orders.
const ANNOUNCEMENTS_WAITING_MAX: usize = 256;

/// The shortest time between two announcements, so that many small batches share one. The first one after a pause is sent at
/// once.
const ANNOUNCE_EVERY: Duration = Duration::from_millis(2);

/// How often a watch reads the orders by itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it may take to close the listening connection.
const GOODBYE_DEADLINE: Duration = Duration::from_millis(500);

/// The largest number of orders that one process watches.
const WATCHED_MAX: usize = 100_000;

/// The worker's side: it takes changed orders and announces them, and it never delays the worker.
#[derive(Clone, Debug)]
pub struct ChangedOrders {
    queue: mpsc::Sender<Vec<OrderId>>,
}

impl ChangedOrders {
    /// Starts the task that announces. It ends when the last clone is dropped.
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
                    tracing::debug!(event = "announcement_lost", cause = %error, "readers find the change with their next check");
                }
            }
        });
        Self { queue }
    }

    /// Queues an announcement. If the queue is full, the announcement is dropped.
    pub fn announce(&self, ids: Vec<OrderId>) {
        if !ids.is_empty() && self.queue.try_send(ids).is_err() {
            tracing::debug!(
                event = "announcement_dropped",
                "the queue is full; readers find the change with their next check"
            );
        }
    }
}

/// The text of an announcement, for at most [`IDS_PER_PAYLOAD`] orders.
pub(super) fn announcement(ids: &[OrderId]) -> String {
    let mut payload = String::with_capacity(ids.len() * 32);
    for id in ids {
        payload.push_str(id.0.as_simple().encode_lower(&mut Uuid::encode_buffer()));
    }
    payload
}

impl Store {
    /// Announces changed orders at once. Call it after the commit.
    pub(super) async fn notify(&self, ids: &[OrderId]) -> Result<(), StoreError> {
        const WHAT: &str = "announcing changed orders";
        for ids in ids.chunks(IDS_PER_PAYLOAD) {
            let payload = announcement(ids);
            self.run(WHAT, move |pool| async move {
                // If this commit is lost, nothing important is lost. So it does not wait for the disk.
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

/// A watched order.
#[derive(Debug)]
struct Watched {
    last_read: LastRead,
    /// The version that is known to everybody who waits. A greater one is read again.
    version: i64,
}

/// The readers' side: there is one for each process, for any number of readers. A change is read once for everybody who waits
/// for the order.
#[derive(Clone, Debug)]
pub struct Watch {
    watched: Arc<Mutex<HashMap<OrderId, Watched>>>,
    reader: OrderReader,
}

/// The changes of one order, for one reader.
#[derive(Debug)]
pub struct Changes(watch::Receiver<Option<OrderRead>>);

impl Changes {
    /// Waits until the order was read after a change. Returns `None` if that will not happen any more. The future may be
    /// dropped half-way.
    pub async fn next(&mut self, known: &OrderView) -> Option<OrderRead> {
        loop {
            self.0.changed().await.ok()?;
            match self.0.borrow_and_update().clone() {
                // Two statements may end in another order than they began.
                Some(Ok(Some(order))) if order.version < known.version => {}
                Some(read) => return Some(read),
                None => {}
            }
        }
    }
}

fn lock(watched: &Mutex<HashMap<OrderId, Watched>>) -> MutexGuard<'_, HashMap<OrderId, Watched>> {
    watched.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Starts the tasks that listen and look, until `stop`.
    pub fn start(store: Store, reader: OrderReader, stop: CancellationToken) -> Self {
        let (watch, store) = (Self { watched: Arc::default(), reader }, store.for_reading());
        tokio::spawn(listen(store.clone(), watch.clone(), stop.clone()));
        tokio::spawn(look(store, watch.clone(), stop));
        watch
    }

    /// Waits for changes of one order. Subscribe first, then read the order, then wait: so no change is missed. `version` is
    /// the version that the reader knows. Returns `None` if too many orders are watched already. The caller then answers with
    /// what it has read.
    pub fn subscribe(&self, id: OrderId, version: i64) -> Option<Changes> {
        let mut watched = lock(&self.watched);
        if watched.len() >= WATCHED_MAX && !watched.contains_key(&id) {
            return None;
        }
        let entry = watched.entry(id).or_insert_with(|| Watched { last_read: watch::channel(None).0, version });
        // A reader may know less than the watch. The next check then reads the order again.
        entry.version = entry.version.min(version);
        Some(Changes(entry.last_read.subscribe()))
    }

    /// The number of orders that are watched now.
    pub fn count(&self) -> usize {
        lock(&self.watched).len()
    }

    /// Reads the announced orders that somebody waits for. If a request finds no room, the next check makes it again.
    fn announced(&self, ids: impl Iterator<Item = OrderId>) {
        let watched = lock(&self.watched);
        for id in ids {
            if let Some(order) = watched.get(&id).filter(|order| order.last_read.receiver_count() > 0) {
                self.reader.read_again(id, &order.last_read);
            }
        }
    }

    fn checked(&self, versions: &[(OrderId, i64)]) {
        let mut watched = lock(&self.watched);
        for (id, version) in versions {
            if let Some(order) = watched.get_mut(id)
                && order.version < *version
                && self.reader.read_again(*id, &order.last_read)
            {
                order.version = *version;
            }
        }
    }

    /// Drops orders that nobody waits for, and returns the ids of the others.
    fn still_watched(&self) -> Vec<Uuid> {
        let mut watched = lock(&self.watched);
        watched.retain(|_, order| order.last_read.receiver_count() > 0);
        watched.keys().map(|id| id.0).collect()
    }
}

async fn listen(store: Store, watch: Watch, stop: CancellationToken) {
    while !stop.is_cancelled() {
        match store.listen(CHANNEL).await {
            Ok(mut listening) => {
                // Listening may be stopped half-way: the connection is closed then, so nothing is lost.
                while let Some(Some(heard)) = stop.run_until_cancelled(listening.hear()).await {
                    let ids = heard.as_bytes().chunks(32);
                    watch.announced(ids.filter_map(|id| Uuid::try_parse_ascii(id).ok()).map(OrderId));
                }
                listening.close(GOODBYE_DEADLINE).await;
            }
            Err(error) => tracing::debug!(event = "listen_failed", cause = %error),
        }
        // The other task checks the orders meanwhile.
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
            Ok(versions) => watch.checked(&versions),
            Err(error) => tracing::warn!(event = "watch_blind", cause = %error, "changed orders cannot be read"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{OrderStatus, PriceTerms};
    use time::OffsetDateTime;

    fn order(version: i64) -> OrderView {
        OrderView {
            id: OrderId(Uuid::nil()),
            account_id: "user-42".to_owned(),
            credits: 500,
            credits_granted: 0,
            amount_minor: 1999,
            currency: "USD".to_owned(),
            price_terms: PriceTerms::Total,
            provider: "stripe".to_owned(),
            provider_account: None,
            payment_id: None,
            status: OrderStatus::AwaitingPayment,
            version,
            last_failure: None,
            metadata: serde_json::Value::Null,
            created_at: OffsetDateTime::UNIX_EPOCH,
            updated_at: OffsetDateTime::UNIX_EPOCH,
        }
    }

    #[tokio::test]
    async fn a_read_that_is_older_than_what_is_known_is_skipped() {
        let (last_read, changes) = watch::channel(None);
        let (mut changes, known) = (Changes(changes), order(2));
        let send = |version| last_read.send(Some(Ok(Some(Arc::new(order(version)))))).unwrap();
        send(1);
        let older = tokio::time::timeout(Duration::from_millis(1), changes.next(&known)).await;
        assert!(older.is_err(), "{older:?}");
        send(3);
        let newer = changes.next(&known).await.unwrap().unwrap().unwrap();
        assert_eq!(newer.version, 3);
        drop(last_read);
        assert!(changes.next(&known).await.is_none(), "no reader reads it any more");
    }
}

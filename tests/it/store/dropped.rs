//! Futures of sqlx that are dropped half-way, by a timeout or by an HTTP client that disconnects.

use super::{key, order_for, patient, terms};
use crate::support::{Proxy, World, captured, event_for, eventually, eventually_within};
use futures_util::future::join_all;
use grantonce::domain::PaymentEvent;
use grantonce::store::{Attach, Outcome, Profile, Settings, Store};
use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

/// Runs a future up to its n-th wait and drops it there. `None` means that it was dropped.
async fn dropped_at_wait<F: Future>(nth: usize, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut waits = 0;
    poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if waits == nth => Poll::Ready(None),
        Poll::Pending => {
            waits += 1;
            Poll::Pending
        }
    })
    .await
}

/// Waits for an operation in one of several ways. Most of them drop it. `None` means that it was dropped.
async fn given_up_in_some_way<T: Send + 'static>(
    n: usize,
    operation: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    match n % 4 {
        0 => Some(operation.await),
        1 => tokio::time::timeout(Duration::from_millis(fastrand::u64(0..=3)), operation).await.ok(),
        2 => dropped_at_wait(n / 4 % 8, operation).await,
        _ => {
            let task = tokio::spawn(operation);
            for _ in 0..n / 4 % 8 {
                tokio::task::yield_now().await;
            }
            task.abort();
            task.await.ok()
        }
    }
}

async fn attach(store: Store, n: usize) -> bool {
    let attached = store.attach_order(key(&format!("key_{n}")), order_for(&format!("pi_{n}"))).await.unwrap();
    assert!(matches!(attached, Attach::Created(_)), "{attached:?}");
    true
}

async fn grant(store: Store, n: usize) -> bool {
    let events: Arc<[PaymentEvent]> = [event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))].into();
    let applied = store.apply(events, terms(), crate::support::APPLYING).await.unwrap();
    applied.outcomes == [Outcome::Applied { granted: true }]
}

/// Runs an operation for each number, ten at a time. Returns the numbers with a reported success.
async fn reported<F>(count: usize, operation: impl Fn(usize) -> F) -> Vec<usize>
where
    F: Future<Output = bool> + Send + 'static,
{
    let mut reported = vec![];
    for first in (0..count).step_by(10) {
        let some = (first..first + 10).map(|n| (n, operation(n)));
        let some = some.map(async |(n, operation)| (n, given_up_in_some_way(n, operation).await));
        let some = join_all(some).await;
        reported.extend(some.into_iter().filter(|(_, done)| *done == Some(true)).map(|(n, _)| n));
    }
    reported
}

async fn missing(world: &World, table: &str, column: &str, wanted: Vec<String>) -> Vec<String> {
    let sql = format!("SELECT w FROM unnest($1::text[]) w WHERE w NOT IN (SELECT {column} FROM {table})");
    sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).bind(wanted).fetch_all(&world.sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_success_that_the_store_reports_is_there_however_many_callers_go_away() {
    const COUNT: usize = 400;
    let world = World::new().await;
    // There are few connections, so each often goes from a caller that disappeared to one that stays.
    let store = patient(&world, 3);

    let attached = reported(COUNT, |n| attach(store.clone(), n)).await;
    assert!(attached.len() >= COUNT / 4, "{} of {COUNT}", attached.len());
    let payments = attached.iter().map(|n| format!("pi_{n}")).collect();
    assert_eq!(missing(&world, "payments", "payment_id", payments).await, [""; 0]);

    let granted = reported(COUNT, |n| grant(store.clone(), n)).await;
    let messages: Vec<_> = granted.iter().map(|n| format!("stripe::evt_{n}")).collect();
    assert!(messages.len() >= COUNT / 8, "{} of {COUNT}", messages.len());
    assert_eq!(missing(&world, "inbox", "message_id", messages.clone()).await, [""; 0]);
    assert_eq!(missing(&world, "credit_grants", "message_id", messages).await, [""; 0]);

    nothing_is_left_open(&world).await;
    world.verify().await;
}

/// The next transaction on the same connection would hide an open transaction, so there is no next one.
#[tokio::test]
async fn a_caller_that_goes_away_leaves_no_transaction_open() {
    let world = World::new().await;
    let store = patient(&world, 1);
    for n in 0..60 {
        let _given_up = dropped_at_wait(n % 12, attach(store.clone(), n)).await;
        nothing_is_left_open(&world).await;
    }
}

#[tokio::test]
async fn a_connection_that_hangs_is_given_up_also_where_its_caller_went_away() {
    let world = World::new().await;
    let (proxy, url) = Proxy::before(&world.database_url).await;
    let common = world.store_settings(Profile::Requests);
    let deadline = Duration::from_secs(1);
    let settings = Settings { url: url.as_str().parse().unwrap(), connections_max: 1, deadline, ..common };
    let store = Store::new(&settings).unwrap();
    store.ping().await.unwrap();
    proxy.go_silent();
    assert!(tokio::time::timeout(deadline / 4, store.ping()).await.is_err(), "there is no answer");
    proxy.let_new_ones_through();
    eventually("another caller has a connection", async || store.ping().await.is_ok()).await;
}

/// Operations of callers that disappeared end by themselves, long before the server's own timeouts.
async fn nothing_is_left_open(world: &World) {
    let soon = Duration::from_secs(20);
    eventually_within(soon, "no transaction is open", async || open_transactions(world).await == 0).await;
}

/// The number of other backends with an open transaction.
async fn open_transactions(world: &World) -> i64 {
    world
        .count(
            "SELECT count(*) FROM pg_stat_activity
             WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'
               AND backend_type = 'client backend'",
        )
        .await
}

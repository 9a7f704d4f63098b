//! Readers of orders share statements, and nothing else.

use super::{apply, batches, patient};
use crate::support::{OrderSpec, Proxy, World, captured, event_for, eventually};
use futures_util::future::join_all;
use grantonce::domain::OrderId;
use grantonce::store::{ChangedOrders, Class, OrderRead, OrderReader, Profile, Settings, Store, Watch};
use sqlx::Connection;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The number of transactions that were committed in the database of the test.
const TRANSACTIONS: &str = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";

/// Closes the store. Returns the number of transactions since there were `before`.
async fn transactions_since(world: &World, store: &Store, before: i64) -> i64 {
    // The counters of a connection are complete at its end, at the latest.
    store.close(Duration::from_secs(20)).await;
    let connected = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'grantonce'";
    eventually("its connections have ended", async || world.count(connected).await == 0).await;
    world.count(TRANSACTIONS).await - before
}

/// A reader with a task of its own.
fn asking(reader: &OrderReader, id: OrderId) -> JoinHandle<OrderRead> {
    let reader = reader.clone();
    tokio::spawn(async move { reader.order(id).await })
}

/// Inserts `count` orders: the first with one credit, the second with two, and so on.
async fn orders(world: &World, count: usize) -> Vec<OrderId> {
    let mut ids = vec![];
    for n in 0..count {
        let payment = format!("pi_{n}");
        ids.push(
            world.order(OrderSpec { credits: i64::try_from(n).unwrap() + 1, ..OrderSpec::paid_by(&payment) }).await,
        );
    }
    ids
}

#[tokio::test]
async fn who_asks_while_others_are_answered_shares_the_next_statement() {
    const ORDERS: usize = 20;
    const EACH: usize = 25;
    let world = World::new().await;
    let ids = orders(&world, ORDERS).await;
    let store = patient(&world, 17);
    let reader = OrderReader::start(&store, 1_000);
    let before = world.count(TRANSACTIONS).await;
    let mut other = sqlx::PgConnection::connect(&world.database_url).await.unwrap();
    let mut in_the_way = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *in_the_way).await.unwrap();

    // Each order many times, and one that does not exist.
    let asked: Vec<_> = ids.repeat(EACH).into_iter().chain([OrderId(uuid::Uuid::now_v7())]).collect();
    let answers: Vec<_> = asked.iter().map(|id| asking(&reader, *id)).collect();
    eventually("a statement waits for the lock", async || world.waiting_for_locks().await > 0).await;
    in_the_way.rollback().await.unwrap();

    for (id, answer) in asked.iter().zip(join_all(answers).await) {
        let order = answer.unwrap().unwrap();
        let number = ids.iter().position(|one| one == id);
        let expected = number.map(|n| (*id, i64::try_from(n).unwrap() + 1));
        assert_eq!(order.map(|order| (order.id, order.credits)), expected);
    }
    let done = transactions_since(&world, &store, before).await;
    assert!(done < i64::try_from(asked.len()).unwrap() / 2, "{done} transactions for {} requests", asked.len());
}

#[tokio::test]
async fn a_row_that_cannot_be_read_fails_alone() {
    let world = World::new().await;
    let ids = orders(&world, 10).await;
    world.execute(&format!(r#"UPDATE orders SET facts = '"no facts"' WHERE id = '{}'"#, ids[3])).await;
    let reader = OrderReader::start(&patient(&world, 8), 1_000);
    let answers = join_all(ids.iter().map(|id| reader.order(*id))).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.is_err(), n == 3, "{n}: {answer:?}");
    }
    assert_eq!(answers[3].as_ref().unwrap_err().class(), Class::Bug);
}

#[tokio::test]
async fn a_change_is_read_once_for_everybody_who_waits() {
    const ORDERS: usize = 50;
    const EACH: usize = 10;
    let world = World::new().await;
    let ids = orders(&world, ORDERS).await;
    let store = patient(&world, 17);
    let reader = OrderReader::start(&store, 1_000);
    let stop = CancellationToken::new();
    let watch = Watch::start(store.clone(), reader.clone(), stop.clone());
    let known = store.orders(&ids).await.unwrap();
    let waiting: Vec<_> = known
        .iter()
        .flat_map(|order| std::iter::repeat_n(order.clone(), EACH))
        .map(|order| {
            let mut changes = watch.subscribe(order.id, order.version).unwrap();
            tokio::spawn(async move { changes.next(&order).await })
        })
        .collect();
    assert_eq!(watch.count(), ORDERS);
    let before = world.count(TRANSACTIONS).await;
    let events: Vec<_> =
        (0..ORDERS).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect();
    let changed = apply(&batches(&world), &events).await.unwrap().changed;
    ChangedOrders::announce_through(store.clone()).announce(changed);

    let read = tokio::time::timeout(Duration::from_secs(20), join_all(waiting)).await.expect("all are answered");
    for (n, read) in read.into_iter().enumerate() {
        let order = read.unwrap().unwrap().unwrap().unwrap();
        assert_eq!((order.id, order.version), (known[n / EACH].id, known[n / EACH].version + 1));
    }
    stop.cancel();
    let done = transactions_since(&world, &store, before).await;
    assert!(done < i64::try_from(ORDERS).unwrap(), "{done} transactions for {ORDERS} changes");
}

#[tokio::test]
async fn a_statement_that_hangs_delays_only_its_own_readers() {
    const DEADLINE: Duration = Duration::from_secs(6);
    let world = World::new().await;
    let ids = orders(&world, 3).await;
    let (proxy, url) = Proxy::before(&world.database_url).await;
    let url = url.as_str().parse().unwrap();
    let settings = Settings { url, deadline: DEADLINE, connections_max: 17, ..world.store_settings(Profile::Requests) };
    let reader = OrderReader::start(&Store::new(&settings).unwrap(), 1_000);

    proxy.go_silent_behind(b"FROM orders o WHERE o.id = ANY");
    let hanging = asking(&reader, ids[0]);
    eventually("the first statement hangs", async || proxy.is_silent()).await;
    proxy.let_new_ones_through();
    for id in &ids[1..] {
        assert!(reader.order(*id).await.unwrap().is_some());
    }
    assert!(!hanging.is_finished());
    assert_eq!(hanging.await.unwrap().unwrap_err().class(), Class::Transient);
    assert!(reader.order(ids[0]).await.unwrap().is_some());
}

#[tokio::test]
async fn a_reader_that_goes_away_takes_nobody_along() {
    let world = World::new().await;
    let ids = orders(&world, 4).await;
    let reader = OrderReader::start(&patient(&world, 17), 1_000);
    let mut other = sqlx::PgConnection::connect(&world.database_url).await.unwrap();
    let mut in_the_way = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *in_the_way).await.unwrap();
    let reading: Vec<_> = ids.iter().map(|id| asking(&reader, *id)).collect();
    eventually("a statement waits for the lock", async || world.waiting_for_locks().await > 0).await;
    reading[0].abort();
    reading[3].abort();
    in_the_way.rollback().await.unwrap();
    let read: Vec<_> = join_all(reading).await.into_iter().map(Result::ok).collect();
    assert!(read[0].is_none() && read[3].is_none());
    for n in [1, 2] {
        let order = read[n].as_ref().unwrap().as_ref().unwrap().as_ref().unwrap();
        assert_eq!(order.id, ids[n]);
    }
}

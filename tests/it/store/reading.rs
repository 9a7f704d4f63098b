//! Readers of orders share statements, and nothing else.

use super::patient;
use crate::support::{OrderSpec, World, eventually};
use futures_util::future::join_all;
use grantonce::domain::OrderId;
use grantonce::store::{Class, OrderReader};
use sqlx::Connection;

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
    let transactions = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
    let world = World::new().await;
    let ids = orders(&world, ORDERS).await;
    let store = patient(&world, 17);
    let reader = OrderReader::start(&store, 1_000);
    let before = world.count(transactions).await;
    let mut other = sqlx::PgConnection::connect(&world.database_url).await.unwrap();
    let mut in_the_way = other.begin().await.unwrap();
    sqlx::query("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").execute(&mut *in_the_way).await.unwrap();

    // Each order many times, and one that does not exist.
    let asked: Vec<_> = ids.repeat(EACH).into_iter().chain([OrderId(uuid::Uuid::now_v7())]).collect();
    let answers: Vec<_> = asked
        .iter()
        .map(|id| {
            let (reader, id) = (reader.clone(), *id);
            tokio::spawn(async move { reader.order(id).await })
        })
        .collect();
    eventually("a statement waits for the lock", async || world.waiting_for_locks().await > 0).await;
    in_the_way.rollback().await.unwrap();

    for (id, answer) in asked.iter().zip(join_all(answers).await) {
        let order = answer.unwrap().unwrap();
        let number = ids.iter().position(|one| one == id);
        let expected = number.map(|n| (*id, i64::try_from(n).unwrap() + 1));
        assert_eq!(order.map(|order| (order.id, order.credits)), expected);
    }
    // The counters of a connection are complete at its end, at the latest.
    store.close(std::time::Duration::from_secs(20)).await;
    let connected = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'grantonce'";
    eventually("its connections have ended", async || world.count(connected).await == 0).await;
    let done = world.count(transactions).await - before;
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

//! Connections that hang: no data comes back, and no error.

use super::{all_granted_once, given_back, is_up, more_grants, publishing, shared_world, start_receiver};
use crate::support::{Answer, OrderSpec, Proxy, World, captured, event_for, eventually, eventually_within, paid};
use grantonce::config::{BrokerConfig, WorkerConfig};
use std::time::{Duration, Instant};

/// The deadline of a transaction in these tests.
const DEADLINE: Duration = Duration::from_secs(4);

/// The configuration of a worker that reaches the database through the proxy.
fn through(world: &World, database_url: &str) -> WorkerConfig {
    let mut config = world.worker_config();
    config.database.url = database_url.parse().unwrap();
    config.transaction_deadline = DEADLINE;
    config
}

#[tokio::test]
async fn a_database_connection_that_hangs_within_a_transaction_does_not_hold_the_worker() {
    let world = shared_world().await;
    let held = world.order(OrderSpec::paid_by("pi_held")).await;
    let (proxy, url) = Proxy::before(&world.database_url).await;
    let worker = world.start_worker_with(through(&world, url.as_str()));
    let traffic = publishing(&world);
    more_grants(&world, 20).await;

    // A transaction waits for this lock when the network fails.
    let mut hold = world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE").bind(held.0).execute(&mut *hold).await.unwrap();
    world.publish(&event_for("pi_held", "evt_held", captured(1999))).await;
    eventually("a transaction waits", async || world.waiting_for_locks().await > 0).await;
    proxy.go_silent();
    hold.rollback().await.unwrap();
    let soon = DEADLINE * 3;
    eventually_within(soon, "the worker returns its deliveries", async || given_back(&worker) > 0).await;
    assert!(!is_up(&worker, "postgres"));

    proxy.let_new_ones_through();
    more_grants(&world, 20).await;
    let sent = traffic.stop().await + 1;
    all_granted_once(&world, worker, sent).await;
    assert_eq!(world.status(held).await, "fulfilled");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_neither_repeated_nor_given_up() {
    let world = shared_world().await;
    let (proxy, url) = Proxy::before(&world.database_url).await;
    let worker = world.start_worker_with(through(&world, url.as_str()));
    let traffic = publishing(&world);
    more_grants(&world, 20).await;

    // The ids of messages are first sent with the call that writes and commits a batch.
    proxy.go_silent_behind(b"stripe::evt_");
    let soon = DEADLINE * 3;
    eventually_within(soon, "the worker returns its deliveries", async || given_back(&worker) > 0).await;
    assert!(proxy.is_silent());
    let known = i64::try_from(worker.metric("grantonce_grants_total")).unwrap();
    assert!(world.grants().await > known, "committed, although the worker cannot know");

    proxy.let_new_ones_through();
    more_grants(&world, 20).await;
    let duplicates = async || worker.metric("grantonce_inbox_duplicates_total") > 0;
    eventually("the committed message returns and counts as a copy", duplicates).await;
    let sent = traffic.stop().await;
    all_granted_once(&world, worker, sent).await;
}

#[tokio::test]
async fn a_worker_notices_that_its_connection_to_the_broker_hangs() {
    let world = shared_world().await;
    let (proxy, mut url) = Proxy::before(&world.amqp_url).await;
    url.set_query(Some("heartbeat=1"));
    let config =
        WorkerConfig { broker: BrokerConfig { url: String::from(url).parse().unwrap() }, ..world.worker_config() };
    let worker = world.start_worker_with(config);
    let traffic = publishing(&world);
    more_grants(&world, 20).await;

    proxy.go_silent();
    let soon = Duration::from_secs(15);
    eventually_within(soon, "the worker notices", async || !is_up(&worker, "rabbitmq")).await;
    proxy.let_new_ones_through();
    more_grants(&world, 20).await;
    assert!(is_up(&worker, "rabbitmq"));
    let sent = traffic.stop().await;
    all_granted_once(&world, worker, sent).await;
}

#[tokio::test]
async fn a_receiver_whose_broker_hangs_says_come_again() {
    let world = shared_world().await;
    let (proxy, url) = Proxy::before(&world.amqp_url).await;
    let (_receiver, poster) = start_receiver(&world, url.as_str()).await;
    assert_eq!(poster.post(&paid(0)).await, Answer::Taken);

    proxy.go_silent();
    // Two at once, one for each connection. The third finds both connections broken.
    let began = Instant::now();
    let (one, two) = (paid(1), paid(2));
    assert_eq!(tokio::join!(poster.post(&one), poster.post(&two)), (Answer::ComeAgain, Answer::ComeAgain));
    assert_eq!(poster.post(&paid(3)).await, Answer::ComeAgain);
    // Providers wait ten seconds. The poster would have panicked.
    assert!(began.elapsed() > Duration::from_secs(1), "they were answered before anything could be known");

    proxy.let_new_ones_through();
    let again: Vec<_> = vec![one, two, paid(3)];
    for webhook in &again {
        eventually("webhooks are accepted again", async || poster.post(webhook).await == Answer::Taken).await;
    }
    // The payments 0 to 3, and the webhook that showed that the receiver is ready.
    let worker = world.start_worker();
    all_granted_once(&world, worker, 5).await;
}

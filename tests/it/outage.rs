//! Outages of Postgres, RabbitMQ and the network between them, under traffic. They delay credits and do nothing else.
//!
//! A test that stops a server has its own server, on the same machine. A test that breaks the network has a proxy.

mod alarm;
mod drain;
mod failover;
mod half_open;
mod postgres;
mod rabbitmq;
mod standby;

use crate::support::{Answer, Poster, PrivateServers, RunningWorker, Traffic, World};
use crate::support::{captured, event_for, eventually, paid};
use grantonce::broker::DEAD_QUEUE;
use grantonce_testkit::children::Child;
use lapin::options::BasicGetOptions;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// The longest time that a process may take to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// The number of orders that a test creates first. Its traffic cannot pay so many.
const ORDERS: usize = 8_000;

/// The time between two webhooks, or messages, of one sender.
const PACE: Duration = Duration::from_millis(20);

/// A world with orders to pay. It uses the servers in `own`, and else the servers that all tests share.
async fn world_on(own: &PrivateServers) -> Arc<World> {
    let own = own.env().await;
    let url = |name: &str| own.get(name).cloned().unwrap_or_else(|| std::env::var(name).unwrap());
    let world = World::on_servers(&url("DATABASE_URL"), &url("AMQP_URL"), &url("GRANTONCE_MANAGEMENT_URL")).await;
    world.orders(ORDERS).await;
    Arc::new(world)
}

/// A world with orders to pay, on the servers that all tests share.
async fn shared_world() -> Arc<World> {
    let world = World::new().await;
    world.orders(ORDERS).await;
    Arc::new(world)
}

/// Publishes one event after the other. Each waits for its confirm.
fn publishing(world: &Arc<World>) -> Traffic {
    let world = Arc::clone(world);
    let event = |n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999));
    Traffic::start(1, PACE, event, move |event| {
        let world = Arc::clone(&world);
        async move { world.try_publish(&event).await.is_ok() }
    })
}

/// Posts one webhook after the other, each until it is accepted. Counts the answers that ask for a retry.
fn posting(poster: &Poster) -> (Traffic, Arc<AtomicUsize>) {
    let (poster, put_off) = (poster.clone(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&put_off);
    let traffic = Traffic::start(4, PACE * 4, paid, move |webhook| {
        let (poster, count) = (poster.clone(), Arc::clone(&count));
        async move {
            match poster.post(&webhook).await {
                Answer::Taken => true,
                Answer::ComeAgain => {
                    count.fetch_add(1, Ordering::Relaxed);
                    false
                }
                Answer::NoConnection => panic!("the receiver is gone"),
            }
        }
    });
    (traffic, put_off)
}

/// A receiver in its own process that has accepted its first webhook. No test expects anything of that payment.
async fn receiver(world: &World) -> (Child, Poster) {
    start_receiver(world, &world.amqp_url).await
}

async fn start_receiver(world: &World, amqp_url: &str) -> (Child, Poster) {
    let children = world.children().env("AMQP_URL", amqp_url);
    let mut receiver = children.start("receiver", &["receiver"]).await.unwrap();
    let poster = Poster::new(receiver.listening("receiver", START).await.unwrap());
    // The traffic never reaches the last order.
    let first = paid(ORDERS - 1);
    eventually("the receiver has its broker", async || poster.post(&first).await == Answer::Taken).await;
    (receiver, poster)
}

/// The number of deliveries that the worker has returned, by its metrics, for any cause.
fn given_back(worker: &RunningWorker) -> u64 {
    ["database_outage", "outcome_unknown", "publish_failed", "connection_lost", "shutdown"]
        .iter()
        .map(|cause| worker.metric(&format!("grantonce_deliveries_given_back_total{{cause=\"{cause}\"}}")))
        .sum()
}

fn is_up(worker: &RunningWorker, dependency: &str) -> bool {
    worker.metric(&format!("grantonce_dependency_up{{dependency=\"{dependency}\"}}")) == 1
}

/// Waits until `more` further orders have their grant.
async fn more_grants(world: &World, more: i64) {
    let before = world.grants().await;
    eventually("work continues", async || world.grants().await >= before + more).await;
}

/// Checks that every sent event is granted once, and that no message and no dead letter is left.
async fn all_granted_once(world: &World, worker: RunningWorker, sent: i64) {
    eventually("all is granted", async || world.grants().await >= sent).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (sent, sent));
    assert_eq!(world.count("SELECT sum(credits)::bigint FROM account_balances").await, 100 * sent);
    assert_eq!(world.ready(DEAD_QUEUE).await, 0, "dead letters");
    world.verify().await;
}

/// A message that waits in a queue.
#[derive(Debug)]
struct Ready {
    message_id: String,
    /// How often the message was returned before.
    delivery_count: i64,
}

/// Looks at waiting messages and returns them. The broker counts that.
async fn look_into(world: &World, queue: &str, count_max: usize) -> Vec<Ready> {
    let connection = lapin::Connection::connect(&world.amqp_url, Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut all = vec![];
    while all.len() < count_max
        && let Some(got) = channel.basic_get(queue.into(), BasicGetOptions::default()).await.unwrap()
    {
        let properties = &got.delivery.properties;
        let count = properties.headers().as_ref().and_then(|headers| headers.inner().get("x-delivery-count"));
        all.push(Ready {
            message_id: properties.message_id().as_ref().unwrap().to_string(),
            delivery_count: count.map_or(0, |count| count.as_long_long_int().expect("a long long int")),
        });
    }
    connection.close(200, "done".into()).await.unwrap();
    all
}

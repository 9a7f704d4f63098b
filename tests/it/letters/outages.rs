//! Whoever dies in the middle of a collection or a replay: no letter is lost, no grant doubled.

use super::{OPS_TOKEN, paid, preview, replay};
use crate::support::await_::eventually_within;
use crate::support::servers::{PrivateServers, Server};
use crate::support::world::World;
use bytes::Bytes;
use grantonce::broker::{DEAD_EXCHANGE, DEAD_QUEUE, Headers, Outgoing};
use grantonce::message::encode;
use grantonce::sim::children::Child;
use grantonce::store::{LetterFilter, ReplayPace};
use std::ops::Range;
use std::time::Duration;

const START: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(60);

/// The role in a process of its own, that can be killed.
async fn ops(world: &World, name: &str) -> Child {
    let children = world.children().env("GRANTONCE_OPS_ADDR", "127.0.0.1:0");
    let children = children.env("GRANTONCE_OPS_TOKENS", format!("ada:{OPS_TOKEN}"));
    children.start(name, &["ops"]).await.unwrap()
}

async fn world_on(own: &PrivateServers) -> World {
    let own = own.env().await;
    let url = |name: &str| own.get(name).cloned().unwrap_or_else(|| std::env::var(name).unwrap());
    World::on_servers(&url("DATABASE_URL"), &url("AMQP_URL"), &url("GRANTONCE_MANAGEMENT_URL")).await
}

/// Letters in the broker's buffer, confirmed.
async fn buffered(world: &World, numbers: Range<usize>) {
    let letters = numbers.map(|n| {
        let event = paid(&format!("pi_{n}"), &format!("evt_{n}"));
        world.publish_raw(Outgoing {
            exchange: DEAD_EXCHANGE,
            routing_key: "payment.stripe".to_owned(),
            message_id: event.message_id.as_str().to_owned(),
            kind: "payment-status.v1".to_owned(),
            content_type: "application/json",
            headers: Headers::default(),
            body: Bytes::from(encode(&event)),
        })
    });
    futures_util::future::join_all(letters).await;
}

async fn collected(world: &World) -> i64 {
    world.count("SELECT count(*) FROM dead_letters").await
}

#[tokio::test]
async fn ops_killed_again_and_again_while_it_collects_and_replays_loses_and_doubles_nothing() {
    let world = World::new().await;
    buffered(&world, 0..1_500).await;
    let mut collector = ops(&world, "collector-1").await;
    eventually_within(START, "it collects", async || collected(&world).await > 0).await;
    collector.kill().await.unwrap();
    let mut collector = ops(&world, "collector-2").await;
    eventually_within(PATIENCE, "all are collected", async || collected(&world).await == 1_500).await;

    world.orders(1_500).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    assert_eq!(letters.len(), 1_500);
    let id = replay(&store, letters, ReplayPace::Steady).await.unwrap();
    let worker = world.start_worker();
    let sent = "SELECT count(*) FROM replay_letters WHERE state <> 'queued'";
    for (n, reached) in [200, 700].into_iter().enumerate() {
        eventually_within(PATIENCE, "it replays", async || world.count(sent).await >= reached).await;
        collector.kill().await.unwrap();
        // What it had claimed waits for its lease else; nobody wants to wait for that here.
        world
            .execute("UPDATE replay_letters SET claimed_at = claimed_at - interval '1 minute' WHERE state = 'queued'")
            .await;
        collector = ops(&world, &format!("replayer-{n}")).await;
    }
    eventually_within(PATIENCE, "the replay ends", async || {
        store.replay(id).await.unwrap().unwrap().ended_at.is_some()
    })
    .await;
    collector.terminate(START).await.unwrap();
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await, world.ready(DEAD_QUEUE).await), (1_500, 1_500, 0));
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'resolved'").await, 1_500);
    world.verify().await;
}

#[tokio::test]
async fn postgres_crashed_while_letters_are_collected_and_replayed_costs_delay_only() {
    let own = PrivateServers::start(Server::Postgres).await;
    let world = world_on(&own).await;
    buffered(&world, 0..1_000).await;
    let mut child = ops(&world, "ops").await;
    eventually_within(START, "it collects", async || collected(&world).await > 0).await;
    own.crash(Server::Postgres).await;
    buffered(&world, 1_000..1_200).await;
    own.up(Server::Postgres).await;
    eventually_within(PATIENCE, "all are collected", async || collected(&world).await == 1_200).await;
    eventually_within(PATIENCE, "the buffer is empty", async || world.ready(DEAD_QUEUE).await == 0).await;

    world.orders(1_200).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    let id = replay(&store, letters, ReplayPace::Steady).await.unwrap();
    let worker = world.start_worker();
    let sent = "SELECT count(*) FROM replay_letters WHERE state <> 'queued'";
    eventually_within(PATIENCE, "it replays", async || world.count(sent).await >= 100).await;
    own.crash(Server::Postgres).await;
    own.up(Server::Postgres).await;
    world
        .execute("UPDATE replay_letters SET claimed_at = claimed_at - interval '1 minute' WHERE state = 'queued'")
        .await;
    eventually_within(PATIENCE, "the replay ends", async || {
        store.replay(id).await.is_ok_and(|replay| replay.unwrap().ended_at.is_some())
    })
    .await;
    assert!(child.try_ended().unwrap().is_none(), "{}", child.tail());
    child.terminate(START).await.unwrap();
    world.settled(worker).await;
    assert_eq!(world.grants().await, 1_200);
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'resolved'").await, 1_200);
    world.verify().await;
}

#[tokio::test]
async fn the_broker_crashed_while_letters_are_collected_and_replayed_costs_delay_only() {
    let own = PrivateServers::start(Server::Rabbitmq).await;
    let world = world_on(&own).await;
    buffered(&world, 0..1_000).await;
    let mut child = ops(&world, "ops").await;
    eventually_within(START, "it collects", async || collected(&world).await > 0).await;
    own.crash(Server::Rabbitmq).await;
    own.up(Server::Rabbitmq).await;
    eventually_within(PATIENCE, "all are collected", async || collected(&world).await == 1_000).await;

    world.orders(1_000).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    let id = replay(&store, letters, ReplayPace::Steady).await.unwrap();
    let worker = world.start_worker();
    let sent = "SELECT count(*) FROM replay_letters WHERE state <> 'queued'";
    eventually_within(PATIENCE, "it replays", async || world.count(sent).await >= 100).await;
    own.crash(Server::Rabbitmq).await;
    own.up(Server::Rabbitmq).await;
    world
        .execute("UPDATE replay_letters SET claimed_at = claimed_at - interval '1 minute' WHERE state = 'queued'")
        .await;
    eventually_within(PATIENCE, "the replay ends", async || {
        store.replay(id).await.unwrap().unwrap().ended_at.is_some()
    })
    .await;
    assert!(child.try_ended().unwrap().is_none(), "{}", child.tail());
    child.terminate(START).await.unwrap();
    world.settled(worker).await;
    assert_eq!(world.grants().await, 1_000);
    world.verify().await;
}

//! A process or server that crashes during a collection or a replay loses no dead letter and doubles no grant.

use super::{START, letter_of, ops_child, paid, preview, replay};
use crate::support::servers::{PrivateServers, Server};
use crate::support::world::World;
use grantonce::broker::DEAD_QUEUE;
use grantonce::store::{LetterFilter, ReplayPace};
use grantonce_testkit::wait::eventually_within;
use std::ops::Range;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// Counts the dead letters of replays that do not wait to be sent any more.
const SENT: &str = "SELECT count(*) FROM replay_letters WHERE state <> 'queued'";

/// A dead letter that a crashed process has claimed waits until its lease ends. These tests do not wait for that.
const LEASES_PASS: &str =
    "UPDATE replay_letters SET claimed_at = claimed_at - interval '1 minute' WHERE state = 'queued'";

async fn world_on(own: &PrivateServers) -> World {
    let own = own.env().await;
    let url = |name: &str| own.get(name).cloned().unwrap_or_else(|| std::env::var(name).unwrap());
    World::on_servers(&url("DATABASE_URL"), &url("AMQP_URL"), &url("GRANTONCE_MANAGEMENT_URL")).await
}

/// Publishes dead letters to the broker's buffer, and waits for the confirms.
async fn buffered(world: &World, numbers: Range<usize>) {
    let letters = numbers.map(|n| world.publish_raw(letter_of(&paid(&format!("pi_{n}"), &format!("evt_{n}")))));
    futures_util::future::join_all(letters).await;
}

async fn collected(world: &World) -> i64 {
    world.count("SELECT count(*) FROM dead_letters").await
}

#[tokio::test]
async fn ops_killed_again_and_again_while_it_collects_and_replays_loses_and_doubles_nothing() {
    let world = World::new().await;
    buffered(&world, 0..1_500).await;
    let mut collector = ops_child(&world, "collector-1").await;
    eventually_within(START, "it collects", async || collected(&world).await > 0).await;
    collector.kill().await.unwrap();
    let mut collector = ops_child(&world, "collector-2").await;
    eventually_within(PATIENCE, "all are collected", async || collected(&world).await == 1_500).await;

    world.orders(1_500).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    assert_eq!(letters.len(), 1_500);
    let id = replay(&store, letters, ReplayPace::Steady).await.unwrap();
    let worker = world.start_worker();
    for (n, reached) in [200, 700].into_iter().enumerate() {
        eventually_within(PATIENCE, "it replays", async || world.count(SENT).await >= reached).await;
        collector.kill().await.unwrap();
        world.execute(LEASES_PASS).await;
        collector = ops_child(&world, &format!("replayer-{n}")).await;
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

/// An operator's transaction on one row stays open. Only the copies of that dead letter wait.
#[tokio::test]
async fn o04_a_letter_whose_row_is_locked_holds_up_no_other() {
    let world = World::new().await;
    let events: Vec<_> = (0..20).map(|n| paid(&format!("pi_{n}"), &format!("evt_{n}"))).collect();
    world.publish_raw(letter_of(&events[0])).await;
    let ops = super::RunningOps::start(&world);
    eventually_within(START, "it is collected", async || collected(&world).await == 1).await;
    let mut holder = world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM dead_letters FOR UPDATE").execute(&mut *holder).await.unwrap();
    for (few, count) in [(0..10, 10), (10..20, 20)] {
        futures_util::future::join_all(events[few].iter().map(|event| world.publish_raw(letter_of(event)))).await;
        eventually_within(START, "the others are collected", async || collected(&world).await == count).await;
    }
    let copies = "SELECT seen::bigint FROM dead_letters WHERE message_id LIKE '%evt_0'";
    assert_eq!(world.count(copies).await, 1);
    holder.rollback().await.unwrap();
    eventually_within(PATIENCE, "the copy counts", async || world.count(copies).await == 2).await;
    ops.stop().await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
    assert_eq!(world.count("SELECT sum(seen)::bigint FROM dead_letters").await, 21);
}

#[tokio::test]
async fn postgres_crashed_while_letters_are_collected_and_replayed_costs_delay_only() {
    crashed_while_letters_move(Server::Postgres).await;
}

#[tokio::test]
async fn the_broker_crashed_while_letters_are_collected_and_replayed_costs_delay_only() {
    crashed_while_letters_move(Server::Rabbitmq).await;
}

/// Crashes a server in the middle of a collection, and again in the middle of a replay.
async fn crashed_while_letters_move(server: Server) {
    let own = PrivateServers::start(server).await;
    let world = world_on(&own).await;
    buffered(&world, 0..1_000).await;
    let mut child = ops_child(&world, "ops").await;
    eventually_within(START, "it collects", async || collected(&world).await > 0).await;
    own.crash(server).await;
    let all = match server {
        // The broker still accepts dead letters.
        Server::Postgres => {
            buffered(&world, 1_000..1_200).await;
            1_200
        }
        Server::Rabbitmq => 1_000,
    };
    own.up(server).await;
    eventually_within(PATIENCE, "all are collected", async || collected(&world).await == all).await;
    eventually_within(PATIENCE, "the buffer is empty", async || world.ready(DEAD_QUEUE).await == 0).await;

    world.orders(usize::try_from(all).unwrap()).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    let id = replay(&store, letters, ReplayPace::Steady).await.unwrap();
    let worker = world.start_worker();
    eventually_within(PATIENCE, "it replays", async || world.count(SENT).await >= 100).await;
    own.crash(server).await;
    own.up(server).await;
    world.execute(LEASES_PASS).await;
    eventually_within(PATIENCE, "the replay ends", async || {
        store.replay(id).await.is_ok_and(|replay| replay.unwrap().ended_at.is_some())
    })
    .await;
    assert!(child.try_ended().unwrap().is_none(), "{}", child.tail());
    child.terminate(START).await.unwrap();
    eventually_within(PATIENCE, "all are granted", async || world.grants().await == all).await;
    // A broker that has just started again may lose acknowledgements. Their messages come back, and the inbox knows them.
    worker.drain().await;
    world.settled(world.start_worker()).await;
    assert_eq!(world.grants().await, all);
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'resolved'").await, all);
    world.verify().await;
}

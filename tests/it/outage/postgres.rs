//! Postgres is away for a long time, and for moments.

use super::{all_granted_once, given_back, is_up, look_into, more_grants, posting, publishing, receiver, world_on};
use crate::support::{PrivateServers, Server, eventually};
use grantonce::broker::WORK_QUEUE;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

#[tokio::test]
async fn half_a_minute_without_postgres_costs_delay_only() {
    let servers = PrivateServers::start(Server::Postgres).await;
    let world = world_on(&servers).await;
    let (_receiver, poster) = receiver(&world).await;
    let worker = world.start_worker();
    let (traffic, put_off) = posting(&poster);
    more_grants(&world, 20).await;

    let began = Instant::now();
    servers.down(Server::Postgres).await;
    eventually("the worker returns its deliveries", async || given_back(&worker) > 0).await;
    assert!(began.elapsed() > Duration::from_secs(9), "it held them for {:?}", began.elapsed());
    assert!(!is_up(&worker, "postgres"));
    let (first_return, taken) = (given_back(&worker), traffic.taken());

    // The test needs an outage of this length.
    sleep_until(began + Duration::from_secs(28)).await;
    let ready = look_into(&world, WORK_QUEUE, 3).await;
    assert!(!ready.is_empty() && ready.iter().all(|message| message.delivery_count == 1), "returned once: {ready:?}");
    sleep_until(began + Duration::from_secs(30)).await;
    assert!(traffic.taken() > taken + 50, "the receiver accepts webhooks without Postgres");
    servers.up(Server::Postgres).await;

    more_grants(&world, 1).await;
    let sent = traffic.stop().await + 1;
    eventually("the waiting payments are granted", async || world.grants().await == sent).await;
    assert_eq!(given_back(&worker), first_return, "nothing was returned again");
    assert_eq!(put_off.load(Ordering::Relaxed), 0, "no webhook was put off");
    assert!(is_up(&worker, "postgres"));
    all_granted_once(&world, worker, sent).await;
}

#[tokio::test]
async fn five_moments_without_postgres_give_nothing_back() {
    let servers = PrivateServers::start(Server::Postgres).await;
    let world = world_on(&servers).await;
    let mut settings = world.worker_config();
    // Much longer than two seconds and the time that a busy machine needs to stop and start a server.
    settings.outage_grace = Duration::from_secs(25);
    let worker = world.start_worker_with(settings);
    let traffic = publishing(&world);
    more_grants(&world, 20).await;
    for round in 0..5 {
        if round % 2 == 0 {
            servers.down(Server::Postgres).await
        } else {
            servers.crash(Server::Postgres).await
        }
        // The test needs an outage of this length.
        sleep(Duration::from_secs(2)).await;
        servers.up(Server::Postgres).await;
        more_grants(&world, 1).await;
        assert_eq!(given_back(&worker), 0, "round {round}");
    }
    let sent = traffic.stop().await;
    eventually("the waiting payments are granted", async || world.grants().await == sent).await;
    assert_eq!(given_back(&worker), 0);
    all_granted_once(&world, worker, sent).await;
}

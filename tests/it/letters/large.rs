//! Many dead letters. Too slow for every run:
//! `cargo test --release --features failpoints --test it letters::large -- --ignored --nocapture`

use super::{RunningOps, ada, letter_of, ops_child, paid, preview, unknown_payments};
use crate::support::messages::{captured, event_for};
use crate::support::world::World;
use bytes::Bytes;
use grantonce::broker::{DEAD_QUEUE, Outgoing};
use grantonce::store::{LetterFilter, NewReplay, ReplayPace};
use grantonce_testkit::wait::eventually_within;
use std::sync::Arc;
use std::time::{Duration, Instant};
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(300);

#[tokio::test]
#[ignore = "takes minutes"]
async fn ten_thousand_letters_replayed_by_two_operators_at_once_under_traffic() {
    let world = Arc::new(World::new().await);
    unknown_payments(&world, 10_000).await;
    world.orders(30_000).await;
    let store = world.store();

    let began = Instant::now();
    let page = store.letters(LetterFilter::default(), None, 100).await.unwrap();
    let listed = began.elapsed();
    let began = Instant::now();
    let groups = store.letter_groups(LetterFilter::default()).await.unwrap();
    println!(
        "of 10,000 letters: a page of {} in {listed:?}, {} groups in {:?}",
        page.letters.len(),
        groups.len(),
        began.elapsed()
    );

    let worker = world.start_worker();
    let stop = CancellationToken::new();
    let (traffic, traffic_world) = (stop.clone(), Arc::clone(&world));
    let traffic = tokio::spawn(async move {
        let mut sent = 0_i64;
        while !traffic.is_cancelled() && sent < 20_000 {
            let payment = format!("pi_{}", 10_000 + sent);
            traffic_world.publish(&event_for(&payment, &format!("live_{sent}"), captured(1999))).await;
            sent += 1;
        }
        sent
    });
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    assert_eq!(letters.len(), 10_000);
    let began = Instant::now();
    let (one, two) = (RunningOps::start(&world), RunningOps::start(&world));
    let press = |store: grantonce::store::Store| {
        let replay = NewReplay {
            letters: letters.clone(),
            selection: LetterFilter::default(),
            per_s_max: 1_000,
            pace: ReplayPace::Canary,
            by: ada(),
            reason: "all of them".to_owned(),
            now: OffsetDateTime::now_utc(),
        };
        async move { store.begin_replay(replay).await.unwrap() }
    };
    let (first, second) = tokio::join!(press(world.store()), press(world.store()));
    println!("the two operators took {first:?} and {second:?}");
    eventually_within(PATIENCE, "all are resolved", async || {
        world.count("SELECT count(*) FROM dead_letters WHERE state <> 'resolved'").await == 0
    })
    .await;
    println!("10,000 letters replayed and resolved in {:?}", began.elapsed());
    stop.cancel();
    let sent = traffic.await.unwrap();
    one.stop().await;
    two.stop().await;
    world.settled(worker).await;
    println!("live traffic meanwhile: {sent} payments");
    assert_eq!((world.grants().await, world.admitted().await), (10_000 + sent, 10_000 + sent));
    assert_eq!(world.count("SELECT count(*) FROM replay_letters").await, 10_000);
    world.verify().await;
}

#[tokio::test]
#[ignore = "takes minutes"]
async fn a_flood_of_a_hundred_thousand_letters_neither_stops_the_workers_nor_fills_memory() {
    const LETTERS: usize = 100_000;
    let world = Arc::new(World::new().await);
    world.orders(5_000).await;
    let mut child = ops_child(&world, "ops").await;
    let status = format!("/proc/{}/status", child.pid().unwrap());
    let peak_kib = || -> u64 {
        let status = std::fs::read_to_string(&status).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    };
    let worker = world.start_worker();
    let began = Instant::now();
    let flood = Arc::clone(&world);
    let flooding = tokio::spawn(async move {
        let letter = Outgoing {
            routing_key: "payment.acme".to_owned(),
            body: Bytes::from(vec![b'x'; 2_000]),
            ..letter_of(&paid("pi", "evt"))
        };
        for chunk in 0..LETTERS / 1_000 {
            let letters = (0..1_000)
                .map(|n| flood.publish_raw(Outgoing { message_id: format!("acme:{chunk}:{n}"), ..letter.clone() }));
            futures_util::future::join_all(letters).await;
        }
    });
    let granting = Instant::now();
    for chunk in 0..50 {
        let events: Vec<_> = (0..100)
            .map(|n| chunk * 100 + n)
            .map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999)))
            .collect();
        world.publish_all(&events).await;
    }
    eventually_within(PATIENCE, "all payments are granted", async || world.grants().await == 5_000).await;
    println!("5,000 payments granted in {:?} while letters flooded in", granting.elapsed());
    flooding.await.unwrap();
    println!("{LETTERS} letters published in {:?}", began.elapsed());
    let all = i64::try_from(LETTERS).unwrap();
    eventually_within(PATIENCE, "all are collected", async || {
        world.count("SELECT count(*) FROM dead_letters").await == all
    })
    .await;
    println!("and collected in {:?}; ops used at most {} MiB", began.elapsed(), peak_kib() / 1024);
    eventually_within(PATIENCE, "the buffer is empty", async || world.ready(DEAD_QUEUE).await == 0).await;
    let began = Instant::now();
    let groups = world.store().letter_groups(LetterFilter::default()).await.unwrap();
    println!("{} groups of 100,000 in {:?}", groups.len(), began.elapsed());
    assert!(child.try_ended().unwrap().is_none());
    child.terminate(Duration::from_secs(20)).await.unwrap();
    world.settled(worker).await;
}

//! SIGTERM to real processes in the middle of their work.

use super::{START, all_granted_once, look_into, receiver, shared_world};
use crate::support::{Answer, Poster, World, captured, event_for, eventually, paid};
use futures_util::future::join_all;
use grantonce::broker::{Consumer, WORK_QUEUE, Window};
use grantonce_testkit::children::Child;
use std::collections::HashSet;
use std::time::Duration;
use tokio::time::Instant;

/// The longest time that a role may take to end.
const DRAIN: Duration = Duration::from_secs(10);

/// The numbers of the webhooks that wait before the test. Webhooks that are posted until the receiver ends are numbered from 0.
const BACKLOG: std::ops::Range<usize> = 4_000..7_000;

/// Posts every `step`-th webhook until the receiver ends. Returns the accepted ones.
async fn until_gone(poster: Poster, first: usize, step: usize) -> Vec<usize> {
    let mut taken = vec![];
    for n in (first..BACKLOG.start).step_by(step) {
        match poster.post(&paid(n)).await {
            Answer::Taken => taken.push(n),
            Answer::ComeAgain => {}
            Answer::NoConnection => return taken,
        }
    }
    panic!("the receiver outlived the traffic");
}

async fn terminated(child: &mut Child) {
    let status = child.terminate(DRAIN).await.unwrap();
    assert_eq!(status.code(), Some(0), "{status}\n{}", child.tail());
}

async fn admitted(world: &World) -> HashSet<String> {
    let ids: Vec<String> = sqlx::query_scalar("SELECT message_id FROM inbox").fetch_all(&world.sql).await.unwrap();
    ids.into_iter().collect()
}

/// A consumer with ten deliveries that nobody has taken yet.
async fn consumer_of_ten(world: &World) -> Consumer {
    let events: Vec<_> = (0..10).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect();
    world.publish_all(&events).await;
    let url = world.amqp_url.parse().unwrap();
    let window = Window { deliveries_max: 100, bytes_max: 1 << 20 };
    let consumer = Consumer::open(&url, "test", WORK_QUEUE, window, |_| {}).await.unwrap();
    eventually("the deliveries are under way", async || world.ready(WORK_QUEUE).await == 0).await;
    consumer
}

/// Takes deliveries until the consumer reports its end.
async fn take_to_the_end(mut consumer: Consumer) -> usize {
    let mut all = vec![];
    let until_end = async {
        let mut batch = vec![];
        // The wait for a batch is so long that the end comes during it.
        while consumer.fill(&mut batch, 100, Instant::now() + START / 2).await.unwrap().is_some() {
            all.append(&mut batch);
        }
    };
    tokio::time::timeout(START * 2, until_end).await.expect("the consumer reports its end");
    consumer.close().await;
    all.len()
}

#[tokio::test]
async fn a_consumer_tells_its_end_behind_its_last_delivery() {
    let world = World::new().await;
    let mut consumer = consumer_of_ten(&world).await;
    consumer.cancel();
    assert_eq!(take_to_the_end(consumer).await, 10);
}

#[tokio::test]
async fn a_consumer_that_the_broker_cancels_tells_that_behind_its_last_delivery() {
    let world = World::new().await;
    let consumer = consumer_of_ten(&world).await;
    let connection = lapin::Connection::connect(&world.amqp_url, Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(WORK_QUEUE.into(), Default::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(take_to_the_end(consumer).await, 10);
}

#[tokio::test]
async fn roles_that_are_told_to_stop_finish_what_they_have_in_hand() {
    let world = shared_world().await;
    let (mut receiver, poster) = receiver(&world).await;
    let backlog: Vec<_> = BACKLOG.map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect();
    world.publish_all(&backlog).await;
    let mut worker = world.children().start("worker", &["worker"]).await.unwrap();
    worker.consuming(START).await.unwrap();
    let senders = join_all((0..8).map(|n| tokio::spawn(until_gone(poster.clone(), n, 8))));

    eventually("both roles are busy", async || world.grants().await >= 300).await;
    tokio::join!(terminated(&mut worker), terminated(&mut receiver));
    let taken: Vec<usize> = senders.await.into_iter().flat_map(Result::unwrap).collect();
    assert!(taken.len() > 8, "{} webhooks were accepted", taken.len());

    let admitted = admitted(&world).await;
    let waiting = look_into(&world, WORK_QUEUE, usize::MAX).await;
    // The broker may assign messages to a consumer while it is canceled. They never reach it, and return once.
    assert!(waiting.iter().all(|message| message.delivery_count <= 1), "returned again and again");
    // On a fast machine the worker may have handled all of them. The checks below hold in both cases.
    let waiting: HashSet<String> = waiting.into_iter().map(|message| message.message_id).collect();
    let twice: Vec<_> = admitted.intersection(&waiting).collect();
    assert!(twice.is_empty(), "both committed and returned: {twice:?}");
    let sent = taken.into_iter().chain(BACKLOG).map(|n| format!("stripe::evt_{n}"));
    let lost: Vec<_> = sent.filter(|id| !admitted.contains(id) && !waiting.contains(id)).collect();
    assert!(lost.is_empty(), "{lost:?}");

    let all = i64::try_from(admitted.len() + waiting.len()).unwrap();
    let worker = world.start_worker();
    all_granted_once(&world, worker, all).await;
}

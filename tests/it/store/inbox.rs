//! The partitions of the inbox are created ahead of time and dropped when they are old, while batches continue.

use super::{apply, batches};
use crate::support::{OrderSpec, World, captured, event_for, eventually};
use futures_util::future::join_all;
use grantonce::domain::{FactId, PaymentEvent, PaymentStatus, RefundState};
use grantonce::store::{Outcome, Store};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use time::{Duration, OffsetDateTime};

const RETENTION: Duration = Duration::days(90);

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn days_from_now(days: i64) -> OffsetDateTime {
    now() + Duration::days(days)
}

/// A payment, as an event of another day.
fn paid_on(payment: &str, message: &str, days: i64) -> PaymentEvent {
    PaymentEvent { occurred_at: days_from_now(days), ..event_for(payment, message, captured(1999)) }
}

/// The partition that contains the row of a message.
async fn partition_of(world: &World, message: &str) -> String {
    sqlx::query_scalar("SELECT tableoid::regclass::text FROM inbox WHERE message_id = $1")
        .bind(format!("stripe::{message}"))
        .fetch_one(&world.sql)
        .await
        .unwrap()
}

fn own_partition(days: i64) -> String {
    let day = days_from_now(days).date();
    format!("inbox_{:04}{:02}{:02}", day.year(), u8::from(day.month()), day.day())
}

#[tokio::test]
async fn an_event_of_any_day_is_admitted_and_its_copy_known() {
    let world = World::new().await;
    let store = batches(&world);
    let days = [-20_000, -200, -1, 0, 7, 10, 400];
    world.orders(days.len()).await;
    let events: Vec<_> =
        days.iter().enumerate().map(|(n, days)| paid_on(&format!("pi_{n}"), &format!("evt_{n}"), *days)).collect();
    let granted = vec![Outcome::Applied { granted: true }; days.len()];
    assert_eq!(apply(&store, &events).await.unwrap().outcomes, granted);
    assert_eq!(apply(&store, &events).await.unwrap().outcomes, vec![Outcome::Duplicate; days.len()]);
    assert_eq!(partition_of(&world, "evt_1").await, "inbox_other");
    assert_eq!(partition_of(&world, "evt_3").await, own_partition(0));
    world.verify().await;
}

#[tokio::test]
async fn rows_of_a_day_that_gets_its_partition_late_move_into_it_and_old_ones_go() {
    let world = World::new().await;
    world.orders(3).await;
    let store = batches(&world);
    let events = [paid_on("pi_0", "late", 10), paid_on("pi_1", "old", -200), paid_on("pi_2", "today", 0)];
    apply(&store, &events).await.unwrap();
    assert_eq!(partition_of(&world, "late").await, "inbox_other");

    let done = store.maintain_inbox(days_from_now(5), RETENTION).await.unwrap();
    assert_eq!((done.made, done.dropped), (5, 0), "8 to 12 days from now are new");
    assert_eq!(partition_of(&world, "late").await, own_partition(10));
    assert_eq!(apply(&store, &events[..1]).await.unwrap().outcomes, [Outcome::Duplicate]);
    assert_eq!(world.count("SELECT count(*) FROM inbox WHERE message_id = 'stripe::old'").await, 0);
    assert_eq!(partition_of(&world, "today").await, own_partition(0));

    // The 14 partitions from yesterday to 12 days from now are all past. The days 99 to 107 from now are new.
    let done = store.maintain_inbox(days_from_now(100 + 5), RETENTION).await.unwrap();
    assert_eq!((done.made, done.dropped), (9, 14));
    assert_eq!(world.admitted().await, 0);
    // The inbox has forgotten the messages, and the order still knows them.
    let again = apply(&store, &events).await.unwrap().outcomes;
    assert_eq!(again, vec![Outcome::Applied { granted: false }; 3]);
    assert_eq!(world.grants().await, 3);
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_several_that_look_after_the_inbox_at_once_one_does() {
    let world = World::new().await;
    let stores: Vec<Store> = (0..4).map(|_| batches(&world)).collect();
    for round in 1..=10 {
        let day = days_from_now(9 * round);
        let all = join_all(stores.iter().map(|store| store.maintain_inbox(day, RETENTION))).await;
        let made: i32 = all.into_iter().map(|done| done.unwrap().made).sum();
        assert_eq!(made, 9, "round {round}");
    }
}

/// Applies batches whose rows go to partitions of days and to the default partition. Half of the messages are copies.
async fn batch_after_batch(store: Store, n: usize, done: &AtomicUsize, is_over: &AtomicBool) {
    let mut before: Vec<PaymentEvent> = vec![];
    while !is_over.load(Ordering::Relaxed) {
        let round = done.load(Ordering::Relaxed);
        let mut events: Vec<_> = (0..20)
            .map(|m| paid_on(&format!("pi_{m}"), &format!("evt_{n}_{round}_{m}"), [0, 3, 9, 14, 30][m % 5]))
            .collect();
        let new = events.clone();
        events.extend(before);
        let began = std::time::Instant::now();
        apply(&store, &events).await.unwrap();
        let took = began.elapsed();
        assert!(took < std::time::Duration::from_secs(4), "a batch was held up for {took:?}");
        before = new;
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_go_on_while_partitions_are_made_and_dropped() {
    let world = World::new().await;
    world.orders(20).await;
    let (done, is_over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let traffic = join_all((0..3).map(|n| batch_after_batch(batches(&world), n, &done, &is_over)));
    let keeper = async {
        let store = batches(&world);
        for day in 0..40 {
            let seen = done.load(Ordering::Relaxed);
            let kept = store.maintain_inbox(days_from_now(day), Duration::days(1)).await.unwrap();
            assert!(day == 0 || kept.made == 1, "day {day}: {kept:?}");
            eventually("batches continue", async || done.load(Ordering::Relaxed) > seen).await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    tokio::join!(traffic, keeper);
    world.verify().await;
}

/// The number of sequential scans of the inbox's tables. Backends report them when they end.
async fn whole_reads(world: &World) -> i64 {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                  AND application_name = 'grantonce'";
    eventually("the store's connections are closed", async || world.count(others).await == 0).await;
    world.count("SELECT coalesce(sum(seq_scan), 0)::bigint FROM pg_stat_user_tables WHERE relname LIKE 'inbox%'").await
}

/// The server's own counters show how the statements read.
#[tokio::test]
async fn neither_admitting_nor_pruning_reads_a_whole_partition() {
    let world = World::new().await;
    world.orders(200).await;
    let close = async |store: Store| store.close(std::time::Duration::from_secs(5)).await;
    let store = batches(&world);
    store.maintain_inbox(now(), RETENTION).await.unwrap();
    close(store).await;
    let before = whole_reads(&world).await;

    let store = batches(&world);
    let day = |n: usize| [-200, -1, 0, 3, 30][n % 5];
    let events: Vec<_> = (0..200).map(|n| paid_on(&format!("pi_{n}"), &format!("evt_{n}"), day(n))).collect();
    for _ in 0..3 {
        // New messages, and copies whose digests are read.
        apply(&store, &events).await.unwrap();
    }
    let kept = store.maintain_inbox(now(), RETENTION).await.unwrap();
    assert_eq!((kept.made, kept.dropped), (0, 0));
    close(store).await;
    assert_eq!(whole_reads(&world).await - before, 0, "an inbox table was read from end to end");
    assert_eq!(world.admitted().await, 160, "the messages of 200 days ago are pruned");
}

/// Every partition, with a day or the default one, created by the migration or later, finds the messages of an order by the index.
#[tokio::test]
async fn an_orders_messages_are_found_by_an_index_in_every_partition() {
    let world = World::new().await;
    let store = batches(&world);
    store.maintain_inbox(days_from_now(30), RETENTION).await.unwrap();
    let (parts, indexed): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = 'inbox'::regclass),
                (SELECT count(*) FROM pg_inherits WHERE inhparent = 'inbox_order_id'::regclass)",
    )
    .fetch_one(&world.sql)
    .await
    .unwrap();
    assert!(parts > 15 && parts == indexed, "{indexed} of {parts} partitions have the index");
    world
        .execute(
            "INSERT INTO inbox SELECT current_date, 'm' || n, '', gen_random_uuid(), now(), 'captured'
             FROM generate_series(1, 20000) n; ANALYZE inbox;",
        )
        .await;
    // The query of `explain`.
    let mut tx = world.sql.begin().await.unwrap();
    sqlx::query("SET LOCAL enable_seqscan = off").execute(&mut *tx).await.unwrap();
    const BY_ORDER: &str = "EXPLAIN SELECT * FROM inbox WHERE order_id = '019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f'";
    let plan: Vec<String> = sqlx::query_scalar(BY_ORDER).fetch_all(&mut *tx).await.unwrap();
    tx.rollback().await.unwrap();
    let today = own_partition(0);
    assert!(plan.iter().any(|line| line.contains(&format!("Bitmap Index Scan on {today}_order_id_idx"))), "{plan:#?}");
}

/// The same answer to a later question is the same message. It reports the same status for a later time.
#[tokio::test]
async fn an_answer_that_is_repeated_is_a_copy_and_begins_no_batch_anew() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let store = batches(&world);
    let refund = || PaymentStatus::Refund {
        refund_id: FactId::new("re_1").unwrap(),
        state: RefundState::Pending,
        money: super::dollars(1999),
    };
    let answered = |seconds| PaymentEvent {
        as_of: Some(now() + Duration::seconds(seconds)),
        ..event_for("pi_1", "asked", refund())
    };
    let (first, later) = (answered(-20), answered(-10));
    let paid = event_for("pi_1", "evt_1", captured(1999));
    assert_eq!(apply(&store, &[paid, first]).await.unwrap().outcomes.len(), 2);
    let rolled_back = "SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()";
    let before = world.count(rolled_back).await;
    assert_eq!(apply(&store, &[later]).await.unwrap().outcomes, [Outcome::Duplicate]);
    assert_eq!(world.count(rolled_back).await, before, "no transaction was rolled back");
    world.verify().await;
}

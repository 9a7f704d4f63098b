//! From the broker's buffer to rows: any message is stored once, with a sensible reason.

use super::{RunningOps, START, all_letters, letter_of, ops_child, paid, the_letter};
use crate::support::world::{OrderSpec, World};
use bytes::Bytes;
use grantonce::broker::{DEAD_QUEUE, DELIVERY_LIMIT, Headers, Outgoing, WORK_QUEUE};
use grantonce::message::{ORIGIN_HEADER, REASON_HEADER};
use grantonce_testkit::wait::eventually;
use lapin::options::{BasicGetOptions, BasicNackOptions};

/// A dead letter with this id, kind and body.
fn strange(message_id: &str, kind: &str, body: Vec<u8>) -> Outgoing {
    let (message_id, kind, body) = (message_id.to_owned(), kind.to_owned(), Bytes::from(body));
    Outgoing { message_id, kind, body, ..letter_of(&paid("pi_1", "evt_1")) }
}

#[tokio::test]
async fn what_a_worker_refuses_is_collected_with_its_reason_and_its_order() {
    let world = World::new().await;
    let order = world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_1") }).await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    world.publish(&paid("pi_1", "evt_1")).await;
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!((letter.reason.as_str(), letter.origin.as_str()), ("amount_mismatch", "worker"));
    assert_eq!((letter.order_id, letter.account_id.as_deref()), (Some(order), Some("acc")));
    assert_eq!(letter.said.as_deref(), Some("captured 19.99 USD"));
    assert_eq!((letter.attempts, letter.seen), (1, 1));
    let whole = store.letter(letter.id).await.unwrap().unwrap();
    assert!(whole.body.unwrap().starts_with(b"{\"provider\":\"stripe\""));
    eventually("it is gone from the broker", async || world.ready(DEAD_QUEUE).await == 0).await;
    assert!(ops.metrics.render().contains("grantonce_letters_collected_total 1"));
    ops.stop().await;
    worker.drain().await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0, "it was acknowledged");
}

#[tokio::test]
async fn the_broker_holds_a_letter_until_its_row_is_committed() {
    let world = World::new().await;
    for n in 0..3 {
        world.publish_raw(letter_of(&paid(&format!("pi_{n}"), &format!("evt_{n}")))).await;
    }
    eventually("all are in the buffer", async || world.ready(DEAD_QUEUE).await == 3).await;
    world
        .execute(
            "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
             CREATE TRIGGER wait_here BEFORE INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION wait_here()",
        )
        .await;
    let mut blocking = world.sql.begin().await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_xact_lock(1)").execute(&mut *blocking).await.unwrap();
    let mut collector = ops_child(&world, "collector").await;
    eventually("the collector is about to write them", async || world.waiting_for_locks().await > 0).await;
    eventually("the collector holds all of them", async || world.ready(DEAD_QUEUE).await == 0).await;
    collector.kill().await.unwrap();
    eventually("the broker notices", async || world.consumers(DEAD_QUEUE).await == 0).await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 3, "none was acknowledged before it was stored");
    blocking.rollback().await.unwrap();

    let mut collector = ops_child(&world, "its-successor").await;
    let store = world.store();
    eventually("all are stored", async || all_letters(&store).await.len() == 3).await;
    collector.terminate(START).await.unwrap();
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
}

#[tokio::test]
async fn copies_of_a_letter_are_one_row() {
    let world = World::new().await;
    let event = paid("pi_1", "evt_1");
    for _ in 0..3 {
        world.publish_raw(letter_of(&event)).await;
    }
    let ops = RunningOps::start(&world);
    let store = world.store();
    eventually("all are counted", async || all_letters(&store).await.iter().any(|letter| letter.seen == 3)).await;
    let letter = the_letter(&store).await;
    assert_eq!((letter.reason.as_str(), letter.origin.as_str()), ("unexplained", "publisher"));
    ops.stop().await;
}

#[tokio::test]
async fn whatever_a_stranger_sends_becomes_a_row_and_holds_nobody_up() {
    let world = World::new().await;
    let nasty = "a\u{0}b\"<script>\u{202e}";
    let mut headers = Headers::default();
    headers.set_text(REASON_HEADER, nasty);
    headers.set_text(ORIGIN_HEADER, "worker");
    headers.set_text(nasty, nasty);
    headers.set_integer("x-grantonce-replay", -7);
    headers.set_integer("x-grantonce-attempt", i64::MAX);
    let odd = Outgoing { routing_key: nasty.to_owned(), headers, ..strange(nasty, nasty, vec![0, 255, 1, 2]) };
    world.publish_raw(odd).await;
    world.publish_raw(strange("", "", vec![])).await;
    world.publish_raw(strange("big", "x", vec![b'x'; 3 * 1024 * 1024])).await;
    world.publish_raw(strange("last", "webhook.nobody", b"{}".to_vec())).await;
    let ops = RunningOps::start(&world);
    let store = world.store();
    eventually("all are stored", async || all_letters(&store).await.len() == 4).await;
    let letters = all_letters(&store).await;
    assert!(letters.iter().all(|letter| letter.reason == "unexplained"), "{letters:#?}");
    let big = letters.iter().find(|letter| letter.message_id == "big").unwrap();
    let big = store.letter(big.id).await.unwrap().unwrap();
    assert_eq!((big.body.unwrap().len(), big.body_bytes), (1024 * 1024, 3 * 1024 * 1024));
    ops.stop().await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
}

#[tokio::test]
async fn what_the_broker_gave_up_is_tried_once_more_by_itself() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    world.publish(&paid("pi_1", "evt_1")).await;
    // A consumer takes the message again and again, and never settles it.
    let (connection, channel) = world.channel().await;
    for _ in 0..=DELIVERY_LIMIT {
        let mut tag = None;
        eventually("the message is there again", async || {
            let got = channel.basic_get(WORK_QUEUE.into(), BasicGetOptions { no_ack: false }).await.unwrap();
            tag = got.map(|got| got.delivery.delivery_tag);
            tag.is_some()
        })
        .await;
        channel.basic_nack(tag.unwrap(), BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    }
    eventually("the broker makes it a dead letter", async || world.ready(DEAD_QUEUE).await == 1).await;
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(world.grants().await, 0);

    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!((letter.reason.as_str(), letter.origin.as_str()), ("delivery_limit", "broker"));
    let letter = super::until(&store, letter.id, "resolved").await;
    assert_eq!(world.grants().await, 1);
    assert_eq!((letter.row.replays, letter.history.len()), (1, 1));
    assert_eq!(letter.history[0].actor, "grantonce");
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'replay.begin' AND actor = 'grantonce'";
    assert_eq!(world.count(audited).await, 1);
    ops.stop().await;
    worker.drain().await;
    world.verify().await;
}

#[tokio::test]
async fn what_fails_again_after_the_brokers_limit_is_not_tried_again() {
    let world = World::new().await;
    let store = world.store();
    // The collector stores this row in the same way. The rest is the same as in the test above.
    world.publish_raw(letter_of(&paid("pi_1", "evt_1"))).await;
    let ops = RunningOps::start(&world);
    let letter = the_letter(&store).await;
    ops.stop().await;
    world.execute("UPDATE dead_letters SET reason = 'delivery_limit', origin = 'broker'").await;

    // No order has this payment. After its retries the message returns with another reason.
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    eventually("it returned", async || {
        let letter = store.letter(letter.id).await.unwrap().unwrap();
        letter.row.reason == "unknown_payment" && letter.row.state.name() == "open"
    })
    .await;
    let letter = store.letter(letter.id).await.unwrap().unwrap();
    assert_eq!((letter.row.replays, letter.history[0].state.as_str()), (1, "dead_again"));
    eventually("its automatic replay has ended", async || store.replays_under_way().await.unwrap().is_empty()).await;
    assert!(store.letters_never_retried(10).await.unwrap().is_empty());
    ops.stop().await;
    worker.drain().await;
}

#[tokio::test]
async fn a_relays_malformed_message_arrives_with_the_worker_s_words() {
    let world = World::new().await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let body = Bytes::from_static(b"{\"provider\": 7}");
    world.publish_raw(Outgoing { body, ..Outgoing::payment_status(&paid("pi_1", "evt_1")).unwrap() }).await;
    let letter = the_letter(&world.store()).await;
    assert_eq!((letter.reason.as_str(), letter.origin.as_str()), ("malformed", "worker"));
    assert!(letter.detail.contains("provider"), "{}", letter.detail);
    ops.stop().await;
    worker.drain().await;
}

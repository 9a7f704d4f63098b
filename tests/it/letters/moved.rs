//! "Move messages" of the management pages, and shovels. They publish through the default exchange with the name of the queue as
//! routing key, and keep the old properties and headers.

use super::{RunningOps, all_letters, ended, paid, replay, the_letter, until};
use crate::support::world::{OrderSpec, World};
use grantonce::broker::{DEAD_QUEUE, DELIVERY_LIMIT, Headers, Outgoing, WORK_QUEUE};
use grantonce::domain::{LetterId, Provider};
use grantonce::message::{ORIGIN_HEADER, REASON_HEADER, ROUTING_KEY_HEADER};
use grantonce::store::{LetterFilter, ReplayPace, Store};
use grantonce_testkit::wait::eventually;
use lapin::options::{
    BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions,
};
use lapin::types::FieldTable;

const PARKING: &str = "parking";

/// Moves the messages of a queue to another queue, as a shovel does.
async fn move_messages(world: &World, from: &str, to: &str) {
    let (connection, channel) = world.channel().await;
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(PARKING.into(), durable, FieldTable::default()).await.unwrap();
    let mut moved = 0;
    while let Some(got) = channel.basic_get(from.into(), BasicGetOptions { no_ack: false }).await.unwrap() {
        let delivery = got.delivery;
        let options = BasicPublishOptions::default();
        let sent = channel.basic_publish("".into(), to.into(), options, &delivery.data, delivery.properties.clone());
        assert!(matches!(sent.await.unwrap().await.unwrap(), lapin::Confirmation::Ack(None)));
        delivery.ack(Default::default()).await.unwrap();
        moved += 1;
    }
    connection.close(200, "done".into()).await.unwrap();
    assert!(moved > 0, "nothing was in {from}");
}

/// The routing key that a replay of the dead letter uses.
async fn key_of(store: &Store, id: LetterId) -> String {
    store.letter(id).await.unwrap().unwrap().routing_key
}

/// Replays all dead letters, and waits until each is resolved.
async fn replay_all(world: &World) {
    let store = world.store();
    let ids: Vec<_> = all_letters(&store).await.iter().map(|letter| letter.id).collect();
    let id = replay(&store, ids.clone(), ReplayPace::Steady).await.unwrap();
    ended(&store, id).await;
    for id in ids {
        until(&store, id, "resolved").await;
    }
}

#[tokio::test]
async fn o15_a_letter_that_was_moved_away_and_back_can_be_replayed() {
    let world = World::new().await;
    let (worker, event) = (world.start_worker(), paid("pi_1", "evt_1"));
    world.publish(&event).await;
    eventually("the dead letter is there", async || world.ready(DEAD_QUEUE).await == 1).await;
    move_messages(&world, DEAD_QUEUE, PARKING).await;
    move_messages(&world, PARKING, DEAD_QUEUE).await;
    let ops = RunningOps::start(&world);
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!(
        (letter.reason.as_str(), key_of(&store, letter.id).await.as_str()),
        ("unknown_payment", "payment.stripe")
    );
    assert!(letter.detail.contains("moved here by hand"), "{}", letter.detail);
    // The same dead letter without the move is the same row.
    world.publish(&event).await;
    eventually("its copy is counted", async || all_letters(&store).await.iter().any(|letter| letter.seen == 2)).await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    replay_all(&world).await;
    assert_eq!(world.grants().await, 1);
    ops.stop().await;
    worker.drain().await;
    world.verify().await;
}

/// Returns a message until the broker makes a dead letter of it.
async fn exhaust(world: &World) {
    let (connection, channel) = world.channel().await;
    for _ in 0..=DELIVERY_LIMIT {
        let got = channel.basic_get(WORK_QUEUE.into(), BasicGetOptions { no_ack: false }).await.unwrap();
        let Some(got) = got else { break };
        got.delivery.nack(BasicNackOptions { requeue: true, multiple: false }).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
    eventually("the broker made it a dead letter", async || world.ready(DEAD_QUEUE).await == 1).await;
}

#[tokio::test]
async fn o15_what_the_broker_gave_up_can_be_replayed_after_it_was_moved() {
    for way in [&[PARKING, DEAD_QUEUE][..], &[WORK_QUEUE], &[PARKING, WORK_QUEUE]] {
        let world = World::new().await;
        world.order(OrderSpec::paid_by("pi_1")).await;
        world.publish(&paid("pi_1", "evt_1")).await;
        exhaust(&world).await;
        let mut from = DEAD_QUEUE;
        for to in way {
            move_messages(&world, from, to).await;
            from = to;
        }
        let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
        let store = world.store();
        let letter = the_letter(&store).await;
        assert_eq!(key_of(&store, letter.id).await, "payment.stripe", "{way:?}: {letter:?}");
        assert!(letter.detail.contains("moved here by hand"), "{way:?}: {}", letter.detail);
        assert_eq!(world.grants().await, 0, "no operator has vouched for it yet");
        replay_all(&world).await;
        assert_eq!(world.grants().await, 1, "{way:?}");
        ops.stop().await;
        worker.drain().await;
    }
}

#[tokio::test]
async fn o15_messages_that_were_parked_during_an_outage_can_be_replayed() {
    let world = World::new().await;
    world.orders(3).await;
    for n in 0..3 {
        world.publish(&paid(&format!("pi_{n}"), &format!("evt_{n}"))).await;
    }
    move_messages(&world, WORK_QUEUE, PARKING).await;
    move_messages(&world, PARKING, WORK_QUEUE).await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let store = world.store();
    eventually("all are dead letters", async || store.count_letters(LetterFilter::default()).await.unwrap() == 3).await;
    replay_all(&world).await;
    assert_eq!(world.grants().await, 3);
    ops.stop().await;
    worker.drain().await;
    world.verify().await;
}

/// The relay of `acme` publishes this and tries to speak for Stripe.
fn forged(kind: Option<&str>, headers: &[(&str, &str)]) -> Outgoing {
    let mut message = Outgoing::payment_status(&paid("pi_1", "evt_1")).unwrap();
    message.routing_key = format!("payment.{}", Provider::new("acme").unwrap());
    message.kind = kind.map_or(message.kind, str::to_owned);
    message.headers = Headers::default();
    headers.iter().for_each(|(name, text)| message.headers.set_text(name, text));
    message
}

#[tokio::test]
async fn o15_a_relay_gains_nothing_by_a_move() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let headers =
        [(ROUTING_KEY_HEADER, "payment.stripe"), (ORIGIN_HEADER, "worker"), (REASON_HEADER, "unknown_payment")];
    let message = forged(None, &headers);
    world.publish_raw(message.clone()).await;
    move_messages(&world, WORK_QUEUE, PARKING).await;
    move_messages(&world, PARKING, WORK_QUEUE).await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let store = world.store();
    the_letter(&store).await;
    worker.drain().await;
    world.publish_raw(message).await;
    move_messages(&world, WORK_QUEUE, PARKING).await;
    move_messages(&world, PARKING, DEAD_QUEUE).await;
    let seen_twice = async || all_letters(&store).await.iter().any(|letter| letter.seen == 2);
    eventually("both are the same dead letter", seen_twice).await;
    let letter = the_letter(&store).await;
    assert!(letter.detail.contains("moved here by hand") && letter.detail.contains("vouches"), "{}", letter.detail);
    assert_eq!(world.grants().await, 0);
    ops.stop().await;
}

#[tokio::test]
async fn a_relay_cannot_pass_a_message_off_as_a_webhook_that_was_verified() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let mut message = forged(Some("webhook.stripe"), &[(ORIGIN_HEADER, "receiver")]);
    message.body = serde_json::json!({
        "id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "created": 1_767_600_000, "livemode": false,
        "api_version": "2025-01-27.acacia",
        "data": {"object": {"id": "pi_1", "object": "payment_intent", "amount": 1999, "amount_received": 1999,
            "currency": "usd", "status": "succeeded", "metadata": {}}},
    })
    .to_string()
    .into();
    message.message_id = "stripe::evt_1".to_owned();
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    world.publish_raw(message).await;
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!(letter.kind, "webhook.stripe");
    assert_eq!(key_of(&store, letter.id).await, "payment.acme");
    let id = replay(&store, vec![letter.id], ReplayPace::Steady).await;
    if let Some(id) = id {
        ended(&store, id).await;
    }
    let looked = super::preview(&store, LetterFilter::default()).await;
    assert_eq!((looked.all.len(), looked.helpful.len()), (1, 0), "{looked:?}");
    assert_eq!(world.grants().await, 0);
    ops.stop().await;
    worker.drain().await;
}

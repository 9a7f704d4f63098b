//! One payment belongs to one order, and one key to one request, even if several callers ask at the same time.

use super::{apply, batches, key, order_for, patient};
use crate::support::{OrderSpec, World, captured, event_for, eventually};
use futures_util::future::join_all;
use grantonce::domain::{OrderId, PaymentEvent, PaymentId, Reason};
use grantonce::store::{Attach, Outcome};

async fn owner_of(world: &World, payment: &str) -> OrderId {
    let owner: uuid::Uuid = sqlx::query_scalar("SELECT order_id FROM payments WHERE payment_id = $1")
        .bind(payment)
        .fetch_one(&world.sql)
        .await
        .unwrap();
    OrderId(owner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_a_hundred_keys_for_one_payment_one_makes_the_order() {
    let world = World::new().await;
    let store = patient(&world, 16);
    let calls = (0..100).map(|n| {
        let store = store.clone();
        tokio::spawn(async move { store.attach_order(key(&format!("key_{n}")), order_for("pi_1")).await.unwrap() })
    });
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let created: Vec<_> = answers.iter().filter(|answer| matches!(answer, Attach::Created(_))).collect();
    let [Attach::Created(created)] = created[..] else { panic!("{created:?}") };
    assert_eq!(answers.iter().filter(|answer| **answer == Attach::PaymentTaken).count(), 99);
    assert_eq!(owner_of(&world, "pi_1").await, created.id);
    assert_eq!(world.count("SELECT count(*) FROM orders").await, 1, "a refused request leaves no order");
    assert_eq!(world.count("SELECT count(*) FROM idempotency_keys").await, 1, "nor a key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_key_a_hundred_times_makes_one_order_and_repeats_its_answer() {
    let world = World::new().await;
    let store = patient(&world, 16);
    let calls = (0..100).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { store.attach_order(key("key"), order_for("pi_1")).await.unwrap() })
    });
    let answers: Vec<_> = join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let first = answers.iter().find_map(|answer| if let Attach::Created(it) = answer { Some(it) } else { None });
    let first = first.unwrap();
    assert_eq!(answers.iter().filter(|answer| matches!(answer, Attach::Created(_))).count(), 1);
    let replayed = answers.iter().filter(|answer| matches!(answer, Attach::Replayed(it) if it.id == first.id));
    assert_eq!(replayed.count(), 99);
    assert_eq!(world.count("SELECT count(*) FROM orders").await, 1);
}

/// A payment of a named order. No payment with this id is registered yet.
fn unheard_of(order: OrderId, payment: &str) -> PaymentEvent {
    PaymentEvent { order_id: Some(order), ..event_for(payment, &format!("evt_{payment}_{order}"), captured(1999)) }
}

fn is_conflict(outcomes: &[Outcome]) -> bool {
    matches!(outcomes, [Outcome::Refused(refusal)] if refusal.reason == Reason::PaymentConflict)
}

#[tokio::test]
async fn a_worker_that_comes_second_to_the_api_refuses_the_payment() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_own")).await;
    // This transaction registers the payment as `attach_order` does, and waits before its commit.
    let rival = world.order(OrderSpec::paid_by("pi_other")).await;
    let mut api = world.sql.begin().await.unwrap();
    sqlx::query(
        "INSERT INTO payments (provider, payment_id, order_id, registered_at) VALUES ('stripe', 'pi_1', $1, now())",
    )
    .bind(rival.0)
    .execute(&mut *api)
    .await
    .unwrap();
    let store = batches(&world);
    let worker = tokio::spawn(async move { apply(&store, &[unheard_of(order, "pi_1")]).await });
    eventually("the worker waits", async || world.waiting_for_locks().await == 1).await;
    api.commit().await.unwrap();
    let applied = worker.await.unwrap().unwrap();
    assert!(is_conflict(&applied.outcomes), "{:?}", applied.outcomes);
    assert_eq!((world.grants().await, world.admitted().await), (0, 0));
    assert_eq!(owner_of(&world, "pi_1").await, rival);
}

#[tokio::test]
async fn whoever_comes_second_to_a_worker_is_refused_the_payment() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_own")).await;
    let rival = world.order(OrderSpec::paid_by("pi_other")).await;
    // This lock stops the first worker after it has registered the payment.
    let mut hold = world.sql.begin().await.unwrap();
    sqlx::query("LOCK TABLE credit_grants IN SHARE MODE").execute(&mut *hold).await.unwrap();
    let (store, second, api) = (batches(&world), batches(&world), patient(&world, 1));
    let first = tokio::spawn(async move { apply(&store, &[unheard_of(order, "pi_1")]).await });
    eventually("the first worker holds the payment", async || world.waiting_for_locks().await == 1).await;

    let by_related_id = PaymentEvent {
        related_ids: vec![PaymentId::new("pi_1").unwrap()],
        ..event_for("pi_other", "evt_related", captured(1999))
    };
    let second = tokio::spawn(async move { apply(&second, &[by_related_id]).await });
    let api = tokio::spawn(async move { api.attach_order(key("key"), order_for("pi_1")).await });
    eventually("both others wait", async || world.waiting_for_locks().await == 3).await;
    hold.rollback().await.unwrap();

    assert_eq!(first.await.unwrap().unwrap().outcomes, [Outcome::Applied { granted: true }]);
    let second = second.await.unwrap().unwrap();
    assert!(is_conflict(&second.outcomes), "{:?}", second.outcomes);
    assert_eq!(api.await.unwrap().unwrap(), Attach::PaymentTaken);
    assert_eq!(owner_of(&world, "pi_1").await, order);
    assert_eq!(world.status(rival).await, "awaiting_payment");
    assert_eq!((world.grants().await, world.admitted().await), (1, 1));
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_for_a_payment_has_one_winner() {
    let world = World::new().await;
    let (worker, api) = (batches(&world), patient(&world, 2));
    for n in 0..60 {
        let order = world.order(OrderSpec::paid_by(&format!("pi_own_{n}"))).await;
        let payment = format!("pi_{n}");
        let key = key(&payment);
        let (event, new) = ([unheard_of(order, &payment)], order_for(&payment));
        let new_id = new.id;
        let (applied, attached) = tokio::join!(apply(&worker, &event), api.attach_order(key, new));
        let outcomes = applied.unwrap().outcomes;
        let winner = match attached.unwrap() {
            Attach::Created(_) => {
                assert!(is_conflict(&outcomes), "{outcomes:?}");
                new_id
            }
            Attach::PaymentTaken => {
                assert_eq!(outcomes, [Outcome::Applied { granted: true }]);
                order
            }
            other @ (Attach::Replayed(_) | Attach::KeyReused) => panic!("{other:?}"),
        };
        assert_eq!(owner_of(&world, &payment).await, winner);
    }
    world.verify().await;
}

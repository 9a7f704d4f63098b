//! Batches that compete for the same rows.

use super::{apply, batches, dollars, read, unpaid};
use crate::support::{OrderSpec, World, captured, event_for};
use futures_util::future::join_all;
use grantonce::domain::{
    CaptureState, DisputePolicy, FactId, OrderId, PaymentEvent, PaymentId, PaymentStatus, Posting, Reason, RefundState,
    settle,
};
use grantonce::store::{Outcome, Store};
use std::collections::HashMap;

const STORES: usize = 4;

/// Some of the events, in a random order.
fn some_of(events: &[PaymentEvent]) -> Vec<PaymentEvent> {
    let mut events = events.to_vec();
    fastrand::shuffle(&mut events);
    events.truncate(events.len() * 2 / 3);
    events
}

/// Applies one batch on each of four stores at the same time. Returns the outcome of each event.
async fn at_the_same_time(stores: &[Store], batches: Vec<Vec<PaymentEvent>>) -> Vec<(PaymentEvent, Outcome)> {
    let tasks = stores.iter().cloned().zip(batches).map(|(store, events)| {
        tokio::spawn(async move {
            // A deadlock is an error here, too: only the worker tries again.
            let applied = apply(&store, &events).await.unwrap();
            events.into_iter().zip(applied.outcomes).collect::<Vec<_>>()
        })
    });
    join_all(tasks).await.into_iter().flat_map(Result::unwrap).collect()
}

fn stores(world: &World) -> Vec<Store> {
    (0..STORES).map(|_| batches(world)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_about_the_same_orders_in_any_order_do_not_deadlock() {
    let world = World::new().await;
    world.orders(100).await;
    let stores = stores(&world);
    let events: Vec<_> =
        (0..300).map(|n| event_for(&format!("pi_{}", n % 100), &format!("evt_{n}"), captured(1999))).collect();
    for _ in 0..20 {
        at_the_same_time(&stores, stores.iter().map(|_| some_of(&events)).collect()).await;
    }
    at_the_same_time(&stores[..1], vec![events]).await;
    assert_eq!((world.grants().await, world.admitted().await), (100, 300));
    assert_eq!(world.count("SELECT sum(credits)::bigint FROM account_balances").await, 100 * 100);
    world.verify().await;
}

/// Four orders compete for each thing. No order's lock keeps their batches apart.
async fn quarrel(about: impl Fn(&str, &str) -> PaymentEvent, thing_of: fn(&PaymentEvent) -> String, lost: Reason) {
    const THINGS: usize = 40;
    let world = World::new().await;
    world.orders(STORES * THINGS).await;
    let stores = stores(&world);
    for round in 0..15 {
        let batches = (0..STORES).map(|store| {
            let events: Vec<_> =
                (0..THINGS).map(|n| about(&format!("pi_{}", store * THINGS + n), &format!("{round}_{n}"))).collect();
            some_of(&events)
        });
        let mut won: HashMap<String, usize> = HashMap::new();
        for (event, outcome) in at_the_same_time(&stores, batches.collect()).await {
            let won = won.entry(thing_of(&event)).or_default();
            match outcome {
                Outcome::Applied { .. } => *won += 1,
                Outcome::Refused(refusal) => assert_eq!(refusal.reason, lost),
                other @ (Outcome::Duplicate | Outcome::OrderUnknown | Outcome::Unreadable(_)) => panic!("{other:?}"),
            }
        }
        assert!(won.values().all(|won| *won == 1), "{won:?}");
    }
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_with_the_same_message_ids_for_different_orders_do_not_deadlock() {
    let about = |payment: &str, thing: &str| event_for(payment, &format!("evt_{thing}"), captured(1999));
    quarrel(about, |event| event.message_id.as_str().to_owned(), Reason::IdReused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn batches_that_claim_the_same_payment_ids_for_different_orders_do_not_deadlock() {
    let about = |payment: &str, thing: &str| PaymentEvent {
        related_ids: vec![PaymentId::new(format!("cs_{thing}")).unwrap()],
        ..event_for(payment, &format!("evt_{payment}_{thing}"), captured(1999))
    };
    quarrel(about, |event| event.related_ids[0].as_str().to_owned(), Reason::PaymentConflict).await;
}

/// Partial captures and refunds of an order over 10.00. Some fail later, and some are reported twice.
fn facts(payment: &str) -> Vec<PaymentEvent> {
    let capture = |id: &str, minor, state| PaymentStatus::Captured {
        money: dollars(minor),
        capture_id: Some(FactId::new(id).unwrap()),
        state,
        breakdown: None,
    };
    let refund = |id: &str, minor, state| PaymentStatus::Refund {
        refund_id: FactId::new(id).unwrap(),
        state,
        money: dollars(minor),
    };
    let mut statuses = vec![
        capture("c1", 400, CaptureState::Succeeded),
        capture("c2", 350, CaptureState::Succeeded),
        capture("c3", 250, CaptureState::Succeeded),
        refund("r1", 100 + fastrand::i64(0..100), RefundState::Pending),
        refund("r1", 100, RefundState::Succeeded),
        refund("r2", fastrand::i64(1..300), RefundState::Succeeded),
    ];
    if fastrand::bool() {
        statuses.push(refund("r2", 50, RefundState::Failed));
    }
    if fastrand::u8(0..4) == 0 {
        statuses.push(capture("c3", 250, CaptureState::Failed));
    }
    fastrand::shuffle(&mut statuses);
    let event = |(n, status)| event_for(payment, &format!("evt_{payment}_{n}"), status);
    statuses.into_iter().enumerate().map(event).collect()
}

/// The result of the facts, computed without a database.
fn computed(id: OrderId, events: &[PaymentEvent]) -> Posting {
    let mut order = unpaid(id, 100, dollars(1000));
    for event in events {
        order.join(event);
    }
    settle(&order, DisputePolicy::Hold).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn facts_that_reach_an_order_at_the_same_time_are_all_counted() {
    const ORDERS: usize = 60;
    let world = World::new().await;
    let (one, other) = (batches(&world), batches(&world));
    for n in 0..ORDERS {
        let payment = format!("pi_{n}");
        let id = world.order(OrderSpec { amount_minor: 1000, ..OrderSpec::paid_by(&payment) }).await;
        let events = facts(&payment);
        for pair in events.chunks(2) {
            let (first, second) = pair.split_at(1);
            let (first, second) = tokio::join!(apply(&one, first), apply(&other, second));
            first.unwrap();
            second.unwrap();
        }
        let expected = computed(id, &events);
        let found = read(&one, id).await;
        assert_eq!((found.credits_granted, found.status), (expected.credits_net, expected.status), "{events:#?}");
        let ledger = format!(
            "SELECT coalesce(sum(credits), 0)::bigint FROM (
                 SELECT order_id, credits FROM credit_grants
                 UNION ALL SELECT order_id, credits FROM credit_adjustments) e WHERE order_id = '{id}'"
        );
        assert_eq!(world.count(&ledger).await, expected.credits_net, "{events:#?}");
    }
    world.verify().await;
}

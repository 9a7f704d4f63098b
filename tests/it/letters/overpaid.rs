//! Orders that are paid twice, or too much, are reported everywhere until the money is returned.

use super::RunningOps;
use crate::support::messages::{captured, event_for};
use crate::support::world::{OrderSpec, World};
use grantonce::domain::{DisputePolicy, DisputeState, FactId, OrderId, PaymentEvent, PaymentStatus};
use grantonce::store::{Asked, ExplainTerms};
use grantonce_testkit::wait::{eventually, eventually_within};
use std::time::Duration;
use time::OffsetDateTime;

/// The missing parts of an order, as `explain` reports them.
async fn told(world: &World, order: OrderId) -> Vec<String> {
    let terms = ExplainTerms {
        now: OffsetDateTime::now_utc(),
        dispute_policy: DisputePolicy::Hold,
        orders_max: 10,
        entries_max: 100,
    };
    let asked = Asked::new(&order.to_string(), None).unwrap();
    let story = world.store().explain(asked, terms).await.unwrap().unwrap();
    story.summary.missing.into_iter().map(|missing| missing.text).collect()
}

async fn surplus(world: &World) -> i64 {
    world.count("SELECT coalesce(sum(overpaid_minor), 0)::bigint FROM overpaid_orders").await
}

async fn net_credits(world: &World) -> i64 {
    world.count("SELECT coalesce(sum(credits_granted), 0)::bigint FROM orders").await
}

/// A second payment of the same order.
fn second(order: OrderId, message: &str, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent { order_id: Some(order), ..event_for("pi_2", message, status) }
}

fn refunded() -> PaymentStatus {
    let PaymentStatus::Captured { money, .. } = captured(1999) else { unreachable!() };
    PaymentStatus::RefundedTotal { money }
}

fn disputed() -> PaymentStatus {
    let PaymentStatus::Captured { money, .. } = captured(1999) else { unreachable!() };
    let dispute_id = FactId::new("dp_1").unwrap();
    PaymentStatus::Dispute { dispute_id, state: DisputeState::Open, round: 1, money }
}

#[tokio::test]
async fn s03_paid_twice_is_told_until_the_second_payment_goes_back() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    world.publish(&event_for("pi_1", "evt_1", captured(1999))).await;
    world.publish(&second(order, "evt_2", captured(1999))).await;
    eventually("the surplus is written", async || surplus(&world).await == 1999).await;
    assert_eq!(told(&world, order).await, ["paid twice: 19.99 USD too much"]);
    let listed = world.store().overpaid_orders(10).await.unwrap();
    assert_eq!((listed.len(), listed[0].order_id, listed[0].overpaid_minor), (1, order, 1999));
    assert_eq!((net_credits(&world).await, world.grants().await), (100, 1));
    world.verify().await;
    eventually_within(Duration::from_secs(30), "the metric shows it", async || {
        ops.metrics.render().contains("grantonce_overpaid_orders 1.0")
    })
    .await;

    world.publish(&second(order, "evt_3", refunded())).await;
    eventually("it was refunded", async || surplus(&world).await == 0).await;
    assert_eq!(told(&world, order).await, [""; 0]);
    assert_eq!((net_credits(&world).await, world.status(order).await.as_str()), (100, "fulfilled"));
    eventually_within(Duration::from_secs(30), "the metric shows it", async || {
        ops.metrics.render().contains("grantonce_overpaid_orders 0.0")
    })
    .await;
    ops.stop().await;
    world.settled(worker).await;
    world.verify().await;
}

#[tokio::test]
async fn s03_a_disputed_second_payment_is_not_kept() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let worker = world.start_worker();
    world.publish(&event_for("pi_1", "evt_1", captured(1999))).await;
    world.publish(&second(order, "evt_2", captured(1999))).await;
    eventually("the surplus is written", async || surplus(&world).await == 1999).await;
    world.publish(&second(order, "evt_3", disputed())).await;
    eventually("it is held", async || surplus(&world).await == 0).await;
    assert_eq!(told(&world, order).await, [""; 0]);
    assert_eq!(net_credits(&world).await, 100);
    world.settled(worker).await;
    world.verify().await;
}

#[tokio::test]
async fn more_captures_than_the_price_are_overpaid_by_the_rest() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let worker = world.start_worker();
    for id in ["cap_1", "cap_2"] {
        let PaymentStatus::Captured { money, state, breakdown, .. } = captured(1500) else { unreachable!() };
        let capture_id = Some(FactId::new(id).unwrap());
        world.publish(&event_for("pi_1", id, PaymentStatus::Captured { money, capture_id, state, breakdown })).await;
    }
    eventually("the surplus is written", async || surplus(&world).await == 1001).await;
    assert_eq!(told(&world, order).await, ["overpaid by 10.01 USD"]);
    world.settled(worker).await;
    world.verify().await;
}

#[tokio::test]
async fn a_surplus_that_nobody_wrote_down_is_written_with_the_next_message() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let worker = world.start_worker();
    world.publish(&event_for("pi_1", "evt_1", captured(1999))).await;
    world.publish(&second(order, "evt_2", captured(1999))).await;
    eventually("the surplus is written", async || surplus(&world).await == 1999).await;
    // A release that did not know the table leaves this state.
    world.execute("DELETE FROM overpaid_orders").await;
    let broken = world.store().verify(DisputePolicy::Hold).await.unwrap();
    assert_eq!((broken.len(), broken[0].order_id.as_str()), (1, order.to_string().as_str()), "{broken:#?}");
    assert_eq!(told(&world, order).await, ["paid twice: 19.99 USD too much"], "the facts of the order show it");
    world.publish(&event_for("pi_1", "evt_3", PaymentStatus::Pending)).await;
    eventually("the surplus is written", async || surplus(&world).await == 1999).await;
    world.settled(worker).await;
    world.verify().await;
}

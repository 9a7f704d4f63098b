//! `verify` finds an order whose facts do not match its row and its surplus. Each test breaks one kind on purpose.

use super::{apply, batches, dollars};
use crate::support::{OrderSpec, World, captured, event_for};
use grantonce::domain::{
    Breakdown, CaptureState, DisputePolicy, DisputeState, FactId, OrderId, PaymentEvent, PaymentStatus,
};
use grantonce::store::BrokenInvariant;
use time::Duration;

fn capture(id: &str, amount_minor: i64) -> PaymentStatus {
    PaymentStatus::Captured {
        money: dollars(amount_minor),
        capture_id: Some(FactId::new(id).unwrap()),
        state: CaptureState::Succeeded,
        breakdown: None,
    }
}

fn dispute(state: DisputeState) -> PaymentStatus {
    PaymentStatus::Dispute { dispute_id: FactId::new("dp_1").unwrap(), state, round: 1, money: dollars(1999) }
}

fn with_tax(breakdown: bool) -> PaymentStatus {
    let money = dollars(2379);
    let breakdown = breakdown.then(|| Breakdown::new(money, 380, 0).unwrap());
    PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown }
}

/// The fact of the last message in each row will be removed.
fn kinds() -> Vec<(&'static str, Vec<(&'static str, PaymentStatus)>)> {
    let refunded = || PaymentStatus::RefundedTotal { money: dollars(1999) };
    let canceled = |id: &str| PaymentStatus::CaptureCanceled { capture_id: FactId::new(id).unwrap() };
    vec![
        ("one payment", vec![("pi_1", captured(1999))]),
        ("several payments", vec![("pi_1", captured(1999)), ("pi_1", refunded()), ("pi_2", captured(1999))]),
        ("a canceled capture", vec![("pi_1", capture("cap_1", 1999)), ("pi_1", canceled("cap_1"))]),
        (
            "parts canceled",
            vec![
                ("pi_1", capture("cap_1", 1500)),
                ("pi_2", capture("cap_2", 499)),
                ("pi_1", PaymentStatus::PartsCanceled),
            ],
        ),
        ("price terms", vec![("pi_1", with_tax(false)), ("pi_1", with_tax(true))]),
        (
            "a dispute that was won after it was lost",
            vec![("pi_1", captured(1999)), ("pi_1", dispute(DisputeState::Lost)), ("pi_1", dispute(DisputeState::Won))],
        ),
    ]
}

async fn verified(world: &World) -> Vec<BrokenInvariant> {
    world.store().verify(DisputePolicy::Hold).await.unwrap()
}

async fn facts(world: &World, order: OrderId) -> String {
    let facts = "SELECT facts::text FROM orders WHERE id = $1";
    sqlx::query_scalar(facts).bind(order.0).fetch_one(&world.sql).await.unwrap()
}

#[tokio::test]
async fn an_order_whose_facts_say_something_else_is_found_for_each_kind() {
    for (kind, said) in kinds() {
        let world = World::new().await;
        let order = world.order(OrderSpec::paid_by("pi_1")).await;
        let terms = if kind == "price terms" { "before_tax" } else { "total" };
        world.execute(&format!("UPDATE orders SET price_terms = '{terms}'")).await;
        let mut before = String::new();
        for (n, (payment, status)) in said.into_iter().enumerate() {
            before = facts(&world, order).await;
            let event = event_for(payment, &format!("evt_{n}"), status);
            let occurred_at = event.occurred_at - Duration::minutes(10) + Duration::minutes(i64::try_from(n).unwrap());
            let event = PaymentEvent { order_id: Some(order), occurred_at, ..event };
            apply(&batches(&world), &[event]).await.unwrap();
            assert_eq!(verified(&world).await, [], "{kind}, after message {n}");
        }
        sqlx::query("UPDATE orders SET facts = $1::jsonb").bind(&before).execute(&world.sql).await.unwrap();
        let broken = verified(&world).await;
        assert_eq!(broken.len(), 1, "{kind}: {broken:#?}");
        let about = (broken[0].invariant, broken[0].order_id.clone());
        assert_eq!(about, ("an order's status and credits follow from its facts", order.to_string()), "{kind}");
    }
}

#[tokio::test]
async fn a_surplus_that_is_not_what_the_facts_say_is_found() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let second = PaymentEvent { order_id: Some(order), ..event_for("pi_2", "evt_2", captured(1999)) };
    apply(&batches(&world), &[event_for("pi_1", "evt_1", captured(1999)), second]).await.unwrap();
    assert_eq!(verified(&world).await, []);
    for (breaking, found) in [
        ("UPDATE overpaid_orders SET overpaid_minor = 5", "overpaid by 5, the facts say 1999"),
        ("UPDATE overpaid_orders SET overpaid_minor = 0", "overpaid by 0, the facts say 1999"),
        ("DELETE FROM overpaid_orders", "overpaid by 0, the facts say 1999"),
    ] {
        world.execute(breaking).await;
        let broken = verified(&world).await;
        assert_eq!((broken.len(), broken[0].order_id.clone()), (1, order.to_string()), "{breaking}: {broken:#?}");
        assert!(broken[0].found.starts_with(found), "{breaking}: {broken:#?}");
    }
    world.execute("INSERT INTO overpaid_orders VALUES (gen_random_uuid(), 5, now(), now())").await;
    let broken = verified(&world).await;
    assert!(
        broken.iter().any(|broken| broken.invariant == "every row of overpaid_orders belongs to an order"),
        "{broken:#?}"
    );
}

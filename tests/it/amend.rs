//! `grantonce orders amend`, as an operator calls it.

use crate::support::{OrderSpec, World, captured, event_for, eventually};
use grantonce::domain::{Currency, Money, OrderId, PaymentEvent, PaymentStatus};
use std::process::Output;

/// Runs `grantonce orders amend` with the price in US cents. Returns its exit code and output.
async fn amend(world: &World, order: OrderId, minor: i64, more: &[&str]) -> (Option<i32>, String) {
    amend_to(world, &order.to_string(), &minor.to_string(), "USD", more).await
}

async fn amend_to(world: &World, order: &str, minor: &str, currency: &str, more: &[&str]) -> (Option<i32>, String) {
    let output = grantonce(&world.database_url, order, minor, currency, more).await;
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

async fn grantonce(database_url: &str, order: &str, minor: &str, currency: &str, more: &[&str]) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"))
        .args(["orders", "amend", order, "--amount-minor", minor, "--currency", currency])
        .args(["--reason", "tax, ticket 4711"])
        .args(more)
        .env_clear()
        .env("DATABASE_URL", database_url)
        .output()
        .await
        .unwrap()
}

fn json(printed: &str) -> serde_json::Value {
    serde_json::from_str(printed).unwrap()
}

/// A message is refused, the order is amended, and the same message is sent again: one grant.
async fn refused_amended_replayed(event: PaymentEvent, reason: &str, minor: i64, currency: &str) {
    let world = World::new().await;
    let order = world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_1") }).await;
    let worker = world.start_worker();
    world.publish(&event).await;
    let letter = world.dead_letter().await;
    let headers = letter.properties.headers().as_ref().unwrap().inner();
    assert_eq!(headers["x-grantonce-reason"].as_long_string().unwrap().to_string(), reason);

    let (exit, printed) =
        amend_to(&world, &order.to_string(), &minor.to_string(), currency, &["--as", "ada", "--json"]).await;
    assert_eq!(exit, Some(0), "{printed}");
    let printed = json(&printed);
    assert_eq!(printed["outcome"], "amended");
    assert_eq!(printed["order_id"], order.to_string());
    assert_eq!(printed["before"], serde_json::json!({ "amount_minor": 2999, "currency": "USD" }));
    assert_eq!(printed["after"], serde_json::json!({ "amount_minor": minor, "currency": currency }));
    assert_eq!((&printed["version"], &printed["is_grant_due"]), (&2.into(), &false.into()));
    assert_eq!((world.grants().await, world.status(order).await.as_str()), (0, "awaiting_payment"));

    for _ in 0..3 {
        world.publish(&event).await;
    }
    eventually("the replay grants", async || world.grants().await == 1).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (1, 1));
    assert_eq!(world.status(order).await, "fulfilled");
    assert_eq!(world.count("SELECT sum(credits)::bigint FROM account_balances").await, 100);
    world.verify().await;

    let (exit, printed) = amend(&world, order, 5, &["--json"]).await;
    assert_eq!(exit, Some(1), "{printed}");
    assert_eq!((&json(&printed)["outcome"], &json(&printed)["reason"]), (&"refused".into(), &"granted".into()));
    assert_eq!(world.count("SELECT count(*) FROM audit_log").await, 1, "what was refused is not in the audit log");
}

#[tokio::test]
async fn an_amount_mismatch_is_amended_and_replayed_and_granted_once() {
    let event = event_for("pi_1", "evt_1", captured(1999));
    refused_amended_replayed(event, "amount_mismatch", 1999, "USD").await;
}

#[tokio::test]
async fn a_currency_mismatch_is_amended_and_replayed_and_granted_once() {
    let money = Money::new(2999, Currency::new("EUR").unwrap()).unwrap();
    let status = PaymentStatus::Captured {
        money,
        capture_id: None,
        state: grantonce::domain::CaptureState::Succeeded,
        breakdown: None,
    };
    refused_amended_replayed(event_for("pi_1", "evt_1", status), "currency_mismatch", 2999, "EUR").await;
}

#[tokio::test]
async fn each_outcome_has_its_words_and_its_exit_code() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let (exit, printed) = amend(&world, order, 2999, &[]).await;
    assert_eq!(exit, Some(0));
    assert!(printed.contains("costs 2999 USD") && printed.contains("before 1999 USD") && printed.contains("replay"));
    let (exit, printed) = amend(&world, order, 2999, &[]).await;
    assert_eq!(exit, Some(0));
    assert!(printed.contains("nothing was changed"), "{printed}");
    let unknown = OrderId(uuid::Uuid::now_v7());
    let (exit, printed) = amend(&world, unknown, 2999, &[]).await;
    assert_eq!(exit, Some(1));
    assert!(printed.contains(&unknown.to_string()) && printed.contains("no such order"), "{printed}");

    // Without --as, the actor is the system's user, and the system vouches for it.
    let by_system = "SELECT count(*) FROM audit_log WHERE NOT is_self_declared AND actor <> ''";
    assert_eq!(world.count(by_system).await, 1);

    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("postgres://u@{}/x", closed.local_addr().unwrap());
    drop(closed);
    let output = grantonce(&nobody, &order.to_string(), "1", "USD", &[]).await;
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
}

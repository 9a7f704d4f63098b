//! Stripe's cases.

use super::{Case, run, stripe_list, with};
use grantonce::webhook::Endpoint;
use serde_json::{Value, json};

/// Times count from here; 2026-01-05T12:00:00Z.
const T0: i64 = 1_767_614_400;

/// An API version before `2025-03-31.basil`.
const OLD: &str = "2024-06-20";
const ACACIA: &str = "2025-02-24.acacia";
const NEW: &str = "2026-07-29.dahlia";

/// The n-th event, one second after the one before it.
fn event(n: i64, version: &str, kind: &str, object: Value) -> Value {
    json!({
        "id": format!("evt_{n}#"), "object": "event", "api_version": version, "created": T0 + n, "type": kind,
        "livemode": false, "data": {"object": object}
    })
}

fn intent(id: &str, amount: i64) -> Value {
    json!({
        "id": id, "object": "payment_intent", "amount": amount, "amount_received": amount, "currency": "usd",
        "created": T0, "status": "succeeded", "livemode": false, "latest_charge": null, "metadata": {}
    })
}

fn order(price_minor: i64) -> Case {
    Case::of(Endpoint::Stripe, price_minor, "pi_1#")
}

fn session_order(price_minor: i64) -> Case {
    Case::of(Endpoint::Stripe, price_minor, "cs_1#")
}

fn ours(object: Value) -> Value {
    with(object, json!({"metadata": {"order_id": "$ORDER"}}))
}

#[tokio::test]
async fn s09_a_foreign_order_id_does_not_hide_the_registered_payment() {
    let foreign = json!({"metadata": {"order_id": "01890a5d-ac96-774b-bcce-b302099a8057"}});
    let paid = || with(intent("pi_1#", 1999), foreign.clone());
    run([
        order(1999)
            .named("a succeeded intent")
            .sends([event(1, OLD, "payment_intent.succeeded", paid())])
            .answers("/v1/payment_intents/pi_1#", paid())
            .answers("/v1/refunds?payment_intent=pi_1#", stripe_list([])),
        order(1999).named("with what came before it").sends([
            event(1, NEW, "payment_intent.processing", paid()),
            event(2, ACACIA, "payment_intent.payment_failed", paid()),
            event(3, NEW, "payment_intent.succeeded", paid()),
        ]),
        order(1999).named("our own id").sends([event(1, OLD, "payment_intent.succeeded", ours(intent("pi_1#", 1999)))]),
        session_order(1999).named("an order by its session").sends([event(
            1,
            NEW,
            "payment_intent.succeeded",
            ours(intent("pi_1#", 1999)),
        )]),
    ])
    .await;
}

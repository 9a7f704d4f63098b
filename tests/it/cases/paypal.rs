//! PayPal's cases.

use super::{Case, is_loud, run, with};
use grantonce::domain::PriceTerms;
use grantonce::webhook::Endpoint;
use serde_json::{Value, json};

fn usd(value: &str) -> Value {
    json!({"currency_code": "USD", "value": value})
}

/// PayPal's order with one unit.
fn told(value: &str, payments: Value) -> Value {
    json!({
        "id": "O1#", "status": "COMPLETED", "intent": "CAPTURE", "create_time": "2026-01-05T12:00:00Z",
        "purchase_units": [{"custom_id": "$ORDER", "amount": usd(value), "payments": payments}], "links": []
    })
}

fn capture(id: &str, status: &str, value: &str) -> Value {
    json!({
        "id": id, "status": status, "amount": usd(value), "create_time": "2026-01-05T12:05:00Z",
        "update_time": "2026-01-05T12:06:00Z", "supplementary_data": {"related_ids": {"order_id": "O1#"}}
    })
}

fn refund(id: &str, value: &str) -> Value {
    json!({
        "id": id, "status": "COMPLETED", "amount": usd(value), "create_time": "2026-01-06T12:00:00Z",
        "links": [{"rel": "up", "method": "GET", "href": "https://api.paypal.com/v2/payments/captures/C1#"}]
    })
}

fn authorization(status: &str) -> Value {
    json!({"id": "A1#", "status": status, "amount": usd("19.99"), "create_time": "2026-01-05T12:04:00Z"})
}

/// 19.99 USD for 1999 credits.
fn order() -> Case {
    Case::of(Endpoint::Paypal, 1999, "O1#").credits(1999)
}

const ORDER: &str = "/v2/checkout/orders/O1#";
const CAPTURE: &str = "/v2/payments/captures/C1#";

#[tokio::test]
async fn p03_a_reversal_that_the_order_does_not_list_takes_its_credits() {
    let partly = |payments: Value| {
        order()
            .answers(
                ORDER,
                told("19.99", with(json!({"captures": [capture("C1#", "PARTIALLY_REFUNDED", "19.99")]}), payments)),
            )
            .answers(CAPTURE, capture("C1#", "PARTIALLY_REFUNDED", "19.99"))
    };
    run([
        partly(json!({}))
            .named("a part")
            .answers("/v2/payments/refunds/R1#", refund("R1#", "5.00"))
            .hinted(["R1#", "C1#"])
            .ends("partially_refunded", 1499),
        partly(json!({}))
            .named("a part, and the webhook names the order too")
            .answers("/v2/payments/refunds/R1#", refund("R1#", "5.00"))
            .hinted(["R1#", "O1#", "C1#"])
            .ends("partially_refunded", 1499),
        partly(json!({}))
            .named("two parts")
            .answers("/v2/payments/refunds/R1#", refund("R1#", "5.00"))
            .answers("/v2/payments/refunds/R2#", refund("R2#", "3.00"))
            .hinted(["R1#", "C1#"])
            .hinted(["R2#", "C1#"])
            .ends("partially_refunded", 1199),
        partly(json!({"refunds": [refund("R1#", "4.00")]}))
            .named("a part beside a refund that is listed")
            .answers("/v2/payments/refunds/R1#", refund("R1#", "4.00"))
            .answers("/v2/payments/refunds/R2#", refund("R2#", "5.00"))
            .hinted(["R1#", "C1#"])
            .hinted(["R2#", "C1#"])
            .ends("partially_refunded", 1099),
        order()
            .named("all of it")
            .answers(ORDER, told("19.99", json!({"captures": [capture("C1#", "REFUNDED", "19.99")]})))
            .answers(CAPTURE, capture("C1#", "REFUNDED", "19.99"))
            .answers("/v2/payments/refunds/R1#", refund("R1#", "19.99"))
            .hinted(["R1#", "C1#"])
            .ends("refunded", 0),
        order()
            .named("all of one capture and a part of another")
            .answers(
                ORDER,
                told(
                    "19.99",
                    json!({"captures": [capture("C2#", "REFUNDED", "10.00"), capture("C1#", "PARTIALLY_REFUNDED", "9.99")],
                        "refunds": [refund("R1#", "3.00")]}),
                ),
            )
            .ends("partially_refunded", 699),
        order()
            .named("a capture that names no order")
            .answers(ORDER, told("19.99", json!({"captures": [capture("C1#", "COMPLETED", "19.99")]})))
            .answers(CAPTURE, with(capture("C1#", "PARTIALLY_REFUNDED", "19.99"), json!({"supplementary_data": null})))
            .answers("/v2/payments/refunds/R1#", refund("R1#", "5.00"))
            .hinted(["R1#", "C1#"])
            .ends("partially_refunded", 1499),
    ])
    .await;
}

#[tokio::test]
async fn p03_a_refund_that_nobody_tells_is_loud() {
    is_loud(
        &order()
            .answers(ORDER, told("19.99", json!({"captures": [capture("C1#", "PARTIALLY_REFUNDED", "19.99")]})))
            .answers(CAPTURE, capture("C1#", "PARTIALLY_REFUNDED", "19.99"))
            .hinted(["NONE#", "C1#"]),
    )
    .await;
}

#[tokio::test]
async fn p08_an_authorization_waits_for_its_capture() {
    let authorized =
        |payments: Value| order().answers(ORDER, with(told("19.99", payments), json!({"intent": "AUTHORIZE"})));
    let paid = capture("C1#", "COMPLETED", "19.99");
    run([
        authorized(json!({"authorizations": [authorization("CREATED")]})).named("made").ends("processing", 0),
        authorized(json!({"authorizations": [authorization("PENDING")]})).named("pending").ends("processing", 0),
        authorized(json!({"authorizations": [authorization("VOIDED")]})).named("voided").ends("canceled", 0),
        authorized(json!({"authorizations": [authorization("DENIED")]})).named("denied").ends("awaiting_payment", 0),
        authorized(json!({"authorizations": [authorization("CAPTURED")], "captures": [paid.clone()]}))
            .named("captured")
            .ends("fulfilled", 1999),
        authorized(json!({"authorizations": [authorization("PARTIALLY_CAPTURED")], "captures": [capture("C1#", "COMPLETED", "9.99")]}))
            .named("captured in part")
            .ends("processing", 0),
        authorized(json!({"authorizations": [authorization("PARTIALLY_CAPTURED")],
            "captures": [capture("C1#", "COMPLETED", "9.99"), capture("C2#", "COMPLETED", "10.00")]}))
        .named("captured in two parts")
        .ends("fulfilled", 1999),
        order()
            .named("agreed to, and not for us to capture")
            .answers(ORDER, with(told("19.99", json!(null)), json!({"intent": "AUTHORIZE", "status": "APPROVED"})))
            .ends("processing", 0),
    ])
    .await;
}

#[tokio::test]
async fn prices_before_tax_and_discount_are_read_from_the_breakdown() {
    let priced = |total: &str, breakdown: Value, captures: Value| {
        let mut told = told(total, json!({"captures": captures}));
        told["purchase_units"][0]["amount"]["breakdown"] = breakdown;
        Case::of(Endpoint::Paypal, 1000, "O1#").answers(ORDER, told)
    };
    let one = |value: &str| json!([capture("C1#", "COMPLETED", value)]);
    let discounts = |discount_max_minor| PriceTerms::BeforeTaxAndDiscount { discount_max_minor };
    run([
        priced("11.90", json!({"item_total": usd("10.00"), "tax_total": usd("1.90")}), one("11.90"))
            .named("tax")
            .terms(PriceTerms::BeforeTax),
        priced("10.00", json!({"item_total": usd("10.00")}), one("10.00")).named("no tax").terms(PriceTerms::BeforeTax),
        priced(
            "9.71",
            json!({"item_total": usd("9.00"), "shipping": usd("1.00"), "tax_total": usd("1.71"), "discount": usd("1.50"),
                "shipping_discount": usd("0.50")}),
            one("9.71"),
        )
        .named("tax, discount and shipping")
        .terms(discounts(200)),
        priced("11.90", json!({"item_total": usd("10.00"), "tax_total": usd("1.90")}), one("11.90"))
            .named("a part refunded, of what was paid")
            .terms(PriceTerms::BeforeTax)
            .answers("/v2/payments/refunds/R1#", refund("R1#", "5.95"))
            .answers(CAPTURE, capture("C1#", "COMPLETED", "11.90"))
            .hinted(["R1#", "C1#"])
            .ends("partially_refunded", 50),
        priced(
            "11.90",
            json!({"item_total": usd("10.00"), "tax_total": usd("1.90")}),
            json!([capture("C1#", "COMPLETED", "5.90"), capture("C2#", "COMPLETED", "6.00")]),
        )
        .named("two captures, whose parts nobody tells")
        .terms(PriceTerms::BeforeTax)
        .ends("processing", 0),
    ])
    .await;
}

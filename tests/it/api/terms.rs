//! Orders whose price is not the whole amount that the buyer pays: how they are created, shown and paid.

use super::server::{Api, NOW, SHOP, order_for};
use grantonce::domain::{
    Breakdown, CaptureState, Currency, MessageId, Money, OrderId, PaymentEvent, PaymentId, PaymentStatus, Provider,
};
use reqwest::Method;
use serde_json::{Value, json};

/// The request of a site, with some fields replaced.
fn with(payment: &str, fields: Value) -> Value {
    let mut order = order_for(payment);
    order.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    order
}

#[tokio::test]
async fn the_terms_of_an_order_are_shown_to_the_site_and_to_the_buyer() {
    let api = Api::start().await;
    let terms = json!({"price_terms": "before_tax_and_discount", "discount_max_minor": 500});
    let made = api.create(SHOP, "k", &with("cs_1", terms.clone())).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let path = format!("/v1/orders/{}", made.field("id").as_str().unwrap());
    let token = made.field("status_token");
    let buyers = api.bare(Method::GET, &format!("{path}?token={}", token.as_str().unwrap()));
    for answer in [made.clone(), api.get(&path).await, api.send(buyers).await] {
        assert_eq!(answer.field("price_terms"), "before_tax_and_discount", "{}", answer.text);
        assert_eq!(answer.field("discount_max_minor"), 500);
    }
    let again = api.create(SHOP, "k", &with("cs_1", terms)).await;
    assert_eq!((again.text.as_str(), again.header("idempotent-replayed")), (made.text.as_str(), Some("true")));

    let made = api.create(SHOP, "tax", &with("cs_2", json!({"price_terms": "before_tax"}))).await;
    assert_eq!((made.status, made.field("price_terms")), (201, json!("before_tax")));
    assert!(made.json().get("discount_max_minor").is_none(), "{}", made.text);
    api.end().await;
}

/// A call without price terms gets the same bytes as before there were terms.
#[tokio::test]
async fn an_order_without_terms_is_as_it_was() {
    let api = Api::start().await;
    let first = api.create(SHOP, "k", &order_for("pi_1")).await;
    assert!(first.json().get("price_terms").is_none(), "{}", first.text);
    for same in [json!({"price_terms": "total"}), json!({"price_terms": null, "discount_max_minor": null})] {
        assert_eq!(api.create(SHOP, "k", &with("pi_1", same)).await.text, first.text);
    }
    for other in [
        json!({"price_terms": "before_tax"}),
        json!({"price_terms": "before_tax_and_discount", "discount_max_minor": 0}),
        json!({"price_terms": "before_tax_and_discount", "discount_max_minor": 1}),
    ] {
        let answer = api.create(SHOP, "k", &with("pi_1", other)).await;
        assert_eq!((answer.status, answer.kind().as_str()), (422, "idempotency_key_reused"));
    }
    api.end().await;
}

#[tokio::test]
async fn terms_that_could_never_be_met_are_refused() {
    let api = Api::start().await;
    let without = |mut order: Value| {
        order.as_object_mut().unwrap().remove("payment_id");
        order
    };
    for (order, fields) in [
        (
            with("p", json!({"price_terms": "before_tax", "provider": "adyen"})),
            vec![("price_terms", "notices do not tell")],
        ),
        (
            without(with("p", json!({"price_terms": "before_tax"}))),
            vec![("price_terms", "one that we create has neither"), ("payment_id", "Checkout Session (stripe)")],
        ),
        (
            without(with("p", json!({"price_terms": "before_tax", "provider": "paypal"}))),
            vec![("price_terms", "one that we create"), ("payment_id", "amount.breakdown (paypal)")],
        ),
        (with("p", json!({"price_terms": "net"})), vec![("price_terms", "before_tax or before_tax_and_discount")]),
        (with("p", json!({"discount_max_minor": 1})), vec![("discount_max_minor", "goes with price_terms")]),
    ] {
        let answer = api.create(SHOP, "k", &order).await;
        assert_eq!((answer.status, answer.kind().as_str()), (422, "invalid_fields"), "{order}");
        let told = answer.field("fields");
        let told = told.as_array().unwrap();
        assert_eq!(told.len(), fields.len(), "{order}: {}", answer.text);
        for (told, (field, says)) in told.iter().zip(fields) {
            assert_eq!(told["field"], field, "{order}");
            assert!(told["detail"].as_str().unwrap().contains(says), "{order}: {}", answer.text);
        }
    }
    // `total` is as before, and a relay may report the parts.
    for (n, fields) in [
        json!({"price_terms": "total", "provider": "adyen"}),
        json!({"price_terms": "before_tax", "provider": "acme-pay"}),
        json!({"price_terms": "before_tax", "provider": "standard"}),
        json!({"price_terms": "before_tax", "provider": "paypal"}),
    ]
    .into_iter()
    .enumerate()
    {
        let answer = api.create(SHOP, &format!("k{n}"), &with(&format!("p{n}"), fields)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
    }
    api.end().await;
}

/// The provider reports a captured amount; a session also reports its parts.
fn captured(order: OrderId, payment: &str, related: &[&str], minor: i64, tax_minor: Option<i64>) -> PaymentEvent {
    let money = Money::new(minor, Currency::new("USD").unwrap()).unwrap();
    let breakdown = tax_minor.map(|tax_minor| Breakdown::new(money, tax_minor, 0).unwrap());
    PaymentEvent {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::evt_{payment}")).unwrap(),
        payment_id: PaymentId::new(payment).unwrap(),
        related_ids: related.iter().map(|id| PaymentId::new(*id).unwrap()).collect(),
        provider_account: None,
        order_id: Some(order),
        status: PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown },
        occurred_at: NOW,
        as_of: None,
        livemode: true,
    }
}

#[tokio::test]
async fn money_without_its_parts_waits_for_them() {
    let api = Api::start().await;
    let made = api.create(SHOP, "k", &with("cs_1", json!({"price_terms": "before_tax"}))).await;
    let id: OrderId = made.field("id").as_str().unwrap().parse().unwrap();
    let path = format!("/v1/orders/{id}");
    api.apply(NOW, vec![captured(id, "pi_1", &[], 2399, None)]).await;
    let waits = api.get(&path).await;
    assert_eq!((waits.field("status"), waits.field("credits_granted")), (json!("processing"), json!(0)));
    api.apply(NOW, vec![captured(id, "cs_1", &["pi_1"], 2399, Some(400))]).await;
    let paid = api.get(&path).await;
    assert_eq!((paid.field("status"), paid.field("credits_granted")), (json!("fulfilled"), json!(500)));
    assert_eq!(paid.field("price_terms"), "before_tax");
    api.end().await;
}

//! Payments that grantonce creates at the provider: at most one is handed out, whatever gets lost on the way.

use super::server::{Answer, Api, KIOSK, NOW, SHOP, paid};
use futures_util::future::join_all;
use grantonce::domain::OrderId;
use grantonce::store::Profile;
use grantonce_testkit::provider::standin::Standin;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::Duration;

/// An order without a payment.
fn unpaid() -> Value {
    json!({"account_id": "user-42", "credits": 500, "amount_minor": 1999, "currency": "USD", "provider": "stripe"})
}

fn once() -> Value {
    let mut order = unpaid();
    order["retry"] = json!("never");
    order
}

/// All payments at the provider.
async fn payments(provider: &Standin) -> Vec<Value> {
    let http = grantonce::http::plain_client().no_proxy().build().unwrap();
    let url = format!("{}/v1/payment_intents?limit=100", provider.base);
    let list: Value = http.get(url).bearer_auth("sk_test_1").send().await.unwrap().json().await.unwrap();
    list["data"].as_array().unwrap().clone()
}

async fn control(provider: &Standin, path: &str, body: Value) {
    let http = grantonce::http::plain_client().no_proxy().build().unwrap();
    let answer = http.post(format!("{}{path}", provider.base)).json(&body).send().await.unwrap();
    assert_eq!(answer.status(), 204);
}

async fn faults(provider: &Standin, faults: Value) {
    control(provider, "/faults", faults).await;
}

fn payment_id(answer: &Answer) -> String {
    assert_eq!(answer.status, 201, "{}", answer.text);
    answer.field("payment")["payment_id"].as_str().unwrap().to_owned()
}

/// The one payment at the provider is the one that was handed out, and the order's. Once it is paid, the order is fulfilled.
async fn one_payment(api: &Api, provider: &Standin, answer: &Answer) {
    let made = payments(provider).await;
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["id"], payment_id(answer));
    assert_eq!(made[0]["metadata"]["order_id"], answer.field("id"));
    let path = format!("/v1/orders/{}", answer.field("id").as_str().unwrap());
    let order = api.get(&path).await;
    assert_eq!(order.field("payment")["payment_id"], payment_id(answer));
    if order.field("status") == "awaiting_payment" {
        api.apply(api.clock.now(), vec![paid(&payment_id(answer))]).await;
    }
    assert_eq!(api.get(&path).await.field("status"), "fulfilled");
}

#[tokio::test]
async fn a_payment_is_created_once_and_a_repeated_call_is_given_the_same_bytes() {
    let provider = Standin::start().await.unwrap();
    let api = Api::start_paying(&provider.base).await;
    let first = api.create(SHOP, "k", &unpaid()).await;
    assert!(first.field("payment")["client_secret"].as_str().unwrap().contains("_secret_"), "{}", first.text);
    one_payment(&api, &provider, &first).await;
    let second = api.create(SHOP, "k", &once()).await;
    assert_eq!((second.status, &second.text), (201, &first.text), "also where it asks for no retries");
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    one_payment(&api, &provider, &first).await;
    // Another key is another order, and another site is another order, too.
    payment_id(&api.create(SHOP, "other", &unpaid()).await);
    payment_id(&api.create(KIOSK, "k", &unpaid()).await);
    assert_eq!(payments(&provider).await.len(), 3);
    // The buyer's view contains no secret.
    let token = first.field("status_token");
    let path = format!("/v1/orders/{}?token={}", first.field("id").as_str().unwrap(), token.as_str().unwrap());
    let seen = api.send(api.bare(reqwest::Method::GET, &path)).await;
    assert_eq!(seen.status, 200);
    assert!(!seen.text.contains("_secret_"), "{}", seen.text);
    api.end().await;
}

#[tokio::test]
async fn parallel_identical_calls_are_given_one_payment() {
    let provider = Standin::start().await.unwrap();
    let api = Api::start_paying(&provider.base).await;
    let order = unpaid();
    let answers = join_all((0..50).map(|_| api.create(SHOP, "k", &order))).await;
    let texts: BTreeSet<_> = answers.iter().map(|answer| (answer.status, answer.text.clone())).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    one_payment(&api, &provider, &answers[0]).await;
    api.end().await;
}

#[tokio::test]
async fn what_is_lost_on_the_way_is_asked_for_under_the_same_key() {
    for lost in ["lose_request", "lose_answer"] {
        let provider = Standin::start().await.unwrap();
        let api = Api::start_paying(&provider.base).await;
        faults(&provider, json!([lost])).await;
        one_payment(&api, &provider, &api.create(SHOP, "k", &unpaid()).await).await;
        api.end().await;

        // The site does not wait and is told so. Its next call finishes the payment.
        let provider = Standin::start().await.unwrap();
        let api = Api::start_paying(&provider.base).await;
        faults(&provider, json!([lost, lost])).await;
        for _ in 0..2 {
            let failed = api.create(SHOP, "k", &once()).await;
            assert_eq!((failed.status, failed.kind().as_str()), (502, "provider_unavailable"), "{}", failed.text);
            assert!(failed.header("retry-after").is_some());
        }
        one_payment(&api, &provider, &api.create(SHOP, "k", &once()).await).await;
        api.end().await;
    }
}

#[tokio::test]
async fn a_key_that_is_bound_to_a_failure_is_given_up_only_after_a_look() {
    for (fault, expected_attempts) in [("fail", 2), ("do_and_fail", 1)] {
        let provider = Standin::start().await.unwrap();
        let api = Api::start_paying(&provider.base).await;
        faults(&provider, json!([fault])).await;
        let unclear = api.create(SHOP, "k", &unpaid()).await;
        assert_eq!((unclear.status, unclear.kind().as_str()), (502, "provider_unclear"), "{}", unclear.text);
        let seconds: i64 = unclear.header("retry-after").unwrap().parse().unwrap();
        assert!((3_590..=3_600).contains(&seconds), "{seconds}");
        let made = payments(&provider).await.len();
        let again = api.create(SHOP, "k", &unpaid()).await;
        assert_eq!((again.status, payments(&provider).await.len()), (502, made), "too early: nothing new is made");

        api.clock.advance(Duration::minutes(61));
        let answer = api.create(SHOP, "k", &unpaid()).await;
        one_payment(&api, &provider, &answer).await;
        let attempts = api.db.number("SELECT count(*) FROM payment_attempts").await;
        assert_eq!(attempts, expected_attempts, "{fault}");
        api.end().await;
    }
}

#[tokio::test]
async fn a_key_that_the_provider_has_forgotten_makes_no_second_payment() {
    let provider = Standin::start().await.unwrap();
    let api = Api::start_paying(&provider.base).await;
    faults(&provider, json!(["lose_answer"])).await;
    assert_eq!(api.create(SHOP, "k", &once()).await.status, 502);
    control(&provider, "/faults/forget-keys", json!(null)).await;
    api.clock.advance(Duration::hours(30));
    let answer = api.create(SHOP, "k", &unpaid()).await;
    one_payment(&api, &provider, &answer).await;
    api.end().await;
}

#[tokio::test]
async fn a_provider_that_is_out_of_reach_keeps_the_order_and_a_refusal_is_told() {
    let gone = Standin::start().await.unwrap();
    let (gone_base, address) = (gone.base.clone(), gone.address);
    gone.stop().await;
    let api = Api::start_paying(&gone_base).await;
    let failed = api.create(SHOP, "k", &once()).await;
    assert_eq!((failed.status, failed.kind().as_str()), (502, "provider_unavailable"), "{}", failed.text);
    assert_eq!(api.db.number("SELECT count(*) FROM orders").await, 1);
    let provider = Standin::start_at(address).await.unwrap();
    one_payment(&api, &provider, &api.create(SHOP, "k", &unpaid()).await).await;

    let mut small = unpaid();
    small["amount_minor"] = json!(10);
    let refused = api.create(SHOP, "small", &small).await;
    assert_eq!((refused.status, refused.kind().as_str()), (422, "payment_refused"), "{}", refused.text);
    assert!(refused.text.contains("at least"), "{}", refused.text);

    let mut other = unpaid();
    other["provider"] = json!("paypal");
    let unknown = api.create(SHOP, "other", &other).await;
    assert_eq!((unknown.status, unknown.kind().as_str()), (422, "invalid_fields"));
    assert!(unknown.text.contains("payment_id"), "{}", unknown.text);
    let mut bad = unpaid();
    bad["retry"] = json!("often");
    assert!(api.create(SHOP, "bad", &bad).await.text.contains("must be backoff or never"));
    api.end().await;
}

#[tokio::test]
async fn no_new_attempt_is_opened_behind_the_back_of_one_that_was_sent_again() {
    let provider = Standin::start().await.unwrap();
    let api = Api::start_paying(&provider.base).await;
    faults(&provider, json!(["lose_request"])).await;
    assert_eq!(api.create(SHOP, "k", &once()).await.status, 502);
    let store = api.db.store(Profile::Requests);
    let order: OrderId = api.db.text("SELECT id::text FROM orders").await.parse().unwrap();
    let attempts = async || store.creation(order).await.unwrap().unwrap().attempts;

    // One call has found that it is time for a new attempt, while another repeats the last one.
    let seen = attempts().await;
    let later = NOW + Duration::hours(21);
    assert!(store.begin_attempt(order, 1, seen.clone(), later).await.unwrap());
    assert!(!store.begin_attempt(order, 2, seen, later).await.unwrap());
    assert!(store.begin_attempt(order, 2, attempts().await, later).await.unwrap());
    assert!(!store.begin_attempt(order, 1, attempts().await, later).await.unwrap(), "an old one is never sent again");
    api.end().await;
}

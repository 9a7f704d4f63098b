//! Creating orders: the form of the request, and exactly one order for repeated requests.

use super::server::{Answer, Api, KIOSK, NOW, SHOP, failed, order_for, paid};
use futures_util::future::join_all;
use grantonce::domain::{DisputePolicy, MessageId, OrderId, PaymentEvent, ProviderAccount, Reason};
use grantonce::store::{BatchTerms, Outcome};
use reqwest::Method;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

#[tokio::test]
async fn an_order_is_made_and_can_be_read() {
    let api = Api::start().await;
    let made = api.create(SHOP, "k", &order_for("pi_1")).await;
    assert_eq!(made.status, 201, "{}", made.text);
    let id = made.field("id").as_str().unwrap().to_owned();
    assert_eq!(made.header("location"), Some(format!("/v1/orders/{id}").as_str()));
    assert_eq!(made.header("cache-control"), Some("no-store"));
    assert_eq!(made.header("idempotent-replayed"), None);
    let mut expected = json!({
        "id": id, "status": "awaiting_payment", "version": 1, "credits": 500, "credits_granted": 0,
        "amount_minor": 1999, "currency": "USD", "payment": {"provider": "stripe", "payment_id": "pi_1"},
        "account_id": "user-42", "metadata": {"cart": "8271"}, "status_token": made.field("status_token"),
        "created_at": "2026-01-05T12:00:00.123456Z", "updated_at": "2026-01-05T12:00:00.123456Z"
    });
    assert_eq!(made.json(), expected);
    let read = api.get(&format!("/v1/orders/{id}")).await;
    assert_eq!(read.status, 200);
    expected.as_object_mut().unwrap().remove("status_token");
    assert_eq!(read.json(), expected);
    api.end().await;
}

#[tokio::test]
async fn a_repeated_call_is_given_the_same_bytes_whatever_has_become_of_the_order() {
    let api = Api::start().await;
    let mut order = order_for("pi_1");
    order["metadata"] = json!({"z": 1.5, "a": ["ä", null, true, {"q": -0.25}], "n": 9_007_199_254_740_993_i64});
    let first = api.create(SHOP, "k", &order).await;
    assert_eq!(first.status, 201, "{}", first.text);
    api.apply(NOW, vec![failed("pi_1", "declined"), paid("pi_1")]).await;
    let second = api.create(SHOP, "k", &order).await;
    assert_eq!(second.status, 201);
    assert_eq!(second.header("idempotent-replayed"), Some("true"));
    assert_eq!(second.header("location"), first.header("location"));
    assert_eq!(second.text, first.text);
    api.end().await;
}

#[tokio::test]
async fn the_same_request_may_be_written_in_another_way() {
    let api = Api::start().await;
    let send = |body: &'static str| {
        let request = api.bare(Method::POST, "/v1/orders").bearer_auth(SHOP).header("Idempotency-Key", "k");
        api.send(request.header("content-type", "Application/JSON; charset=utf-8").body(body))
    };
    let first = send(
        r#"{"account_id":"a","credits":5,"amount_minor":100,"currency":"EUR","provider":"p","payment_id":"x",
            "metadata":{"b":1,"a":2}}"#,
    )
    .await;
    assert_eq!(first.status, 201, "{}", first.text);
    let second = send(
        r#"{"metadata":{"a":2,"b":1}, "payment_id":"\u0078", "provider":"p", "currency":"EUR",
            "amount_minor":100, "credits":5, "account_id":"a"}"#,
    )
    .await;
    assert_eq!((second.status, second.text), (201, first.text));
    api.end().await;
}

#[tokio::test]
async fn a_key_stands_for_one_request_of_one_site() {
    let api = Api::start().await;
    api.order("pi_1").await;
    let other = api.create(SHOP, "pi_1", &order_for("pi_2")).await;
    assert_eq!((other.status, other.kind().as_str()), (422, "idempotency_key_reused"));
    let mut changed = order_for("pi_1");
    changed["metadata"] = json!({});
    let other = api.create(SHOP, "pi_1", &changed).await;
    assert_eq!((other.status, other.kind().as_str()), (422, "idempotency_key_reused"));
    // The same key from another site is another key.
    assert_eq!(api.create(KIOSK, "pi_1", &order_for("pi_2")).await.status, 201);
    assert_eq!(api.db.number("SELECT count(*) FROM orders").await, 2);
    api.end().await;
}

#[tokio::test]
async fn a_payment_belongs_to_one_order_for_ever() {
    let api = Api::start().await;
    api.order("pi_1").await;
    for (token, key) in [(SHOP, "other"), (KIOSK, "pi_1")] {
        let taken = api.create(token, key, &order_for("pi_1")).await;
        assert_eq!((taken.status, taken.kind().as_str()), (409, "payment_taken"));
    }
    // The refused call has not used up its key.
    assert_eq!(api.create(SHOP, "other", &order_for("pi_2")).await.status, 201);
    // Another provider's payment with the same id is another payment.
    let mut elsewhere = order_for("pi_1");
    elsewhere["provider"] = json!("paypal");
    assert_eq!(api.create(SHOP, "elsewhere", &elsewhere).await.status, 201);
    api.end().await;
}

/// Sends one order under each key, all at once. A 503 is repeated, as a site does: a busy machine has fewer connections than
/// callers.
async fn create_at_once(api: &Arc<Api>, keys: impl Iterator<Item = String>) -> Vec<Answer> {
    let calls = keys.map(|key| {
        let api = Arc::clone(api);
        tokio::spawn(async move {
            loop {
                let answer = api.create(SHOP, &key, &order_for("pi_1")).await;
                if answer.status != 503 {
                    return answer;
                }
            }
        })
    });
    join_all(calls).await.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_calls_with_one_key_one_makes_an_order_and_all_are_told_the_same() {
    let api = Arc::new(Api::start().await);
    let answers = create_at_once(&api, (0..100).map(|_| "k".to_owned())).await;
    let texts: BTreeSet<_> = answers.iter().map(|answer| (answer.status, answer.text.clone())).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert_eq!(answers[0].status, 201);
    let replayed = answers.iter().filter(|answer| answer.header("idempotent-replayed") == Some("true")).count();
    // A call with the answer 503 may have created it. Then all hundred are repetitions.
    assert!(replayed >= 99, "{replayed}");
    for table in ["orders", "payments", "idempotency_keys"] {
        assert_eq!(api.db.number(format!("SELECT count(*) FROM {table}")).await, 1, "{table}");
    }
    Arc::into_inner(api).unwrap().end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_hundred_keys_for_one_payment_one_makes_an_order() {
    let api = Arc::new(Api::start().await);
    let answers = create_at_once(&api, (0..100).map(|n| format!("k{n}"))).await;
    let count = |status| answers.iter().filter(|answer| answer.status == status).count();
    assert_eq!((count(201), count(409)), (1, 99));
    for table in ["orders", "payments", "idempotency_keys"] {
        assert_eq!(api.db.number(format!("SELECT count(*) FROM {table}")).await, 1, "{table}");
    }
    Arc::into_inner(api).unwrap().end().await;
}

#[tokio::test]
async fn what_is_not_of_the_right_form_is_refused_and_makes_nothing() {
    let api = Api::start().await;
    let request = || api.bare(Method::POST, "/v1/orders").bearer_auth(SHOP);
    let keyed = || request().header("Idempotency-Key", "k");
    let good = order_for("pi_1");

    let no_key = api.send(request().json(&good)).await;
    assert_eq!((no_key.status, no_key.kind().as_str()), (400, "idempotency_key_unusable"));
    let two_keys = api.send(keyed().header("Idempotency-Key", "l").json(&good)).await;
    assert_eq!((two_keys.status, two_keys.kind().as_str()), (400, "idempotency_key_unusable"));

    assert_eq!(api.send(keyed().body(good.to_string())).await.status, 415);
    let as_text = keyed().header("content-type", "text/plain").body(good.to_string());
    assert_eq!(api.send(as_text).await.status, 415);

    let json = |body: String| keyed().header("content-type", "application/json").body(body);
    for malformed in ["", "{", "[]", "\"x\"", "{} {}", r#"{"credits":1,"credits":2}"#, r#"{"metadata":1e999}"#] {
        assert_eq!(api.send(json(malformed.to_owned())).await.status, 400, "{malformed}");
    }
    let deep = format!(r#"{{"metadata":{}1{}}}"#, r#"{"a":"#.repeat(200), "}".repeat(200));
    assert_eq!(api.send(json(deep)).await.status, 400, "deeper than the parser goes");
    let half_a_pair = r#"{"metadata":{"a":"\ud800"}}"#;
    assert_eq!(api.send(json(half_a_pair.to_owned())).await.status, 400);

    let large = format!("{}{}", good, " ".repeat(256 * 1024));
    assert_eq!(api.send(json(large)).await.status, 413);

    let faulty = api.create(SHOP, "k", &json!({"credits": 0, "metadata": {"a": "\u{0}"}, "extra": true})).await;
    assert_eq!((faulty.status, faulty.kind().as_str()), (422, "invalid_fields"));
    assert_eq!(faulty.field("fields").as_array().unwrap().len(), 7);
    let fields = faulty.field("fields").to_string();
    assert!(fields.contains("currency"), "{fields}");
    let mut without = good.clone();
    without["payment_id"] = json!(null);
    let faulty = api.create(SHOP, "k", &without).await;
    assert_eq!((faulty.status, faulty.kind().as_str()), (422, "invalid_fields"));
    assert!(
        faulty.field("fields").to_string().contains("no API key of this provider is configured"),
        "{}",
        faulty.text
    );

    assert_eq!(api.db.number("SELECT count(*) FROM orders").await, 0);
    // None of these used up the key.
    assert_eq!(api.create(SHOP, "k", &good).await.status, 201);
    api.end().await;
}

#[tokio::test]
async fn only_sites_make_orders() {
    let api = Api::start().await;
    let post = || api.bare(Method::POST, "/v1/orders").header("Idempotency-Key", "k").json(&order_for("pi_1"));
    let made = api.create(SHOP, "other", &order_for("pi_2")).await;
    let status_token = made.field("status_token").as_str().unwrap().to_owned();
    for request in [
        post(),
        post().bearer_auth(""),
        post().bearer_auth("wrong"),
        post().bearer_auth(&SHOP[1..]),
        post().bearer_auth(&status_token),
        post().basic_auth("shop", Some(SHOP)),
        post().bearer_auth(SHOP).bearer_auth(KIOSK),
    ] {
        let refused = api.send(request).await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    assert_eq!(api.db.number("SELECT count(*) FROM orders").await, 1);
    api.end().await;
}

#[tokio::test]
async fn an_order_belongs_to_the_account_that_the_payment_belongs_to() {
    let api = Api::start().await;
    let mut theirs = order_for("pi_1");
    theirs["provider_account"] = json!("acct_1");
    let made = api.create(SHOP, "theirs", &theirs).await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(
        made.field("payment"),
        json!({"provider": "stripe", "provider_account": "acct_1", "payment_id": "pi_1"})
    );
    // A payment of another account with the same id is another payment, and the same key is another request.
    assert_eq!(api.create(SHOP, "theirs", &order_for("pi_1")).await.status, 422);
    let ours = api.create(SHOP, "ours", &order_for("pi_1")).await;
    assert_eq!(ours.status, 201, "{}", ours.text);

    let id: OrderId = made.field("id").as_str().unwrap().parse().unwrap();
    let said = |account: &str| PaymentEvent {
        provider_account: Some(ProviderAccount::new(account).unwrap()),
        order_id: Some(id),
        message_id: MessageId::new(format!("stripe:{account}:evt_1")).unwrap(),
        ..paid("pi_1")
    };
    // A seller pays for their own order, with our order's id in the metadata.
    let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: NOW };
    let forged = api.worker.apply(vec![said("acct_2")].into(), terms, crate::support::APPLYING).await.unwrap();
    assert!(matches!(&forged.outcomes[..], [Outcome::Refused(refusal)] if refusal.reason == Reason::AccountMismatch));
    assert_eq!(api.apply(NOW, vec![said("acct_1")]).await, [id]);
    let read = api.get(&format!("/v1/orders/{id}")).await;
    assert_eq!(
        (read.field("status"), &read.field("payment")["provider_account"]),
        (json!("fulfilled"), &json!("acct_1"))
    );
    let ours = api.get(&format!("/v1/orders/{}", ours.field("id").as_str().unwrap())).await;
    assert_eq!(ours.field("status"), "awaiting_payment");

    let mut by_paypal = theirs.clone();
    by_paypal["provider"] = json!("paypal");
    by_paypal.as_object_mut().unwrap().remove("payment_id");
    let refused = api.create(SHOP, "paypal", &by_paypal).await;
    assert_eq!(refused.status, 422);
    assert!(refused.text.contains("provider_account"), "{}", refused.text);
    api.end().await;
}

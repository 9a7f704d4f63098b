//! Processes are killed with SIGKILL between any two steps: nothing is lost and nothing doubled.
//!
//! The children are the real binary. The environment variable `FAILPOINT` tells them where to die.

use crate::support::world::STRIPE_SECRET;
use crate::support::{OrderSpec, World, captured, event_for, eventually, stripe_webhook};
use grantonce::broker::{DEAD_QUEUE, WORK_QUEUE};
use grantonce::failpoint::Failpoint;
use grantonce_testkit::children::Children;
use grantonce_testkit::provider::standin::Standin;
use reqwest::StatusCode;
use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

const START: Duration = Duration::from_secs(30);
const SIGKILL: i32 = 9;

/// Children that die at that place.
fn dying(children: Children, place: Failpoint) -> Children {
    let is_built_in = cfg!(feature = "failpoints");
    assert!(is_built_in, "nothing dies in this build: run `./dev test`, or cargo with --features failpoints");
    children.env("FAILPOINT", place.name())
}

/// A worker dies at that place with 20 events in hand. Another worker then finishes them.
async fn worker_dies_at(place: Failpoint) {
    let world = World::new().await;
    world.orders(20).await;
    let events: Vec<_> = (0..20).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect();
    world.publish_all(&events).await;

    let mut victim = dying(world.children(), place).start("victim", &["worker"]).await.unwrap();
    let status = victim.ended(START).await.unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "it dies where it was told to: {}", victim.tail());
    let written = place == Failpoint::AfterCommit;
    eventually("the broker has its deliveries back", async || world.ready(WORK_QUEUE).await == 20).await;
    let grants = world.grants().await;
    if written {
        assert!(grants > 0, "it died after a commit");
    } else {
        assert_eq!(grants, 0, "it died before any commit");
    }

    let worker = world.start_worker();
    eventually("all are granted", async || world.grants().await == 20).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await, world.ready(DEAD_QUEUE).await), (20, 20, 0));
    assert_eq!(world.count("SELECT sum(credits)::bigint FROM account_balances").await, 20 * 100);
    world.verify().await;
}

#[tokio::test]
async fn a_worker_killed_after_begin_loses_nothing() {
    worker_dies_at(Failpoint::AfterBegin).await;
}

#[tokio::test]
async fn a_worker_killed_before_its_commit_loses_nothing() {
    worker_dies_at(Failpoint::BeforeCommit).await;
}

#[tokio::test]
async fn a_worker_killed_between_commit_and_ack_doubles_nothing() {
    worker_dies_at(Failpoint::AfterCommit).await;
}

#[tokio::test]
async fn a_worker_killed_between_retry_publish_and_ack_neither_loses_nor_doubles() {
    let world = World::new().await;
    world.publish(&event_for("pi_late", "evt_1", captured(1999))).await;
    let place = Failpoint::AfterRetryPublish;
    let mut victim = dying(world.children(), place).start("victim", &["worker"]).await.unwrap();
    let status = victim.ended(START).await.unwrap();
    assert_eq!(status.signal(), Some(SIGKILL), "{}", victim.tail());
    // The original comes back, and the copy comes out of the retry queue: one message, twice.
    eventually("both are in the work queue", async || world.ready(WORK_QUEUE).await == 2).await;
    world.order(OrderSpec::paid_by("pi_late")).await;
    let worker = world.start_worker();
    eventually("it is granted", async || world.grants().await == 1).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await, world.ready(DEAD_QUEUE).await), (1, 1, 0));
}

#[tokio::test]
async fn a_receiver_killed_between_confirm_and_answer_doubles_nothing_when_the_provider_sends_again() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let (body, signature) = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, None);
    let place = Failpoint::AfterConfirm;
    let mut victim = dying(world.children(), place).start("victim", &["receiver"]).await.unwrap();
    let address = victim.listening("receiver", START).await.unwrap();
    let http = grantonce::http::plain_client().build().unwrap();
    let post = |url: String| http.post(url).header("stripe-signature", signature.clone()).body(body.clone()).send();
    let url = format!("http://{address}/webhooks/stripe");
    // It answers 503 until it has its connection. Then it dies without an answer.
    eventually("the receiver dies without an answer", async || match post(url.clone()).await {
        Ok(answer) => {
            assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE, "no 2xx before the provider may forget it");
            false
        }
        Err(_broken_off) => true,
    })
    .await;
    assert_eq!(victim.ended(START).await.unwrap().signal(), Some(SIGKILL), "{}", victim.tail());
    eventually("the message is in the queue", async || world.ready(WORK_QUEUE).await == 1).await;

    let mut receiver = world.children().start("receiver", &["receiver"]).await.unwrap();
    let address = receiver.listening("receiver", START).await.unwrap();
    eventually("the provider's retry is accepted", async || {
        post(format!("http://{address}/webhooks/stripe")).await.is_ok_and(|answer| answer.status() == StatusCode::OK)
    })
    .await;
    let worker = world.start_worker();
    eventually("it is granted", async || world.grants().await == 1).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (1, 1));
}

/// The API dies at that place while it creates the payment of an order. The repeated call ends with one order and one payment. When
/// the buyer has paid, the credits come, although no webhook is sent.
async fn api_dies_at(place: Failpoint, made_before: usize) {
    const TOKEN: &str = "shop-token-shop-token";
    let world = World::new().await;
    let provider = Standin::start().await.unwrap();
    let api = || {
        world
            .children()
            .env("GRANTONCE_API_TOKENS", format!("shop:{TOKEN}"))
            .env("GRANTONCE_STATUS_TOKEN_KEY", "status-key-status-key-status-key-0")
            .env("GRANTONCE_STRIPE_API_KEY", "sk_test_1")
            .env("GRANTONCE_STRIPE_API_BASE", &provider.base)
            .env("GRANTONCE_RECONCILE_AFTER", "100ms")
    };
    let http = grantonce::http::plain_client().no_proxy().build().unwrap();
    let order = serde_json::json!({
        "account_id": "acc", "credits": 100, "amount_minor": 1999, "currency": "USD", "provider": "stripe"
    });
    let post = async |address: std::net::SocketAddr| {
        let request = http.post(format!("http://{address}/v1/orders")).bearer_auth(TOKEN);
        request.header("idempotency-key", "k").json(&order).send().await
    };
    let made = async || -> Vec<serde_json::Value> {
        let list = http.get(format!("{}/v1/payment_intents", provider.base)).bearer_auth("sk_test_1");
        let list: serde_json::Value = list.send().await.unwrap().json().await.unwrap();
        list["data"].as_array().unwrap().clone()
    };

    let mut victim = dying(api(), place).start("victim", &["api"]).await.unwrap();
    let address = victim.listening("api", START).await.unwrap();
    assert!(post(address).await.is_err(), "it dies without an answer");
    assert_eq!(victim.ended(START).await.unwrap().signal(), Some(SIGKILL), "{}", victim.tail());
    assert_eq!(made().await.len(), made_before);

    let mut survivor = api().start("survivor", &["api"]).await.unwrap();
    let address = survivor.listening("api", START).await.unwrap();
    let answer = post(address).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let answer: serde_json::Value = answer.json().await.unwrap();
    let made = made().await;
    assert_eq!(made.len(), 1, "{made:?}");
    assert_eq!(made[0]["id"], answer["payment"]["payment_id"]);
    assert_eq!(made[0]["metadata"]["order_id"], answer["id"]);
    assert_eq!(world.count("SELECT count(*) FROM orders").await, 1);
    assert_eq!(world.count("SELECT count(*) FROM payments").await, 1);

    let pay = format!("{}/payments/{}/pay", provider.base, made[0]["id"].as_str().unwrap());
    http.post(pay).json(&serde_json::json!({"outcome": "succeeded"})).send().await.unwrap();
    let _reconciler = api().start("reconciler", &["reconciler"]).await.unwrap();
    let worker = world.start_worker();
    eventually("the credits are there", async || world.grants().await == 1).await;
    world.settled(worker).await;
}

#[tokio::test]
async fn an_api_killed_between_order_and_attempt_makes_one_payment() {
    api_dies_at(Failpoint::AfterOrder, 0).await;
}

#[tokio::test]
async fn an_api_killed_between_attempt_and_call_makes_one_payment() {
    api_dies_at(Failpoint::BeforePaymentCall, 0).await;
}

#[tokio::test]
async fn an_api_killed_between_call_and_record_makes_one_payment() {
    api_dies_at(Failpoint::AfterPaymentCall, 1).await;
}

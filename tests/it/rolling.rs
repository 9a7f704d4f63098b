//! How a process ends. First it reports that it is not ready, then it serves every request for a while, and then it accepts nothing
//! new. So no request fails in a rolling update.

use crate::support::balancer::{Balancer, Client, LAG};
use crate::support::{OrderSpec, World, eventually, stripe_webhook, world::STRIPE_SECRET};
use grantonce::http::plain_client;
use grantonce_testkit::children::{Child, Children};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

const START: Duration = Duration::from_secs(30);
const TOKEN: &str = "shop-token-shop-token";
const BUYERS: usize = 6;

/// Longer than the balancer needs to notice.
const DELAY: Duration = LAG.saturating_add(Duration::from_millis(1_500));

fn children(world: &World, delay: Duration) -> Children {
    world
        .children()
        .env("GRANTONCE_SHUTDOWN_DELAY", format!("{}ms", delay.as_millis()))
        .env("GRANTONCE_API_TOKENS", format!("shop:{TOKEN}"))
        .env("GRANTONCE_STATUS_TOKEN_KEY", "a-key-for-the-tests-only-a-key-for-the-tests")
        .env("GRANTONCE_OPS_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_OPS_TOKENS", "ada:a-token-of-ada-for-the-tests")
}

/// Starts two instances of a role. Returns their addresses, too.
async fn two(children: &Children, role: &str) -> ([Child; 2], [SocketAddr; 2]) {
    let mut both = [
        children.start(&format!("{role}-0"), &[role]).await.unwrap(),
        children.start(&format!("{role}-1"), &[role]).await.unwrap(),
    ];
    let listener = if role == "worker" { "metrics" } else { role };
    let [first, second] = &mut both;
    let addresses = [first.listening(listener, START).await.unwrap(), second.listening(listener, START).await.unwrap()];
    (both, addresses)
}

/// Buys again and again: creates an order, sends its webhook and waits for its credits. Returns the failures.
async fn buy(
    buyer: usize,
    api: SocketAddr,
    receiver: SocketAddr,
    bought: Arc<AtomicUsize>,
    stop: CancellationToken,
) -> Vec<String> {
    let (mut api, mut receiver, mut failures) = (Client::new(api), Client::new(receiver), vec![]);
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    for n in 0.. {
        if stop.is_cancelled() {
            break;
        }
        let payment = format!("pi_{buyer}_{n}");
        let order = json!({"account_id": "acc", "credits": 100, "amount_minor": 1999, "currency": "USD",
                           "provider": "stripe", "payment_id": payment, "metadata": {}});
        let head = format!(
            "POST /v1/orders HTTP/1.1\r\n{bearer}idempotency-key: {payment}\r\ncontent-type: application/json\r\n"
        );
        let order = match api.ask(&head, order.to_string().as_bytes()).await {
            Ok((201, order)) => serde_json::from_str::<Value>(&order).unwrap()["id"].as_str().unwrap().to_owned(),
            other => {
                failures.push(format!("{payment}: creating the order: {other:?}"));
                continue;
            }
        };
        let (webhook, signature) = stripe_webhook(STRIPE_SECRET, &format!("evt_{payment}"), &payment, 1999, None);
        let head = format!("POST /webhooks/stripe HTTP/1.1\r\nstripe-signature: {signature}\r\n");
        match receiver.ask(&head, &webhook).await {
            Ok((200..300, _)) => {}
            other => failures.push(format!("{payment}: the webhook: {other:?}")),
        }
        let head = format!("GET /v1/orders/{order}?wait=5 HTTP/1.1\r\n{bearer}");
        loop {
            match api.ask(&head, b"").await {
                Ok((200, order)) if order.contains("\"credits_granted\":100,") => break,
                Ok((200, _)) => {}
                other => {
                    failures.push(format!("{payment}: waiting: {other:?}"));
                    break;
                }
            }
        }
        bought.fetch_add(1, Ordering::Relaxed);
        // The buyers' connections are idle for different times.
        sleep(Duration::from_millis(50 * u64::try_from(buyer * buyer).unwrap())).await;
    }
    failures
}

#[tokio::test]
async fn o13_a_rolling_update_under_load_fails_no_request() {
    let world = World::new().await;
    let children = children(&world, DELAY);
    let (mut workers, _) = two(&children, "worker").await;
    let (mut receivers, receiver_addresses) = two(&children, "receiver").await;
    let (mut apis, api_addresses) = two(&children, "api").await;
    let (receiver, api) = (Balancer::start(&receiver_addresses).await, Balancer::start(&api_addresses).await);
    eventually("all are ready", async || receiver.is_whole() && api.is_whole()).await;

    let (bought, stop) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let mut buyers = JoinSet::new();
    for buyer in 0..BUYERS {
        buyers.spawn(buy(buyer, api.address, receiver.address, Arc::clone(&bought), stop.clone()));
    }
    let goes_on = async || {
        let before = bought.load(Ordering::Relaxed);
        eventually("buyers buy", async || bought.load(Ordering::Relaxed) > before + BUYERS).await;
    };
    goes_on().await;
    for n in 0..2 {
        for (instances, balancer, role) in [
            (&mut receivers, Some(&receiver), "receiver"),
            (&mut apis, Some(&api), "api"),
            (&mut workers, None, "worker"),
        ] {
            let instance = &mut instances[n];
            assert_eq!(instance.terminate(START).await.unwrap().code(), Some(0), "{role}: {}", instance.tail());
            instance.restart().await.unwrap();
            match balancer {
                Some(balancer) => {
                    balancer.replace(n, instance.listening(role, START).await.unwrap());
                    eventually("the new instance is ready", async || balancer.is_whole()).await;
                }
                None => instance.consuming(START).await.unwrap(),
            }
            goes_on().await;
        }
    }
    stop.cancel();
    let failures = buyers.join_all().await.concat();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    let bought = i64::try_from(bought.load(Ordering::Relaxed)).unwrap();
    assert_eq!(world.grants().await, bought);
    assert_eq!(world.count("SELECT sum(credits)::bigint FROM credit_grants").await, 100 * bought);
    assert_eq!(world.count("SELECT count(*) FROM orders").await, bought);
    world.verify().await;
}

#[tokio::test]
async fn o13_a_process_is_not_ready_first_and_serves_everything_until_its_delay_is_over() {
    let world = World::new().await;
    let delay = Duration::from_secs(5);
    let mut all = children(&world, delay).start("all", &["all"]).await.unwrap();
    let metrics = all.listening("metrics", START).await.unwrap();
    let receiver = all.listening("receiver", START).await.unwrap();
    let api = all.listening("api", START).await.unwrap();
    all.consuming(START).await.unwrap();
    let http = plain_client().timeout(START).build().unwrap();
    let ready = async |address: SocketAddr| {
        let answer = http.get(format!("http://{address}/readyz")).send().await.unwrap();
        let status = answer.status();
        (status, answer.text().await.unwrap())
    };
    eventually("it is ready", async || ready(metrics).await.0 == 200).await;

    all.signal(Signal::TERM).unwrap();
    eventually("it is not ready", async || ready(metrics).await.0 == 503).await;
    for address in [metrics, receiver, api] {
        let (status, said) = ready(address).await;
        assert!(status == 503 && said.contains("accepting"), "{said}");
    }
    // New connections are accepted, and the order of a webhook is granted: the worker also continues.
    world.order(OrderSpec::paid_by("pi_1")).await;
    let (webhook, signature) = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, None);
    let head = format!("POST /webhooks/stripe HTTP/1.1\r\nstripe-signature: {signature}\r\n");
    assert_eq!(Client::new(receiver).ask(&head, &webhook).await.map(|(status, _)| status), Ok(200));
    eventually("it is granted", async || world.grants().await == 1).await;
    assert!(all.try_ended().unwrap().is_none());
    assert_eq!(all.ended(START).await.unwrap().code(), Some(0));
    for address in [metrics, receiver, api] {
        assert!(TcpStream::connect(address).await.is_err());
    }
}

#[tokio::test]
async fn o13_a_worker_and_a_developer_wait_for_no_balancer() {
    let world = World::new().await;
    // The delay is longer than the test waits.
    let children = children(&world, Duration::from_secs(600));
    for (role, signal) in [("worker", Signal::TERM), ("all", Signal::INT)] {
        let mut child = children.start(role, &[role]).await.unwrap();
        child.consuming(START).await.unwrap();
        child.signal(signal).unwrap();
        assert_eq!(child.ended(START).await.unwrap().code(), Some(0), "{role}");
    }
}

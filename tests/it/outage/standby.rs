//! A synchronous standby is away: commits hang, and no timeout of the server ends them.

use super::{START, all_granted_once, given_back, more_grants, publishing, world_on};
use crate::support::{OrderSpec, PrivateServers, Server, World, eventually, eventually_within};
use grantonce::domain::OrderId;
use grantonce::http::plain_client;
use grantonce_testkit::children::{Child, Children};
use sqlx::Executor as _;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Long enough for every role to wait in vain several times.
const OUTAGE: Duration = Duration::from_secs(50);

const TOKEN: &str = "shop-token-shop-token";

/// The most connections of each role, and one more connection to end abandoned ones.
const BOUNDS: [(&str, i64); 4] = [("worker", 8 + 1), ("api", 17 + 1), ("ops", 8 + 1), ("reconciler", 4 + 1)];

/// Makes commits wait for a standby that does not exist, or ends that.
async fn commits_hang(world: &World, hang: bool) {
    let names = if hang { "ALTER SYSTEM SET synchronous_standby_names = 'nobody'" } else { "ALTER SYSTEM RESET ALL" };
    world.sql.execute(names).await.unwrap();
    world.sql.execute("SELECT pg_reload_conf()").await.unwrap();
}

async fn backends(world: &World) -> i64 {
    world.count("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'grantonce'").await
}

async fn in_a_commit(world: &World) -> i64 {
    world.count("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").await
}

/// Each role except the worker, in its own process.
async fn others(world: &World) -> BTreeMap<&'static str, (Child, SocketAddr)> {
    let children = world
        .children()
        .env("GRANTONCE_API_TOKENS", format!("shop:{TOKEN}"))
        .env("GRANTONCE_STATUS_TOKEN_KEY", "a-key-for-the-tests-only-a-key-for-the-tests")
        .env("GRANTONCE_OPS_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_OPS_TOKENS", "ada:a-token-of-ada-for-the-tests")
        .env("GRANTONCE_STRIPE_API_KEY", "sk_test_1")
        .env("GRANTONCE_STRIPE_API_BASE", "http://127.0.0.1:1");
    let mut all = BTreeMap::new();
    for role in ["api", "ops", "reconciler"] {
        let mut child = children.start(role, &[role]).await.unwrap();
        let listener = if role == "api" { "api" } else { "metrics" };
        let address = child.listening(listener, START).await.unwrap();
        all.insert(role, (child, address));
    }
    all
}

/// Sends one order with one key until it is created. Returns the number of attempts.
async fn create(http: reqwest::Client, api: SocketAddr, n: usize) -> usize {
    let order = serde_json::json!({
        "account_id": "buyer", "credits": 5, "amount_minor": 500, "currency": "USD",
        "provider": "stripe", "payment_id": format!("pi_api_{n}"),
    });
    for tries in 1.. {
        let request = http.post(format!("http://{api}/v1/orders")).bearer_auth(TOKEN);
        let answer = request.header("Idempotency-Key", format!("key-{n}")).json(&order).send().await.unwrap();
        match answer.status().as_u16() {
            200 | 201 => return tries,
            503 => {}
            other => panic!("{other}: {}", answer.text().await.unwrap()),
        }
        // A client that gets this answer waits and tries again.
        sleep(Duration::from_millis(500)).await;
    }
    unreachable!()
}

#[tokio::test(flavor = "multi_thread")]
async fn o10_connections_stay_bounded_while_commits_hang_and_nothing_is_lost_or_doubled() {
    let servers = PrivateServers::start(Server::Postgres).await;
    let world = world_on(&servers).await;
    let order = world.order(OrderSpec::paid_by("pi_amended")).await;
    let others = others(&world).await;
    let worker = world.start_worker();
    let traffic = publishing(&world);
    more_grants(&world, 20).await;
    let api = others["api"].1;
    let http = plain_client().build().unwrap();
    create(http.clone(), api, 0).await;

    commits_hang(&world, true).await;
    let began = Instant::now();
    let creating: Vec<_> = (1..=40).map(|n| tokio::spawn(create(http.clone(), api, n))).collect();
    let amending = tokio::spawn(amend_in_vain(world.children(), order));
    let bound: i64 = BOUNDS.iter().map(|(_, most)| most).sum();
    let (mut most, mut most_waiting, mut read) = (0, 0, 0);
    // The test needs an outage of this length.
    while began.elapsed() < OUTAGE {
        // The command has a connection for its work, and one to end abandoned connections.
        most = most.max(backends(&world).await);
        most_waiting = most_waiting.max(in_a_commit(&world).await);
        let request = http.get(format!("http://{api}/v1/orders/{order}")).bearer_auth(TOKEN);
        let is_told = request.send().await.unwrap().status() == 200;
        assert!(is_told, "an order can be read all the time");
        read += 1;
        sleep(Duration::from_millis(200)).await;
    }
    assert!(most <= bound + 2, "{most} sessions, at most {bound} are allowed");
    assert!(most_waiting > 15, "only {most_waiting} sessions waited in a commit: this test shows nothing");
    assert!(given_back(&worker) > 0 && read > 20, "{read} times read");
    amending.await.unwrap();
    let said = std::fs::read_to_string(others["api"].0.log_path()).unwrap();
    assert!(said.contains("waiting for a commit that does not end"), "{said}");
    assert!(said.lines().count() < 5_000, "the API has written {} lines", said.lines().count());

    commits_hang(&world, false).await;
    for creating in creating {
        let tries = tokio::time::timeout(Duration::from_secs(60), creating).await.expect("orders are made").unwrap();
        assert!(tries < 100, "{tries} tries");
    }
    let made = world.count("SELECT count(*) FROM payments WHERE payment_id LIKE 'pi_api_%'").await;
    assert_eq!(made, 41, "each order is made once");
    let long = Duration::from_secs(120);
    let before = world.grants().await;
    eventually_within(long, "the worker continues", async || world.grants().await > before).await;
    let sent = traffic.stop().await;
    eventually_within(long, "the waiting payments are granted", async || world.grants().await == sent).await;
    eventually("no session of the outage is left", async || backends(&world).await <= bound).await;
    all_granted_once(&world, worker, sent).await;
}

/// A command that cannot commit reports no success and does not wait for ever.
async fn amend_in_vain(children: Children, order: OrderId) {
    let order = order.to_string();
    let amend = ["orders", "amend", &order, "--amount-minor", "1599", "--currency", "USD", "--reason", "test"];
    let error =
        children.run("amend", &amend, Duration::from_secs(40)).await.expect_err("a commit that hangs is no success");
    assert_eq!(error.exit_code(), Some(3), "{error}");
}

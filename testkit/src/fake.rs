//! A receiver and an API in one, in memory, for the tests of the demo itself. There are a correct one, and faulty ones whose faults
//! the demo must find.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on says so by failing")]

use crate::OrderId;
use crate::lock;
use crate::provider::payment::Seller;
use crate::sign::{standard_signature, stripe_signature};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::watch;

/// The token that the API accepts.
pub const TOKEN: &str = "a-token";
/// The secret of Stripe's webhooks.
pub const STRIPE_SECRET: &str = "whsec_stripe";
/// The secret of Standard Webhooks.
pub const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// The fault of the fake system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The system works correctly.
    None,
    /// Every seventh request of any kind is answered with 503, and every fifth order is accepted but not confirmed.
    Flaky,
    /// Two events that report a payment as paid make two grants.
    GrantsPerEvent,
    /// A failed attempt makes a grant.
    GrantsFailures,
    /// A webhook that comes before its order is forgotten.
    ForgetsEarly,
}

/// The fake system. All clones share one state.
#[derive(Clone)]
pub struct Fake {
    fault: Fault,
    state: Arc<Mutex<Ledger>>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct Ledger {
    requests: u64,
    orders: HashMap<OrderId, Order>,
    by_payment: HashMap<String, OrderId>,
    by_key: HashMap<String, OrderId>,
    events: HashSet<String>,
    /// Reports of payments that no order has yet: true means paid.
    early: HashMap<String, Vec<bool>>,
    balances: HashMap<String, i64>,
    webhooks: u64,
}

struct Order {
    account_id: String,
    credits: i64,
    is_granted: bool,
    version: u64,
}

impl Fake {
    /// Starts the system. Returns its address: `http://127.0.0.1:…`.
    pub async fn start(fault: Fault) -> (Self, String) {
        let fake = Self { fault, state: Arc::default(), changed: watch::Sender::new(0) };
        let router = Router::new()
            .route("/webhooks/{provider}", post(webhook))
            .route("/v1/orders", post(place))
            .route("/v1/orders/{id}", get(order))
            .route("/v1/accounts/{id}/balance", get(balance))
            .with_state(fake.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (fake, base)
    }

    /// The number of accepted webhooks.
    pub fn webhooks(&self) -> u64 {
        lock(&self.state).webhooks
    }

    fn is_down(&self) -> bool {
        let mut ledger = lock(&self.state);
        ledger.requests += 1;
        self.fault == Fault::Flaky && ledger.requests.is_multiple_of(7)
    }

    fn apply(&self, ledger: &mut Ledger, order_id: OrderId, is_paid: bool) {
        let order = ledger.orders.get_mut(&order_id).unwrap();
        let grants = is_paid || self.fault == Fault::GrantsFailures;
        if grants && (!order.is_granted || self.fault == Fault::GrantsPerEvent) {
            order.is_granted = true;
            *ledger.balances.entry(order.account_id.clone()).or_default() += order.credits;
        }
        order.version += 1;
        self.changed.send_modify(|changed| *changed += 1);
    }
}

fn view(id: OrderId, order: &Order) -> Value {
    let status = if order.is_granted { "fulfilled" } else { "awaiting_payment" };
    json!({"id": id, "status": status, "version": order.version, "credits": order.credits})
}

/// Event id, payment id, order id, and whether the event means paid. `None` if the event has no effect.
fn read(seller: Seller, body: &Value) -> Option<(String, String, Option<OrderId>, bool)> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match seller {
        Seller::Stripe => {
            let object = &body["data"]["object"];
            let kind = body["type"].as_str()?;
            if kind == "payment_intent.created" {
                return None;
            }
            let payment = text(&object["payment_intent"]).or(text(&object["id"]))?;
            let order = object["metadata"]["order_id"].as_str().and_then(|id| id.parse().ok());
            let is_paid = matches!(kind, "payment_intent.succeeded" | "checkout.session.completed");
            Some((text(&body["id"])?, payment, order, is_paid))
        }
        Seller::Paypal => None,
        Seller::Standard => {
            let order = body["order_id"].as_str().and_then(|id| id.parse().ok());
            let is_paid = body["status"]["type"] == "captured";
            Some((text(&body["message_id"])?, text(&body["payment_id"])?, order, is_paid))
        }
    }
}

async fn webhook(
    State(fake): State<Fake>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    if fake.is_down() {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (seller, given, right) = if provider == "stripe" {
        let given = header("stripe-signature");
        let timestamp = given.split(['=', ',']).nth(1).unwrap().parse().unwrap();
        (Seller::Stripe, given, stripe_signature(STRIPE_SECRET, timestamp, &body).unwrap())
    } else {
        let timestamp = header("webhook-timestamp").parse().unwrap();
        let right = standard_signature(STANDARD_SECRET, &header("webhook-id"), timestamp, &body).unwrap();
        (Seller::Standard, header("webhook-signature"), right)
    };
    if given != right {
        return StatusCode::UNAUTHORIZED;
    }
    let mut ledger = lock(&fake.state);
    ledger.webhooks += 1;
    let body: Value = serde_json::from_slice(&body).unwrap();
    let Some((event, payment, order_id, is_paid)) = read(seller, &body) else { return StatusCode::OK };
    if !ledger.events.insert(event) {
        return StatusCode::OK;
    }
    match order_id.filter(|id| ledger.orders.contains_key(id)).or(ledger.by_payment.get(&payment).copied()) {
        Some(order_id) => fake.apply(&mut ledger, order_id, is_paid),
        None if fake.fault == Fault::ForgetsEarly => {}
        None => ledger.early.entry(payment).or_default().push(is_paid),
    }
    StatusCode::OK
}

fn is_allowed(headers: &HeaderMap) -> bool {
    headers.get("authorization").is_some_and(|given| given == &format!("Bearer {TOKEN}"))
}

async fn place(State(fake): State<Fake>, headers: HeaderMap, Json(new): Json<Value>) -> Response {
    if !is_allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if fake.is_down() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut ledger = lock(&fake.state);
    let key = headers["idempotency-key"].to_str().unwrap().to_owned();
    if let Some(id) = ledger.by_key.get(&key) {
        return (StatusCode::CREATED, Json(view(*id, &ledger.orders[id]))).into_response();
    }
    let id = OrderId::now_v7();
    let payment = new["payment_id"].as_str().unwrap().to_owned();
    assert!(ledger.by_payment.insert(payment.clone(), id).is_none(), "a payment belongs to one order");
    let account_id = new["account_id"].as_str().unwrap().to_owned();
    let order = Order { account_id, credits: new["credits"].as_i64().unwrap(), is_granted: false, version: 1 };
    let answer = view(id, &order);
    ledger.orders.insert(id, order);
    ledger.by_key.insert(key, id);
    for is_paid in ledger.early.remove(&payment).unwrap_or_default() {
        fake.apply(&mut ledger, id, is_paid);
    }
    if fake.fault == Fault::Flaky && ledger.orders.len().is_multiple_of(5) {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    (StatusCode::CREATED, Json(answer)).into_response()
}

async fn order(
    State(fake): State<Fake>,
    Path(id): Path<OrderId>,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
) -> Response {
    if !is_allowed(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if fake.is_down() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let number = |name: &str| query.get(name).map(|value| value.parse::<u64>().unwrap());
    let (wait_s, since) = (number("wait").unwrap_or(0), number("since").unwrap_or(0));
    let mut changed = fake.changed.subscribe();
    let is_new = |_: &u64| lock(&fake.state).orders.get(&id).is_none_or(|order| order.version > since);
    let _ = tokio::time::timeout(Duration::from_secs(wait_s), changed.wait_for(is_new)).await;
    match lock(&fake.state).orders.get(&id) {
        Some(order) => Json(view(id, order)).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn balance(State(fake): State<Fake>, Path(id): Path<String>) -> Response {
    if fake.is_down() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    match lock(&fake.state).balances.get(&id) {
        Some(credits) => Json(json!({"account_id": id, "credits": credits})).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

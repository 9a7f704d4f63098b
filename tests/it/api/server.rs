//! The running API, and payments that are applied without its knowledge, as the worker does it.

use super::contract::Contract;
use crate::support::db::TestDb;
use grantonce::address::DatabaseAddress;
use grantonce::api;
use grantonce::clock::Clock;
use grantonce::config::{ApiConfig, DatabaseConfig, NamedToken, ProvidersConfig, StripeApi};
use grantonce::domain::{
    CaptureState, Currency, DisputePolicy, FactId, MessageId, Money, OrderId, PaymentEvent, PaymentId, PaymentStatus,
    Provider, RefundState,
};
use grantonce::followed::Followed;
use grantonce::http::{KEEP_ALIVE_DEFAULT, Readiness, bind};
use grantonce::shutdown::Shutdown;
use grantonce::store::{BatchTerms, Outcome, Profile, Store};
use grantonce::telemetry::Metrics;
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The token of the site "shop".
pub(crate) const SHOP: &str = "shop-token-shop-token-shop-token-1";
/// The token of another site of the same deployment.
pub(crate) const KIOSK: &str = "kiosk-token-kiosk-token-kiosk-tok-2";
/// The key of status tokens.
pub(crate) const STATUS_KEY: &str = "status-key-status-key-status-key-0";
/// When a provider is asked for the first time.
pub(crate) const FIRST_LOOK_AFTER: Duration = Duration::from_secs(120);
/// The time of the tests' clock, with nanoseconds that Postgres does not store.
pub(crate) const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00.123456789 UTC);

/// An answer with its whole body.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    /// The body.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// A field of the body.
    pub(crate) fn field(&self, name: &str) -> Value {
        self.json()[name].clone()
    }

    /// The kind of problem.
    pub(crate) fn kind(&self) -> String {
        let kind = self.field("type");
        let kind = kind.as_str().unwrap_or_else(|| panic!("no problem: {}", self.text));
        kind.trim_start_matches("urn:grantonce:problem:").to_owned()
    }

    /// A header of the answer.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

/// The API of one test.
pub(crate) struct Api {
    pub(crate) db: TestDb,
    pub(crate) metrics: Metrics,
    pub(crate) stop: CancellationToken,
    pub(crate) worker: Store,
    pub(crate) base: String,
    pub(crate) clock: Clock,
    client: Client,
    contract: Contract,
    served: JoinHandle<Result<(), api::ApiError>>,
}

impl Api {
    /// Starts an API on a database of its own.
    pub(crate) async fn start() -> Self {
        let db = TestDb::create().await;
        let url = db.address();
        Self::start_on(db, url).await
    }

    /// Starts an API that creates payments at a provider with Stripe's API.
    pub(crate) async fn start_paying(base: &str) -> Self {
        let db = TestDb::create().await;
        let url = db.address();
        let stripe = StripeApi { key: grantonce::followed::Followed::new("sk_test_1".into()), base: base.to_owned() };
        Self::start_with(db, url, ProvidersConfig { stripe: Some(stripe), paypal: None }).await
    }

    /// Starts an API with its database at `url`.
    pub(crate) async fn start_on(db: TestDb, url: Followed<DatabaseAddress>) -> Self {
        Self::start_with(db, url, ProvidersConfig { stripe: None, paypal: None }).await
    }

    async fn start_with(db: TestDb, url: Followed<DatabaseAddress>, providers: ProvidersConfig) -> Self {
        let listener = bind("api", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let base = format!("http://{}", listener.local_addr());
        let token = |name: &str, token: &str| NamedToken { name: name.to_owned(), token: token.into() };
        let config = ApiConfig {
            addr: listener.local_addr(),
            keep_alive: KEEP_ALIVE_DEFAULT,
            database: DatabaseConfig { url },
            tokens: Followed::new(vec![token("shop", SHOP), token("kiosk", KIOSK)]),
            status_token_key: Followed::new(STATUS_KEY.into()),
            cors_origins: vec![],
            providers,
            first_look_after: FIRST_LOOK_AFTER,
        };
        let (metrics, shutdown) = (Metrics::new(), Shutdown::manual());
        let stop = shutdown.token();
        let clock = Clock::fixed(NOW);
        let run = api::run_on(listener, config, clock.clone(), metrics.clone(), Readiness::new(), shutdown);
        Self {
            worker: db.store(Profile::Batches),
            db,
            metrics,
            stop,
            base,
            clock,
            client: grantonce::http::plain_client().no_proxy().build().unwrap(),
            contract: Contract::read(),
            served: tokio::spawn(run),
        }
    }

    /// Asks it to stop and waits until it has.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        self.served.await.unwrap().unwrap();
    }

    /// A request without any token.
    pub(crate) fn bare(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.base))
    }

    /// Sends a request, and compares the answer with the contract.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Answer {
        let request = request.build().unwrap();
        let (method, path) = (request.method().clone(), request.url().path().to_owned());
        let response = self.client.execute(request).await.unwrap();
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let answer = Answer { status, headers, text: response.text().await.unwrap() };
        let media_type = answer.header("content-type").unwrap_or_default();
        self.contract.hold(&method, &path, (answer.status, media_type, &answer.text));
        answer
    }

    /// Sends GET with the shop's token.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.bare(Method::GET, path).bearer_auth(SHOP)).await
    }

    /// Sends `POST /v1/orders` with a token.
    pub(crate) async fn create(&self, token: &str, key: &str, order: &Value) -> Answer {
        let request = self.bare(Method::POST, "/v1/orders").bearer_auth(token);
        self.send(request.header("Idempotency-Key", key).json(order)).await
    }

    /// An order of the shop for this payment.
    pub(crate) async fn order(&self, payment_id: &str) -> OrderId {
        let answer = self.create(SHOP, payment_id, &order_for(payment_id)).await;
        assert_eq!(answer.status, 201, "{}", answer.text);
        answer.field("id").as_str().unwrap().parse().unwrap()
    }

    /// Applies a provider's report as the worker does, without an announcement. Returns the changed orders.
    pub(crate) async fn apply(&self, at: OffsetDateTime, events: Vec<PaymentEvent>) -> Vec<OrderId> {
        let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: at };
        let applied = self.worker.apply(events.into(), terms, crate::support::APPLYING).await.unwrap();
        let all_applied = applied.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied { .. }));
        assert!(all_applied, "{:?}", applied.outcomes);
        applied.changed
    }

    /// Waits until that many requests wait for an order.
    pub(crate) async fn until_waiting(&self, count: usize) {
        let line = format!("grantonce_long_polls {count}");
        crate::support::eventually(&line, async || self.metrics.render().lines().any(|l| l == line)).await;
    }
}

/// The request of a site for a payment that it created itself: 500 credits for USD 19.99.
pub(crate) fn order_for(payment_id: &str) -> Value {
    json!({
        "account_id": "user-42", "credits": 500, "amount_minor": 1999, "currency": "USD",
        "provider": "stripe", "payment_id": payment_id, "metadata": {"cart": "8271"}
    })
}

fn event(payment_id: &str, what: &str, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::evt_{payment_id}_{what}")).unwrap(),
        payment_id: PaymentId::new(payment_id).unwrap(),
        related_ids: vec![],
        provider_account: None,
        order_id: None,
        status,
        occurred_at: NOW,
        as_of: None,
        livemode: true,
    }
}

fn usd(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::new("USD").unwrap()).unwrap()
}

/// The provider reports a full payment.
pub(crate) fn paid(payment_id: &str) -> PaymentEvent {
    let status =
        PaymentStatus::Captured { money: usd(1999), capture_id: None, state: CaptureState::Succeeded, breakdown: None };
    event(payment_id, "paid", status)
}

/// The provider reports a failed attempt.
pub(crate) fn failed(payment_id: &str, reason: &str) -> PaymentEvent {
    event(payment_id, "failed", PaymentStatus::failed(reason))
}

/// The provider reports a refund of that amount.
pub(crate) fn refunded(payment_id: &str, refund_id: &str, amount_minor: i64) -> PaymentEvent {
    let status = PaymentStatus::Refund {
        refund_id: FactId::new(refund_id).unwrap(),
        state: RefundState::Succeeded,
        money: usd(amount_minor),
    };
    event(payment_id, refund_id, status)
}

//! The API. The back end of a site creates orders and reads balances. The buyer's browser waits for the status of its
//! order.
//!
//! `POST /v1/orders` registers a payment that the site created, or creates it. Nothing in here grants. A request may
//! wait for an order: the process asks Postgres once for all waiting requests together ([`crate::store::Watch`]).

mod access;
mod accounts;
mod answers;
mod cors;
mod cursor;
mod orders;
mod paying;
mod poll;
mod request;
mod view;

use crate::clock::Clock;
use crate::config::ApiConfig;
use crate::http::{self, BindError, Limits, Listener, Readiness};
use crate::needs::PostgresNeeds;
use crate::provider::{BuildError, Providers};
use crate::role::Role;
use crate::shutdown::Shutdown;
use crate::store::{self, OrderReader, Store, StoreError};
use crate::telemetry::{ListenerName, Metrics};
use access::Access;
use axum::Router;
use axum::middleware;
use axum::routing::{MethodRouter, get, post};
use cors::Origins;
use poll::Polls;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

pub use poll::{LONG_POLLS_MAX, WAIT_SECONDS_MAX};
pub use request::{BODY_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX, METADATA_BYTES_MAX};

/// The contract of the endpoints of the receiver and the API.
const OPENAPI: &str = include_str!("../../contract/openapi.json");

/// Connections to Postgres. A request takes a few milliseconds, so these serve some thousand a second. One more
/// connection listens for changed orders.
const CONNECTIONS_MAX: u32 = 17;

/// How long the transaction of a request may take before the answer is 503.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(5);

/// Why the API cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Its address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The settings of the database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settings of a provider cannot be used.
    #[error(transparent)]
    Provider(#[from] BuildError),
    /// The task that serves requests ended by itself.
    #[error("the listener ended without being asked to")]
    ListenerLost,
}

/// Binds the configured address and serves until the process stops; see [`run_on`].
pub async fn run(
    config: ApiConfig,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), ApiError> {
    let listener = http::bind(ListenerName::Api.name(), config.addr).await?;
    run_on(listener, config, clock, metrics, readiness, shutdown).await
}

/// Serves on a bound listener until the process stops. Then it accepts nothing new, answers requests that wait for an
/// order, and finishes requests in flight. During an outage of Postgres it answers 503.
pub async fn run_on(
    listener: Listener,
    config: ApiConfig,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), ApiError> {
    let stop = shutdown.token();
    let store = Store::new(&store::Settings {
        url: config.database.url.clone(),
        connections_max: CONNECTIONS_MAX,
        deadline: TRANSACTION_DEADLINE,
        profile: store::Profile::Requests,
    })?;
    let needs = PostgresNeeds::of(&readiness.of(Role::Api, &metrics));
    let watching = needs.follow(&store, &clock);
    let providers = Providers::configured(config.providers.clone())?;
    let router = router(&config, store.clone(), providers, clock, metrics.clone(), readiness, stop.clone());
    let listener = listener.on_response(move |route, status| {
        metrics.http_request(ListenerName::Api, route, status.as_u16());
    });
    let limits = Limits { keep_alive: config.keep_alive, ..Limits::default() };
    let served = http::serve(listener, router, limits, shutdown).await;
    watching.abort();
    store.close(Duration::from_secs(1)).await;
    if served.is_err() && !stop.is_cancelled() {
        return Err(ApiError::ListenerLost);
    }
    Ok(())
}

/// All routes of the API. It starts the watch of orders, which ends with `stop`, and must be called inside a tokio
/// runtime.
pub fn router(
    config: &ApiConfig,
    store: Store,
    providers: Providers,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
) -> Router {
    let reader = OrderReader::start(&store, http::CONNECTIONS_MAX);
    let polls = Polls::start(store.clone(), reader.clone(), metrics, stop);
    let first_look_after = time::Duration::try_from(config.first_look_after).unwrap_or(time::Duration::MAX);
    let app = App { store, reader, clock, access: Access::new(config), polls, providers, first_look_after };
    let mut router = Router::new();
    for (path, methods) in routes(Origins::new(&config.cors_origins)) {
        router = router.route(path, methods);
    }
    router.layer(middleware::map_response(answers::never_stored)).with_state(app).merge(http::health_router(readiness))
}

/// The paths and their handlers. `contract/openapi.json` has the same, and a test compares them.
fn routes(origins: Origins) -> [(&'static str, MethodRouter<App>); 6] {
    let order = get(orders::read).options(cors::preflight);
    [
        ("/v1/orders", post(orders::create)),
        ("/v1/orders/{id}", order.layer(middleware::from_fn_with_state(origins, cors::allow))),
        ("/v1/orders/{id}/check", post(orders::check)),
        ("/v1/accounts/{id}/balance", get(accounts::balance)),
        ("/v1/accounts/{id}/entries", get(accounts::entries)),
        ("/openapi.json", get(answers::openapi)),
    ]
}

/// The values that all handlers share.
#[derive(Clone)]
struct App {
    store: Store,
    reader: OrderReader,
    clock: Clock,
    access: Access,
    polls: Polls,
    providers: Providers,
    /// How long after its creation an order without news is asked about at its provider.
    first_look_after: time::Duration,
}

/// Feeds every parser of client input, for fuzzing.
#[cfg(fuzzing)]
pub fn parse_anything(data: &[u8]) {
    let value = axum::http::HeaderValue::from_bytes(data);
    if let Ok(value) = value {
        let _ = request::idempotency_key(
            &[("idempotency-key", value)]
                .into_iter()
                .map(|(name, value)| (axum::http::HeaderName::from_static(name), value))
                .collect(),
        );
    }
    if let Ok(fields) = serde_json::from_slice::<request::Fields>(data)
        && let Ok(order) = request::OrderRequest::check(fields)
    {
        assert_eq!(order.digest(), order.clone().digest());
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = cursor::read(text);
    if let Ok(uri) = axum::http::Uri::try_from(format!("/?{text}")) {
        let mut parameters = crate::http::Parameters::of(&uri);
        let _ = parameters.number("wait", 0..=WAIT_SECONDS_MAX);
        let _ = parameters.check(&["wait", "since", "token"]);
    }
}

#[cfg(test)]
mod tests;

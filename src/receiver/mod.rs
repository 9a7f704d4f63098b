//! The receiver takes webhooks, verifies their raw bytes, and answers 2xx only after the broker has confirmed their
//! messages. It needs RabbitMQ only, and goes on while Postgres is down.

mod handler;

use crate::broker::{Publisher, PublisherSettings};
use crate::clock::Clock;
use crate::config::{AdyenCapture, ReceiverConfig, WebhookSecrets};
use crate::followed::Followed;
use crate::http::{BindError, Limits, Readiness, bind, health_router, serve, system_roots};
use crate::needs::PublisherNeeds;
use crate::provider::BuildError;
use crate::provider::certificates::Certificates;
use crate::role::Role;
use crate::shutdown::Shutdown;
use crate::telemetry::{ListenerName, Metrics, Traces};
use crate::webhook::{Endpoint, KeyError, Keys, Terms, Trust};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::Response;
use axum::routing::post;
use handler::WebhookHandler;
use secrecy::SecretString;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Webhooks that may be in hand at once. Others are answered with 503, and their provider sends them again.
const IN_FLIGHT_MAX: usize = 4_096;

/// Independent connections to the broker.
const LANES: usize = 2;

/// How long the publisher waits for a confirm. Adyen waits 10 s for an answer; Stripe and PayPal wait longer.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(4);

/// Why the receiver could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// Its address is in use or not an address of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The task that serves requests ended by itself.
    #[error("the listener ended without being asked to")]
    ListenerLost,
    /// The certificates that PayPal signs with could not be fetched or checked.
    #[error("GRANTONCE_PAYPAL_WEBHOOK_IDS: {0}")]
    Certificates(#[from] BuildError),
    /// A configured secret does not have the form of its provider.
    #[error("{variable}: {source}")]
    Key {
        /// The name of the environment variable.
        variable: &'static str,
        /// What is wrong. It does not contain the secret.
        source: KeyError,
    },
}

/// The keys of the endpoints that are configured.
fn keys(
    secrets: &WebhookSecrets,
    terms: Terms,
    trust: &Trust,
) -> Result<HashMap<Endpoint, Followed<Keys>>, ReceiverError> {
    let paypal = secrets.paypal_webhook_ids.iter().map(|id| SecretString::from(id.as_str()));
    let paypal = Followed::new(paypal.collect::<Vec<_>>());
    Endpoint::ALL
        .iter()
        .filter_map(|endpoint| {
            let (variable, secrets) = match endpoint {
                Endpoint::Stripe => ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", &secrets.stripe),
                Endpoint::Paypal => ("GRANTONCE_PAYPAL_WEBHOOK_IDS", &paypal),
                Endpoint::Adyen => ("GRANTONCE_ADYEN_HMAC_KEYS", &secrets.adyen_hmac_keys),
                Endpoint::Standard => ("GRANTONCE_STANDARD_WEBHOOK_SECRETS", &secrets.standard),
            };
            if secrets.current().is_empty() {
                return None;
            }
            let (endpoint, trust) = (*endpoint, trust.clone());
            let keys = secrets.map(move |secrets| Ok(Keys::new(endpoint, secrets, terms)?.trusting(trust.clone())));
            Some(keys.map(|keys| (endpoint, keys)).map_err(|source| ReceiverError::Key { variable, source }))
        })
        .collect()
}

/// The certificates that are trusted, and the client that fetches them. Empty if no configured endpoint needs any.
fn trust(secrets: &WebhookSecrets) -> Result<(Trust, Option<Certificates>), BuildError> {
    if secrets.paypal_webhook_ids.is_empty() {
        return Ok((Trust::default(), None));
    }
    let roots = system_roots();
    let trust = Trust { hosts: secrets.paypal_cert_hosts.clone(), anchors: roots.roots.clone() };
    Ok((trust, Some(Certificates::new(roots)?)))
}

/// Serves `POST /webhooks/{provider}` until the process stops. It finishes the requests in hand.
pub async fn run(
    config: ReceiverConfig,
    clock: Clock,
    metrics: Metrics,
    traces: Traces,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), ReceiverError> {
    let terms =
        Terms { livemode: config.livemode, is_adyen_captured_by_hand: config.adyen_capture == AdyenCapture::Manual };
    let (trust, certificates) = trust(&config.secrets)?;
    let keys = keys(&config.secrets, terms, &trust)?;
    let listener = bind("receiver", config.addr).await?;
    let counted = metrics.clone();
    let listener =
        listener.on_response(move |route, status| counted.http_request(ListenerName::Receiver, route, status.as_u16()));
    let publisher = Publisher::start(&PublisherSettings {
        url: config.broker.url,
        name: "receiver",
        lanes: LANES,
        waiting_max: IN_FLIGHT_MAX,
        confirm_deadline: CONFIRM_DEADLINE,
        clock: clock.clone(),
    });
    // The publisher is not probed. A receiver may publish under the keys of its providers only, and all of these are
    // bound.
    let needs = PublisherNeeds::of(&readiness.of(Role::Receiver, &metrics));
    let watching = needs.follow(&publisher, None);
    let places = Semaphore::new(IN_FLIGHT_MAX);
    let secret_files = config.secret_files;
    let handler = WebhookHandler {
        keys,
        secret_files,
        certificates,
        is_live: config.livemode,
        publisher,
        clock,
        metrics,
        traces,
        places,
    };
    let router = router(Arc::new(handler)).merge(health_router(readiness));
    let limits = Limits { keep_alive: config.keep_alive, ..Limits::default() };
    let served = serve(listener, router, limits, shutdown.clone()).await;
    watching.abort();
    if served.is_err() || !shutdown.token().is_cancelled() { Err(ReceiverError::ListenerLost) } else { Ok(()) }
}

fn router(handler: Arc<WebhookHandler>) -> Router {
    Router::new().route("/webhooks/{provider}", post(receive)).with_state(handler)
}

async fn receive(
    State(handler): State<Arc<WebhookHandler>>,
    Path(provider): Path<String>,
    request: Request,
) -> Response {
    handler.handle(&provider, request).await
}

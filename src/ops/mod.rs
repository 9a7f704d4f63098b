//! Temporary: to be replaced by main's.
mod console;
mod prospects;
use crate::clock::Clock;
use crate::config::OpsConfig;
use crate::http::{self, BearerTokens, Limits, Listener, Readiness};
use crate::store::{self, Store};
use crate::telemetry::Metrics;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Temporary.
pub async fn run_on(
    listener: Listener,
    config: OpsConfig,
    clock: Clock,
    _metrics: Metrics,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let Ok(store) = Store::new(&store::Settings {
        url: config.database.url.clone(),
        connections_max: 5,
        deadline: Duration::from_secs(5),
        profile: store::Profile::Requests,
    }) else {
        return;
    };
    let (_queues, seen) = tokio::sync::watch::channel(None);
    let console = console::Console {
        store,
        terms: prospects::Terms {
            webhook: crate::webhook::Terms { livemode: false, is_adyen_captured_by_hand: false },
            dispute_policy: crate::domain::DisputePolicy::Hold,
        },
        tokens: BearerTokens::new(config.tokens.clone()),
        clock,
        queues: seen,
    };
    let router = console::router(console).merge(http::health_router(readiness));
    let _ = http::serve(listener, router, Limits::default(), stop).await;
}

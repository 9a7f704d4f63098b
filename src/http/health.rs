//! `/healthz` (the process runs), `/readyz` (what it depends on is in reach) and `/metrics`.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What a role depends on, and whether it is in reach. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<Vec<ReadinessFlag>>>);

/// One dependency's state. Whoever holds the connection sets it.
#[derive(Debug, Clone)]
pub struct ReadinessFlag {
    name: &'static str,
    is_up: Arc<AtomicBool>,
}

impl ReadinessFlag {
    /// Says whether the dependency is in reach. Gives whether that is a change.
    pub fn set(&self, is_up: bool) -> bool {
        self.is_up.swap(is_up, Ordering::Relaxed) != is_up
    }

    /// Whether it is in reach.
    pub fn is_up(&self) -> bool {
        self.is_up.load(Ordering::Relaxed)
    }
}

impl Readiness {
    /// Depends on nothing, and is ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// The flag of a dependency: out of reach until it is set. The same flag for every call with one name.
    pub fn dependency(&self, name: &'static str) -> ReadinessFlag {
        let mut flags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flag) = flags.iter().find(|flag| flag.name == name) {
            return flag.clone();
        }
        let flag = ReadinessFlag { name, is_up: Arc::default() };
        flags.push(flag.clone());
        flag
    }

    /// The dependencies that are out of reach; none is ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let flags = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flags.iter().filter(|flag| !flag.is_up()).map(|flag| flag.name).collect()
    }
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    missing: Vec<&'static str>,
}

/// `/healthz` and `/readyz`.
pub fn health_router(readiness: Readiness) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(async move || readyz(&readiness)))
}

/// `/metrics`, as `render` writes it, with `/healthz` and `/readyz`.
pub fn metrics_router<F>(readiness: Readiness, content_type: &'static str, render: F) -> Router
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let metrics = get(async move || ([(CONTENT_TYPE, content_type)], render()));
    health_router(readiness).route("/metrics", metrics)
}

async fn healthz() -> Response {
    ([(CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

fn readyz(readiness: &Readiness) -> Response {
    let missing = readiness.missing();
    let (code, status) =
        if missing.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    (code, [(CACHE_CONTROL, "no-store")], axum::Json(Ready { status, missing })).into_response()
}

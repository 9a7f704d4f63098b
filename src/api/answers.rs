//! What all answers have in common, and the answers to errors of the store.

use crate::http::Problem;
use crate::store::{Class, StoreError};
use crate::telemetry::causes;
use axum::Json;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::time::Duration;

/// When to try again after an outage.
const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(2);

/// When to try again if other requests were in the way.
const RETRY_AFTER_CONTENTION: Duration = Duration::from_secs(1);

/// An answer with a JSON body.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    (status, Json(body)).into_response()
}

/// Handles the request `GET /openapi.json`.
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-cache")], super::OPENAPI).into_response()
}

/// No cache may keep an answer or a problem: orders and balances change, and are private.
pub(super) async fn never_stored(mut response: Response) -> Response {
    response.headers_mut().entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// The problem that a client gets for an error of the store. This is the only place that logs it.
pub(super) fn store_failed(error: &StoreError) -> Problem {
    let cause = causes(error);
    match error.class() {
        Class::Transient => {
            tracing::warn!(event = "request_unavailable", cause, "answered 503");
            Problem::unavailable("the database is out of reach; the same call again is safe", RETRY_AFTER_OUTAGE)
        }
        Class::Contended => {
            tracing::warn!(event = "request_contended", cause, "answered 503");
            let detail = "another call for the same thing is still in flight; the same call again is safe";
            Problem::unavailable(detail, RETRY_AFTER_CONTENTION)
        }
        // The data was checked before. If Postgres still refuses it, that is our mistake.
        Class::Data | Class::Bug => {
            tracing::error!(event = "request_failed", cause, "answered 500");
            Problem::internal()
        }
    }
}

//! Pages of the configured origins may read the status of an order, and nothing else. Reading needs no special header,
//! so none is allowed: a browser will not send the bearer token of a site here.

use axum::extract::{Request, State};
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ORIGIN, VARY,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;

/// How long a browser may remember the answer to a preflight, in seconds.
const PREFLIGHT_SECONDS: &str = "600";

/// The allowed origins of pages, compared byte for byte.
#[derive(Debug, Clone)]
pub(super) struct Origins(Arc<[String]>);

impl Origins {
    pub(super) fn new(origins: &[String]) -> Self {
        Self(origins.into())
    }

    fn knows(&self, origin: &HeaderValue) -> bool {
        self.0.iter().any(|known| known.as_bytes() == origin.as_bytes())
    }
}

/// Answers a preflight. [`allow`] adds a known origin; without it the answer allows nothing.
pub(super) async fn preflight() -> Response {
    let allowed = [(ACCESS_CONTROL_ALLOW_METHODS, "GET"), (ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS)];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

/// Lets a page of a known origin see the answer, including a problem.
pub(super) async fn allow(State(origins): State<Origins>, request: Request, next: Next) -> Response {
    let origin = request.headers().get(ORIGIN).filter(|origin| origins.knows(origin)).cloned();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.append(VARY, HeaderValue::from_static("Origin"));
    if let Some(origin) = origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("Retry-After"));
    }
    response
}

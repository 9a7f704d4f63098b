//! Errors as RFC 9457 `application/problem+json`.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// What went wrong with a request, for its sender. It contains nothing that the sender may not know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    kind: Option<&'static str>,
    title: Option<&'static str>,
    detail: String,
    fields: Vec<FieldProblem>,
    retry_after: Option<Duration>,
    challenge: bool,
}

/// What is wrong with one field of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FieldProblem {
    /// The path of the field, such as `payment.amount_minor`.
    pub field: String,
    /// What the field must be.
    pub detail: String,
}

#[derive(Serialize)]
struct Body<'p> {
    r#type: String,
    title: &'p str,
    status: u16,
    detail: &'p str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    fields: &'p [FieldProblem],
}

impl Problem {
    /// A problem with a status and a sentence.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            kind: None,
            title: None,
            detail: detail.into(),
            fields: Vec::new(),
            retry_after: None,
            challenge: false,
        }
    }

    /// 400: the request does not have the right form.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: a signature or token is missing or wrong. The answer says no more than that.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
    }

    /// 404: there is no such resource.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405: the resource does not know the method.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method; see the Allow header")
    }

    /// 408: the sender was too slow.
    pub fn request_timeout(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::REQUEST_TIMEOUT, detail)
    }

    /// 409: the request contradicts the present state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 413: the body is too long.
    pub fn payload_too_large(bytes_max: usize) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is above {bytes_max} bytes"))
    }

    /// 415: the body has another media type.
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail)
    }

    /// 422: the form is right, but it cannot be done.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// 429: too many requests. Try again after this time.
    pub fn too_many_requests(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::TOO_MANY_REQUESTS, detail) }
    }

    /// 500: our mistake. The cause belongs in the log, not in the answer.
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong here; the log has the cause")
    }

    /// 502: a provider cannot be reached.
    pub fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, detail)
    }

    /// 503: a dependency cannot be reached. Try again after this time.
    pub fn unavailable(detail: impl Into<String>, retry_after: Duration) -> Self {
        Self { retry_after: Some(retry_after), ..Self::new(StatusCode::SERVICE_UNAVAILABLE, detail) }
    }

    /// Gives the problem a name of its own, for clients that must tell it from others with its status. `kind` becomes
    /// the type `urn:grantonce:problem:<kind>`. `title` says the same to people, and is always the same for one kind.
    #[must_use]
    pub fn of_kind(mut self, kind: &'static str, title: &'static str) -> Self {
        (self.kind, self.title) = (Some(kind), Some(title));
        self
    }

    /// Adds what is wrong with one field.
    #[must_use]
    pub fn with_field(mut self, field: impl Into<String>, detail: impl Into<String>) -> Self {
        self.fields.push(FieldProblem { field: field.into(), detail: detail.into() });
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, retry_after: Duration) -> Self {
        self.retry_after = Some(retry_after);
        self
    }

    /// Asks for a bearer token.
    #[must_use]
    pub fn with_challenge(mut self) -> Self {
        self.challenge = true;
        self
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The faults of single fields.
    pub fn fields(&self) -> &[FieldProblem] {
        &self.fields
    }

    /// What went wrong, in a sentence.
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

impl std::error::Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: self.kind.map_or_else(|| "about:blank".to_owned(), |kind| format!("urn:grantonce:problem:{kind}")),
            title: self.title.or(self.status.canonical_reason()).unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            fields: &self.fields,
        };
        // It consists of strings and numbers, so this cannot fail.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response =
            (self.status, [(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"))], body).into_response();
        if let Some(after) = self.retry_after {
            // Whole seconds, rounded up. 0 would invite a client to try again at once.
            let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        if self.challenge {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

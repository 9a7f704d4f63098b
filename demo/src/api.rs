//! The site's side of the demo: places orders, waits for them, has them checked, reads balances, through the public HTTP
//! API alone.

use grantonce_testkit::OrderId;
use grantonce_testkit::causes;
use reqwest::{RequestBuilder, StatusCode};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout_at};

/// How long one long-poll asks to wait, in seconds.
const WAIT_S: u64 = 20;

/// How much longer than asked for a long-poll's answer may take before it is given up.
const GRACE: Duration = Duration::from_secs(5);

/// How long an answer may take, a long-poll's included.
const ANSWER_DEADLINE: Duration = Duration::from_secs(WAIT_S + 15);

/// Pause before a call is tried again: this, doubled each time, up to the second.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_LONGEST: Duration = Duration::from_secs(2);

/// An order as the site places it.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NewOrder<'a> {
    pub(crate) account_id: &'a str,
    pub(crate) credits: i64,
    pub(crate) amount_minor: i64,
    pub(crate) currency: &'a str,
    pub(crate) provider: &'a str,
    /// None: it is to be created.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payment_id: Option<&'a str>,
    pub(crate) metadata: serde_json::Value,
}

/// What we need of an order as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct OrderView {
    pub(crate) id: OrderId,
    pub(crate) status: String,
    /// Grows with every change.
    pub(crate) version: Option<i64>,
    /// Net: the grant and all that was taken back.
    #[serde(default)]
    pub(crate) credits_granted: i64,
    pub(crate) last_failure: Option<String>,
    pub(crate) payment: Option<PaymentRef>,
    /// With which the buyer may read this order; only where it was just made.
    pub(crate) status_token: Option<String>,
}

/// The payment of an order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct PaymentRef {
    pub(crate) payment_id: Option<String>,
    /// Where the buyer agrees, at providers that have such a place.
    pub(crate) approve_url: Option<String>,
}

#[derive(Deserialize)]
struct Balance {
    credits: i64,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    #[error("no answer from the API: {}", causes(.0))]
    NoAnswer(reqwest::Error),
    #[error("the API answered {status}: {body}")]
    Refused { status: StatusCode, body: String },
    #[error("it took longer than {} s{}", deadline.as_secs(), last.as_ref().map(|last| format!("; last: {last}")).unwrap_or_default())]
    TooLate { deadline: Duration, last: Option<Box<ApiError>> },
    #[error("the order is {0}, and not fulfilled")]
    NotFulfilled(String),
}

impl ApiError {
    /// Whether the same call may succeed later: nobody answered, somebody is busy, or the first try is in flight.
    fn is_transient(&self) -> bool {
        match self {
            Self::NoAnswer(_) => true,
            Self::Refused { status, .. } => {
                status.is_server_error() || matches!(*status, StatusCode::CONFLICT | StatusCode::TOO_MANY_REQUESTS)
            }
            Self::TooLate { .. } | Self::NotFulfilled(_) => false,
        }
    }
}

/// The API, with a site's token.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: String,
    token: String,
}

impl Api {
    /// The API at `base` (`http://host:port`).
    pub(crate) fn new(base: String, token: String) -> Result<Self, reqwest::Error> {
        let http = grantonce_testkit::http::plain_client().timeout(ANSWER_DEADLINE).build()?;
        Ok(Self { http, base, token })
    }

    /// The client itself, without the token, for what goes past the API.
    pub(crate) fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// Places an order; where the answer is lost, again under the same key.
    pub(crate) async fn place(&self, key: &str, new: &NewOrder<'_>, deadline: Duration) -> Result<OrderView, ApiError> {
        let url = format!("{}/v1/orders", self.base);
        self.persist(deadline, || self.http.post(&url).header("idempotency-key", key).json(new)).await
    }

    /// Waits by long-poll until the order is fulfilled.
    pub(crate) async fn fulfilled(&self, seen: OrderView, deadline: Duration) -> Result<(), ApiError> {
        let ends_at = Instant::now() + deadline;
        let url = format!("{}/v1/orders/{}", self.base, seen.id);
        let mut seen = seen;
        while seen.status != "fulfilled" {
            let left = ends_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ApiError::NotFulfilled(seen.status));
            }
            let mut poll = format!("{url}?wait={}", left.as_secs().clamp(1, WAIT_S));
            if let Some(version) = seen.version {
                poll.push_str(&format!("&since={version}"));
            }
            // A little longer than the poll: else the last one is cut off, and how the order stands is never told.
            seen = self.persist(left + GRACE, || self.http.get(&poll)).await?;
        }
        Ok(())
    }

    /// An order as it is; with `since`, as soon as it is past that version, or after `wait_s` seconds.
    pub(crate) async fn read(&self, id: OrderId, wait_s: u64, since: Option<i64>) -> Result<OrderView, ApiError> {
        let mut url = format!("{}/v1/orders/{id}?wait={wait_s}", self.base);
        if let Some(version) = since {
            url.push_str(&format!("&since={version}"));
        }
        self.send(self.http.get(url)).await
    }

    /// The buyer is back: the provider is to be asked now. Whatever the API answers is an answer.
    pub(crate) async fn check(&self, id: OrderId) -> Result<StatusCode, ApiError> {
        let url = format!("{}/v1/orders/{id}/check", self.base);
        self.status(self.http.post(url).bearer_auth(&self.token)).await
    }

    /// What the API answers to an order, tried once.
    pub(crate) async fn try_to_place(&self, key: &str, new: &NewOrder<'_>) -> Result<StatusCode, ApiError> {
        let call = self.http.post(format!("{}/v1/orders", self.base)).header("idempotency-key", key).json(new);
        self.status(call.bearer_auth(&self.token)).await
    }

    /// What the API answers to a browser that reads an order by the order's own token.
    pub(crate) async fn read_as_buyer(&self, id: OrderId, status_token: &str) -> Result<StatusCode, ApiError> {
        // The token is of letters, digits, - and _: there is nothing to escape.
        self.status(self.http.get(format!("{}/v1/orders/{id}?token={status_token}", self.base))).await
    }

    async fn status(&self, call: RequestBuilder) -> Result<StatusCode, ApiError> {
        call.send().await.map(|answer| answer.status()).map_err(ApiError::NoAnswer)
    }

    /// An account's credits. One that the API has never heard of has none.
    pub(crate) async fn balance(&self, account_id: &str, deadline: Duration) -> Result<i64, ApiError> {
        let url = format!("{}/v1/accounts/{account_id}/balance", self.base);
        match self.persist(deadline, || self.http.get(&url)).await {
            Ok(Balance { credits }) => Ok(credits),
            Err(ApiError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Sends until there is an answer that another try would not change.
    async fn persist<T: serde::de::DeserializeOwned>(
        &self,
        deadline: Duration,
        request: impl Fn() -> RequestBuilder,
    ) -> Result<T, ApiError> {
        let ends_at = Instant::now() + deadline;
        let mut pause = RETRY_FIRST;
        let mut last = None;
        loop {
            let Ok(answer) = timeout_at(ends_at, self.send(request())).await else {
                return Err(ApiError::TooLate { deadline, last });
            };
            match answer {
                Err(error) if error.is_transient() => last = Some(Box::new(error)),
                answer => return answer,
            }
            if Instant::now() + pause >= ends_at {
                return Err(ApiError::TooLate { deadline, last });
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    async fn send<T: serde::de::DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, ApiError> {
        let answer = request.bearer_auth(&self.token).send().await.map_err(ApiError::NoAnswer)?;
        let status = answer.status();
        if status.is_success() {
            return answer.json().await.map_err(ApiError::NoAnswer);
        }
        let body = answer.text().await.unwrap_or_default();
        Err(ApiError::Refused { status, body: body.chars().take(500).collect() })
    }
}

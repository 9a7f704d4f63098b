//! The simulated provider's side of Stripe's API, as far as a payment is created and asked for there, with what goes wrong
//! on the way. Rules from <https://docs.stripe.com/api/idempotent_requests> and <https://docs.stripe.com/api/payment_intents>.
//!
//! | call | does |
//! |---|---|
//! | `POST /v1/payment_intents` | creates one, once a key: the same key is answered alike, also with a 500; with other parameters it is refused |
//! | `GET /v1/payment_intents/{id}` | shows one |
//! | `GET /v1/payment_intents?created[gte]=&limit=&starting_after=` | lists them, newest first |
//! | `GET /v1/refunds`, `GET /v1/disputes` | lists none: nothing is refunded here |
//! | `POST /faults` `["lose_request", …]` | what goes wrong with the next calls that create, one each |
//! | `POST /faults/forget-keys` | as after a day: keys are new again |

use super::{PaymentView, Provider};
use crate::sim::lock;
use crate::sim::payment::{Seller, money};
use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

/// Most objects on one page.
const PAGE_MAX: usize = 100;

/// Keys that are remembered. More than any demo uses.
const KEYS_MAX: usize = 1_000_000;

/// What goes wrong with a call that creates a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::sim) enum Fault {
    /// Nothing.
    None,
    /// It never arrives.
    LoseRequest,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// It fails with a 500 before anything is made, and the key stands for that from then on.
    Fail,
    /// It is done, and answered with a 500 all the same; the key stands for that from then on.
    DoAndFail,
}

/// How a call ended.
#[derive(Debug, Clone)]
struct Answer {
    status: StatusCode,
    body: Value,
}

#[derive(Debug, Default)]
struct Keys {
    answers: HashMap<String, ([u8; 32], Answer)>,
    faults: VecDeque<Fault>,
}

#[derive(Debug, Clone)]
struct Api {
    provider: Provider,
    keys: Arc<Mutex<Keys>>,
}

/// The routes.
pub(super) fn router(provider: Provider) -> Router {
    Router::new()
        .route("/v1/payment_intents", get(list).post(create))
        .route("/v1/payment_intents/{id}", get(show))
        .route("/v1/refunds", get(nothing))
        .route("/v1/disputes", get(nothing))
        .route("/faults", post(plan_faults))
        .route("/faults/forget-keys", post(forget_keys))
        .with_state(Api { provider, keys: Arc::default() })
}

fn error(status: StatusCode, kind: &str, message: &str) -> Answer {
    Answer { status, body: json!({"error": {"type": kind, "message": message}}) }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// What a client sees whose connection breaks.
fn lost() -> Response {
    let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("lost on the way")) });
    Body::from_stream(broken).into_response()
}

fn is_known(headers: &HeaderMap) -> bool {
    headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Bearer sk_test_"))
}

async fn create(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    if !is_known(&headers) {
        return error(StatusCode::UNAUTHORIZED, "invalid_request_error", "Invalid API Key provided").into_response();
    }
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned) else {
        return error(StatusCode::BAD_REQUEST, "invalid_request_error", "this client always sends a key")
            .into_response();
    };
    let digest = Sha256::digest(&body).into();
    let mut keys = lock(&api.keys);
    let fault = keys.faults.pop_front().unwrap_or(Fault::None);
    if fault == Fault::LoseRequest {
        return lost();
    }
    if let Some((first, answer)) = keys.answers.get(&key) {
        if *first != digest {
            let message = "Keys for idempotent requests can only be used with the same parameters";
            return error(StatusCode::BAD_REQUEST, "idempotency_error", message).into_response();
        }
        let mut response = answer.clone().into_response();
        response.headers_mut().insert("idempotent-replayed", axum::http::HeaderValue::from_static("true"));
        return if fault == Fault::LoseAnswer { lost() } else { response };
    }
    let failure = || error(StatusCode::INTERNAL_SERVER_ERROR, "api_error", "An unknown error occurred");
    let answer = match fault {
        Fault::Fail => failure(),
        Fault::None | Fault::LoseRequest | Fault::LoseAnswer | Fault::DoAndFail => make(&api.provider, &body),
    };
    // A request that was refused for its parameters leaves its key unused.
    let is_kept = answer.status.is_success() || answer.status.is_server_error();
    let answer = if fault == Fault::DoAndFail && answer.status.is_success() { failure() } else { answer };
    if is_kept && keys.answers.len() < KEYS_MAX {
        keys.answers.insert(key, (digest, answer.clone()));
    }
    if fault == Fault::LoseAnswer { lost() } else { answer.into_response() }
}

fn make(provider: &Provider, body: &[u8]) -> Answer {
    let refused = |message: &str| error(StatusCode::BAD_REQUEST, "invalid_request_error", message);
    let form: HashMap<String, String> = reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(body)))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default();
    let text = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let Ok(amount) = text("amount").parse::<i64>() else { return refused("amount: Invalid integer") };
    if amount < 50 {
        return refused("Amount must be at least $0.50 usd");
    }
    let Ok(money) = money(amount, &text("currency").to_ascii_uppercase()) else { return refused("Invalid currency") };
    let order_id = text("metadata[order_id]").parse().ok();
    match provider.create(Seller::Stripe, money, order_id, None) {
        Ok(payment) => Answer { status: StatusCode::OK, body: intent(&payment) },
        Err(full) => error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", &full.to_string()),
    }
}

fn intent(payment: &PaymentView) -> Value {
    let is_paid = payment.status == "succeeded";
    let status = match payment.status {
        "succeeded" => "succeeded",
        "canceled" => "canceled",
        _ => "requires_payment_method",
    };
    let declined = json!({"code": "card_declined", "message": "Your card was declined.", "type": "card_error"});
    json!({
        "id": payment.id,
        "object": "payment_intent",
        "amount": payment.amount_minor,
        "amount_capturable": 0,
        "amount_received": if is_paid { payment.amount_minor } else { 0 },
        "client_secret": format!("{}_secret_demo", payment.id),
        "created": payment.created_at.unix_timestamp(),
        "currency": payment.currency.to_ascii_lowercase(),
        "last_payment_error": (payment.status == "failed").then_some(declined),
        "latest_charge": is_paid.then(|| json!({
            "id": payment.id.replacen("pi_", "ch_", 1),
            "object": "charge",
            "created": payment.created_at.unix_timestamp(),
            "amount_refunded": 0,
        })),
        "livemode": false,
        "metadata": payment.metadata.order_id.map_or_else(|| json!({}), |id| json!({"order_id": id})),
        "status": status,
    })
}

async fn show(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    if !is_known(&headers) {
        return error(StatusCode::UNAUTHORIZED, "invalid_request_error", "Invalid API Key provided");
    }
    match api.provider.payment(&id) {
        Ok(payment) if payment.provider == Seller::Stripe => Answer { status: StatusCode::OK, body: intent(&payment) },
        Ok(_) | Err(_) => {
            let message = "No such payment_intent";
            let error = json!({"type": "invalid_request_error", "code": "resource_missing", "message": message});
            Answer { status: StatusCode::NOT_FOUND, body: json!({"error": error}) }
        }
    }
}

async fn list(State(api): State<Api>, headers: HeaderMap, Query(query): Query<HashMap<String, String>>) -> Answer {
    if !is_known(&headers) {
        return error(StatusCode::UNAUTHORIZED, "invalid_request_error", "Invalid API Key provided");
    }
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<i64>().ok());
    let since = number("created[gte]").unwrap_or(0);
    let limit = number("limit").and_then(|limit| usize::try_from(limit).ok()).unwrap_or(10).clamp(1, PAGE_MAX);
    let all = api.provider.newest(usize::MAX);
    let mut rest = all.iter().filter(|payment| payment.provider == Seller::Stripe).peekable();
    if let Some(after) = query.get("starting_after") {
        rest.by_ref().find(|payment| payment.id == *after);
    }
    let page: Vec<Value> =
        rest.by_ref().filter(|payment| payment.created_at.unix_timestamp() >= since).take(limit).map(intent).collect();
    let has_more = rest.any(|payment| payment.created_at.unix_timestamp() >= since);
    Answer { status: StatusCode::OK, body: json!({"object": "list", "data": page, "has_more": has_more}) }
}

async fn nothing() -> Json<Value> {
    Json(json!({"object": "list", "data": [], "has_more": false}))
}

async fn plan_faults(State(api): State<Api>, Json(faults): Json<VecDeque<Fault>>) -> StatusCode {
    lock(&api.keys).faults = faults;
    StatusCode::NO_CONTENT
}

async fn forget_keys(State(api): State<Api>) -> StatusCode {
    lock(&api.keys).answers.clear();
    StatusCode::NO_CONTENT
}

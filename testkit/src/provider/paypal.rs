//! The simulated provider's part of PayPal's API that creates, captures and reads orders. It sends no webhooks, because those need
//! certificates. Rules from <https://developer.paypal.com/docs/api/orders/v2/>,
//! <https://developer.paypal.com/docs/api/customer-disputes/v1/> and
//! <https://developer.paypal.com/api/rest/reference/idempotency/>.
//!
//! | call | effect |
//! |---|---|
//! | `POST /v1/oauth2/token` | returns a token to a client with credentials |
//! | `POST /v2/checkout/orders` | creates an order, once for each `PayPal-Request-Id` |
//! | `POST /v2/checkout/orders/{id}/capture` | takes the money of an order after its buyer has agreed; a used key gets the result of its first capture, of any order |
//! | `GET /v2/checkout/orders/{id}`, `/v2/payments/captures/{id}`, `/v2/payments/refunds/{id}`, `/v2/payments/authorizations/{id}` | shows the object |
//! | `GET /v1/customer/disputes?disputed_transaction_id=…` | lists the disputes of a capture, newest first |
//! | `POST /faults/paypal` `["lose_answer", …]` | sets the faults of the next calls with a key, one for each call |
//! | `POST /faults/paypal/forget-keys` | forgets all keys, as PayPal does after six hours |

use super::faults::{Answer, Call, Calls, Done, KeyRules, control, lost, under_key};
use super::{Known, Provider, ProviderError};
use crate::money::{Currency, Money};
use crate::provider::payment::{
    Seller, Status, paypal_capture, paypal_capture_id, paypal_dispute, paypal_order, paypal_refund,
};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::{AUTHORIZATION, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

/// The only token. Every client gets it.
const TOKEN: &str = "A21AA-simulated";

/// How long a token is valid, in seconds.
const TOKEN_SECONDS: u32 = 32_400;

/// The number of disputes on one page: the default, and the largest.
const PAGE_USUAL: usize = 10;
const PAGE_MAX: usize = 50;

const RULES: KeyRules = KeyRules {
    failure: || error(StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_SERVER_ERROR", "An internal server error occurred"),
    keeps_failures: false,
    takes_other_requests: false,
};

/// PayPal repeats the result of the first capture, even if the second is of another order.
const CAPTURE_RULES: KeyRules = KeyRules { takes_other_requests: true, ..RULES };

#[derive(Debug, Clone)]
struct Api {
    provider: Provider,
    calls: Arc<Mutex<Calls>>,
}

/// The routes of PayPal's API.
pub(super) fn router(provider: Provider) -> Router {
    let calls: Arc<Mutex<Calls>> = Arc::default();
    Router::new()
        .route("/v2/checkout/orders", post(create))
        .route("/v2/checkout/orders/{id}", get(show))
        .route("/v2/checkout/orders/{id}/capture", post(capture))
        .route("/v2/payments/captures/{id}", get(show_capture))
        .route("/v2/payments/refunds/{id}", get(show_refund))
        // There are no authorizations: everything is captured at once.
        .route("/v2/payments/authorizations/{id}", get(async || missing()))
        .route("/v1/customer/disputes", get(list_disputes))
        .layer(from_fn(authorize))
        .route("/v1/oauth2/token", post(give_token))
        .with_state(Api { calls: Arc::clone(&calls), provider })
        .merge(control("/faults/paypal", calls))
}

fn error(status: StatusCode, name: &str, issue: &str) -> Answer {
    let body = json!({"name": name, "message": issue, "debug_id": "simulated", "details": [{"issue": issue}]});
    Answer { status, body }
}

fn unprocessable(issue: &str) -> Answer {
    error(StatusCode::UNPROCESSABLE_ENTITY, "UNPROCESSABLE_ENTITY", issue)
}

fn missing() -> Answer {
    error(StatusCode::NOT_FOUND, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")
}

async fn authorize(request: Request, next: Next) -> Response {
    let given = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    if given.and_then(|given| given.strip_prefix("Bearer ")) == Some(TOKEN) {
        return next.run(request).await;
    }
    error(StatusCode::UNAUTHORIZED, "AUTHENTICATION_FAILURE", "INVALID_TOKEN").into_response()
}

async fn give_token(headers: HeaderMap) -> Answer {
    let has_credentials = headers.get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Basic "));
    if !has_credentials {
        let body = json!({"error": "invalid_client", "error_description": "Client Authentication failed"});
        return Answer { status: StatusCode::UNAUTHORIZED, body };
    }
    Answer::ok(json!({"access_token": TOKEN, "token_type": "Bearer", "expires_in": TOKEN_SECONDS}))
}

/// Answers a request with a key: 201 if it is done now, 200 if it was done before.
fn once(api: &Api, rules: &KeyRules, headers: &HeaderMap, what: &[u8], work: impl FnOnce() -> Answer) -> Response {
    let Some(key) = headers.get("paypal-request-id").and_then(|key| key.to_str().ok()) else {
        return error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "this client always sends a key").into_response();
    };
    let call = Call { key, request: Sha256::digest(what).into(), lot: 0 };
    let (done, _fault) = under_key(&api.calls, rules, &call, work);
    match done {
        Done::Lost => lost(),
        Done::OtherRequest => unprocessable("DUPLICATE_REQUEST_ID").into_response(),
        Done::Now(answer) => answer.into_response(),
        Done::Before(answer) => Answer { status: StatusCode::OK, ..answer }.into_response(),
    }
}

async fn create(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    once(&api, &RULES, &headers, &body, || make(&api.provider, &headers, &body).unwrap_or_else(|refused| refused))
}

fn make(provider: &Provider, headers: &HeaderMap, body: &[u8]) -> Result<Answer, Answer> {
    let bad = |_| error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "MALFORMED_REQUEST_JSON");
    let wanted: Value = serde_json::from_slice(body).map_err(bad)?;
    let text = |path: &str| wanted.pointer(path).and_then(Value::as_str);
    let currency = text("/purchase_units/0/amount/currency_code").and_then(|code| Currency::new(code).ok());
    let value = text("/purchase_units/0/amount/value");
    let money = value.zip(currency).and_then(|(value, currency)| Money::from_paypal(value, currency));
    let money = money.ok_or_else(|| unprocessable("CANNOT_BE_ZERO_OR_NEGATIVE"))?;
    let order_id = text("/purchase_units/0/custom_id").and_then(|id| id.parse().ok());
    let return_url = text("/payment_source/paypal/experience_context/return_url");
    let full = |full: ProviderError| error(StatusCode::TOO_MANY_REQUESTS, "RATE_LIMIT_REACHED", &full.to_string());
    let made = provider.create(Seller::Paypal, money, order_id, None).map_err(full)?;
    provider.send_back_to(&made.id, return_url.map(str::to_owned)).map_err(full)?;
    let known = provider.known(&made.id).map_err(full)?;
    Ok(Answer { status: StatusCode::CREATED, body: order(&known, headers) })
}

/// The order, with the link to this server where the buyer agrees.
fn order(known: &Known, headers: &HeaderMap) -> Value {
    let approve_url = format!("http://{}/checkoutnow?token={}", host(headers), known.payment.id);
    let Known { payment, state, order_id, return_url } = known;
    paypal_order(payment, state, *order_id, &approve_url, return_url.is_some())
}

/// The address of this server, as the client called it.
fn host(headers: &HeaderMap) -> &str {
    headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("127.0.0.1")
}

/// PayPal's payment with this id.
fn known(api: &Api, id: &str) -> Option<Known> {
    api.provider.known(id).ok().filter(|known| known.payment.seller == Seller::Paypal)
}

async fn show(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Answer {
    known(&api, &id).map_or_else(missing, |known| Answer::ok(order(&known, &headers)))
}

async fn capture(State(api): State<Api>, headers: HeaderMap, Path(id): Path<String>) -> Response {
    once(&api, &CAPTURE_RULES, &headers, id.as_bytes(), || {
        let Some(found) = known(&api, &id) else { return missing() };
        match found.state.status {
            Status::Succeeded => return unprocessable("ORDER_ALREADY_CAPTURED"),
            Status::Failed => return unprocessable("INSTRUMENT_DECLINED"),
            Status::Open | Status::Canceled => return unprocessable("ORDER_NOT_APPROVED"),
            Status::Approved => {}
        }
        match api.provider.capture(&id) {
            // This is the short answer. A client that needs more asks for the order.
            Ok(_) => Answer { status: StatusCode::CREATED, body: json!({"id": id, "status": "COMPLETED"}) },
            Err(error) => unprocessable(&error.to_string()),
        }
    })
}

async fn show_capture(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let known = captured(&api, &id);
    known.map_or_else(missing, |known| Answer::ok(paypal_capture(&known.payment, &known.state, known.order_id)))
}

/// The payment of a capture.
fn captured(api: &Api, capture_id: &str) -> Option<Known> {
    let known = capture_id.strip_prefix("CAPTURE").and_then(|tag| known(api, &format!("PAYPAL{tag}")));
    known.filter(|known| known.state.status == Status::Succeeded)
}

async fn list_disputes(
    State(api): State<Api>,
    headers: HeaderMap,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let Some(capture_id) = query.get("disputed_transaction_id") else {
        return error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "here, disputed_transaction_id must be given");
    };
    let number = |field: &str, usual: usize| query.get(field).map_or(Some(usual), |text| text.parse().ok());
    let size = number("page_size", PAGE_USUAL).filter(|size| (1..=PAGE_MAX).contains(size));
    let page = number("page", 1).filter(|page| *page >= 1);
    let (Some(size), Some(page)) = (size, page) else {
        return error(StatusCode::BAD_REQUEST, "INVALID_REQUEST", "INVALID_PARAMETER_VALUE");
    };
    let Some(known) = captured(&api, capture_id) else { return Answer::ok(json!({"items": []})) };
    let listed = |dispute| paypal_dispute(&known.payment, dispute);
    let mut rest = known.state.disputes.iter().rev().map(listed).skip(size.saturating_mul(page - 1));
    let items: Vec<Value> = rest.by_ref().take(size).collect();
    let mut links = Vec::new();
    if rest.next().is_some() {
        let id = paypal_capture_id(&known.payment);
        let query = format!("disputed_transaction_id={id}&page_size={size}&page={}", page + 1);
        let href = format!("http://{}/v1/customer/disputes?{query}", host(&headers));
        links.push(json!({"rel": "next", "href": href, "method": "GET"}));
    }
    Answer::ok(json!({"items": items, "links": links}))
}

async fn show_refund(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let found = id.strip_prefix("REFUND").and_then(|rest| {
        let (tag, number) = rest.rsplit_once('N')?;
        let known = known(&api, &format!("PAYPAL{tag}"))?;
        let number: usize = number.parse().ok()?;
        let refund = known.state.refunds.iter().find(|refund| refund.number == number)?;
        Some(paypal_refund(&known.payment, refund))
    });
    found.map_or_else(missing, Answer::ok)
}

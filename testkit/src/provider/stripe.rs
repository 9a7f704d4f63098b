//! The simulated provider's part of Stripe's API that creates and reads payments, with its faults. Rules from
//! <https://docs.stripe.com/api/idempotent_requests> and <https://docs.stripe.com/api/payment_intents>.
//!
//! | call | effect |
//! |---|---|
//! | `POST /v1/payment_intents` | creates a payment, once for each key: the same key gets the same answer, also a 500; with other parameters it is refused |
//! | `GET /v1/payment_intents/{id}?expand[]=latest_charge` | shows a payment, with its charge if the query asks for it |
//! | `GET /v1/payment_intents?created[gte]=&limit=&starting_after=` | lists payments, newest first |
//! | `GET /v1/refunds?payment_intent=`, `GET /v1/disputes?payment_intent=` | lists the refunds or disputes of one payment, newest first |
//! | `GET /v1/refunds/{id}`, `GET /v1/disputes/{id}` | shows one refund or dispute |
//! | `GET /v1/charges/{id}`, `GET /v1/checkout/sessions/{id}` | shows the charge or session of a payment |
//! | `POST /faults` `["lose_request", …]` | sets the faults of the next calls that create a payment, one for each call |
//! | `POST /faults/forget-keys` | forgets all keys, as Stripe does after a day |
//! | `POST /faults/listing-lag` `2.5` | hides objects from lists until they are so many seconds old |

use super::faults::{Answer, Call, Calls, Done, Fault, KeyRules, control, lost, under_key};
use super::{Known, Provider};
use crate::lock;
use crate::money::{Currency, Money};
use crate::provider::payment::{
    Intent, Outcome, Seller, Status, stripe_charge, stripe_dispute, stripe_intent, stripe_refund, stripe_session,
};
use crate::provider::plan::mix;
use axum::body::Bytes;
use axum::extract::{Path, Query, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;

/// Most objects on one page.
const PAGE_MAX: usize = 100;

/// The longest wait of an answer for the webhooks that must come before it.
const OVERTAKEN_MAX: Duration = Duration::from_secs(20);

const RULES: KeyRules = KeyRules {
    failure: || error(StatusCode::INTERNAL_SERVER_ERROR, "api_error", "An unknown error occurred"),
    keeps_failures: true,
    takes_other_requests: false,
};

type Asked = Query<HashMap<String, String>>;

#[derive(Debug, Clone)]
struct Api {
    provider: Provider,
    calls: Arc<Mutex<Calls>>,
}

/// The routes of Stripe's API.
pub(super) fn router(provider: Provider) -> Router {
    let calls: Arc<Mutex<Calls>> = Arc::new(Mutex::new(Calls::new(provider.chance())));
    Router::new()
        .route("/v1/payment_intents", get(list).post(create))
        .route("/v1/payment_intents/{id}", get(show))
        .route("/v1/charges/{id}", get(charge))
        .route("/v1/checkout/sessions/{id}", get(session))
        .route("/v1/refunds", get(refunds))
        .route("/v1/refunds/{id}", get(refund))
        .route("/v1/disputes", get(disputes))
        .route("/v1/disputes/{id}", get(dispute))
        .layer(from_fn(authorize))
        .route("/faults/listing-lag", post(set_listing_lag))
        .with_state(Api { calls: Arc::clone(&calls), provider })
        .merge(control("/faults", calls))
}

fn error(status: StatusCode, kind: &str, message: &str) -> Answer {
    Answer { status, body: json!({"error": {"type": kind, "message": message}}) }
}

fn refused(message: &str) -> Answer {
    error(StatusCode::BAD_REQUEST, "invalid_request_error", message)
}

fn missing(what: &str) -> Answer {
    let error =
        json!({"type": "invalid_request_error", "code": "resource_missing", "message": format!("No such {what}")});
    Answer { status: StatusCode::NOT_FOUND, body: json!({"error": error}) }
}

async fn authorize(request: Request, next: Next) -> Response {
    let is_known =
        request.headers().get(AUTHORIZATION).is_some_and(|value| value.as_bytes().starts_with(b"Bearer sk_test_"));
    if is_known {
        return next.run(request).await;
    }
    error(StatusCode::UNAUTHORIZED, "invalid_request_error", "Invalid API Key provided").into_response()
}

async fn create(State(api): State<Api>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(key) = headers.get("idempotency-key").and_then(|key| key.to_str().ok()) else {
        return refused("this client always sends a key").into_response();
    };
    let form = form(&body);
    let lot = lot(&form);
    let call = Call { key, request: Sha256::digest(&body).into(), lot };
    let (done, fault) = under_key(&api.calls, &RULES, &call, || make(&api.provider, &form, lot));
    match done {
        Done::Lost => lost(),
        Done::OtherRequest => {
            let message = "Keys for idempotent requests can only be used with the same parameters";
            error(StatusCode::BAD_REQUEST, "idempotency_error", message).into_response()
        }
        Done::Before(answer) => {
            let mut response = answer.into_response();
            response.headers_mut().insert("idempotent-replayed", HeaderValue::from_static("true"));
            response
        }
        Done::Now(answer) => {
            if let (Fault::Overtake, Some(id)) = (fault, answer.body.get("id").and_then(Value::as_str)) {
                // These calls cannot fail, because the payment is new.
                let _ = api.provider.pay(id, Outcome::Succeeded);
                let _ = api.provider.is_heard(id, OVERTAKEN_MAX).await;
            }
            answer.into_response()
        }
    }
}

fn form(body: &[u8]) -> HashMap<String, String> {
    reqwest::Url::parse(&format!("http://x/?{}", String::from_utf8_lossy(body)))
        .map(|url| url.query_pairs().into_owned().collect())
        .unwrap_or_default()
}

/// The lot of a call is its price. Orders have other ids in each run, and the same prices.
fn lot(form: &HashMap<String, String>) -> u64 {
    let price = format!("{:?} {:?}", form.get("amount"), form.get("currency"));
    Sha256::digest(price).iter().take(8).fold(0, |lot, byte| lot << 8 | u64::from(*byte))
}

fn make(provider: &Provider, form: &HashMap<String, String>, lot: u64) -> Answer {
    let text = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
    let Ok(units) = text("amount").parse::<i64>() else { return refused("amount: Invalid integer") };
    if units < 50 {
        return refused("Amount must be at least $0.50 usd");
    }
    let currency = Currency::new(&text("currency").to_ascii_uppercase()).ok();
    let money = currency.and_then(|currency| Money::from_stripe(units, currency));
    let Some(money) = money else { return refused("Invalid currency") };
    let order_id = text("metadata[order_id]").parse().ok();
    let seed = provider.chance().map(|seed| mix(seed, lot));
    let made = provider.create(Seller::Stripe, money, order_id, seed).and_then(|made| provider.known(&made.id));
    match made {
        Ok(known) => Answer::ok(intent(&known, false)),
        Err(full) => error(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", &full.to_string()),
    }
}

fn intent(known: &Known, is_expanded: bool) -> Value {
    let charge = if is_expanded { charge_of(known) } else { None };
    stripe_intent(&known.payment, &Intent::now(&known.state, known.order_id, charge))
}

/// The charge of a paid payment.
fn charge_of(known: &Known) -> Option<Value> {
    let Known { payment, state, .. } = known;
    let is_paid = state.status == Status::Succeeded;
    is_paid.then(|| stripe_charge(payment, state.since, state.refunded_minor(), !state.disputes.is_empty()))
}

/// Stripe's payment with this id.
fn known(api: &Api, id: &str) -> Option<Known> {
    api.provider.known(id).ok().filter(|known| known.payment.seller == Seller::Stripe)
}

async fn show(State(api): State<Api>, Path(id): Path<String>, Query(query): Asked) -> Answer {
    let is_expanded = query.get("expand[]").is_some_and(|what| what == "latest_charge");
    known(&api, &id).map_or_else(|| missing("payment_intent"), |known| Answer::ok(intent(&known, is_expanded)))
}

async fn charge(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let charge = id.strip_prefix("ch_").and_then(|tag| charge_of(&known(&api, &format!("pi_{tag}"))?));
    charge.map_or_else(|| missing("charge"), Answer::ok)
}

async fn session(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let known = id.strip_prefix("cs_test_").and_then(|tag| known(&api, &format!("pi_{tag}")));
    known.map_or_else(
        || missing("checkout.session"),
        |known| {
            let is_paid = known.state.status == Status::Succeeded;
            Answer::ok(stripe_session(&known.payment, is_paid, known.order_id))
        },
    )
}

async fn list(State(api): State<Api>, Query(query): Asked) -> Answer {
    let since = query.get("created[gte]").and_then(|text| text.parse::<i64>().ok()).unwrap_or(0);
    let all = api.provider.list(Seller::Stripe, |known| known.payment.created_at.unix_timestamp() >= since);
    page(&api, all.iter().map(|known| (known.payment.created_at, intent(known, false))), &query)
}

async fn refunds(State(api): State<Api>, Query(query): Asked) -> Answer {
    of_payment(&api, &query, |known| {
        known.state.refunds.iter().rev().map(|refund| (refund.at, stripe_refund(&known.payment, refund))).collect()
    })
}

async fn disputes(State(api): State<Api>, Query(query): Asked) -> Answer {
    of_payment(&api, &query, |known| {
        known.state.disputes.iter().rev().map(|dispute| (dispute.at, stripe_dispute(&known.payment, dispute))).collect()
    })
}

async fn refund(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let found = numbered(&api, &id, "re_", 'r').and_then(|(known, number)| {
        let refund = known.state.refunds.iter().find(|refund| refund.number == number)?;
        Some(stripe_refund(&known.payment, refund))
    });
    found.map_or_else(|| missing("refund"), Answer::ok)
}

async fn dispute(State(api): State<Api>, Path(id): Path<String>) -> Answer {
    let found = numbered(&api, &id, "dp_", 'd').and_then(|(known, number)| {
        let dispute = known.state.disputes.iter().find(|dispute| dispute.number == number)?;
        Some(stripe_dispute(&known.payment, dispute))
    });
    found.map_or_else(|| missing("dispute"), Answer::ok)
}

/// The payment and the number in an id such as `re_<tag>r1`.
fn numbered(api: &Api, id: &str, prefix: &str, mark: char) -> Option<(Known, usize)> {
    let (tag, number) = id.strip_prefix(prefix)?.rsplit_once(mark)?;
    Some((known(api, &format!("pi_{tag}"))?, number.parse().ok()?))
}

fn of_payment(
    api: &Api,
    query: &HashMap<String, String>,
    objects: impl FnOnce(&Known) -> Vec<(OffsetDateTime, Value)>,
) -> Answer {
    let Some(id) = query.get("payment_intent") else { return refused("here, payment_intent must be given") };
    known(api, id).map_or_else(|| missing("payment_intent"), |known| page(api, objects(&known).into_iter(), query))
}

/// One page of a list, newest first, without objects that are too new to be listed.
fn page(api: &Api, objects: impl Iterator<Item = (OffsetDateTime, Value)>, query: &HashMap<String, String>) -> Answer {
    let limit = query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(10_usize).clamp(1, PAGE_MAX);
    let newest = OffsetDateTime::now_utc() - lock(&api.calls).listing_lag();
    let mut rest = objects.filter(|(at, _)| *at <= newest).map(|(_, object)| object);
    if let Some(after) = query.get("starting_after") {
        rest.by_ref().find(|object| object.get("id").and_then(Value::as_str) == Some(after));
    }
    let page: Vec<Value> = rest.by_ref().take(limit).collect();
    let has_more = rest.next().is_some();
    Answer::ok(json!({"object": "list", "data": page, "has_more": has_more}))
}

async fn set_listing_lag(State(api): State<Api>, Json(seconds): Json<f64>) -> StatusCode {
    let Ok(lag) = Duration::try_from_secs_f64(seconds) else { return StatusCode::UNPROCESSABLE_ENTITY };
    lock(&api.calls).set_listing_lag(lag);
    StatusCode::NO_CONTENT
}

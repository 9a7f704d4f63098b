//! The HTTP interface that controls the simulated provider. Bodies are JSON.
//!
//! | call | effect |
//! |---|---|
//! | `POST /payments` `{provider: "stripe", "standard" or "paypal", amount_minor, currency, metadata: {order_id}?, seed?}` | creates a payment: 201 |
//! | `POST /payments/{id}` `{metadata: {order_id}}` | attaches the site's order; later events carry it |
//! | `POST /payments/{id}/pay` `{outcome: "succeeded", "failed" or "canceled"}` | the buyer acts; webhooks follow: 202 |
//! | `POST /payments/{id}/replay?times=50&parallel=true` | sends its webhook that many times again, and waits for the answers |
//! | `POST /payments/{id}/refund` `{amount_minor?}` | refunds the amount, or the whole rest: 202 |
//! | `POST /payments/{id}/refund/fail` | the last refund fails: 202 |
//! | `POST /payments/{id}/dispute` | the buyer's bank takes back the rest: 202 |
//! | `POST /payments/{id}/dispute/close` `{won: true or false}` | the dispute is decided: 202 |
//! | `POST /payments/{id}/silence` | no webhook of the payment is ever sent |
//! | `POST /payments/{id}/drop-next` | the webhooks of the next action are never sent |
//! | `GET /payments/{id}` | shows the payment, and the counts of its webhooks |
//! | `GET /` | shows a plain index of all payments |
//!
//! The same server has Stripe's and PayPal's own APIs, as far as they create and read payments (`stripe`,
//! `paypal`).
//!
//! No login is needed: the provider listens on loopback and has no real money.

use super::{Metadata, PaymentView, Provider, ProviderError, Replayed};
use crate::provider::payment::{Outcome, Seller, money};
use axum::Json;
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use std::fmt::Write;

/// The number of payments in the index.
const INDEX_LINES: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewPayment {
    provider: Seller,
    #[serde(alias = "amount")]
    amount_minor: i64,
    currency: String,
    #[serde(default)]
    metadata: Metadata,
    seed: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Act {
    outcome: Outcome,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Amount {
    #[serde(alias = "amount")]
    amount_minor: Option<i64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Decision {
    won: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Replay {
    #[serde(default = "once")]
    times: u32,
    #[serde(default)]
    parallel: bool,
}

fn once() -> u32 {
    1
}

/// The routes of the control and of both APIs.
pub fn router(provider: Provider) -> Router {
    Router::new()
        .route("/", get(index))
        .route("/payments", post(create))
        .route("/payments/{id}", get(show).post(change))
        .route("/payments/{id}/pay", post(pay))
        .route("/payments/{id}/replay", post(replay))
        .route("/payments/{id}/refund", post(refund))
        .route("/payments/{id}/refund/fail", post(fail_refund))
        .route("/payments/{id}/dispute", post(dispute))
        .route("/payments/{id}/dispute/close", post(close_dispute))
        .route("/payments/{id}/silence", post(silence))
        .route("/payments/{id}/drop-next", post(drop_next))
        .with_state(provider.clone())
        .merge(super::stripe::router(provider.clone()))
        .merge(super::paypal::router(provider))
}

type Acted = Result<(StatusCode, Json<PaymentView>), Refused>;

async fn create(
    State(provider): State<Provider>,
    Json(new): Json<NewPayment>,
) -> Result<(StatusCode, Json<PaymentView>), Refused> {
    let money = money(new.amount_minor, &new.currency)
        .map_err(|error| Refused(StatusCode::UNPROCESSABLE_ENTITY, error.to_string()))?;
    let payment = provider.create(new.provider, money, new.metadata.order_id, new.seed)?;
    Ok((StatusCode::CREATED, Json(payment)))
}

async fn show(State(provider): State<Provider>, Path(id): Path<String>) -> Result<Json<PaymentView>, Refused> {
    Ok(Json(provider.payment(&id)?))
}

async fn change(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    Json(change): Json<Change>,
) -> Result<Json<PaymentView>, Refused> {
    Ok(Json(provider.attach(&id, change.metadata)?))
}

async fn pay(State(provider): State<Provider>, Path(id): Path<String>, Json(act): Json<Act>) -> Acted {
    Ok((StatusCode::ACCEPTED, Json(provider.pay(&id, act.outcome)?)))
}

async fn refund(State(provider): State<Provider>, Path(id): Path<String>, Json(amount): Json<Amount>) -> Acted {
    Ok((StatusCode::ACCEPTED, Json(provider.refund(&id, amount.amount_minor)?)))
}

async fn fail_refund(State(provider): State<Provider>, Path(id): Path<String>) -> Acted {
    Ok((StatusCode::ACCEPTED, Json(provider.fail_refund(&id)?)))
}

async fn dispute(State(provider): State<Provider>, Path(id): Path<String>) -> Acted {
    Ok((StatusCode::ACCEPTED, Json(provider.dispute(&id)?)))
}

async fn close_dispute(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    Json(decision): Json<Decision>,
) -> Acted {
    Ok((StatusCode::ACCEPTED, Json(provider.close_dispute(&id, decision.won)?)))
}

async fn silence(State(provider): State<Provider>, Path(id): Path<String>) -> Result<Json<PaymentView>, Refused> {
    Ok(Json(provider.silence(&id)?))
}

async fn drop_next(State(provider): State<Provider>, Path(id): Path<String>) -> Result<Json<PaymentView>, Refused> {
    Ok(Json(provider.drop_next(&id)?))
}

async fn replay(
    State(provider): State<Provider>,
    Path(id): Path<String>,
    Query(replay): Query<Replay>,
) -> Result<Json<Replayed>, Refused> {
    Ok(Json(provider.replay(&id, replay.times, replay.parallel).await?))
}

async fn index(State(provider): State<Provider>) -> String {
    let mut page = String::from(
        "A simulated payment provider.\n\n\
         POST /payments               {\"provider\": \"stripe\", \"amount_minor\": 1999, \"currency\": \"USD\"}\n\
         POST /payments/{id}          {\"metadata\": {\"order_id\": \"...\"}}\n\
         POST /payments/{id}/pay      {\"outcome\": \"succeeded\"}   or failed, canceled\n\
         POST /payments/{id}/replay?times=50&parallel=true\n\
         POST /payments/{id}/refund   {\"amount_minor\": 500}        or {} for all that is left\n\
         POST /payments/{id}/refund/fail\n\
         POST /payments/{id}/dispute\n\
         POST /payments/{id}/dispute/close   {\"won\": true}\n\
         POST /payments/{id}/silence, /payments/{id}/drop-next\n\
         GET  /payments/{id}\n\n",
    );
    let (payments, paid) = provider.payments();
    let counts = provider.counts();
    // Writing to a String cannot fail.
    let _ = writeln!(
        page,
        "{payments} payments, {paid} of them paid; {} webhooks sent, {} of them duplicates, {} accepted\n",
        counts.sent, counts.duplicates, counts.accepted
    );
    for payment in provider.newest(INDEX_LINES) {
        let _ = writeln!(
            page,
            "{:<28} {:<9} {:<17} {:>9} {}  webhooks {}/{}",
            payment.id,
            payment.provider.name(),
            payment.status,
            payment.amount_minor,
            payment.currency,
            payment.webhooks.accepted,
            payment.webhooks.sent
        );
    }
    page
}

/// An answer that refuses the request.
struct Refused(StatusCode, String);

impl From<ProviderError> for Refused {
    fn from(error: ProviderError) -> Self {
        let status = match error {
            ProviderError::Unknown(_) => StatusCode::NOT_FOUND,
            ProviderError::PaidAlready(_)
            | ProviderError::Over(_)
            | ProviderError::NothingLeft(_)
            | ProviderError::NoRefund(_)
            | ProviderError::NoDispute(_)
            | ProviderError::NotApproved(_)
            | ProviderError::NothingToReplay(_) => StatusCode::CONFLICT,
            ProviderError::BadAmount(_) | ProviderError::BadTimes => StatusCode::UNPROCESSABLE_ENTITY,
            ProviderError::Full => StatusCode::TOO_MANY_REQUESTS,
        };
        Self(status, error.to_string())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, Json(serde_json::json!({"error": self.1}))).into_response()
    }
}

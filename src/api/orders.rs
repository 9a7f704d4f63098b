//! Creates and reads orders.

use super::answers::{json, store_failed};
use super::poll::WAIT_SECONDS_MAX;
use super::request::{BODY_BYTES_MAX, Fields, OrderRequest, idempotency_key};
use super::view::{CheckBody, OrderBody};
use super::{App, paying};
use crate::domain::{OrderId, Provider};
use crate::failpoint::{self, Failpoint};
use crate::http::{Parameters, Problem, read_json};
use crate::store::{Attach, Created, HandedOut, IdempotencyKey, Wanted};
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use std::time::Duration;
use time::{OffsetDateTime, UtcOffset};
use uuid::{NoContext, Timestamp, Uuid};

/// How long the body of a request may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// The header that marks the repeated answer of an earlier call.
const REPLAYED: &str = "idempotent-replayed";

/// Handles the request `POST /v1/orders`.
pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, Problem> {
    let site = app.access.site(request.headers())?;
    let key = idempotency_key(request.headers())?;
    let fields = read_json::<Fields>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let asked = OrderRequest::check(fields)?;

    let creates = asked.payment_id.is_none();
    if creates && asked.provider_account.is_some() && asked.provider != Provider::STRIPE {
        return Err(Problem::unprocessable("fields are not as they must be")
            .of_kind("invalid_fields", "Invalid fields")
            .with_field("provider_account", "goes with payments that are created at Stripe, or with a payment_id"));
    }
    if creates && !app.providers.can_create(&asked.provider) {
        let detail =
            "is required: no API key of this provider is configured here, with which we could create the payment";
        return Err(Problem::unprocessable("fields are not as they must be")
            .of_kind("invalid_fields", "Invalid fields")
            .with_field("payment_id", detail));
    }
    let now = as_postgres_keeps_it(app.clock.now());
    let key = IdempotencyKey { token_name: site.name, key, request_digest: asked.digest() };
    let attached = app.store.attach_order(key, asked.to_order(new_id(now), now, now + app.first_look_after)).await;
    match attached.map_err(|error| store_failed(&error))? {
        Attach::Created(created) => {
            failpoint::hit(Failpoint::AfterOrder);
            answer(&app, &asked, &created).await
        }
        Attach::Replayed(created) => {
            let mut response = answer(&app, &asked, &created).await?;
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
            Ok(response)
        }
        Attach::KeyReused => {
            Err(Problem::unprocessable("this Idempotency-Key stands for another request; a new order needs a new key")
                .of_kind("idempotency_key_reused", "Key used for another request"))
        }
        Attach::PaymentTaken => Err(Problem::conflict("this payment belongs to another order, for ever")
            .of_kind("payment_taken", "Payment belongs to another order")),
    }
}

/// The order with its payment. The payment is created now if neither the site nor an earlier call has created it.
async fn answer(app: &App, asked: &OrderRequest, created: &Created) -> Result<Response, Problem> {
    let payment = match &asked.payment_id {
        Some(payment_id) => HandedOut { payment_id: payment_id.clone(), client_secret: None, approve_url: None },
        None => paying::hand_out(app, created.id, asked).await?,
    };
    let token = app.access.status_token(created.id);
    let mut response = json(StatusCode::CREATED, &OrderBody::created(asked, created, &payment, token));
    // Our ids consist of header characters, so this cannot fail.
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/orders/{}", created.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// In UTC, to the microsecond: a repeated call must read back what the first one was told.
fn as_postgres_keeps_it(now: OffsetDateTime) -> OffsetDateTime {
    let now = now.to_offset(UtcOffset::UTC);
    now.replace_microsecond(now.microsecond()).unwrap_or(now)
}

/// Version 7: its time is that of the order, and the rest is random.
fn new_id(now: OffsetDateTime) -> OrderId {
    let seconds = u64::try_from(now.unix_timestamp()).unwrap_or(0);
    OrderId(Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, now.nanosecond())))
}

/// Handles the request `GET /v1/orders/{id}?wait=&since=&token=`.
pub(super) async fn read(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    let mut parameters = Parameters::of(&uri);
    let reader = app.access.reader(&headers, &id, parameters.get("token"))?;
    let wait = parameters.number("wait", 0..=WAIT_SECONDS_MAX).and_then(|seconds| u64::try_from(seconds).ok());
    let since = parameters.number("since", 0..=i64::MAX);
    parameters.check(&["wait", "since", "token"])?;

    let unknown = || Problem::not_found("there is no such order");
    let id = id.parse::<OrderId>().map_err(|_| unknown())?;
    let order = match wait.unwrap_or(0) {
        0 => app.reader.order(id).await,
        seconds => app.polls.order(id, since, Duration::from_secs(seconds)).await,
    };
    let order = order.map_err(|error| store_failed(&error))?.ok_or_else(unknown)?;
    Ok(json(StatusCode::OK, &OrderBody::now(&order, reader)))
}

/// Handles `POST /v1/orders/{id}/check`: the buyer is back, and the provider is to be asked now. Only the site may call
/// it, because buyers would otherwise set the pace of our calls.
pub(super) async fn check(
    State(app): State<App>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.access.site(&headers)?;
    let unknown = || Problem::not_found("there is no such order");
    let id = path.map(|Path(id)| id).unwrap_or_default().parse::<OrderId>().map_err(|_| unknown())?;
    let wanted = app.store.want_look(id, app.clock.now()).await;
    let wanted = wanted.map_err(|error| store_failed(&error))?.ok_or_else(unknown)?;
    let (will_ask, detail) = match wanted {
        Wanted::Due => (true, "the provider is asked as soon as its turn comes"),
        Wanted::Coalesced => (true, "the provider is about to be asked anyway"),
        Wanted::NoPayment => {
            (false, "the order has no payment yet: repeat the call that made the order, which makes it")
        }
        Wanted::CannotBeAsked => {
            (false, "this provider cannot be asked what became of a payment: its messages are all there is to wait for")
        }
    };
    Ok(json(StatusCode::ACCEPTED, &CheckBody { id, will_ask, detail }))
}

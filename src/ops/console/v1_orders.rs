//! Orders, payments and accounts as JSON: what `v1` has about letters, with the order as the unit.

use super::App;
use super::access::Operator;
use super::check::{about_payment, ask_now, askable_of, in_words};
use super::forget::forget_now;
use super::layout::Sorry;
use super::order::{OrderPath, read_id, standing_of};
use super::price::{amend_one, consequence};
use super::queue::peek_now;
use super::selection::cursor;
use super::settle::check_reason;
use super::v1::{Answer, BODY_BYTES_MAX, BODY_DEADLINE, json_of, selection};
use crate::domain::{AccountId, Currency, Money};
use crate::http::{Problem, read_json};
use crate::message::{DETAIL_HEADER, REASON_HEADER};
use crate::ops::amending::amount;
use crate::ops::standing::{KnownOrder, Standing, stand};
use crate::store::{Amended, AskedAbout};
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

/// Orders on a page at most, and letters of one look at the queue.
const ORDERS_MAX: u32 = 200;
const QUEUE_LETTERS_MAX: u16 = 100;
const QUEUE_LETTERS_DEFAULT: u16 = 10;

/// Fields that are not as they must be.
fn refused(field: &str, detail: impl Into<String>) -> Problem {
    Problem::unprocessable("fields are not as they must be")
        .of_kind("invalid_fields", "Invalid fields")
        .with_field(field, detail)
}

/// An order with its money, as the list and the order's own answer have it.
fn line(standing: &Standing) -> Value {
    let mut line = json!(standing.about);
    let order = standing.order.order();
    if let Value::Object(fields) = &mut line {
        fields.insert(
            "order".to_owned(),
            json!(match &standing.order {
                KnownOrder::None => "none",
                KnownOrder::Missing => "missing",
                KnownOrder::Unreadable(_) => "unreadable",
                KnownOrder::Read(_) => "read",
            }),
        );
        fields.insert("status".to_owned(), json!(order.map(|order| order.status.name())));
        fields.insert("is_granted".to_owned(), json!(order.map(|order| order.is_granted)));
        fields.insert("credits".to_owned(), json!(order.map(|order| order.credits)));
        fields.insert("credits_granted".to_owned(), json!(order.map(|order| order.credits_posted)));
        fields.insert("expected".to_owned(), json!(order.map(|order| amount(order.price))));
        fields.insert("paid".to_owned(), standing.paid.amounts.iter().copied().map(amount).collect());
        fields.insert("is_paid_at_least".to_owned(), json!(standing.paid.is_at_least));
        let difference = order.and_then(|order| standing.paid.difference_minor(order));
        fields.insert("difference_minor".to_owned(), json!(difference));
        fields.insert("next_step".to_owned(), json!(standing.next));
    }
    line
}

/// `GET /v1/dead-letters/orders`: the letters of a filter, by order.
pub(super) async fn list(State(app): State<App>, uri: Uri) -> Answer {
    let (selection, limit) = selection(&app, &uri)?;
    let page = app.store().letters_by_order(selection.filter, selection.after, limit.min(ORDERS_MAX)).await;
    let page = page.map_err(Sorry::from)?;
    let standings = stand(app.store(), &app.console.terms, page.orders, app.now()).await.map_err(Sorry::from)?;
    let orders: Vec<Value> = standings.iter().map(line).collect();
    let body = json!({
        "orders": orders,
        "next": page.next.map(cursor),
        "is_cut": page.grouped_since.is_some(),
    });
    json_of(StatusCode::OK, body)
}

/// `GET /v1/orders/{id}`: one order, with its letters in all states.
pub(super) async fn one(State(app): State<App>, path: OrderPath) -> Answer {
    let standing = standing_of(&app, read_id(path)?, app.now()).await?;
    let mut body = line(&standing);
    if let Value::Object(fields) = &mut body {
        fields.insert("dead_letters".to_owned(), json!(standing.letters));
    }
    json_of(StatusCode::OK, body)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckOrder {
    reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CheckPayment {
    provider: String,
    provider_account: Option<String>,
    payment_id: String,
    reason: String,
}

/// `POST /v1/orders/{id}/check`.
pub(super) async fn check_order(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: OrderPath,
    request: Request,
) -> Answer {
    let id = read_id(path)?;
    let call = read_json::<CheckOrder>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    check(&app, &operator, AskedAbout::Order(id), &call.reason).await
}

/// `POST /v1/payments/check`: a payment that need not have an order.
pub(super) async fn check_payment(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Answer {
    let call = read_json::<CheckPayment>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let account = call.provider_account.as_deref().filter(|account| !account.is_empty());
    let about = about_payment(&call.provider, account, &call.payment_id);
    let field = |field| if field == "payment" { "payment_id" } else { field };
    let about = about.map_err(|(name, detail)| refused(field(name), detail))?;
    check(&app, &operator, about, &call.reason).await
}

async fn check(app: &App, operator: &Operator, about: AskedAbout, reason: &str) -> Answer {
    let reason = check_reason(reason)?;
    let askable = askable_of(app, about).await?;
    let asked = ask_now(app, operator, askable, reason).await?;
    let detail = match asked {
        Ok(()) => "the reconciler asks the provider as soon as its turn comes",
        Err(why) => in_words(why),
    };
    json_of(StatusCode::ACCEPTED, json!({ "will_ask": asked.is_ok(), "detail": detail }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    amount_minor: i64,
    currency: String,
}

impl Price {
    fn money(&self, field: &str) -> Result<Money, Problem> {
        let currency = Currency::new(&self.currency);
        let currency = currency.map_err(|error| refused(&format!("{field}.currency"), error.to_string()))?;
        match Money::new(self.amount_minor, currency) {
            Ok(price) if price.amount_minor() > 0 => Ok(price),
            Ok(_) | Err(_) => Err(refused(&format!("{field}.amount_minor"), "must be above zero and at most 10^15")),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AmendPreview {
    price: Price,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AmendOrder {
    price: Price,
    /// The price that the caller has seen: an order that costs something else is not changed.
    seen: Option<Price>,
    reason: String,
}

/// `POST /v1/orders/{id}/amend/preview`: what another price would change.
pub(super) async fn amend_preview(State(app): State<App>, path: OrderPath, request: Request) -> Answer {
    let id = read_id(path)?;
    let price = read_json::<AmendPreview>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?.price.money("price")?;
    let standing = standing_of(&app, id, app.now()).await?;
    let Some(order) = standing.order.order() else {
        return Err(Problem::not_found("there is no such order, or its row cannot be read"));
    };
    let (would_amend, detail) = match consequence(&app, order, price) {
        Ok(detail) => (true, detail),
        Err(detail) => (false, detail),
    };
    let body = json!({
        "before": amount(order.price), "after": amount(price), "would_amend": would_amend, "detail": detail,
    });
    json_of(StatusCode::OK, body)
}

/// `POST /v1/orders/{id}/amend`.
pub(super) async fn amend(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: OrderPath,
    request: Request,
) -> Answer {
    let id = read_id(path)?;
    let call = read_json::<AmendOrder>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let price = call.price.money("price")?;
    let seen = call.seen.as_ref().map(|seen| seen.money("seen")).transpose()?;
    let amended = amend_one(&app, &operator, (id, price), seen, check_reason(&call.reason)?).await?;
    match amended {
        Amended::Written { before, version, repriced } => json_of(
            StatusCode::OK,
            json!({
                "outcome": "amended",
                "before": amount(before),
                "after": amount(price),
                "status": repriced.status.name(),
                "version": version,
                "is_grant_due": repriced.is_grant_due,
            }),
        ),
        Amended::Unchanged => json_of(StatusCode::OK, json!({ "outcome": "unchanged", "after": amount(price) })),
        Amended::OrderUnknown => Err(Problem::not_found("there is no such order")),
        Amended::Refused(refusal) => {
            Err(Problem::conflict(format!("nothing was changed: {refusal}")).of_kind(refusal.name(), "Not amended"))
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ForgetPreview {
    account_id: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    account_id: String,
    reason: String,
}

fn account(text: &str) -> Result<AccountId, Problem> {
    AccountId::new(text).map_err(|error| refused("account_id", error.to_string()))
}

/// `POST /v1/accounts/forget/preview`: what would be emptied.
pub(super) async fn forget_preview(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Answer {
    let call = read_json::<ForgetPreview>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let counts = forget_now(&app, &operator, account(&call.account_id)?, String::new(), false).await?;
    json_of(StatusCode::OK, counts.ok_or_else(|| Problem::not_found("no order is of this account"))?)
}

/// `POST /v1/accounts/forget`.
pub(super) async fn forget(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Answer {
    let call = read_json::<Forget>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let (account, reason) = (account(&call.account_id)?, check_reason(&call.reason)?);
    let counts = forget_now(&app, &operator, account, reason, true).await?;
    json_of(StatusCode::OK, counts.ok_or_else(|| Problem::not_found("no order is of this account"))?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Look {
    count: Option<u16>,
}

/// `POST /v1/dead-letters/queue`: the oldest dead letters that RabbitMQ still holds. They stay there.
pub(super) async fn queue(State(app): State<App>, request: Request) -> Answer {
    let call = read_json::<Look>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let count = call.count.unwrap_or(QUEUE_LETTERS_DEFAULT);
    if !(1..=QUEUE_LETTERS_MAX).contains(&count) {
        return Err(refused("count", format!("must be 1 to {QUEUE_LETTERS_MAX}")));
    }
    let letters = peek_now(&app, count).await?;
    let letters: Vec<Value> = letters
        .iter()
        .map(|letter| {
            json!({
                "message_id": letter.message_id,
                "type": letter.kind,
                "routing_key": letter.routing_key,
                "reason": letter.headers.text(REASON_HEADER),
                "detail": letter.headers.text(DETAIL_HEADER),
                "body": String::from_utf8_lossy(&letter.body),
            })
        })
        .collect();
    json_of(StatusCode::OK, json!({ "letters": letters }))
}

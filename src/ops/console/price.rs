//! Another price for one order, as `grantonce orders amend` sets it: what the order would become, then the new price.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry};
use super::order::{OrderPath, read_id, standing_of};
use super::orders::{self, difference, expected, order_address};
use super::settle::{read_reason, reason_field};
use crate::domain::{AMOUNT_MINOR_MAX, Currency, Money, Order, OrderId, reprice};
use crate::http::{Html, Parameters, Problem, html, see};
use crate::ops::standing::{KnownOrder, Standing};
use crate::store::{Amended, Amendment};
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

/// The price of an address or a form; none where none is given.
fn read_price(parameters: &mut Parameters) -> Option<Money> {
    let amount_minor = parameters.number("amount_minor", 1..=AMOUNT_MINOR_MAX);
    let currency =
        parameters.get("currency").map(|code| code.trim().to_ascii_uppercase()).filter(|code| !code.is_empty());
    let currency = currency.map(|code| Currency::new(&code));
    if let Some(Err(fault)) = &currency {
        parameters.fault("currency", fault.to_string());
    }
    Money::new(amount_minor?, currency?.ok()?).ok()
}

/// Writes the new price, unless the order costs something else than was `seen`.
pub(super) async fn amend_one(
    app: &App,
    operator: &Operator,
    (order_id, price): (OrderId, Money),
    seen: Option<Money>,
    reason: String,
) -> Result<Amended, Sorry> {
    if let Some(seen) = seen {
        let orders = app.store().orders_to_judge([order_id].into()).await?;
        if orders.read.get(&order_id).is_some_and(|order| order.price != seen) {
            let detail = "the order costs something else than you have seen: nothing was changed. Look again";
            return Err(Problem::conflict(detail).of_kind("not_as_seen", "Not as it was seen").into());
        }
    }
    let amendment = Amendment {
        order_id,
        price,
        dispute_policy: app.console.terms.dispute_policy,
        by: operator.actor(),
        reason,
        now: app.now(),
    };
    Ok(app.store().amend_order(amendment).await?)
}

/// What the new price would change, in a sentence; `Err`: why the price stays.
pub(super) fn consequence(app: &App, order: &Order, price: Money) -> Result<String, String> {
    match reprice(order, price, app.console.terms.dispute_policy) {
        Ok(None) => Err(format!("The order costs {} already. Nothing would change.", price.written())),
        Ok(Some(repriced)) => {
            let what = format!("The order would cost {} instead of {}.", price.written(), order.price.written());
            let then = match repriced.is_grant_due {
                false => "The amendment grants nothing. Replay the letters that were refused: the worker grants then.",
                true => {
                    "What is known of its payment pays this price. The credits are granted with the next new message about the \
                     payment: replay a dead letter of it, or check at the provider."
                }
            };
            Ok(format!("{what} {then}"))
        }
        Err(refusal) => Err(format!("The price cannot be amended: {refusal}.")),
    }
}

/// `GET /orders/{id}/amend`: with a price, what the order would become. Nothing is changed.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: OrderPath,
    uri: Uri,
) -> Result<Response, Sorry> {
    let id = read_id(path)?;
    let mut query = Parameters::of(&uri);
    let price = read_price(&mut query);
    query.check(&["amount_minor", "currency"])?;
    let standing = standing_of(&app, id, app.now()).await?;
    let body = match &standing.order {
        KnownOrder::Read(order) => {
            html![
                [wish(id, order, &standing, price)]
                    [price.map(|price| form(&app, &operator, order, price)).unwrap_or_default()]
            ]
        }
        KnownOrder::Unreadable(cause) => {
            html!["<section class=\"card\"><p>The order’s row cannot be read: " (cause) "</p></section>"]
        }
        KnownOrder::None | KnownOrder::Missing => return Err(Problem::not_found("there is no such order").into()),
    };
    let main = html![
        "<p class=\"dim\"><a href=\"/dead-letters\">Dead letters</a> › <a href=\"" (order_address(id)) "\">Order <code>" (id)
        "</code></a> ›</p><h1>Set another price</h1>" [body]
    ];
    let title = "Set another price";
    Ok(Page { title, part: Part::Letters, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

fn wish(id: OrderId, order: &Order, standing: &Standing, price: Option<Money>) -> Html {
    // What was paid, where it is one amount, is the likeliest new price.
    let likely = match standing.paid.amounts.as_slice() {
        [paid] if paid.amount_minor() > 0 => *paid,
        _ => order.price,
    };
    let shown = price.unwrap_or(likely);
    html![
        "<section class=\"card\"><dl class=\"figures\"><div><dt>Paid</dt><dd>" [orders::paid(&standing.paid)]
        "</dd></div><div><dt>Expected</dt><dd>" (expected(&standing.order)) "</dd></div><div><dt>Difference</dt><dd>"
        (difference(standing)) "</dd></div></dl><form action=\"" (order_address(id)) "/amend\" class=\"filters\">"
        "<div><label for=\"amount_minor\">New price, in minor units (1999 is 19.99 USD)</label><input id=\"amount_minor\" "
        "name=\"amount_minor\" type=\"number\" min=\"1\" max=\"" (AMOUNT_MINOR_MAX) "\" required value=\""
        (shown.amount_minor()) "\"></div><div><label for=\"currency\">Currency</label><input id=\"currency\" "
        "name=\"currency\" required maxlength=\"3\" value=\"" (shown.currency()) "\"></div>"
        "<div class=\"row\"><button>Show what it changes</button></div></form></section>"
    ]
}

fn form(app: &App, operator: &Operator, order: &Order, price: Money) -> Html {
    let sentence = match consequence(app, order, price) {
        Ok(sentence) => sentence,
        Err(sentence) => {
            return html!["<section class=\"card\"><p class=\"note bad\" id=\"says\"><b aria-hidden=\"true\">✕</b> " (sentence)
                "</p></section>"];
        }
    };
    html![
        "<section class=\"card\"><p class=\"big\" id=\"says\">" (sentence) "</p><p>A new price cannot be taken back after the "
        "grant. A buyer who has paid too little gets all credits for it.</p><form method=\"post\" action=\""
        (order_address(order.id)) "/amend\" class=\"stack\">" [operator.form_token()]
        "<input type=\"hidden\" name=\"amount_minor\" value=\"" (price.amount_minor())
        "\"><input type=\"hidden\" name=\"currency\" value=\"" (price.currency())
        "\"><input type=\"hidden\" name=\"seen_minor\" value=\"" (order.price.amount_minor())
        "\"><input type=\"hidden\" name=\"seen_currency\" value=\"" (order.price.currency()) "\">"
        [reason_field("reason", "Why does the order cost something else? It goes to the audit log.")]
        "<p><button id=\"do\">Set the price to " (price.written()) "</button></p></form></section>"
    ]
}

/// `POST /orders/{id}/amend`.
pub(super) async fn amend(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: OrderPath,
    request: Request,
) -> Result<Response, Sorry> {
    let id = read_id(path)?;
    let mut form = operator.read_form(request).await?;
    let reason = read_reason(&form)?;
    let price = read_price(&mut form);
    let seen = form.number("seen_minor", 1..=AMOUNT_MINOR_MAX);
    let seen_currency = form.get("seen_currency").and_then(|code| Currency::new(code).ok());
    let seen = seen.zip(seen_currency).and_then(|(minor, currency)| Money::new(minor, currency).ok());
    form.check(&["form_token", "amount_minor", "currency", "seen_minor", "seen_currency", "reason"])?;
    let (Some(price), Some(seen)) = (price, seen) else {
        return Err(
            Problem::bad_request("the form does not say which price was seen, or which one is to be set").into()
        );
    };
    match amend_one(&app, &operator, (id, price), Some(seen), reason).await? {
        Amended::Written { .. } | Amended::Unchanged => Ok(see(&order_address(id))),
        Amended::OrderUnknown => Err(Problem::not_found("there is no such order").into()),
        Amended::Refused(refusal) => Err(Problem::conflict(format!("nothing was changed: {refusal}")).into()),
    }
}

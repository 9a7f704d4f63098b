//! An order's page, which its buyer comes back to from the provider. Coming back proves nothing: it only makes the shop ask
//! grantonce to look, and then the page waits for what grantonce says.

use super::story::{Line, Reading, Tone, Verdict, read};
use super::tricks::buttons;
use super::{Sale, Shop, Visitor};
use crate::api::OrderView;
use crate::web::{Html, html, see};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use grantonce_testkit::OrderId;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::time::Duration;

/// How often a page is looked at again before its browser is told that nothing is new, and how long each look waits for the
/// order to change, in seconds.
const LOOKS: u32 = 15;
const LOOK_S: u64 = 1;

/// How long a balance may take.
const BALANCE_DEADLINE: Duration = Duration::from_secs(5);

const UNKNOWN: &str = "There is no such order of yours.";

/// What the browser shows already.
#[derive(Debug, Deserialize)]
pub(crate) struct Seen {
    #[serde(default)]
    seen: String,
}

/// The buyer is back from the provider.
pub(crate) async fn come_back(State(shop): State<Shop>, visitor: Visitor, Path(id): Path<OrderId>) -> Response {
    if shop.sale(&visitor, id).is_none() {
        return shop.sorry(&visitor, StatusCode::NOT_FOUND, UNKNOWN);
    }
    // Whatever this is answered, the page shows how the order stands.
    let note = match shop.partners().api.check(id).await {
        Ok(status) => format!("You came back. We asked grantonce to look at the payment: {status}."),
        Err(error) => format!("You came back. Asking grantonce to look at the payment did not work: {error}."),
    };
    shop.note(id, note);
    see(&format!("/orders/{id}"))
}

pub(crate) async fn show(State(shop): State<Shop>, visitor: Visitor, Path(id): Path<OrderId>) -> Response {
    let Some(sale) = shop.sale(&visitor, id) else { return shop.sorry(&visitor, StatusCode::NOT_FOUND, UNKNOWN) };
    let order = match shop.partners().api.read(id, 0, None).await {
        Ok(order) => order,
        Err(error) => return shop.sorry(&visitor, StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
    };
    let (living, seen) = living(&shop, &visitor, &sale, &order).await;
    // Without the script, a page that waits loads itself again.
    let again = html!["<noscript><meta http-equiv=\"refresh\" content=\"3\"></noscript>"];
    let script = html!["<script src=\"/live.js\" defer></script>"];
    let head = if is_settled(&order) { script } else { html![[script][again]] };
    let main = html![
        "<div id=\"live\" data-from=\"/orders/" (id) "/live\" data-seen=\"" (seen) "\">" [living] "</div>"
        [buttons(id)]
    ];
    shop.page(&visitor, StatusCode::OK, &format!("{} of credits", sale.name), head, main)
}

/// Answers when the living part of the page is another than the one that was seen, or after some seconds.
pub(crate) async fn live(
    State(shop): State<Shop>,
    visitor: Visitor,
    Path(id): Path<OrderId>,
    Query(seen): Query<Seen>,
) -> Response {
    let Ok(_seat) = shop.0.live_pages.try_acquire() else { return StatusCode::SERVICE_UNAVAILABLE.into_response() };
    let mut version = None;
    for _ in 0..LOOKS {
        // Read anew each time: what was tried meanwhile is a part of it.
        let Some(sale) = shop.sale(&visitor, id) else { return StatusCode::NOT_FOUND.into_response() };
        let wait_s = if version.is_none() { 0 } else { LOOK_S };
        let Ok(order) = shop.partners().api.read(id, wait_s, version).await else {
            return StatusCode::SERVICE_UNAVAILABLE.into_response();
        };
        version = order.version;
        let (living, now) = living(&shop, &visitor, &sale, &order).await;
        if now != seen.seen {
            let piece = html!["<!doctype html><div id=\"live\" data-seen=\"" (now) "\">" [living] "</div>"];
            let headers = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
            return (headers, piece.as_str().to_owned()).into_response();
        }
    }
    StatusCode::NO_CONTENT.into_response()
}

fn is_settled(order: &OrderView) -> bool {
    !matches!(order.status.as_str(), "awaiting_payment" | "processing")
}

/// The part of the page that changes, and what tells it from an earlier one.
async fn living(shop: &Shop, visitor: &Visitor, sale: &Sale, order: &OrderView) -> (Html, String) {
    let partners = shop.partners();
    let story = partners.witness.story(&order.id.to_string()).await.unwrap_or_default();
    let told = partners.provider.told(&sale.payment_id).unwrap_or_default();
    let balance = partners.api.balance(&visitor.account_id(), BALANCE_DEADLINE).await;
    let piece = html![
        [state(sale, order)][books(balance.ok(), shop.due(visitor))][arrivals(&read(&told, &story))][notes(sale)]
    ];
    let digest = hex::encode(Sha256::digest(piece.as_str()));
    let seen = digest.get(..16).unwrap_or(&digest).to_owned();
    (piece, seen)
}

/// How the order stands, in words for its buyer.
fn state(sale: &Sale, order: &OrderView) -> Html {
    let Sale { credits, .. } = sale;
    let net = order.credits_granted;
    let (tone, headline, text) = match order.status.as_str() {
        "awaiting_payment" => {
            ("wait", "Waiting for your payment".to_owned(), "Nothing was paid yet, as far as we know.")
        }
        "processing" => ("wait", "Your payment is under way".to_owned(), "The provider is at it."),
        "fulfilled" => ("good", format!("{credits} credits are yours"), "Thank you. They are in your balance."),
        "canceled" => ("bad", "This payment was given up".to_owned(), "Nothing was paid, nothing was credited."),
        "partially_refunded" => {
            ("wait", format!("{net} of {credits} credits are yours"), "A part of the money went back to you.")
        }
        "refunded" => ("bad", "Refunded".to_owned(), "The money went back to you, and the credits to us."),
        "disputed" => ("bad", format!("Disputed: {net} credits are yours"), "Your bank wants the money back."),
        other => ("wait", format!("The order is {other}"), ""),
    };
    let failure = match &order.last_failure {
        Some(why) => html!["<p id=\"failure\">The last try failed: " (why) "</p>"],
        None => Html::default(),
    };
    let pay = if order.status == "awaiting_payment" {
        html!["<p><a class=\"button\" id=\"pay\" href=\"" (sale.pay_url) "\">Go and pay " (sale.price.written()) "</a></p>"]
    } else {
        Html::default()
    };
    html![
        "<section class=\"card state " (tone) "\" id=\"state\" role=\"status\" data-status=\"" (order.status) "\">"
        "<h1>" (headline) "</h1><p>" (text) "</p>" [failure] [pay]
        "<p class=\"small\">" (sale.name) " for " (sale.price.written()) ", order <code>" (order.id) "</code>, payment <code>"
        (sale.payment_id) "</code></p></section>"
    ]
}

/// The balance, and what it must be.
fn books(balance: Option<i64>, due: i64) -> Html {
    let (tone, verdict) = match balance {
        Some(balance) if balance == due => ("good", "right"),
        Some(balance) if balance > due => ("wait", "more than was paid for, until the news is through"),
        Some(_) => ("wait", "on their way"),
        None => ("wait", "unknown just now"),
    };
    let shown = balance.map(|balance| balance.to_string()).unwrap_or_default();
    html![
        "<section class=\"card\"><h2>The books</h2><dl class=\"figures\">"
        "<div><dt>Your balance</dt><dd id=\"balance\">" (shown) "</dd></div>"
        "<div><dt>Worth of what you paid and kept</dt><dd id=\"due\">" (due) "</dd></div>"
        "<div><dt>So the balance is</dt><dd><span class=\"mark " (tone) "\" id=\"verdict\">" (verdict) "</span></dd></div>"
        "</dl></section>"
    ]
}

/// What arrived, and what became of it.
fn arrivals(reading: &Reading) -> Html {
    let table = if reading.lines.is_empty() {
        html!["<p class=\"dim\">Nothing yet: the provider has had nothing to tell.</p>"]
    } else {
        html![
            "<table><thead><tr><th>Message</th><th>Copies</th><th>What became of it</th></tr></thead><tbody>"
            [Html::all(reading.lines.iter().map(line))] "</tbody></table>"
        ]
    };
    html![
        "<section class=\"card\"><h2>What arrived, and what became of it</h2><dl class=\"figures\">"
        "<div><dt>Webhooks arrived</dt><dd id=\"arrived\">" (reading.arrived) "</dd></div>"
        "<div><dt>Messages admitted</dt><dd id=\"admitted\">" (reading.admitted) "</dd></div>"
        "<div><dt>Webhooks ignored</dt><dd id=\"ignored\">" (reading.ignored) "</dd></div>"
        "<div><dt>Events never sent</dt><dd id=\"dropped\">" (reading.dropped) "</dd></div></dl>" [table] "</section>"
    ]
}

fn line(line: &Line) -> Html {
    let copies = match line.copies {
        Some((sent, accepted)) => html![(sent) " sent, " (accepted) " taken"],
        None => html!["when asked"],
    };
    html![
        "<tr><td>" (line.what) "<br><code class=\"dim\">" (line.id) "</code></td><td data-name=\"Copies\">" [copies]
        "</td><td><ul class=\"plain\">" [Html::all(line.verdicts.iter().map(verdict))] "</ul></td></tr>"
    ]
}

fn verdict(verdict: &Verdict) -> Html {
    let class = match verdict.tone {
        Tone::Good => "mark good",
        Tone::Bad => "mark bad",
        Tone::Wait => "mark wait",
        Tone::Dim => "dim",
    };
    html!["<li><span class=\"" (class) "\">" (verdict.text) "</span></li>"]
}

fn notes(sale: &Sale) -> Html {
    if sale.notes.is_empty() {
        return Html::default();
    }
    let notes = Html::all(sale.notes.iter().map(|note| html!["<li>" (note) "</li>"]));
    html!["<section class=\"card\" id=\"notes\"><h2>What you did</h2><ul class=\"plain\">" [notes] "</ul></section>"]
}

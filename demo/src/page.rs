//! Where the buyer pays: the provider's own page, on the provider's own site. The shop sends the buyer here, and has no part
//! in what happens; the provider sends him back.

use crate::web::{Html, Page, assets, html, local, see};
use axum::Router;
use axum::extract::{Form, Path, Query, State};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::get;
use grantonce_testkit::provider::payment::{Outcome, Seller, Status};
use grantonce_testkit::provider::{Known, Provider, ProviderError};
use reqwest::Url;
use serde::Deserialize;

/// How the shop sends a buyer here.
#[derive(Debug, Deserialize)]
struct Came {
    #[serde(default)]
    return_url: String,
}

/// The same at PayPal, by the link that PayPal gave.
#[derive(Debug, Deserialize)]
struct CameByToken {
    token: String,
    #[serde(default)]
    return_url: String,
}

/// What the buyer decided.
#[derive(Debug, Deserialize)]
struct Decided {
    outcome: Outcome,
    #[serde(default)]
    return_url: String,
}

/// The routes.
pub(crate) fn router(provider: Provider) -> Router {
    Router::new()
        .route("/pay/{id}", get(show).post(decide))
        .route("/checkoutnow", get(show_by_token))
        .merge(assets())
        .with_state(provider)
}

async fn show(State(provider): State<Provider>, Path(id): Path<String>, Query(came): Query<Came>) -> Response {
    page(&provider, &id, &came.return_url)
}

async fn show_by_token(State(provider): State<Provider>, Query(came): Query<CameByToken>) -> Response {
    page(&provider, &came.token, &came.return_url)
}

async fn decide(State(provider): State<Provider>, Path(id): Path<String>, Form(decided): Form<Decided>) -> Response {
    if let Err(error @ (ProviderError::Unknown(_) | ProviderError::Full)) = provider.pay(&id, decided.outcome) {
        return sorry(&error);
    }
    match (decided.outcome, way_back(&provider, &id, &decided.return_url)) {
        // As at real providers, the buyer stays and may try another card.
        (Outcome::Failed, _) | (_, None) => page(&provider, &id, &decided.return_url),
        (Outcome::Succeeded | Outcome::Canceled, Some(url)) => see(url.as_str()),
    }
}

/// Where the buyer goes from here: where the seller said when he made the payment, else where the link says.
fn way_back(provider: &Provider, id: &str, by_link: &str) -> Option<Url> {
    let by_seller = provider.known(id).ok()?.return_url;
    local(by_seller.as_deref().unwrap_or(by_link))
}

fn page(provider: &Provider, id: &str, return_url: &str) -> Response {
    let known = match provider.known(id) {
        Ok(known) => known,
        Err(error) => return sorry(&error),
    };
    let back = way_back(provider, id, return_url);
    let title = match known.payment.seller {
        Seller::Paypal => "Agree to pay",
        Seller::Stripe | Seller::Standard => "Pay",
    };
    let (body, head) = (body(&known, title, back.as_ref()), Html::default());
    Page { status: StatusCode::OK, title, of: "provider", head, body, leads_to: back.as_ref() }.respond()
}

fn body(known: &Known, title: &str, back: Option<&Url>) -> Html {
    let Known { payment, state, .. } = known;
    let is_paypal = payment.seller == Seller::Paypal;
    let news = match state.status {
        Status::Open => Html::default(),
        Status::Failed => html!["<p class=\"mark bad\" role=\"alert\">Your card was declined. Try another one.</p>"],
        Status::Approved => html!["<p class=\"mark good\" role=\"status\">You have agreed to this payment.</p>"],
        Status::Succeeded => html!["<p class=\"mark good\" role=\"status\">This payment is paid.</p>"],
        Status::Canceled => html!["<p class=\"mark bad\" role=\"status\">This payment was given up.</p>"],
    };
    let is_payable = matches!(state.status, Status::Open | Status::Failed);
    let pay = if is_paypal { "Agree and pay" } else { "Pay" };
    let buttons = html![
        "<form class=\"row\" method=\"post\" action=\"/pay/" (payment.id) "\">"
        "<input type=\"hidden\" name=\"return_url\" value=\"" (back.map(Url::as_str).unwrap_or_default()) "\">"
        "<button name=\"outcome\" value=\"succeeded\">" (pay) " " (payment.money.written()) "</button>"
        "<button class=\"quiet\" name=\"outcome\" value=\"failed\">Card is declined</button>"
        "<button class=\"quiet\" name=\"outcome\" value=\"canceled\">Cancel</button></form>"
    ];
    let on = match back {
        Some(url) => html!["<p><a class=\"button\" href=\"" (url) "\">Back to the shop</a></p>"],
        None => html!["<p>You can close this page.</p>"],
    };
    html![
        "<header class=\"top\"><span class=\"brand\">Simulated " (if is_paypal { "PayPal" } else { "payments" })
        "</span><span class=\"mark wait\">no real money</span></header><main><section class=\"card\">"
        "<h1>" (title) "</h1><p class=\"big\">" (payment.money.written()) "</p>"
        "<p class=\"dim small\">Payment <code>" (payment.id) "</code></p>" [news]
        [if is_payable { buttons } else { on }]
        "</section></main>"
    ]
}

fn sorry(error: &ProviderError) -> Response {
    let body = html!["<main><section class=\"card\"><h1>That did not work</h1><p>" (error) "</p></section></main>"];
    let (status, head) = (StatusCode::NOT_FOUND, Html::default());
    Page { status, title: "That did not work", of: "provider", head, body, leads_to: None }.respond()
}

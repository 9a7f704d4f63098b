//! The buttons that try to cheat, and those that do what happens to any shop. Each says in a sentence what it was answered.

use super::{Sale, Shop, Visitor};
use crate::api::{ApiError, NewOrder};
use crate::web::{Html, html, see};
use axum::extract::{Form, Path, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::{join_all, try_join_all};
use grantonce_testkit::OrderId;
use grantonce_testkit::provider::ProviderError;
use grantonce_testkit::provider::payment::{Said, Seller};
use grantonce_testkit::sign::{standard_signature, stripe_signature};
use serde::Deserialize;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// How often somebody calls back at once, how often a webhook is replayed, and how many keys are tried.
const CALLS: usize = 50;
const REPLAYS: u32 = 100;
const KEYS: usize = 100;

/// What can be tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Trick {
    CallBack,
    Replay,
    NewKeys,
    Claim,
    DropNext,
    RefundHalf,
    RefundFails,
    Dispute,
    DisputeWon,
    DisputeLost,
}

struct Button {
    name: &'static str,
    label: &'static str,
    about: &'static str,
}

const fn button(name: &'static str, label: &'static str, about: &'static str) -> Button {
    Button { name, label, about }
}

/// By their names in the form.
const CHEATS: &[Button] = &[
    button("call_back", "Call back 50 times in parallel", "The buyer's browser says “I am back”, fifty times at once."),
    button("replay", "Replay the webhook 100×", "A genuine webhook, sent again and again by whoever recorded it."),
    button(
        "new_keys",
        "New idempotency key each time",
        "A hundred orders for the one payment, each under a key of its own.",
    ),
    button(
        "claim",
        "Say I have paid (I have not)",
        "A webhook that looks like the provider's, with a signature made up.",
    ),
];

const MISHAPS: &[Button] = &[
    button(
        "drop_next",
        "Drop the next webhook",
        "Of what happens next to this payment nobody is told. Asking finds out.",
    ),
    button("refund_half", "Refund half", "Half of the price goes back, and half of the credits with it."),
    button(
        "refund_fails",
        "Let the last refund fail",
        "The money comes back to the shop, and the credits to the buyer.",
    ),
    button("dispute", "Dispute", "The buyer's bank takes the money back while it looks into it."),
    button("dispute_won", "Win the dispute", "The bank gives the money back."),
    button("dispute_lost", "Lose the dispute", "The bank keeps the money."),
];

/// All buttons of an order's page.
pub(crate) fn buttons(id: OrderId) -> Html {
    let row = |button: &Button| {
        html![
            "<button class=\"quiet\" name=\"what\" value=\"" (button.name) "\">" (button.label)
            "<small>" (button.about) "</small></button>"
        ]
    };
    let group = |title: &str, buttons: &[Button]| {
        html![
            "<section class=\"card\"><h2>" (title) "</h2><form class=\"tries\" method=\"post\" action=\"/orders/" (id) "/try\">"
            [Html::all(buttons.iter().map(row))] "</form></section>"
        ]
    };
    html![[group("Try to cheat", CHEATS)][group("Let something happen", MISHAPS)]]
}

/// What is tried.
#[derive(Debug, Deserialize)]
pub(crate) struct Try {
    what: Trick,
}

#[derive(Debug, thiserror::Error)]
enum TrickError {
    #[error(transparent)]
    Api(#[from] ApiError),
    #[error(transparent)]
    Provider(#[from] ProviderError),
    #[error("the receiver: {0}")]
    Receiver(#[from] reqwest::Error),
}

pub(crate) async fn play(
    State(shop): State<Shop>,
    visitor: Visitor,
    Path(id): Path<OrderId>,
    Form(wanted): Form<Try>,
) -> Response {
    let Some(sale) = shop.sale(&visitor, id) else {
        return shop.sorry(&visitor, StatusCode::NOT_FOUND, "There is no such order of yours.");
    };
    let note = match attempt(&shop, &sale, wanted.what).await {
        Ok(note) => note,
        Err(error) => format!("That did not work: {error}."),
    };
    shop.note(id, note);
    see(&format!("/orders/{id}"))
}

async fn attempt(shop: &Shop, sale: &Sale, trick: Trick) -> Result<String, TrickError> {
    let (provider, payment) = (&shop.partners().provider, sale.payment_id.as_str());
    Ok(match trick {
        Trick::CallBack => call_back(shop, sale).await?,
        Trick::Replay => {
            let replayed = provider.replay(payment, REPLAYS, true).await?;
            format!("A genuine webhook was sent {} times more; {} were taken.", replayed.sent, replayed.accepted)
        }
        Trick::NewKeys => new_keys(shop, sale).await?,
        Trick::Claim => claim(shop, sale).await?,
        Trick::DropNext => {
            provider.drop_next(payment)?;
            "Of what happens next to this payment, no webhook will be sent.".to_owned()
        }
        Trick::RefundHalf => {
            provider.refund(payment, Some(sale.price.amount_minor() / 2))?;
            "Half of the price went back to the buyer.".to_owned()
        }
        Trick::RefundFails => {
            provider.fail_refund(payment)?;
            "The last refund failed: the money is the shop's again.".to_owned()
        }
        Trick::Dispute => {
            provider.dispute(payment)?;
            "The buyer's bank took the money back, for now.".to_owned()
        }
        Trick::DisputeWon => {
            provider.close_dispute(payment, true)?;
            "The dispute was won: the money is the shop's again.".to_owned()
        }
        Trick::DisputeLost => {
            provider.close_dispute(payment, false)?;
            "The dispute was lost: the money is the buyer's.".to_owned()
        }
    })
}

async fn call_back(shop: &Shop, sale: &Sale) -> Result<String, TrickError> {
    let api = &shop.partners().api;
    let calls = (0..CALLS).map(|_| async {
        let (checked, read) =
            tokio::join!(api.check(sale.order_id), api.read_as_buyer(sale.order_id, &sale.status_token));
        Ok::<_, ApiError>((checked?, read?))
    });
    let answers = try_join_all(calls).await?;
    let (checked, read): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    Ok(format!(
        "Called back {CALLS} times at once; “look” was answered {}, reading the order {}.",
        tally(checked),
        tally(read)
    ))
}

async fn new_keys(shop: &Shop, sale: &Sale) -> Result<String, TrickError> {
    let currency = sale.price.currency();
    let new = NewOrder {
        account_id: &sale.account_id,
        credits: sale.credits,
        amount_minor: sale.price.amount_minor(),
        currency: currency.as_str(),
        provider: sale.seller.name(),
        payment_id: Some(&sale.payment_id),
        metadata: serde_json::json!({}),
    };
    let id = sale.order_id;
    let calls = (0..KEYS).map(|n| {
        let (api, new) = (&shop.partners().api, &new);
        async move { api.try_to_place(&format!("cheat-{id}-{n}"), new).await }
    });
    let answers = join_all(calls).await.into_iter().collect::<Result<Vec<_>, _>>()?;
    Ok(format!("Asked for {KEYS} more orders of the same payment, each under a new key: {}.", tally(answers)))
}

/// A webhook as the provider would send it, but for the key; and the browser's word, which makes us ask the provider.
async fn claim(shop: &Shop, sale: &Sale) -> Result<String, TrickError> {
    let now = OffsetDateTime::now_utc();
    let payment = shop.partners().provider.known(&sale.payment_id)?.payment;
    let event = payment.event(usize::from(u16::MAX), Said::Succeeded, Some(sale.order_id), now);
    let (body, at) = (payment.body(&event), now.unix_timestamp());
    let url = format!("http://{}/webhooks/{}", shop.partners().receiver, sale.seller.name());
    let call = shop.partners().api.http().post(url).header("content-type", "application/json");
    let call = match sale.seller {
        Seller::Stripe => {
            call.header("stripe-signature", stripe_signature("whsec_a_guess", at, &body).unwrap_or_default())
        }
        Seller::Standard => call.header("webhook-id", &event.id).header("webhook-timestamp", at.to_string()).header(
            "webhook-signature",
            standard_signature("whsec_Z3Vlc3M=", &event.id, at, &body).unwrap_or_default(),
        ),
        Seller::Paypal => call,
    };
    let forged = call.body(body).send().await?.status();
    let checked = shop.partners().api.check(sale.order_id).await?;
    Ok(format!(
        "The forged webhook was answered {forged}; “I have paid” was answered {checked}: the provider is asked, not you."
    ))
}

/// `48 × 202 Accepted, 2 × 429 Too Many Requests`.
fn tally(answers: Vec<StatusCode>) -> String {
    let mut counts = BTreeMap::new();
    for answer in answers {
        counts.entry(answer.as_u16()).or_insert((answer, 0)).1 += 1;
    }
    let parts: Vec<_> = counts.values().map(|(answer, count)| format!("{count} × {answer}")).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_button_does_something() {
        for button in CHEATS.iter().chain(MISHAPS) {
            let wanted = serde_json::from_value::<Try>(serde_json::json!({"what": button.name}));
            assert!(wanted.is_ok(), "{}", button.name);
        }
    }

    #[test]
    fn answers_are_counted() {
        let answers = vec![StatusCode::ACCEPTED, StatusCode::TOO_MANY_REQUESTS, StatusCode::ACCEPTED];
        assert_eq!(tally(answers), "2 × 202 Accepted, 1 × 429 Too Many Requests");
        assert_eq!(tally(vec![]), "");
    }
}

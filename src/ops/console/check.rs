//! Checking at the provider: what would be asked, what follows, then the question.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, RETRY_AFTER_OUTAGE, Sorry, store_failed, story_address, story_link};
use super::order::asked;
use super::orders::order_address;
use super::settle::{read_reason, reason_field};
use super::words::{Tone, mark};
use crate::domain::{LOOKS_APART, PaymentId, Provider, ProviderAccount};
use crate::http::{Html, Parameters, Problem, html, see};
use crate::ops::checking::{NotAskable, NotAsked, ask, check_askable};
use crate::store::{Askable, AskedAbout};
use crate::telemetry::causes;
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

/// The parameters that say what is asked about.
const ABOUT: [&str; 4] = ["order", "provider", "provider_account", "payment"];

/// What an address or a form asks about: an order, or a payment at a provider.
fn read_about(parameters: &Parameters) -> Result<AskedAbout, Problem> {
    let text = |name: &str| parameters.get(name).map(str::trim).filter(|text| !text.is_empty());
    let refused = |field: &str, detail: String| {
        Problem::bad_request("this does not say what the provider is to be asked about")
            .of_kind("invalid_parameters", "Invalid parameters")
            .with_field(field, detail)
    };
    if let Some(order) = text("order") {
        let id = order.parse().map_err(|_| refused("order", "is not the id of an order".to_owned()))?;
        return Ok(AskedAbout::Order(id));
    }
    about_payment(text("provider").unwrap_or_default(), text("provider_account"), text("payment").unwrap_or_default())
        .map_err(|(field, detail)| refused(field, detail))
}

/// A payment at a provider; else the field that is wrong, and why.
pub(super) fn about_payment(
    provider: &str,
    account: Option<&str>,
    payment: &str,
) -> Result<AskedAbout, (&'static str, String)> {
    Ok(AskedAbout::Payment {
        provider: Provider::new(provider).map_err(|error| ("provider", error.to_string()))?,
        provider_account: account
            .map(ProviderAccount::new)
            .transpose()
            .map_err(|error| ("provider_account", error.to_string()))?,
        payment_id: PaymentId::new(payment).map_err(|error| ("payment", error.to_string()))?,
    })
}

/// Reads what is known of it.
pub(super) async fn askable_of(app: &App, about: AskedAbout) -> Result<Askable, Sorry> {
    let askable = app.store().askable(about).await?;
    Ok(askable.ok_or_else(|| Problem::not_found("there is no such order"))?)
}

/// Why the provider cannot be asked, in a sentence.
pub(super) fn in_words(why: NotAskable) -> &'static str {
    match why {
        NotAskable::NoPayment => "The order has no payment yet, so there is nothing to ask about.",
        NotAskable::NoWayToAsk => {
            "This provider cannot be asked how a payment stands. Its messages are all that grantonce learns from it."
        }
    }
}

/// Asks, or says why not.
pub(super) async fn ask_now(
    app: &App,
    operator: &Operator,
    askable: Askable,
    reason: String,
) -> Result<Result<(), NotAskable>, Sorry> {
    if let Err(why) = check_askable(&askable) {
        return Ok(Err(why));
    }
    let console = &app.console;
    let livemode = console.terms.webhook.livemode;
    let asked = ask(app.store(), &console.publisher, askable, (operator.actor(), reason), livemode, app.now()).await;
    match asked {
        Ok(()) => Ok(Ok(())),
        Err(NotAsked::Store(error)) => Err(store_failed(&error).into()),
        Err(error @ NotAsked::Publish(_)) => {
            tracing::warn!(event = "request_unavailable", cause = causes(&error), "answered 503");
            let detail = "RabbitMQ did not take the question. The audit log has your request; asking again is safe";
            Err(Problem::unavailable(detail, RETRY_AFTER_OUTAGE).into())
        }
        Err(error @ NotAsked::Encode(_)) => {
            tracing::error!(event = "request_failed", cause = causes(&error), "answered 500");
            Err(Problem::internal().into())
        }
    }
}

/// `GET /check`: what would be asked. Nothing is asked yet.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let query = Parameters::of(&uri);
    let about = read_about(&query)?;
    query.check(&ABOUT)?;
    let askable = askable_of(&app, about).await?;
    let now = app.now();
    let provider = askable.provider.as_str();
    let fact = |name: &str, value: Html| html!["<div><dt>" (name) "</dt><dd>" [value] "</dd></div>"];
    let order = askable
        .order_id
        .map(|order| fact("Order", html!["<a href=\"" (order_address(order)) "\"><code>" (order) "</code></a>"]));
    let ids = Html::all(askable.payment_ids.iter().map(|id| html![[story_link(id.as_str())] " "]));
    let account = askable.provider_account.as_ref().map(|account| fact("Account there", html![(account)]));
    let main = html![
        "<p class=\"dim\"><a href=\"/dead-letters\">Dead letters</a> ›</p><h1>Check at the provider</h1>"
        "<section class=\"card\"><dl class=\"facts\">" [order.unwrap_or_default()] [fact("Provider", html![(provider)])]
        [account.unwrap_or_default()] [fact("Payment", ids)] [fact("Asked", self::asked(&askable, now))] "</dl></section>"
        [consequence(&app, &askable)] [form(&operator, &askable)]
    ];
    let title = "Check at the provider";
    Ok(Page { title, part: Part::Letters, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

fn consequence(app: &App, askable: &Askable) -> Html {
    if let Err(why) = check_askable(askable) {
        return html!["<section class=\"card\"><p id=\"says\">" [mark(Tone::Wait, "cannot be asked")] " " (in_words(why))
            "</p></section>"];
    }
    let provider = askable.provider.as_str();
    let queues = *app.console.queues.borrow();
    let nobody = queues.is_some_and(|queues| queues.depths.hints.consumers == 0);
    let warning = if nobody {
        html![
            "<p class=\"note wait\"><b aria-hidden=\"true\">…</b> No reconciler is running now. The question waits in the "
            "queue <code>payments.hints</code> until one runs.</p>"
        ]
    } else {
        html![]
    };
    html![
        "<section class=\"card\"><h2>What happens</h2><p id=\"says\">The reconciler asks " (provider)
        " how this payment stands. It asks at most once in " (LOOKS_APART.whole_seconds()) " seconds.</p>"
        "<p>The answer becomes ordinary messages. If the payment is paid and matches its order, the worker grants the credits "
        "once. If it does not match, the answer becomes another dead letter. If nothing is new, nothing changes.</p>" [warning]
        "</section>"
    ]
}

fn form(operator: &Operator, askable: &Askable) -> Html {
    if check_askable(askable).is_err() {
        return html![];
    }
    let hidden =
        |name: &'static str, value: &str| html!["<input type=\"hidden\" name=\"" (name) "\" value=\"" {value} "\">"];
    let about = match (askable.order_id, askable.payment_ids.first()) {
        (Some(order), _) => hidden("order", &order.to_string()),
        (None, Some(payment)) => {
            let account = askable.provider_account.as_ref().map_or("", ProviderAccount::as_str);
            html![
                [hidden("provider", askable.provider.as_str())][hidden("provider_account", account)]
                    [hidden("payment", payment.as_str())]
            ]
        }
        (None, None) => html![],
    };
    html![
        "<section class=\"card\"><form method=\"post\" action=\"/check\" class=\"stack\">" [operator.form_token()] [about]
        [reason_field("reason", "Why do you ask? It goes to the audit log.")] "<p><button id=\"do\">Ask "
        (askable.provider.as_str()) " now</button></p></form></section>"
    ]
}

/// `POST /check`.
pub(super) async fn check(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Result<Response, Sorry> {
    let form = operator.read_form(request).await?;
    let (about, reason) = (read_about(&form)?, read_reason(&form)?);
    form.check(&[ABOUT.as_slice(), &["form_token", "reason"]].concat())?;
    let askable = askable_of(&app, about).await?;
    let next = match (askable.order_id, askable.payment_ids.first()) {
        (Some(order), _) => order_address(order),
        (None, Some(payment)) => story_address(payment.as_str()),
        (None, None) => "/dead-letters".to_owned(),
    };
    match ask_now(&app, &operator, askable, reason).await? {
        Ok(()) => Ok(see(&next)),
        Err(why) => Err(Problem::conflict(in_words(why)).into()),
    }
}

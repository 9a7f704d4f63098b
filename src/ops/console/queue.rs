//! Dead letters that RabbitMQ still holds, as `grantonce dlq peek` shows them: for a time when they are not collected.

use super::App;
use super::access::Operator;
use super::body;
use super::layout::{Page, Part, RETRY_AFTER_OUTAGE, Sorry};
use crate::broker::{Delivery, Management, PeekError, peek};
use crate::http::{Html, Problem, html};
use crate::message::{DETAIL_HEADER, REASON_HEADER};
use crate::telemetry::causes;
use axum::extract::{Extension, Request, State};
use axum::http::StatusCode;
use axum::response::Response;

/// Letters that one look shows.
const LETTERS: u16 = 10;

/// `GET /queue`: what a look does, and the button for it.
pub(super) async fn ask(State(app): State<App>, Extension(operator): Extension<Operator>) -> Result<Response, Sorry> {
    Ok(page(&app, &operator, html![]))
}

/// `POST /queue`: looks at the oldest letters in the queue and puts them back. A form, because RabbitMQ counts a look.
pub(super) async fn look(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Result<Response, Sorry> {
    operator.read_form(request).await?.check(&["form_token"])?;
    let letters = peek_now(&app, LETTERS).await?;
    Ok(page(&app, &operator, found(&letters)))
}

/// Looks at the queue.
pub(super) async fn peek_now(app: &App, count_max: u16) -> Result<Vec<Delivery>, Problem> {
    let console = &app.console;
    let management =
        console.management_url.clone().map(|url| Management::new(url, &console.amqp_url.current().vhost)).transpose();
    let peeked = match management {
        Ok(management) => peek(&console.amqp_url, management.as_ref(), count_max).await,
        Err(error) => Err(error.into()),
    };
    peeked.map_err(|error| match error {
        PeekError::Dangerous(_) | PeekError::CannotTell => Problem::conflict(format!("nothing was looked at: {error}")),
        PeekError::Broker(_) | PeekError::Management(_) => {
            tracing::warn!(event = "request_unavailable", cause = causes(&error), "answered 503");
            Problem::unavailable("RabbitMQ is out of reach", RETRY_AFTER_OUTAGE)
        }
    })
}

fn page(app: &App, operator: &Operator, found: Html) -> Response {
    let main = html![
        "<h1>Dead letters in RabbitMQ</h1><p class=\"lead\">Dead letters wait in the queue <code>fulfilment.dead</code> until "
        "this program has moved them to its table. Nearly always the queue is empty.</p><section class=\"card\"><p>A look takes "
        "the oldest " (LETTERS) " letters and puts them back. It is refused if the queue could delete letters for it.</p>"
        "<form method=\"post\" action=\"/queue\">" [operator.form_token()]
        "<button id=\"look\">Look at the queue</button></form></section>" [found]
    ];
    Page { title: "Dead letters in RabbitMQ", part: Part::Health, every_s: None, main }.respond(
        app,
        operator,
        StatusCode::OK,
    )
}

fn found(letters: &[Delivery]) -> Html {
    if letters.is_empty() {
        return html!["<section class=\"card\"><p id=\"says\">The queue holds no dead letter.</p></section>"];
    }
    let letters = Html::all(letters.iter().map(|letter| {
        let refusal = letter.refusal();
        let given_up = letter.death.as_ref().map(|death| death.reason.as_str());
        let reason = letter.headers.text(REASON_HEADER).or(given_up).unwrap_or("without a reason");
        let detail = letter.headers.text(DETAIL_HEADER).or(refusal.as_ref().map(|refusal| refusal.detail.as_str()));
        html![
            "<section class=\"card\"><h2>" (reason) "</h2><p>" (detail.unwrap_or_default()) "</p><p class=\"dim\">message <code>"
            (letter.message_id.as_deref().unwrap_or("without an id")) "</code>, routing key <code>" (letter.routing_key)
            "</code></p><pre tabindex=\"0\" aria-label=\"Body\"><code>" (body::shown(&letter.body).text) "</code></pre></section>"
        ]
    }));
    html!["<div id=\"says\" class=\"stack\">" [letters] "</div>"]
}

//! What all pages share: how they begin and end, and what they say when something did not work.

use super::App;
use super::access::Operator;
use super::selection::{address, encoded};
use super::words::utc;
use crate::http::{Html, Problem, html};
use crate::store::{Class, StoreError};
use crate::telemetry::causes;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::time::Duration;

/// Nothing from elsewhere, nothing inline, nobody's frame.
const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; \
                      base-uri 'none'; frame-ancestors 'none'; form-action 'self'";

/// Other sites learn nothing of our addresses. Ours do: with `no-referrer` browsers would not say either whose page a
/// form is of, which [`super::access`] asks for.
const REFERRER_POLICY: &str = "same-origin";

/// When to try again after an outage.
pub(super) const RETRY_AFTER_OUTAGE: Duration = Duration::from_secs(5);

/// How often a page's living parts are asked for anew, in seconds.
pub(super) const LIVE_EVERY_S: u16 = 2;
pub(super) const CALM_EVERY_S: u16 = 15;

/// Which part of the console a page belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Health,
    Letters,
    Replays,
    Audit,
    None,
}

const PARTS: [(Part, &str, &str); 4] = [
    (Part::Health, "/", "Health"),
    (Part::Letters, "/dead-letters", "Dead letters"),
    (Part::Replays, "/replays", "Replays"),
    (Part::Audit, "/audit", "Audit log"),
];

/// A whole page.
pub(super) struct Page<'a> {
    pub(super) title: &'a str,
    pub(super) part: Part,
    /// How often its living parts (`data-live`) are asked for anew, in seconds; none: it has none.
    pub(super) every_s: Option<u16>,
    pub(super) main: Html,
}

impl Page<'_> {
    /// The answer. Without scripts a page with living parts is loaded anew as a whole.
    pub(super) fn respond(self, app: &App, operator: &Operator, status: StatusCode) -> Response {
        let parts = Html::all(PARTS.iter().map(|(part, path, name)| {
            let is_here = *part == self.part;
            html![
                "<a href=\"" (path) "\"" [if is_here { html![" aria-current=\"page\""] } else { html![] }] ">" (name)
                "</a>"
            ]
        }));
        let (head, every) = match self.every_s {
            Some(seconds) => (
                html!["<noscript><meta http-equiv=\"refresh\" content=\"" (seconds) "\"></noscript>"],
                html![" data-every=\"" (seconds) "\""],
            ),
            None => Default::default(),
        };
        let body = html![
            "<a class=\"skip\" href=\"#main\">To the content</a>"
            "<header class=\"top\"><a class=\"brand\" href=\"/\"><img src=\"/icon.svg\" alt=\"\" width=\"22\" "
            "height=\"22\">grantonce</a>"
            "<nav aria-label=\"Console\">" [parts] "</nav>"
            "<form class=\"search\" role=\"search\" action=\"/explain\"><label class=\"unseen\" for=\"q\">Find an "
            "order, payment, message, "
            "account or letter by its id</label><input id=\"q\" name=\"q\" type=\"search\" required maxlength=\"512\" "
            "placeholder=\"order, payment, message, account, letter\"><button>Explain</button></form>"
            "<form class=\"who\" method=\"post\" action=\"/logout\">" [operator.form_token()] "<span>" (operator.name())
            "</span>"
            "<button class=\"link\">Log out</button></form></header>"
            "<main id=\"main\">" [self.main] "</main>"
            "<footer>All times are UTC. This page is of <time>" (utc(app.now())) "</time>.</footer>"
            "<script src=\"/live.js\" defer></script>"
        ];
        respond(status, self.title, &head, &every, &body)
    }
}

/// A page for who is not logged in.
pub(super) fn bare_page(status: StatusCode, title: &str, main: &Html) -> Response {
    respond(status, title, &Html::default(), &Html::default(), main)
}

fn respond(status: StatusCode, title: &str, head: &Html, attributes: &Html, body: &Html) -> Response {
    let page = html![
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">"
        "<meta name=\"color-scheme\" content=\"light dark\"><title>" (title) " · grantonce</title>"
        "<link rel=\"icon\" href=\"/icon.svg\"><link rel=\"stylesheet\" href=\"/style.css\">" [head]
        "</head><body" [attributes] ">" [body] "</body></html>\n"
    ];
    page.respond(status, POLICY, REFERRER_POLICY)
}

/// What did not work; a page is made of it on its way out, see [`sorry_page`].
#[derive(Debug)]
pub(super) struct Sorry(Problem);

impl Sorry {
    pub(super) fn into_problem(self) -> Problem {
        self.0
    }
}

impl From<Problem> for Sorry {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<StoreError> for Sorry {
    fn from(error: StoreError) -> Self {
        Self(store_failed(&error))
    }
}

impl IntoResponse for Sorry {
    fn into_response(self) -> Response {
        let mut response = self.0.status().into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// The problem that a store's error is to whoever asked. The only place that logs it.
pub(super) fn store_failed(error: &StoreError) -> Problem {
    let cause = causes(error);
    match error.class() {
        Class::Transient => {
            tracing::warn!(event = "request_unavailable", cause, "answered 503");
            Problem::unavailable("Postgres is out of reach, or too slow to answer; nothing is lost", RETRY_AFTER_OUTAGE)
        }
        Class::Contended => {
            tracing::warn!(event = "request_contended", cause, "answered 503");
            Problem::unavailable("others work on the same letters; it is safe to try again", RETRY_AFTER_OUTAGE)
        }
        Class::Data | Class::Bug => {
            tracing::error!(event = "request_failed", cause, "answered 500");
            Problem::internal()
        }
    }
}

/// Makes a page of a [`Sorry`]; other answers stay as they are.
pub(super) fn sorry_page(app: &App, operator: &Operator, uri: &Uri, is_get: bool, mut response: Response) -> Response {
    let Some(problem) = response.extensions_mut().remove::<Problem>() else { return response };
    let status = problem.status();
    let (title, way_on) = match status {
        StatusCode::NOT_FOUND => ("Nothing here", "It may have been deleted since, or the address is not complete."),
        StatusCode::FORBIDDEN => ("Not done", "Go back to the page, load it again, and send the form again."),
        StatusCode::BAD_REQUEST => (
            "Not understood",
            "An address can be written by hand, but each parameter must be one that the console knows.",
        ),
        StatusCode::SERVICE_UNAVAILABLE => (
            "Out of reach",
            "This page reads from Postgres. Payments continue when Postgres is back: the queue keeps their messages.",
        ),
        status if status.is_server_error() => {
            ("Something went wrong", "The log of this process has the cause, as the event request_failed.")
        }
        _ => ("That did not work", "Nothing was changed."),
    };
    let fields = Html::all(
        problem.fields().iter().map(|field| html!["<li><code>" (field.field) "</code> " (field.detail) "</li>"]),
    );
    let last = uri.path().rsplit('/').next().unwrap_or_default();
    let find = if status == StatusCode::NOT_FOUND && !last.is_empty() {
        html![
            "<li><a href=\"" (address("/explain", [("q", percent_decoded(last).as_str())])) "\">Look for <code>"
            (percent_decoded(last)) "</code> everywhere</a></li>"
        ]
    } else if status == StatusCode::SERVICE_UNAVAILABLE && is_get {
        html!["<li><a href=\"" (uri) "\">Try again</a> (this page does so by itself)</li>"]
    } else {
        html![]
    };
    let main = html![
        "<section class=\"card\"><h1>" (title)
        "</h1><p class=\"note bad\" role=\"alert\"><b aria-hidden=\"true\">✕</b> "
        (problem.detail()) "</p><ul>" [fields] "</ul><p>" (way_on) "</p><ul class=\"plain\">" [find]
        "<li><a href=\"/dead-letters\">Dead letters</a></li><li><a href=\"/\">Health</a></li></ul></section>"
    ];
    let is_retried = status == StatusCode::SERVICE_UNAVAILABLE && is_get;
    let every_s = is_retried.then_some(CALM_EVERY_S);
    let main = if is_retried { html!["<div id=\"sorry\" data-live>" [main] "</div>"] } else { main };
    Page { title, part: Part::None, every_s, main }.respond(app, operator, status)
}

fn percent_decoded(text: &str) -> String {
    let uri = format!("/?q={text}").parse::<Uri>();
    let query = uri.ok().map(|uri| crate::http::Parameters::of(&uri));
    query.and_then(|query| query.get("q").map(str::to_owned)).unwrap_or_default()
}

/// Any other path.
pub(super) async fn nothing_here() -> Sorry {
    Problem::not_found("there is nothing at this address").into()
}

/// A path that does something else.
pub(super) async fn wrong_method() -> Sorry {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take that; open it from a page").into()
}

/// A button that sends a form is the only thing that changes anything; this one leads to where it is asked for.
pub(super) fn button_to(href: &str, words: &str, is_quiet: bool) -> Html {
    html!["<a class=\"button" (if is_quiet { " quiet" } else { "" }) "\" href=\"" (href) "\">" (words) "</a>"]
}

/// The address of everything that is known by an id.
pub(super) fn story_address(id: &str) -> String {
    format!("/explain/{}", encoded(id))
}

/// An id that leads to its story.
pub(super) fn story_link(id: &str) -> Html {
    html!["<a href=\"" (story_address(id)) "\"><code>" (id) "</code></a>"]
}

//! The audit log: what operators did by hand, and how to undo what can be undone.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry, story_link};
use super::selection::address;
use super::settle::{reason_field, selection_of};
use super::words::{count, number, when};
use crate::domain::{AuditAction, LetterState};
use crate::http::{Html, Parameters, Problem, html};
use crate::store::{AuditFilter, AuditLine};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use time::OffsetDateTime;

/// Lines on a page.
const LINES: u16 = 100;

/// Letters that are named one by one on the page of an act.
const LETTERS_NAMED: usize = 100;

/// `GET /audit`.
pub(super) async fn list(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let mut query = Parameters::of(&uri);
    let text = |query: &Parameters, name: &str| {
        query.get(name).map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let filter = AuditFilter {
        actor: text(&query, "actor"),
        action: text(&query, "action"),
        subject: text(&query, "subject"),
        before_id: query.number("before", 1..=i64::MAX),
        ..AuditFilter::default()
    };
    query.check(&["actor", "action", "subject", "before"])?;
    let lines = app.store().audit_log(filter.clone(), LINES).await?;
    let now = app.now();
    let field = |name: &'static str, label: &'static str, value: &Option<String>| {
        html![
            "<div><label for=\"f-" (name) "\">" (label) "</label><input id=\"f-" (name) "\" name=\"" (name)
            "\" maxlength=\"512\" value=\""
            {value.as_deref().unwrap_or_default()} "\"></div>"
        ]
    };
    let older = lines.last().filter(|_| lines.len() >= usize::from(LINES)).map(|last| {
        let before = last.id.to_string();
        let kept = [("actor", &filter.actor), ("action", &filter.action), ("subject", &filter.subject)];
        let kept = kept.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?)));
        html![
            "<p><a rel=\"next\" href=\"" (address("/audit", kept.chain([("before", before.as_str())])))
            "\">Older »</a></p>"
        ]
    });
    let main = html![
        "<h1>Audit log</h1><p class=\"lead\">What operators did, here and on the command line. Lines are only added, never "
        "changed.</p>"
        "<form class=\"filters\" action=\"/audit\" aria-label=\"Filter\">" [field("actor", "Who", &filter.actor)]
        [field("action", "What", &filter.action)]
        [field("subject", "To what", &filter.subject)] "<div class=\"row\"><button>Filter</button></div></form>"
        [table(&lines, now)] [older.unwrap_or_default()]
    ];
    Ok(Page { title: "Audit log", part: Part::Audit, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

/// Lines, the newest first.
fn table(lines: &[AuditLine], now: OffsetDateTime) -> Html {
    if lines.is_empty() {
        return html!["<section class=\"card\"><p>No line matches.</p></section>"];
    }
    let rows = Html::all(lines.iter().map(|line| {
        html![
            "<tr><td data-name=\"When\">" [when(line.at, now)] "</td><td data-name=\"Who\">" [who(line)]
            "</td><td data-name=\"What\"><a href=\"/audit/" (line.id)
            "\">" (line.action) "</a></td><td data-name=\"To what\">" [subject(line)] "</td><td data-name=\"Why\">"
            (line.reason.as_deref().unwrap_or_default()) "</td></tr>"
        ]
    }));
    html![
        "<section class=\"card\"><table class=\"wide\"><thead><tr><th scope=\"col\">When</th><th "
        "scope=\"col\">Who</th><th scope=\"col\">What</th>"
        "<th scope=\"col\">To what</th><th scope=\"col\">Why</th></tr></thead><tbody id=\"lines\">" [rows]
        "</tbody></table></section>"
    ]
}

fn who(line: &AuditLine) -> Html {
    let doubt = if line.is_self_declared { html![" <span class=\"dim\">(not verified)</span>"] } else { html![] };
    html![(line.actor)[doubt]]
}

/// What it was done to, with the way there.
fn subject(line: &AuditLine) -> Html {
    match line.subject.split_once(' ') {
        Some(("letter", id)) => {
            html!["<a href=\"/dead-letters/" (super::selection::encoded(id)) "\">letter <code>" (id) "</code></a>"]
        }
        Some(("replay", id)) => html!["<a href=\"/replays/" (super::selection::encoded(id)) "\">replay " (id) "</a>"],
        None if line.action.starts_with("order.") => {
            let id = super::selection::encoded(&line.subject);
            html!["<a href=\"/orders/" (id) "\">order <code>" (line.subject) "</code></a>"]
        }
        None if line.action.starts_with("payment.") || line.action.starts_with("account.") => story_link(&line.subject),
        Some(_) | None => html![(line.subject)],
    }
}

/// `GET /audit/{id}`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Sorry> {
    let unknown = || Problem::not_found("there is no such line in the audit log");
    let id: i64 = path.map(|Path(id)| id).unwrap_or_default().parse().map_err(|_| unknown())?;
    let line = app.store().audit_log(AuditFilter { id: Some(id), ..AuditFilter::default() }, 1).await?.pop();
    let line = line.ok_or_else(unknown)?;
    let now = app.now();
    let json = |value: &Option<serde_json::Value>| {
        value.as_ref().map(|value| format!("{value:#}")).unwrap_or_else(|| "–".to_owned())
    };
    let main = html![
        "<p class=\"dim\"><a href=\"/audit\">Audit log</a> ›</p><section class=\"card\"><h1>" (line.action)
        "</h1><p class=\"big\" id=\"says\">" [subject(&line)]
        " · " (count(line.count.into(), "thing", "things")) "</p><p><b id=\"actor\">" [who(&line)] "</b> "
        [when(line.at, now)] ": “"
        (line.reason.as_deref().unwrap_or_default()) "”</p></section>" [undo(&app, &operator, &line).await?]
        "<section class=\"card\"><details><summary>Before and after</summary><pre><code>" (json(&line.before))
        "</code></pre><pre><code>" (json(&line.after)) "</code></pre></details></section>"
    ];
    let title = format!("{} by {}", line.action, line.actor);
    Ok(Page { title: &title, part: Part::Audit, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

/// Letters that were moved, and the way to move those back that are still there.
async fn undo(app: &App, operator: &Operator, line: &AuditLine) -> Result<Html, Sorry> {
    let (to, back, verb) = match AuditAction::from_name(&line.action) {
        Some(AuditAction::LettersArchive) => (LetterState::Archived, "/restore", "Restore"),
        Some(AuditAction::LettersRestore) => (LetterState::Open, "/archive", "Archive"),
        Some(
            AuditAction::OrderAmend
            | AuditAction::OrderCheck
            | AuditAction::PaymentCheck
            | AuditAction::LettersExpire
            | AuditAction::ReplayBegin
            | AuditAction::ReplayCancel
            | AuditAction::AccountForget,
        )
        | None => return Ok(html![]),
    };
    let Some(filter) = selection_of(line) else { return Ok(html![]) };
    let ids = filter.ids.clone().unwrap_or_default();
    let named: Vec<String> = ids.iter().take(LETTERS_NAMED).map(ToString::to_string).collect();
    let these =
        address("/dead-letters", [("state", "any")].into_iter().chain(named.iter().map(|id| ("id", id.as_str()))));
    let filter = filter.in_state(to);
    let there = app.store().count_letters(filter.clone()).await?;
    let see = match named.is_empty() {
        true => html![],
        false => {
            html![
                "<p><a href=\"" (these) "\">See " (if ids.len() > named.len() { "the first of them" } else { "them" })
                "</a></p>"
            ]
        }
    };
    if there == 0 {
        return Ok(html![
            "<section class=\"card\"><h2>Undo</h2><p>None of them is " (to.name()) " any more.</p>" [see]
            "</section>"
        ]);
    }
    Ok(html![
        "<section class=\"card\"><h2>Undo</h2><p>" (number(there)) " of them " (if there == 1 { "is" } else { "are" })
        " " (to.name()) " still.</p>" [see]
        "<form method=\"post\" action=\"" (back) "\" class=\"act\">" [operator.form_token()]
        "<input type=\"hidden\" name=\"of_act\" value=\"" (line.id) "\">"
        [reason_field("reason", "Why do you undo it?")] "<button class=\"quiet\" id=\"undo\">" (verb) " "
        (count(there, "letter", "letters")) "</button></form></section>"
    ])
}

//! From any id to its story: what it is now, what is missing, what happened.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry, story_address, story_link};
use super::letters::short_list;
use super::words::{Tone, mark, when};
use crate::domain::story::{Entry, Missing, Story};
use crate::domain::{LetterId, LetterState, OrderId};
use crate::http::{Html, Parameters, Problem, html, see};
use crate::store::{Asked, ExplainTerms, LetterFilter, LetterRow};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use time::OffsetDateTime;

/// Letters that are listed.
const LETTERS: u32 = 20;

/// Orders of an account, and entries of a story, that are shown.
const ORDERS: u16 = 50;
const ENTRIES: u16 = 1_000;

/// `GET /explain?q=`.
pub(super) async fn search(State(app): State<App>, uri: Uri) -> Result<Response, Sorry> {
    let query = Parameters::of(&uri);
    let id = query.get("q").map(str::trim).unwrap_or_default().to_owned();
    query.check(&["q"])?;
    if id.is_empty() {
        return Err(
            Problem::bad_request("give the id of an order, a payment, a message, an account or a letter").into()
        );
    }
    if let Ok(letter) = id.parse::<LetterId>()
        && app.store().letter(letter).await?.is_some()
    {
        return Ok(see(&format!("/dead-letters/{letter}")));
    }
    Ok(see(&story_address(&id)))
}

/// The story of whatever has this id.
pub(super) async fn story_of(app: &App, id: &str) -> Result<Option<Story>, Sorry> {
    let asked = Asked::new(id, None)
        .map_err(|fault| Problem::bad_request("this is no id").with_field("id", fault.to_string()))?;
    let dispute_policy = app.console.terms.dispute_policy;
    let terms = ExplainTerms { now: app.now(), dispute_policy, orders_max: ORDERS, entries_max: ENTRIES };
    Ok(app.store().explain(asked, terms).await?)
}

/// `GET /explain/{id}`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Sorry> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    let story = story_of(&app, &id).await?;
    let states = LetterState::ALL.map(|state| state.name().to_owned()).to_vec();
    let with_text = LetterFilter { text: Some(id.clone()), states: states.clone(), ..LetterFilter::default() };
    let mut letters = app.store().letters(with_text, None, LETTERS).await?.letters;
    if let Ok(order) = id.parse::<OrderId>() {
        let about = LetterFilter { order_id: Some(order.0), states, ..LetterFilter::default() };
        let about = app.store().letters(about, None, LETTERS).await?.letters;
        let known: Vec<LetterId> = letters.iter().map(|letter| letter.id).collect();
        letters.extend(about.into_iter().filter(|letter| !known.contains(&letter.id)));
    }
    let now = app.now();
    let (status, told) = match &story {
        Some(story) => (StatusCode::OK, tell(story, now)),
        None if letters.is_empty() => (StatusCode::NOT_FOUND, unknown()),
        None => (StatusCode::OK, html![]),
    };
    let main = html!["<h1 class=\"id\"><code>" (id) "</code></h1>" [told] [dead_letters(&letters, now)]];
    Ok(Page { title: &id, part: Part::None, every_s: None, main }.respond(&app, &operator, status))
}

fn unknown() -> Html {
    html![
        "<section class=\"card\"><p class=\"big\">" [mark(Tone::Quiet, "Nothing is known by this id")] "</p>"
        "<p>Looked for among orders, dead letters, messages, payments and accounts. Messages are forgotten after "
        "<code>GRANTONCE_INBOX_RETENTION</code>: ask by the order or the payment then. Ids are taken letter by "
        "letter: was it "
        "copied whole?</p></section>"
    ]
}

fn dead_letters(letters: &[LetterRow], now: OffsetDateTime) -> Html {
    if letters.is_empty() {
        return html![];
    }
    html![
        "<section class=\"card\"><h2>Dead letters that concern it, or have it in their detail</h2>" [short_list(letters, now)]
        "</section>"
    ]
}

fn tell(story: &Story, now: OffsetDateTime) -> Html {
    let summary = &story.summary;
    let tone = if summary.needs_attention { Tone::Bad } else { Tone::Good };
    let stands = if summary.needs_attention { "needs you" } else { "in order" };
    let orders = Html::all(story.orders.iter().map(|order| {
        let sign = if order.needs_attention { mark(Tone::Bad, "needs you") } else { html![] };
        html![
            "<tr><td data-name=\"Order\">" [story_link(&order.order_id.to_string())] "</td><td data-name=\"Status\"><b>"
            (order.status.name()) "</b> " [sign]
            "</td><td data-name=\"It is\">" (order.text) "</td><td data-name=\"Account\">"
            [story_link(order.account_id.as_str())] "</td><td data-name=\"Payments\">"
            [Html::all(order.payment_ids.iter().map(|id| html![[story_link(id)] " "]))] "</td></tr>"
        ]
    }));
    let orders = if story.orders.is_empty() {
        html![]
    } else {
        html![
            "<section class=\"card\"><h2>Orders</h2><table class=\"wide\"><thead><tr><th scope=\"col\">Order</th><th "
            "scope=\"col\">Status</th>"
            "<th scope=\"col\">It is</th><th scope=\"col\">Account</th><th "
            "scope=\"col\">Payments</th></tr></thead><tbody>" [orders] "</tbody></table></section>"
        ]
    };
    let entries = Html::all(story.entries.iter().map(|entry| self::entry(entry, now)));
    let left_out = match story.entries_left_out {
        0 => html![],
        more => html!["<p class=\"dim\">" (more) " earlier entries are left out.</p>"],
    };
    let gaps = Html::all(story.gaps.iter().map(|gap| html!["<li class=\"dim\">" (gap) "</li>"]));
    html![
        "<section class=\"card verdict " (tone.class()) "\"><p class=\"dim\">" (story.subject.kind.name())
        "</p><p class=\"big\" id=\"says\">" [mark(tone, stands)] " "
        (summary.text) "</p>" [missing(&summary.missing)] "</section>" [orders]
        "<section class=\"card\"><h2>What happened, the oldest first</h2>" [left_out]
        "<ol class=\"timeline\" id=\"story\">" [entries] "</ol><ul class=\"plain\">" [gaps] "</ul></section>"
    ]
}

fn missing(missing: &[Missing]) -> Html {
    if missing.is_empty() {
        return html![];
    }
    let items = Html::all(missing.iter().map(|missing| {
        let tone = if missing.needs_attention { Tone::Bad } else { Tone::Wait };
        let letter = missing.letter_id.map(|id| {
            html![
                " <a class=\"button\" href=\"/dead-letters/" (id) "\">The letter</a>"
            ]
        });
        let next = missing.next.as_ref().map(|next| html!["<div class=\"dim\">" (next) "</div>"]);
        html![
            "<li class=\"" (tone.class()) "\"><span><b aria-hidden=\"true\">" (tone.sign()) "</b> " (missing.text)
            [next.unwrap_or_default()] "</span>"
            [letter.unwrap_or_default()] "</li>"
        ]
    }));
    html!["<ul class=\"needs\">" [items] "</ul>"]
}

fn entry(entry: &Entry, now: OffsetDateTime) -> Html {
    // Its fields are those of its kind; the ids among them lead on.
    let fields = serde_json::to_value(&entry.what).unwrap_or_default();
    let letter = fields.get("letter_id").and_then(|id| id.as_str());
    let letter =
        letter.map(|id| html![" <a href=\"/dead-letters/" (super::selection::encoded(id)) "\">the letter</a>"]);
    let replay = fields.get("replay_id").and_then(serde_json::Value::as_i64);
    let replay = replay.map(|id| html![" <a href=\"/replays/" (id) "\">the replay</a>"]);
    html![
        "<li>" [when(entry.at, now)] "<div>" (entry.text) [letter.unwrap_or_default()] [replay.unwrap_or_default()]
        "</div></li>"
    ]
}

//! The story of any id: how it stands now, what is missing, and what happened.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry, button_to, story_address, story_link};
use super::letters::short_list;
use super::orders::order_address;
use super::selection::address;
use super::words::{Tone, mark, when};
use crate::domain::story::{Entry, Missing, Story, SubjectKind};
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

/// Most orders or entries that an address can ask for.
const LIMIT_MAX: i64 = 5_000;

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

/// How a story is asked for: `kind` looks for an id of one kind only, `limit` bounds orders and entries.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct How {
    kind: Option<SubjectKind>,
    limit: Option<u16>,
}

impl How {
    /// Reads the parameters of an address.
    pub(super) fn of(uri: &Uri) -> Result<Self, Problem> {
        let mut query = Parameters::of(uri);
        let kind = query
            .get("kind")
            .filter(|kind| !kind.is_empty())
            .map(|kind| (SubjectKind::from_name(kind), kind.to_owned()));
        if let Some((None, kind)) = &kind {
            query.fault("kind", format!("{kind} is no kind of id"));
        }
        let limit = query.number("limit", 1..=LIMIT_MAX).and_then(|limit| u16::try_from(limit).ok());
        query.check(&["kind", "limit"])?;
        Ok(Self { kind: kind.and_then(|(kind, _)| kind), limit })
    }
}

/// The story of what has this id.
pub(super) async fn story_of(app: &App, id: &str, how: How) -> Result<Option<Story>, Sorry> {
    let asked = Asked::new(id, how.kind)
        .map_err(|fault| Problem::bad_request("this is no id").with_field("id", fault.to_string()))?;
    let dispute_policy = app.console.terms.dispute_policy;
    let terms = ExplainTerms {
        now: app.now(),
        dispute_policy,
        orders_max: how.limit.unwrap_or(ORDERS),
        entries_max: how.limit.unwrap_or(ENTRIES),
    };
    Ok(app.store().explain(asked, terms).await?)
}

/// `GET /explain/{id}`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    let story = story_of(&app, &id, How::of(&uri)?).await?;
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
    let main =
        html!["<h1 class=\"id\"><code>" (id) "</code></h1>" [told] [dead_letters(&letters, now)] [other_kinds(&id)]];
    Ok(Page { title: &id, part: Part::None, every_s: None, main }.respond(&app, &operator, status))
}

fn unknown() -> Html {
    html![
        "<section class=\"card\"><p class=\"big\">" [mark(Tone::Quiet, "Nothing is known by this id")] "</p>"
        "<p>Orders, dead letters, messages, payments and accounts were searched. Messages are deleted after "
        "<code>GRANTONCE_INBOX_RETENTION</code>: then search by the order or the payment. An id must be complete, and its "
        "letters must be exact.</p></section>"
    ]
}

/// One id can stand for several things. The first one is told; these links ask for the others.
fn other_kinds(id: &str) -> Html {
    let path = story_address(id);
    let kinds = Html::all(
        SubjectKind::ALL
            .into_iter()
            .map(|kind| html!["<a href=\"" (address(&path, [("kind", kind.name())])) "\">" (kind.name()) "</a> "]),
    );
    html!["<p class=\"dim\">Look for this id only as: " [kinds] "</p>"]
}

/// What can be done about the subject of a story.
fn acts(story: &Story) -> Html {
    let id = story.subject.id.as_str();
    match story.subject.kind {
        SubjectKind::Order => match id.parse::<OrderId>() {
            Ok(order) => {
                html!["<p>" [button_to(&order_address(order), "Its money, letters and what to do", false)] "</p>"]
            }
            Err(_) => html![],
        },
        SubjectKind::Account => {
            let forget = address("/forget", [("account", id)]);
            html!["<p>" [button_to(&forget, "Forget the account’s buyers…", true)] "</p>"]
        }
        SubjectKind::Letter | SubjectKind::Message | SubjectKind::Payment => html![],
    }
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
        (summary.text) "</p>" [missing(&summary.missing)] [acts(story)] "</section>" [orders]
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

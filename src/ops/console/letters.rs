//! The dead letters that a filter finds: groups with one cause first, then the orders that they are about.

use super::App;
use super::access::Operator;
use super::advice::advice;
use super::layout::{Page, Part, Sorry, button_to};
use super::orders;
use super::selection::{AGES, Selection};
use super::words::{age, count, mark, number, state, verdict, when};
use crate::domain::{LetterState, Reason, VerdictKind};
use crate::http::{Html, Parameters, html};
use crate::ops::standing::stand;
use crate::store::{LetterGroup, LetterRow};
use axum::extract::{Extension, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use time::OffsetDateTime;

/// Orders on a page.
const ORDERS: u32 = 50;

/// Groups that are shown; further ones are counted.
const GROUPS_SHOWN: usize = 30;

/// `GET /dead-letters`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let now = app.now();
    let selection = Selection::of(Parameters::of(&uri), now)?;
    let groups = app.store().letter_groups(selection.filter.clone()).await?;
    let page = app.store().letters_by_order(selection.filter.clone(), selection.after, ORDERS).await?;
    let standings = stand(app.store(), &app.console.terms, page.orders.clone(), now).await?;
    let letters: i64 = groups.iter().map(|group| group.letters).sum();
    let main = html![
        "<h1>Dead letters</h1><p class=\"lead\">Messages that could not be applied, by the order that they are about. "
        "Each message is kept until it is applied, or until an operator archives it.</p>"
        [filters(&selection)]
        [self::groups(&selection, &groups, letters, now)]
        [orders::list(&selection, &page, &standings, letters, now)]
    ];
    let title = format!("Dead letters ({})", number(letters));
    Ok(Page { title: &title, part: Part::Letters, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

fn filters(selection: &Selection) -> Html {
    let choice = |name: &'static str, label: &'static str, all: &'static str, options: Vec<(&str, &str)>| {
        let chosen = selection.get(name).unwrap_or_default();
        let options = Html::all(options.into_iter().map(|(value, words)| {
            let is_chosen = if value == chosen { html![" selected"] } else { html![] };
            html!["<option value=\"" {value} "\"" [is_chosen] ">" (words) "</option>"]
        }));
        html![
            "<div><label for=\"f-" (name) "\">" (label) "</label><select id=\"f-" (name) "\" name=\"" (name)
            "\"><option value=\"\">"
            (all) "</option>" [options] "</select></div>"
        ]
    };
    let field = |name: &'static str, label: &'static str| {
        html![
            "<div><label for=\"f-" (name) "\">" (label) "</label><input id=\"f-" (name) "\" name=\"" (name)
            "\" maxlength=\"512\" value=\""
            {selection.get(name).unwrap_or_default()} "\"></div>"
        ]
    };
    // Parameters without a field in the form are kept.
    let kept = ["cause", "message", "before", "since"].iter().filter_map(|name| Some((name, selection.get(name)?)));
    let kept =
        Html::all(kept.map(|(name, value)| html!["<input type=\"hidden\" name=\"" (name) "\" value=\"" {value} "\">"]));
    let reasons = Reason::ALL.iter().map(|reason| (reason.name(), reason.name())).collect();
    let verdicts = VerdictKind::NAMES.iter().map(|name| (*name, verdict(Some(*name)).1)).collect();
    let mut states: Vec<_> = LetterState::ALL.iter().map(|state| (state.name(), self::state(*state).1)).collect();
    states.push(("any", "in any state"));
    let ages = AGES.iter().map(|(value, words, ..)| (*value, *words)).collect();
    let clear = if selection.is_narrow() { button_to("/dead-letters", "Clear", true) } else { html![] };
    let cause = selection.get("cause").map(|cause| {
        html![
            "<p class=\"note\">Only the group <code>" (cause) "</code> · <a href=\""
            (selection.at("/dead-letters", &[("cause", "")]))
            "\">all causes</a></p>"
        ]
    });
    html![
        "<form class=\"filters\" action=\"/dead-letters\" aria-label=\"Filter\">" [kept]
        [choice("reason", "Reason", "any", reasons)] [field("provider", "Provider")]
        [choice("state", "State", "open or under replay", states)] [choice("verdict", "A replay", "any verdict", verdicts)]
        [choice("age", "First seen", "at any time", ages)] [field("order", "Order")] [field("payment", "Payment")]
        [field("account", "Account")] [field("text", "Text in detail or ids")]
        "<div class=\"row\"><button>Filter</button>" [clear] "</div></form>" [cause.unwrap_or_default()]
    ]
}

fn groups(selection: &Selection, groups: &[LetterGroup], letters: i64, now: OffsetDateTime) -> Html {
    if groups.is_empty() {
        return html![];
    }
    let rows = Html::all(groups.iter().take(GROUPS_SHOWN).map(|group| {
        let of_group = [("reason", group.reason.as_str()), ("provider", &group.provider), ("cause", &group.cause)];
        let title = advice(&group.reason).map_or("", |advice| advice.title);
        let amend = match group.reason == Reason::AmountMismatch.name() {
            true => html![" <a href=\"" (selection.at("/amend", &of_group)) "\">Amend…</a>"],
            false => html![],
        };
        let helped = match group.helpful {
            0 => html!["<span class=\"dim\">none</span>"],
            some => html![(number(some)) " of " (number(group.letters))],
        };
        html![
            "<tr><td data-name=\"Letters\" class=\"many\">" (number(group.letters)) "</td>"
            "<td data-name=\"Reason\"><a href=\"" (selection.at("/dead-letters", &of_group)) "\"><b>" (group.reason)
            "</b></a>"
            "<div class=\"dim\">" (title) "</div></td><td data-name=\"Cause\">" (group.cause) "</td>"
            "<td data-name=\"Provider\">" (group.provider) "</td>"
            "<td data-name=\"Oldest\">" [age(group.oldest_at, now)] "</td><td data-name=\"Newest\">"
            [age(group.newest_at, now)] "</td>"
            "<td data-name=\"A replay helps\">" [helped] "</td>"
            "<td><a href=\"" (selection.at("/replay", &of_group)) "\">Replay…</a>" [amend] "</td></tr>"
        ]
    }));
    let more = groups.len().saturating_sub(GROUPS_SHOWN);
    let more = match i64::try_from(more).unwrap_or(i64::MAX) {
        0 => html![],
        more => {
            html!["<p class=\"dim\">And " (count(more, "smaller group", "smaller groups")) ": filter to see them.</p>"]
        }
    };
    html![
        "<section class=\"card\" aria-labelledby=\"groups\"><h2 id=\"groups\">" (count(letters, "letter", "letters"))
        " in "
        (count(i64::try_from(groups.len()).unwrap_or(i64::MAX), "group", "groups")) "</h2>"
        "<table class=\"wide\"><thead><tr><th scope=\"col\">Letters</th><th scope=\"col\">Reason</th><th "
        "scope=\"col\">What they have in common</th>"
        "<th scope=\"col\">Provider</th><th scope=\"col\">Oldest</th><th scope=\"col\">Newest</th><th scope=\"col\">A "
        "replay helps</th>"
        "<th scope=\"col\"><span class=\"unseen\">Act</span></th></tr></thead><tbody id=\"group-rows\">" [rows]
        "</tbody></table>" [more] "</section>"
    ]
}

/// A few letters, for pages about something else.
pub(super) fn short_list(letters: &[LetterRow], now: OffsetDateTime) -> Html {
    let items = Html::all(letters.iter().map(|letter| {
        let (tone, words) = state(letter.state);
        html![
            "<li><a href=\"/dead-letters/" (letter.id) "\"><b>" (letter.reason) "</b> "
            (letter.said.as_deref().unwrap_or_default()) "</a> "
            [mark(tone, words)] " " [when(letter.first_seen_at, now)] "<div class=\"dim\">" (letter.detail)
            "</div></li>"
        ]
    }));
    html!["<ul class=\"plain\">" [items] "</ul>"]
}

//! One dead letter: why it is here, what a replay would do now, what to do, then everything that is known of it.

use super::App;
use super::access::Operator;
use super::advice::{Advice, advice};
use super::body;
use super::layout::{Page, Part, Sorry, button_to, story_link};
use super::orders::order_address;
use super::selection::{address, field};
use super::settle::reason_field;
use super::words::{Tone, count, mark, outcome, state, verdict, when};
use crate::domain::{LetterId, LetterState, Reason};
use crate::http::{Html, Problem, html};
use crate::ops::prospects::preview;
use crate::store::{AuditFilter, AuditLine, Letter, LetterFilter};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use time::OffsetDateTime;

/// Audit lines of one letter that are shown.
const AUDIT_LINES: u16 = 50;

type LetterPath = Result<Path<String>, PathRejection>;

/// Reads a letter whose verdict is of now: an open one is looked at anew first, which may resolve it.
pub(super) async fn read(app: &App, path: LetterPath) -> Result<Letter, Sorry> {
    let unknown = || Problem::not_found("there is no such dead letter");
    let id: LetterId = path.map(|Path(id)| id).unwrap_or_default().parse().map_err(|_| unknown())?;
    preview(app.store(), &app.console.terms, LetterFilter::of_ids([id]), app.now()).await?;
    Ok(app.store().letter(id).await?.ok_or_else(unknown)?)
}

/// `GET /dead-letters/{id}`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: LetterPath,
) -> Result<Response, Sorry> {
    let letter = read(&app, path).await?;
    let subject = Some(format!("letter {}", letter.row.id));
    let acts = app.store().audit_log(AuditFilter { subject, ..AuditFilter::default() }, AUDIT_LINES).await?;
    let now = app.now();
    let heading = advice(&letter.row.reason).map_or("A dead letter", |advice| advice.title);
    let main = html![
        "<p class=\"dim\"><a href=\"/dead-letters\">Dead letters</a> › <a href=\""
        (address("/dead-letters", [("reason", letter.row.reason.as_str())]))
        "\">" (letter.row.reason) "</a> › <a href=\"" (group_address(&letter)) "\">its group</a></p>"
        "<div id=\"letter\" data-live class=\"stack\">" [cause(&letter, heading, now)] [prospect(&letter)] "</div>"
        [what_to_do(&letter)] [actions(&letter, &operator)] [timeline(&letter, &acts, now)] [message(&letter)]
    ];
    let every_s = (letter.row.state == LetterState::Replaying).then_some(super::layout::LIVE_EVERY_S);
    Ok(Page { title: heading, part: Part::Letters, every_s, main }.respond(&app, &operator, StatusCode::OK))
}

fn group_address(letter: &Letter) -> String {
    let row = &letter.row;
    let all = [("reason", row.reason.as_str()), ("provider", &row.provider), ("cause", &row.cause)];
    address("/dead-letters", all.into_iter().filter(|(_, value)| !value.is_empty()))
}

fn cause(letter: &Letter, heading: &str, now: OffsetDateTime) -> Html {
    let row = &letter.row;
    let (tone, words) = state(row.state);
    let by = row.state_by.as_ref().map(|by| html![" by <b>" (by) "</b>"]).unwrap_or_default();
    let why = row.state_reason.as_ref().map(|why| html![": “" (why) "”"]).unwrap_or_default();
    let means = advice(&row.reason)
        .map_or("This version does not know this reason. The detail says more.", |known| known.means);
    let fact = |name: &str, value: Option<Html>| {
        value.map(|value| html!["<div><dt>" (name) "</dt><dd>" [value] "</dd></div>"]).unwrap_or_default()
    };
    let text = |text: &str| (!text.is_empty()).then(|| html![(text)]);
    let link = |id: Option<&str>| id.filter(|id| !id.is_empty()).map(story_link);
    // What it names need not be an order of ours: then the orders of its payment are told alone.
    let named = row.order_id.filter(|_| letter.orders.is_empty());
    let orders: Vec<_> = letter.orders.iter().copied().chain(named).map(|id| story_link(&id.to_string())).collect();
    let several = if orders.len() > 1 { "Orders" } else { "Order" };
    let orders = (!orders.is_empty()).then(|| Html::all(orders.into_iter().map(|order| html![[order] " "])));
    html![
        "<section class=\"card\"><p>" [mark(tone, words)] " since " [when(row.state_at, now)] [by] [why] "</p><h1>"
        (heading) "</h1>"
        "<p class=\"detail\" id=\"detail\">" (row.detail) "</p><p>" (means) "</p><dl class=\"facts\">"
        [fact("It says", row.said.as_deref().and_then(text))] [fact("Provider", text(&row.provider))]
        [fact("Its account", text(&row.provider_account))]
        [fact("Payment", link(row.payment_id.as_deref()))] [fact(several, orders)]
        [fact("Account", link(row.account_id.as_deref()))] [fact("Message", link(Some(&row.message_id)))]
        "</dl></section>"
    ]
}

fn prospect(letter: &Letter) -> Html {
    let row = &letter.row;
    let (tone, words, follows) = verdict(row.verdict.as_deref());
    let (sentence, follows) = match row.state {
        LetterState::Open => (row.verdict_detail.as_deref(), follows),
        LetterState::Replaying => (Some("it is under replay; its outcome is shown here when it is known"), ""),
        LetterState::Resolved => (row.verdict_detail.as_deref(), "Nothing is left to do."),
        LetterState::Archived => {
            (None, "It is archived, so it is not judged. Restore it to see what a replay would do.")
        }
    };
    html![
        "<section class=\"card verdict " (tone.class())
        "\" aria-labelledby=\"verdict\"><h2 id=\"verdict\">What a replay would do now</h2><p class=\"big\" "
        "id=\"says\">"
        [mark(tone, words)] " " (sentence.unwrap_or_default()) "</p><p>" (follows) "</p></section>"
    ]
}

fn what_to_do(letter: &Letter) -> Html {
    let row = &letter.row;
    let advice = advice(&row.reason).filter(|_| row.state == LetterState::Open);
    let Some(Advice { steps, .. }) = advice else { return html![] };
    let steps = Html::all(steps.iter().map(|step| html!["<li>" (step) "</li>"]));
    if verdict(row.verdict.as_deref()).0 == Tone::Good {
        return html![
            "<section class=\"card\"><h2>What to do</h2><p>What refused it is gone. Replay it below, and check that it is "
            "resolved.</p><details><summary>What to do about this reason otherwise</summary><ol>" [steps]
            "</ol></details></section>"
        ];
    }
    let amend = match (Reason::from_name(&row.reason), row.order_id) {
        (Some(Reason::AmountMismatch), Some(_)) => {
            let page = address("/amend", [("id", row.id.to_string().as_str())]);
            html!["<p>" [button_to(&page, "Amend the price to what was paid…", false)] "</p>"]
        }
        (Some(Reason::CurrencyMismatch), Some(order)) => {
            html!["<p>" [button_to(&format!("{}/amend", order_address(order)), "Set price and currency…", false)] "</p>"]
        }
        (Some(_) | None, _) => html![],
    };
    let order = row.order_id.or(letter.orders.first().copied());
    let order = order
        .map(|order| html!["<p>" [button_to(&order_address(order), "The order’s money and letters", true)] "</p>"]);
    html![
        "<section class=\"card\"><h2>What to do</h2><ol>" [steps] "</ol>" [amend] [order.unwrap_or_default()]
        "<p class=\"dim\">The documentation has more: the page <code>dead-letters.md</code>, reason <code>" (row.reason)
        "</code>.</p></section>"
    ]
}

fn actions(letter: &Letter, operator: &Operator) -> Html {
    let row = &letter.row;
    let this = LetterFilter::of_ids([row.id]);
    let by_id = |path: &str| address(path, [("id", row.id.to_string().as_str())]);
    match row.state {
        LetterState::Open if letter.body.is_none() => html![
            "<section class=\"card\"><h2>Act</h2><p>Its body was emptied (<code>grantonce forget</code>), so it "
            "cannot be replayed.</p><p>"
            [button_to(&by_id("/archive"), "Archive…", true)] "</p></section>"
        ],
        LetterState::Open => {
            let helps = verdict(row.verdict.as_deref()).0 == Tone::Good;
            let replay = if helps {
                html![
                    "<form method=\"post\" action=\"/replay\" class=\"act\">" [operator.form_token()] [field(&this)]
                    "<input type=\"hidden\" name=\"per_s\" value=\"1\">"
                    [reason_field("replay-reason", "Why do you replay it?")]
                    "<button id=\"replay\">Replay this letter</button></form>"
                ]
            } else {
                html![
                    "<p>A replay would not help now. The verdict above says why. "
                    [button_to(&by_id("/replay"), "Replay anyway…", true)] "</p>"
                ]
            };
            html![
                "<section class=\"card\"><h2>Act</h2>" [replay]
                "<form method=\"post\" action=\"/archive\" class=\"act\">" [operator.form_token()] [field(&this)]
                [reason_field("archive-reason", "Why is nothing to be done?")]
                "<button class=\"quiet\" id=\"archive\">Archive</button></form></section>"
            ]
        }
        LetterState::Replaying => match letter.history.last() {
            Some(last) => html![
                "<section class=\"card\"><h2>Act</h2><p>"
                [button_to(&format!("/replays/{}", last.replay_id), "See the replay", false)] "</p></section>"
            ],
            None => html![],
        },
        LetterState::Archived => html![
            "<section class=\"card\"><h2>Act</h2><p>" [button_to(&by_id("/restore"), "Restore…", false)]
            "</p></section>"
        ],
        LetterState::Resolved => html![],
    }
}

fn timeline(letter: &Letter, acts: &[AuditLine], now: OffsetDateTime) -> Html {
    let row = &letter.row;
    let mut events = vec![(
        row.first_seen_at,
        html!["came from <b>" (row.origin) "</b> after " (count(row.attempts.into(), "attempt", "attempts"))],
    )];
    if row.seen > 1 {
        events.push((
            row.last_seen_at,
            html!["came for the last time; it came " (row.seen) " times in total. Copies change nothing."],
        ));
    }
    for replay in &letter.history {
        let link = html!["<a href=\"/replays/" (replay.replay_id) "\">replay " (replay.replay_id) "</a>"];
        events.push((
            replay.asked_at,
            html!["<b>" (replay.actor) "</b> began " [link.clone()] ": “" (replay.reason) "”"],
        ));
        if let Some(at) = replay.sent_at {
            events.push((at, html!["sent again, number " (replay.number) ", by " [link.clone()]]));
        }
        if let Some(at) = replay.ended_at {
            let (tone, words) = outcome(&replay.state);
            events.push((at, html![[mark(tone, words)] " in " [link]]));
        }
    }
    for act in acts {
        let why = act.reason.as_deref().unwrap_or_default();
        events.push((
            act.at,
            html!["<b>" (act.actor) "</b>: <a href=\"/audit/" (act.id) "\">" (act.action) "</a>, “" (why) "”"],
        ));
    }
    // What was done to many at once has no line of its own at each letter.
    if acts.iter().all(|act| act.at != row.state_at)
        && row.state != LetterState::Replaying
        && row.state_at != row.first_seen_at
    {
        let by = row.state_by.as_ref().map(|by| html![" by <b>" (by) "</b>"]).unwrap_or_default();
        let why = row.state_reason.as_ref().map(|why| html![": “" (why) "”"]).unwrap_or_default();
        events.push((row.state_at, html![(state(row.state).1)[by][why]]));
    }
    events.sort_by_key(|(at, _)| *at);
    let events =
        Html::all(events.into_iter().map(|(at, what)| html!["<li>" [when(at, now)] "<div>" [what] "</div></li>"]));
    html!["<section class=\"card\"><h2>What happened</h2><ol class=\"timeline\">" [events] "</ol></section>"]
}

fn message(letter: &Letter) -> Html {
    let row = &letter.row;
    let headers = match letter.headers.as_object() {
        Some(headers) if !headers.is_empty() => Html::all(headers.iter().map(|(name, value)| {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            html!["<tr><th scope=\"row\"><code>" (name) "</code></th><td><code>" (value) "</code></td></tr>"]
        })),
        Some(_) | None => html!["<tr><td class=\"dim\">none</td></tr>"],
    };
    let whole = html!["<a href=\"/dead-letters/" (row.id) "/body\" download>Download it</a>"];
    let body = match &letter.body {
        None => html!["<p class=\"dim\">It was emptied.</p>"],
        Some(bytes) => {
            let kept = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
            let lost =
                if kept < letter.body_bytes { html![" Only the first " (kept) " bytes were kept."] } else { html![] };
            let shown = body::shown(bytes);
            let cut = if shown.is_cut { html![" Only its beginning is shown."] } else { html![] };
            html![
                "<p class=\"dim\">" (shown.kind) ", " (letter.body_bytes) " bytes." [lost] [cut] " " [whole] "</p>"
                "<pre id=\"body\" tabindex=\"0\" aria-label=\"Body\"><code>" (shown.text) "</code></pre>"
            ]
        }
    };
    html![
        "<section class=\"card\"><h2>The message</h2><table class=\"plain\"><tbody><tr><th "
        "scope=\"row\">type</th><td><code>" (row.kind)
        "</code></td></tr><tr><th scope=\"row\">routing key</th><td><code>" (letter.routing_key)
        "</code></td></tr><tr><th scope=\"row\">message id</th>"
        "<td><code>" (row.message_id) "</code></td></tr><tr><th scope=\"row\">letter id</th><td><code>" (row.id)
        "</code></td></tr></tbody></table>"
        "<h3>Headers</h3><table class=\"plain\"><tbody>" [headers] "</tbody></table><h3>Body</h3>" [body] "</section>"
    ]
}

/// `GET /dead-letters/{id}/body`: as it came, to be kept in a file; a browser does nothing else with it.
pub(super) async fn body(State(app): State<App>, path: LetterPath) -> Result<Response, Sorry> {
    let unknown = || Problem::not_found("there is no such dead letter, or its body was emptied");
    let id: LetterId = path.map(|Path(id)| id).unwrap_or_default().parse().map_err(|_| unknown())?;
    let letter = app.store().letter(id).await?.ok_or_else(unknown)?;
    let mut response = letter.body.ok_or_else(unknown)?.into_response();
    let headers = response.headers_mut();
    let file = format!("attachment; filename=\"letter-{id}.bin\"");
    headers.insert(CONTENT_DISPOSITION, HeaderValue::try_from(file).unwrap_or(HeaderValue::from_static("attachment")));
    for (name, value) in [
        (CONTENT_TYPE, "application/octet-stream"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

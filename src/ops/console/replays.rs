//! Replaying letters: what a replay would change, then how it proceeds, then its outcome.

use super::App;
use super::access::Operator;
use super::layout::{LIVE_EVERY_S, Page, Part, Sorry, button_to};
use super::selection::{Selection, address, field};
use super::settle::{read_reason, reason_field};
use super::words::{Tone, about, count, mark, number, outcome, replay_state, signed, verdict, when};
use crate::domain::LetterId;
use crate::http::{Html, Parameters, Problem, html, see};
use crate::ops::prospects::{Preview, preview as look};
use crate::store::{Begun, LetterFilter, NewReplay, Replay, ReplayMember, ReplayPace, ReplayState};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use std::ops::RangeInclusive;
use time::{Duration, OffsetDateTime};

/// Letters a second, where nothing else is said; and what may be said.
pub(super) const PER_S_DEFAULT: u16 = 20;
pub(super) const PER_S: RangeInclusive<i64> = 1..=500;

/// Replays that are listed.
pub(super) const REPLAYS_LISTED: u16 = 100;

/// Letters of a replay that are shown with one outcome.
const MEMBERS_SHOWN: u16 = 100;

/// What somebody wants to have replayed.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub(super) filter: LetterFilter,
    pub(super) reason: String,
    pub(super) per_s: u16,
    /// One first, and the others when it was applied.
    pub(super) is_careful: bool,
    /// Also those that would come back.
    pub(super) includes_hopeless: bool,
}

/// What is to be judged: letters that come after somebody has begun to look are not among what he decides about.
pub(super) fn until_now(mut filter: LetterFilter, now: OffsetDateTime) -> LetterFilter {
    if filter.ids.is_none() {
        filter.before = Some(filter.before.map_or(now, |before| before.min(now)));
    }
    filter
}

/// Looks at all of it once more, and begins. None: nothing is left that could be replayed.
pub(super) async fn begin_now(app: &App, operator: &Operator, wish: Wish) -> Result<Option<Begun>, Sorry> {
    let now = app.now();
    let Preview { helpful, all, .. } = look(app.store(), &app.console.terms, wish.filter.clone(), now).await?;
    let letters = if wish.includes_hopeless { all } else { helpful };
    let pace = if wish.is_careful && letters.len() > 1 { ReplayPace::Canary } else { ReplayPace::Steady };
    let replay = NewReplay {
        letters,
        selection: wish.filter,
        per_s_max: wish.per_s,
        pace,
        by: operator.actor(),
        reason: wish.reason,
        now,
    };
    Ok(if replay.letters.is_empty() { None } else { app.store().begin_replay(replay).await? })
}

/// `GET /replay`: what would come of it. Nothing is sent.
pub(super) async fn preview(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let now = app.now();
    let selection = Selection::of(Parameters::of(&uri), now)?;
    let filter = until_now(selection.filter.clone(), now);
    let preview = look(app.store(), &app.console.terms, filter.clone(), now).await?;
    let main = html![
        "<p class=\"dim\"><a href=\"" (selection.at("/dead-letters", &[]))
        "\">Dead letters</a> ›</p><h1>Replay</h1><p class=\"lead\">"
        [selection.in_words()] "</p>" [prospects(&preview, &selection)]
        [begin_form(&preview, &filter, &operator, &selection)]
    ];
    Ok(Page { title: "Replay", part: Part::Letters, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

/// What a replay would change, by verdict.
pub(super) fn prospects(preview: &Preview, selection: &Selection) -> Html {
    let rows = Html::all(preview.by_verdict.iter().map(|(name, letters)| {
        let (tone, words, follows) = verdict(Some(name));
        let address = selection.at("/dead-letters", &[("verdict", name), ("state", "any")]);
        html![
            "<tr><td class=\"many\" data-name=\"Letters\">" (number(as_i64(*letters)))
            "</td><td data-name=\"A replay\"><a href=\"" (address) "\">"
            [mark(tone, words)] "</a></td><td>" (follows) "</td></tr>"
        ]
    }));
    let examples = Html::all(preview.examples.iter().map(|(id, outlook)| {
        let (tone, words, _) = verdict(Some(outlook.name()));
        html!["<li><a href=\"/dead-letters/" (id) "\">" [mark(tone, words)] "</a> " (outlook) "</li>"]
    }));
    let cut = if preview.is_cut {
        html![
            "<p class=\"note wait\"><b aria-hidden=\"true\">…</b> There are more letters than one replay takes. These are the "
            "oldest " (number(as_i64(looked_at(preview)))) ". Replay the others afterwards.</p>"
        ]
    } else {
        html![]
    };
    if preview.by_verdict.is_empty() {
        return html![
            "<section class=\"card\"><p id=\"says\">No open letter is as you asked. Those that are under replay, "
            "resolved or archived are not replayed.</p></section>"
        ];
    }
    let credits = match preview.credits {
        0 => html!["no credits would move"],
        credits => html!["<b>" (signed(credits)) " credits</b> in all"],
    };
    html![
        "<section class=\"card\" aria-labelledby=\"verdict\"><h2 id=\"verdict\">What a replay would change now</h2><p class=\"big\" id=\"says\">"
        (count(as_i64(preview.helpful.len()), "letter", "letters")) " of " (number(as_i64(looked_at(preview))))
        " would do something; " [credits] ".</p>"
        [cut] "<table class=\"plain\"><thead><tr><th scope=\"col\">Letters</th><th scope=\"col\">A replay</th><th "
        "scope=\"col\">That is</th></tr></thead><tbody>"
        [rows] "</tbody></table><details><summary>Examples</summary><ul class=\"plain\">" [examples]
        "</ul></details></section>"
    ]
}

/// The form that begins a replay.
pub(super) fn begin_form(preview: &Preview, filter: &LetterFilter, operator: &Operator, selection: &Selection) -> Html {
    if preview.by_verdict.is_empty() {
        return html!["<p>" [button_to(&selection.at("/dead-letters", &[]), "Back to the letters", true)] "</p>"];
    }
    let hopeless = preview.all.len() - preview.helpful.len();
    let note = if preview.helpful.is_empty() {
        html![
            "<p class=\"note wait\"><b aria-hidden=\"true\">…</b> None of them would change anything now. Correct the cause "
            "first, or archive them.</p>"
        ]
    } else {
        html![]
    };
    html![
        "<section class=\"card\"><h2>Replay</h2>" [note] "<form method=\"post\" action=\"/replay\" class=\"stack\">"
        [operator.form_token()] [field(filter)]
        [reason_field("reason", "Why do you replay them? It goes to the audit log.")]
        "<p><label for=\"per_s\">Letters a second, at most</label> <input id=\"per_s\" name=\"per_s\" type=\"number\" "
        "min=\"" (PER_S.start()) "\" max=\"" (PER_S.end())
        "\" value=\"" (PER_S_DEFAULT) "\" required></p>"
        "<p><label><input type=\"checkbox\" name=\"canary\" value=\"yes\" checked> Send one letter first, and the others when "
        "it is applied. If it is refused, nothing else is sent.</label></p>"
        "<p><label><input type=\"checkbox\" name=\"hopeless\" value=\"yes\"> Also the " (number(as_i64(hopeless)))
        " that would be refused again, or change nothing.</label></p>"
        "<p class=\"row\"><button id=\"begin\">Replay " (count(as_i64(preview.helpful.len()), "letter", "letters"))
        "</button>"
        [button_to(&selection.at("/archive", &[]), "Archive instead…", true)] "</p></form></section>"
    ]
}

/// How many were looked at; those with nothing left to do are resolved by it.
pub(super) fn looked_at(preview: &Preview) -> usize {
    preview.by_verdict.values().sum()
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// `POST /replay`.
pub(super) async fn begin(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Result<Response, Sorry> {
    let mut form = operator.read_form(request).await?;
    let per_s = form.number("per_s", PER_S).and_then(|per_s| u16::try_from(per_s).ok());
    let wish = Wish {
        filter: Selection::of_field(&form)?,
        reason: read_reason(&form)?,
        per_s: per_s.unwrap_or(PER_S_DEFAULT),
        is_careful: form.get("canary").is_some(),
        includes_hopeless: form.get("hopeless").is_some(),
    };
    form.check(&["form_token", "selection", "reason", "per_s", "canary", "hopeless"])?;
    match begin_now(&app, &operator, wish).await? {
        Some(begun) => Ok(see(&format!("/replays/{}", begun.id))),
        None => {
            Err(Problem::conflict("none of these letters is open any more and would do something: nothing was sent")
                .into())
        }
    }
}

/// `GET /replays`.
pub(super) async fn list(State(app): State<App>, Extension(operator): Extension<Operator>) -> Result<Response, Sorry> {
    let replays = app.store().replays(REPLAYS_LISTED).await?;
    let is_busy = replays.iter().any(|replay| replay.ended_at.is_none());
    let main = html!["<h1>Replays</h1><div id=\"replays\" data-live>" [table(&replays, app.now())] "</div>"];
    let every_s = is_busy.then_some(LIVE_EVERY_S);
    Ok(Page { title: "Replays", part: Part::Replays, every_s, main }.respond(&app, &operator, StatusCode::OK))
}

/// Replays, a line each.
pub(super) fn table(replays: &[Replay], now: OffsetDateTime) -> Html {
    if replays.is_empty() {
        return html![
            "<section class=\"card\"><p>No <a href=\"/dead-letters\">dead letters</a> were replayed yet.</p></section>"
        ];
    }
    let rows = Html::all(replays.iter().map(|replay| {
        let (tone, words, _) = replay_state(replay.state);
        html![
            "<tr><td data-name=\"Replay\"><a href=\"/replays/" (replay.id) "\">replay " (replay.id)
            "</a></td><td data-name=\"State\">" [mark(tone, words)] "</td>"
            "<td data-name=\"Letters\">" [bar(replay)] "</td><td data-name=\"By\">" [who(replay)]
            "</td><td data-name=\"Why\">" (replay.reason)
            "</td><td data-name=\"Begun\">" [when(replay.created_at, now)] "</td></tr>"
        ]
    }));
    html![
        "<section class=\"card\"><table class=\"wide\"><thead><tr><th scope=\"col\">Replay</th><th "
        "scope=\"col\">State</th><th scope=\"col\">Letters</th><th scope=\"col\">By</th>"
        "<th scope=\"col\">Why</th><th scope=\"col\">Begun</th></tr></thead><tbody>" [rows] "</tbody></table></section>"
    ]
}

fn who(replay: &Replay) -> Html {
    let doubt = if replay.is_self_declared { html![" <span class=\"dim\">(not verified)</span>"] } else { html![] };
    html![(replay.actor)[doubt]]
}

fn ended(replay: &Replay) -> i64 {
    let counts = replay.counts;
    counts.resolved + counts.dead_again + counts.canceled + counts.unanswered
}

fn bar(replay: &Replay) -> Html {
    html![
        "<progress max=\"" (replay.letters) "\" value=\"" (ended(replay))
        "\" aria-label=\"Letters whose outcome is known\"></progress> "
        (number(ended(replay))) " of " (number(replay.letters.into()))
    ]
}

type ReplayPath = Result<Path<String>, PathRejection>;

/// The replay of an address.
pub(super) async fn read(app: &App, path: ReplayPath) -> Result<Replay, Sorry> {
    let unknown = || Problem::not_found("there is no such replay");
    let id: i64 = path.map(|Path(id)| id).unwrap_or_default().parse().map_err(|_| unknown())?;
    Ok(app.store().replay(id).await?.ok_or_else(unknown)?)
}

/// `GET /replays/{id}`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: ReplayPath,
) -> Result<Response, Sorry> {
    let replay = read(&app, path).await?;
    let failed = app.store().replay_members(replay.id, &["dead_again", "unanswered"], MEMBERS_SHOWN).await?;
    let others =
        app.store().replay_members(replay.id, &["queued", "sent", "resolved", "canceled"], MEMBERS_SHOWN).await?;
    let now = app.now();
    let is_busy = replay.ended_at.is_none();
    let title = format!("Replay {}", replay.id);
    let cancel = if matches!(replay.state, ReplayState::Canary | ReplayState::Running) {
        html![
            "<form method=\"post\" action=\"/replays/" (replay.id) "/cancel\" class=\"act\">" [operator.form_token()]
            [reason_field("cancel-reason", "Why do you end it? Letters that were not sent are open again.")]
            "<button class=\"quiet\" id=\"cancel\">Cancel the replay</button></form>"
        ]
    } else {
        html![]
    };
    let main = html![
        "<p class=\"dim\"><a href=\"/replays\">Replays</a> ›</p><h1>" (title)
        "</h1><div id=\"progress\" data-live class=\"stack\">" [progress(&replay, now)]
        [again(&failed)] "</div><div id=\"cancel-part\" data-live>" [cancel]
        "</div><div id=\"members\" data-live class=\"stack\">"
        [members("Refused again, or without an outcome", &failed)] [members("The others", &others)] "</div>"
    ];
    let every_s = is_busy.then_some(LIVE_EVERY_S);
    Ok(Page { title: &title, part: Part::Replays, every_s, main }.respond(&app, &operator, StatusCode::OK))
}

fn progress(replay: &Replay, now: OffsetDateTime) -> Html {
    let (tone, words, means) = replay_state(replay.state);
    let counts = replay.counts;
    // That it has ended is no good news where letters came back.
    let tone = if counts.dead_again + counts.unanswered > 0 { Tone::Bad } else { tone };
    let waiting = counts.queued + counts.sent;
    let result = match (replay.ended_at, counts.resolved == i64::from(replay.letters)) {
        (Some(_), true) => html!["All of them were applied."],
        (Some(_), false) => {
            html![
                (count(counts.resolved, "letter was", "letters were")) " applied, "
                (number(counts.dead_again + counts.unanswered)) " not."
            ]
        }
        (None, _) => {
            let rate = i64::from(replay.per_s_max).max(1);
            html![
                (count(waiting, "letter", "letters")) " to go, about " (about(Duration::seconds(counts.queued / rate)))
                "."
            ]
        }
    };
    let note =
        replay.note.as_ref().map(|note| html!["<p class=\"note bad\"><b aria-hidden=\"true\">✕</b> " (note) "</p>"]);
    let all = [
        ("queued", counts.queued),
        ("sent", counts.sent),
        ("resolved", counts.resolved),
        ("dead_again", counts.dead_again),
        ("canceled", counts.canceled),
        ("unanswered", counts.unanswered),
    ];
    let figures = Html::all(all.into_iter().filter(|(_, letters)| *letters > 0).map(|(name, letters)| {
        let (tone, words) = outcome(name);
        html!["<div><dt>" [mark(tone, words)] "</dt><dd id=\"n-" (name) "\">" (number(letters)) "</dd></div>"]
    }));
    let ended = replay.ended_at.map(|at| html![" · ended "[when(at, now)]]).unwrap_or_default();
    html![
        "<section class=\"card\"><p class=\"big\" id=\"state\" role=\"status\">" [mark(tone, words)] " " [result]
        "</p><p>" (means) "</p>"
        [note.unwrap_or_default()] "<p>" [bar(replay)] "</p><dl class=\"figures\">" [figures] "</dl>"
        "<p class=\"dim\"><b id=\"actor\">" [who(replay)] "</b> began it " [when(replay.created_at, now)] [ended] ": “"
        (replay.reason) "”. At most "
        (replay.per_s_max) " a second.</p></section>"
    ]
}

/// Letters that were not applied, to be gone on with.
fn again(failed: &[ReplayMember]) -> Html {
    if failed.is_empty() {
        return html![];
    }
    let ids: Vec<String> = failed.iter().map(|member| member.id.to_string()).collect();
    let these = address("/dead-letters", ids.iter().map(|id| ("id", id.as_str())));
    let replay = address("/replay", ids.iter().map(|id| ("id", id.as_str())));
    html![
        "<p class=\"row\">" [button_to(&these, "See what was not applied", false)]
        [button_to(&replay, "Replay those again…", true)] "</p>"
    ]
}

fn members(title: &str, members: &[ReplayMember]) -> Html {
    if members.is_empty() {
        return html![];
    }
    let rows = Html::all(members.iter().map(|member| {
        let (tone, words) = outcome(&member.outcome);
        let id: LetterId = member.id;
        html![
            "<tr><td data-name=\"Letter\"><a href=\"/dead-letters/" (id) "\">"
            (member.said.as_deref().unwrap_or("letter")) " <code>" (id) "</code></a></td><td>"
            [mark(tone, words)] "</td><td data-name=\"Reason\"><b>" (member.reason) "</b> <span class=\"dim\">"
            (member.detail) "</span></td></tr>"
        ]
    }));
    let most = if members.len() >= usize::from(MEMBERS_SHOWN) {
        html![" <span class=\"dim\">(the first " (MEMBERS_SHOWN) ")</span>"]
    } else {
        html![]
    };
    html![
        "<section class=\"card\"><h2>" (title) [most] "</h2><table class=\"wide\"><tbody>" [rows]
        "</tbody></table></section>"
    ]
}

/// `POST /replays/{id}/cancel`.
pub(super) async fn cancel(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: ReplayPath,
    request: Request,
) -> Result<Response, Sorry> {
    let form = operator.read_form(request).await?;
    let reason = read_reason(&form)?;
    form.check(&["form_token", "reason"])?;
    let replay = read(&app, path).await?;
    // Whether it was this call or an earlier one that ended it: it has ended.
    app.cancel(replay.id, operator.actor(), reason).await?;
    Ok(see(&format!("/replays/{}", replay.id)))
}

//! Archiving and restoring letters: first a page that asks, then the act. The page of the act can undo it.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry, button_to};
use super::letters::short_list;
use super::replays::until_now;
use super::selection::{Selection, field};
use super::words::{count, mark, verdict};
use crate::domain::{AuditAction, LetterId, LetterState};
use crate::http::{Html, Parameters, Problem, html, see};
use crate::store::{AuditFilter, AuditLine, LetterFilter};
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

/// Longest reason, in bytes.
pub(super) const REASON_BYTES_MAX: usize = 500;

/// Most letters of one act: each is named in the audit log, so that what was done can be undone for exactly those.
pub(super) const LETTERS_MAX: usize = 10_000;

/// Letters that are shown before an act.
const EXAMPLES: u32 = 10;

/// Letters that are asked for at once.
const PAGE: u32 = 500;

/// What is done to letters, apart from replaying them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    Archive,
    Restore,
}

impl Act {
    fn from(self) -> LetterState {
        match self {
            Self::Archive => LetterState::Open,
            Self::Restore => LetterState::Archived,
        }
    }

    fn path(self) -> &'static str {
        match self {
            Self::Archive => "/archive",
            Self::Restore => "/restore",
        }
    }

    fn verb(self) -> &'static str {
        match self {
            Self::Archive => "Archive",
            Self::Restore => "Restore",
        }
    }

    fn action(self) -> AuditAction {
        match self {
            Self::Archive => AuditAction::LettersArchive,
            Self::Restore => AuditAction::LettersRestore,
        }
    }
}

/// The field in which somebody says why.
pub(super) fn reason_field(id: &str, question: &str) -> Html {
    html![
        "<p><label for=\"" (id) "\">" (question) "</label> <input id=\"" (id) "\" name=\"reason\" required maxlength=\""
        (REASON_BYTES_MAX)
        "\" autocomplete=\"off\"></p>"
    ]
}

/// What was said there.
pub(super) fn read_reason(form: &Parameters) -> Result<String, Problem> {
    check_reason(form.get("reason").unwrap_or_default())
}

/// A reason is a line of text, and says something.
pub(super) fn check_reason(reason: &str) -> Result<String, Problem> {
    let reason = reason.trim();
    let fault = match reason {
        "" => "is required: it goes to the audit log",
        long if long.len() > REASON_BYTES_MAX => "is too long; at most 500 bytes",
        odd if odd.chars().any(char::is_control) => "has control characters",
        _ => return Ok(reason.to_owned()),
    };
    Err(Problem::bad_request("the reason is not as it must be").with_field("reason", fault))
}

/// Does it, to each letter by its id. Gives how many those were, and the number of the audit log's line; none: to none.
pub(super) async fn act_now(
    app: &App,
    operator: &Operator,
    act: Act,
    filter: LetterFilter,
    reason: String,
) -> Result<Option<(u64, i64)>, Sorry> {
    let filter = filter.in_state(act.from());
    let ids = named_one_by_one(app, filter).await?;
    if ids.is_empty() {
        return Ok(None);
    }
    let filter = LetterFilter::of_ids(ids).in_state(act.from());
    let (now, by) = (app.now(), operator.actor());
    let moved = match act {
        Act::Archive => app.store().archive_letters(filter, by, reason, now).await?,
        Act::Restore => app.store().restore_letters(filter, by, reason, now).await?,
    };
    let (actor, action) = (Some(operator.name().to_owned()), Some(act.action().to_string()));
    let line = AuditFilter { actor, action, at: Some(now), ..AuditFilter::default() };
    let line = app.store().audit_log(line, 1).await?.pop();
    Ok(line.filter(|_| moved > 0).map(|line| (moved, line.id)))
}

async fn named_one_by_one(app: &App, filter: LetterFilter) -> Result<Vec<LetterId>, Sorry> {
    let mut ids = vec![];
    let mut after = None;
    while ids.len() < LETTERS_MAX {
        let page = app.store().letters(filter.clone(), after, PAGE).await?;
        ids.extend(page.letters.iter().map(|letter| letter.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    ids.truncate(LETTERS_MAX);
    Ok(ids)
}

/// `GET /archive`.
pub(super) async fn ask_to_archive(
    app: State<App>,
    operator: Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    ask(&app, &operator, Act::Archive, &uri).await
}

/// `GET /restore`.
pub(super) async fn ask_to_restore(
    app: State<App>,
    operator: Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    ask(&app, &operator, Act::Restore, &uri).await
}

async fn ask(app: &App, operator: &Operator, act: Act, uri: &Uri) -> Result<Response, Sorry> {
    let now = app.now();
    let selection = Selection::of(Parameters::of(uri), now)?;
    let filter = until_now(selection.filter.clone(), now).in_state(act.from());
    let groups = app.store().letter_groups(filter.clone()).await?;
    let examples = app.store().letters(filter.clone(), None, EXAMPLES).await?;
    let letters: i64 = groups.iter().map(|group| group.letters).sum();
    let helpful: i64 = groups.iter().map(|group| group.helpful).sum();
    let main = html![
        "<p class=\"dim\"><a href=\"" (selection.at("/dead-letters", &[])) "\">Dead letters</a> ›</p><h1>" (act.verb())
        "</h1><p class=\"lead\">"
        [selection.in_words()] "</p>" [asked(act, letters, helpful, &selection)] [form(operator, act, &filter, letters)]
        "<section class=\"card\"><h2>The newest of them</h2>" [short_list(&examples.letters, now)] "</section>"
    ];
    Ok(Page { title: act.verb(), part: Part::Letters, every_s: None, main }.respond(app, operator, StatusCode::OK))
}

fn asked(act: Act, letters: i64, helpful: i64, selection: &Selection) -> Html {
    let means = match act {
        Act::Archive => {
            "They leave the list, and are kept for as long as GRANTONCE_DEAD_LETTER_RETENTION says. You can undo it."
        }
        Act::Restore => "They are open again, and are judged again.",
    };
    let warning = if act == Act::Archive && helpful > 0 {
        let (tone, ..) = verdict(Some("would_grant"));
        html![
            "<p class=\"note wait\">" [mark(tone, "a replay helps")] " " (count(helpful, "of them", "of them"))
            ": a payment can be without its credits. "
            [button_to(&selection.at("/replay", &[]), "Replay instead…", true)] "</p>"
        ]
    } else {
        html![]
    };
    html![
        "<section class=\"card\"><p class=\"big\" id=\"says\">" (count(letters, "letter", "letters")) "</p><p>" (means)
        "</p>" [warning] "</section>"
    ]
}

fn form(operator: &Operator, act: Act, filter: &LetterFilter, letters: i64) -> Html {
    if letters == 0 {
        return html!["<p>None of them is " (act.from().name()) ".</p>"];
    }
    let most = i64::try_from(LETTERS_MAX).unwrap_or(i64::MAX);
    let cut = if letters > most {
        html![
            "<p class=\"note wait\">At most " (count(most, "letter", "letters"))
            " at a time: do it again for the others.</p>"
        ]
    } else {
        html![]
    };
    html![
        "<section class=\"card\">" [cut] "<form method=\"post\" action=\"" (act.path()) "\" class=\"stack\">"
        [operator.form_token()] [field(filter)]
        [reason_field("reason", "Why? It goes to the audit log, and is shown at each letter.")]
        "<p><button id=\"do\">" (act.verb()) " " (count(letters.min(most), "letter", "letters"))
        "</button></p></form></section>"
    ]
}

/// `POST /archive`.
pub(super) async fn archive(
    app: State<App>,
    operator: Extension<Operator>,
    request: Request,
) -> Result<Response, Sorry> {
    act(&app, &operator, Act::Archive, request).await
}

/// `POST /restore`.
pub(super) async fn restore(
    app: State<App>,
    operator: Extension<Operator>,
    request: Request,
) -> Result<Response, Sorry> {
    act(&app, &operator, Act::Restore, request).await
}

async fn act(app: &App, operator: &Operator, act: Act, request: Request) -> Result<Response, Sorry> {
    let form = operator.read_form(request).await?;
    let reason = read_reason(&form)?;
    let filter = match form.get("of_act") {
        Some(line) => letters_of_act(app, line).await?,
        None => Selection::of_field(&form)?,
    };
    form.check(&["form_token", "selection", "of_act", "reason"])?;
    match act_now(app, operator, act, filter, reason).await? {
        Some((_, line)) => Ok(see(&format!("/audit/{line}"))),
        None => {
            Err(Problem::conflict(format!("none of these letters is {} any more: nothing was done", act.from().name()))
                .into())
        }
    }
}

/// The letters that an act of the audit log was about: too many for a form.
async fn letters_of_act(app: &App, line: &str) -> Result<LetterFilter, Sorry> {
    let unknown = || Problem::bad_request("the form does not say which letters are meant");
    let id = Some(line.parse().map_err(|_| unknown())?);
    let line = app.store().audit_log(AuditFilter { id, ..AuditFilter::default() }, 1).await?.pop();
    Ok(line.as_ref().and_then(selection_of).ok_or_else(unknown)?)
}

/// What an act was about, as the audit log has it.
pub(super) fn selection_of(line: &AuditLine) -> Option<LetterFilter> {
    let selection = line.after.as_ref()?.get("selection")?;
    serde_json::from_value(selection.clone()).ok()
}

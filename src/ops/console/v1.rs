//! The console as JSON, for programs: by bearer token alone. `contract/openapi-ops.json` tells the same.

use super::App;
use super::access::Operator;
use super::amend::{amend_now, check_reason_of};
use super::explain;
use super::layout::Sorry;
use super::letter;
use super::replays::{self, PER_S_DEFAULT, REPLAYS_LISTED, Wish, begin_now};
use super::selection::{IDS_MAX, Selection, cursor};
use super::settle::{Act, act_now, check_reason};
use super::v1_orders;
use crate::domain::LetterId;
use crate::http::{Parameters, Problem, read_json};
use crate::ops::amending::{self, Line};
use crate::ops::prospects::preview as look;
use crate::store::{LetterFilter, LetterRow};
use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, Request, State};
use axum::http::header::{CACHE_CONTROL, LOCATION};
use axum::http::{HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get, post};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// Longest body of a request, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// How long it may take to come.
pub(super) const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// Letters on a page, where nothing else is said; and at most.
const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 500;

pub(super) type Answer = Result<Response, Problem>;

impl From<Sorry> for Problem {
    fn from(sorry: Sorry) -> Self {
        sorry.into_problem()
    }
}

/// Paths and what answers there.
pub(super) fn routes() -> [(&'static str, MethodRouter<App>); 23] {
    [
        ("/v1/dead-letters", get(letters)),
        ("/v1/dead-letters/groups", get(groups)),
        ("/v1/dead-letters/orders", get(v1_orders::list)),
        ("/v1/dead-letters/queue", post(v1_orders::queue)),
        ("/v1/dead-letters/preview", post(preview)),
        ("/v1/dead-letters/replay", post(replay)),
        ("/v1/dead-letters/amend", post(amend)),
        ("/v1/dead-letters/amend/preview", post(amend_preview)),
        ("/v1/dead-letters/archive", post(archive)),
        ("/v1/dead-letters/restore", post(restore)),
        ("/v1/dead-letters/{id}", get(letter_whole)),
        ("/v1/replays", get(replays_listed)),
        ("/v1/replays/{id}", get(replay_read)),
        ("/v1/replays/{id}/cancel", post(cancel)),
        ("/openapi.json", get(openapi)),
        ("/v1/explain/{*id}", get(story)),
        ("/v1/orders/{id}", get(v1_orders::one)),
        ("/v1/orders/{id}/check", post(v1_orders::check_order)),
        ("/v1/orders/{id}/amend/preview", post(v1_orders::amend_preview)),
        ("/v1/orders/{id}/amend", post(v1_orders::amend)),
        ("/v1/payments/check", post(v1_orders::check_payment)),
        ("/v1/accounts/forget/preview", post(v1_orders::forget_preview)),
        ("/v1/accounts/forget", post(v1_orders::forget)),
    ]
}

/// An answer that nobody keeps.
pub(super) fn json_of(status: StatusCode, body: impl Serialize) -> Answer {
    Ok((status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response())
}

async fn openapi() -> Response {
    let headers = [("content-type", "application/json"), ("cache-control", "no-cache")];
    (headers, include_str!("../../../contract/openapi-ops.json")).into_response()
}

/// Takes `limit` from what the filter's parameters are read from.
pub(super) fn selection(app: &App, uri: &Uri) -> Result<(Selection, u32), Problem> {
    let mut parameters = Parameters::of(uri);
    let limit = parameters.number("limit", 1..=i64::from(LIMIT_MAX)).and_then(|limit| u32::try_from(limit).ok());
    Ok((Selection::of_call(parameters, app.now())?, limit.unwrap_or(LIMIT_DEFAULT)))
}

async fn letters(State(app): State<App>, uri: Uri) -> Answer {
    let (selection, limit) = selection(&app, &uri)?;
    let page = app.store().letters(selection.filter, selection.after, limit).await.map_err(Sorry::from)?;
    let letters: Vec<LetterRow> = page.letters;
    json_of(StatusCode::OK, json!({ "letters": letters, "next": page.next.map(cursor) }))
}

async fn groups(State(app): State<App>, uri: Uri) -> Answer {
    let (selection, _) = selection(&app, &uri)?;
    let groups = app.store().letter_groups(selection.filter).await.map_err(Sorry::from)?;
    json_of(StatusCode::OK, json!({ "groups": groups }))
}

async fn letter_whole(State(app): State<App>, path: Result<Path<String>, PathRejection>) -> Answer {
    let letter = letter::read(&app, path).await?;
    let text = letter.body.as_deref().and_then(|body| std::str::from_utf8(body).ok()).map(str::to_owned);
    let base64 = letter.body.as_deref().filter(|_| text.is_none()).map(|body| BASE64_STANDARD.encode(body));
    let mut body = serde_json::to_value(&letter).map_err(|_| Problem::internal())?;
    if let Value::Object(fields) = &mut body {
        fields.insert("body_text".to_owned(), json!(text));
        fields.insert("body_base64".to_owned(), json!(base64));
    }
    json_of(StatusCode::OK, body)
}

/// Which letters, in a call's body: these, or all that a filter finds. One of them must be said; `{}` is all that are
/// open.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    ids: Option<Vec<Uuid>>,
    filter: Option<LetterFilter>,
}

impl Which {
    fn filter(self) -> Result<LetterFilter, Problem> {
        let refused = |field: &str, detail: String| {
            Err(Problem::unprocessable("fields are not as they must be")
                .of_kind("invalid_fields", "Invalid fields")
                .with_field(field, detail))
        };
        match (self.ids, self.filter) {
            (Some(ids), None) if ids.is_empty() || ids.len() > IDS_MAX => {
                refused("ids", format!("must be 1 to {IDS_MAX} ids"))
            }
            (Some(ids), None) => Ok(LetterFilter::of_ids(ids.into_iter().map(LetterId))),
            (None, Some(filter)) => Ok(filter),
            (Some(_), Some(_)) | (None, None) => refused("filter", "either ids or filter must be given".to_owned()),
        }
    }
}

async fn preview(State(app): State<App>, request: Request) -> Answer {
    let filter = read_json::<Which>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?.filter()?;
    let preview = look(app.store(), &app.console.terms, filter, app.now()).await.map_err(Sorry::from)?;
    let by_verdict: serde_json::Map<String, Value> =
        preview.by_verdict.iter().map(|(name, letters)| ((*name).to_owned(), json!(letters))).collect();
    let examples: Vec<Value> = preview
        .examples
        .iter()
        .map(|(id, outlook)| json!({ "id": id, "verdict": outlook.name(), "detail": outlook.to_string() }))
        .collect();
    json_of(
        StatusCode::OK,
        json!({
            "letters": replays::looked_at(&preview),
            "helpful": preview.helpful.len(),
            "by_verdict": by_verdict,
            "credits": preview.credits,
            "examples": examples,
            "is_cut": preview.is_cut,
        }),
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplayCall {
    ids: Option<Vec<Uuid>>,
    filter: Option<LetterFilter>,
    reason: String,
    per_s: Option<u16>,
    canary: Option<bool>,
    include_hopeless: Option<bool>,
}

async fn replay(State(app): State<App>, Extension(operator): Extension<Operator>, request: Request) -> Answer {
    let call = read_json::<ReplayCall>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let per_s = call.per_s.unwrap_or(PER_S_DEFAULT);
    if !replays::PER_S.contains(&i64::from(per_s)) {
        let (low, high) = replays::PER_S.into_inner();
        return Err(Problem::unprocessable("fields are not as they must be")
            .of_kind("invalid_fields", "Invalid fields")
            .with_field("per_s", format!("must be {low} to {high}")));
    }
    let wish = Wish {
        filter: Which { ids: call.ids, filter: call.filter }.filter()?,
        reason: check_reason(&call.reason)?,
        per_s,
        is_careful: call.canary.unwrap_or(true),
        includes_hopeless: call.include_hopeless.unwrap_or(false),
    };
    let Some(begun) = begin_now(&app, &operator, wish).await? else {
        let detail = "none of these letters is open and would do something: nothing was sent";
        return Err(Problem::conflict(detail).of_kind("nothing_to_replay", "Nothing to replay"));
    };
    let mut response = json_of(StatusCode::CREATED, json!({ "replay_id": begun.id, "letters": begun.letters }))?;
    // A number is made of header characters: this cannot fail.
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/replays/{}", begun.id)) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// The letters of a call about prices: those of one reason alone.
fn of_mismatches(which: Which) -> Result<LetterFilter, Problem> {
    let filter = which.filter()?;
    check_reason_of(&filter)?;
    Ok(filter)
}

async fn amend_preview(State(app): State<App>, request: Request) -> Answer {
    let filter = of_mismatches(read_json::<Which>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?)?;
    let proposals = amending::look(app.store(), &app.console.terms, filter, app.now()).await.map_err(Sorry::from)?;
    json_of(
        StatusCode::OK,
        json!({
            "would_amend": proposals.changes(),
            "stays": proposals.all.len() - proposals.changes(),
            "is_cut": proposals.is_cut,
            "seen": proposals.digest(),
            "orders": proposals.all.iter().map(Line::from).collect::<Vec<_>>(),
        }),
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AmendCall {
    ids: Option<Vec<Uuid>>,
    filter: Option<LetterFilter>,
    reason: String,
    /// Of the preview: other prices than those are not written.
    seen: Option<String>,
}

/// To none is no fault: the same call again amends 0.
async fn amend(State(app): State<App>, Extension(operator): Extension<Operator>, request: Request) -> Answer {
    let call = read_json::<AmendCall>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let filter = of_mismatches(Which { ids: call.ids, filter: call.filter })?;
    let reason = check_reason(&call.reason)?;
    let (proposals, done) = amend_now(&app, &operator, filter, call.seen.as_deref(), reason).await?;
    let amended = done.iter().filter(|done| done.is_done()).count();
    let stayed = proposals.all.iter().filter(|proposal| proposal.outcome.is_err()).map(Line::from);
    json_of(
        StatusCode::OK,
        json!({
            "amended": amended,
            "stays": proposals.all.len() - amended,
            "is_cut": proposals.is_cut,
            "orders": done.iter().map(Line::from).chain(stayed).collect::<Vec<_>>(),
        }),
    )
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ActCall {
    ids: Option<Vec<Uuid>>,
    filter: Option<LetterFilter>,
    reason: String,
}

async fn archive(app: State<App>, operator: Extension<Operator>, request: Request) -> Answer {
    act(&app, &operator, Act::Archive, request).await
}

async fn restore(app: State<App>, operator: Extension<Operator>, request: Request) -> Answer {
    act(&app, &operator, Act::Restore, request).await
}

/// To none is no fault: the same call again gives 0.
async fn act(app: &App, operator: &Operator, act: Act, request: Request) -> Answer {
    let call = read_json::<ActCall>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?;
    let (filter, reason) = (Which { ids: call.ids, filter: call.filter }.filter()?, check_reason(&call.reason)?);
    let (letters, line) = act_now(app, operator, act, filter, reason).await?.unzip();
    json_of(StatusCode::OK, json!({ "letters": letters.unwrap_or(0), "audit_id": line }))
}

async fn story(State(app): State<App>, path: Result<Path<String>, PathRejection>, uri: Uri) -> Answer {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    let story = explain::story_of(&app, &id, explain::How::of(&uri)?).await?;
    json_of(StatusCode::OK, story.ok_or_else(|| Problem::not_found("nothing is known by this id"))?)
}

async fn replays_listed(State(app): State<App>) -> Answer {
    let replays = app.store().replays(REPLAYS_LISTED).await.map_err(Sorry::from)?;
    json_of(StatusCode::OK, json!({ "replays": replays }))
}

async fn replay_read(State(app): State<App>, path: Result<Path<String>, PathRejection>) -> Answer {
    json_of(StatusCode::OK, replays::read(&app, path).await?)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CancelCall {
    reason: String,
}

/// `is_canceled`: whether this call ended it. It has ended in any case.
async fn cancel(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Answer {
    let replay = replays::read(&app, path).await?;
    let reason = check_reason(&read_json::<CancelCall>(request, BODY_BYTES_MAX, BODY_DEADLINE).await?.reason)?;
    let canceled = app.cancel(replay.id, operator.actor(), reason).await.map_err(Sorry::from)?;
    json_of(StatusCode::OK, json!({ "id": replay.id, "is_canceled": canceled }))
}

//! From any id to what is known by it.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry, story_address};
use super::letters::short_list;
use crate::domain::LetterId;
use crate::http::{Parameters, Problem, html, see};
use crate::store::LetterFilter;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

/// Letters that are listed.
const LETTERS: u32 = 20;

/// Longest id, in bytes.
const ID_BYTES_MAX: usize = 512;

/// `GET /explain?q=`.
pub(super) async fn search(State(app): State<App>, uri: Uri) -> Result<Response, Sorry> {
    let query = Parameters::of(&uri);
    let id = query.get("q").map(str::trim).unwrap_or_default().to_owned();
    query.check(&["q"])?;
    if id.is_empty() || id.len() > ID_BYTES_MAX {
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

/// `GET /explain/{id}`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: Result<Path<String>, PathRejection>,
) -> Result<Response, Sorry> {
    let id = path.map(|Path(id)| id).unwrap_or_default();
    let states = crate::domain::LetterState::ALL.map(|state| state.name().to_owned()).to_vec();
    let filter = LetterFilter { text: Some(id.clone()), states, ..LetterFilter::default() };
    let letters = app.store().letters(filter, None, LETTERS).await?;
    let main = html![
        "<h1>Everything known by <code>" (id) "</code></h1><section class=\"card\"><h2>Dead letters</h2>" [short_list(&letters.letters, app.now())] "</section>"
    ];
    Ok(Page { title: &id, part: Part::None, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

//! Balances and ledger entries. An account is any id that a site uses: an unknown account has 0 credits.

use super::App;
use super::answers::{json, store_failed};
use super::cursor;
use super::view::{BalanceBody, EntriesBody, EntryBody};
use crate::domain::AccountId;
use crate::http::{Parameters, Problem};
use crate::store::ENTRIES_PAGE_MAX;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;

/// Entries in a page without a `limit`.
const ENTRIES_PAGE_DEFAULT: u32 = 100;

type AccountPath = Result<Path<String>, PathRejection>;

fn account(path: AccountPath) -> Result<AccountId, Problem> {
    let refused = |detail: String| {
        Problem::bad_request("the path holds no account id")
            .of_kind("invalid_parameters", "Invalid parameters")
            .with_field("id", detail)
    };
    let Path(id) = path.map_err(|_| refused("must be UTF-8".to_owned()))?;
    AccountId::new(id).map_err(|fault| refused(fault.to_string()))
}

/// Handles the request `GET /v1/accounts/{id}/balance`.
pub(super) async fn balance(
    State(app): State<App>,
    path: AccountPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    app.access.site(&headers)?;
    let account = account(path)?;
    Parameters::of(&uri).check(&[])?;
    let balance = app.store.balance(account.clone()).await.map_err(|error| store_failed(&error))?;
    Ok(json(StatusCode::OK, &BalanceBody { account_id: account.as_str(), credits: balance.credits }))
}

/// Handles `GET /v1/accounts/{id}/entries?after=&limit=`, oldest first.
pub(super) async fn entries(
    State(app): State<App>,
    path: AccountPath,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Problem> {
    app.access.site(&headers)?;
    let account = account(path)?;
    let mut parameters = Parameters::of(&uri);
    let limit = parameters.number("limit", 1..=i64::from(ENTRIES_PAGE_MAX)).and_then(|limit| u32::try_from(limit).ok());
    let after = parameters.get("after").map(cursor::read);
    if after == Some(None) {
        parameters.fault("after", "must be the `next` of an earlier answer".to_owned());
    }
    parameters.check(&["after", "limit"])?;

    let limit = limit.unwrap_or(ENTRIES_PAGE_DEFAULT);
    let page = app.store.entries(account, after.flatten(), limit).await.map_err(|error| store_failed(&error))?;
    // A full page may be the last one. Then the next one is empty.
    let is_full = u32::try_from(page.len()).is_ok_and(|count| count >= limit);
    let next = page.last().filter(|_| is_full).map(cursor::behind);
    Ok(json(StatusCode::OK, &EntriesBody { entries: page.iter().map(EntryBody::from).collect(), next }))
}

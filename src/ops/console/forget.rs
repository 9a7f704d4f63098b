//! Forgetting an account's buyers, as `grantonce forget` does: what would be emptied, then the act.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry, story_address, story_link};
use super::settle::{read_reason, reason_field};
use super::words::count;
use crate::domain::AccountId;
use crate::http::{Html, Parameters, Problem, html, see};
use crate::store::{Forgetting, Forgotten};
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

fn read_account(parameters: &Parameters) -> Result<AccountId, Problem> {
    AccountId::new(parameters.get("account").map(str::trim).unwrap_or_default()).map_err(|error| {
        Problem::bad_request("this does not say which account").with_field("account", error.to_string())
    })
}

/// Counts what would be emptied, or empties it. None: no order is of this account.
pub(super) async fn forget_now(
    app: &App,
    operator: &Operator,
    account: AccountId,
    reason: String,
    for_real: bool,
) -> Result<Option<Forgotten>, Sorry> {
    if !app.store().may_forget().await? {
        let detail = "this process may not forget accounts. Use `grantonce forget`, or grant the database user of ops \
                      EXECUTE on the function forget_account";
        return Err(Problem::new(StatusCode::FORBIDDEN, detail).into());
    }
    let forgetting = Forgetting { account, for_real, by: operator.actor(), reason, now: app.now() };
    Ok(app.store().forget_account(forgetting).await?)
}

/// `GET /forget?account=`: what would be emptied. Nothing is changed.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let query = Parameters::of(&uri);
    let account = read_account(&query)?;
    query.check(&["account"])?;
    let counts = forget_now(&app, &operator, account.clone(), String::new(), false).await?;
    let main = html![
        "<p class=\"dim\"><a href=\"" (story_address(account.as_str())) "\">Account <code>" (account)
        "</code></a> ›</p><h1>Forget an account’s buyers</h1>" [counted(counts)] [form(&operator, &account, counts)]
    ];
    let title = "Forget an account’s buyers";
    Ok(Page { title, part: Part::None, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

fn counted(counts: Option<Forgotten>) -> Html {
    let Some(counts) = counts else {
        return html!["<section class=\"card\"><p id=\"says\">No order is of this account.</p></section>"];
    };
    let left = match counts.letters_left {
        0 => html![],
        left => html![
            "<p class=\"note wait\"><b aria-hidden=\"true\">…</b> " (count(left, "dead letter is", "dead letters are"))
            " open and would keep their bodies, because a replay needs them. Replay or archive them first, then forget again.</p>"
        ],
    };
    html![
        "<section class=\"card\"><p class=\"big\" id=\"says\">This would empty the metadata of "
        (count(counts.orders, "order", "orders")) ", the payment secrets of "
        (count(counts.payment_attempts, "payment attempt", "payment attempts")) ", and bodies and headers of "
        (count(counts.letters, "dead letter", "dead letters"))
        ".</p><p>Orders, credits and the ledger stay, with the account’s id. It cannot be undone.</p>" [left] "</section>"
    ]
}

fn form(operator: &Operator, account: &AccountId, counts: Option<Forgotten>) -> Html {
    match counts {
        None => html![],
        Some(counts) if counts.rows() == 0 => {
            html!["<p>Nothing that could be emptied is left. See " [story_link(account.as_str())] ".</p>"]
        }
        Some(_) => html![
            "<section class=\"card\"><form method=\"post\" action=\"/forget\" class=\"stack\">" [operator.form_token()]
            "<input type=\"hidden\" name=\"account\" value=\"" {account} "\">"
            [reason_field("reason", "Why? It goes to the audit log. Name a ticket, not a person.")]
            "<p><button id=\"do\">Forget the account’s buyers</button></p></form></section>"
        ],
    }
}

/// `POST /forget`.
pub(super) async fn forget(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Result<Response, Sorry> {
    let form = operator.read_form(request).await?;
    let (account, reason) = (read_account(&form)?, read_reason(&form)?);
    form.check(&["form_token", "account", "reason"])?;
    let next = super::selection::address("/forget", [("account", account.as_str())]);
    match forget_now(&app, &operator, account, reason, true).await? {
        Some(_) => Ok(see(&next)),
        None => Err(Problem::not_found("no order is of this account").into()),
    }
}

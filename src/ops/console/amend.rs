//! Making orders cost what was paid: first what each order would cost, then the new prices, then the way to the replay.

use super::App;
use super::access::Operator;
use super::layout::{Page, Part, Sorry, button_to, story_link};
use super::replays::until_now;
use super::selection::{Selection, address_of, field};
use super::settle::{read_reason, reason_field};
use super::words::{count, mark, number, verdict};
use crate::domain::{Reason, Verdict};
use crate::http::{Html, Parameters, Problem, html, see};
use crate::ops::amending::{self, Change, Done, Proposal, Proposals, Wish};
use crate::store::LetterFilter;
use axum::extract::{Extension, Request, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;

/// Orders that are shown of each kind; further ones are counted.
const ORDERS_SHOWN: usize = 200;

/// Refuses a selection of letters that tell no price.
pub(super) fn check_reason_of(filter: &LetterFilter) -> Result<(), Problem> {
    let name = Reason::AmountMismatch.name();
    if filter.reason.as_deref().is_some_and(|reason| reason != name) {
        return Err(Problem::bad_request("only letters of reason amount_mismatch tell a price that was paid")
            .of_kind("invalid_parameters", "Invalid parameters")
            .with_field("reason", format!("must be {name} here, or be left out")));
    }
    Ok(())
}

/// Looks once more, and writes the new prices if they are those that were `seen`; none: whatever they are now.
pub(super) async fn amend_now(
    app: &App,
    operator: &Operator,
    filter: LetterFilter,
    seen: Option<&str>,
    reason: String,
) -> Result<(Proposals, Vec<Done>), Sorry> {
    let now = app.now();
    let terms = &app.console.terms;
    let proposals = amending::look(app.store(), terms, filter, now).await?;
    if seen.is_some_and(|seen| seen != proposals.digest()) {
        let detail = "these orders, or what they would cost, are not as you have seen them: nothing was changed. Look \
                      again";
        return Err(Problem::conflict(detail).of_kind("not_as_seen", "Not as it was seen").into());
    }
    let wish = Wish { by: operator.actor(), reason, dispute_policy: terms.dispute_policy, now };
    let done = amending::amend(app.store(), &proposals, &wish).await?;
    Ok((proposals, done))
}

/// `GET /amend`: what the orders would cost. Nothing is changed.
pub(super) async fn ask(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    uri: Uri,
) -> Result<Response, Sorry> {
    let now = app.now();
    let selection = Selection::of(Parameters::of(&uri), now)?;
    check_reason_of(&selection.filter)?;
    let filter = until_now(selection.filter.clone(), now);
    let proposals = amending::look(app.store(), &app.console.terms, filter.clone(), now).await?;
    let main = html![
        "<p class=\"dim\"><a href=\"" (selection.at("/dead-letters", &[])) "\">Dead letters</a> ›</p>"
        "<h1>Amend prices to what was paid</h1><p class=\"lead\">" [selection.in_words()] "</p>"
        [asked(&proposals)] [form(&proposals, &filter, &operator, &selection.at("/dead-letters", &[]))] [stays(&proposals)]
    ];
    let title = "Amend prices to what was paid";
    Ok(Page { title, part: Part::Letters, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn cut(proposals: &Proposals) -> Html {
    if !proposals.is_cut {
        return html![];
    }
    html![
        "<p class=\"note wait\"><b aria-hidden=\"true\">…</b> There are more letters than one look takes: these are of the "
        "oldest " (number(as_i64(amending::LETTERS_MAX))) ". Amend the others when these are replayed, or narrow the letters down.</p>"
    ]
}

/// What the orders would cost.
pub(super) fn asked(proposals: &Proposals) -> Html {
    if proposals.all.is_empty() {
        return html![
            "<section class=\"card\"><p id=\"says\">The filter finds no open letter of reason amount_mismatch.</p></section>"
        ];
    }
    let changes = proposals.changes();
    let rows = proposals.all.iter().filter_map(|proposal| match (&proposal.order, &proposal.outcome) {
        (Some((order, before)), Ok(Change { price, then })) => {
            let (tone, words, _) = verdict(Some(then.name()));
            Some(html![
                "<tr><td data-name=\"Order\">" [story_link(&order.to_string())] [letters(proposal)]
                "</td><td data-name=\"Costs now\">" {before.written()} "</td><td data-name=\"Would cost\"><b>" {price.written()}
                "</b></td><td data-name=\"A replay then\">" [mark(tone, words)] " <span class=\"dim\">" {follows(then)}
                "</span></td></tr>"
            ])
        }
        (Some(_) | None, _) => None,
    });
    let table = html![
        "<table class=\"wide\"><thead><tr><th scope=\"col\">Order</th><th scope=\"col\">Costs now</th><th "
        "scope=\"col\">Would cost</th><th scope=\"col\">A replay then</th></tr></thead><tbody id=\"changes\">"
        [Html::all(rows.take(ORDERS_SHOWN))] "</tbody></table>" [more(changes)]
    ];
    let table = if changes == 0 { html![] } else { table };
    let stay = match as_i64(proposals.all.len() - changes) {
        0 => html![],
        stay => html!["; "(count(stay, "stays as it is", "stay as they are"))],
    };
    html![
        "<section class=\"card\" aria-labelledby=\"would\"><h2 id=\"would\">What the orders would cost</h2>"
        "<p class=\"big\" id=\"says\">" (count(as_i64(changes), "order", "orders")) " would cost what was paid" [stay] ".</p>"
        "<p>The new price is what the messages say was paid, by the order’s <code>price_terms</code>. Compare it with what "
        "the buyers owe: a buyer who paid too little gets all credits for it.</p>" [cut(proposals)] [table] "</section>"
    ]
}

/// What a replay would bring, beside the verdict's name and the order.
fn follows(then: &Verdict) -> String {
    match then {
        Verdict::WouldGrant { account_id, credits, .. } => format!("{credits} credits to {account_id}"),
        Verdict::WouldAdjust { .. }
        | Verdict::WouldChange { .. }
        | Verdict::WouldAsk { .. }
        | Verdict::OrderUnknown { .. }
        | Verdict::OrderUnreadable { .. }
        | Verdict::WouldBeRefused(_)
        | Verdict::AlreadyApplied { .. }
        | Verdict::NothingToDo { .. } => then.to_string(),
    }
}

fn letters(proposal: &Proposal) -> Html {
    let Some(first) = proposal.letters.first() else { return html![] };
    let more = match proposal.letters.len() {
        0 | 1 => html![],
        many => html![" and " (number(as_i64(many - 1))) " more"],
    };
    html!["<div class=\"dim\"><a href=\"/dead-letters/" (first) "\">its letter</a>" [more] "</div>"]
}

fn more(all: usize) -> Html {
    match all.saturating_sub(ORDERS_SHOWN) {
        0 => html![],
        more => html!["<p class=\"dim\">And " (count(as_i64(more), "more order", "more orders")) ".</p>"],
    }
}

/// The orders that keep their price, and why.
pub(super) fn stays(proposals: &Proposals) -> Html {
    let stays: Vec<_> = proposals.all.iter().filter(|proposal| proposal.outcome.is_err()).collect();
    if stays.is_empty() {
        return html![];
    }
    let rows = Html::all(stays.iter().take(ORDERS_SHOWN).map(|proposal| {
        let order = proposal.order.map(|(id, _)| story_link(&id.to_string())).unwrap_or_default();
        let costs = proposal.order.map(|(_, before)| html![{ before.written() }]).unwrap_or_default();
        let why = proposal.outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
        html![
            "<tr><td data-name=\"Order\">" [order] [letters(proposal)] "</td><td data-name=\"Costs\">" [costs]
            "</td><td data-name=\"Why\">" (why) "</td></tr>"
        ]
    }));
    html![
        "<section class=\"card\" aria-labelledby=\"stay\"><h2 id=\"stay\">These stay as they are</h2><table "
        "class=\"wide\"><thead><tr><th scope=\"col\">Order</th><th scope=\"col\">Costs</th><th scope=\"col\">Why</th></tr>"
        "</thead><tbody id=\"stays\">" [rows] "</tbody></table>" [more(stays.len())] "</section>"
    ]
}

/// The form that writes the new prices; where there is nothing to write, the way `back`.
pub(super) fn form(proposals: &Proposals, filter: &LetterFilter, operator: &Operator, back: &str) -> Html {
    let changes = proposals.changes();
    if changes == 0 {
        return html!["<p>" [button_to(back, "Back to the letters", true)] "</p>"];
    }
    html![
        "<section class=\"card\"><h2>Amend</h2><p>An amendment grants nothing. The next page replays these letters. A new price "
        "cannot be taken back after the replay.</p>"
        "<form method=\"post\" action=\"/amend\" class=\"stack\">" [operator.form_token()] [field(filter)]
        "<input type=\"hidden\" name=\"seen\" value=\"" {proposals.digest()} "\">"
        [reason_field("reason", "Why does the buyer owe no more? The audit log gets a line for each order.")]
        "<p><button id=\"do\">Amend " (count(as_i64(changes), "order", "orders")) "</button></p></form></section>"
    ]
}

/// `POST /amend`.
pub(super) async fn amend(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    request: Request,
) -> Result<Response, Sorry> {
    let form = operator.read_form(request).await?;
    let filter = Selection::of_field(&form)?;
    check_reason_of(&filter)?;
    let reason = read_reason(&form)?;
    let unseen = || Problem::bad_request("the form does not say which prices were seen");
    let seen = form.get("seen").map(str::to_owned).ok_or_else(unseen)?;
    form.check(&["form_token", "selection", "seen", "reason"])?;
    let next = LetterFilter { reason: Some(Reason::AmountMismatch.name().to_owned()), ..filter.clone() };
    let next = address_of("/replay", &next);
    let (_, done) = amend_now(&app, &operator, filter, Some(&seen), reason).await?;
    if done.is_empty() {
        return Err(
            Problem::conflict("none of these orders would get another price any more: nothing was changed").into()
        );
    }
    // All as it was seen: on to the replay.
    if done.iter().all(Done::is_done) {
        return Ok(see(&next));
    }
    let amended = done.iter().filter(|done| done.is_done()).count();
    let rows = Html::all(
        done.iter()
            .filter(|done| !done.is_done())
            .take(ORDERS_SHOWN)
            .map(|done| html!["<li>" [story_link(&done.order_id.to_string())] " " {done.in_words()} "</li>"]),
    );
    let main = html![
        "<h1>Amend prices to what was paid</h1><section class=\"card\"><p class=\"big\" id=\"says\">"
        (count(as_i64(amended), "order costs", "orders cost")) " what was paid; "
        (number(as_i64(done.len() - amended))) " could not be amended, because they were changed at the same time.</p><ul "
        "class=\"plain\">" [rows] "</ul><p>" [button_to(&next, "Replay the letters…", false)] "</p></section>"
    ];
    let title = "Amend prices to what was paid";
    Ok(Page { title, part: Part::Letters, every_s: None, main }.respond(&app, &operator, StatusCode::OK))
}

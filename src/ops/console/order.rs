//! One order as the unit of work: its money, its state, what mends it with the consequence first, and its letters.

use super::App;
use super::access::Operator;
use super::amend;
use super::layout::{CALM_EVERY_S, Page, Part, Sorry, button_to, story_address, story_link};
use super::orders::{self, address_of, check_address, difference, expected, letter_table, order_address, order_mark};
use super::replays::{self, until_now};
use super::selection::Selection;
use super::words::{count, step, when};
use crate::domain::{LetterId, LetterState, OrderId, PriceTerms};
use crate::http::{Html, Parameters, Problem, html};
use crate::ops::amending;
use crate::ops::prospects::preview;
use crate::ops::standing::{NextStep, Standing, stand};
use crate::store::{Askable, AskedAbout, AuditFilter, AuditLine, LetterFilter, OrderLetters};
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use time::OffsetDateTime;

/// Letters of one order that are listed and read, the newest first.
const LETTERS: u32 = 100;

/// Audit lines of one order that are shown.
const AUDIT_LINES: u16 = 20;

pub(super) type OrderPath = Result<Path<String>, PathRejection>;

/// The order of an address.
pub(super) fn read_id(path: OrderPath) -> Result<OrderId, Problem> {
    let unknown = || Problem::not_found("there is no such order");
    path.map(|Path(id)| id).unwrap_or_default().parse().map_err(|_| unknown())
}

/// How an order stands, with its letters in all states. The open ones are judged anew, which can resolve some.
pub(super) async fn standing_of(app: &App, id: OrderId, now: OffsetDateTime) -> Result<Standing, Sorry> {
    let about = LetterFilter { order_id: Some(id.0), ..LetterFilter::default() };
    preview(app.store(), &app.console.terms, about.clone(), now).await?;
    let states = LetterState::ALL.map(|state| state.name().to_owned()).to_vec();
    let page = app.store().letters(LetterFilter { states, ..about.clone() }, None, LETTERS).await?;
    let groups = app.store().letter_groups(about).await?;
    let ids: Vec<LetterId> = page.letters.iter().map(|letter| letter.id).collect();
    let newest = page.letters.first();
    let letters = i64::try_from(ids.len()).unwrap_or(i64::MAX).saturating_add(i64::from(page.next.is_some()));
    let askable = app.store().askable(AskedAbout::Order(id)).await?;
    let provider = askable.as_ref().map(|askable| askable.provider.as_str().to_owned());
    let payment = askable.as_ref().and_then(|askable| askable.payment_ids.first().map(ToString::to_string));
    let about = OrderLetters {
        order_id: Some(id),
        provider: provider.or(newest.map(|letter| letter.provider.clone())).unwrap_or_default(),
        provider_account: newest.map(|letter| letter.provider_account.clone()).unwrap_or_default(),
        payment_id: payment.or(newest.and_then(|letter| letter.payment_id.clone())),
        account_id: newest.and_then(|letter| letter.account_id.clone()),
        letters,
        helpful: groups.iter().map(|group| group.helpful).sum(),
        oldest_at: page.letters.last().map_or(now, |letter| letter.first_seen_at),
        newest_at: newest.map_or(now, |letter| letter.first_seen_at),
        ids,
    };
    let standing = stand(app.store(), &app.console.terms, vec![about], now).await?.pop();
    let standing = standing.ok_or_else(Problem::internal)?;
    if standing.order.order().is_none() && standing.letters.is_empty() && askable.is_none() {
        return Err(Problem::not_found("there is no such order, and no dead letter names it").into());
    }
    Ok(standing)
}

/// `GET /orders/{id}`.
pub(super) async fn show(
    State(app): State<App>,
    Extension(operator): Extension<Operator>,
    path: OrderPath,
) -> Result<Response, Sorry> {
    let id = read_id(path)?;
    let now = app.now();
    let standing = standing_of(&app, id, now).await?;
    let askable = app.store().askable(AskedAbout::Order(id)).await?;
    let filter = AuditFilter { subject: Some(id.to_string()), ..AuditFilter::default() };
    let acts = app.store().audit_log(filter, AUDIT_LINES).await?;
    let open = standing.letters.iter().filter(|letter| letter.state == LetterState::Open).count();
    let main = html![
        "<p class=\"dim\"><a href=\"/dead-letters\">Dead letters</a> ›</p><div id=\"order\" data-live>"
        [money(&standing, askable.as_ref(), now)] "</div>" [mend(&app, &operator, &standing, open, now).await?]
        [letters(&standing, now)] [audit(&acts, now)]
    ];
    let title = format!("Order {id}");
    Ok(Page { title: &title, part: Part::Letters, every_s: Some(CALM_EVERY_S), main }.respond(
        &app,
        &operator,
        StatusCode::OK,
    ))
}

fn money(standing: &Standing, askable: Option<&Askable>, now: OffsetDateTime) -> Html {
    let about = &standing.about;
    let id = about.order_id.map(|id| id.to_string()).unwrap_or_default();
    let figure = |name: &str, value: Html| html!["<div><dt>" (name) "</dt><dd>" [value] "</dd></div>"];
    let order = standing.order.order();
    let credits = order.map(|order| figure("Credits", html![(order.credits_posted) " of " (order.credits)]));
    let account = order.map(|order| order.account_id.as_str()).or(about.account_id.as_deref());
    let fact = |name: &str, value: Option<Html>| value.map(|value| figure(name, value)).unwrap_or_default();
    let terms = order.filter(|order| order.price_terms != PriceTerms::Total).map(|order| {
        html![
            "<p class=\"note\">The order has <code>price_terms</code> <b>" (order.price_terms.name())
            "</b>: a part of what was paid does not count towards the price. The amend page says what the price would be.</p>"
        ]
    });
    html![
        "<section class=\"card\"><h1>Order <code>" (id) "</code></h1><p>" [order_mark(standing)]
        "</p><dl class=\"figures\" id=\"money\">" [figure("Paid", orders::paid(&standing.paid))]
        [figure("Expected", html![(expected(&standing.order))])] [figure("Difference", html![(difference(standing))])]
        [credits.unwrap_or_default()] "</dl>" [terms.unwrap_or_default()] "<dl class=\"facts\">"
        [fact("Account", account.map(story_link))] [figure("Provider", html![(about.provider) " " (about.provider_account)])]
        [fact("Payment", about.payment_id.as_deref().map(story_link))]
        [fact("Asked at the provider", askable.map(|askable| asked(askable, now)))] "</dl><p><a href=\"" (story_address(&id))
        "\">The order’s whole story</a></p></section>"
    ]
}

/// When the provider was asked, and what it said.
pub(super) fn asked(askable: &Askable, now: OffsetDateTime) -> Html {
    let Some(look) = askable.look else { return html!["never"] };
    let last = match (look.asked_at, look.last_answer) {
        (Some(at), Some(said)) => html![[when(at, now)] ": <b>" (said.name()) "</b>"],
        (Some(at), None) => html![[when(at, now)] ", without an answer"],
        (None, _) => html!["not yet"],
    };
    let next = match (look.is_wanted, look.due_at) {
        (true, _) => html![", will be asked now"],
        (false, Some(at)) => html![", next "[when(at, now)]],
        (false, None) => html![],
    };
    html![[last][next]]
}

/// What mends the order: what it would change, and the form that does it.
async fn mend(
    app: &App,
    operator: &Operator,
    standing: &Standing,
    open: usize,
    now: OffsetDateTime,
) -> Result<Html, Sorry> {
    let about = &standing.about;
    let (words, sentence) = step(standing.next);
    let address = address_of(about, "/orders", &[]);
    let uri = address.parse::<Uri>().map_err(|_| Problem::internal())?;
    let selection = Selection::of(Parameters::of(&uri), now)?;
    let filter = until_now(selection.filter.clone(), now);
    let form = match standing.next {
        NextStep::Replay => {
            let preview = preview(app.store(), &app.console.terms, filter.clone(), now).await?;
            html![
                [replays::prospects(&preview, &selection)]
                    [replays::begin_form(&preview, &filter, operator, &selection)]
            ]
        }
        NextStep::AmendPrice => {
            let proposals = amending::look(app.store(), &app.console.terms, filter.clone(), now).await?;
            let back = selection.at("/dead-letters", &[]);
            html![
                [amend::asked(&proposals)][amend::form(&proposals, &filter, operator, &back)][amend::stays(&proposals)]
            ]
        }
        NextStep::Wait
        | NextStep::AmendByHand
        | NextStep::MakeOrder
        | NextStep::CheckAtProvider
        | NextStep::MendRow
        | NextStep::ReadLetter
        | NextStep::None => html![],
    };
    let own = about.order_id.map(order_address).unwrap_or_default();
    let main = match standing.next {
        NextStep::AmendByHand => Some(format!("{own}/amend")),
        NextStep::CheckAtProvider => check_address(about),
        NextStep::Wait => Some("/replays".to_owned()),
        NextStep::MendRow | NextStep::ReadLetter => {
            let open = standing.letters.iter().find(|letter| letter.state == LetterState::Open);
            open.map(|letter| format!("/dead-letters/{}", letter.id))
        }
        NextStep::Replay | NextStep::AmendPrice | NextStep::MakeOrder | NextStep::None => None,
    };
    let main = main.map(|main| button_to(&main, words, false)).unwrap_or_default();
    let check = check_address(about).filter(|_| standing.next != NextStep::CheckAtProvider);
    let check = check.map(|check| button_to(&check, "Check at the provider…", true)).unwrap_or_default();
    let can_amend = standing.order.order().is_some_and(|order| !order.is_granted);
    let by_hand = match can_amend && standing.next != NextStep::AmendByHand {
        true => button_to(&format!("{own}/amend"), "Set another price…", true),
        false => html![],
    };
    let archive = match open {
        0 => html![],
        _ => button_to(&address_of(about, "/archive", &[]), "Archive its letters…", true),
    };
    Ok(html![
        "<section class=\"card\" aria-labelledby=\"next\"><h2 id=\"next\">What to do</h2><p id=\"step\">" (sentence)
        "</p><p class=\"row\">" [main] [check] [by_hand] [archive] "</p></section>" [form]
    ])
}

fn letters(standing: &Standing, now: OffsetDateTime) -> Html {
    let shown = i64::try_from(standing.letters.len()).unwrap_or(i64::MAX);
    if shown == 0 {
        return html![
            "<section class=\"card\"><h2>Dead letters</h2><p>No dead letter is about this order.</p></section>"
        ];
    }
    let cut = match standing.about.letters > shown {
        true => html!["<p class=\"dim\">Older letters are not listed here.</p>"],
        false => html![],
    };
    html![
        "<section class=\"card\" aria-labelledby=\"letters\"><h2 id=\"letters\">"
        (count(shown, "dead letter", "dead letters")) " about this order</h2><form action=\"/replay\"><input type=\"hidden\" "
        "name=\"chosen\" value=\"1\">" [letter_table(&standing.letters, now)]
        "<p class=\"row\"><button class=\"quiet\">Replay chosen letters…</button><button class=\"quiet\" "
        "formaction=\"/archive\">Archive chosen letters…</button></p></form>" [cut] "</section>"
    ]
}

fn audit(acts: &[AuditLine], now: OffsetDateTime) -> Html {
    if acts.is_empty() {
        return html![];
    }
    let lines = Html::all(acts.iter().map(|act| {
        html![
            "<li>" [when(act.at, now)] "<div><b>" (act.actor) "</b>: <a href=\"/audit/" (act.id) "\">" (act.action)
            "</a>, “" (act.reason.as_deref().unwrap_or_default()) "”</div></li>"
        ]
    }));
    html!["<section class=\"card\"><h2>What operators did</h2><ol class=\"timeline\">" [lines] "</ol></section>"]
}

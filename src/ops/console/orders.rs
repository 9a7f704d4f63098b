//! The list that operators work from: orders with dead letters, and payments without an order. Each has its money, its state
//! and the action that mends it; its letters stand below it.

use super::layout::button_to;
use super::selection::{Selection, address, cursor};
use super::words::{Tone, age, count, mark, number, order_status, state, step, verdict};
use crate::domain::{Currency, LetterState, Money, Order, OrderId, Reason, can_be_asked};
use crate::http::{Html, html};
use crate::ops::standing::{KnownOrder, NextStep, Paid, Standing};
use crate::store::{LETTERS_GROUPED_MAX, LetterRow, OrderLetters, OrdersPage};
use time::OffsetDateTime;

/// The list, with what can be done to chosen letters and to all.
pub(super) fn list(
    selection: &Selection,
    page: &OrdersPage,
    standings: &[Standing],
    letters: i64,
    now: OffsetDateTime,
) -> Html {
    if standings.is_empty() {
        let words = match (selection.is_narrow(), selection.after.is_some()) {
            (_, true) => "There are no more.",
            (true, false) => "The filter finds no dead letter.",
            (false, false) => "No dead letters. Every message was applied.",
        };
        return html!["<section class=\"card\"><p id=\"none\">" [mark(Tone::Good, words)] "</p></section>"];
    }
    let rows = Html::all(standings.iter().map(|standing| order_rows(standing, now)));
    let first = selection.after.is_some().then(|| selection.at("/dead-letters", &[]));
    let first = first.map(|first| html!["<a href=\"" (first) "\">« Newest</a>"]).unwrap_or_default();
    let next = page.next.map(cursor).map(
        |next| html!["<a rel=\"next\" href=\"" (selection.at("/dead-letters", &[("after", &next)])) "\">Older »</a>"],
    );
    html![
        "<section class=\"card\" aria-labelledby=\"orders\"><h2 id=\"orders\">"
        (count(page.orders_left, "order or payment", "orders and payments")) ", the newest letter first</h2>"
        [cut(selection, page)] "<form action=\"/replay\"><input type=\"hidden\" name=\"chosen\" value=\"1\">"
        [of_many(selection, letters)]
        "<table class=\"wide orders\" id=\"rows\"><thead><tr><th scope=\"col\"><input type=\"checkbox\" data-all hidden "
        "aria-label=\"Choose all letters on this page\"> Order or payment</th><th scope=\"col\">Paid</th><th "
        "scope=\"col\">Expected</th><th scope=\"col\">Difference</th><th scope=\"col\">State</th><th scope=\"col\">What to "
        "do</th></tr></thead>" [rows] "</table></form><nav class=\"row\" aria-label=\"Pages\">" [first]
        [next.unwrap_or_default()] "</nav></section>"
    ]
}

/// Says that older letters are not grouped here, and leads to them.
fn cut(selection: &Selection, page: &OrdersPage) -> Html {
    let Some(since) = page.grouped_since else { return html![] };
    // A time that Postgres keeps can be written: this cannot fail.
    let before = since.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    html![
        "<p class=\"note wait\"><b aria-hidden=\"true\">…</b> The filter finds more than "
        (number(LETTERS_GROUPED_MAX.into())) " letters. This list has the orders of the newest ones. <a href=\""
        (selection.at("/dead-letters", &[("before", &before), ("age", "")])) "\">Show older letters</a></p>"
    ]
}

fn of_many(selection: &Selection, letters: i64) -> Html {
    // Only letters of this reason tell a price.
    let tells_prices = selection.get("reason") == Some(Reason::AmountMismatch.name());
    let (chosen, all) = match tells_prices {
        true => (
            html!["<button class=\"quiet\" formaction=\"/amend\">Amend chosen…</button>"],
            button_to(&selection.at("/amend", &[]), "Amend all…", true),
        ),
        false => Default::default(),
    };
    html![
        "<div class=\"row\"><button class=\"quiet\">Replay chosen letters…</button>" [chosen]
        "<button class=\"quiet\" formaction=\"/archive\">Archive chosen letters…</button><span>or all " (number(letters))
        " letters that the filter finds:</span> " [button_to(&selection.at("/replay", &[]), "Replay all…", true)] [all]
        [button_to(&selection.at("/archive", &[]), "Archive all…", true)] "</div>"
    ]
}

fn order_rows(standing: &Standing, now: OffsetDateTime) -> Html {
    let letters = Html::all(standing.letters.iter().map(|letter| letter_row(letter, now)));
    let more = standing.about.letters - i64::try_from(standing.letters.len()).unwrap_or(0);
    let more = if more > 0 {
        html![
            "<tr class=\"letter\"><td colspan=\"6\"><a href=\"" (page_of(&standing.about)) "\">"
            (count(more, "older letter", "older letters")) "</a></td></tr>"
        ]
    } else {
        html![]
    };
    html![
        "<tbody><tr class=\"order\"><th scope=\"rowgroup\">" [name(standing)] "</th><td class=\"many\" data-name=\"Paid\">"
        [paid(&standing.paid)] "</td><td class=\"many\" data-name=\"Expected\">" (expected(&standing.order))
        "</td><td class=\"many\" data-name=\"Difference\">" (difference(standing)) "</td><td data-name=\"State\">"
        [order_mark(standing)] "</td><td class=\"acts\">" [acts(standing)] "</td></tr>" [letters] [more] "</tbody>"
    ]
}

/// The order's or the payment's name, with the way to its page.
fn name(standing: &Standing) -> Html {
    let about = &standing.about;
    let of_account = about.account_id.as_ref().map(|id| html![" · account "(id)]).unwrap_or_default();
    let payment = about.payment_id.as_deref().unwrap_or("no payment");
    match (about.order_id, &about.payment_id) {
        (Some(order), _) => html![
            "<a href=\"" (order_address(order)) "\">Order <code>" (order) "</code></a><div class=\"dim\">" (about.provider)
            " <code>" (payment) "</code>" [of_account] "</div>"
        ],
        (None, Some(payment)) => html![
            "<a href=\"" (page_of(about)) "\">Payment <code>" (payment) "</code></a><div class=\"dim\">" (about.provider)
            " " (about.provider_account) "</div>"
        ],
        (None, None) => html![
            "<a href=\"" (page_of(about)) "\">Unreadable message</a><div class=\"dim\">" (about.provider) "</div>"
        ],
    }
}

/// The order's page.
pub(super) fn order_address(order: OrderId) -> String {
    format!("/orders/{order}")
}

/// The page that has all letters of an order, a payment or one letter.
fn page_of(about: &OrderLetters) -> String {
    match (about.order_id, about.ids.first(), &about.payment_id) {
        (Some(order), _, _) => order_address(order),
        (None, Some(letter), None) => format!("/dead-letters/{letter}"),
        (None, _, _) => address_of(about, "/dead-letters", &[("state", "any")]),
    }
}

/// The address of a page about all open letters of an order, a payment or one letter.
pub(super) fn address_of(about: &OrderLetters, path: &str, more: &[(&str, &str)]) -> String {
    let mut parameters = vec![];
    match (about.order_id, &about.payment_id, about.ids.first()) {
        (Some(order), _, _) => parameters.push(("order", order.to_string())),
        (None, Some(payment), _) => {
            parameters.push(("payment", payment.clone()));
            if !about.provider.is_empty() {
                parameters.push(("provider", about.provider.clone()));
            }
        }
        (None, None, Some(letter)) => parameters.push(("id", letter.to_string())),
        (None, None, None) => {}
    }
    let own = parameters.iter().map(|(name, value)| (*name, value.as_str()));
    address(path, own.chain(more.iter().copied()))
}

/// The page on which the provider is asked.
pub(super) fn check_address(about: &OrderLetters) -> Option<String> {
    if !can_be_asked(&about.provider) {
        return None;
    }
    match (about.order_id, &about.payment_id) {
        (Some(order), _) => Some(address("/check", [("order", order.to_string().as_str())])),
        (None, Some(payment)) => {
            let all = [
                ("provider", about.provider.as_str()),
                ("provider_account", &about.provider_account),
                ("payment", payment),
            ];
            Some(address("/check", all.into_iter().filter(|(_, value)| !value.is_empty())))
        }
        (None, None) => None,
    }
}

/// What was paid, each currency by itself.
pub(super) fn paid(paid: &Paid) -> Html {
    let least = if paid.is_at_least { html!["<span class=\"dim\">at least</span> "] } else { html![] };
    if paid.amounts.is_empty() {
        return html!["<span class=\"dim\">not known</span>"];
    }
    html![
        [least][Html::all(paid.amounts.iter().enumerate().map(|(at, money)| html![(if at == 0 {
            ""
        } else {
            " and "
        })(money.written())]))]
    ]
}

/// What the order costs.
pub(super) fn expected(order: &KnownOrder) -> String {
    order.order().map_or("no order".to_owned(), |order| order.price.written())
}

/// Paid less expected, with its sign.
pub(super) fn difference(standing: &Standing) -> String {
    let order = standing.order.order();
    let difference = order.and_then(|order| Some((standing.paid.difference_minor(order)?, order.price.currency())));
    match difference {
        Some((0, _)) => "none".to_owned(),
        Some((minor, currency)) => signed(minor, currency),
        None => "–".to_owned(),
    }
}

fn signed(minor: i64, currency: Currency) -> String {
    let amount = i64::try_from(minor.unsigned_abs()).ok().and_then(|minor| Money::new(minor, currency).ok());
    let amount = amount.map_or_else(|| format!("{} {currency}", minor.unsigned_abs()), Money::written);
    format!("{}{amount}", if minor < 0 { "−" } else { "+" })
}

/// How the order stands, with a warning where money came in and no credits went out.
pub(super) fn order_mark(standing: &Standing) -> Html {
    match &standing.order {
        KnownOrder::None => mark(Tone::Wait, "no order"),
        KnownOrder::Missing => mark(Tone::Bad, "order does not exist"),
        KnownOrder::Unreadable(_) => mark(Tone::Bad, "order cannot be read"),
        KnownOrder::Read(order) if is_paid_without_credits(order, &standing.paid) => {
            html![[mark(Tone::Bad, "paid, no credits")] "<div class=\"dim\">" (order_status(order.status).1) "</div>"]
        }
        KnownOrder::Read(order) => {
            let (tone, words) = order_status(order.status);
            mark(tone, words)
        }
    }
}

fn is_paid_without_credits(order: &Order, paid: &Paid) -> bool {
    !order.is_granted && paid.amounts.iter().any(|money| money.amount_minor() > 0)
}

/// What can be done about it: the action that mends it first.
fn acts(standing: &Standing) -> Html {
    let about = &standing.about;
    let (words, _) = step(standing.next);
    let main = match standing.next {
        NextStep::Replay => Some(address_of(about, "/replay", &[])),
        NextStep::AmendPrice => Some(address_of(about, "/amend", &[])),
        NextStep::AmendByHand => about.order_id.map(|order| format!("{}/amend", order_address(order))),
        NextStep::CheckAtProvider => check_address(about),
        NextStep::ReadLetter | NextStep::MendRow => {
            standing.letters.first().map(|letter| format!("/dead-letters/{}", letter.id))
        }
        NextStep::Wait => Some("/replays".to_owned()),
        NextStep::MakeOrder | NextStep::None => None,
    };
    let main = match main {
        Some(main) => button_to(&main, words, false),
        None => html!["<span>" (words) "</span>"],
    };
    let check = check_address(about).filter(|_| standing.next != NextStep::CheckAtProvider);
    let check = check.map(|check| html!["<a href=\"" (check) "\">Check at the provider…</a> "]).unwrap_or_default();
    let is_open = standing.letters.iter().any(|letter| letter.state == LetterState::Open);
    let archive =
        if is_open { html!["<a href=\"" (address_of(about, "/archive", &[])) "\">Archive…</a>"] } else { html![] };
    html![[main] "<div class=\"more\">" [check] [archive] "</div>"]
}

fn letter_row(letter: &LetterRow, now: OffsetDateTime) -> Html {
    let said = letter.said.as_deref().unwrap_or(if letter.kind.is_empty() { "unreadable" } else { &letter.kind });
    let (tone, words, _) = verdict(letter.verdict.as_deref());
    let (state_tone, state_words) = state(letter.state);
    let state = match letter.state {
        LetterState::Open => html![],
        LetterState::Replaying | LetterState::Resolved | LetterState::Archived => {
            html![[mark(state_tone, state_words)] " "]
        }
    };
    let seen = if letter.seen > 1 { html![", came " (letter.seen) " times"] } else { html![] };
    let replayed = match letter.replays {
        0 => html![],
        times => html![", replayed " (times) "×"],
    };
    html![
        "<tr class=\"letter\"><td colspan=\"6\"><span class=\"line\"><input type=\"checkbox\" name=\"id\" value=\"" (letter.id)
        "\" aria-label=\"Choose the letter " (letter.id) "\"><span><a href=\"/dead-letters/" (letter.id) "\">" (said)
        "</a> <span class=\"reason\">" (letter.reason) "</span> " [state] [mark(tone, words)] " <span class=\"dim\">"
        [age(letter.first_seen_at, now)] [seen] [replayed] "</span><span class=\"dim clip\">" (letter.detail)
        "</span></span></span></td></tr>"
    ]
}

/// The letters of one order, each with its checkbox.
pub(super) fn letter_table(letters: &[LetterRow], now: OffsetDateTime) -> Html {
    html![
        "<table class=\"wide orders\" id=\"rows\"><tbody>" [Html::all(letters.iter().map(|letter| letter_row(letter, now)))]
        "</tbody></table>"
    ]
}

//! The first page: what needs an operator, with the link to begin with.

use super::access::Operator;
use super::advice::advice;
use super::layout::{CALM_EVERY_S, Page, Part, Sorry, button_to, story_link};
use super::words::{Tone, age, ago, count, mark, number};
use super::{App, QueueDepths, charts, replays};
use crate::broker::{Depth, Depths};
use crate::domain::{Currency, Money, Separated};
use crate::http::{Html, Missing, html};
use crate::store::{LetterFilter, LetterGroup, OpenLetters, OverpaidOrder};
use axum::extract::{Extension, State};
use axum::http::StatusCode;
use axum::response::Response;
use std::collections::BTreeMap;
use time::{Duration, OffsetDateTime};

/// Figures that are older say nothing about the present.
const QUEUES_STALE: Duration = Duration::minutes(2);

/// Messages that had to wait are shown for this time.
const WAITING_LATELY: Duration = Duration::minutes(2);

/// From so many waiting messages on, the page says so.
const MANY_READY: u32 = 10_000;

/// Overpaid orders that are listed, the oldest first.
const OVERPAID_SHOWN: u16 = 20;

/// `GET /`.
pub(super) async fn show(State(app): State<App>, Extension(operator): Extension<Operator>) -> Result<Response, Sorry> {
    let now = app.now();
    let open = app.store().open_letters(now).await?;
    let groups = app.store().letter_groups(LetterFilter::default()).await?;
    let waiting = app.store().waiting_messages(now - WAITING_LATELY).await?;
    let overpaid = app.store().overpaid_orders(OVERPAID_SHOWN).await?;
    let activity = app.store().activity(now - charts::SPAN).await?;
    let under_way = app.store().replays_under_way().await?;
    let queues = *app.console.queues.borrow();
    let queues = queues.filter(|queues| now - queues.at < QUEUES_STALE);
    let busy = if under_way.is_empty() {
        html![]
    } else {
        html!["<section><h2>Replays under way</h2>" [replays::table(&under_way, now)] "</section>"]
    };
    let main = html![
        "<h1 class=\"unseen\">Health</h1><div id=\"health\" data-live class=\"stack\">"
        [needs(&open, &groups, &waiting, queues, &app.console.readiness.details(), now)]
        [self::overpaid(&overpaid, &open, now)]
        [charts::section(&activity, now)] [letters(&groups, now)] [self::queues(queues, now)] [busy] "</div>"
    ];
    Ok(Page { title: "Health", part: Part::Health, every_s: Some(CALM_EVERY_S), main }.respond(
        &app,
        &operator,
        StatusCode::OK,
    ))
}

/// What needs an operator, the worst first, each with the way to begin.
fn needs(
    open: &OpenLetters,
    groups: &[LetterGroup],
    waiting: &[(Separated, i64)],
    queues: Option<QueueDepths>,
    missing: &[Missing],
    now: OffsetDateTime,
) -> Html {
    let letters: i64 = groups.iter().map(|group| group.letters).sum();
    let helpful: i64 = groups.iter().map(|group| group.helpful).sum();
    let mut needs = vec![];
    if open.grants_missing > 0 {
        needs.push((
            Tone::Bad,
            html![(count(open.grants_missing, "order is", "orders are")) " paid and without credits."],
            html![
                "<span class=\"dim\">The dead letters say why. If none does, run <code>grantonce verify</code>.</span>"
            ],
        ));
    }
    if open.overpaid_orders > 0 {
        needs.push((
            Tone::Bad,
            html![(count(open.overpaid_orders, "order is", "orders are")) " paid twice, or too much."],
            button_to("#overpaid", "Show them", false),
        ));
    }
    for (cause, messages) in waiting {
        needs.push((
            Tone::Wait,
            html![(count(*messages, "message waits", "messages wait")) ", the other messages do not: " (cause.words()) "."],
            html!["<span class=\"dim\">The runbook says what to do about <code>" (cause.name()) "</code>.</span>"],
        ));
    }
    for missing in missing {
        let words = html!["This process is not ready. " (missing.sentence()) "."];
        let way = html!["<span class=\"dim\">It lacks <code>" (missing.need) "</code>, and continues by itself when it has it.</span>"];
        needs.push((Tone::Bad, words, way));
    }
    if let Some(queues) = queues {
        let Depth { ready, consumers } = queues.depths.fulfilment;
        if consumers == 0 {
            let words =
                html!["No worker takes messages, so nothing is granted now. " (number(ready.into())) " messages wait."];
            needs.push((Tone::Bad, words, html![
                "<span class=\"dim\">Check whether the workers run. Their <code>/readyz</code> says what they lack.</span>"
            ]));
        } else if ready > MANY_READY {
            let words = html![(number(ready.into())) " messages wait for the workers."];
            needs.push((
                Tone::Wait,
                words,
                html!["<span class=\"dim\">If the number does not fall, start more workers.</span>"],
            ));
        }
    }
    if let Some(oldest_at) = open.oldest_at {
        needs.push((
            Tone::Bad,
            html![
                (count(letters, "dead letter is", "dead letters are")) " open, the oldest since " [age(oldest_at, now)]
                "."
            ],
            button_to("/dead-letters", "Show the orders", false),
        ));
    }
    if helpful > 0 {
        let words = html!["A replay would help " (number(helpful)) " of them, as they were judged last."];
        needs.push((Tone::Wait, words, button_to("/replay", "What would it change?", true)));
    }
    if needs.is_empty() {
        return html![
            "<section class=\"card\" id=\"needs\"><p class=\"big\">" [mark(Tone::Good, "Nothing needs you")]
            "</p><p>No dead letters are open, no paid order is without its credits, and none is paid twice.</p></section>"
        ];
    }
    let items = Html::all(needs.into_iter().map(|(tone, words, way)| {
        html![
            "<li class=\"" (tone.class()) "\"><span><b aria-hidden=\"true\">" (tone.sign()) "</b> " [words] "</span> "
            [way] "</li>"
        ]
    }));
    html!["<section class=\"card\" id=\"needs\"><h2>What needs you</h2><ul class=\"needs\">" [items] "</ul></section>"]
}

/// Orders of which more money is kept than they cost.
fn overpaid(orders: &[OverpaidOrder], open: &OpenLetters, now: OffsetDateTime) -> Html {
    if orders.is_empty() {
        return html![];
    }
    let rows = Html::all(orders.iter().map(|order| {
        let money = Currency::new(&order.currency).and_then(|currency| Money::new(order.overpaid_minor, currency));
        let surplus = money.map_or_else(|_| format!("{} {}", order.overpaid_minor, order.currency), Money::written);
        html![
            "<tr><td data-name=\"Order\">" [story_link(&order.order_id.to_string())]
            "</td><td class=\"many\" data-name=\"Too much\">" (surplus) "</td><td data-name=\"Since\">"
            [age(order.since, now)] "</td></tr>"
        ]
    }));
    let more = open.overpaid_orders - i64::try_from(orders.len()).unwrap_or(i64::MAX);
    let more = if more > 0 {
        html!["<p class=\"dim\">And " (count(more, "newer one", "newer ones")) ".</p>"]
    } else {
        html![]
    };
    html![
        "<section class=\"card\" id=\"overpaid\"><h2>Paid twice, or too much</h2><p>Each order has its credits once. Pay "
        "the surplus back at the provider; the order leaves this list when the provider reports the refund.</p>"
        "<table class=\"wide\"><thead><tr><th scope=\"col\">Order</th><th scope=\"col\">Too much</th>"
        "<th scope=\"col\">Since</th></tr></thead><tbody>" [rows] "</tbody></table>" [more] "</section>"
    ]
}

fn letters(groups: &[LetterGroup], now: OffsetDateTime) -> Html {
    let mut by_reason: BTreeMap<&str, (i64, i64, OffsetDateTime)> = BTreeMap::new();
    for group in groups {
        let entry = by_reason.entry(&group.reason).or_insert((0, 0, group.oldest_at));
        *entry = (entry.0 + group.letters, entry.1 + group.helpful, entry.2.min(group.oldest_at));
    }
    if by_reason.is_empty() {
        return html![];
    }
    let rows = Html::all(by_reason.iter().map(|(reason, (letters, helpful, oldest_at))| {
        let title = advice(reason).map_or("", |advice| advice.title);
        html![
            "<tr><td class=\"many\" data-name=\"Letters\">" (number(*letters))
            "</td><td data-name=\"Reason\"><a href=\"/dead-letters?reason=" (reason) "\"><b>" (reason)
            "</b></a> <span class=\"dim\">" (title) "</span></td><td data-name=\"Oldest\">" [age(*oldest_at, now)]
            "</td><td data-name=\"A replay helps\">"
            (number(*helpful)) "</td></tr>"
        ]
    }));
    html![
        "<section class=\"card\"><h2>Open dead letters</h2><table class=\"wide\"><thead><tr><th "
        "scope=\"col\">Letters</th><th scope=\"col\">Reason</th>"
        "<th scope=\"col\">Oldest</th><th scope=\"col\">A replay helps</th></tr></thead><tbody id=\"reasons\">" [rows]
        "</tbody></table></section>"
    ]
}

fn queues(queues: Option<QueueDepths>, now: OffsetDateTime) -> Html {
    let figures = match queues {
        None => {
            html!["<p>" [mark(Tone::Wait, "not known")] " RabbitMQ was not asked in the last minutes, or did not answer.</p>"]
        }
        Some(queues) => {
            let figure =
                |name: &str, value: u32| html!["<div><dt>" (name) "</dt><dd>" (number(value.into())) "</dd></div>"];
            let Depths { fulfilment, hints, dead } = queues.depths;
            html![
                "<dl class=\"figures\">" [figure("wait for a worker", fulfilment.ready)]
                [figure("workers' consumers", fulfilment.consumers)]
                [figure("dead letters on their way here", dead.ready)]
                [figure("hints", hints.ready)] "</dl><p><a href=\"/queue\">Look at the dead letters in RabbitMQ</a></p><p class=\"dim\">Asked " (ago(queues.at, now)) ".</p>"
            ]
        }
    };
    html!["<section class=\"card\" id=\"queues\"><h2>Queues</h2>" [figures] "</section>"]
}

//! What the story says about an order's money: too much money, missing parts, and payments that were reported and not applied.

use super::missing::{Missing, MissingCode};
use super::records::{LetterRecord, LookRecord, NoteRecord, OrderRecord};
use super::tell::{Terms, moment};
use crate::domain::{Currency, Money, Order, PriceTerms};
use time::Duration;

/// How long to wait for the parts of a captured amount. After that, somebody should look. The event with the parts comes at about
/// the same time as the others.
const BREAKDOWN_LATE_AFTER: Duration = Duration::minutes(15);

/// How long the message may be on its way after a provider said "paid".
const ANSWER_LATE_AFTER: Duration = Duration::minutes(5);

fn written(amount_minor: i64, currency: Currency) -> String {
    Money::new(amount_minor, currency)
        .map_or_else(|_| format!("{amount_minor} {currency} (minor units)"), Money::written)
}

fn captured(order: &Order, terms: Terms) -> (i128, String) {
    let captured = order.captured_minor(terms.dispute_policy);
    let amount = i64::try_from(captured).unwrap_or(i64::MAX);
    (captured, written(amount, order.price.currency()))
}

/// More money is kept than the price.
pub(super) fn overpaid(order: &Order, overpaid_minor: i64, terms: Terms) -> Option<Missing> {
    if overpaid_minor <= 0 {
        return None;
    }
    let amount = written(overpaid_minor, order.price.currency());
    let text = match order.payments_kept(terms.dispute_policy) {
        0 | 1 => format!("overpaid by {amount}"),
        2 => format!("paid twice: {amount} too much"),
        times => format!("paid {times} times: {amount} too much"),
    };
    let next = format!("refund {amount} at {}; the credits are granted once and stay", order.provider);
    Some(Missing::attention(MissingCode::Overpaid, text, next))
}

/// Money is there and does not pay the price yet. The rest of it is awaited, or the parts of its amount.
pub(super) fn lacking(record: &OrderRecord, terms: Terms) -> Option<Missing> {
    let order = &record.order;
    let (minor, amount) = captured(order, terms);
    if order.lacks_breakdown(terms.dispute_policy) {
        let text = format!(
            "{amount} are captured; the order waits for the breakdown of that amount, which price_terms {} need",
            order.price_terms.name()
        );
        let next = format!(
            "does {} send the event with tax and discount (checkout.session.completed of Stripe)? If not, ask it with \
             POST /v1/orders/{}/check",
            order.provider, order.id
        );
        let needs_attention = record.updated_at + BREAKDOWN_LATE_AFTER < terms.now;
        return Some(Missing { needs_attention, ..Missing::attention(MissingCode::BreakdownMissing, text, next) });
    }
    let is_part = order.price_terms == PriceTerms::Total && minor > 0 && minor < i128::from(order.price.amount_minor());
    is_part.then(|| {
        let text = format!("{minor} of {} are captured; the rest is not paid yet", order.price);
        Missing::waits(MissingCode::PartlyPaid, text)
    })
}

/// Places where a payment of an order may be reported, besides its facts.
#[derive(Clone, Copy)]
pub(super) struct Reported<'a> {
    pub(super) letters: &'a [&'a LetterRecord],
    /// The notes of waiting messages.
    pub(super) notes: &'a [&'a NoteRecord],
    pub(super) looks: &'a [&'a LookRecord],
}

/// If something says that an unpaid order is paid, what to tell instead of "no payment is known".
pub(super) fn reported(record: &OrderRecord, reported: Reported<'_>, terms: Terms) -> Option<Missing> {
    let Reported { letters, notes, looks } = reported;
    let amount_of = |letter: &LetterRecord| {
        let currency = letter.currency.as_deref().and_then(|code| Currency::new(code).ok());
        letter
            .amount_minor
            .zip(currency)
            .map_or("an unknown amount".to_owned(), |(minor, currency)| written(minor, currency))
    };
    let of_letter = |letter: &LetterRecord, code, text: String| Missing {
        letter_id: Some(letter.id),
        ..Missing::waits(code, text)
    };
    if let Some(letter) = letters.iter().find(|letter| letter.is_open() && letter.reports_money()) {
        let text = format!("a payment of {} is reported and not applied: dead letter {}", amount_of(letter), letter.id);
        let missing = of_letter(letter, MissingCode::PaymentNotApplied, text);
        return Some(match letter.state.as_str() {
            "open" => {
                Missing { needs_attention: true, next: Some(format!("grantonce dlq show {}", letter.id)), ..missing }
            }
            _ => missing,
        });
    }
    if let Some(look) = looks.iter().find(|look| look.said.as_deref() == Some("paid")) {
        let asked_at = look.asked_at.unwrap_or(look.created_at);
        let text =
            format!("{} said at {} that the payment is paid, but it is not applied", look.provider, moment(asked_at));
        let missing = Missing::waits(MissingCode::PaymentNotApplied, text);
        return Some(if asked_at + ANSWER_LATE_AFTER < terms.now {
            let next = "are the workers running, and is the queue empty? See GrantonceGrantsMissing in docs/runbook.md";
            Missing { needs_attention: true, next: Some(next.to_owned()), ..missing }
        } else {
            missing
        });
    }
    if let Some(note) = notes.iter().find(|note| note.said == "captured") {
        let text = format!("a payment is reported and not applied yet: message {} waits", note.message_id);
        return Some(Missing::waits(MissingCode::PaymentNotApplied, text));
    }
    if let Some(letter) = letters.iter().find(|letter| letter.is_open() && letter.said_type.is_none()) {
        let text = format!("the paid amount is unknown: dead letter {} was not read", letter.id);
        return Some(of_letter(letter, MissingCode::AwaitingPayment, text));
    }
    if let Some(letter) = letters.iter().find(|letter| letter.state == "archived" && letter.reports_money()) {
        let by = letter.state_by.as_deref().unwrap_or("nobody");
        let text = format!(
            "a payment of {} was reported and not applied: dead letter {} is archived by {by}",
            amount_of(letter),
            letter.id
        );
        return Some(of_letter(letter, MissingCode::AwaitingPayment, text));
    }
    let (minor, amount) = captured(&record.order, terms);
    (minor > 0).then(|| Missing::waits(MissingCode::AwaitingPayment, format!("{amount} are captured")))
}

//! What an order lacks, what to do next, and what is awaited.

use super::money::{self, Reported};
use super::records::{LetterRecord, LookRecord, NoteRecord, OrderRecord, PaymentRecord, Records};
use super::tell::{Terms, moment};
use crate::domain::{OrderId, OrderStatus, counted, is_unpaid, settle};
use serde::Serialize;
use time::Duration;
use uuid::Uuid;

/// A look that is overdue by this time is late: the reconcilers are behind, or none is running.
const LOOK_LATE_AFTER: Duration = Duration::minutes(15);

/// After this many failed calls in a row, somebody should check the provider, or our credentials there.
const FAILURES_MANY: i32 = 3;

/// A message counts as waiting for this long after it was last put off. The longest delay that can be configured is a day.
const WAITS_AT_MOST: Duration = Duration::hours(25);

named! {
    /// The kinds of missing things.
    pub enum MissingCode {
        /// A message is an open dead letter.
        LetterOpen = "letter_open",
        /// A dead letter is being replayed.
        LetterReplaying = "letter_replaying",
        /// A message waits for its order.
        MessageWaiting = "message_waiting",
        /// The facts suffice for the grant, but only a message can make it.
        GrantDue = "grant_due",
        /// The ledger does not match the facts.
        CreditsDue = "credits_due",
        /// The order's row and the ledger disagree.
        LedgerDiffers = "ledger_differs",
        /// A part of the price is paid.
        PartlyPaid = "partly_paid",
        /// Money is there, but the parts of its amount, which the order's price terms need, were not reported.
        BreakdownMissing = "breakdown_missing",
        /// More money is kept than the price.
        Overpaid = "overpaid",
        /// A payment was reported and not applied.
        PaymentNotApplied = "payment_not_applied",
        /// The provider could not be asked several times in a row.
        ProviderNotAnswering = "provider_not_answering",
        /// The look at the provider is overdue.
        LookOverdue = "look_overdue",
        /// The provider says that money went back, but shows no refund of it.
        RefundUntold = "refund_untold",
        /// The provider has not created the order's payment.
        PaymentNotCreated = "payment_not_created",
        /// No payment is registered to the order.
        NoPayment = "no_payment",
        /// Nothing is paid yet.
        AwaitingPayment = "awaiting_payment",
    }
}

/// Something that is missing, has to be done, or is awaited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The kind of what is missing.
    pub code: MissingCode,
    /// Whether a person has to act.
    pub needs_attention: bool,
    /// It in a sentence.
    pub text: String,
    /// What to do about it.
    pub next: Option<String>,
    /// The dead letter that it is about, if any.
    pub letter_id: Option<Uuid>,
}

impl Missing {
    pub(super) fn attention(code: MissingCode, text: String, next: impl Into<String>) -> Self {
        Self { code, needs_attention: true, text, next: Some(next.into()), letter_id: None }
    }

    pub(super) fn waits(code: MissingCode, text: String) -> Self {
        Self { code, needs_attention: false, text, next: None, letter_id: None }
    }
}

/// Whether the message of a note still waits for its order.
pub(super) fn is_waiting(note: &NoteRecord, records: &Records, terms: Terms) -> bool {
    note.put_offs > 0
        && !note.is_admitted
        && note.last_noted_at + WAITS_AT_MOST > terms.now
        && !records.letters.iter().any(|letter| letter.message_id == note.message_id)
}

/// Everything that an order lacks.
pub(super) fn of_order(record: &OrderRecord, records: &Records, terms: Terms) -> Vec<Missing> {
    let order = &record.order;
    let mut missing = of_letters(record, records);
    let waiting_notes: Vec<_> = notes_about(record, records).filter(|note| is_waiting(note, records, terms)).collect();
    missing.extend(waiting_notes.iter().map(|note| waiting(note)));
    let posting = match settle(order, terms.dispute_policy) {
        Ok(posting) => posting,
        Err(fault) => {
            missing.push(Missing::attention(MissingCode::LedgerDiffers, fault.to_string(), "grantonce verify"));
            return missing;
        }
    };
    let ledger: i64 = ledger_of(order.id, records);
    if ledger != order.credits_posted {
        let text = format!("the order says {} credits, but the ledger holds {ledger}", order.credits_posted);
        missing.push(Missing::attention(MissingCode::LedgerDiffers, text, "grantonce verify"));
    } else if posting.grant {
        let text = format!(
            "the facts of the payment suffice for the grant of {} credits, but the grant is not made",
            order.credits
        );
        let next = "only a message can make the grant: replay a dead letter of this payment, or ask the provider with POST \
                    /v1/orders/{id}/check";
        missing.push(Missing::attention(MissingCode::GrantDue, text, next));
    } else if posting.adjustment != 0 && order.is_granted {
        let text = format!(
            "the facts of the payment give {} credits, but the ledger holds {}",
            posting.credits_net, order.credits_posted
        );
        missing.push(Missing::attention(
            MissingCode::CreditsDue,
            text,
            "the next message about the payment adjusts the credits; was GRANTONCE_DISPUTE_POLICY changed?",
        ));
    }
    missing.extend(money::overpaid(order, posting.overpaid_minor, terms));
    missing.extend(money::lacking(record, terms));
    let looks: Vec<_> = records.looks.iter().filter(|look| look.order_id == Some(order.id.0)).collect();
    missing.extend(looks.iter().flat_map(|look| of_look(look, terms)));
    if order.status == OrderStatus::Fulfilled {
        missing.extend(looks.iter().filter_map(|look| untold_refund(look)));
    }
    if is_unpaid(order.status) {
        let letters: Vec<_> = letters_about(record, records).collect();
        let reported =
            money::reported(record, Reported { letters: &letters, notes: &waiting_notes, looks: &looks }, terms);
        missing.extend(reported.or_else(|| unpaid(record, records, &looks)));
    }
    missing
}

/// Everything that is missing if no order is known.
pub(super) fn without_order(records: &Records, terms: Terms) -> Vec<Missing> {
    let letters = records.letters.iter().filter_map(|letter| of_letter(letter, "", None));
    let notes = records.notes.iter().filter(|note| is_waiting(note, records, terms)).map(waiting);
    let looks = records.looks.iter().flat_map(|look| of_look(look, terms));
    letters.chain(notes).chain(looks).collect()
}

/// Net credits of an order in the ledger.
pub(super) fn ledger_of(id: OrderId, records: &Records) -> i64 {
    let grants = records.grants.iter().filter(|grant| grant.order_id == id.0).map(|grant| grant.credits);
    let adjustments = records.adjustments.iter().filter(|adjustment| adjustment.order_id == id.0);
    grants.chain(adjustments.map(|adjustment| adjustment.credits)).sum()
}

/// Dead letters that concern this order: they name it, or a payment that is registered to it. A dead letter that was not read yet
/// is known only by the main id of its payment.
fn letters_about<'a>(record: &'a OrderRecord, records: &'a Records) -> impl Iterator<Item = &'a LetterRecord> {
    let id = record.order.id.0;
    let has_payment = |letter: &LetterRecord, payment: &PaymentRecord| {
        payment.provider == letter.provider
            && if letter.is_read {
                payment.provider_account == letter.provider_account && letter.payment_ids.contains(&payment.payment_id)
            } else {
                letter.payment_id.as_ref() == Some(&payment.payment_id)
            }
    };
    records.letters.iter().filter(move |letter| {
        let mut own = records.payments.iter().filter(|payment| payment.order_id == id);
        letter.order_id == Some(id) || letter.order_ids.contains(&id) || own.any(|payment| has_payment(letter, payment))
    })
}

/// Notes of messages that concern this order in the same way.
fn notes_about<'a>(record: &'a OrderRecord, records: &'a Records) -> impl Iterator<Item = &'a NoteRecord> {
    let id = record.order.id.0;
    records.notes.iter().filter(move |note| {
        let mut own = records.payments.iter().filter(|payment| payment.order_id == id);
        note.order_id == Some(id)
            || own.any(|payment| payment.provider == note.provider && payment.payment_id == note.payment_id)
    })
}

fn of_letters(record: &OrderRecord, records: &Records) -> Vec<Missing> {
    let paid_but = if record.order.is_granted { "" } else { "paid, but " };
    letters_about(record, records).filter_map(|letter| of_letter(letter, paid_but, Some(record.order.id))).collect()
}

fn of_letter(letter: &LetterRecord, paid_but: &str, order_id: Option<OrderId>) -> Option<Missing> {
    let (paid_but, article) = if letter.reports_money() { (paid_but, "the") } else { ("", "a") };
    let mut text = format!("{paid_but}{article} message is a dead letter: {}", letter.reason);
    let id = letter.id;
    let (code, next) = match letter.state.as_str() {
        "open" => {
            let next = match (letter.reason.as_str(), order_id) {
                ("amount_mismatch" | "currency_mismatch", Some(order)) => format!(
                    "grantonce dlq show {id}; if the order's price is wrong: \
                     grantonce orders amend {order} …, then grantonce dlq replay {id}"
                ),
                ("unknown_payment", None) => {
                    format!("create the order with this payment, then grantonce dlq replay {id}")
                }
                ("unknown_payment", Some(_)) => format!("its order exists now: grantonce dlq replay {id}"),
                _ => format!("grantonce dlq show {id}"),
            };
            (MissingCode::LetterOpen, Some(next))
        }
        "replaying" => {
            text = format!("{text}, and is being replayed");
            (MissingCode::LetterReplaying, None)
        }
        // The dead letter is resolved or archived.
        _ => return None,
    };
    if let Some(detail) = &letter.verdict_detail {
        text = format!("{text}; a replay now: {detail}");
    }
    Some(Missing { code, needs_attention: next.is_some(), text, next, letter_id: Some(id) })
}

fn waiting(note: &NoteRecord) -> Missing {
    let text = format!(
        "message {} says {} and waits{}: put off {}, the last at {}",
        note.message_id,
        note.said,
        match note.cause() {
            Some(cause) => format!(", because {cause}"),
            None => " for its order".to_owned(),
        },
        counted(note.put_offs, "time"),
        moment(note.last_noted_at)
    );
    Missing::waits(MissingCode::MessageWaiting, text)
}

fn of_look(look: &LookRecord, terms: Terms) -> Vec<Missing> {
    let mut missing = vec![];
    if look.failures >= FAILURES_MANY {
        let text = format!("{} did not answer {} times in a row", look.provider, look.failures);
        let next = "check the reconciler's log and the credentials";
        missing.push(Missing::attention(MissingCode::ProviderNotAnswering, text, next));
    } else if let Some(due_at) = look.due_at.filter(|due_at| *due_at + LOOK_LATE_AFTER < terms.now) {
        let text = format!("{} should have been asked at {}", look.provider, moment(due_at));
        missing.push(Missing::attention(MissingCode::LookOverdue, text, "is a reconciler running?"));
    }
    missing
}

/// The result of the provider's last answer is in the look: `store::ProviderAnswer`.
fn untold_refund(look: &LookRecord) -> Option<Missing> {
    (look.said.as_deref() == Some("refund_untold")).then(|| {
        let text = format!(
            "{} says that a part of {} went back to the buyer, but lists no refund: no credits were taken back for it",
            look.provider, look.payment_id
        );
        let next = "look up the payment at the provider; if the provider sends the webhook about the refund again, it is checked again";
        Missing::attention(MissingCode::RefundUntold, text, next)
    })
}

fn unpaid(record: &OrderRecord, records: &Records, looks: &[&LookRecord]) -> Option<Missing> {
    let order = &record.order;
    if order.status == OrderStatus::Canceled {
        return None;
    }
    let attempts = records.attempts.iter().filter(|attempt| attempt.order_id == order.id.0).count();
    if !records.payments.iter().any(|payment| payment.order_id == order.id.0) {
        return Some(match attempts {
            0 => Missing::waits(MissingCode::NoPayment, "the order has no registered payment".to_owned()),
            _ => Missing {
                next: Some(
                    "send the same POST /v1/orders again, with the same Idempotency-Key: it is safe and finishes the order".to_owned(),
                ),
                ..Missing::waits(
                    MissingCode::PaymentNotCreated,
                    format!("{} has not created the payment; attempts so far: {attempts}", order.provider),
                )
            },
        });
    }
    let next = looks.iter().filter_map(|look| look.due_at).min();
    let text = match (order.status, next) {
        (OrderStatus::Processing, Some(at)) => {
            format!("the payment is in progress; {} will be asked at {}", order.provider, moment(at))
        }
        (OrderStatus::Processing, None) => "the payment is in progress".to_owned(),
        (_, Some(at)) => format!("no payment is known yet; {} will be asked at {}", order.provider, moment(at)),
        (_, None) => "no payment is known yet, and no further question to the provider is planned".to_owned(),
    };
    Some(Missing::waits(MissingCode::AwaitingPayment, text))
}

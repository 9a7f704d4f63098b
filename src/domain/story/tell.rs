//! Makes a story from records. Pure.

use super::entries::entries;
use super::missing;
use super::records::{OrderRecord, Records};
use super::{Entry, OrderLine, Story, StoryEvent, Subject, SubjectKind, Summary};
use crate::domain::{DisputePolicy, OrderStatus};
use std::cmp::Reverse;
use std::collections::BTreeSet;
use time::{OffsetDateTime, UtcOffset};
use uuid::Uuid;

/// The settings of a story.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// The time at which the story is made.
    pub(crate) now: OffsetDateTime,
    /// Whether open disputes take credits.
    pub(crate) dispute_policy: DisputePolicy,
    /// Most entries. If there are more, the oldest are left out.
    pub(crate) entries_max: usize,
}

/// A time in the form of the sentences.
pub(super) fn moment(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!("{} {:02}:{:02}:{:02}Z", at.date(), at.hour(), at.minute(), at.second())
}

/// Makes the story from the records.
pub(crate) fn tell(subject: Subject, records: &Records, terms: Terms) -> Story {
    let orders: Vec<OrderLine> = newest_first(records).map(|order| line_of(order, records, terms)).collect();
    let mut entries = entries(records, terms);
    let scope = Scope::of(&subject, records);
    entries.retain(|entry| scope.has(&entry.what));
    entries.sort_by_key(|entry| (entry.at, entry.what.rank()));
    let entries_left_out = entries.len().saturating_sub(terms.entries_max);
    entries.drain(..entries_left_out);
    let summary = summary(&subject, &orders, &entries, records, terms);
    Story { subject, summary, orders, entries, entries_left_out, gaps: gaps(records) }
}

fn newest_first(records: &Records) -> impl Iterator<Item = &OrderRecord> {
    let mut orders: Vec<&OrderRecord> = records.orders.iter().collect();
    orders.sort_by_key(|record| Reverse((record.created_at, record.order.id)));
    orders.into_iter()
}

/// Which entries belong to a story.
enum Scope<'a> {
    All,
    /// Entries of a message, and of its dead letters.
    Message {
        id: &'a str,
        letters: BTreeSet<Uuid>,
    },
    /// Acts on an account. The events of its orders are told with each order.
    Account,
}

impl<'a> Scope<'a> {
    fn of(subject: &'a Subject, records: &'a Records) -> Self {
        let of_message = |id: &'a str, letter: Option<Uuid>| {
            let letters = records.letters.iter().filter(|letter| !id.is_empty() && letter.message_id == id);
            Self::Message { id, letters: letters.map(|letter| letter.id).chain(letter).collect() }
        };
        match subject.kind {
            SubjectKind::Order | SubjectKind::Payment => Self::All,
            SubjectKind::Message => of_message(&subject.id, None),
            SubjectKind::Letter => {
                let letter = records.letters.iter().find(|letter| letter.id.to_string() == subject.id);
                of_message(letter.map_or("", |letter| &letter.message_id), letter.map(|letter| letter.id))
            }
            SubjectKind::Account => Self::Account,
        }
    }

    fn has(&self, what: &StoryEvent) -> bool {
        match self {
            Self::All => true,
            Self::Account => matches!(what, StoryEvent::ActedByHand { .. }),
            Self::Message { id, letters } => match what {
                StoryEvent::MessagePutOff { message_id, .. }
                | StoryEvent::MessageAdmitted { message_id, .. }
                | StoryEvent::CreditsGranted { message_id, .. }
                | StoryEvent::CreditsAdjusted { message_id, .. } => message_id == id,
                StoryEvent::LetterReceived { letter_id, .. }
                | StoryEvent::LetterChanged { letter_id, .. }
                | StoryEvent::LetterReplayed { letter_id, .. } => letters.contains(letter_id),
                StoryEvent::ActedByHand { subject, .. } => {
                    Uuid::try_parse(subject).is_ok_and(|subject| letters.contains(&subject))
                }
                StoryEvent::OrderCreated { .. }
                | StoryEvent::OrderAmended { .. }
                | StoryEvent::PaymentAttempted { .. }
                | StoryEvent::PaymentRegistered { .. }
                | StoryEvent::ProviderAsked { .. } => false,
            },
        }
    }
}

fn line_of(record: &OrderRecord, records: &Records, terms: Terms) -> OrderLine {
    let order = &record.order;
    let missing = missing::of_order(record, records, terms);
    let mut payments: Vec<_> = records.payments.iter().filter(|payment| payment.order_id == order.id.0).collect();
    payments.sort_by_key(|payment| (payment.registered_at, &payment.payment_id));
    OrderLine {
        order_id: order.id,
        account_id: order.account_id.clone(),
        status: order.status,
        credits: order.credits,
        credits_granted: order.credits_posted,
        amount_minor: order.price.amount_minor(),
        currency: order.price.currency().as_str().to_owned(),
        provider: order.provider.as_str().to_owned(),
        provider_account: order.provider_account.as_ref().map(|account| account.as_str().to_owned()),
        payment_ids: payments.into_iter().map(|payment| payment.payment_id.clone()).collect(),
        created_at: record.created_at,
        updated_at: record.updated_at,
        text: standing(record),
        needs_attention: missing.iter().any(|missing| missing.needs_attention),
        missing,
    }
}

/// The state of an order, in a sentence.
fn standing(record: &OrderRecord) -> String {
    let order = &record.order;
    let (status, of) = (order.status.name(), format!("{} of {} credits", order.credits_posted, order.credits));
    match order.status {
        OrderStatus::Fulfilled => format!("{status}: {of} are with {}", order.account_id),
        OrderStatus::PartiallyRefunded | OrderStatus::Refunded | OrderStatus::Disputed => {
            format!("{status}: {of} are left with {}", order.account_id)
        }
        OrderStatus::AwaitingPayment | OrderStatus::Processing | OrderStatus::Canceled => {
            let failure = order.facts.last_failure().map(|reason| format!("; the last attempt failed: {reason}"));
            format!("{status}: {of} are granted{}", failure.unwrap_or_default())
        }
    }
}

fn summary(subject: &Subject, orders: &[OrderLine], entries: &[Entry], records: &Records, terms: Terms) -> Summary {
    let missing: Vec<_> = match orders.is_empty() {
        true => missing::without_order(records, terms),
        // What an account's orders lack is told with each order.
        false if subject.kind == SubjectKind::Account => vec![],
        false => orders.iter().flat_map(|order| order.missing.clone()).collect(),
    };
    let of_order = |order: &OrderLine| format!("order {} is {}", order.order_id, order.text);
    let text = match (subject.kind, orders) {
        (SubjectKind::Order, [order, ..]) => order.text.clone(),
        (SubjectKind::Account, orders) => {
            let attention = orders.iter().filter(|order| order.needs_attention).count();
            format!("orders shown: {}; {attention} of them need attention", orders.len())
        }
        (SubjectKind::Message | SubjectKind::Letter, orders) => {
            let last = entries.last().map_or_else(String::new, |entry| entry.text.clone());
            match orders.first() {
                Some(order) => format!("{last}; {}", of_order(order)),
                None => last,
            }
        }
        (SubjectKind::Payment, []) => "no order has this payment".to_owned(),
        (SubjectKind::Order, []) => "the order does not exist, or not yet; messages name it".to_owned(),
        (SubjectKind::Payment, orders) => orders.iter().map(of_order).collect::<Vec<_>>().join("; "),
    };
    let needs_attention =
        missing.iter().any(|missing| missing.needs_attention) || orders.iter().any(|order| order.needs_attention);
    Summary { text, needs_attention, missing }
}

fn gaps(records: &Records) -> Vec<String> {
    let mut gaps: Vec<String> = records
        .cut
        .iter()
        .map(|table| format!("{table} has more rows than the limit: the oldest are left out"))
        .collect();
    let oldest = records.orders.iter().map(|record| record.created_at).min();
    if let (Some(oldest), Some(since)) = (oldest, records.inbox_since)
        && oldest.to_offset(UtcOffset::UTC).date() < since
    {
        gaps.push(format!("the content, copies and put-offs of messages before {since} are no longer kept"));
    }
    gaps
}

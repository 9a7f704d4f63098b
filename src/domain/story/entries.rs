//! Makes an entry of the story from each row of the records.

use super::decision::decision_of;
use super::missing::is_waiting;
use super::records::{AuditRecord, LetterRecord, NoteRecord, OrderRecord, Records};
use super::tell::{Terms, moment};
use super::{Entry, StoryEvent};
use crate::domain::{AuditAction, OrderId, counted};

/// All entries, in any order.
pub(super) fn entries(records: &Records, terms: Terms) -> Vec<Entry> {
    let mut entries = vec![];
    for record in &records.orders {
        entries.push(created(record, records));
        entries.extend(ledger(record, records));
    }
    entries.extend(payments(records));
    entries.extend(records.notes.iter().filter(|note| note.put_offs > 0).map(|note| put_off(note, records, terms)));
    entries.extend(records.letters.iter().flat_map(letter));
    entries.extend(replays(records));
    entries.extend(looks(records));
    entries.extend(records.audit.iter().map(|line| by_hand(line, records)));
    entries
}

/// The amount in the form of [`crate::domain::Money`].
fn in_words(amount_minor: i64, currency: &str) -> String {
    format!("{amount_minor} {currency} (minor units)")
}

fn created(record: &OrderRecord, records: &Records) -> Entry {
    let order = &record.order;
    let id = order.id.to_string();
    // An amendment records the price before it.
    let amended = records
        .audit
        .iter()
        .filter(|line| line.action == AuditAction::OrderAmend.name() && line.subject == id)
        .min_by_key(|line| line.at);
    let before = amended.and_then(|line| line.before.as_ref()).map(|before| {
        (before.get("amount_minor").and_then(|n| n.as_i64()), before.get("currency").and_then(|c| c.as_str()))
    });
    let (amount_minor, currency) = match before {
        Some((amount, currency)) => (amount, currency.map(str::to_owned)),
        None => (Some(order.price.amount_minor()), Some(order.price.currency().as_str().to_owned())),
    };
    let price = match (amount_minor, &currency) {
        (Some(amount), Some(currency)) => in_words(amount, currency),
        (_, _) => "a price that is no longer known".to_owned(),
    };
    let account = &order.provider_account;
    let at_account = account.as_ref().map(|account| format!(" (account {account})")).unwrap_or_default();
    let text = format!(
        "order of {} credits for {}, at {price}, to be paid at {}{at_account}",
        order.credits, order.account_id, order.provider
    );
    let what = StoryEvent::OrderCreated {
        order_id: order.id,
        account_id: order.account_id.clone(),
        credits: order.credits,
        amount_minor,
        currency,
        provider: order.provider.as_str().to_owned(),
    };
    Entry { at: record.created_at, what, text }
}

/// Admitted messages and ledger rows.
fn ledger(record: &OrderRecord, records: &Records) -> Vec<Entry> {
    let id = record.order.id;
    let grant = records.grants.iter().find(|grant| grant.order_id == id.0);
    let adjustments: Vec<_> = records.adjustments.iter().filter(|adjustment| adjustment.order_id == id.0).collect();
    let is_cut = records.cut.contains(&"inbox");
    // For an account, messages are not read at all, so nothing is said about the ledger.
    let is_pruned = |message: &str| !is_cut && !records.admitted.iter().any(|admitted| admitted.message_id == message);
    let pruned = |is_pruned: bool| if is_pruned { "; the inbox no longer has the message" } else { "" };
    let mut entries = vec![];
    for message in records.admitted.iter().filter(|message| message.order_id == id.0) {
        let note = records.notes.iter().find(|note| note.message_id == message.message_id && note.copies > 0);
        let (decision, credits, why) = decision_of(message, grant, &adjustments);
        let said = message.said.as_deref().map(|said| format!(" says {said}")).unwrap_or_default();
        let copies = note.map(|note| match note.copies {
            1 => format!("; one copy had no effect, at {}", moment(note.last_noted_at)),
            copies => format!("; {copies} copies had no effect, the last at {}", moment(note.last_noted_at)),
        });
        let text = format!("{}{said}: {why}{}", message.message_id, copies.unwrap_or_default());
        let what = StoryEvent::MessageAdmitted {
            message_id: message.message_id.clone(),
            order_id: id,
            said: message.said.clone(),
            copies: note.map_or(0, |note| note.copies),
            last_copy_at: note.map(|note| note.last_noted_at),
            decision,
            credits,
        };
        entries.push(Entry { at: message.admitted_at, what, text });
    }
    entries.extend(grant.map(|grant| {
        let is_message_pruned = is_pruned(&grant.message_id);
        let (account_id, message_id) = (grant.account_id.clone(), grant.message_id.clone());
        let text =
            format!("{:+} credits granted to {account_id} by {message_id}{}", grant.credits, pruned(is_message_pruned));
        let credits = grant.credits;
        let what = StoryEvent::CreditsGranted { order_id: id, account_id, credits, message_id, is_message_pruned };
        Entry { at: grant.at, what, text }
    }));
    entries.extend(adjustments.into_iter().map(|adjustment| {
        let is_message_pruned = is_pruned(&adjustment.message_id);
        let (reason, message_id) = (adjustment.reason.clone(), adjustment.message_id.clone());
        let (credits, revision) = (adjustment.credits, adjustment.revision);
        let text = format!(
            "{credits:+} credits, adjustment {revision} ({reason}), by {message_id}{}",
            pruned(is_message_pruned)
        );
        let what =
            StoryEvent::CreditsAdjusted { order_id: id, revision, credits, reason, message_id, is_message_pruned };
        Entry { at: adjustment.at, what, text }
    }));
    entries
}

fn payments(records: &Records) -> impl Iterator<Item = Entry> {
    let attempts = records.attempts.iter().map(|attempt| {
        let came = match (&attempt.payment_id, attempt.is_burnt) {
            (Some(payment), _) => format!("made {payment}"),
            (None, true) => "failed permanently under its idempotency key".to_owned(),
            (None, false) => "has no known payment".to_owned(),
        };
        let what = StoryEvent::PaymentAttempted {
            order_id: OrderId(attempt.order_id),
            number: attempt.number,
            last_sent_at: attempt.last_sent_at,
            is_burnt: attempt.is_burnt,
            payment_id: attempt.payment_id.clone(),
        };
        let again = match attempt.last_sent_at == attempt.first_sent_at {
            true => String::new(),
            false => format!("; sent again at {}", moment(attempt.last_sent_at)),
        };
        let text = format!("attempt {} to create its payment {came}{again}", attempt.number);
        Entry { at: attempt.first_sent_at, what, text }
    });
    let registered = records.payments.iter().map(|payment| {
        let (provider, payment_id) = (payment.provider.clone(), payment.payment_id.clone());
        let text = format!("payment {payment_id} at {provider} belongs to the order");
        let what = StoryEvent::PaymentRegistered { order_id: OrderId(payment.order_id), provider, payment_id };
        Entry { at: payment.registered_at, what, text }
    });
    attempts.chain(registered)
}

fn put_off(note: &NoteRecord, records: &Records, terms: Terms) -> Entry {
    let is_waiting = is_waiting(note, records, terms);
    let became = if note.is_admitted {
        "then its order existed"
    } else if records.letters.iter().any(|letter| letter.message_id == note.message_id) {
        "then it became a dead letter"
    } else if is_waiting {
        "it still waits"
    } else {
        "its outcome is not recorded: it may have been dropped as a payment of another system"
    };
    let text = format!(
        "{} says {}, and {}: put off {}, the last at {}; {became}",
        note.message_id,
        note.said,
        note.cause().unwrap_or("its order was unknown"),
        counted(note.put_offs, "time"),
        moment(note.last_noted_at)
    );
    let what = StoryEvent::MessagePutOff {
        message_id: note.message_id.clone(),
        provider: note.provider.clone(),
        payment_id: note.payment_id.clone(),
        order_id: note.order_id.map(OrderId),
        said: note.said.clone(),
        put_offs: note.put_offs,
        last_noted_at: note.last_noted_at,
        is_waiting,
    };
    Entry { at: note.first_noted_at, what, text }
}

fn letter(letter: &LetterRecord) -> Vec<Entry> {
    let message_id = Some(letter.message_id.clone()).filter(|id| !id.is_empty());
    let name = message_id.as_deref().unwrap_or("a message without an id");
    let said = letter.said.as_deref().map(|said| format!(" ({said})")).unwrap_or_default();
    let again = if letter.seen > 1 { format!("; it came {} times", letter.seen) } else { String::new() };
    let text = format!(
        "{name}{said} became a dead letter in the {} after {}: {}: {}{again}; its state is {}",
        letter.origin,
        counted(letter.attempts, "attempt"),
        letter.reason,
        letter.detail,
        letter.state
    );
    let what = StoryEvent::LetterReceived {
        letter_id: letter.id,
        message_id,
        payment_id: letter.payment_id.clone(),
        order_id: letter.order_id.map(OrderId),
        reason: letter.reason.clone(),
        detail: letter.detail.clone(),
        origin: letter.origin.clone(),
        attempts: letter.attempts,
        said: letter.said.clone(),
        state: letter.state.clone(),
        seen: letter.seen,
        last_seen_at: letter.last_seen_at,
        replays: letter.replays,
        verdict: letter.verdict.clone(),
        verdict_detail: letter.verdict_detail.clone(),
    };
    let mut entries = vec![Entry { at: letter.first_seen_at, what, text }];
    // The first state is told already; a replay has an entry of its own.
    let is_news = letter.state != "replaying" && (letter.state != "open" || letter.state_by.is_some());
    if is_news {
        let by = letter.state_by.as_deref().map_or_else(|| " automatically".to_owned(), |actor| format!(" by {actor}"));
        let why = letter.state_reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
        let text = format!("dead letter {} was made {}{by}{why}", letter.id, letter.state);
        let what = StoryEvent::LetterChanged {
            letter_id: letter.id,
            state: letter.state.clone(),
            actor: letter.state_by.clone(),
            reason: letter.state_reason.clone(),
        };
        entries.push(Entry { at: letter.state_at, what, text });
    }
    entries
}

fn replays(records: &Records) -> impl Iterator<Item = Entry> {
    records.replays.iter().map(|replay| {
        let ended = replay.ended_at.map(|at| format!(" at {}", moment(at))).unwrap_or_default();
        let text = format!(
            "dead letter {} was sent again in replay {} by {} ({}), as its replay number {}: {}{ended}",
            replay.letter_id, replay.replay_id, replay.actor, replay.reason, replay.number, replay.state
        );
        let what = StoryEvent::LetterReplayed {
            letter_id: replay.letter_id,
            replay_id: replay.replay_id,
            number: replay.number,
            actor: replay.actor.clone(),
            is_self_declared: replay.is_self_declared,
            reason: replay.reason.clone(),
            state: replay.state.clone(),
            ended_at: replay.ended_at,
        };
        Entry { at: replay.sent_at.unwrap_or(replay.created_at), what, text }
    })
}

fn looks(records: &Records) -> impl Iterator<Item = Entry> {
    records.looks.iter().map(|look| {
        let provider = &look.provider;
        let first = match (look.asked_at, &look.said) {
            (Some(_), Some(said)) => format!("{provider} was asked about {}: {said}", look.payment_id),
            (Some(_), None) => format!("{provider} was asked about {} and did not answer", look.payment_id),
            (None, _) => format!("{provider} will be asked about {}", look.payment_id),
        };
        let mut text = first;
        if look.failures > 0 {
            text.push_str(&format!("; since then, {} questions in a row failed", look.failures));
        }
        match (look.asked_at, look.due_at) {
            (None, Some(at)) => text.push_str(&format!(", at {}", moment(at))),
            (Some(_), Some(at)) => text.push_str(&format!("; the next question is due at {}", moment(at))),
            (_, None) => text.push_str("; no further question is planned"),
        }
        if look.wanted > 0 {
            text.push_str("; a check was requested");
        }
        let what = StoryEvent::ProviderAsked {
            provider: provider.clone(),
            payment_id: look.payment_id.clone(),
            order_id: look.order_id.map(OrderId),
            asked_at: look.asked_at,
            said: look.said.clone(),
            next_at: look.due_at,
            failures: look.failures,
            wanted: look.wanted,
        };
        Entry { at: look.asked_at.unwrap_or(look.created_at), what, text }
    })
}

fn by_hand(line: &AuditRecord, records: &Records) -> Entry {
    let order = records.orders.iter().find(|record| record.order.id.to_string() == line.subject);
    let vouched = if line.is_self_declared { " (self-declared)" } else { "" };
    let why = line.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let by = format!("{}{vouched}{why}", line.actor);
    let price = |terms: &Option<serde_json::Value>| {
        let terms = terms.as_ref()?;
        Some(in_words(terms.get("amount_minor")?.as_i64()?, terms.get("currency")?.as_str()?))
    };
    let (what, text) = match order.filter(|_| line.action == AuditAction::OrderAmend.name()) {
        Some(record) => {
            let (before, after) = (price(&line.before).unwrap_or_default(), price(&line.after).unwrap_or_default());
            let what = StoryEvent::OrderAmended {
                order_id: record.order.id,
                actor: line.actor.clone(),
                is_self_declared: line.is_self_declared,
                reason: line.reason.clone(),
                before: line.before.clone(),
                after: line.after.clone(),
            };
            (what, format!("its price was amended from {before} to {after} by {by}"))
        }
        None => {
            let what = StoryEvent::ActedByHand {
                action: line.action.clone(),
                subject: line.subject.clone(),
                actor: line.actor.clone(),
                is_self_declared: line.is_self_declared,
                reason: line.reason.clone(),
                count: line.count,
            };
            (what, format!("{} of {} ({}) by {by}", line.action, line.subject, line.count))
        }
    };
    Entry { at: line.at, what, text }
}

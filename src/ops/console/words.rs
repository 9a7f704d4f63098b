//! What reasons, verdicts and states mean to whoever is on call, and what to do about them.

use crate::domain::{LetterState, OrderStatus, Reason};
use crate::http::{Html, html};
use crate::ops::standing::NextStep;
use crate::store::ReplayState;
use time::{Duration, OffsetDateTime, UtcOffset};

/// How something looks. The sign says it, too, for those who see no colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Wait,
    Bad,
    Quiet,
}

impl Tone {
    pub(super) fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Wait => "wait",
            Self::Bad => "bad",
            Self::Quiet => "quiet",
        }
    }

    pub(super) fn sign(self) -> &'static str {
        match self {
            Self::Good => "✓",
            Self::Wait => "…",
            Self::Bad => "✕",
            Self::Quiet => "–",
        }
    }
}

/// A word in a frame.
pub(super) fn mark(tone: Tone, word: &str) -> Html {
    html!["<span class=\"mark " (tone.class()) "\"><b aria-hidden=\"true\">" (tone.sign()) "</b> " (word) "</span>"]
}

/// What is known about a reason.
pub(super) struct Advice {
    /// In a few words, as a heading.
    pub(super) title: &'static str,
    /// What has happened, for somebody who does not know the program.
    pub(super) means: &'static str,
    /// What to do, one step after the other.
    pub(super) steps: &'static [&'static str],
}

/// What to know about a reason, by its public name; none for one that this version does not know.
pub(super) fn advice(name: &str) -> Option<Advice> {
    let reason = Reason::from_name(name)?;
    Some(advice_on(reason))
}

fn advice_on(reason: Reason) -> Advice {
    let of = |title, means, steps| Advice { title, means, steps };
    match reason {
        Reason::Malformed => of(
            "The message is not of the agreed form",
            "Whoever published it does not keep the contract payment-status.v1: its properties, its form, or an id \
             that does not begin with its provider's name. The same bytes will be refused again, unless a newer \
             version understands them.",
            &[
                "Find the publisher: the routing key and the message id below name its provider.",
                "Let it be mended, and let it publish the payment again under the same message id.",
                "Look whether the buyer has the credits meanwhile (the order's story); then archive this letter.",
            ],
        ),
        Reason::ProviderMismatch => of(
            "Published under another provider's name",
            "The routing key says for whom a sender may speak, and the body speaks for somebody else. It is a \
             mistake in a relay's set-up, or somebody tries what he may not do.",
            &[
                "Find out who published it. If nobody should have: take that user's rights in RabbitMQ away now.",
                "Else mend the relay, and let it publish again under its own key. This letter cannot be replayed: \
                 archive it.",
            ],
        ),
        Reason::LivemodeMismatch => of(
            "A live payment came to a test deployment",
            "Real money was paid, and the provider told it to a deployment with GRANTONCE_LIVEMODE=false.",
            &[
                "At the provider, look where the live webhook endpoint leads, and set it to the live deployment.",
                "Let the provider send the event again, there. The live reconciler finds the payment by itself, too.",
                "Archive this letter. Do not switch GRANTONCE_LIVEMODE here.",
            ],
        ),
        Reason::UnknownPayment => of(
            "No order has this payment",
            "It was paid, but no order names this payment, and the last retry is over. The site did not make the \
             order, or made it with another payment; or the payment is for something else, and the provider's \
             account is shared.",
            &[
                "Look the payment up at the provider: is it for something that is sold here?",
                "If so, make the order with this payment id (POST /v1/orders with payment_id). The verdict above \
                 turns to “would grant”; then replay.",
                "If not, archive the letter. If such payments come often, set GRANTONCE_UNKNOWN_PAYMENTS=ignore at \
                 the workers.",
            ],
        ),
        Reason::PaymentConflict => of(
            "It points to two orders",
            "Its payment ids, its order id or its provider belong to different orders. A payment belongs to one \
             order for ever, so this is never decided by itself.",
            &[
                "Open both orders named in the detail, and find out which one the buyer meant to pay.",
                "If the buyer has paid twice, give one payment back at the provider.",
                "If an order was made with a wrong payment, make it good there. A replay helps only when the verdict \
                 says so.",
            ],
        ),
        Reason::AccountMismatch => of(
            "Paid to another account at the provider",
            "The payment came in at another account of the provider than the order was made for.",
            &[
                "Was the order made for the right provider_account? The site has to say so when it makes the order.",
                "If the money is where it should be: make a new order for this payment, with its account, and replay.",
            ],
        ),
        Reason::AmountMismatch => of(
            "The amount is not the order's",
            "The provider took another amount than the order costs: tax, a promotion code, a currency's other minor \
             unit. Or somebody has tried to pay less. Nothing was granted.",
            &[
                "Compare what the buyer owes with what was paid.",
                "If the buyer owes no more: amend the order's price to what was paid (only before its grant), then replay. \
                 A whole group can be amended at once.",
                "If not: give the money back at the provider, and archive the letter.",
            ],
        ),
        Reason::CurrencyMismatch => of(
            "The currency is not the order's",
            "The provider took money in another currency than the order is in. Nothing was granted.",
            &[
                "Compare what the buyer owes with what was paid.",
                "If it is right as it was paid: amend the order with the command below (only before its grant), then \
                 replay.",
                "If not: give the money back at the provider, and archive the letter.",
            ],
        ),
        Reason::IdReused => of(
            "Its message id was used for something else",
            "A message with this id was applied before, with another content. An id is for one message; by id alone \
             this one would pass for a copy, and be lost.",
            &[
                "Find the publisher, and mend it: each message needs an id of its own.",
                "Let it publish this payment again under an id of its own; then archive the letter.",
                "Until then the order may lack something: let the provider be asked (POST /v1/orders/{id}/check).",
            ],
        ),
        Reason::TooManyFacts => of(
            "The order has too many parts",
            "An order keeps 1,000 captures, 1,000 refunds and 1,000 disputes; this one has as many. No real payment \
             does.",
            &["Look at the payment at the provider: what goes on there?", "Settle it by hand, and archive the letter."],
        ),
        Reason::Untranslatable => of(
            "A genuine webhook that is not understood",
            "The provider has signed it, so something has happened to a payment, but this version cannot tell what.",
            &[
                "Read the detail: it names the field. Look whether a newer version of grantonce knows it.",
                "With a newer version running, replay: the webhook is translated anew.",
                "If it hurries, let the provider be asked for the order (POST /v1/orders/{id}/check), which does not \
                 need it.",
            ],
        ),
        Reason::RejectedByDatabase => of(
            "Postgres refuses its data",
            "Everything was right with the message, but Postgres would not write it. The detail has the SQLSTATE \
             and, where one was violated, the constraint.",
            &[
                "Look for a constraint or a trigger that does not come from grantonce, and mend it.",
                "Then replay: it is applied as if it came for the first time.",
            ],
        ),
        Reason::Unexplained => of(
            "Somebody else put it into the dead letters",
            "It came without a reason of ours: another program published it to the dead letters, or an older one has \
             moved it.",
            &[
                "Read the message below, and find out who put it there.",
                "If the verdict says that a replay would do something, replay. If it is none of ours, archive it.",
            ],
        ),
        Reason::DeliveryLimit => of(
            "It came back to the queue too often",
            "RabbitMQ gave up after a hundred returns. Nothing need be wrong with the message: workers could not \
             settle it, for an outage of Postgres or a crash. It is tried once more by itself.",
            &[
                "Is Postgres in reach of the workers, and do they stay up? Look at their logs for given_back and \
                 panics.",
                "When they work, replay.",
            ],
        ),
    }
}

/// A verdict's name: how it looks, in a few words, and what follows from it.
pub(super) fn verdict(name: Option<&str>) -> (Tone, &'static str, &'static str) {
    match name {
        Some("would_grant") => (Tone::Good, "would grant", "A replay grants the credits."),
        Some("would_adjust") => (Tone::Good, "would adjust", "A replay gives credits, or takes them back."),
        Some("would_change") => (Tone::Good, "would be noted", "A replay is noted at the order; no credits move."),
        Some("would_ask") => (Tone::Good, "would ask the provider", "A replay makes the reconciler ask the provider."),
        Some("order_unknown") => (Tone::Wait, "order unknown", "Make the order first; a replay alone would come back."),
        Some("order_unreadable") => {
            (Tone::Bad, "order unreadable", "Its order's row cannot be read. Mend the row first.")
        }
        Some("would_be_refused") => (Tone::Bad, "refused again", "A replay would come back. Mend the cause first."),
        Some("already_applied") => {
            (Tone::Quiet, "applied already", "All that it says is known: nothing is left to do.")
        }
        Some("nothing_to_do") => (Tone::Quiet, "nothing to do", "It says nothing that could be applied."),
        Some(_) | None => (Tone::Wait, "not looked at yet", "Nobody has looked yet what a replay would come to."),
    }
}

/// A letter's state.
pub(super) fn state(state: LetterState) -> (Tone, &'static str) {
    match state {
        LetterState::Open => (Tone::Bad, "open"),
        LetterState::Replaying => (Tone::Wait, "under replay"),
        LetterState::Resolved => (Tone::Good, "resolved"),
        LetterState::Archived => (Tone::Quiet, "archived"),
    }
}

/// An order's status.
pub(super) fn order_status(status: OrderStatus) -> (Tone, &'static str) {
    match status {
        OrderStatus::AwaitingPayment => (Tone::Wait, "awaiting payment"),
        OrderStatus::Processing => (Tone::Wait, "processing"),
        OrderStatus::Fulfilled => (Tone::Good, "fulfilled"),
        OrderStatus::Canceled => (Tone::Quiet, "canceled"),
        OrderStatus::PartiallyRefunded => (Tone::Wait, "partially refunded"),
        OrderStatus::Refunded => (Tone::Quiet, "refunded"),
        OrderStatus::Disputed => (Tone::Bad, "disputed"),
    }
}

/// The next step for an order: the words of its button, and a sentence.
pub(super) fn step(step: NextStep) -> (&'static str, &'static str) {
    match step {
        NextStep::Replay => ("Replay…", "What refused these letters is gone. Replay them."),
        NextStep::Wait => ("See the replays", "A replay of these letters is under way. Wait for its outcome."),
        NextStep::AmendPrice => (
            "Amend the price…",
            "The provider took another amount than the order costs. If the buyer owes no more, amend the price to what \
             was paid, then replay. If not, give the money back at the provider and archive the letters.",
        ),
        NextStep::AmendByHand => (
            "Amend price and currency…",
            "The provider took money in another currency. If that is right, set price and currency, then replay. If \
             not, give the money back at the provider and archive the letters.",
        ),
        NextStep::MakeOrder => (
            "Make the order at the site, then replay.",
            "No order has this payment. If it is for something that is sold here, the site has to make the order with \
             this payment id. Then replay. If not, archive the letters.",
        ),
        NextStep::CheckAtProvider => (
            "Check at the provider…",
            "A replay would be refused again. Ask the provider how the payment stands: its answer comes as a new message.",
        ),
        NextStep::MendRow => (
            "Read the letter",
            "The order's row in the database cannot be read. Mend the row, then replay. The letter says what is wrong.",
        ),
        NextStep::ReadLetter => (
            "Read the letter",
            "A replay would be refused again. The page of the letter says what to do about its reason.",
        ),
        NextStep::None => ("Nothing to do", "No letter of it is open."),
    }
}

/// A replay's state, and what it means.
pub(super) fn replay_state(state: ReplayState) -> (Tone, &'static str, &'static str) {
    match state {
        ReplayState::Canary => {
            (Tone::Wait, "first letter", "One letter was sent ahead; the others follow when it is applied.")
        }
        ReplayState::Running => (Tone::Wait, "under way", "Letters are being sent."),
        ReplayState::Finished => (Tone::Good, "finished", "Every letter's outcome is known."),
        ReplayState::Canceled => (Tone::Quiet, "canceled", "Somebody ended it; what was not sent is open again."),
        ReplayState::Stopped => {
            (Tone::Bad, "stopped", "Its first letter was refused; what was not sent is open again.")
        }
    }
}

/// What became of one letter of a replay.
pub(super) fn outcome(name: &str) -> (Tone, &'static str) {
    match name {
        "queued" => (Tone::Wait, "not sent yet"),
        "sent" => (Tone::Wait, "sent, no outcome yet"),
        "resolved" => (Tone::Good, "applied"),
        "dead_again" => (Tone::Bad, "refused again"),
        "canceled" => (Tone::Quiet, "not sent"),
        _ => (Tone::Bad, "nothing heard of it"),
    }
}

/// How long ago, in the largest unit that says enough.
pub(super) fn ago(at: OffsetDateTime, now: OffsetDateTime) -> String {
    let passed = now - at;
    match passed.whole_seconds() {
        ..=-2 => "in a while".to_owned(),
        -1..=4 => "just now".to_owned(),
        seconds @ 5..=99 => format!("{seconds} s ago"),
        seconds @ 100..=5_999 => format!("{} min ago", seconds / 60),
        seconds @ 6_000..=172_799 => format!("{} h ago", seconds / 3_600),
        seconds => format!("{} days ago", seconds / 86_400),
    }
}

/// A time in UTC, to the second.
pub(super) fn utc(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    let (date, time) = (at.date(), at.time());
    format!("{date} {:02}:{:02}:{:02}", time.hour(), time.minute(), time.second())
}

/// A time with its age.
pub(super) fn when(at: OffsetDateTime, now: OffsetDateTime) -> Html {
    html![
        "<time datetime=\"" (utc(at).replace(' ', "T")) "Z\">" (utc(at)) "</time> <span class=\"dim\">" (ago(at, now))
        "</span>"
    ]
}

/// An age; the time itself is shown when one points at it.
pub(super) fn age(at: OffsetDateTime, now: OffsetDateTime) -> Html {
    html!["<time datetime=\"" (utc(at).replace(' ', "T")) "Z\" title=\"" (utc(at)) " UTC\">" (ago(at, now)) "</time>"]
}

/// How long something takes, about.
pub(super) fn about(duration: Duration) -> String {
    match duration.whole_seconds() {
        seconds @ ..=99 => format!("{} s", seconds.max(1)),
        seconds @ 100..=5_999 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// A number with its thousands apart.
pub(super) fn number(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("−{out}") } else { out }
}

/// So many of something.
pub(super) fn count(many: i64, one: &str, more: &str) -> String {
    format!("{} {}", number(many), if many == 1 { one } else { more })
}

/// Credits with their sign.
pub(super) fn signed(credits: i64) -> String {
    if credits > 0 { format!("+{}", number(credits)) } else { number(credits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::VerdictKind;
    use time::macros::datetime;

    #[test]
    fn there_is_advice_on_every_reason_and_a_word_for_every_verdict() {
        for reason in Reason::ALL {
            let advice = advice(reason.name()).unwrap();
            assert!(!advice.steps.is_empty() && !advice.title.ends_with('.') && advice.means.ends_with('.'));
        }
        assert!(advice("of another version").is_none());
        let unknown = verdict(None);
        for name in VerdictKind::NAMES.iter().copied() {
            assert_ne!(verdict(Some(name)), unknown, "{name}");
        }
        for name in ["queued", "sent", "resolved", "dead_again", "canceled"] {
            assert_ne!(outcome(name), outcome("unanswered"), "{name}");
        }
    }

    #[test]
    fn ages_and_numbers_are_short() {
        let now = datetime!(2026-01-05 12:00 UTC);
        for (seconds, words) in [
            (0, "just now"),
            (59, "59 s ago"),
            (180, "3 min ago"),
            (7_200, "2 h ago"),
            (200_000, "2 days ago"),
            (-9, "in a while"),
        ] {
            assert_eq!(ago(now - Duration::seconds(seconds), now), words);
        }
        assert_eq!(utc(now), "2026-01-05 12:00:00");
        for (given, shown) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (-1_234_567, "−1,234,567"),
            (i64::MIN, "−9,223,372,036,854,775,808"),
        ] {
            assert_eq!(number(given), shown);
        }
        assert_eq!((count(1, "letter", "letters"), signed(5)), ("1 letter".to_owned(), "+5".to_owned()));
    }
}

//! How verdicts, states and steps are named for an operator, and how times and numbers are written.

use crate::domain::{LetterState, OrderStatus};
use crate::http::{Html, html};
use crate::ops::standing::NextStep;
use crate::store::ReplayState;
use time::{Duration, OffsetDateTime, UtcOffset};

/// How urgent something looks. A sign says the same as the colour, for people who do not see the colour.
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

/// A word in a coloured frame.
pub(super) fn mark(tone: Tone, word: &str) -> Html {
    html!["<span class=\"mark " (tone.class()) "\"><b aria-hidden=\"true\">" (tone.sign()) "</b> " (word) "</span>"]
}

/// A verdict: how it looks, its name in a few words, and what a replay would do.
pub(super) fn verdict(name: Option<&str>) -> (Tone, &'static str, &'static str) {
    match name {
        Some("would_grant") => (Tone::Good, "would grant", "A replay grants the credits."),
        Some("would_adjust") => (Tone::Good, "would adjust", "A replay gives credits, or takes them back."),
        Some("would_change") => {
            (Tone::Good, "would be noted", "A replay changes what is known of the order; no credits move.")
        }
        Some("would_ask") => (Tone::Good, "would ask the provider", "A replay makes the reconciler ask the provider."),
        Some("order_unknown") => {
            (Tone::Wait, "order unknown", "Make the order first. A replay alone would be refused again.")
        }
        Some("order_unreadable") => {
            (Tone::Bad, "order unreadable", "The row of its order cannot be read. Correct the row first.")
        }
        Some("would_be_refused") => {
            (Tone::Bad, "refused again", "A replay would be refused again. Correct the cause first.")
        }
        Some("already_applied") => (Tone::Quiet, "applied already", "Everything that it says is known already."),
        Some("nothing_to_do") => (Tone::Quiet, "nothing to do", "It says nothing that could be applied."),
        Some(_) | None => (Tone::Wait, "not judged yet", "It was not judged yet what a replay would do."),
    }
}

/// How a letter's state is shown.
pub(super) fn state(state: LetterState) -> (Tone, &'static str) {
    match state {
        LetterState::Open => (Tone::Bad, "open"),
        LetterState::Replaying => (Tone::Wait, "under replay"),
        LetterState::Resolved => (Tone::Good, "resolved"),
        LetterState::Archived => (Tone::Quiet, "archived"),
    }
}

/// How an order's status is shown.
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
            "The order's row in the database cannot be read. Correct the row, then replay. The letter says what is wrong.",
        ),
        NextStep::ReadLetter => (
            "Read the letter",
            "A replay would be refused again. The page of the letter says what to do about its reason.",
        ),
        NextStep::None => ("Nothing to do", "No letter of it is open."),
    }
}

/// How a replay's state is shown, and what it means.
pub(super) fn replay_state(state: ReplayState) -> (Tone, &'static str, &'static str) {
    match state {
        ReplayState::Canary => {
            (Tone::Wait, "first letter", "One letter was sent first. The others follow when it is applied.")
        }
        ReplayState::Running => (Tone::Wait, "under way", "Letters are being sent."),
        ReplayState::Finished => (Tone::Good, "finished", "The outcome of every letter is known."),
        ReplayState::Canceled => {
            (Tone::Quiet, "canceled", "An operator ended it. Letters that were not sent are open again.")
        }
        ReplayState::Stopped => {
            (Tone::Bad, "stopped", "Its first letter was refused. Letters that were not sent are open again.")
        }
    }
}

/// The outcome of one letter of a replay.
pub(super) fn outcome(name: &str) -> (Tone, &'static str) {
    match name {
        "queued" => (Tone::Wait, "not sent yet"),
        "sent" => (Tone::Wait, "sent, no outcome yet"),
        "resolved" => (Tone::Good, "applied"),
        "dead_again" => (Tone::Bad, "refused again"),
        "canceled" => (Tone::Quiet, "not sent"),
        _ => (Tone::Bad, "no outcome came"),
    }
}

/// How long ago something happened, in the largest unit that is precise enough.
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

/// A time together with its age.
pub(super) fn when(at: OffsetDateTime, now: OffsetDateTime) -> Html {
    html![
        "<time datetime=\"" (utc(at).replace(' ', "T")) "Z\">" (utc(at)) "</time> <span class=\"dim\">" (ago(at, now))
        "</span>"
    ]
}

/// An age; the time itself is in the title.
pub(super) fn age(at: OffsetDateTime, now: OffsetDateTime) -> Html {
    html!["<time datetime=\"" (utc(at).replace(' ', "T")) "Z\" title=\"" (utc(at)) " UTC\">" (ago(at, now)) "</time>"]
}

/// A duration, rounded to one unit.
pub(super) fn about(duration: Duration) -> String {
    match duration.whole_seconds() {
        seconds @ ..=99 => format!("{} s", seconds.max(1)),
        seconds @ 100..=5_999 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

/// A number with commas between its thousands.
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

/// A number and its noun.
pub(super) fn count(many: i64, one: &str, more: &str) -> String {
    format!("{} {}", number(many), if many == 1 { one } else { more })
}

/// A number of credits with its sign.
pub(super) fn signed(credits: i64) -> String {
    if credits > 0 { format!("+{}", number(credits)) } else { number(credits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::VerdictKind;
    use time::macros::datetime;

    #[test]
    fn there_is_a_word_for_every_verdict_and_outcome() {
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

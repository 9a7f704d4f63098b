//! Creating a payment at a provider once, whatever is lost on the way.
//!
//! An attempt has a key of its own and is committed before its first call. Calling again under the same key is the question
//! what became of the first call, for as long as the provider remembers the key. After that, and when the provider has
//! bound the key to a failure, it is looked for by other means before a new attempt is made.

use super::ids::Provider;
use time::{Duration, OffsetDateTime};

/// Most attempts for one order. Whatever eats that many is for a person to look at.
pub const ATTEMPTS_MAX: usize = 20;

/// How a provider treats the key of a call that creates a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRules {
    /// How long after its first call a key is certain to be remembered. Shorter than the provider says.
    pub same_key_for: Duration,
    /// How long after the last call it is looked whether a payment was made after all; none where a payment whose answer
    /// was lost can be paid by nobody, and need not be looked for.
    pub look_after: Option<Duration>,
}

impl KeyRules {
    /// The rules of a provider, if payments can be created there at all.
    pub fn of(provider: &Provider) -> Option<Self> {
        match provider.as_str() {
            // Keys may be forgotten after 24 h (<https://docs.stripe.com/api/idempotent_requests>).
            "stripe" => Some(Self { same_key_for: Duration::hours(20), look_after: Some(Duration::hours(1)) }),
            // 6 h for orders; an order can be paid only by who was given its link.
            "paypal" => Some(Self { same_key_for: Duration::hours(5), look_after: None }),
            _ => None,
        }
    }
}

/// An attempt to create the payment, as it is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// 1, 2, …
    pub number: i32,
    /// When its key was first used.
    pub first_sent_at: OffsetDateTime,
    /// And last.
    pub last_sent_at: OffsetDateTime,
    /// Whether the provider has bound the key to something that is no payment.
    pub is_burnt: bool,
}

/// What to do next for an order that has no payment yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Call under the key of this attempt: a new one, or the last one again.
    Call {
        /// Which.
        number: i32,
    },
    /// Ask for payments of this order that were made since then. Where there is none, call under the key of a new attempt.
    LookFirst {
        /// When the first attempt was first sent.
        since: OffsetDateTime,
        /// The new attempt.
        number: i32,
    },
    /// It is too early to look: what was sent last may still be on its way.
    Wait {
        /// Until when.
        until: OffsetDateTime,
    },
    /// [`ATTEMPTS_MAX`] are over.
    GiveUp,
}

/// What to do next. `attempts` are all there were, in the order of their numbers.
pub fn next_step(rules: KeyRules, attempts: &[Attempt], now: OffsetDateTime) -> NextStep {
    let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else {
        return NextStep::Call { number: 1 };
    };
    // A clock that stands behind another process's only makes the key look younger than it is, by no more than the hours
    // that the rules are short of the provider's.
    if !last.is_burnt && now - last.first_sent_at < rules.same_key_for {
        return NextStep::Call { number: last.number };
    }
    if attempts.len() >= ATTEMPTS_MAX {
        return NextStep::GiveUp;
    }
    let number = last.number.saturating_add(1);
    match rules.look_after {
        None => NextStep::Call { number },
        Some(after) if now < last.last_sent_at + after => NextStep::Wait { until: last.last_sent_at + after },
        Some(_) => NextStep::LookFirst { since: first.first_sent_at, number },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);

    fn attempt(number: i32, first_hours_ago: f64, last_hours_ago: f64, is_burnt: bool) -> Attempt {
        let ago = |hours: f64| NOW - Duration::seconds_f64(hours * 3600.0);
        Attempt { number, first_sent_at: ago(first_hours_ago), last_sent_at: ago(last_hours_ago), is_burnt }
    }

    fn stripe(attempts: &[Attempt]) -> NextStep {
        next_step(KeyRules::of(&Provider::STRIPE).unwrap(), attempts, NOW)
    }

    #[test]
    fn the_same_key_is_the_question_for_as_long_as_it_is_remembered() {
        assert_eq!(stripe(&[]), NextStep::Call { number: 1 });
        assert_eq!(stripe(&[attempt(1, 0.0, 0.0, false)]), NextStep::Call { number: 1 });
        assert_eq!(stripe(&[attempt(1, 19.9, 0.0, false)]), NextStep::Call { number: 1 });
        assert_eq!(stripe(&[attempt(1, 40.0, 30.0, true), attempt(2, 19.9, 0.0, false)]), NextStep::Call { number: 2 });
    }

    #[test]
    fn a_key_that_may_be_forgotten_or_is_burnt_is_never_used_again() {
        let first_sent_at = attempt(1, 21.0, 2.0, false).first_sent_at;
        for old in [attempt(1, 21.0, 2.0, false), attempt(1, 21.0, 1.0, true)] {
            assert_eq!(stripe(&[old]), NextStep::LookFirst { since: first_sent_at, number: 2 });
        }
        // What was sent last may still be on its way to the list.
        for young in [attempt(1, 21.0, 0.5, false), attempt(1, 0.5, 0.5, true)] {
            assert_eq!(stripe(&[young]), NextStep::Wait { until: young.last_sent_at + Duration::hours(1) });
        }
        let second = attempt(2, 5.0, 5.0, true);
        assert_eq!(
            stripe(&[attempt(1, 30.0, 8.0, false), second]),
            NextStep::LookFirst { since: NOW - Duration::hours(30), number: 3 },
            "since the first attempt of all"
        );
    }

    #[test]
    fn where_a_lost_answer_makes_a_payment_unpayable_there_is_nothing_to_look_for() {
        let paypal = Provider::new("paypal").unwrap();
        let next = |attempts: &[Attempt]| next_step(KeyRules::of(&paypal).unwrap(), attempts, NOW);
        assert_eq!(next(&[attempt(1, 4.9, 0.0, false)]), NextStep::Call { number: 1 });
        assert_eq!(next(&[attempt(1, 5.1, 0.0, false)]), NextStep::Call { number: 2 });
        assert_eq!(next(&[attempt(1, 0.1, 0.0, true)]), NextStep::Call { number: 2 });
    }

    #[test]
    fn attempts_come_to_an_end() {
        let many: Vec<_> = (1..).take(ATTEMPTS_MAX).map(|number| attempt(number, 30.0, 30.0, true)).collect();
        assert_eq!(stripe(&many), NextStep::GiveUp);
        assert_eq!(KeyRules::of(&Provider::STANDARD), None);
    }
}

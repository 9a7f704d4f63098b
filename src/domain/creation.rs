//! Creating a payment at a provider once, even if calls, answers or processes are lost.
//!
//! An attempt has a key of its own and is committed before its first call. A second call under the same key tells what the first
//! one did, as long as the provider remembers the key. After that, and if the provider has bound the key to a failure, the payment
//! is searched for before a new attempt is made.

use super::ids::Provider;
use time::{Duration, OffsetDateTime};

/// Most attempts for one order. If they are used up, a person has to look at the order.
pub const ATTEMPTS_MAX: usize = 20;

/// How a provider treats the key of a call that creates a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRules {
    /// How long after its first call a key is certain to be remembered. This is shorter than the time that the provider documents.
    pub same_key_for: Duration,
    /// How long after the last call to search for a payment. `None`: nobody can pay a payment whose answer was lost, so no search
    /// is needed.
    pub look_after: Option<Duration>,
}

impl KeyRules {
    /// The rules of a provider. `None` if payments cannot be created there.
    pub fn of(provider: &Provider) -> Option<Self> {
        match provider.as_str() {
            // Keys may be forgotten after 24 h (<https://docs.stripe.com/api/idempotent_requests>).
            "stripe" => Some(Self { same_key_for: Duration::hours(20), look_after: Some(Duration::hours(1)) }),
            // PayPal remembers keys of orders for 6 h. Only a buyer who was given the link of an order can pay it.
            "paypal" => Some(Self { same_key_for: Duration::hours(5), look_after: None }),
            _ => None,
        }
    }
}

/// One attempt to create the payment, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempt {
    /// The number of the attempt, from 1.
    pub number: i32,
    /// When its key was first used.
    pub first_sent_at: OffsetDateTime,
    /// When its key was last used.
    pub last_sent_at: OffsetDateTime,
    /// Whether the provider has bound the key to something else than a payment.
    pub is_burnt: bool,
}

/// What to do next for an order that has no payment yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// Call under the key of this attempt, which is a new one or the last one.
    Call {
        /// The number of the attempt.
        number: i32,
    },
    /// Ask for payments of this order that were created since then. If there is none, call under the key of a new attempt.
    LookFirst {
        /// When the first attempt was first sent.
        since: OffsetDateTime,
        /// The number of the new attempt.
        number: i32,
    },
    /// It is too early to search: the last call may still be on its way.
    Wait {
        /// When a search can be made.
        until: OffsetDateTime,
    },
    /// [`ATTEMPTS_MAX`] attempts were made.
    GiveUp,
}

/// Decides what to do next. `attempts` are all attempts of the order, in the order of their numbers.
pub fn next_step(rules: KeyRules, attempts: &[Attempt], now: OffsetDateTime) -> NextStep {
    let (Some(first), Some(last)) = (attempts.first(), attempts.last()) else {
        return NextStep::Call { number: 1 };
    };
    // If this clock is behind the clock of another process, the key looks younger than it is. The rules are hours shorter than the
    // provider's, which is more than clocks differ.
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
        // The last call may not be in the list yet.
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

//! When to ask a provider about a payment for which no webhook came, or no further one.
//!
//! Nearly always, webhooks report everything within seconds. So the provider is asked soon after an order should have been paid,
//! and then less and less often. A paid order is asked about from time to time, as long as a refund or dispute may have been
//! missed.

use super::ids::Provider;
use super::order::OrderStatus;
use time::{Duration, OffsetDateTime};

/// Ages at which an unpaid order is asked about, as multiples of the first one. With a first look after two minutes: 2 and 10
/// minutes, half an hour, 2 and 8 hours, 1, 2, 4, 8 and 16 days.
const UNPAID_AT: [i32; 10] = [1, 5, 15, 60, 240, 720, 1_440, 2_880, 5_760, 11_520];

/// How many of these looks an order gets if nobody began to pay it. Stripe tries to deliver a webhook for three days. After the
/// eighth look, at four days, the order is an abandoned cart. A bank debit that is under way can take two weeks.
const LOOKS_AT_A_CART: usize = 8;

/// Ages, in days, at which a paid order is asked about. Card networks take disputes for up to 120 days.
const PAID_AT_DAYS: [i64; 5] = [1, 7, 30, 60, 125];

/// Pauses after a failed call to a provider: the first value, doubled each time, up to the second.
const FIRST_WAIT: Duration = Duration::seconds(30);
const LONGEST_WAIT: Duration = Duration::hours(1);

/// Shortest time between two looks at one payment, however often a look is requested.
pub const LOOKS_APART: Duration = Duration::seconds(5);

/// Whether the provider can be asked about a payment by its id. Adyen cannot. For relays' providers no address is known. Their
/// payments depend on messages only.
pub fn can_be_asked(provider: &str) -> bool {
    [Provider::STRIPE, Provider::PAYPAL].iter().any(|known| known.as_str() == provider)
}

/// Whether money has come in, as far as it is known.
pub fn is_unpaid(status: OrderStatus) -> bool {
    match status {
        OrderStatus::AwaitingPayment | OrderStatus::Processing | OrderStatus::Canceled => true,
        OrderStatus::Fulfilled | OrderStatus::PartiallyRefunded | OrderStatus::Refunded | OrderStatus::Disputed => {
            false
        }
    }
}

/// The age of a paid order at its first look.
pub const PAID_FIRST_LOOK: Duration = match PAID_AT_DAYS {
    [first, ..] => Duration::days(first),
};

/// When to ask about an order again after a look now. `None`: nothing more is expected. `first` is the age of an unpaid order at
/// its first look.
pub fn next_look(
    status: OrderStatus,
    created_at: OffsetDateTime,
    first: Duration,
    now: OffsetDateTime,
) -> Option<OffsetDateTime> {
    let unpaid = |count| UNPAID_AT.iter().take(count).map(|times| first * *times).collect::<Vec<_>>();
    let ages = match status {
        OrderStatus::AwaitingPayment | OrderStatus::Canceled => unpaid(LOOKS_AT_A_CART),
        OrderStatus::Processing => unpaid(UNPAID_AT.len()),
        OrderStatus::Fulfilled | OrderStatus::PartiallyRefunded | OrderStatus::Refunded | OrderStatus::Disputed => {
            PAID_AT_DAYS.map(Duration::days).to_vec()
        }
    };
    ages.into_iter().map(|age| created_at + age).find(|at| *at > now)
}

/// When to ask again after `failures` failed calls in a row, the last one now.
pub fn look_again(failures: u32, now: OffsetDateTime) -> OffsetDateTime {
    let doubled = FIRST_WAIT * 2_i32.saturating_pow(failures.saturating_sub(1).min(20));
    now + doubled.min(LONGEST_WAIT)
}

/// How many looks may start now at `per_s` a second, if earlier looks fill the time up to `busy_until`. Also returns until when the
/// time is filled after that many. At most one second's worth at once.
pub fn allowance(per_s: u16, busy_until: OffsetDateTime, now: OffsetDateTime) -> u16 {
    let free = (now + Duration::SECOND - busy_until.max(now)).whole_milliseconds().clamp(0, 1_000);
    u16::try_from(free * i128::from(per_s) / 1_000).unwrap_or(0)
}

/// Until when the time is filled after `count` more looks.
pub fn busy_until(per_s: u16, count: u16, busy_until: OffsetDateTime, now: OffsetDateTime) -> OffsetDateTime {
    busy_until.max(now) + Duration::SECOND * i32::from(count) / i32::from(per_s.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const MADE: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);
    const FIRST: Duration = Duration::minutes(2);

    fn all(status: OrderStatus) -> Vec<i64> {
        let (mut now, mut minutes) = (MADE, vec![]);
        while let Some(next) = next_look(status, MADE, FIRST, now) {
            assert!(next > now);
            minutes.push((next - MADE).whole_minutes());
            now = next;
        }
        minutes
    }

    #[test]
    fn an_unpaid_order_is_asked_about_less_and_less_until_it_is_abandoned() {
        assert_eq!(all(OrderStatus::AwaitingPayment), [2, 10, 30, 120, 480, 1_440, 2_880, 5_760]);
        assert_eq!(all(OrderStatus::Canceled), all(OrderStatus::AwaitingPayment));
        assert_eq!(all(OrderStatus::Processing)[7..], [5_760, 11_520, 23_040]);
        // A late caller does not make up for missed time.
        let late = MADE + Duration::hours(27);
        assert_eq!(next_look(OrderStatus::Processing, MADE, FIRST, late), Some(MADE + Duration::days(2)));
    }

    #[test]
    fn a_paid_order_is_asked_about_for_as_long_as_it_can_be_disputed() {
        for status in [OrderStatus::Fulfilled, OrderStatus::Refunded, OrderStatus::Disputed] {
            assert!(!is_unpaid(status));
            assert_eq!(all(status), [1, 7, 30, 60, 125].map(|days| days * 24 * 60));
        }
        assert_eq!(next_look(OrderStatus::Fulfilled, MADE, FIRST, MADE), Some(MADE + PAID_FIRST_LOOK));
    }

    #[test]
    fn a_provider_that_does_not_answer_is_left_alone_for_longer_and_longer() {
        let waits: Vec<_> = (1..=9).map(|failures| (look_again(failures, MADE) - MADE).whole_seconds()).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1_920, 3_600, 3_600]);
        assert_eq!(look_again(u32::MAX, MADE), MADE + LONGEST_WAIT);
    }

    #[test]
    fn the_rate_is_kept_over_any_time_whoever_asks() {
        let mut busy = MADE - Duration::days(1);
        let mut asked = 0_u32;
        // Looking every 70 ms, for ten seconds, and taking all there is.
        for step in 0..143 {
            let now = MADE + Duration::milliseconds(70) * step;
            let count = allowance(10, busy, now);
            busy = busy_until(10, count, busy, now);
            asked += u32::from(count);
        }
        assert!((105..=111).contains(&asked), "{asked} in 10 s: one second's worth at the start and 10 a second");
        assert_eq!(allowance(10, MADE + Duration::days(1), MADE), 0);
        assert_eq!(allowance(10, MADE - Duration::days(1), MADE), 10, "what was not used is not saved up");
    }
}

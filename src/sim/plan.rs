//! What happens in a run, decided by its seed alone: who buys what, who pays, which webhooks a payment has, in which
//! order and how often they are sent, and which never. The same seed decides the same.

use super::payment::{Outcome, Said, Seller};
use fastrand::Rng;
use std::time::Duration;

/// One order of the headless run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OrderPlan {
    /// Seed of everything that the provider decides about the payment.
    pub(super) payment_seed: u64,
    pub(super) account_id: String,
    pub(super) credits: i64,
    pub(super) amount_minor: i64,
    pub(super) currency: &'static str,
    pub(super) seller: Seller,
    /// What becomes of the payment; none: the buyer walks away.
    pub(super) outcome: Option<Outcome>,
    /// The payment is made and its webhooks are sent before the site places the order.
    pub(super) is_overtaken: bool,
    /// The provider carries our order id back to us; else the order is found by the payment's id.
    pub(super) tells_order_id: bool,
    /// The site places the order a second time under the same idempotency key.
    pub(super) is_placed_twice: bool,
    /// None of the payment's webhooks is ever sent.
    pub(super) is_silent: bool,
    /// The site does not make the payment: it is created with the order.
    pub(super) is_created: bool,
}

impl OrderPlan {
    /// The plan of order `index` of `orders`. The site makes every payment, and the webhooks of each are sent.
    pub(super) fn new(seed: u64, index: u32, orders: u32) -> Self {
        let mut rng = Rng::with_seed(mix(seed, u64::from(index)));
        // Three orders an account: several payments must meet on one balance.
        let account = rng.u32(0..(orders / 3).max(1));
        let credits = rng.i64(1..=500);
        let outcome = match rng.u8(0..100) {
            0..4 => None,
            4..7 => Some(Outcome::Failed),
            7..8 => Some(Outcome::Canceled),
            _ => Some(Outcome::Succeeded),
        };
        let is_overtaken = outcome.is_some() && chance(&mut rng, 15);
        Self {
            payment_seed: rng.u64(..),
            account_id: format!("account-{account:05}"),
            credits,
            amount_minor: credits * rng.i64(3..=20),
            currency: rng.choice(["USD", "EUR", "JPY"]).unwrap_or("USD"),
            seller: if chance(&mut rng, 70) { Seller::Stripe } else { Seller::Standard },
            outcome,
            is_overtaken,
            tells_order_id: !is_overtaken && chance(&mut rng, 50),
            is_placed_twice: chance(&mut rng, 5),
            is_silent: false,
            is_created: false,
        }
    }

    /// The same plan, where some payments are not made by the site but created with the order, at Stripe.
    pub(super) fn with_creation(mut self) -> Self {
        let is_drawn = Rng::with_seed(mix(self.payment_seed, CREATION)).u8(0..100) < CREATED_PERCENT;
        let can_be = self.seller == Seller::Stripe && self.amount_minor >= STRIPE_UNITS_MIN;
        // A payment is told to be silent by whoever made it, and none can come before the order that creates it.
        self.is_created = is_drawn && can_be && !self.is_silent && !self.is_overtaken;
        self
    }

    /// The same plan where a share of the payments (0 to 1) is never told of. Then all of them are made at a provider who
    /// can be asked: of the others nobody would ever hear. And nobody can wait for a webhook that is never sent.
    pub(super) fn with_silence(mut self, share: f64) -> Self {
        if share > 0.0 {
            self.seller = Seller::Stripe;
            // A draw of its own: how many are silent must not change what else happens.
            self.is_silent = Rng::with_seed(mix(self.payment_seed, SILENCE)).f64() < share;
            self.is_overtaken &= !self.is_silent;
        }
        self
    }
}

/// Set these draws apart from the others of the same seed.
const SILENCE: u64 = 0x51_1E_4C_E5;
const CREATION: u64 = 0xC4_EA_7E;

/// How many of a hundred payments are created with the order, where that is possible.
const CREATED_PERCENT: u8 = 30;

/// Stripe takes no smaller amounts.
const STRIPE_UNITS_MIN: i64 = 50;

/// One event that the provider reports, and when each copy of its webhook is sent after the buyer has acted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) said: Said,
    pub(super) copies: Vec<Duration>,
}

/// What a provider reports once the buyer has acted, `copies` times each.
pub(super) fn reports(rng: &mut Rng, seller: Seller, outcome: Outcome, copies: u32) -> Vec<Report> {
    let said = said(rng, seller, outcome);
    spread(rng, said, copies)
}

fn said(rng: &mut Rng, seller: Seller, outcome: Outcome) -> Vec<Said> {
    let mut said = Vec::new();
    match outcome {
        Outcome::Succeeded => {
            said.push(Said::Succeeded);
            for (event, percent) in [(Said::SessionCompleted, 30), (Said::Processing, 20), (Said::AttemptFailed, 15)] {
                if chance(rng, percent) {
                    said.push(event);
                }
            }
        }
        Outcome::Failed => {
            said.push(Said::AttemptFailed);
            if chance(rng, 30) {
                said.push(Said::Processing);
            }
        }
        Outcome::Canceled => {
            said.push(Said::Canceled);
            if chance(rng, 30) {
                said.push(Said::AttemptFailed);
            }
        }
    }
    if seller == Seller::Stripe && chance(rng, 20) {
        said.push(Said::Created);
    }
    said
}

/// When the copies of each webhook are sent. Each event's own delay decides the order of arrival: what happened first may
/// well be heard last.
pub(super) fn spread(rng: &mut Rng, said: Vec<Said>, copies: u32) -> Vec<Report> {
    said.into_iter().map(|said| Report { said, copies: delays(rng, copies) }).collect()
}

/// When the copies of one webhook are sent: the first soon, of the others half at the very same moment, a third shortly
/// after, and the rest when nobody thinks of it any more.
fn delays(rng: &mut Rng, copies: u32) -> Vec<Duration> {
    let first_ms = rng.u64(0..40);
    let mut delays = vec![Duration::from_millis(first_ms)];
    for _ in 1..copies {
        let after_ms = match rng.u8(0..100) {
            0..50 => 0,
            50..85 => rng.u64(1..300),
            _ => rng.u64(300..2000),
        };
        delays.push(Duration::from_millis(first_ms + after_ms));
    }
    delays
}

fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(0..100) < percent
}

/// Spreads two numbers over one seed (the finalizer of SplitMix64), so that neighbours have nothing in common.
pub(super) fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let plans = |seed| (0..100).map(|n| OrderPlan::new(seed, n, 100)).collect::<Vec<_>>();
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
        let reports = |seed| reports(&mut Rng::with_seed(seed), Seller::Stripe, Outcome::Succeeded, 5);
        assert_eq!(reports(1), reports(1));
        assert_ne!(reports(1), reports(2));
    }

    #[test]
    fn everything_happens_to_somebody() {
        let plans: Vec<_> = (0..1000).map(|n| OrderPlan::new(1, n, 1000)).collect();
        let count = |is: &dyn Fn(&OrderPlan) -> bool| plans.iter().filter(|plan| is(plan)).count();
        assert!((20..70).contains(&count(&|plan| plan.outcome.is_none())));
        assert!((10..60).contains(&count(&|plan| plan.outcome == Some(Outcome::Failed))));
        assert!((1..30).contains(&count(&|plan| plan.outcome == Some(Outcome::Canceled))));
        assert!((80..220).contains(&count(&|plan| plan.is_overtaken)));
        assert!((300..500).contains(&count(&|plan| plan.tells_order_id)));
        assert!((200..400).contains(&count(&|plan| plan.seller == Seller::Standard)));
        assert_eq!(count(&|plan| plan.is_overtaken && (plan.outcome.is_none() || plan.tells_order_id)), 0);
    }

    #[test]
    fn a_share_of_the_payments_is_silent_and_can_be_asked_for() {
        let plans = |share: f64| (0..1000).map(move |n| OrderPlan::new(1, n, 1000).with_silence(share));
        assert_eq!(plans(0.0).collect::<Vec<_>>(), (0..1000).map(|n| OrderPlan::new(1, n, 1000)).collect::<Vec<_>>());
        for (share, range) in [(0.25, 200..300), (1.0, 1000..1001)] {
            assert!(range.contains(&plans(share).filter(|plan| plan.is_silent).count()), "{share}");
            assert!(plans(share).all(|plan| plan.seller == Seller::Stripe && !(plan.is_silent && plan.is_overtaken)));
        }
        let silent = |share| plans(share).map(|plan| plan.is_silent).collect::<Vec<_>>();
        assert_eq!(silent(0.3), silent(0.3));
    }

    #[test]
    fn some_payments_are_created_with_their_order() {
        let plans: Vec<_> = (0..1000).map(|n| OrderPlan::new(1, n, 1000).with_silence(0.3).with_creation()).collect();
        let created: Vec<_> = plans.iter().filter(|plan| plan.is_created).collect();
        assert!((100..300).contains(&created.len()), "{}", created.len());
        for plan in created {
            assert!(plan.seller == Seller::Stripe && plan.amount_minor >= 50 && !plan.is_silent && !plan.is_overtaken);
        }
    }

    #[test]
    fn what_happened_first_may_be_heard_last_and_every_webhook_has_its_copies() {
        let (mut both, mut late_failure) = (0, 0);
        for seed in 0..500 {
            let reports = reports(&mut Rng::with_seed(seed), Seller::Stripe, Outcome::Succeeded, 4);
            assert!(reports.iter().all(|report| report.copies.len() == 4));
            let first = |said| reports.iter().find(|report| report.said == said).map(|report| report.copies[0]);
            assert!(first(Said::Succeeded).is_some());
            both += u32::from(first(Said::SessionCompleted).is_some());
            late_failure += u32::from(first(Said::AttemptFailed) > first(Said::Succeeded));
        }
        assert!((100..200).contains(&both), "{both}");
        assert!(late_failure > 10, "{late_failure}");
    }
}

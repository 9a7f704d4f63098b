//! What happens in a run, decided by its seed alone: who buys what, who pays, which webhooks a payment has, in which
//! order and how often they are sent, and which never. The same seed decides the same.

use fastrand::Rng;
use grantonce_testkit::provider::payment::{Outcome, Seller};
use grantonce_testkit::provider::plan::mix;

/// One order of the headless run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OrderPlan {
    /// Seed of everything that the provider decides about the payment.
    pub(crate) payment_seed: u64,
    pub(crate) account_id: String,
    pub(crate) credits: i64,
    pub(crate) amount_minor: i64,
    pub(crate) currency: &'static str,
    pub(crate) seller: Seller,
    /// What becomes of the payment; none: the buyer walks away.
    pub(crate) outcome: Option<Outcome>,
    /// The payment is made and its webhooks are sent before the site places the order.
    pub(crate) is_overtaken: bool,
    /// The provider carries our order id back to us; else the order is found by the payment's id.
    pub(crate) tells_order_id: bool,
    /// The site places the order a second time under the same idempotency key.
    pub(crate) is_placed_twice: bool,
    /// None of the payment's webhooks is ever sent.
    pub(crate) is_silent: bool,
    /// The site does not make the payment: it is created with the order.
    pub(crate) is_created: bool,
}

impl OrderPlan {
    /// The plan of order `index` of `orders`. The site makes every payment, and the webhooks of each are sent.
    pub(crate) fn new(seed: u64, index: u32, orders: u32) -> Self {
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
    pub(crate) fn with_creation(mut self) -> Self {
        let is_drawn = Rng::with_seed(mix(self.payment_seed, CREATION)).u8(0..100) < CREATED_PERCENT;
        let can_be = self.seller == Seller::Stripe && self.amount_minor >= STRIPE_UNITS_MIN;
        // A payment is told to be silent by whoever made it, and none can come before the order that creates it.
        self.is_created = is_drawn && can_be && !self.is_silent && !self.is_overtaken;
        self
    }

    /// The same plan, where the site places the order before the buyer pays.
    pub(crate) fn in_order(mut self) -> Self {
        self.is_overtaken = false;
        self
    }

    /// The same plan where a share of the payments (0 to 1) is never told of. Then all of them are made at a provider who
    /// can be asked: of the others nobody would ever hear. And nobody can wait for a webhook that is never sent.
    pub(crate) fn with_silence(mut self, share: f64) -> Self {
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

fn chance(rng: &mut Rng, percent: u8) -> bool {
    rng.u8(0..100) < percent
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_everything() {
        let plans = |seed| (0..100).map(|n| OrderPlan::new(seed, n, 100)).collect::<Vec<_>>();
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
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
}

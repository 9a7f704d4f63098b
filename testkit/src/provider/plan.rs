//! The reports of an action on a payment: which webhooks are sent, in which order, and how many copies at which time. A seed
//! decides all of it.

use super::payment::{Outcome, Said, Seller};
use fastrand::Rng;
use std::time::Duration;

/// One event that the provider reports, and the times of its webhook's copies after the action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The content of the event.
    pub said: Said,
    /// The delay of each copy of the webhook, from now on.
    pub copies: Vec<Duration>,
}

/// The reports after the buyer has acted, with `copies` copies each.
pub fn reports(rng: &mut Rng, seller: Seller, outcome: Outcome, copies: u32) -> Vec<Report> {
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

/// Chooses the times of each webhook's copies. Each event has its own delay, so an early event may arrive last.
pub fn spread(rng: &mut Rng, said: Vec<Said>, copies: u32) -> Vec<Report> {
    said.into_iter().map(|said| Report { said, copies: delays(rng, copies) }).collect()
}

/// The delays of one webhook's copies. The first copy is sent soon. Half of the others come at the same moment, a third shortly
/// after, and the rest much later.
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

/// Mixes two numbers into one seed (the finalizer of SplitMix64), so neighbouring numbers give unrelated seeds.
pub fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_decides_every_report() {
        let reports = |seed| reports(&mut Rng::with_seed(seed), Seller::Stripe, Outcome::Succeeded, 5);
        assert_eq!(reports(1), reports(1));
        assert_ne!(reports(1), reports(2));
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

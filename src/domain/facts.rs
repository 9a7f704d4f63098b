//! The payment's converging state: a join of facts.
//!
//! Not a state machine over events in the order of their arrival. [`PaymentFacts::join`] is commutative, associative
//! and idempotent: whatever arrives first, twice, or late, the same set of facts gives the same state, so nothing here
//! needs to remember which messages were seen.

use super::ids::FactId;
use super::money::Money;
use super::status::{CaptureState, DisputePolicy, DisputeState, PaymentEvent, PaymentStatus, RefundState};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// How many captures, refunds and disputes of one payment are kept, each (a batch in hand may go over it by its own length).
pub const FACTS_MAX: usize = 1_000;

/// Stands for a dispute in another currency: it takes all, however much was captured and whatever the order's price is
/// amended to.
const ALL_MINOR: i64 = i64::MAX;

/// What is known of one capture. The order of the fields is the order of the join: state first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Capture {
    state: CaptureState,
    amount_minor: i64,
}

/// What is known of one refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Refund {
    state: RefundState,
    amount_minor: i64,
}

/// What is known of one dispute: the latest round counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Dispute {
    round: u32,
    state: DisputeState,
    /// [`ALL_MINOR`] where the dispute is in another currency.
    amount_minor: i64,
}

/// The last failed attempt: the greatest of (occurred at, message id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Failure {
    at_unix_us: i64,
    message_id: String,
    reason: String,
}

/// Microseconds since 1970. Every date that can be written with a four-digit year fits; ties are broken by message id.
fn unix_us(at: time::OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// All that has been said of one payment, joined. Kept with its order as compact JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PaymentFacts {
    #[serde(skip_serializing_if = "is_zero")]
    captured_total_minor: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    captures: BTreeMap<String, Capture>,
    #[serde(skip_serializing_if = "is_zero")]
    refunded_total_minor: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    refunds: BTreeMap<String, Refund>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    disputes: BTreeMap<String, Dispute>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    canceled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pending_at_unix_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_failure: Option<Failure>,
}

fn raise<F: Ord>(facts: &mut BTreeMap<String, F>, id: &FactId, fact: F) {
    match facts.entry(id.as_str().to_owned()) {
        Entry::Occupied(mut known) => {
            if fact > *known.get() {
                known.insert(fact);
            }
        }
        Entry::Vacant(room) => {
            room.insert(fact);
        }
    }
}

fn has_room<F>(facts: &BTreeMap<String, F>, id: &FactId) -> bool {
    facts.len() < FACTS_MAX || facts.contains_key(id.as_str())
}

impl PaymentFacts {
    /// Whether the event's fact is known already or there is room for one more.
    pub(super) fn has_room_for(&self, event: &PaymentEvent) -> bool {
        match &event.status {
            PaymentStatus::Captured { capture_id: Some(id), .. } => has_room(&self.captures, id),
            PaymentStatus::Refund { refund_id, .. } => has_room(&self.refunds, refund_id),
            PaymentStatus::Dispute { dispute_id, .. } => has_room(&self.disputes, dispute_id),
            PaymentStatus::Captured { capture_id: None, .. }
            | PaymentStatus::Pending
            | PaymentStatus::Failed { .. }
            | PaymentStatus::Canceled
            | PaymentStatus::RefundedTotal { .. } => true,
        }
    }

    /// Joins what an accepted event says of an order of that price.
    pub fn join(&mut self, event: &PaymentEvent, price: Money) {
        let at_unix_us = unix_us(event.occurred_at);
        match &event.status {
            PaymentStatus::Pending => self.pending_at_unix_us = self.pending_at_unix_us.max(Some(at_unix_us)),
            PaymentStatus::Captured { money, capture_id: Some(id), state } => {
                raise(&mut self.captures, id, Capture { state: *state, amount_minor: money.amount_minor() });
            }
            PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded } => {
                self.captured_total_minor = self.captured_total_minor.max(money.amount_minor());
            }
            // A total that failed says only that an attempt failed: which money it takes back, it does not say.
            PaymentStatus::Captured { capture_id: None, state: CaptureState::Failed, .. } => {
                self.fail(at_unix_us, event, "capture failed");
            }
            PaymentStatus::Failed { reason } => self.fail(at_unix_us, event, reason),
            PaymentStatus::Canceled => self.canceled = true,
            PaymentStatus::Refund { refund_id, state, money } => {
                raise(&mut self.refunds, refund_id, Refund { state: *state, amount_minor: money.amount_minor() });
            }
            PaymentStatus::RefundedTotal { money } => {
                self.refunded_total_minor = self.refunded_total_minor.max(money.amount_minor());
            }
            PaymentStatus::Dispute { dispute_id, state, round, money } => {
                let is_foreign = money.currency() != price.currency();
                let amount_minor = if is_foreign { ALL_MINOR } else { money.amount_minor() };
                raise(&mut self.disputes, dispute_id, Dispute { round: *round, state: *state, amount_minor });
            }
        }
    }

    fn fail(&mut self, at_unix_us: i64, event: &PaymentEvent, reason: &str) {
        let failure =
            Failure { at_unix_us, message_id: event.message_id.as_str().to_owned(), reason: reason.to_owned() };
        self.last_failure = self.last_failure.take().max(Some(failure));
    }

    /// Money captured so far, in minor units. Each amount is an `i64` and there are about [`FACTS_MAX`] at most, so that
    /// the sums stay far inside an `i128`.
    pub(super) fn captured_minor(&self) -> i128 {
        let sum: i128 = self
            .captures
            .values()
            .filter(|capture| capture.state == CaptureState::Succeeded)
            .map(|capture| i128::from(capture.amount_minor))
            .sum();
        sum.max(i128::from(self.captured_total_minor))
    }

    /// Whether any amount is known that counts in the order's currency.
    pub(super) fn has_amounts(&self) -> bool {
        self.captured_total_minor != 0
            || self.refunded_total_minor != 0
            || !self.captures.is_empty()
            || !self.refunds.is_empty()
            || self.disputes.values().any(|dispute| dispute.amount_minor != ALL_MINOR)
    }

    /// The captured total, where the provider has told one.
    pub(super) fn total_minor(&self) -> Option<i64> {
        Some(self.captured_total_minor).filter(|total| *total != 0)
    }

    /// The greatest single capture, whatever became of it.
    pub(super) fn greatest_capture_minor(&self) -> Option<i64> {
        self.captures.values().map(|capture| capture.amount_minor).max()
    }

    /// Money on its way back or back with the buyer, disputes aside.
    pub(super) fn refunded_minor(&self) -> i128 {
        let sum = |failed: bool| -> i128 {
            self.refunds
                .values()
                .filter(|refund| (refund.state == RefundState::Failed) == failed)
                .map(|refund| i128::from(refund.amount_minor))
                .sum()
        };
        sum(false).max(i128::from(self.refunded_total_minor) - sum(true)).max(0)
    }

    /// Money that disputes hold or have taken.
    pub(super) fn disputed_minor(&self, policy: DisputePolicy) -> i128 {
        self.disputes
            .values()
            .filter(|dispute| match dispute.state {
                DisputeState::Inquiry | DisputeState::Won => false,
                DisputeState::Open => policy == DisputePolicy::Hold,
                DisputeState::Lost => true,
            })
            .map(|dispute| i128::from(dispute.amount_minor))
            .sum()
    }

    /// Whether a dispute is open or lost.
    pub(super) fn is_disputed(&self) -> bool {
        self.disputes.values().any(|dispute| matches!(dispute.state, DisputeState::Open | DisputeState::Lost))
    }

    /// Whether the provider gave the payment up.
    pub(super) fn is_canceled(&self) -> bool {
        self.canceled
    }

    /// Whether something is under way: the last thing heard of an attempt is not that it failed.
    pub(super) fn is_pending(&self) -> bool {
        match (self.pending_at_unix_us, &self.last_failure) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(pending_at), Some(failure)) => pending_at > failure.at_unix_us,
        }
    }

    /// Why the last attempt failed, in the provider's words.
    pub fn last_failure(&self) -> Option<&str> {
        self.last_failure.as_ref().map(|failure| failure.reason.as_str())
    }
}

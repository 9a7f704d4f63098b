//! The facts of one payment, and their sums.

use super::FACTS_MAX;
use crate::domain::ids::FactId;
use crate::domain::money::Currency;
use crate::domain::order::PriceTerms;
use crate::domain::status::{
    Breakdown, CaptureState, DisputePolicy, DisputeState, PaymentEvent, PaymentStatus, RefundState,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

/// Stands for a dispute in another currency. It takes everything, whatever was captured and whatever price the order is amended to.
pub(super) const ALL_MINOR: i64 = i64::MAX;

/// The facts of one capture. The order of the fields is the order of the join: the provider's latest statement counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Capture {
    /// The time of the provider's statement. 0: it was not stored.
    #[serde(default, skip_serializing_if = "is_zero")]
    at_unix_us: i64,
    /// Releases that do not know `is_canceled` read a canceled capture as a failed one.
    state: CaptureState,
    /// It was announced, and will never take place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_canceled: bool,
    pub(super) amount_minor: i64,
}

/// The facts of one refund. The order of the fields is the order of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Refund {
    #[serde(default, skip_serializing_if = "is_zero")]
    at_unix_us: i64,
    state: RefundState,
    amount_minor: i64,
}

/// The facts of one dispute. The order of the fields is the order of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Dispute {
    #[serde(default, skip_serializing_if = "is_zero")]
    at_unix_us: i64,
    round: u32,
    state: DisputeState,
    /// [`ALL_MINOR`] if the dispute is in another currency.
    pub(super) amount_minor: i64,
}

/// A total with its parts, as told by the provider. The greatest one counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct PricedTotal {
    pub(super) total_minor: i64,
    #[serde(flatten)]
    pub(super) breakdown: Breakdown,
}

/// The last failed attempt: the greatest of (occurred at, message id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Failure {
    at_unix_us: i64,
    message_id: String,
    pub(super) reason: String,
}

/// Microseconds since 1970. Every date with a four-digit year fits.
pub(super) fn unix_us(at: time::OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000_000 + i64::from(at.microsecond())
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// All facts of one payment, joined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Payment {
    /// The ids of the payment, each once, in ascending order. They are empty only in rows of a release that kept the facts of all
    /// payments of an order together. They are stored as one text with a line for each, which is less work for Postgres than a
    /// list.
    #[serde(skip_serializing_if = "Vec::is_empty", with = "lines")]
    pub(super) ids: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) captured_total_minor: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) captures: BTreeMap<String, Capture>,
    /// Stored only if the order's price terms need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) priced_total: Option<PricedTotal>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(super) refunded_total_minor: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) refunds: BTreeMap<String, Refund>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) disputes: BTreeMap<String, Dispute>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) canceled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) pending_at_unix_us: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_failure: Option<Failure>,
    /// The order's other payments. Only the payment at the top of the JSON has them: see `PaymentFacts`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) others: Vec<Payment>,
    /// The latest time at which all parts of the order were given back. Only at the top of the JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) parts_canceled_at_unix_us: Option<i64>,
}

/// Ids in one text. No id contains a line break.
mod lines {
    use serde::{Deserialize, Deserializer, Serializer};
    use std::borrow::Cow;

    pub(super) fn serialize<S: Serializer>(ids: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        match ids {
            [only] => serializer.serialize_str(only),
            ids => serializer.serialize_str(&ids.join("\n")),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        let mut ids: Vec<String> = text.split('\n').map(str::to_owned).collect();
        ids.sort_unstable();
        ids.dedup();
        Ok(ids)
    }
}

fn raise<F: Ord>(facts: &mut BTreeMap<String, F>, id: String, fact: F) {
    match facts.entry(id) {
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

fn raise_all<F: Ord>(facts: &mut BTreeMap<String, F>, others: BTreeMap<String, F>) {
    for (id, fact) in others {
        raise(facts, id, fact);
    }
}

fn has_room<F>(facts: &BTreeMap<String, F>, id: &FactId) -> bool {
    facts.len() < FACTS_MAX || facts.contains_key(id.as_str())
}

/// The sums of a payment, in minor units of the order's currency. Each amount is an `i64`, and there are at most about
/// [`FACTS_MAX`] of each kind, so sums stay far inside an `i128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) struct Sums {
    /// Captured money that stands.
    pub(in crate::domain) captured: i128,
    /// How much of that did not go back to the buyer, without disputes.
    pub(in crate::domain) left: i128,
    /// How much of that is neither held nor taken by disputes.
    pub(in crate::domain) kept: i128,
    /// Whether a dispute is open or lost.
    pub(in crate::domain) is_disputed: bool,
    /// A captured total whose parts pay the price by the order's price terms: the amount that was paid for the price.
    pub(in crate::domain) priced: Option<i128>,
    /// Money that went back, or that disputes hold or have taken, of a payment without a name. It counts against the order.
    pub(in crate::domain) loose_refunds: i128,
    pub(in crate::domain) loose_disputes: i128,
    /// How far the payment has come.
    pub(in crate::domain) stage: Stage,
}

/// The progress of a payment that may not be paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::domain) enum Stage {
    /// The buyer can pay, or nothing is known about it.
    Open,
    /// The payment is under way, or money is there.
    UnderWay,
    /// The payment was given up.
    Over,
}

/// The fields of the order that the sums depend on.
#[derive(Debug, Clone, Copy)]
pub(in crate::domain) struct Measure {
    pub(in crate::domain) price_minor: i64,
    pub(in crate::domain) terms: PriceTerms,
    pub(in crate::domain) policy: DisputePolicy,
}

impl Payment {
    /// The facts of one event.
    pub(super) fn of(event: &PaymentEvent, currency: Currency, terms: PriceTerms) -> Self {
        let occurred_at_unix_us = unix_us(event.occurred_at);
        let at_unix_us = event.as_of.map_or(occurred_at_unix_us, unix_us);
        let mut payment = Self::default();
        payment.add_ids(event.payment_ids().map(|id| id.as_str().to_owned()));
        let failure = |reason: &str| {
            let message_id = event.message_id.as_str().to_owned();
            Some(Failure { at_unix_us: occurred_at_unix_us, message_id, reason: reason.to_owned() })
        };
        match &event.status {
            PaymentStatus::Pending => payment.pending_at_unix_us = Some(occurred_at_unix_us),
            PaymentStatus::Captured { money, capture_id: Some(id), state, breakdown } => {
                let amount_minor = money.amount_minor();
                let capture = Capture { at_unix_us, state: *state, is_canceled: false, amount_minor };
                payment.captures.insert(id.as_str().to_owned(), capture);
                payment.price(amount_minor, breakdown.filter(|_| *state == CaptureState::Succeeded), terms);
            }
            PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown } => {
                payment.captured_total_minor = money.amount_minor();
                payment.price(money.amount_minor(), *breakdown, terms);
            }
            // A failed total says only that an attempt failed. It does not say which money is gone.
            PaymentStatus::Captured { capture_id: None, state: CaptureState::Failed, .. } => {
                payment.last_failure = failure("capture failed");
            }
            PaymentStatus::CaptureCanceled { capture_id } => {
                let capture = Capture { at_unix_us, state: CaptureState::Failed, is_canceled: true, amount_minor: 0 };
                payment.captures.insert(capture_id.as_str().to_owned(), capture);
            }
            PaymentStatus::Failed { reason } => payment.last_failure = failure(reason),
            PaymentStatus::Canceled => payment.canceled = true,
            // This is about all payments of the order: see `PaymentFacts::join`.
            PaymentStatus::PartsCanceled => {}
            PaymentStatus::Refund { refund_id, state, money } => {
                let refund = Refund { at_unix_us, state: *state, amount_minor: money.amount_minor() };
                payment.refunds.insert(refund_id.as_str().to_owned(), refund);
            }
            PaymentStatus::RefundedTotal { money } => payment.refunded_total_minor = money.amount_minor(),
            PaymentStatus::Dispute { dispute_id, state, round, money } => {
                let amount_minor = if money.currency() == currency { money.amount_minor() } else { ALL_MINOR };
                let dispute = Dispute { at_unix_us, round: *round, state: *state, amount_minor };
                payment.disputes.insert(dispute_id.as_str().to_owned(), dispute);
            }
        }
        payment
    }

    fn price(&mut self, total_minor: i64, breakdown: Option<Breakdown>, terms: PriceTerms) {
        self.priced_total =
            breakdown.filter(|_| terms != PriceTerms::Total).map(|breakdown| PricedTotal { total_minor, breakdown });
    }

    pub(super) fn has_id(&self, id: &str) -> bool {
        self.ids.binary_search_by(|known| known.as_str().cmp(id)).is_ok()
    }

    pub(super) fn add_ids(&mut self, ids: impl Iterator<Item = String>) {
        self.ids.extend(ids);
        self.ids.sort_unstable();
        self.ids.dedup();
    }

    /// Whether no fact is known about it. What stands at the top for the whole order does not count.
    pub(super) fn is_nothing(&self) -> bool {
        // Every later statement brought an id.
        self.ids.is_empty() && {
            let whole_order = Self {
                others: self.others.clone(),
                parts_canceled_at_unix_us: self.parts_canceled_at_unix_us,
                ..Self::default()
            };
            *self == whole_order
        }
    }

    /// Whether both are about the same payment: they share an id, or one of them knows its payment only by the id of a dispute or
    /// refund of the other.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let names_fact = |one: &Self, other: &Self| {
            other.ids.iter().any(|id| one.disputes.contains_key(id) || one.refunds.contains_key(id))
        };
        self.ids.iter().any(|id| other.has_id(id)) || names_fact(self, other) || names_fact(other, self)
    }

    /// Whether the provider named no payment, only the id of a dispute or refund.
    fn is_unnamed(&self) -> bool {
        !self.ids.is_empty()
            && self.ids.iter().all(|id| self.disputes.contains_key(id) || self.refunds.contains_key(id))
    }

    pub(super) fn join(&mut self, other: Self) {
        let Self {
            ids,
            captured_total_minor,
            captures,
            priced_total,
            refunded_total_minor,
            refunds,
            disputes,
            canceled,
            pending_at_unix_us,
            last_failure,
            others: _,
            parts_canceled_at_unix_us: _,
        } = other;
        self.add_ids(ids.into_iter());
        self.captured_total_minor = self.captured_total_minor.max(captured_total_minor);
        raise_all(&mut self.captures, captures);
        self.priced_total = self.priced_total.max(priced_total);
        self.refunded_total_minor = self.refunded_total_minor.max(refunded_total_minor);
        raise_all(&mut self.refunds, refunds);
        raise_all(&mut self.disputes, disputes);
        self.canceled |= canceled;
        self.pending_at_unix_us = self.pending_at_unix_us.max(pending_at_unix_us);
        self.last_failure = self.last_failure.take().max(last_failure);
    }

    pub(super) fn has_room_for(&self, event: &PaymentEvent) -> bool {
        let has_room_for_ids = self.ids.len() < FACTS_MAX || event.payment_ids().all(|id| self.has_id(id.as_str()));
        has_room_for_ids
            && match &event.status {
                PaymentStatus::Captured { capture_id: Some(id), .. }
                | PaymentStatus::CaptureCanceled { capture_id: id } => has_room(&self.captures, id),
                PaymentStatus::Refund { refund_id, .. } => has_room(&self.refunds, refund_id),
                PaymentStatus::Dispute { dispute_id, .. } => has_room(&self.disputes, dispute_id),
                PaymentStatus::Captured { capture_id: None, .. }
                | PaymentStatus::Pending
                | PaymentStatus::Failed { .. }
                | PaymentStatus::Canceled
                | PaymentStatus::PartsCanceled
                | PaymentStatus::RefundedTotal { .. } => true,
            }
    }

    /// Money captured so far. `is_standing` says which captures count.
    pub(super) fn captured_minor(&self, is_standing: impl Fn(&Capture) -> bool) -> i128 {
        let succeeded = self.captures.values().filter(|capture| capture.state == CaptureState::Succeeded);
        let sum: i128 = succeeded.filter(|capture| is_standing(capture)).map(|it| i128::from(it.amount_minor)).sum();
        sum.max(i128::from(self.captured_total_minor))
    }

    /// Money that went back to the buyer or is on its way back, without disputes.
    fn refunded_minor(&self) -> i128 {
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
    fn disputed_minor(&self, policy: DisputePolicy) -> i128 {
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

    /// Whether the payment is under way: the latest statement about an attempt is not a failure.
    fn is_pending(&self) -> bool {
        match (self.pending_at_unix_us, &self.last_failure) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(pending_at), Some(failure)) => pending_at > failure.at_unix_us,
        }
    }

    pub(super) fn sums(&self, measure: Measure, parts_canceled_at_unix_us: Option<i64>) -> Sums {
        // With price terms that leave out a discount, the whole price may be paid by less than the price.
        let whole_minor = self.priced_total.map_or(measure.price_minor, |priced| priced.total_minor);
        let is_given_back = |capture: &Capture| {
            parts_canceled_at_unix_us.is_some_and(|at| capture.at_unix_us <= at) && capture.amount_minor < whole_minor
        };
        let captured = self.captured_minor(|capture| !is_given_back(capture));
        let (refunded, disputed) = (self.refunded_minor(), self.disputed_minor(measure.policy));
        let gave_up = || self.captures.values().any(|capture| capture.is_canceled || is_given_back(capture));
        let stage = if captured > 0 && measure.terms != PriceTerms::Total {
            // It may be the whole price, so it waits for its parts.
            Stage::UnderWay
        } else if self.canceled || (captured == 0 && gave_up()) {
            Stage::Over
        } else if captured > 0 || self.is_pending() {
            Stage::UnderWay
        } else {
            Stage::Open
        };
        let priced = self.priced_total.filter(|priced| {
            i128::from(priced.total_minor) <= captured
                && measure.terms.worth_minor(priced.total_minor, priced.breakdown) == i128::from(measure.price_minor)
        });
        let is_unnamed = self.is_unnamed();
        Sums {
            captured,
            left: (captured - refunded).clamp(0, captured),
            kept: (captured - refunded - disputed).clamp(0, captured),
            is_disputed: self.disputes.values().any(|it| matches!(it.state, DisputeState::Open | DisputeState::Lost)),
            priced: priced.map(|priced| i128::from(priced.total_minor)),
            loose_refunds: if is_unnamed { refunded } else { 0 },
            loose_disputes: if is_unnamed { disputed } else { 0 },
            stage,
        }
    }
}

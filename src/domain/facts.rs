//! The payments' converging state: a join of facts.
//!
//! Not a state machine over events in the order of their arrival. [`PaymentFacts::join`] is commutative, associative
//! and idempotent: whatever arrives first, twice, or late, the same set of facts gives the same state, so nothing here
//! needs to remember which messages were seen.
//!
//! Totals belong to a payment. An order may have several payments: events that share an id of the payment are about the same
//! one, and whatever says that two payments share an id makes one of them.

use super::ids::{FactId, PaymentId};
use super::money::Currency;
use super::order::PriceTerms;
use super::status::{Breakdown, CaptureState, DisputePolicy, DisputeState, PaymentEvent, PaymentStatus, RefundState};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Reverse;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

/// How many captures, refunds and disputes of one payment are kept, each, how many ids of it, and how many payments of one
/// order (a batch in hand may go over it by its own length).
pub const FACTS_MAX: usize = 1_000;

/// Stands for a dispute in another currency: it takes all, however much was captured and whatever the order's price is
/// amended to.
const ALL_MINOR: i64 = i64::MAX;

/// What is known of one capture. The order of the fields is the order of the join: what the provider said last counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Capture {
    /// When the provider said so; 0 where that was not kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    at_unix_us: i64,
    /// Releases that know nothing of `is_canceled` take a canceled capture for a failed one.
    state: CaptureState,
    /// It was announced and will never take place.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    is_canceled: bool,
    amount_minor: i64,
}

/// What is known of one refund. The order of the fields is the order of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Refund {
    #[serde(default, skip_serializing_if = "is_zero")]
    at_unix_us: i64,
    state: RefundState,
    amount_minor: i64,
}

/// What is known of one dispute. The order of the fields is the order of the join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Dispute {
    #[serde(default, skip_serializing_if = "is_zero")]
    at_unix_us: i64,
    round: u32,
    state: DisputeState,
    /// [`ALL_MINOR`] where the dispute is in another currency.
    amount_minor: i64,
}

/// A total whose parts the provider has told: the greatest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct PricedTotal {
    total_minor: i64,
    #[serde(flatten)]
    breakdown: Breakdown,
}

/// The last failed attempt: the greatest of (occurred at, message id).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Failure {
    at_unix_us: i64,
    message_id: String,
    reason: String,
}

/// Microseconds since 1970. Every date that can be written with a four-digit year fits.
fn unix_us(at: time::OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1_000_000 + i64::from(at.microsecond())
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

/// All that has been said of one payment, joined.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
struct Payment {
    /// By what it is known. Empty only in rows of a release that kept the facts of all payments of an order together.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    ids: BTreeSet<String>,
    #[serde(skip_serializing_if = "is_zero")]
    captured_total_minor: i64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    captures: BTreeMap<String, Capture>,
    /// Kept where the order's terms need it.
    #[serde(skip_serializing_if = "Option::is_none")]
    priced_total: Option<PricedTotal>,
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

/// What a payment comes to, in minor units of the order's currency. Each amount is an `i64` and there are about
/// [`FACTS_MAX`] of a kind at most, so that sums stay far inside an `i128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sums {
    /// Money that was captured and stands.
    pub(super) captured: i128,
    /// Of that, what did not go back to the buyer, disputes aside.
    pub(super) left: i128,
    /// Of that, what disputes neither hold nor have taken.
    pub(super) kept: i128,
    /// Whether a dispute is open or lost.
    pub(super) is_disputed: bool,
    /// A total that is captured and whose parts pay the price by the order's terms: what was paid for the price.
    pub(super) priced: Option<i128>,
    /// What went back, and what disputes hold or have taken, of a payment that nobody named: it counts against the order.
    pub(super) loose_refunds: i128,
    pub(super) loose_disputes: i128,
    /// How far the payment has come.
    pub(super) stage: Stage,
}

/// How far a payment has come that may not have paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The buyer can pay, or nothing is known of it.
    Open,
    /// Something is under way, or money is there.
    UnderWay,
    /// Given up.
    Over,
}

/// The order's side of what a payment comes to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measure {
    pub(super) price_minor: i64,
    pub(super) terms: PriceTerms,
    pub(super) policy: DisputePolicy,
}

impl Payment {
    /// What one event says.
    fn of(event: &PaymentEvent, currency: Currency, terms: PriceTerms) -> Self {
        let occurred_at_unix_us = unix_us(event.occurred_at);
        let at_unix_us = event.as_of.map_or(occurred_at_unix_us, unix_us);
        let mut payment =
            Self { ids: event.payment_ids().map(|id| id.as_str().to_owned()).collect(), ..Self::default() };
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
            // A total that failed says only that an attempt failed: which money it takes back, it does not say.
            PaymentStatus::Captured { capture_id: None, state: CaptureState::Failed, .. } => {
                payment.last_failure = failure("capture failed");
            }
            PaymentStatus::CaptureCanceled { capture_id } => {
                let capture = Capture { at_unix_us, state: CaptureState::Failed, is_canceled: true, amount_minor: 0 };
                payment.captures.insert(capture_id.as_str().to_owned(), capture);
            }
            PaymentStatus::Failed { reason } => payment.last_failure = failure(reason),
            PaymentStatus::Canceled => payment.canceled = true,
            // About all payments of the order: see `PaymentFacts::join`.
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

    /// Whether both are about the same payment: they share an id, or one of them knows the payment by nothing but the id of
    /// a dispute or refund of the other.
    fn is_same(&self, other: &Self) -> bool {
        let names_fact = |one: &Self, other: &Self| {
            other.ids.iter().any(|id| one.disputes.contains_key(id) || one.refunds.contains_key(id))
        };
        self.ids.iter().any(|id| other.ids.contains(id)) || names_fact(self, other) || names_fact(other, self)
    }

    /// Whether the provider named no payment: all that is known of it is a dispute or refund of its own id.
    fn is_unnamed(&self) -> bool {
        !self.ids.is_empty()
            && self.ids.iter().all(|id| self.disputes.contains_key(id) || self.refunds.contains_key(id))
    }

    fn join(&mut self, other: Self) {
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
        } = other;
        self.ids.extend(ids);
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

    fn has_room_for(&self, event: &PaymentEvent) -> bool {
        let has_room_for_ids =
            self.ids.len() < FACTS_MAX || event.payment_ids().all(|id| self.ids.contains(id.as_str()));
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
    fn captured_minor(&self, is_standing: impl Fn(&Capture) -> bool) -> i128 {
        let succeeded = self.captures.values().filter(|capture| capture.state == CaptureState::Succeeded);
        let sum: i128 = succeeded.filter(|capture| is_standing(capture)).map(|it| i128::from(it.amount_minor)).sum();
        sum.max(i128::from(self.captured_total_minor))
    }

    /// Money on its way back or back with the buyer, disputes aside.
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

    /// Whether something is under way: the last thing heard of an attempt is not that it failed.
    fn is_pending(&self) -> bool {
        match (self.pending_at_unix_us, &self.last_failure) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(pending_at), Some(failure)) => pending_at > failure.at_unix_us,
        }
    }

    fn sums(&self, measure: Measure, parts_canceled_at_unix_us: Option<i64>) -> Sums {
        // By terms that leave out a discount, the whole price may be less than the price.
        let whole_minor = self.priced_total.map_or(measure.price_minor, |priced| priced.total_minor);
        let is_given_back = |capture: &Capture| {
            parts_canceled_at_unix_us.is_some_and(|at| capture.at_unix_us <= at) && capture.amount_minor < whole_minor
        };
        let captured = self.captured_minor(|capture| !is_given_back(capture));
        let (refunded, disputed) = (self.refunded_minor(), self.disputed_minor(measure.policy));
        let gave_up = || self.captures.values().any(|capture| capture.is_canceled || is_given_back(capture));
        let stage = if self.canceled || (captured == 0 && gave_up()) {
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

/// All that has been said of an order's payments, joined. Kept with the order as compact JSON.
///
/// The payment with the most money stands at the top of that JSON, in the form in which earlier releases kept the facts of
/// all payments together: while two releases run side by side, the older one reads that one, and it is nearly always the only
/// one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PaymentFacts {
    /// Ordered by [`PaymentFacts::sort`].
    payments: Vec<Payment>,
    /// The last time at which all parts were given back.
    parts_canceled_at_unix_us: Option<i64>,
}

/// [`PaymentFacts`] as they are written.
#[derive(Serialize)]
struct Written<'a> {
    #[serde(flatten)]
    first: Option<&'a Payment>,
    #[serde(skip_serializing_if = "<[Payment]>::is_empty")]
    others: &'a [Payment],
    #[serde(skip_serializing_if = "Option::is_none")]
    parts_canceled_at_unix_us: Option<i64>,
}

/// [`PaymentFacts`] as they are read.
#[derive(Deserialize)]
struct Read {
    #[serde(flatten)]
    first: Payment,
    #[serde(default)]
    others: Vec<Payment>,
    #[serde(default)]
    parts_canceled_at_unix_us: Option<i64>,
}

impl Serialize for PaymentFacts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let first = self.payments.first();
        let others = self.payments.get(1..).unwrap_or_default();
        Written { first, others, parts_canceled_at_unix_us: self.parts_canceled_at_unix_us }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PaymentFacts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Read { first, others, parts_canceled_at_unix_us } = Read::deserialize(deserializer)?;
        let first = Some(first).filter(|first| *first != Payment::default());
        let mut facts = Self { payments: first.into_iter().chain(others).collect(), parts_canceled_at_unix_us };
        facts.sort();
        Ok(facts)
    }
}

impl PaymentFacts {
    /// Whether the event's fact is known already or there is room for one more.
    pub(super) fn has_room_for(&self, event: &PaymentEvent) -> bool {
        let has_id = |payment: &&Payment| event.payment_ids().any(|id| payment.ids.contains(id.as_str()));
        match self.payments.iter().find(has_id) {
            Some(payment) => payment.has_room_for(event),
            None => self.payments.len() < FACTS_MAX,
        }
    }

    /// Joins what an accepted event says of an order in that currency and of those terms.
    pub(super) fn join(&mut self, event: &PaymentEvent, currency: Currency, terms: PriceTerms) {
        if event.status == PaymentStatus::PartsCanceled {
            self.parts_canceled_at_unix_us = self.parts_canceled_at_unix_us.max(Some(unix_us(event.occurred_at)));
            return;
        }
        let mut joined = Payment::of(event, currency, terms);
        // Nearly always it is the one payment there is.
        if let [only] = self.payments.as_mut_slice()
            && only.is_same(&joined)
        {
            only.join(joined);
            return;
        }
        let (same, mut others): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.payments).into_iter().partition(|payment| payment.is_same(&joined));
        for payment in same {
            joined.join(payment);
        }
        others.push(joined);
        self.payments = others;
        self.sort();
    }

    /// Gives facts that were kept without their payment's ids the ids of an event whose payment had been registered to
    /// this order before: earlier releases kept the facts of all payments of an order together.
    pub fn name_the_nameless<'i>(&mut self, ids: impl Iterator<Item = &'i PaymentId> + Clone) {
        let is_known = self.payments.iter().any(|payment| ids.clone().any(|id| payment.ids.contains(id.as_str())));
        if is_known {
            return;
        }
        if let Some(nameless) = self.payments.iter_mut().find(|payment| payment.ids.is_empty()) {
            nameless.ids.extend(ids.map(|id| id.as_str().to_owned()));
            self.sort();
        }
    }

    /// One order for the same payments, however they came.
    fn sort(&mut self) {
        if self.payments.len() > 1 {
            self.payments.sort_by_cached_key(|it| (Reverse(it.captured_minor(|_| true)), it.ids.clone()));
        }
    }

    /// What each payment comes to.
    pub(super) fn sums(&self, measure: Measure) -> impl Iterator<Item = Sums> {
        self.payments.iter().map(move |payment| payment.sums(measure, self.parts_canceled_at_unix_us))
    }

    /// Money captured so far, of all payments, in minor units.
    pub(super) fn captured_minor(&self, measure: Measure) -> i128 {
        self.sums(measure).map(|sums| sums.captured).sum()
    }

    /// Whether any amount is known that counts in the order's currency.
    pub(super) fn has_amounts(&self) -> bool {
        self.payments.iter().any(|payment| {
            payment.captured_total_minor != 0
                || payment.refunded_total_minor != 0
                || !payment.captures.is_empty()
                || !payment.refunds.is_empty()
                || payment.disputes.values().any(|dispute| dispute.amount_minor != ALL_MINOR)
        })
    }

    /// A captured total that is known and would not be accepted at this price.
    pub(super) fn total_against(&self, price_minor: i64, terms: PriceTerms) -> Option<i64> {
        self.payments.iter().find_map(|payment| match terms {
            PriceTerms::Total => {
                Some(payment.captured_total_minor).filter(|total| *total != 0 && *total != price_minor)
            }
            PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. } => {
                payment.priced_total.and_then(|priced| {
                    let worth = terms.worth_minor(priced.total_minor, priced.breakdown);
                    (worth != i128::from(price_minor)).then_some(priced.total_minor)
                })
            }
        })
    }

    /// The greatest single capture, whatever became of it.
    pub(super) fn greatest_capture_minor(&self) -> Option<i64> {
        self.payments.iter().flat_map(|it| it.captures.values()).map(|capture| capture.amount_minor).max()
    }

    /// Why the last attempt failed, in the provider's words.
    pub fn last_failure(&self) -> Option<&str> {
        self.payments.iter().filter_map(|it| it.last_failure.as_ref()).max().map(|failure| failure.reason.as_str())
    }
}

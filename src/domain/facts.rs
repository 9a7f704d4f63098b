//! The payments' converging state: a join of facts.
//!
//! Not a state machine over events in the order of their arrival. [`PaymentFacts::join`] is commutative, associative
//! and idempotent: whatever arrives first, twice, or late, the same set of facts gives the same state, so nothing here
//! needs to remember which messages were seen.
//!
//! Totals belong to a payment. An order may have several payments: events that share an id of the payment are about the same
//! one, and whatever says that two payments share an id makes one of them.

mod payment;

pub(super) use payment::{Measure, Stage, Sums};

use super::ids::PaymentId;
use super::money::Currency;
use super::order::PriceTerms;
use super::status::{PaymentEvent, PaymentStatus};
use payment::{ALL_MINOR, Payment, unix_us};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Reverse;

/// How many captures, refunds and disputes of one payment are kept, each, how many ids of it, and how many payments of one
/// order (a batch in hand may go over it by its own length).
pub const FACTS_MAX: usize = 1_000;

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
        let mut payments = others;
        if first != Payment::default() {
            payments.insert(0, first);
        }
        for payment in &mut payments {
            payment.add_ids(std::iter::empty());
        }
        let mut facts = Self { payments, parts_canceled_at_unix_us };
        facts.sort();
        Ok(facts)
    }
}

impl PaymentFacts {
    /// Whether the event's fact is known already or there is room for one more.
    pub(super) fn has_room_for(&self, event: &PaymentEvent) -> bool {
        let has_id = |payment: &&Payment| event.payment_ids().any(|id| payment.has_id(id.as_str()));
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
        if self.payments.is_empty() {
            self.payments = vec![joined];
            return;
        }
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

    /// Whether joining the event would change anything.
    pub(super) fn would_learn(&self, event: &PaymentEvent, currency: Currency, terms: PriceTerms) -> bool {
        let is_known = self.payments.iter().any(|payment| event.payment_ids().any(|id| payment.has_id(id.as_str())));
        // Of a payment that nobody knew everything is news.
        if !is_known && event.status != PaymentStatus::PartsCanceled {
            return true;
        }
        let mut after = self.clone();
        after.join(event, currency, terms);
        after != *self
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.payments.is_empty() && self.parts_canceled_at_unix_us.is_none()
    }

    /// Gives facts that were kept without their payment's ids the ids of an event whose payment had been registered to
    /// this order before: earlier releases kept the facts of all payments of an order together.
    pub fn name_the_nameless<'i>(&mut self, ids: impl Iterator<Item = &'i PaymentId> + Clone) {
        let is_known = self.payments.iter().any(|payment| ids.clone().any(|id| payment.has_id(id.as_str())));
        if is_known {
            return;
        }
        if let Some(nameless) = self.payments.iter_mut().find(|payment| payment.ids.is_empty()) {
            nameless.add_ids(ids.map(|id| id.as_str().to_owned()));
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

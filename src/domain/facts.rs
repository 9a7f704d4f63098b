//! The payments' converging state: a join of facts.
//!
//! Not a state machine over events in the order of their arrival. [`PaymentFacts::join`] is commutative, associative
//! and idempotent: whatever arrives first, twice, or late, the same set of facts gives the same state, so nothing here
//! needs to remember which messages were seen.
//!
//! Totals belong to a payment, and an order may have several payments. Events that share an id of the payment are about the same
//! payment. An event that names ids of two payments merges them into one.

mod payment;

pub(super) use payment::{Measure, Stage, Sums};

use super::ids::PaymentId;
use super::money::Currency;
use super::order::PriceTerms;
use super::status::{PaymentEvent, PaymentStatus};
use payment::{ALL_MINOR, Payment, unix_us};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// How many captures, refunds and disputes of one payment are kept, each, how many ids of it, and how many payments of one
/// order (a batch in hand may go over it by its own length).
pub const FACTS_MAX: usize = 1_000;

/// All that has been said of an order's payments, joined. Kept with the order as compact JSON.
///
/// The payment with the most money stands at the top of that JSON, in the form in which earlier releases kept the facts of
/// all payments together: while two releases run side by side, the older one reads that one, and it is nearly always the only
/// one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentFacts(Payment);

impl PaymentFacts {
    /// Whether the event's fact is known already or there is room for one more.
    pub(super) fn has_room_for(&self, event: &PaymentEvent) -> bool {
        let has_id = |payment: &&Payment| event.payment_ids().any(|id| payment.has_id(id.as_str()));
        match self.payments().find(has_id) {
            Some(payment) => payment.has_room_for(event),
            None => self.0.others.len() < FACTS_MAX,
        }
    }

    /// Joins what an accepted event says of an order in that currency and of those terms.
    pub(super) fn join(&mut self, event: &PaymentEvent, currency: Currency, terms: PriceTerms) {
        if event.status == PaymentStatus::PartsCanceled {
            let parts_canceled_at_unix_us = &mut self.0.parts_canceled_at_unix_us;
            *parts_canceled_at_unix_us = (*parts_canceled_at_unix_us).max(Some(unix_us(event.occurred_at)));
            return;
        }
        let mut joined = Payment::of(event, currency, terms);
        // Nearly always it is the only payment.
        if self.0.others.is_empty() && (self.0.is_same(&joined) || self.0.is_nothing()) {
            self.0.join(joined);
            return;
        }
        let (same, mut others): (Vec<_>, Vec<_>) =
            self.payments().cloned().partition(|payment| payment.is_same(&joined));
        for payment in same {
            joined.join(payment);
        }
        others.push(joined);
        self.replace(others);
    }

    /// Every payment that something is known of.
    fn payments(&self) -> impl Iterator<Item = &Payment> {
        let first = Some(&self.0).filter(|first| !first.is_nothing());
        first.into_iter().chain(&self.0.others)
    }

    /// Puts other payments in the place of those that are there, in one order, however they came.
    fn replace(&mut self, mut payments: Vec<Payment>) {
        for payment in &mut payments {
            payment.others.clear();
        }
        payments.sort_by_cached_key(|it| (Reverse(it.captured_minor(|_| true)), it.ids.clone()));
        let parts_canceled_at_unix_us = self.0.parts_canceled_at_unix_us;
        let mut payments = payments.into_iter().map(|it| Payment { parts_canceled_at_unix_us: None, ..it });
        self.0 = payments.next().unwrap_or_default();
        self.0.others = payments.collect();
        self.0.parts_canceled_at_unix_us = parts_canceled_at_unix_us;
    }

    /// Whether joining the event would change anything.
    pub(super) fn would_learn(&self, event: &PaymentEvent, currency: Currency, terms: PriceTerms) -> bool {
        let is_known = self.payments().any(|payment| event.payment_ids().any(|id| payment.has_id(id.as_str())));
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
        self.0 == Payment::default()
    }

    /// Gives facts that were kept without their payment's ids the ids of an event whose payment had been registered to
    /// this order before: earlier releases kept the facts of all payments of an order together.
    pub fn name_the_nameless<'i>(&mut self, ids: impl Iterator<Item = &'i PaymentId> + Clone) {
        let is_known = |payment: &Payment| ids.clone().any(|id| payment.has_id(id.as_str()));
        if !self.payments().any(|payment| payment.ids.is_empty()) || self.payments().any(is_known) {
            return;
        }
        let mut payments: Vec<_> = self.payments().cloned().collect();
        if let Some(nameless) = payments.iter_mut().find(|payment| payment.ids.is_empty()) {
            nameless.add_ids(ids.map(|id| id.as_str().to_owned()));
            self.replace(payments);
        }
    }

    /// What each payment comes to.
    pub(super) fn sums(&self, measure: Measure) -> impl Iterator<Item = Sums> {
        self.payments().map(move |payment| payment.sums(measure, self.0.parts_canceled_at_unix_us))
    }

    /// Money captured so far, of all payments, in minor units.
    pub(super) fn captured_minor(&self, measure: Measure) -> i128 {
        self.sums(measure).map(|sums| sums.captured).sum()
    }

    /// Whether any amount is known that counts in the order's currency.
    pub(super) fn has_amounts(&self) -> bool {
        self.payments().any(|payment| {
            payment.captured_total_minor != 0
                || payment.refunded_total_minor != 0
                || !payment.captures.is_empty()
                || !payment.refunds.is_empty()
                || payment.disputes.values().any(|dispute| dispute.amount_minor != ALL_MINOR)
        })
    }

    /// A captured total that is known and would not be accepted at this price.
    pub(super) fn total_against(&self, price_minor: i64, terms: PriceTerms) -> Option<i64> {
        self.payments().find_map(|payment| match terms {
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
        self.payments().flat_map(|it| it.captures.values()).map(|capture| capture.amount_minor).max()
    }

    /// Why the last attempt failed, in the provider's words.
    pub fn last_failure(&self) -> Option<&str> {
        self.payments().filter_map(|it| it.last_failure.as_ref()).max().map(|failure| failure.reason.as_str())
    }
}

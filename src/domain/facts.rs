//! The facts of an order's payments, joined so that they converge.
//!
//! This is not a state machine over events in the order of their arrival. [`PaymentFacts::join`] is commutative, associative and
//! idempotent. The same set of facts gives the same state, in any order and with any repetition, so no code has to remember which
//! messages were seen.
//!
//! Totals belong to a payment, and an order may have several payments. Events that share an id of the payment are about the same
//! payment. An event that names ids of two payments merges them into one.

mod payment;

pub(super) use payment::{Measure, Stage, Sums};

use super::ids::PaymentId;
use super::money::Currency;
use super::order::PriceTerms;
use super::status::{DisputePolicy, PaymentEvent, PaymentStatus};
use payment::{ALL_MINOR, Payment, unix_us};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// Bound on the captures, refunds, disputes and ids of one payment, each, and on the payments of one order. (A batch may exceed it
/// by its own length.)
pub const FACTS_MAX: usize = 1_000;

/// All facts about an order's payments, joined. They are stored with the order as compact JSON.
///
/// The payment with the most money stands at the top of that JSON. An earlier release kept the facts of all payments together in
/// this form. While two releases run side by side, the older one reads this payment, which is nearly always the only one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PaymentFacts(Payment);

impl PaymentFacts {
    /// Whether the fact of the event is known already, or there is room for one more.
    pub(super) fn has_room_for(&self, event: &PaymentEvent) -> bool {
        let has_id = |payment: &&Payment| event.payment_ids().any(|id| payment.has_id(id.as_str()));
        match self.payments().find(has_id) {
            Some(payment) => payment.has_room_for(event),
            None => self.0.others.len() < FACTS_MAX,
        }
    }

    /// Joins an accepted event of an order in that currency and with those terms.
    pub(super) fn join(&mut self, event: &PaymentEvent, currency: Currency, terms: PriceTerms) {
        if event.status == PaymentStatus::PartsCanceled {
            let parts_canceled_at_unix_us = &mut self.0.parts_canceled_at_unix_us;
            *parts_canceled_at_unix_us = (*parts_canceled_at_unix_us).max(Some(unix_us(event.occurred_at)));
            return;
        }
        let mut joined = Payment::of(event, currency, terms);
        // Nearly always this is the only payment.
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

    /// Every payment of which a fact is known.
    fn payments(&self) -> impl Iterator<Item = &Payment> {
        let first = Some(&self.0).filter(|first| !first.is_nothing());
        first.into_iter().chain(&self.0.others)
    }

    /// Replaces the payments. The result does not depend on their order.
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
        // Everything about an unknown payment is new.
        if !is_known && event.status != PaymentStatus::PartsCanceled {
            return true;
        }
        let mut after = self.clone();
        after.join(event, currency, terms);
        after != *self
    }

    /// Whether no fact is known.
    pub fn is_empty(&self) -> bool {
        self.0 == Payment::default()
    }

    /// Gives facts without ids the ids of an event whose payment was registered to this order before. An earlier release kept the
    /// facts of all payments of an order together, without ids.
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

    /// The sums of each payment.
    pub(super) fn sums(&self, measure: Measure) -> impl Iterator<Item = Sums> {
        self.payments().map(move |payment| payment.sums(measure, self.0.parts_canceled_at_unix_us))
    }

    /// Money captured so far in all payments, in minor units.
    pub(super) fn captured_minor(&self, measure: Measure) -> i128 {
        self.sums(measure).map(|sums| sums.captured).sum()
    }

    /// Money in one currency that would be captured, of all payments together, if these events were joined to what is known.
    /// What is known must be in that currency. Of an order that costs `price_minor`, a part that was given back does not count.
    pub fn captured_with<'e>(
        &self,
        events: impl Iterator<Item = &'e PaymentEvent>,
        currency: Currency,
        price_minor: i64,
    ) -> i128 {
        let mut facts = self.clone();
        events.for_each(|event| facts.join(event, currency, PriceTerms::Total));
        facts.captured_minor(Measure { price_minor, terms: PriceTerms::Total, policy: DisputePolicy::Hold })
    }

    /// Whether an amount is known that counts in the order's currency.
    pub(super) fn has_amounts(&self) -> bool {
        self.payments().any(|payment| {
            payment.captured_total_minor != 0
                || payment.refunded_total_minor != 0
                || !payment.captures.is_empty()
                || !payment.refunds.is_empty()
                || payment.disputes.values().any(|dispute| dispute.amount_minor != ALL_MINOR)
        })
    }

    /// A known captured total that would not be accepted at this price.
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

    /// The greatest single capture, also if it failed or was canceled.
    pub(super) fn greatest_capture_minor(&self) -> Option<i64> {
        self.payments().flat_map(|it| it.captures.values()).map(|capture| capture.amount_minor).max()
    }

    /// Why the last attempt failed, in the provider's words.
    pub fn last_failure(&self) -> Option<&str> {
        self.payments().filter_map(|it| it.last_failure.as_ref()).max().map(|failure| failure.reason.as_str())
    }
}

//! A batch in memory: the order of each event, what the orders accept, and the rows to write.

use super::sql::{Admitted, Orders, Owners, ReadAt, ReadOrder, Rows};
use super::{APPLYING, BatchTerms, Message, Outcome};
use crate::domain::{Order, OrderId, PaymentEvent, Posting, Reason, Refusal, assess, settle};
use crate::store::error::StoreError;
use crate::store::payment_key::PaymentKey;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The keys of the payment that an event is about, with its provider and account.
pub(super) fn payment_keys<'a>(event: &'a PaymentEvent) -> impl Iterator<Item = PaymentKey<'a>> {
    event.payment_ids().map(|id| PaymentKey::new(&event.provider, event.provider_account.as_ref(), id))
}

/// The orders that a batch is about, in the order in which they are locked.
pub(super) fn orders_wanted(messages: &[Message<'_>], owners: &Owners<'_>) -> BTreeSet<OrderId> {
    messages.iter().filter_map(|m| m.event.order_id).chain(owners.values().copied()).collect()
}

/// A message that is to be admitted.
pub(super) struct Candidate<'a> {
    pub(super) message: Message<'a>,
    pub(super) order_id: OrderId,
    /// Whether the inbox cannot have the message, because its order does not know its fact yet.
    pub(super) cannot_be_known: bool,
}

/// The registration of a payment id that is to be written.
pub(super) struct NewPayment<'a> {
    pub(super) key: PaymentKey<'a>,
    pub(super) order_id: OrderId,
}

/// A grant that is to be written. It can only be made from a message that was [`Admitted`] in the same transaction.
pub(super) struct Grant<'a> {
    pub(super) order_id: OrderId,
    pub(super) account_id: String,
    pub(super) credits: i64,
    pub(super) by: Admitted<'a>,
}

/// An adjustment that is to be written.
pub(super) struct Adjustment<'a> {
    pub(super) order_id: OrderId,
    pub(super) revision: i32,
    pub(super) account_id: String,
    pub(super) credits: i64,
    pub(super) reason: &'static str,
    pub(super) by: Admitted<'a>,
}

/// Everything that one call writes. Each list is in ascending order of its key.
#[derive(Default)]
pub(super) struct Writes<'a> {
    /// Messages to admit.
    pub(super) inbox: Rows<'a>,
    pub(super) payments: Vec<NewPayment<'a>>,
    pub(super) grants: Vec<Grant<'a>>,
    pub(super) adjustments: Vec<Adjustment<'a>>,
    /// Each order has the version and the position at which it was read.
    pub(super) orders: Vec<(Order, ReadAt)>,
    /// For each order whose surplus has changed: the money that is kept above its price, in minor units.
    pub(super) overpaid: BTreeMap<OrderId, i64>,
    /// Orders that a decision was based on and that are not written.
    pub(super) judged: BTreeMap<OrderId, ReadAt>,
    /// Orders that look different to their readers now.
    pub(super) changed: Vec<OrderId>,
}

impl Writes<'_> {
    /// Orders that must still have the version that was read. If all orders that a decision was based on are written, the writing
    /// finds that out itself. Otherwise all of them are locked first, so that they are locked in one order.
    pub(super) fn held(&self) -> BTreeMap<OrderId, ReadAt> {
        if self.judged.is_empty() {
            return BTreeMap::new();
        }
        let written = self.orders.iter().map(|(order, at)| (order.id, *at));
        written.chain(self.judged.iter().map(|(id, at)| (*id, *at))).collect()
    }

    /// Whether there is nothing to write and no order to hold.
    pub(super) fn is_empty(&self) -> bool {
        self.inbox.is_empty() && self.payments.is_empty() && self.orders.is_empty() && self.judged.is_empty()
    }
}

/// What the batch has decided about one event so far.
enum Step {
    Done(Outcome),
    Candidate(OrderId),
}

pub(super) struct Plan<'a> {
    steps: Vec<(Message<'a>, Step)>,
    orders: Orders,
    /// Orders that did not accept an event.
    refusing: BTreeSet<OrderId>,
    /// Payment ids that events of this batch add to their orders.
    claims: BTreeMap<PaymentKey<'a>, OrderId>,
}

/// The changes of one order in a batch.
struct Touched<'a> {
    before: Order,
    /// The first message after which a grant was due, and its step.
    grant_by: Option<(Admitted<'a>, usize)>,
    last: Admitted<'a>,
}

fn impossible(fault: impl ToString) -> StoreError {
    StoreError::impossible(APPLYING, fault)
}

fn not_read(id: OrderId) -> StoreError {
    impossible(format!("order {id} was decided about and not read"))
}

fn known_order(orders: &mut Orders, id: OrderId) -> Result<&mut ReadOrder, StoreError> {
    orders.read.get_mut(&id).ok_or_else(|| not_read(id))
}

fn was_overpaid(order: &Order, terms: BatchTerms) -> Result<bool, StoreError> {
    // Most orders had no facts before.
    Ok(!order.facts.is_empty() && settle(order, terms.dispute_policy).map_err(impossible)?.overpaid_minor > 0)
}

impl<'a> Plan<'a> {
    /// Finds the order of each event and asks whether the order accepts it.
    pub(super) fn assess(
        messages: &[Message<'a>],
        refused: &HashMap<usize, Refusal>,
        mut owners: Owners<'a>,
        mut orders: Orders,
    ) -> Result<Self, StoreError> {
        let (mut claims, mut refusing) = (BTreeMap::new(), BTreeSet::new());
        let mut steps = Vec::with_capacity(messages.len());
        for message in messages {
            let step = match refused.get(&message.at) {
                Some(refusal) => Step::Done(Outcome::Refused(refusal.clone())),
                None => match find_order(message.event, &owners, &orders) {
                    Err(refusal) => Step::Done(Outcome::Refused(refusal)),
                    Ok(None) => Step::Done(Outcome::OrderUnknown),
                    Ok(Some(id)) if let Some(detail) = orders.unreadable.get(&id) => {
                        Step::Done(Outcome::Unreadable(detail.clone()))
                    }
                    Ok(Some(id)) => {
                        let order = &mut known_order(&mut orders, id)?.order;
                        match assess(order, message.event) {
                            Err(refusal) => {
                                refusing.insert(id);
                                Step::Done(Outcome::Refused(refusal))
                            }
                            Ok(()) => {
                                if payment_keys(message.event).any(|key| owners.contains_key(&key)) {
                                    order.facts.name_the_nameless(message.event.payment_ids());
                                }
                                for key in payment_keys(message.event) {
                                    // Later events of this batch find the order by this id, as events of later batches will.
                                    if owners.insert(key, id).is_none() {
                                        claims.insert(key, id);
                                    }
                                }
                                Step::Candidate(id)
                            }
                        }
                    }
                },
            };
            steps.push((*message, step));
        }
        Ok(Self { steps, orders, refusing, claims })
    }

    /// Whether the accepted events have payment ids that are not registered yet.
    pub(super) fn brings_ids(&self) -> bool {
        !self.claims.is_empty()
    }

    /// The registrations to write, in ascending order of their keys.
    pub(super) fn new_payments(&self) -> Vec<NewPayment<'a>> {
        self.claims.iter().map(|(key, order_id)| NewPayment { key: *key, order_id: *order_id }).collect()
    }

    /// Whether both plans admit the same messages to the same orders and register the same payments.
    pub(super) fn accepts_the_same(&self, other: &Self) -> bool {
        let accepted = |plan: &Self| -> Vec<(usize, OrderId)> {
            let of_step = |(message, step): &(Message<'_>, Step)| match step {
                Step::Candidate(order_id) => Some((message.at, *order_id)),
                Step::Done(_) => None,
            };
            plan.steps.iter().filter_map(of_step).collect()
        };
        accepted(self) == accepted(other) && self.claims == other.claims
    }

    /// The messages to admit if the inbox does not have them.
    pub(super) fn candidates(&mut self) -> Result<Vec<Candidate<'a>>, StoreError> {
        let mut candidates = Vec::with_capacity(self.steps.len());
        for (message, step) in &self.steps {
            let Step::Candidate(order_id) = *step else { continue };
            let order = &known_order(&mut self.orders, order_id)?.order;
            // An answer of a provider tells what it knows as of a later time. The same message then has another fact, so the
            // inbox may have it although the order would learn something.
            let cannot_be_known = message.event.as_of.is_none() && order.would_learn(message.event);
            candidates.push(Candidate { message: *message, order_id, cannot_be_known });
        }
        Ok(candidates)
    }

    /// Adds the facts of admitted messages to their orders and computes what to write. Every other message must be `known`.
    pub(super) fn decide(
        &mut self,
        admitted: &HashMap<usize, Admitted<'a>>,
        known: &HashSet<usize>,
        terms: BatchTerms,
    ) -> Result<Writes<'a>, StoreError> {
        let mut touched: BTreeMap<OrderId, Touched<'a>> = BTreeMap::new();
        for (at, (message, step)) in self.steps.iter_mut().enumerate() {
            let Step::Candidate(order_id) = *step else { continue };
            let Some(by) = admitted.get(&message.at) else {
                if !known.contains(&message.at) {
                    let id = &message.event.message_id;
                    return Err(impossible(format!("message {id} was neither admitted nor known")));
                }
                *step = Step::Done(Outcome::Duplicate);
                continue;
            };
            let order = &mut known_order(&mut self.orders, order_id)?.order;
            let touched = touched.entry(order_id).or_insert_with(|| Touched {
                before: order.clone(),
                grant_by: None,
                last: by.clone(),
            });
            order.join(message.event);
            touched.last = by.clone();
            if touched.grant_by.is_none() && settle(order, terms.dispute_policy).map_err(impossible)?.grant {
                touched.grant_by = Some((by.clone(), at));
            }
            *step = Step::Done(Outcome::Applied { granted: false });
        }

        let mut writes = Writes::default();
        for (id, touched) in touched {
            let ReadOrder { mut order, at: read_at } = self.orders.read.remove(&id).ok_or_else(|| not_read(id))?;
            let posting = settle(&order, terms.dispute_policy).map_err(impossible)?;
            let (grant_by, at) = touched.grant_by.unzip();
            // A later message of the same batch may have taken everything back. Then there is no grant to write.
            if posting.grant
                && let Some((_, step)) = at.and_then(|at| self.steps.get_mut(at))
            {
                *step = Step::Done(Outcome::Applied { granted: true });
            }
            write_posting(&mut order, posting, grant_by.as_ref().unwrap_or(&touched.last), &touched.last, &mut writes)?;
            let seen =
                |order: &Order| (order.status, order.credits_posted, order.facts.last_failure().map(str::to_owned));
            if seen(&order) != seen(&touched.before) {
                writes.changed.push(id);
            }
            // This also applies if nothing has changed: an earlier release may have left a surplus that is not written yet.
            let is_overpaid = posting.overpaid_minor > 0;
            if is_overpaid || was_overpaid(&touched.before, terms)? {
                writes.overpaid.insert(id, posting.overpaid_minor);
            }
            if order == touched.before {
                writes.judged.insert(id, read_at);
            } else {
                writes.orders.push((order, read_at));
            }
        }
        // The other orders were read and not changed.
        for id in &self.refusing {
            if let Some(read) = self.orders.read.get(id) {
                writes.judged.insert(*id, read.at);
            }
        }
        Ok(writes)
    }

    /// The outcome of each message, in the order of the messages.
    pub(super) fn into_outcomes(self) -> Result<Vec<Outcome>, StoreError> {
        let outcome = |(message, step): (Message<'_>, Step)| match step {
            Step::Done(outcome) => Ok(outcome),
            Step::Candidate(_) => {
                Err(impossible(format!("message {} was not decided about", message.event.message_id)))
            }
        };
        self.steps.into_iter().map(outcome).collect()
    }

    /// An order, with the payments that its facts are about as far as they are known.
    pub(super) fn order(&self, id: OrderId) -> Option<&Order> {
        self.orders.read.get(&id).map(|read| &read.order)
    }

    /// The outcome of the only message if it is not to be admitted, else `None`.
    pub(super) fn refusal(&self) -> Option<&Outcome> {
        self.steps.iter().find_map(|(_, step)| match step {
            Step::Done(outcome) => Some(outcome),
            Step::Candidate(_) => None,
        })
    }
}

/// Puts a posting into the order and the lists of what to write.
fn write_posting<'a>(
    order: &mut Order,
    posting: Posting,
    grant_by: &Admitted<'a>,
    last: &Admitted<'a>,
    writes: &mut Writes<'a>,
) -> Result<(), StoreError> {
    if posting.grant {
        writes.grants.push(Grant {
            order_id: order.id,
            account_id: order.account_id.as_str().to_owned(),
            credits: order.credits,
            by: grant_by.clone(),
        });
        order.is_granted = true;
    }
    if posting.adjustment != 0 {
        if !order.is_granted {
            return Err(impossible(format!("order {} would be adjusted without a grant", order.id)));
        }
        let next = order.revision.checked_add(1);
        order.revision = next.ok_or_else(|| impossible(format!("order {} has no revision left", order.id)))?;
        writes.adjustments.push(Adjustment {
            order_id: order.id,
            revision: order.revision,
            account_id: order.account_id.as_str().to_owned(),
            credits: posting.adjustment,
            reason: posting.status.name(),
            by: last.clone(),
        });
    }
    order.status = posting.status;
    order.credits_posted = posting.credits_net;
    Ok(())
}

/// The order an event belongs to: by our own id, by any of the payment's ids, and all of them must agree. An order id that is
/// none of ours says nothing: shops number their own orders with such ids, too.
pub(super) fn find_order(
    event: &PaymentEvent,
    owners: &Owners<'_>,
    orders: &Orders,
) -> Result<Option<OrderId>, Refusal> {
    let mut found = event.order_id.filter(|id| orders.has(*id));
    for key in payment_keys(event) {
        let Some(owner) = owners.get(&key) else { continue };
        if let Some(other) = found.replace(*owner)
            && other != *owner
        {
            return Err(Refusal::new(
                Reason::PaymentConflict,
                format!("payment {} belongs to order {owner}, the message is about order {other}", key.payment_id),
            ));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;

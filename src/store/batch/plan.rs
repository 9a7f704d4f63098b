//! A batch in memory: which event belongs to which order, what the orders accept, and what there is to write.

use super::sql::{Admitted, Orders, Owners, ReadAt, ReadOrder};
use super::{APPLYING, BatchTerms, Message, Outcome};
use crate::domain::{Order, OrderId, PaymentEvent, Posting, Reason, Refusal, assess, settle};
use crate::store::error::StoreError;
use crate::store::payment_key::PaymentKey;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What an event's payment is, and whose.
pub(super) fn payment_keys<'a>(event: &'a PaymentEvent) -> impl Iterator<Item = PaymentKey<'a>> {
    event.payment_ids().map(|id| PaymentKey::new(&event.provider, event.provider_account.as_ref(), id))
}

/// The orders a batch is about, in the order in which they are locked.
pub(super) fn orders_wanted(messages: &[Message<'_>], owners: &Owners<'_>) -> BTreeSet<OrderId> {
    messages.iter().filter_map(|m| m.event.order_id).chain(owners.values().copied()).collect()
}

/// A message to admit.
pub(super) struct Candidate<'a> {
    pub(super) message: Message<'a>,
    pub(super) order_id: OrderId,
    /// Whether the inbox cannot have it, because its order does not know its fact yet.
    pub(super) cannot_be_known: bool,
}

/// A registration of a payment id to write.
pub(super) struct NewPayment<'a> {
    pub(super) key: PaymentKey<'a>,
    pub(super) order_id: OrderId,
}

/// A grant to write. Only made from an [`Admitted`] message of the same transaction.
pub(super) struct Grant<'a> {
    pub(super) order_id: OrderId,
    pub(super) account_id: String,
    pub(super) credits: i64,
    pub(super) by: Admitted<'a>,
}

/// An adjustment to write.
pub(super) struct Adjustment<'a> {
    pub(super) order_id: OrderId,
    pub(super) revision: i32,
    pub(super) account_id: String,
    pub(super) credits: i64,
    pub(super) reason: &'static str,
    pub(super) by: Admitted<'a>,
}

/// All that a batch writes, each list in ascending order of its key.
#[derive(Default)]
pub(super) struct Writes<'a> {
    pub(super) grants: Vec<Grant<'a>>,
    pub(super) adjustments: Vec<Adjustment<'a>>,
    /// With the version and the place that they were read at.
    pub(super) orders: Vec<(Order, ReadAt)>,
    /// Money that is kept beyond the price of orders for which that has changed, in minor units.
    pub(super) overpaid: BTreeMap<OrderId, i64>,
    /// Orders that something was decided by and that are not written.
    pub(super) judged: BTreeMap<OrderId, ReadAt>,
    /// Orders whose readers see something new.
    pub(super) changed: Vec<OrderId>,
}

impl Writes<'_> {
    /// All orders that the batch rests on.
    pub(super) fn all_read(&self) -> BTreeMap<OrderId, ReadAt> {
        let written = self.orders.iter().map(|(order, at)| (order.id, *at));
        written.chain(self.judged.iter().map(|(id, at)| (*id, *at))).collect()
    }
}

/// One event's way through the batch.
enum Step {
    Done(Outcome),
    Candidate(OrderId),
}

pub(super) struct Plan<'a> {
    steps: Vec<(Message<'a>, Step)>,
    orders: Orders,
    /// Orders that did not accept an event.
    refusing: BTreeSet<OrderId>,
    /// Payment ids that events of this batch bring to their orders.
    claims: BTreeMap<PaymentKey<'a>, OrderId>,
}

/// What a batch makes of one order.
struct Touched<'a> {
    before: Order,
    /// The first message at which a grant was due, and its step.
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
    orders.get_mut(&id).ok_or_else(|| not_read(id))
}

fn was_overpaid(order: &Order, terms: BatchTerms) -> Result<bool, StoreError> {
    // Of most orders nothing was known before.
    Ok(!order.facts.is_empty() && settle(order, terms.dispute_policy).map_err(impossible)?.overpaid_minor > 0)
}

impl<'a> Plan<'a> {
    /// Finds each event's order and asks whether the order accepts it.
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
                                    // Later events of this batch find the order by it, as those of later batches will.
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

    /// Whether what was accepted brings payment ids that are not registered yet.
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

    /// The messages to admit, where the inbox does not have them.
    pub(super) fn candidates(&mut self) -> Result<Vec<Candidate<'a>>, StoreError> {
        let mut candidates = Vec::with_capacity(self.steps.len());
        for (message, step) in &self.steps {
            let Step::Candidate(order_id) = *step else { continue };
            let order = &known_order(&mut self.orders, order_id)?.order;
            // The answer to a question says what is known, as of a later time: its fact changes, and it may be known.
            let cannot_be_known = message.event.as_of.is_none() && order.would_learn(message.event);
            candidates.push(Candidate { message: *message, order_id, cannot_be_known });
        }
        Ok(candidates)
    }

    /// Joins what was admitted to its orders and works out what to write. What was not admitted must be `known`.
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
            let ReadOrder { mut order, at: read_at } = self.orders.remove(&id).ok_or_else(|| not_read(id))?;
            let posting = settle(&order, terms.dispute_policy).map_err(impossible)?;
            let (grant_by, at) = touched.grant_by.unzip();
            // A later message of the same batch may have taken all of it back: then there is no grant to write.
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
            // Also where it is as it was: facts of an earlier release may hold a surplus that nobody has written down.
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
        // What is left was read and not touched.
        for id in &self.refusing {
            if let Some(read) = self.orders.get(id) {
                writes.judged.insert(*id, read.at);
            }
        }
        Ok(writes)
    }

    /// What became of each message, in their order.
    pub(super) fn into_outcomes(self) -> Result<Vec<Outcome>, StoreError> {
        let outcome = |(message, step): (Message<'_>, Step)| match step {
            Step::Done(outcome) => Ok(outcome),
            Step::Candidate(_) => {
                Err(impossible(format!("message {} was not decided about", message.event.message_id)))
            }
        };
        self.steps.into_iter().map(outcome).collect()
    }

    /// An order, with what is known of which payments its facts are about.
    pub(super) fn order(&self, id: OrderId) -> Option<&Order> {
        self.orders.get(&id).map(|read| &read.order)
    }

    /// What became of the only message where it is not to be admitted; `None` where it is.
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
    let mut found = event.order_id.filter(|id| orders.contains_key(id));
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

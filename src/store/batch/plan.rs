//! A batch in memory: which event belongs to which order, what the orders accept, and what there is to write.

use super::sql::{Admitted, Orders, Owners, ReadAt};
use super::{BatchTerms, Message, Outcome};
use crate::domain::{Order, OrderId, PaymentEvent, Posting, Reason, Refusal, assess, settle};
use crate::store::payment_key::PaymentKey;
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    /// Whether its order does not know its fact yet.
    pub(super) says_something_new: bool,
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
    pub(super) payments: Vec<NewPayment<'a>>,
    pub(super) grants: Vec<Grant<'a>>,
    pub(super) adjustments: Vec<Adjustment<'a>>,
    /// With the version and the place that they were read at.
    pub(super) orders: Vec<(Order, ReadAt)>,
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

impl<'a> Plan<'a> {
    /// Finds each event's order and asks whether the order accepts it.
    pub(super) fn assess(
        messages: &[Message<'a>],
        refused: &HashMap<usize, Refusal>,
        mut owners: Owners<'a>,
        orders: Orders,
    ) -> Self {
        let (mut claims, mut refusing) = (BTreeMap::new(), BTreeSet::new());
        let steps = messages
            .iter()
            .map(|message| {
                let step = match refused.get(&message.at) {
                    Some(refusal) => Step::Done(Outcome::Refused(refusal.clone())),
                    None => match find_order(message.event, &owners, &orders.by_id) {
                        Err(refusal) => Step::Done(Outcome::Refused(refusal)),
                        Ok(None) => Step::Done(Outcome::OrderUnknown),
                        Ok(Some(order)) => match assess(order, message.event) {
                            Err(refusal) => {
                                refusing.insert(order.id);
                                Step::Done(Outcome::Refused(refusal))
                            }
                            Ok(()) => {
                                for key in payment_keys(message.event) {
                                    // Later events of this batch find the order by it, as those of later batches will.
                                    if owners.insert(key, order.id).is_none() {
                                        claims.insert(key, order.id);
                                    }
                                }
                                Step::Candidate(order.id)
                            }
                        },
                    },
                };
                (*message, step)
            })
            .collect();
        Self { steps, orders, refusing, claims }
    }

    /// Whether what was accepted brings payment ids that are not registered yet.
    pub(super) fn brings_ids(&self) -> bool {
        !self.claims.is_empty()
    }

    /// The messages to admit, where the inbox does not have them.
    pub(super) fn candidates(&self) -> Vec<Candidate<'a>> {
        let candidates = self.steps.iter().filter_map(|(message, step)| {
            let Step::Candidate(order_id) = step else { return None };
            let order = self.orders.by_id.get(order_id)?;
            let mut facts = order.facts.clone();
            facts.join(message.event, order.price);
            Some(Candidate { message: *message, order_id: *order_id, says_something_new: facts != order.facts })
        });
        candidates.collect()
    }

    /// Joins what was admitted to its orders and works out what to write.
    pub(super) fn decide(&mut self, admitted: &HashMap<usize, Admitted<'a>>, terms: BatchTerms) -> Writes<'a> {
        struct Touched<'a> {
            before: Order,
            /// The first message at which a grant was due, and its step.
            grant_by: Option<(Admitted<'a>, usize)>,
            last: Admitted<'a>,
        }
        let mut touched: BTreeMap<OrderId, Touched<'a>> = BTreeMap::new();
        for (at, (message, step)) in self.steps.iter_mut().enumerate() {
            let Step::Candidate(order_id) = step else { continue };
            let Some(by) = admitted.get(&message.at) else {
                *step = Step::Done(Outcome::Duplicate);
                continue;
            };
            let Some(order) = self.orders.by_id.get_mut(order_id) else { continue };
            let touched = touched.entry(*order_id).or_insert_with(|| Touched {
                before: order.clone(),
                grant_by: None,
                last: by.clone(),
            });
            order.facts.join(message.event, order.price);
            touched.last = by.clone();
            if touched.grant_by.is_none() && settle(order, terms.dispute_policy).grant {
                touched.grant_by = Some((by.clone(), at));
            }
            *step = Step::Done(Outcome::Applied { granted: false });
        }

        let mut writes = Writes::default();
        for (id, touched) in touched {
            let Some(order) = self.orders.by_id.get_mut(&id) else { continue };
            let posting = settle(order, terms.dispute_policy);
            let (grant_by, at) = touched.grant_by.unzip();
            // A later message of the same batch may have taken all of it back: then there is no grant to write.
            if posting.grant
                && let Some((_, step)) = at.and_then(|at| self.steps.get_mut(at))
            {
                *step = Step::Done(Outcome::Applied { granted: true });
            }
            write_posting(order, posting, grant_by.unwrap_or_else(|| touched.last.clone()), touched.last, &mut writes);
            let seen =
                |order: &Order| (order.status, order.credits_posted, order.facts.last_failure().map(str::to_owned));
            if seen(order) != seen(&touched.before) {
                writes.changed.push(id);
            }
            // Every order that is known was read.
            let Some(at) = self.orders.read_at.get(&id) else { continue };
            if *order == touched.before {
                writes.judged.insert(id, *at);
            } else {
                writes.orders.push((order.clone(), *at));
            }
        }
        for id in &self.refusing {
            if writes.orders.binary_search_by_key(id, |(order, _)| order.id).is_err()
                && let Some(at) = self.orders.read_at.get(id)
            {
                writes.judged.insert(*id, *at);
            }
        }
        writes.payments =
            std::mem::take(&mut self.claims).into_iter().map(|(key, order_id)| NewPayment { key, order_id }).collect();
        writes
    }

    /// What became of each message, in their order.
    pub(super) fn into_outcomes(self) -> Vec<Outcome> {
        self.steps
            .into_iter()
            .map(|(_, step)| match step {
                Step::Done(outcome) => outcome,
                Step::Candidate(_) => Outcome::Duplicate,
            })
            .collect()
    }
}

/// Puts a posting into the order and the lists of what to write.
fn write_posting<'a>(
    order: &mut Order,
    posting: Posting,
    grant_by: Admitted<'a>,
    last: Admitted<'a>,
    writes: &mut Writes<'a>,
) {
    if posting.grant {
        writes.grants.push(Grant {
            order_id: order.id,
            account_id: order.account_id.as_str().to_owned(),
            credits: order.credits,
            by: grant_by,
        });
        order.is_granted = true;
    }
    if posting.adjustment != 0 {
        order.revision += 1;
        writes.adjustments.push(Adjustment {
            order_id: order.id,
            revision: order.revision,
            account_id: order.account_id.as_str().to_owned(),
            credits: posting.adjustment,
            reason: posting.status.name(),
            by: last,
        });
    }
    order.status = posting.status;
    order.credits_posted = posting.credits_net;
}

/// The order an event belongs to: by our own id, by any of the payment's ids, and all of them must agree.
pub(super) fn find_order<'o>(
    event: &PaymentEvent,
    owners: &Owners<'_>,
    orders: &'o BTreeMap<OrderId, Order>,
) -> Result<Option<&'o Order>, Refusal> {
    let mut found = event.order_id;
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
    Ok(found.and_then(|id| orders.get(&id)))
}

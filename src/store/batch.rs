//! The worker's transaction. It assesses and admits a batch of events, adds their facts to the orders, and writes the ledger.
//! All of it is committed, or none of it.
//!
//! Every try of every worker runs its statements in the same order, and every statement takes its keys in ascending order.
//! So overlapping batches wait for each other and never deadlock:
//!
//! 1. Find the order of each payment, and read these orders without a lock.
//! 2. Admit the message ids that the orders accept. A message whose fact its order does not know yet cannot have been
//!    admitted before, because the order would have the fact. The inbox is asked only about the other messages.
//! 3. Register the payments.
//! 4. Decide in memory ([`crate::domain`]).
//! 5. Write the orders, each only if its version is the one that was read. Everything that a decision needs is in the order's
//!    own row, and every change of the row raises its version. So this one statement locks the orders, and it proves that no
//!    other transaction has changed them. Orders that a decision was based on and that are not written are locked in the
//!    same way.
//! 6. Write grants and adjustments under these locks, and commit.
//!
//! If another transaction was faster, this one is rolled back and tried again with care. The next try asks the inbox about
//! every message. Between the payments and the decision it locks the orders and reads them again.

mod locks;
mod place;
mod plan;
mod sql;
mod weigh;

use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::{Committed, Tx};
use crate::domain::{DisputePolicy, OrderId, PaymentEvent, Reason, Refusal};
use crate::failpoint::{self, Failpoint};
use plan::Plan;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

pub use weigh::{JudgedOrders, WEIGHED_MAX, Weighed};

/// How often one batch is tried if other transactions register its payments or change its orders meanwhile.
const TRIES_MAX: u32 = 6;

/// The terms by which a batch is decided.
#[derive(Debug, Clone, Copy)]
pub struct BatchTerms {
    /// Whether open disputes take credits.
    pub dispute_policy: DisputePolicy,
    /// The time that is written to the rows.
    pub now: OffsetDateTime,
}

/// The outcome of one event of a committed batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The message was admitted, and its fact is now part of the order.
    Applied {
        /// Whether this event led to the order's grant.
        granted: bool,
    },
    /// The message was admitted before, so there is nothing to do.
    Duplicate,
    /// No order has this payment yet.
    OrderUnknown,
    /// The row of the order cannot be read, for this reason. Nothing was decided.
    Unreadable(String),
    /// The order does not accept the event in its present state.
    Refused(Refusal),
}

/// A batch that was committed.
#[derive(Debug)]
pub struct Applied {
    /// The proof that the deliveries may be acknowledged.
    pub committed: Committed,
    /// One outcome for each event, in the order of the events.
    pub outcomes: Vec<Outcome>,
    /// Orders that look different to their readers now.
    pub changed: Vec<OrderId>,
}

impl Store {
    /// Applies a batch of events in one transaction and commits it. If another session has locked a row, the transaction
    /// waits for it as long as `lock_wait`.
    ///
    /// After an error it is not known that any of it was written. [`StoreError::class`] says what to do.
    pub async fn apply<E>(
        &self,
        events: Arc<[E]>,
        terms: BatchTerms,
        lock_wait: Duration,
    ) -> Result<Applied, StoreError>
    where
        E: AsRef<PaymentEvent> + Send + Sync + 'static,
    {
        self.run(APPLYING, move |pool| async move {
            let messages = Messages::sort_out(&events)?;
            let Applied { mut committed, outcomes, mut changed } =
                commit(&pool, lock_wait, &messages.first_of_each_id, terms).await?;
            let mut outcome_of: HashMap<usize, Outcome> =
                messages.first_of_each_id.iter().map(|m| m.at).zip(outcomes).collect();

            // One id with two contents in one batch: the second is judged when the first is in the inbox, or is not.
            for rival in &messages.rivals {
                let next = commit(&pool, lock_wait, std::slice::from_ref(rival), terms).await?;
                committed = committed.and(next.committed);
                changed.extend(next.changed);
                outcome_of.extend(std::iter::once(rival.at).zip(next.outcomes));
            }
            let outcome = |(at, leader): (usize, &usize)| match outcome_of.get(leader) {
                // A copy of a message that was applied just now.
                Some(Outcome::Applied { .. }) if at != *leader => Ok(Outcome::Duplicate),
                Some(outcome) => Ok(outcome.clone()),
                None => Err(StoreError::impossible(APPLYING, "an event has no outcome")),
            };
            let outcomes: Vec<_> = messages.leader_of.iter().enumerate().map(outcome).collect::<Result<_, _>>()?;
            if outcomes.len() == events.len() {
                Ok(Applied { committed, outcomes, changed })
            } else {
                Err(StoreError::impossible(APPLYING, "a batch does not have one outcome for each event"))
            }
        })
        .await
    }

    /// Splits events into those about an order that another session has locked at this moment, and the others.
    pub async fn split_by_locks<E>(&self, events: Arc<[E]>) -> Result<(Vec<E>, Vec<E>), StoreError>
    where
        E: AsRef<PaymentEvent> + Clone + Send + Sync + 'static,
    {
        self.run("looking for locked orders", move |pool| async move {
            let messages: Vec<Message<'_>> = events
                .iter()
                .enumerate()
                .map(|(at, event)| Ok(Message { at, event: event.as_ref(), digest: digest_of(event.as_ref())? }))
                .collect::<Result<_, StoreError>>()?;
            let mut tx = Tx::begin(&pool).await?;
            let owners = tx.owners_of_payments(&messages).await?;
            let orders = tx.find_orders(&plan::orders_wanted(&messages, &owners)).await?;
            let there: BTreeSet<OrderId> = orders.read.keys().copied().collect();
            let free = tx.lock_free_rows(&there).await?;
            tx.roll_back().await?;
            let is_locked = |event: &E| match plan::find_order(event.as_ref(), &owners, &orders) {
                Ok(Some(id)) => there.contains(&id) && !free.contains(&id),
                Ok(None) | Err(_) => false,
            };
            Ok(events.iter().cloned().partition(is_locked))
        })
        .await
    }

    /// Checks whether a batch could be applied now: the server answers and accepts writes, and the schema and the rights of
    /// this user are sufficient. The worker checks this before it consumes deliveries, because every delivery that it
    /// returns counts as a try.
    pub async fn rehearse(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        self.run("rehearsing a batch", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            tx.rehearse(now).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

/// What an error message names as the operation.
const APPLYING: &str = "applying a batch";

/// One event and its position in the batch.
#[derive(Debug, Clone, Copy)]
struct Message<'a> {
    at: usize,
    event: &'a PaymentEvent,
    digest: [u8; 16],
}

/// The events of a batch, without copies.
struct Messages<'a> {
    first_of_each_id: Vec<Message<'a>>,
    /// Messages that have the id of an earlier one and another content.
    rivals: Vec<Message<'a>>,
    /// For each event, the position of the event that decides its outcome: its own, or that of its first copy.
    leader_of: Vec<usize>,
}

impl<'a> Messages<'a> {
    fn sort_out<E: AsRef<PaymentEvent>>(events: &'a [E]) -> Result<Self, StoreError> {
        let mut known: HashMap<(&str, [u8; 16]), usize> = HashMap::with_capacity(events.len());
        let mut ids: HashMap<&str, ()> = HashMap::with_capacity(events.len());
        let mut messages =
            Self { first_of_each_id: Vec::with_capacity(events.len()), rivals: Vec::new(), leader_of: Vec::new() };
        for (at, event) in events.iter().map(AsRef::as_ref).enumerate() {
            let digest = digest_of(event)?;
            let id = event.message_id.as_str();
            let leader = *known.entry((id, digest)).or_insert(at);
            messages.leader_of.push(leader);
            if leader == at {
                let message = Message { at, event, digest };
                let of =
                    if ids.insert(id, ()).is_none() { &mut messages.first_of_each_id } else { &mut messages.rivals };
                of.push(message);
            }
        }
        Ok(messages)
    }
}

fn digest_of(event: &PaymentEvent) -> Result<[u8; 16], StoreError> {
    crate::message::fact_digest(event).map_err(|error| StoreError::impossible(APPLYING, error))
}

/// Tries until the batch is committed or an error ends it.
async fn commit(
    pool: &PooledConnection,
    lock_wait: Duration,
    messages: &[Message<'_>],
    terms: BatchTerms,
) -> Result<Applied, StoreError> {
    // These are found inside a transaction. The next try leaves them out.
    let mut refused: HashMap<usize, Refusal> = HashMap::new();
    for n in 0..TRIES_MAX {
        let mut tx = Tx::begin_waiting(pool, lock_wait).await?;
        match attempt(&mut tx, messages, &refused, terms, n > 0).await? {
            Attempt::Written { outcomes, changed } => {
                failpoint::hit(Failpoint::BeforeCommit);
                let committed = tx.commit().await?;
                failpoint::hit(Failpoint::AfterCommit);
                return Ok(Applied { committed, outcomes, changed });
            }
            Attempt::Reused(reused) => {
                tx.roll_back().await?;
                refused.extend(reused);
            }
            Attempt::Overtaken => tx.roll_back().await?,
        }
    }
    Err(StoreError::Disturbed { tries: TRIES_MAX })
}

enum Attempt {
    Written {
        outcomes: Vec<Outcome>,
        changed: Vec<OrderId>,
    },
    /// These message ids were admitted before with another content.
    Reused(Vec<(usize, Refusal)>),
    /// Another transaction registered one of the payments, or changed one of the orders, while this one was running.
    Overtaken,
}

async fn attempt(
    tx: &mut Tx,
    messages: &[Message<'_>],
    refused: &HashMap<usize, Refusal>,
    terms: BatchTerms,
    is_careful: bool,
) -> Result<Attempt, StoreError> {
    let owners = tx.owners_of_payments(messages).await?;
    let wanted = plan::orders_wanted(messages, &owners);
    let orders = tx.find_orders(&wanted).await?;
    failpoint::hit(Failpoint::AfterBegin);

    let mut plan = Plan::assess(messages, refused, owners.clone(), orders)?;
    let candidates = plan.candidates()?;
    let (admitted, known) = if is_careful {
        let all: Vec<_> = candidates.iter().map(|candidate| (candidate.message, candidate.order_id)).collect();
        let admitted = tx.admit_the_unknown(&all, terms.now).await?;
        let others: Vec<_> = all.iter().filter(|(message, _)| !admitted.contains_key(&message.at)).copied().collect();
        let Inbox { reused, known, .. } = ask_the_inbox(tx, &others).await?;
        if !reused.is_empty() {
            return Ok(Attempt::Reused(reused));
        }
        (admitted, known)
    } else {
        let (mut new, mut perhaps_known) = (vec![], vec![]);
        for candidate in candidates {
            let list = if candidate.cannot_be_known { &mut new } else { &mut perhaps_known };
            list.push((candidate.message, candidate.order_id));
        }
        let Inbox { reused, unknown, known } = ask_the_inbox(tx, &perhaps_known).await?;
        if !reused.is_empty() {
            return Ok(Attempt::Reused(reused));
        }
        new.extend(unknown);
        match tx.admit(&new, terms.now).await? {
            Some(admitted) => (admitted, known),
            None => return Ok(Attempt::Overtaken),
        }
    };
    let payments = plan.new_payments();
    if !payments.is_empty() && !tx.register_payments(&payments, terms.now).await? {
        return Ok(Attempt::Overtaken);
    }
    if is_careful {
        // Orders are locked only now, because every transaction locks its orders last. The admissions above rely on the
        // terms of the orders. These hardly ever change. If they did, this try is given up like any other.
        tx.lock_rows(&wanted).await?;
        let locked = Plan::assess(messages, refused, owners, tx.find_orders(&wanted).await?)?;
        if !locked.accepts_the_same(&plan) {
            return Ok(Attempt::Overtaken);
        }
        plan = locked;
    }
    let writes = plan.decide(&admitted, &known, terms)?;
    if !writes.judged.is_empty() && !tx.hold_orders(&writes.all_read()).await? {
        return Ok(Attempt::Overtaken);
    }
    if !writes.orders.is_empty() && !tx.update_orders(&writes.orders, terms.now).await? {
        return Ok(Attempt::Overtaken);
    }
    if !writes.grants.is_empty() {
        tx.write_grants(&writes.grants, terms.now).await?;
    }
    if !writes.adjustments.is_empty() {
        tx.write_adjustments(&writes.adjustments, terms.now).await?;
    }
    if !writes.overpaid.is_empty() {
        tx.write_overpaid(&writes.overpaid, terms.now).await?;
    }
    Ok(Attempt::Written { outcomes: plan.into_outcomes()?, changed: writes.changed })
}

/// What the inbox says about messages that it may have.
#[derive(Default)]
struct Inbox<'a> {
    /// Messages that were admitted before with another content.
    reused: Vec<(usize, Refusal)>,
    unknown: Vec<(Message<'a>, OrderId)>,
    /// The positions of messages that were admitted before with the same content.
    known: HashSet<usize>,
}

async fn ask_the_inbox<'a>(tx: &mut Tx, candidates: &[(Message<'a>, OrderId)]) -> Result<Inbox<'a>, StoreError> {
    let mut inbox = Inbox::default();
    if candidates.is_empty() {
        return Ok(inbox);
    }
    let messages: Vec<_> = candidates.iter().map(|(message, _)| *message).collect();
    let known = tx.known_digests(&messages).await?;
    for (message, order_id) in candidates {
        match known.get(&message.at) {
            None => inbox.unknown.push((*message, *order_id)),
            Some(digest) if *digest == message.digest => {
                inbox.known.insert(message.at);
            }
            Some(_) => {
                let detail = format!("{} was admitted before with another content", message.event.message_id);
                inbox.reused.push((message.at, Refusal::new(Reason::IdReused, detail)));
            }
        }
    }
    Ok(inbox)
}

//! The worker's transaction. It assesses and admits a batch of events, adds their facts to the orders, and writes the ledger.
//! All of it is committed, or none of it.
//!
//! The first try needs two round trips, and a third one if the inbox has to be asked:
//!
//! 1. Read the order of each payment, and these orders, without a lock and without a transaction.
//! 2. Only if an order knows the fact of a message already: ask the inbox whether it has the message. A message whose fact its
//!    order does not know cannot have been admitted before, because the order would have the fact.
//! 3. Decide in memory ([`crate::domain`]).
//! 4. Call the function `apply_batch_v1`. It is one statement, so it is one transaction. It admits the messages, registers the
//!    payments, writes the orders, grants and adjustments.
//!
//! Everything that a decision needs is in the order's own row, and every change of the row raises its version. The function
//! writes an order only if its version is the one that was read. So it locks the orders, and it proves that no other transaction
//! has changed them. Orders that a decision was based on and that are not written are locked in the same way.
//!
//! If another transaction was faster, the call fails as a whole, and the batch is read and decided anew. If that fails, too, the
//! next try is a transaction that asks the inbox about every message. Between the payments and the decision it locks the orders
//! and reads them again.
//!
//! Every try of every worker takes its locks in the same order, and every statement takes its keys in ascending order. So
//! overlapping batches wait for each other and never deadlock.

mod locks;
mod place;
mod plan;
mod sql;
mod weigh;

use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::{Autocommit, Committed, Tx};
use super::watch::IDS_PER_PAYLOAD;
use crate::domain::{DisputePolicy, OrderId, PaymentEvent, Reason, Refusal};
use crate::failpoint::{self, Failpoint};
use plan::{Plan, Writes};
use sql::{Call, Rows};
use sqlx::PgConnection;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

pub use weigh::{JudgedOrders, WEIGHED_MAX, Weighed};

/// How often one batch is tried if other transactions register its payments or change its orders meanwhile.
const TRIES_MAX: u32 = 6;

/// How many of these tries take no lock before they write.
const TRIES_AT_ONCE_MAX: u32 = 2;

/// How long a batch waits for a row that another transaction has locked. Our transactions hold a lock for milliseconds.
pub const LOCK_WAIT: Duration = Duration::from_millis(500);

/// The terms by which a batch is decided.
#[derive(Debug, Clone, Copy)]
pub struct BatchTerms {
    /// Whether open disputes take credits.
    pub dispute_policy: DisputePolicy,
    /// The time that is written to the rows.
    pub now: OffsetDateTime,
}

/// How a batch is written.
#[derive(Debug, Clone, Copy, Default)]
pub struct ApplyOptions {
    /// How long the transaction waits for a row that another session has locked. Without it, as long as the setting of the
    /// session says ([`LOCK_WAIT`]).
    pub lock_wait: Option<Duration>,
    /// Whether the transaction announces the changed orders itself. That saves a round trip, but batches that do it commit one
    /// after the other.
    pub announces: bool,
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
    /// Orders that look different to their readers now, and that were not announced yet.
    pub changed: Vec<OrderId>,
    /// How often the batch was tried in vain before, because another transaction was faster.
    pub overtaken: u32,
}

impl Store {
    /// Applies a batch of events in one transaction and commits it.
    ///
    /// After an error it is not known that any of it was written. [`StoreError::class`] says what to do.
    pub async fn apply<E>(
        &self,
        events: Arc<[E]>,
        terms: BatchTerms,
        options: ApplyOptions,
    ) -> Result<Applied, StoreError>
    where
        E: AsRef<PaymentEvent> + Send + Sync + 'static,
    {
        self.run(APPLYING, move |pool| async move {
            let messages = Messages::sort_out(&events)?;
            let Applied { mut committed, outcomes, mut changed, mut overtaken } =
                commit(&pool, options, &messages.first_of_each_id, terms).await?;
            let mut outcome_of: HashMap<usize, Outcome> =
                messages.first_of_each_id.iter().map(|m| m.at).zip(outcomes).collect();

            // One id with two contents in one batch: the second is judged when the first is in the inbox, or is not.
            for rival in &messages.rivals {
                let next = commit(&pool, options, std::slice::from_ref(rival), terms).await?;
                committed = committed.and(next.committed);
                changed.extend(next.changed);
                overtaken += next.overtaken;
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
                Ok(Applied { committed, outcomes, changed, overtaken })
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
            let (owners, orders) = sql::read(tx.connection(), &messages).await?;
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

    /// Checks whether a batch could be applied now. It runs every statement of a batch without any rows: the server answers and accepts writes, and the schema and the rights of
    /// this user are sufficient. The worker checks this before it consumes deliveries, because every delivery that it
    /// returns counts as a try.
    pub async fn rehearse(&self, now: OffsetDateTime) -> Result<(), StoreError> {
        self.run("rehearsing a batch", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            sql::read(tx.connection(), &[]).await?;
            sql::known_digests(tx.connection(), &[]).await?;
            sql::admit_the_unknown(tx.connection(), &[], now).await?;
            tx.lock_rows(&BTreeSet::new()).await?;
            tx.lock_free_rows(&BTreeSet::new()).await?;
            let call = sql::apply_batch(&Writes::default(), now, Call { is_rehearsal: true, ..Call::default() })?;
            call.execute(tx.connection()).await.map_err(StoreError::sql(sql::WRITING))?;
            // Only a server that accepts writes gives a transaction id.
            sqlx::query("SELECT pg_current_xact_id()")
                .execute(tx.connection())
                .await
                .map_err(StoreError::sql("taking a transaction id"))?;
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

/// Tries until the batch is committed or an error ends it. The first tries take no lock before they write. A rival is mostly one
/// other worker with a copy of a message, and the next try finds its work committed. If rivals are faster again, the later tries
/// take their locks first.
async fn commit(
    pool: &PooledConnection,
    options: ApplyOptions,
    messages: &[Message<'_>],
    terms: BatchTerms,
) -> Result<Applied, StoreError> {
    // These are found by a try. The next ones leave them out.
    let mut refused: HashMap<usize, Refusal> = HashMap::new();
    for overtaken in 0..TRIES_MAX {
        let attempt = if overtaken < TRIES_AT_ONCE_MAX {
            try_at_once(pool, options, messages, &refused, terms).await?
        } else {
            try_with_locks(pool, options, messages, &refused, terms).await?
        };
        match attempt {
            Attempt::Committed(applied) => return Ok(Applied { overtaken, ..applied }),
            Attempt::Reused(reused) => refused.extend(reused),
            Attempt::Overtaken => {}
        }
    }
    Err(StoreError::Disturbed { tries: TRIES_MAX })
}

/// The result of a try. All but `Committed` have written nothing.
enum Attempt {
    Committed(Applied),
    /// These message ids were admitted before with another content.
    Reused(Vec<(usize, Refusal)>),
    /// Another transaction admitted one of the messages, registered one of the payments, or changed one of the orders meanwhile.
    Overtaken,
}

/// Reads without a transaction, decides, and writes with one call, which is the transaction.
async fn try_at_once(
    pool: &PooledConnection,
    options: ApplyOptions,
    messages: &[Message<'_>],
    refused: &HashMap<usize, Refusal>,
    terms: BatchTerms,
) -> Result<Attempt, StoreError> {
    let mut session = Autocommit::on(pool).await?;
    let (owners, orders) = sql::read(session.connection(), messages).await?;
    failpoint::hit(Failpoint::AfterBegin);
    let mut plan = Plan::assess(messages, refused, owners, orders)?;
    let (mut new, mut perhaps_known) = (vec![], vec![]);
    for candidate in plan.candidates()? {
        let list = if candidate.cannot_be_known { &mut new } else { &mut perhaps_known };
        list.push((candidate.message, candidate.order_id));
    }
    let Inbox { reused, unknown, known } = ask_the_inbox(session.connection(), &perhaps_known).await?;
    if !reused.is_empty() {
        return Ok(Attempt::Reused(reused));
    }
    new.extend(unknown);
    let inbox = Rows::of(&new);
    let mut writes = plan.decide(&inbox.admitted(), &known, terms)?;
    writes.inbox = inbox;
    writes.payments = plan.new_payments();
    let committed = if writes.is_empty() {
        session.nothing_to_write()
    } else {
        let announces = options.announces && (1..=IDS_PER_PAYLOAD).contains(&writes.changed.len());
        let call = Call { lock_wait: options.lock_wait, announces, is_rehearsal: false };
        let call = sql::apply_batch(&writes, terms.now, call)?;
        failpoint::hit(Failpoint::BeforeCommit);
        match session.commit(call).await {
            Ok(committed) => {
                if announces {
                    writes.changed.clear();
                }
                committed
            }
            Err(error) if sql::is_overtaken(&error, true) => return Ok(Attempt::Overtaken),
            Err(source) => return Err(StoreError::Sql { what: sql::WRITING, source }),
        }
    };
    failpoint::hit(Failpoint::AfterCommit);
    Ok(Attempt::Committed(Applied {
        committed,
        outcomes: plan.into_outcomes()?,
        changed: writes.changed,
        overtaken: 0,
    }))
}

/// Decides under locks. Each message is admitted in a way that waits for all rivals at once.
async fn try_with_locks(
    pool: &PooledConnection,
    options: ApplyOptions,
    messages: &[Message<'_>],
    refused: &HashMap<usize, Refusal>,
    terms: BatchTerms,
) -> Result<Attempt, StoreError> {
    let mut tx = Tx::begin_waiting(pool, options.lock_wait.unwrap_or(LOCK_WAIT)).await?;
    let (owners, orders) = sql::read(tx.connection(), messages).await?;
    let wanted = plan::orders_wanted(messages, &owners);
    let mut plan = Plan::assess(messages, refused, owners.clone(), orders)?;
    let candidates: Vec<_> = plan.candidates()?.iter().map(|one| (one.message, one.order_id)).collect();
    let admitted = sql::admit_the_unknown(tx.connection(), &candidates, terms.now).await?;
    let others: Vec<_> = candidates.into_iter().filter(|(message, _)| !admitted.contains_key(&message.at)).collect();
    let Inbox { reused, known, .. } = ask_the_inbox(tx.connection(), &others).await?;
    if !reused.is_empty() {
        tx.roll_back().await?;
        return Ok(Attempt::Reused(reused));
    }
    let registrations = Writes { payments: plan.new_payments(), ..Writes::default() };
    if !write(&mut tx, &registrations, terms).await? {
        tx.roll_back().await?;
        return Ok(Attempt::Overtaken);
    }
    // Orders are locked only now, because every transaction locks its orders last. The admissions above rely on the terms of the
    // orders. These hardly ever change. If they did, this try is given up like any other.
    tx.lock_rows(&wanted).await?;
    let (_, orders) = sql::read(tx.connection(), messages).await?;
    let mut locked = Plan::assess(messages, refused, owners, orders)?;
    if !locked.accepts_the_same(&plan) {
        tx.roll_back().await?;
        return Ok(Attempt::Overtaken);
    }
    let writes = locked.decide(&admitted, &known, terms)?;
    if !write(&mut tx, &writes, terms).await? {
        tx.roll_back().await?;
        return Ok(Attempt::Overtaken);
    }
    failpoint::hit(Failpoint::BeforeCommit);
    let committed = tx.commit().await?;
    failpoint::hit(Failpoint::AfterCommit);
    Ok(Attempt::Committed(Applied {
        committed,
        outcomes: locked.into_outcomes()?,
        changed: writes.changed,
        overtaken: 0,
    }))
}

/// Writes in a transaction. `false` means that another transaction was faster, so nothing of this one may be committed.
async fn write(tx: &mut Tx, writes: &Writes<'_>, terms: BatchTerms) -> Result<bool, StoreError> {
    if writes.is_empty() {
        return Ok(true);
    }
    let call = sql::apply_batch(writes, terms.now, Call::default())?;
    match call.execute(tx.connection()).await {
        Ok(_) => Ok(true),
        Err(error) if sql::is_overtaken(&error, false) => Ok(false),
        Err(source) => Err(StoreError::Sql { what: sql::WRITING, source }),
    }
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

async fn ask_the_inbox<'a>(
    connection: &mut PgConnection,
    candidates: &[(Message<'a>, OrderId)],
) -> Result<Inbox<'a>, StoreError> {
    let mut inbox = Inbox::default();
    if candidates.is_empty() {
        return Ok(inbox);
    }
    let messages: Vec<_> = candidates.iter().map(|(message, _)| *message).collect();
    let known = sql::known_digests(connection, &messages).await?;
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

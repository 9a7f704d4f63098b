//! Predicts the outcome of events with the code that batches use. It takes no lock and writes nothing.

use super::plan::{self, Plan};
use super::sql::{self, Orders, Owners};
use super::{APPLYING, Message, Outcome, digest_of};
use crate::domain::{DisputePolicy, Order, OrderId, PaymentEvent, Reason, Refusal, Verdict};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::Tx;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The largest number of events in one call.
pub const WEIGHED_MAX: usize = 1_000;

/// The predicted outcome of one event, and its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    /// The outcome if the event were applied now.
    pub verdict: Verdict,
    /// The order that the event is about, if there is one.
    pub order: Option<Order>,
}

/// Orders as they are now. An order that does not exist is in neither map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JudgedOrders {
    /// Orders that could be read.
    pub read: BTreeMap<OrderId, Order>,
    /// Rows that exist and cannot be read as an order, with the cause.
    pub unreadable: BTreeMap<OrderId, String>,
}

impl Store {
    /// Reads orders as a batch reads them, without a lock.
    pub async fn orders_to_judge(&self, ids: BTreeSet<OrderId>) -> Result<JudgedOrders, StoreError> {
        self.run("reading orders to judge", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let (_, orders) = sql::read_by(tx.connection(), &[], &ids).await?;
            tx.roll_back().await?;
            let read = orders.read.into_iter().map(|(id, read)| (id, read.order)).collect();
            Ok(JudgedOrders { read, unreadable: orders.unreadable })
        })
        .await
    }

    /// Predicts for each event what would happen if it were applied now, alone. Takes at most [`WEIGHED_MAX`] events.
    pub async fn weigh(&self, events: Arc<[PaymentEvent]>, policy: DisputePolicy) -> Result<Vec<Weighed>, StoreError> {
        self.run("weighing events", move |pool| async move {
            let events = events.get(..events.len().min(WEIGHED_MAX)).unwrap_or_default();
            let messages: Vec<Message<'_>> = events
                .iter()
                .enumerate()
                .map(|(at, event)| Ok(Message { at, event, digest: digest_of(event)? }))
                .collect::<Result<_, StoreError>>()?;
            let mut tx = Tx::begin(&pool).await?;
            let (owners, orders) = sql::read(tx.connection(), &messages).await?;
            let known = sql::known_digests(tx.connection(), &messages).await?;
            // The transaction has written nothing.
            tx.commit().await?;
            messages.iter().map(|message| weigh(message, &owners, &orders, known.get(&message.at), policy)).collect()
        })
        .await
    }
}

fn weigh(
    message: &Message<'_>,
    owners: &Owners<'_>,
    orders: &Orders,
    known: Option<&[u8; 16]>,
    policy: DisputePolicy,
) -> Result<Weighed, StoreError> {
    let event = message.event;
    // Each event is a batch of its own. So it sees only its own orders.
    let owners: Owners<'_> = plan::payment_keys(event).filter_map(|key| Some((key, *owners.get(&key)?))).collect();
    let own = plan::orders_wanted(std::slice::from_ref(message), &owners);
    let own = Orders {
        read: own.iter().filter_map(|id| Some((*id, orders.read.get(id)?.clone()))).collect(),
        unreadable: own.iter().filter_map(|id| Some((*id, orders.unreadable.get(id)?.clone()))).collect(),
    };
    let order_id = plan::find_order(event, &owners, &own).ok().flatten();
    let plan = Plan::assess(std::slice::from_ref(message), &HashMap::new(), owners, own)?;
    let order = order_id.and_then(|id| plan.order(id)).cloned();
    let verdict = match (plan.refusal(), &order, known) {
        (Some(Outcome::Unreadable(detail)), _, _) => {
            let order_id = order_id.ok_or_else(|| StoreError::impossible(APPLYING, "no order is unreadable"))?;
            Verdict::OrderUnreadable { order_id, detail: detail.clone() }
        }
        (Some(Outcome::Refused(refusal)), _, _) => Verdict::WouldBeRefused(refusal.clone()),
        (Some(Outcome::OrderUnknown), _, _) => Verdict::OrderUnknown {
            provider: event.provider.clone(),
            payment_id: event.payment_id.clone(),
            order_id: event.order_id,
        },
        (None, Some(_), Some(digest)) if *digest != message.digest => {
            let detail = format!("{} was admitted before with another content", event.message_id);
            Verdict::WouldBeRefused(Refusal::new(Reason::IdReused, detail))
        }
        // A worker recognises the message by its id and checks nothing else.
        (None, Some(order), Some(_)) => Verdict::AlreadyApplied { order_id: order.id, credits: order.credits_posted },
        (None, Some(order), None) => Verdict::of_accepted(order, event, policy, plan.brings_ids())
            .map_err(|fault| StoreError::impossible(APPLYING, fault))?,
        (Some(Outcome::Applied { .. } | Outcome::Duplicate), _, _) | (None, None, _) => {
            return Err(StoreError::impossible(APPLYING, "an event that was only assessed has an outcome"));
        }
    };
    Ok(Weighed { verdict, order })
}

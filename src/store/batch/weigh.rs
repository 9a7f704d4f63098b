//! What events would come to, found out as a batch finds it out, without a lock and without a trace.

use super::plan::{self, Plan};
use super::sql::{Orders, Owners};
use super::{Message, Outcome};
use crate::domain::{DisputePolicy, Order, OrderId, PaymentEvent, Reason, Refusal, Verdict};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::Tx;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Most events that are weighed in one go.
pub const WEIGHED_MAX: usize = 1_000;

/// What one event would come to, and which order it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Weighed {
    /// As things stand.
    pub verdict: Verdict,
    /// The order it belongs to, where there is one.
    pub order: Option<Order>,
}

impl Store {
    /// Says what each event would come to if it were applied now, alone. At most [`WEIGHED_MAX`].
    pub async fn weigh(&self, events: Arc<[PaymentEvent]>, policy: DisputePolicy) -> Result<Vec<Weighed>, StoreError> {
        self.run("weighing events", move |pool| async move {
            let events = events.get(..events.len().min(WEIGHED_MAX)).unwrap_or_default();
            let messages: Vec<Message<'_>> = events
                .iter()
                .enumerate()
                .map(|(at, event)| Message { at, event, digest: crate::message::fact_digest(event) })
                .collect();
            let mut tx = Tx::begin(&pool).await?;
            let owners = tx.owners_of_payments(&messages).await?;
            let orders = tx.look_at_orders(&plan::orders_wanted(&messages, &owners)).await?;
            let known = tx.known_digests(&messages).await?;
            // Nothing was written.
            tx.commit().await?;
            Ok(messages
                .iter()
                .map(|message| weigh(message, &owners, &orders, known.get(&message.at), policy))
                .collect())
        })
        .await
    }
}

fn weigh(
    message: &Message<'_>,
    owners: &Owners<'_>,
    orders: &BTreeMap<OrderId, Order>,
    known: Option<&[u8; 16]>,
    policy: DisputePolicy,
) -> Weighed {
    let event = message.event;
    let order = plan::find_order(event, owners, orders).ok().flatten().cloned();
    // A batch of this one alone: what it may see of the others is its own order.
    let own = Orders { by_id: order.iter().map(|order| (order.id, order.clone())).collect(), ..Orders::default() };
    let owners = plan::payment_keys(event).filter_map(|key| Some((key, *owners.get(&key)?))).collect();
    let plan = Plan::assess(std::slice::from_ref(message), &HashMap::new(), owners, own);
    let brings_ids = plan.brings_ids();
    let accepted = plan.candidates().first().and_then(|candidate| orders.get(&candidate.order_id));
    let verdict = match (accepted, known) {
        (Some(_), Some(digest)) if *digest != message.digest => {
            let detail = format!("{} was admitted before with another content", event.message_id);
            Verdict::WouldBeRefused(Refusal::new(Reason::IdReused, detail))
        }
        // A worker knows it by its id, and looks no further.
        (Some(order), Some(_)) => Verdict::AlreadyApplied { order_id: order.id, credits: order.credits_posted },
        (Some(order), None) => Verdict::of_accepted(order, event, policy, brings_ids),
        (None, _) => match plan.into_outcomes().pop() {
            Some(Outcome::Refused(refusal)) => Verdict::WouldBeRefused(refusal),
            Some(Outcome::Applied { .. } | Outcome::Duplicate | Outcome::OrderUnknown) | None => {
                Verdict::OrderUnknown {
                    provider: event.provider.clone(),
                    payment_id: event.payment_id.clone(),
                    order_id: event.order_id,
                }
            }
        },
    };
    Weighed { verdict, order }
}

//! One delivery on its way through the worker.

use crate::broker::Delivery;
use crate::domain::{PaymentEvent, Refusal, Separated};
use crate::store::Committed;
use std::sync::Arc;

/// A delivery with the event that it carries. Shared, because a transaction may still hold it when nobody waits any more.
#[derive(Debug, Clone)]
pub(super) struct Job(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    delivery: Delivery,
    event: Box<PaymentEvent>,
}

impl Job {
    pub(super) fn new(delivery: Delivery, event: Box<PaymentEvent>) -> Self {
        Self(Arc::new(Inner { delivery, event }))
    }

    pub(super) fn delivery(&self) -> &Delivery {
        &self.0.delivery
    }

    pub(super) fn event(&self) -> &PaymentEvent {
        &self.0.event
    }
}

impl AsRef<PaymentEvent> for Job {
    fn as_ref(&self) -> &PaymentEvent {
        self.event()
    }
}

/// What the database said of a job. What counts as settled by it has the proof with it.
#[derive(Debug)]
pub(super) enum JobResult {
    /// Its fact is part of the order now.
    Applied { granted: bool, committed: Arc<Committed> },
    /// It was applied before.
    Duplicate { committed: Arc<Committed> },
    /// No order has this payment (yet).
    OrderUnknown,
    /// Nobody can say now; the fault is not the message's.
    NotNow { why: Separated, detail: String },
    /// Never, as things stand.
    Refused(Refusal),
}

//! One delivery on its way through the worker.

use crate::broker::Delivery;
use crate::domain::PaymentEvent;
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

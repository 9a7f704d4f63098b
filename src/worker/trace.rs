//! The spans of a batch: one for the batch, and one for each message that carries a trace, in that trace. They are made when the
//! batch is acknowledged or given back, so nothing is held or copied while traces are off.

use super::settle::Labels;
use crate::broker::{Delivery, WORK_QUEUE};
use crate::message::TRACEPARENT_HEADER;
use crate::telemetry::{Carried, GivenBack, Parent, SpanKind, SpanStart, Traces};
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// The name of the spans of messages that are worked on. It contains the name of [`WORK_QUEUE`].
const NAME: &str = "process fulfilment";

/// What the spans of a batch will tell when it has ended.
#[derive(Debug)]
pub(super) struct BatchTrace {
    traces: Traces,
    began_at: OffsetDateTime,
    deliveries: usize,
    /// By the number of the delivery on its channel.
    messages: BTreeMap<u64, Traced>,
}

/// A message that carries a trace.
#[derive(Debug)]
struct Traced {
    carried: Carried,
    message_id: String,
    /// `None` until it is decided about.
    labels: Option<Labels>,
}

impl BatchTrace {
    /// `None` while traces are off.
    pub(super) fn begin(traces: &Traces, deliveries: &[Delivery], began_at: OffsetDateTime) -> Option<Self> {
        if !traces.is_on() {
            return None;
        }
        let traced = |delivery: &Delivery| {
            let carried = Carried::read(delivery.headers.text(TRACEPARENT_HEADER)?)?;
            let message_id = delivery.message_id.clone().unwrap_or_default();
            Some((delivery.tag, Traced { carried, message_id, labels: None }))
        };
        let messages = deliveries.iter().filter_map(traced).collect();
        Some(Self { traces: traces.clone(), began_at, deliveries: deliveries.len(), messages })
    }

    /// Takes down a decision about a delivery.
    pub(super) fn decided(&mut self, tag: u64, labels: Labels) {
        if let Some(message) = self.messages.get_mut(&tag) {
            message.labels = Some(labels);
        }
    }

    /// Makes the spans: the batch was acknowledged, or given back for a cause.
    pub(super) fn end(self, given_back: Option<GivenBack>) {
        let Self { traces, began_at, deliveries, messages } = self;
        let began_at = Some(began_at);
        let (kind, parent) = (SpanKind::Consumer, Parent::Nothing);
        let mut batch = traces.begin(SpanStart { name: NAME, kind, parent, link: None, began_at });
        batch.messaging("process", "process", WORK_QUEUE);
        batch.number("messaging.batch.message_count", i64::try_from(deliveries).unwrap_or(i64::MAX));
        if let Some(cause) = given_back {
            batch.fail(cause.name());
        }
        for Traced { carried, message_id, labels } in messages.into_values() {
            let (kind, parent) = (SpanKind::Consumer, Parent::Carried(&carried));
            let mut span = traces.begin(SpanStart { name: NAME, kind, parent, link: Some(&batch), began_at });
            span.messaging("process", "process", WORK_QUEUE);
            span.text("messaging.message.id", &message_id);
            match (given_back, labels) {
                (Some(cause), _) => {
                    span.text("grantonce.outcome", "given_back");
                    span.fail(cause.name());
                }
                (None, Some(Labels { outcome, reason, granted, .. })) => {
                    span.text("grantonce.outcome", outcome.name());
                    span.number("grantonce.grants", i64::from(granted));
                    if let Some(reason) = reason {
                        span.fail(reason.name());
                    }
                }
                // This cannot happen: what is acknowledged has its outcome.
                (None, None) => {}
            }
        }
    }
}

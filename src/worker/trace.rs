//! What a batch's spans tell: one for the batch, and one for each message that carries a trace, in that trace. They are made
//! when the batch is acknowledged or given back, so that nothing is held or copied where nothing is traced.

use super::settle::{Decided, Told};
use crate::broker::{Delivery, WORK_QUEUE};
use crate::message::TRACEPARENT_HEADER;
use crate::telemetry::{Carried, GivenBack, Parent, SpanKind, SpanStart, Traces};
use std::collections::HashMap;
use time::OffsetDateTime;

/// What spans about messages that are worked on are called. With the name of [`WORK_QUEUE`].
const NAME: &str = "process fulfilment";

/// What is told of a batch, once it has ended.
#[derive(Debug)]
pub(super) struct BatchTrace {
    traces: Traces,
    began_at: OffsetDateTime,
    deliveries: usize,
    messages: Vec<Traced>,
    /// What was decided, by the delivery's number.
    told: HashMap<u64, Told>,
}

/// A message that carries a trace.
#[derive(Debug)]
struct Traced {
    /// The delivery's number on its channel.
    tag: u64,
    carried: Carried,
    message_id: String,
}

impl BatchTrace {
    /// `None` where traces are off.
    pub(super) fn begin(traces: &Traces, deliveries: &[Delivery], began_at: OffsetDateTime) -> Option<Self> {
        if !traces.is_on() {
            return None;
        }
        let traced = |delivery: &Delivery| {
            let carried = Carried::read(delivery.headers.text(TRACEPARENT_HEADER)?)?;
            let message_id = delivery.message_id.clone().unwrap_or_default();
            Some(Traced { tag: delivery.tag, carried, message_id })
        };
        let messages = deliveries.iter().filter_map(traced).collect();
        Some(Self { traces: traces.clone(), began_at, deliveries: deliveries.len(), messages, told: HashMap::new() })
    }

    /// What was decided about a delivery.
    pub(super) fn decided(&mut self, decided: &Decided) {
        self.told.insert(decided.tag, decided.told);
    }

    /// Tells the spans: acknowledged, or given back for a cause.
    pub(super) fn end(self, given_back: Option<GivenBack>) {
        let Self { traces, began_at, deliveries, messages, told } = self;
        let began_at = Some(began_at);
        let (kind, parent) = (SpanKind::Consumer, Parent::Nothing);
        let mut batch = traces.begin(SpanStart { name: NAME, kind, parent, link: None, began_at });
        batch.messaging("process", "process", WORK_QUEUE);
        batch.number("messaging.batch.message_count", i64::try_from(deliveries).unwrap_or(i64::MAX));
        if let Some(cause) = given_back {
            batch.fail(cause.name());
        }
        for Traced { tag, carried, message_id } in messages {
            let (kind, parent) = (SpanKind::Consumer, Parent::Carried(&carried));
            let mut span = traces.begin(SpanStart { name: NAME, kind, parent, link: Some(&batch), began_at });
            span.messaging("process", "process", WORK_QUEUE);
            span.text("messaging.message.id", &message_id);
            match (given_back, told.get(&tag).copied()) {
                (Some(cause), _) => {
                    span.text("grantonce.outcome", "given_back");
                    span.fail(cause.name());
                }
                (None, Some(Told { outcome, reason, granted, .. })) => {
                    span.text("grantonce.outcome", outcome.name());
                    span.number("grantonce.grants", i64::from(granted));
                    if let Some(reason) = reason {
                        span.fail(reason.name());
                    }
                }
                // Cannot be: what is acknowledged has its outcome.
                (None, None) => {}
            }
        }
    }
}

//! How roles publish: the time until the confirm is measured, and a message may be a part of a trace.

use crate::broker::{Confirmed, Outgoing, PublishError, Publisher};
use crate::telemetry::{Metrics, Parent, Publishing, Span, Traces};

/// Publishes a message as a part of the trace of `span`, and waits until it is confirmed.
pub async fn publish_in_trace(
    publisher: &Publisher,
    message: Outgoing,
    metrics: &Metrics,
    traces: &Traces,
    span: &Span,
) -> Result<Confirmed, PublishError> {
    let Outgoing { exchange, routing_key, message_id, .. } = &message;
    let publishing = traces.publishing(metrics, exchange, routing_key, message_id, Parent::Span(span));
    let message = message.in_trace(publishing.traceparent());
    end(publishing, publisher.publish(message).await)
}

/// Publishes a message as it is, and waits until it is confirmed.
pub async fn publish_as_is(
    publisher: &Publisher,
    message: Outgoing,
    metrics: &Metrics,
) -> Result<Confirmed, PublishError> {
    let publishing = Publishing::untraced(metrics, message.exchange);
    end(publishing, publisher.publish(message).await)
}

fn end(publishing: Publishing, published: Result<Confirmed, PublishError>) -> Result<Confirmed, PublishError> {
    publishing.end(published.as_ref().err().map(PublishError::name));
    published
}

//! What the process says of itself: log lines to stderr, metrics for Prometheus, and traces for OpenTelemetry.

mod labels;
mod logging;
mod metrics;
mod traces;

pub use labels::{
    Dependency, GivenBack, HintOutcome, InboxMaintenance, ListenerName, LookOutcome, MessageOutcome,
    PublishDestination, QueueName, ReplayOutcome, WebhookEndpoint, WebhookOutcome,
};
pub use logging::{LogFilter, LogFormat, LoggingError, causes, init_logging};
pub use metrics::{InFlight, Metrics, OPEN_METRICS_CONTENT_TYPE};
pub use opentelemetry::trace::SpanKind;
pub use traces::{Carried, Parent, Publishing, SHUTDOWN_DEADLINE, Span, SpanStart, Traces, TracesError};

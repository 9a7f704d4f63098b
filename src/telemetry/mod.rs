//! What the process says of itself: log lines to stderr, metrics for Prometheus, and traces for OpenTelemetry.

mod labels;
mod log_queue;
mod logging;
mod metrics;
mod traces;

pub use labels::{
    Dependency, GivenBack, HintOutcome, InboxMaintenance, ListenerName, LookOutcome, MessageOutcome, Need,
    PublishDestination, QueueName, ReplayOutcome, WebhookEndpoint, WebhookOutcome,
};
pub use logging::{LogFilter, LogFormat, LoggingError, causes, flush_log, init_logging, say};
pub use metrics::{InFlight, Metrics, OPEN_METRICS_CONTENT_TYPE};
pub use opentelemetry::trace::SpanKind;
pub use traces::{Carried, Parent, Publishing, SHUTDOWN_DEADLINE, Span, SpanStart, Traces, TracesError};

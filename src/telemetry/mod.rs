//! What the process says of itself: log lines to stderr, and metrics for Prometheus.

mod labels;
mod logging;
mod metrics;

pub use labels::{
    Dependency, GivenBack, HintOutcome, InboxMaintenance, ListenerName, LookOutcome, MessageOutcome,
    PublishDestination, QueueName, ReplayOutcome, WebhookEndpoint, WebhookOutcome,
};
pub use logging::{LogFilter, LogFormat, LoggingError, causes, init_logging};
pub use metrics::{InFlight, Metrics, OPEN_METRICS_CONTENT_TYPE};

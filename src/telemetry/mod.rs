//! What the process says of itself: log lines to stderr, and metrics for Prometheus.

mod logging;
mod metrics;

pub use logging::{LogFilter, LogFormat, LoggingError, causes, init_logging};
pub use metrics::{
    Dependency, GivenBack, InFlight, ListenerName, MessageOutcome, Metrics, OPEN_METRICS_CONTENT_TYPE, WebhookEndpoint,
    WebhookOutcome,
};

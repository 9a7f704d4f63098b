//! Metrics: one method a happening, one type a label. Every label's values are a bounded set, and every series
//! exists from the start, so that a rate over the first happening is right.

use super::labels::{
    Dependency, GivenBack, HintOutcome, ListenerName, LookOutcome, MessageOutcome, WebhookEndpoint, WebhookOutcome,
};
use crate::domain::{Provider, Reason};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// The media type of [`Metrics::render`].
pub const OPEN_METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Messages in a batch, upper bounds of the histogram's buckets; the largest batch that can be set is 1000.
const BATCH_MESSAGES_BUCKETS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Seconds from a batch's first delivery to its acknowledgement, upper bounds of the histogram's buckets.
const BATCH_SECONDS_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// [`Reason`] as a label's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ReasonLabel(Reason);

impl EncodeLabelValue for ReasonLabel {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.name(), encoder)
    }
}

/// The hundreds of a status code.
fn status_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabels {
    endpoint: WebhookEndpoint,
    outcome: WebhookOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MessageLabels {
    outcome: MessageOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: ReasonLabel,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LookLabels {
    provider: String,
    outcome: LookOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HintLabels {
    outcome: HintOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct GivenBackLabels {
    cause: GivenBack,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DependencyLabels {
    dependency: Dependency,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabels {
    listener: ListenerName,
    route: String,
    status_class: &'static str,
}

/// The process's metrics. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    registry: Registry,
    webhooks: Family<WebhookLabels, Counter>,
    publishes_in_flight: Gauge,
    messages: Family<MessageLabels, Counter>,
    inbox_duplicates: Counter,
    grants: Counter,
    dead_lettered: Family<ReasonLabels, Counter>,
    looks: Family<LookLabels, Counter>,
    hints: Family<HintLabels, Counter>,
    batch_messages: Histogram,
    batch_seconds: Histogram,
    given_back: Family<GivenBackLabels, Counter>,
    dependency_up: Family<DependencyLabels, Gauge>,
    http_requests: Family<HttpLabels, Counter>,
    long_polls: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All counters at zero, all dependencies down.
    pub fn new() -> Self {
        let mut inner = Inner {
            registry: Registry::with_prefix("grantonce"),
            webhooks: Family::default(),
            publishes_in_flight: Gauge::default(),
            messages: Family::default(),
            inbox_duplicates: Counter::default(),
            grants: Counter::default(),
            dead_lettered: Family::default(),
            looks: Family::default(),
            hints: Family::default(),
            batch_messages: Histogram::new(BATCH_MESSAGES_BUCKETS),
            batch_seconds: Histogram::new(BATCH_SECONDS_BUCKETS),
            given_back: Family::default(),
            dependency_up: Family::default(),
            http_requests: Family::default(),
            long_polls: Gauge::default(),
        };
        inner.register();
        inner.create_series();
        Self(Arc::new(inner))
    }

    /// A webhook was answered.
    pub fn webhook(&self, endpoint: WebhookEndpoint, outcome: WebhookOutcome) {
        self.0.webhooks.get_or_create(&WebhookLabels { endpoint, outcome }).inc();
    }

    /// A publish waits for the broker's confirmation until the guard is dropped.
    #[must_use]
    pub fn publish_in_flight(&self) -> InFlight {
        InFlight::one_more(&self.0.publishes_in_flight)
    }

    /// A delivery was settled. A duplicate also counts as one of the inbox.
    pub fn message(&self, outcome: MessageOutcome) {
        self.messages(outcome, 1);
    }

    /// As [`Metrics::message`], for several of a batch.
    pub fn messages(&self, outcome: MessageOutcome, count: u64) {
        self.0.messages.get_or_create(&MessageLabels { outcome }).inc_by(count);
        if outcome == MessageOutcome::Duplicate {
            self.0.inbox_duplicates.inc_by(count);
        }
    }

    /// Grants were committed.
    pub fn grants(&self, count: u64) {
        self.0.grants.inc_by(count);
    }

    /// A message was published as a dead letter.
    pub fn dead_lettered(&self, reason: Reason) {
        self.0.dead_lettered.get_or_create(&ReasonLabels { reason: ReasonLabel(reason) }).inc();
    }

    /// A provider was asked about a payment. `provider` is one of those that can be asked, never a relay's.
    pub fn look(&self, provider: &Provider, outcome: LookOutcome) {
        self.0.looks.get_or_create(&LookLabels { provider: provider.as_str().to_owned(), outcome }).inc();
    }

    /// A hint was dealt with.
    pub fn hint(&self, outcome: HintOutcome) {
        self.0.hints.get_or_create(&HintLabels { outcome }).inc();
    }

    /// A batch of so many messages was committed and acknowledged, so long after its first delivery.
    pub fn batch(&self, messages: usize, took: Duration) {
        self.0.batch_messages.observe(f64::from(u32::try_from(messages).unwrap_or(u32::MAX)));
        self.0.batch_seconds.observe(took.as_secs_f64());
    }

    /// Deliveries were given back to the broker.
    pub fn given_back(&self, cause: GivenBack, deliveries: u64) {
        self.0.given_back.get_or_create(&GivenBackLabels { cause }).inc_by(deliveries);
    }

    /// A dependency was reached, or lost.
    pub fn dependency(&self, dependency: Dependency, is_up: bool) {
        self.0.dependency_up.get_or_create(&DependencyLabels { dependency }).set(i64::from(is_up));
    }

    /// An HTTP request was answered. `route` is a route's pattern, never a path that a client made up.
    pub fn http_request(&self, listener: ListenerName, route: &str, status: u16) {
        let labels = HttpLabels { listener, route: route.to_owned(), status_class: status_class(status) };
        self.0.http_requests.get_or_create(&labels).inc();
    }

    /// A buyer waits for an order's status until the guard is dropped.
    #[must_use]
    pub fn long_poll(&self) -> InFlight {
        InFlight::one_more(&self.0.long_polls)
    }

    /// All metrics as OpenMetrics text, see [`OPEN_METRICS_CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut page, &self.0.registry);
        page
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Inner {
    fn register(&mut self) {
        // The encoder adds `_total` to counters.
        let r = &mut self.registry;
        r.register("webhooks", "Webhooks answered", self.webhooks.clone());
        r.register(
            "publishes_in_flight",
            "Publishes that wait for the broker's confirmation",
            self.publishes_in_flight.clone(),
        );
        r.register("messages", "Deliveries settled", self.messages.clone());
        r.register(
            "inbox_duplicates",
            "Deliveries whose message id had been admitted before",
            self.inbox_duplicates.clone(),
        );
        r.register("grants", "Grants committed", self.grants.clone());
        r.register("dead_lettered", "Messages published as dead letters", self.dead_lettered.clone());
        r.register("provider_looks", "Payments that their provider was asked about", self.looks.clone());
        r.register("hints", "Hints dealt with", self.hints.clone());
        r.register("batch_messages", "Messages in a committed batch", self.batch_messages.clone());
        r.register_with_unit(
            "batch",
            "From a batch's first delivery to its acknowledgement",
            Unit::Seconds,
            self.batch_seconds.clone(),
        );
        r.register("deliveries_given_back", "Deliveries given back to the broker", self.given_back.clone());
        r.register("dependency_up", "Whether the dependency is in reach", self.dependency_up.clone());
        r.register("http_requests", "HTTP requests answered", self.http_requests.clone());
        r.register("long_polls", "Buyers who wait for an order's status", self.long_polls.clone());
    }

    fn create_series(&self) {
        for &endpoint in WebhookEndpoint::ALL {
            for &outcome in WebhookOutcome::ALL {
                drop(self.webhooks.get_or_create(&WebhookLabels { endpoint, outcome }));
            }
        }
        for &outcome in MessageOutcome::ALL {
            drop(self.messages.get_or_create(&MessageLabels { outcome }));
        }
        for reason in Reason::ALL {
            drop(self.dead_lettered.get_or_create(&ReasonLabels { reason: ReasonLabel(reason) }));
        }
        for provider in [Provider::STRIPE, Provider::PAYPAL] {
            for &outcome in LookOutcome::ALL {
                drop(self.looks.get_or_create(&LookLabels { provider: provider.as_str().to_owned(), outcome }));
            }
        }
        for &outcome in HintOutcome::ALL {
            drop(self.hints.get_or_create(&HintLabels { outcome }));
        }
        for &cause in GivenBack::ALL {
            drop(self.given_back.get_or_create(&GivenBackLabels { cause }));
        }
        for &dependency in Dependency::ALL {
            drop(self.dependency_up.get_or_create(&DependencyLabels { dependency }));
        }
    }
}

/// Counts as one in a gauge for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Gauge);

impl InFlight {
    fn one_more(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn has(metrics: &Metrics, line: &str) {
        let page = metrics.render();
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }

    #[test]
    fn each_happening_is_one_line() {
        let metrics = Metrics::new();
        metrics.webhook(WebhookEndpoint::Stripe, WebhookOutcome::TestEventDropped);
        metrics.messages(MessageOutcome::Duplicate, 3);
        metrics.message(MessageOutcome::PutOff);
        metrics.grants(2);
        metrics.dead_lettered(Reason::AmountMismatch);
        metrics.batch(120, Duration::from_millis(30));
        metrics.given_back(GivenBack::DatabaseOutage, 250);
        metrics.dependency(Dependency::Postgres, true);
        metrics.http_request(ListenerName::Api, "/v1/orders/{id}", 404);
        for line in [
            "grantonce_webhooks_total{endpoint=\"stripe\",outcome=\"test_event_dropped\"} 1",
            "grantonce_messages_total{outcome=\"duplicate\"} 3",
            "grantonce_messages_total{outcome=\"put_off\"} 1",
            "grantonce_inbox_duplicates_total 3",
            "grantonce_grants_total 2",
            "grantonce_dead_lettered_total{reason=\"amount_mismatch\"} 1",
            "grantonce_batch_messages_bucket{le=\"100.0\"} 0",
            "grantonce_batch_messages_bucket{le=\"250.0\"} 1",
            "grantonce_batch_seconds_bucket{le=\"0.05\"} 1",
            "grantonce_batch_seconds_count 1",
            "grantonce_deliveries_given_back_total{cause=\"database_outage\"} 250",
            "grantonce_dependency_up{dependency=\"postgres\"} 1",
            "grantonce_dependency_up{dependency=\"rabbitmq\"} 0",
            "grantonce_http_requests_total{listener=\"api\",route=\"/v1/orders/{id}\",status_class=\"4xx\"} 1",
            "# EOF",
        ] {
            has(&metrics, line);
        }
    }

    #[test]
    fn every_series_is_there_before_anything_happened() {
        let page = Metrics::new().render();
        let zeros = |name: &str| page.lines().filter(|l| l.starts_with(name) && l.ends_with(" 0")).count();
        assert_eq!(zeros("grantonce_webhooks_total{"), 4 * 8);
        assert_eq!(zeros("grantonce_messages_total{"), 6);
        assert_eq!(zeros("grantonce_dead_lettered_total{"), Reason::ALL.len());
        assert_eq!(zeros("grantonce_provider_looks_total{"), 2 * 4);
        assert_eq!(zeros("grantonce_hints_total{"), 2);
        assert_eq!(zeros("grantonce_deliveries_given_back_total{"), 5);
        assert_eq!(zeros("grantonce_dependency_up{"), 2);
    }

    #[test]
    fn a_guard_counts_while_it_lives() {
        let metrics = Metrics::new();
        let one = metrics.publish_in_flight();
        let two = metrics.clone().publish_in_flight();
        has(&metrics, "grantonce_publishes_in_flight 2");
        drop((one, two));
        has(&metrics, "grantonce_publishes_in_flight 0");
        let poll = metrics.long_poll();
        has(&metrics, "grantonce_long_polls 1");
        drop(poll);
        has(&metrics, "grantonce_long_polls 0");
    }
}

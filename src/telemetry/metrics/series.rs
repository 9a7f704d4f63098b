//! The series behind [`Metrics`](super::Metrics): their labels, names and texts.

use crate::domain::{IgnoredWhy, Provider, Reason, Separated};
use crate::role::Role;
use crate::telemetry::labels::{
    Dependency, GivenBack, HintOutcome, InboxMaintenance, ListenerName, LookOutcome, MessageOutcome, Need,
    PublishDestination, QueueName, ReplayOutcome, WebhookEndpoint, WebhookOutcome,
};
use crate::telemetry::logging::lines_dropped;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// Messages in a batch, upper bounds of the histogram's buckets; the largest batch that can be set is 1000.
const BATCH_MESSAGES_BUCKETS: [f64; 10] = [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0];

/// Seconds from a batch's first delivery to its acknowledgement, upper bounds of the histogram's buckets.
const BATCH_SECONDS_BUCKETS: [f64; 12] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Seconds in the queue, upper bounds of the histogram's buckets. AMQP's time has no fractions of a second.
const QUEUE_WAIT_SECONDS_BUCKETS: [f64; 11] =
    [1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 604_800.0];

/// Seconds until a confirm, upper bounds of the histogram's buckets: OpenTelemetry's advice for this metric.
const PUBLISH_SECONDS_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The hundreds of a status code.
pub(super) fn status_class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct WebhookLabels {
    pub(super) endpoint: WebhookEndpoint,
    pub(super) outcome: WebhookOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct IgnoredLabels {
    pub(super) endpoint: WebhookEndpoint,
    pub(super) why: IgnoredWhy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct MessageLabels {
    pub(super) outcome: MessageOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReasonLabels {
    pub(super) reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct LookLabels {
    pub(super) provider: String,
    pub(super) outcome: LookOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HintLabels {
    pub(super) outcome: HintOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct SeparatedLabels {
    pub(super) cause: Separated,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct GivenBackLabels {
    pub(super) cause: GivenBack,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct DependencyLabels {
    pub(super) dependency: Dependency,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct VariableLabels {
    pub(super) variable: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RoleLabels {
    pub(super) role: Role,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct NeedLabels {
    pub(super) role: Role,
    pub(super) need: Need,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct HttpLabels {
    pub(super) listener: ListenerName,
    pub(super) route: String,
    pub(super) status_class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct ReplayLabels {
    pub(super) outcome: ReplayOutcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct QueueLabels {
    pub(super) queue: QueueName,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct InboxMaintenanceLabels {
    pub(super) outcome: InboxMaintenance,
}

/// As OpenTelemetry names them: <https://opentelemetry.io/docs/specs/semconv/messaging/messaging-metrics/>.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct PublishLabels {
    pub(super) messaging_system: &'static str,
    pub(super) messaging_operation_name: &'static str,
    pub(super) messaging_destination_name: PublishDestination,
}

impl PublishLabels {
    pub(super) fn to(messaging_destination_name: PublishDestination) -> Self {
        Self { messaging_system: "rabbitmq", messaging_operation_name: "publish", messaging_destination_name }
    }
}

/// A gauge that somebody has to measure: until then, and when it cannot be measured any more, there is no series. A zero
/// would say that all is well.
#[derive(Debug, Clone, Default)]
pub(super) struct Measured(Arc<Mutex<Option<f64>>>);

impl Measured {
    pub(super) fn set(&self, value: Option<f64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = value;
    }

    fn get(&self) -> Option<f64> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl EncodeMetric for Measured {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.get().map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.get().is_none()
    }
}

/// Every series, and how it is registered.
pub(super) struct Inner {
    /// Names that begin with `grantonce_`.
    pub(super) registry: Registry,
    /// Names that are OpenTelemetry's.
    pub(super) conventional: Registry,
    pub(super) webhooks: Family<WebhookLabels, Counter>,
    pub(super) webhooks_ignored: Family<IgnoredLabels, Counter>,
    pub(super) publishes_in_flight: Gauge,
    pub(super) messages: Family<MessageLabels, Counter>,
    pub(super) inbox_duplicates: Counter,
    pub(super) grants: Counter,
    pub(super) dead_lettered: Family<ReasonLabels, Counter>,
    pub(super) looks: Family<LookLabels, Counter>,
    pub(super) hints: Family<HintLabels, Counter>,
    pub(super) batch_messages: Histogram,
    pub(super) batch_seconds: Histogram,
    pub(super) batches_overtaken: Counter,
    pub(super) given_back: Family<GivenBackLabels, Counter>,
    pub(super) separated: Family<SeparatedLabels, Counter>,
    pub(super) deliveries_waiting: Gauge,
    pub(super) dependency_up: Family<DependencyLabels, Gauge>,
    pub(super) secret_files_refused: Family<VariableLabels, Counter>,
    pub(super) secret_files_read: Measured,
    pub(super) ready: Family<RoleLabels, Gauge>,
    pub(super) need_up: Family<NeedLabels, Gauge>,
    pub(super) need_changed_timestamp_seconds: Family<NeedLabels, Gauge>,
    pub(super) http_requests: Family<HttpLabels, Counter>,
    pub(super) long_polls: Gauge,
    pub(super) queue_wait_seconds: Histogram,
    pub(super) publish_seconds: Family<PublishLabels, Histogram>,
    pub(super) inbox_maintenance: Family<InboxMaintenanceLabels, Counter>,
    pub(super) dead_letters_open: Family<ReasonLabels, Gauge>,
    pub(super) oldest_dead_letter_age_seconds: Measured,
    pub(super) grants_missing: Measured,
    pub(super) overpaid_orders: Measured,
    pub(super) postgres_deadlocks: Counter,
    pub(super) letters_collected: Counter,
    pub(super) replays: Family<ReplayLabels, Counter>,
    pub(super) queue_messages: Family<QueueLabels, Gauge>,
    pub(super) queue_consumers: Family<QueueLabels, Gauge>,
}

impl Inner {
    /// All counters at zero, nothing measured.
    pub(super) fn new() -> Self {
        let mut inner = Self {
            registry: Registry::with_prefix("grantonce"),
            conventional: Registry::default(),
            webhooks: Family::default(),
            webhooks_ignored: Family::default(),
            publishes_in_flight: Gauge::default(),
            messages: Family::default(),
            inbox_duplicates: Counter::default(),
            grants: Counter::default(),
            dead_lettered: Family::default(),
            looks: Family::default(),
            hints: Family::default(),
            batch_messages: Histogram::new(BATCH_MESSAGES_BUCKETS),
            batch_seconds: Histogram::new(BATCH_SECONDS_BUCKETS),
            batches_overtaken: Counter::default(),
            given_back: Family::default(),
            separated: Family::default(),
            deliveries_waiting: Gauge::default(),
            dependency_up: Family::default(),
            secret_files_refused: Family::default(),
            secret_files_read: Measured::default(),
            ready: Family::default(),
            need_up: Family::default(),
            need_changed_timestamp_seconds: Family::default(),
            http_requests: Family::default(),
            long_polls: Gauge::default(),
            queue_wait_seconds: Histogram::new(QUEUE_WAIT_SECONDS_BUCKETS),
            publish_seconds: Family::new_with_constructor(|| Histogram::new(PUBLISH_SECONDS_BUCKETS)),
            inbox_maintenance: Family::default(),
            dead_letters_open: Family::default(),
            oldest_dead_letter_age_seconds: Measured::default(),
            grants_missing: Measured::default(),
            overpaid_orders: Measured::default(),
            postgres_deadlocks: Counter::default(),
            letters_collected: Counter::default(),
            replays: Family::default(),
            queue_messages: Family::default(),
            queue_consumers: Family::default(),
        };
        inner.register();
        inner.register_measured();
        inner.create_series();
        inner
    }

    fn register(&mut self) {
        // The encoder adds `_total` to counters.
        let r = &mut self.registry;
        r.register("webhooks", "Webhooks answered", self.webhooks.clone());
        r.register(
            "webhooks_ignored",
            "Things that genuine webhooks reported and that change nothing, by the reason",
            self.webhooks_ignored.clone(),
        );
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
        r.register(
            "batches_overtaken",
            "Tries of a batch that wrote nothing, because another transaction was faster",
            self.batches_overtaken.clone(),
        );
        r.register("deliveries_given_back", "Deliveries given back to the broker", self.given_back.clone());
        r.register(
            "deliveries_separated",
            "Deliveries that were separated from their batch, because they could not be settled then",
            self.separated.clone(),
        );
        r.register(
            "deliveries_waiting",
            "Deliveries whose copies for the retry queues or the dead letters are not confirmed yet",
            self.deliveries_waiting.clone(),
        );
        r.register(
            "dependency_up",
            "Whether the dependency is in reach. Absent where the role has no such dependency",
            self.dependency_up.clone(),
        );
        r.register(
            "secret_files_refused",
            "Times the file of a secret could not be read or used. Absent where no secret came from a file",
            self.secret_files_refused.clone(),
        );
        r.register(
            "secret_files_read_timestamp_seconds",
            "When all files of secrets were last read and could be used. Absent where no secret came from a file",
            self.secret_files_read.clone(),
        );
        r.register(
            "ready",
            "Whether the role has all that it needs. Absent where the process does not run it",
            self.ready.clone(),
        );
        r.register("need_up", "Whether a role has one thing that it needs", self.need_up.clone());
        r.register(
            "need_changed_timestamp_seconds",
            "When a role's need was last met or lost",
            self.need_changed_timestamp_seconds.clone(),
        );
        r.register("http_requests", "HTTP requests answered", self.http_requests.clone());
        r.register("long_polls", "Buyers who wait for an order's status", self.long_polls.clone());
        r.register(
            "log_lines_dropped",
            "Log lines dropped, because stderr was not read or could not be written to",
            lines_dropped(),
        );
    }

    /// What is measured rather than counted, and what the ops role counts.
    fn register_measured(&mut self) {
        let r = &mut self.registry;
        r.register_with_unit(
            "queue_wait",
            "How long the oldest new message of a batch had waited, by the time that its sender gave it",
            Unit::Seconds,
            self.queue_wait_seconds.clone(),
        );
        r.register(
            "inbox_maintenance",
            "Times the inbox's partitions were looked after",
            self.inbox_maintenance.clone(),
        );
        r.register(
            "dead_letters_open",
            "Dead letters that wait for an operator. Absent until the ops role has counted them",
            self.dead_letters_open.clone(),
        );
        r.register(
            "oldest_dead_letter_age_seconds",
            "How long the oldest open dead letter has waited; 0 without one. Absent until the ops role has looked",
            self.oldest_dead_letter_age_seconds.clone(),
        );
        r.register(
            "grants_missing",
            "Orders without a grant of which we know that money came in. Absent until the ops role has looked",
            self.grants_missing.clone(),
        );
        r.register(
            "overpaid_orders",
            "Orders of which more money is kept than they cost. Absent until the ops role has looked",
            self.overpaid_orders.clone(),
        );
        r.register(
            "postgres_deadlocks",
            "Deadlocks that Postgres found in the database while this process looked. Counted by the ops role",
            self.postgres_deadlocks.clone(),
        );
        r.register("letters_collected", "Dead letters moved from RabbitMQ to Postgres", self.letters_collected.clone());
        r.register("replays", "Replays of dead letters whose end is known", self.replays.clone());
        r.register(
            "queue_messages",
            "Messages in the queue. Absent until the ops role has asked RabbitMQ",
            self.queue_messages.clone(),
        );
        r.register(
            "queue_consumers",
            "Consumers of the queue. Absent until the ops role has asked RabbitMQ",
            self.queue_consumers.clone(),
        );
        self.conventional.register_with_unit(
            "messaging_client_operation_duration",
            "From publishing a message to RabbitMQ's confirm",
            Unit::Seconds,
            self.publish_seconds.clone(),
        );
    }

    /// Counters begin at zero, so that a rate over the first happening is right. What is measured has no series yet.
    fn create_series(&self) {
        for endpoint in WebhookEndpoint::ALL {
            for outcome in WebhookOutcome::ALL {
                drop(self.webhooks.get_or_create(&WebhookLabels { endpoint, outcome }));
            }
            for why in IgnoredWhy::ALL {
                drop(self.webhooks_ignored.get_or_create(&IgnoredLabels { endpoint, why }));
            }
        }
        for outcome in MessageOutcome::ALL {
            drop(self.messages.get_or_create(&MessageLabels { outcome }));
        }
        for reason in Reason::ALL {
            drop(self.dead_lettered.get_or_create(&ReasonLabels { reason }));
        }
        for provider in [Provider::STRIPE, Provider::PAYPAL] {
            for outcome in LookOutcome::ALL {
                drop(self.looks.get_or_create(&LookLabels { provider: provider.as_str().to_owned(), outcome }));
            }
        }
        for outcome in HintOutcome::ALL {
            drop(self.hints.get_or_create(&HintLabels { outcome }));
        }
        for cause in GivenBack::ALL {
            drop(self.given_back.get_or_create(&GivenBackLabels { cause }));
        }
        for cause in Separated::ALL {
            drop(self.separated.get_or_create(&SeparatedLabels { cause }));
        }
        for outcome in ReplayOutcome::ALL {
            drop(self.replays.get_or_create(&ReplayLabels { outcome }));
        }
        for outcome in InboxMaintenance::ALL {
            drop(self.inbox_maintenance.get_or_create(&InboxMaintenanceLabels { outcome }));
        }
        for destination in PublishDestination::ALL {
            drop(self.publish_seconds.get_or_create(&PublishLabels::to(destination)));
        }
    }
}

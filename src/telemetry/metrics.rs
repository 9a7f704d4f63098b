//! Metrics: one method a happening, one type a label. Every label's values are a bounded set. Every counter exists from
//! the start, so that a rate over the first happening is right; what has to be measured first exists from then on.

mod series;

use super::labels::{
    Dependency, GivenBack, HintOutcome, InboxMaintenance, ListenerName, LookOutcome, MessageOutcome, Need,
    PublishDestination, QueueName, ReplayOutcome, WebhookEndpoint, WebhookOutcome,
};
use crate::domain::{IgnoredWhy, Provider, Reason, Separated};
use crate::role::Role;
use prometheus_client::encoding::text;
use prometheus_client::metrics::gauge::Gauge;
use series::{
    DependencyLabels, GivenBackLabels, HintLabels, HttpLabels, IgnoredLabels, InboxMaintenanceLabels, Inner,
    LookLabels, MessageLabels, NeedLabels, PublishLabels, QueueLabels, ReasonLabels, ReplayLabels, RoleLabels,
    SeparatedLabels, VariableLabels, WebhookLabels, status_class,
};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// The media type of [`Metrics::render`].
pub const OPEN_METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The process's metrics. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All counters at zero, nothing measured.
    pub fn new() -> Self {
        Self(Arc::new(Inner::new()))
    }

    /// A webhook was answered.
    pub fn webhook(&self, endpoint: WebhookEndpoint, outcome: WebhookOutcome) {
        self.0.webhooks.get_or_create(&WebhookLabels { endpoint, outcome }).inc();
    }

    /// Something that a genuine webhook reported changes nothing.
    pub fn webhook_ignored(&self, endpoint: WebhookEndpoint, why: IgnoredWhy) {
        self.0.webhooks_ignored.get_or_create(&IgnoredLabels { endpoint, why }).inc();
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

    /// Counts grants that were committed.
    pub fn grants(&self, count: u64) {
        self.0.grants.inc_by(count);
    }

    /// A message was published as a dead letter.
    pub fn dead_lettered(&self, reason: Reason) {
        self.0.dead_lettered.get_or_create(&ReasonLabels { reason }).inc();
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

    /// A batch was tried so often in vain, because another transaction was faster.
    pub fn batch_overtaken(&self, tries: u32) {
        self.0.batches_overtaken.inc_by(tries.into());
    }

    /// Deliveries were given back to the broker.
    pub fn given_back(&self, cause: GivenBack, deliveries: u64) {
        self.0.given_back.get_or_create(&GivenBackLabels { cause }).inc_by(deliveries);
    }

    /// A delivery was separated from its batch.
    pub fn separated(&self, cause: Separated) {
        self.0.separated.get_or_create(&SeparatedLabels { cause }).inc();
    }

    /// So many deliveries wait for the confirms of their copies.
    pub fn deliveries_waiting(&self, deliveries: usize) {
        self.0.deliveries_waiting.set(i64::try_from(deliveries).unwrap_or(i64::MAX));
    }

    /// The file of a secret could not be read or used so many more times.
    pub fn secret_file_refused(&self, variable: &'static str, times: u64) {
        self.0.secret_files_refused.get_or_create(&VariableLabels { variable }).inc_by(times);
    }

    /// Every file of a secret was read and could be used.
    pub fn secret_files_read(&self, at: OffsetDateTime) {
        self.0.secret_files_read.set(Some(at.unix_timestamp() as f64));
    }

    /// A dependency was reached, or lost.
    pub fn dependency(&self, dependency: Dependency, is_up: bool) {
        self.0.dependency_up.get_or_create(&DependencyLabels { dependency }).set(i64::from(is_up));
    }

    /// A role's need was met, or is missing, since then.
    pub fn need(&self, role: Role, need: Need, is_met: bool, since: OffsetDateTime) {
        let labels = NeedLabels { role, need };
        self.0.need_up.get_or_create(&labels).set(i64::from(is_met));
        self.0.need_changed_timestamp_seconds.get_or_create(&labels).set(since.unix_timestamp());
    }

    /// A role has all that it needs, or has not.
    pub fn role_ready(&self, role: Role, is_ready: bool) {
        self.0.ready.get_or_create(&RoleLabels { role }).set(i64::from(is_ready));
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

    /// The oldest new message of a batch had waited so long in the work queue.
    pub fn queue_wait(&self, waited: Duration) {
        self.0.queue_wait_seconds.observe(waited.as_secs_f64());
    }

    /// A message was published and confirmed.
    pub fn published(&self, destination: PublishDestination, took: Duration) {
        self.0.publish_seconds.get_or_create(&PublishLabels::to(destination)).observe(took.as_secs_f64());
    }

    /// The inbox's partitions were looked after.
    pub fn inbox_maintenance(&self, outcome: InboxMaintenance) {
        self.0.inbox_maintenance.get_or_create(&InboxMaintenanceLabels { outcome }).inc();
    }

    /// Dead letters were moved from RabbitMQ to Postgres.
    pub fn letters_collected(&self, count: u64) {
        self.0.letters_collected.inc_by(count);
    }

    /// What became of replayed letters is known.
    pub fn replays(&self, outcome: ReplayOutcome, letters: u64) {
        self.0.replays.get_or_create(&ReplayLabels { outcome }).inc_by(letters);
    }

    /// The open dead letters were counted, and the age of the oldest was read, `None` without one. Of reasons that are not
    /// named there are none.
    pub fn dead_letters(&self, open: &[(Reason, u64)], oldest_age: Option<Duration>) {
        for reason in Reason::ALL {
            let count = open.iter().filter(|(named, _)| *named == reason).map(|(_, count)| *count).sum();
            self.0.dead_letters_open.get_or_create(&ReasonLabels { reason }).set(whole(count));
        }
        self.0.oldest_dead_letter_age_seconds.set(Some(oldest_age.unwrap_or_default().as_secs_f64()));
    }

    /// The orders without a grant, of which we know that money came in, were counted.
    pub fn grants_missing(&self, count: u64) {
        self.0.grants_missing.set(Some(f64::from(u32::try_from(count).unwrap_or(u32::MAX))));
    }

    /// The orders of which more money is kept than they cost were counted.
    pub fn overpaid_orders(&self, count: u64) {
        self.0.overpaid_orders.set(Some(f64::from(u32::try_from(count).unwrap_or(u32::MAX))));
    }

    /// Postgres has found so many more deadlocks.
    pub fn postgres_deadlocks(&self, more: u64) {
        self.0.postgres_deadlocks.inc_by(more);
    }

    /// Dead letters, missing grants and overpaid orders cannot be counted now: what was measured is no longer claimed.
    pub fn ledger_unknown(&self) {
        self.0.dead_letters_open.clear();
        self.0.oldest_dead_letter_age_seconds.set(None);
        self.0.grants_missing.set(None);
        self.0.overpaid_orders.set(None);
    }

    /// RabbitMQ told a queue's messages and consumers.
    pub fn queue(&self, queue: QueueName, messages: u64, consumers: u64) {
        self.0.queue_messages.get_or_create(&QueueLabels { queue }).set(whole(messages));
        self.0.queue_consumers.get_or_create(&QueueLabels { queue }).set(whole(consumers));
    }

    /// The queues cannot be asked about now: what was measured is no longer claimed.
    pub fn queues_unknown(&self) {
        self.0.queue_messages.clear();
        self.0.queue_consumers.clear();
    }

    /// All metrics as OpenMetrics text, see [`OPEN_METRICS_CONTENT_TYPE`].
    pub fn render(&self) -> String {
        let mut page = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode_registry(&mut page, &self.0.conventional);
        let _ = text::encode(&mut page, &self.0.registry);
        page
    }
}

/// A count as a gauge's value.
fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
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
mod tests;

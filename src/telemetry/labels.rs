//! The values that labels of metrics can have, as types: no text is made up where something is counted.

use crate::domain::{IgnoredWhy, Reason, Separated};
use crate::role::Role;
use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use std::fmt;

/// A closed set is encoded by its public names.
macro_rules! labels {
    ($($set:ty),+) => {
        $(impl EncodeLabelValue for $set {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&self.name(), encoder)
            }
        })+
    };
}

labels!(Reason, IgnoredWhy, Separated, Role, WebhookEndpoint, WebhookOutcome, MessageOutcome, GivenBack, LookOutcome);
labels!(HintOutcome, Dependency, Need, ListenerName, ReplayOutcome, QueueName, PublishDestination, InboxMaintenance);

named! {
    /// The path that a webhook came in by.
    pub enum WebhookEndpoint {
        /// `/webhooks/stripe`.
        Stripe = "stripe",
        /// `/webhooks/paypal`.
        Paypal = "paypal",
        /// `/webhooks/adyen`.
        Adyen = "adyen",
        /// `/webhooks/standard`.
        Standard = "standard",
    }
}

named! {
    /// What became of a webhook.
    pub enum WebhookOutcome {
        /// Published and confirmed; answered 2xx.
        Accepted = "accepted",
        /// Genuine and none of our business; answered 2xx.
        Ignored = "ignored",
        /// A test event in live mode; answered 2xx.
        TestEventDropped = "test_event_dropped",
        /// Genuine and not understood: published as a dead letter; answered 2xx.
        Untranslatable = "untranslatable",
        /// Not of the provider's form; answered 400.
        Malformed = "malformed",
        /// The signature is missing, wrong or too old; answered 401.
        Unauthorized = "unauthorized",
        /// Answered 413.
        TooLarge = "too_large",
        /// The broker did not confirm, or too many publishes were in flight; answered 503.
        Unavailable = "unavailable",
    }
}

named! {
    /// What became of a delivery.
    pub enum MessageOutcome {
        /// Its fact was applied.
        Applied = "applied",
        /// Its message id had been admitted before.
        Duplicate = "duplicate",
        /// Its order is not known yet: it went to a retry queue.
        PutOff = "put_off",
        /// It went to the dead letters.
        DeadLettered = "dead_lettered",
        /// It matches no order, and such messages are not ours to keep.
        IgnoredUnknown = "ignored_unknown",
        /// A test event in live mode.
        TestEventDropped = "test_event_dropped",
    }
}

named! {
    /// Why deliveries were given back to the broker. Each return counts against its delivery limit.
    pub enum GivenBack {
        /// Postgres was out of reach for longer than the grace.
        DatabaseOutage = "database_outage",
        /// The connection was lost during a commit, or the wait for it was over.
        OutcomeUnknown = "outcome_unknown",
        /// The broker did not confirm a retry or a dead letter.
        PublishFailed = "publish_failed",
        /// The connection or channel to the broker was lost.
        ConnectionLost = "connection_lost",
        /// Schema, rights or program are at fault: what cannot be is held and given back, never acknowledged.
        Bug = "bug",
        /// The worker stops.
        Shutdown = "shutdown",
    }
}

named! {
    /// What came of asking a provider about a payment.
    pub enum LookOutcome {
        /// It told something, which was published.
        Heard = "heard",
        /// It had nothing to tell: nobody has paid.
        Quiet = "quiet",
        /// What it said cannot be, as far as we know.
        Contradicted = "contradicted",
        /// It could not be asked, or its answer not be passed on.
        Failed = "failed",
    }
}

named! {
    /// What became of a hint.
    pub enum HintOutcome {
        /// The provider will be asked.
        Noted = "noted",
        /// It went to the dead letters.
        DeadLettered = "dead_lettered",
    }
}

named! {
    /// What we depend on.
    pub enum Dependency {
        /// The database.
        Postgres = "postgres",
        /// The broker.
        Rabbitmq = "rabbitmq",
    }
}

named! {
    /// What a role needs to do all of its work.
    pub enum Need {
        /// Postgres is in reach, takes writes and commits them.
        PostgresWrites = "postgres_writes",
        /// The tables are there, and this user has its rights on them.
        SchemaAndRights = "schema_and_rights",
        /// Our clock and that of Postgres are close together.
        ClockAgrees = "clock_agrees",
        /// The connection for publishing is there.
        BrokerConnected = "broker_connected",
        /// No memory or disk alarm of RabbitMQ's blocks publishing.
        PublishingUnblocked = "publishing_unblocked",
        /// What was published last was taken.
        MayPublish = "may_publish",
        /// Exchanges and queues are there.
        TopologyComplete = "topology_complete",
        /// The role's queue is being consumed.
        HoldsAConsumer = "holds_a_consumer",
    }
}

impl Role {
    /// All that the role needs; if any one of them is missing, it is not ready. Commands that end by themselves have no readiness.
    pub fn needs(self) -> &'static [Need] {
        match self {
            Self::Receiver => &[Need::BrokerConnected, Need::PublishingUnblocked, Need::MayPublish],
            Self::Api => &[Need::PostgresWrites, Need::SchemaAndRights],
            Self::Worker => &Need::ALL,
            Self::Reconciler | Self::Ops => &[
                Need::PostgresWrites,
                Need::SchemaAndRights,
                Need::BrokerConnected,
                Need::PublishingUnblocked,
                Need::MayPublish,
                Need::HoldsAConsumer,
            ],
            Self::Migrate | Self::All | Self::Dlq | Self::Orders | Self::Check | Self::Verify => &[],
        }
    }
}

impl Need {
    /// Which server it is about.
    pub fn dependency(self) -> Dependency {
        match self {
            Self::PostgresWrites | Self::SchemaAndRights | Self::ClockAgrees => Dependency::Postgres,
            Self::BrokerConnected
            | Self::PublishingUnblocked
            | Self::MayPublish
            | Self::TopologyComplete
            | Self::HoldsAConsumer => Dependency::Rabbitmq,
        }
    }
}

named! {
    /// Where HTTP requests come in.
    pub enum ListenerName {
        /// Webhooks.
        Receiver = "receiver",
        /// Orders, status, balances.
        Api = "api",
        /// The console.
        Ops = "ops",
        /// Metrics and health.
        Metrics = "metrics",
    }
}

named! {
    /// What became of a replay of a dead letter, once it is known.
    pub enum ReplayOutcome {
        /// Its fact is applied: applying it again would change nothing.
        Resolved = "resolved",
        /// It came back as a dead letter.
        DeadAgain = "dead_again",
        /// An operator took it back before it was published.
        Canceled = "canceled",
        /// Nothing was heard of it in the time that it is given.
        NoAnswer = "no_answer",
    }
}

named! {
    /// The queues whose length is watched.
    pub enum QueueName {
        /// What the workers consume.
        Fulfilment = "fulfilment",
        /// The dead letters' buffer.
        FulfilmentDead = "fulfilment.dead",
        /// What the reconcilers consume.
        PaymentsHints = "payments.hints",
    }
}

named! {
    /// Where messages are published, as far as it is timed.
    pub enum PublishDestination {
        /// What providers say, for the workers.
        Payments = "payments",
        /// That something happened, for the reconcilers.
        PaymentsHints = "payments.hints",
        /// Dead letters.
        PaymentsDead = "payments.dead",
        /// What is put off.
        PaymentsRetry = "payments.retry",
    }
}

named! {
    /// What came of looking after the inbox's partitions.
    pub enum InboxMaintenance {
        /// They reach ahead, and old ones are gone.
        Done = "done",
        /// They could not be made or dropped.
        Failed = "failed",
    }
}

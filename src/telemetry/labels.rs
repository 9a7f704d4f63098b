//! The values that labels of metrics can have, as types: no text is made up where something is counted.

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};
use std::fmt;

macro_rules! label {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[$variant_doc])* $variant,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &[Self] = &[$(Self::$variant,)+];

            /// The value as it stands in the label.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }

        impl EncodeLabelValue for $name {
            fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
                EncodeLabelValue::encode(&self.name(), encoder)
            }
        }
    };
}

label! {
    /// The path that a webhook came in by.
    WebhookEndpoint {
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

label! {
    /// What became of a webhook.
    WebhookOutcome {
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

label! {
    /// What became of a delivery.
    MessageOutcome {
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

label! {
    /// Why deliveries were given back to the broker. Each return counts against its delivery limit.
    GivenBack {
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

label! {
    /// What came of asking a provider about a payment.
    LookOutcome {
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

label! {
    /// What became of a hint.
    HintOutcome {
        /// The provider will be asked.
        Noted = "noted",
        /// It went to the dead letters.
        DeadLettered = "dead_lettered",
    }
}

label! {
    /// What we depend on.
    Dependency {
        /// The database.
        Postgres = "postgres",
        /// The broker.
        Rabbitmq = "rabbitmq",
    }
}

label! {
    /// Where HTTP requests come in.
    ListenerName {
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

label! {
    /// What became of a replay of a dead letter, once it is known.
    ReplayOutcome {
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

label! {
    /// The queues whose length is watched.
    QueueName {
        /// What the workers consume.
        Fulfilment = "fulfilment",
        /// The dead letters' buffer.
        FulfilmentDead = "fulfilment.dead",
        /// What the reconcilers consume.
        PaymentsHints = "payments.hints",
    }
}

label! {
    /// Where messages are published, as far as it is timed.
    PublishDestination {
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

impl PublishDestination {
    /// By the exchange's name.
    pub fn named(exchange: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|destination| destination.name() == exchange)
    }
}

label! {
    /// What came of looking after the inbox's partitions.
    InboxMaintenance {
        /// They reach ahead, and old ones are gone.
        Done = "done",
        /// They could not be made or dropped.
        Failed = "failed",
    }
}

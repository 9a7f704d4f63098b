//! What each role is given.

use super::files::FollowedFiles;
use super::parse::{NamedToken, RetryDelay};
use super::read::{ConfigFaults, Environment, Reader};
use super::values::Values;
use crate::address::{AmqpAddress, DatabaseAddress};
use crate::domain::DisputePolicy;
use crate::followed::Followed;
use crate::role::Role;
use crate::shutdown::ShutdownTimes;
use crate::telemetry::{LogFilter, LogFormat};
use secrecy::SecretString;
use std::net::SocketAddr;
use std::time::Duration;

/// The configuration of one process: what every process has, and what a role has.
#[derive(Debug, Clone)]
pub struct Config<R> {
    /// What every process has.
    pub process: ProcessConfig,
    /// What the role has.
    pub role: R,
}

/// The configuration of a role. Its type tells which role it is for.
pub trait RoleConfig: Sized {
    /// The role that reads it.
    const ROLE: Role;

    /// Takes what the role needs. `None` if a value that it requires is not there.
    #[doc(hidden)]
    fn take(values: &Values) -> Option<Self>;
}

/// What every process has, whatever its role.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged.
    pub log_filter: LogFilter,
    /// Where metrics and health are served, by the roles that run until they are told to stop.
    pub metrics_addr: SocketAddr,
    /// What its secrets were read from, to be followed while it runs.
    pub secret_files: FollowedFiles,
    /// How long the steps of the end take.
    pub shutdown: ShutdownTimes,
    /// Where traces go.
    pub otlp_endpoint: Option<String>,
}

/// How to reach Postgres.
#[derive(Debug, Clone)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`.
    pub url: Followed<DatabaseAddress>,
}

/// How to reach RabbitMQ.
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// `AMQP_URL`.
    pub url: Followed<AmqpAddress>,
}

/// `migrate`.
#[derive(Debug, Clone)]
pub struct MigrateConfig {
    /// Where the schema goes.
    pub database: DatabaseConfig,
    /// Where the topology goes.
    pub broker: BrokerConfig,
    /// One queue each.
    pub retry_delays: Vec<RetryDelay>,
}

/// `receiver`. It has no database: webhooks are accepted while Postgres is down.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Where it publishes.
    pub broker: BrokerConfig,
    /// Whether real money moves here.
    pub livemode: bool,
    /// Whom it believes.
    pub secrets: WebhookSecrets,
    /// What the secrets were read from.
    pub secret_files: FollowedFiles,
    /// When an Adyen payment is paid.
    pub adyen_capture: AdyenCapture,
}

named! {
    /// When an Adyen payment is paid.
    pub enum AdyenCapture {
        /// With its authorisation: Adyen captures by itself.
        Automatic = "automatic",
        /// When the merchant has captured it.
        Manual = "manual",
    }
}

/// What webhooks are verified with. A provider without any is not served.
#[derive(Debug, Clone)]
pub struct WebhookSecrets {
    /// Whole `whsec_…` strings.
    pub stripe: Followed<Vec<SecretString>>,
    /// `whsec_` (it may be left out) and base64.
    pub standard: Followed<Vec<SecretString>>,
    /// Hex.
    pub adyen_hmac_keys: Followed<Vec<SecretString>>,
    /// Subscriptions' ids.
    pub paypal_webhook_ids: Vec<String>,
    /// Hosts that a signing certificate may come from.
    pub paypal_cert_hosts: Vec<String>,
}

/// `worker`.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The ledger.
    pub database: DatabaseConfig,
    /// Where deliveries come from.
    pub broker: BrokerConfig,
    /// Whether real money moves here.
    pub livemode: bool,
    /// How deliveries are gathered.
    pub batch: BatchConfig,
    /// What happens while an order is not known yet.
    pub retry: RetryConfig,
    /// How long deliveries are held while Postgres is away.
    pub outage_grace: Duration,
    /// How long a batch's transaction may take. After that its outcome counts as unknown.
    pub transaction_deadline: Duration,
    /// When a dispute takes the credits.
    pub dispute_policy: DisputePolicy,
    /// What becomes of messages that match no order.
    pub unknown_payments: UnknownPayments,
    /// How long message ids are kept.
    pub inbox_retention: Duration,
}

/// How deliveries are gathered into transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchConfig {
    /// Batches worked on at once in this process, 1 to 32.
    pub workers: usize,
    /// Most messages in one transaction, 1 to 1000.
    pub messages_max: usize,
    /// The shortest time between the beginnings of two batches that are not full.
    pub wait: Duration,
    /// Deliveries handed out ahead; not below `messages_max`.
    pub prefetch: u16,
    /// Bytes of deliveries in memory.
    pub prefetch_bytes: usize,
}

/// How often and when a message is tried whose order is not known yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryConfig {
    /// By attempt, ascending, at least one; the last one repeats.
    pub delays: Vec<RetryDelay>,
    /// Tries before it is a dead letter.
    pub attempts_max: u32,
}

named! {
    /// What becomes of a message without our order id that matches no order after the last retry.
    pub enum UnknownPayments {
        /// A dead letter of reason `unknown_payment`.
        DeadLetter = "dead_letter",
        /// Acknowledged and counted: the provider's account has other payments too.
        Ignore = "ignore",
    }
}

/// `api`.
#[derive(Debug, Clone)]
pub struct ApiConfig {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Orders, balances.
    pub database: DatabaseConfig,
    /// Who may call it; at least one.
    pub tokens: Followed<Vec<NamedToken>>,
    /// Key of the orders' status tokens.
    pub status_token_key: Followed<SecretString>,
    /// Origins of pages that may read an order's status.
    pub cors_origins: Vec<String>,
    /// Whose payments it can create.
    pub providers: ProvidersConfig,
    /// How long after an order is made its provider is asked, where nothing is heard until then.
    pub first_look_after: Duration,
}

/// Providers' own APIs.
#[derive(Debug, Clone)]
pub struct ProvidersConfig {
    /// Stripe, where a key is set.
    pub stripe: Option<StripeApi>,
    /// PayPal, where client id and secret are set.
    pub paypal: Option<PaypalApi>,
}

impl ProvidersConfig {
    /// Whether any of them can be asked.
    pub(super) fn any(&self) -> bool {
        self.stripe.is_some() || self.paypal.is_some()
    }
}

/// Stripe's API.
#[derive(Debug, Clone)]
pub struct StripeApi {
    /// Secret or restricted key.
    pub key: Followed<SecretString>,
    /// Without a slash at the end.
    pub base: String,
}

/// PayPal's API.
#[derive(Debug, Clone)]
pub struct PaypalApi {
    /// Public half of the credentials.
    pub client_id: String,
    /// Secret half.
    pub client_secret: Followed<SecretString>,
    /// Without a slash at the end.
    pub base: String,
}

/// `reconciler`.
#[derive(Debug, Clone)]
pub struct ReconcilerConfig {
    /// What is late.
    pub database: DatabaseConfig,
    /// Hints in, answers out.
    pub broker: BrokerConfig,
    /// Whether real money moves here.
    pub livemode: bool,
    /// Whom it asks.
    pub providers: ProvidersConfig,
    /// How long after an order is made its provider is asked, where nothing is heard until then.
    pub first_look_after: Duration,
}

/// `ops`.
#[derive(Debug, Clone)]
pub struct OpsConfig {
    /// Where it listens.
    pub addr: SocketAddr,
    /// How long an idle connection is kept.
    pub keep_alive: Duration,
    /// Dead letters, audit log.
    pub database: DatabaseConfig,
    /// Where dead letters come from and replays go.
    pub broker: BrokerConfig,
    /// Who may use it; at least one.
    pub tokens: Followed<Vec<NamedToken>>,
    /// RabbitMQ's HTTP API, with its credentials.
    pub management_url: Option<SecretString>,
    /// How long settled dead letters are kept.
    pub dead_letter_retention: Duration,
    /// What letters are judged by.
    pub terms: OpsTerms,
}

/// What dead letters are judged by: the settings of receiver and worker, who will take their messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpsTerms {
    /// Whether real money moves here.
    pub livemode: bool,
    /// When an Adyen payment is paid.
    pub adyen_capture: AdyenCapture,
    /// When a dispute takes the credits.
    pub dispute_policy: DisputePolicy,
}

/// `dlq`.
#[derive(Debug, Clone)]
pub struct DlqConfig {
    /// Dead letters, audit log.
    pub database: DatabaseConfig,
    /// Where replays go.
    pub broker: BrokerConfig,
    /// RabbitMQ's HTTP API, with its credentials.
    pub management_url: Option<SecretString>,
    /// What letters are judged by.
    pub terms: OpsTerms,
}

/// `all`.
#[derive(Debug, Clone)]
pub struct AllConfig {
    /// As by itself.
    pub receiver: ReceiverConfig,
    /// As by itself.
    pub worker: WorkerConfig,
    /// As by itself.
    pub api: ApiConfig,
    /// As by itself; none where no provider can be asked.
    pub reconciler: Option<ReconcilerConfig>,
    /// As by itself.
    pub ops: OpsConfig,
}

/// `orders`.
#[derive(Debug, Clone)]
pub struct OrdersConfig {
    /// The orders.
    pub database: DatabaseConfig,
    /// When a dispute takes the credits.
    pub dispute_policy: DisputePolicy,
}

/// `check` without a role; with one it is given that role's configuration.
#[derive(Debug, Clone)]
pub struct CheckConfig {
    /// Schema and rights.
    pub database: DatabaseConfig,
    /// Topology and rights.
    pub broker: BrokerConfig,
    /// One queue each.
    pub retry_delays: Vec<RetryDelay>,
    /// RabbitMQ's HTTP API, with its credentials.
    pub management_url: Option<SecretString>,
}

/// `verify`.
#[derive(Debug, Clone)]
pub struct VerifyConfig {
    /// The ledger.
    pub database: DatabaseConfig,
    /// When a dispute takes the credits.
    pub dispute_policy: DisputePolicy,
}

impl<R: RoleConfig> Config<R> {
    /// Reads what the role needs. The error lists every fault, not only the first.
    pub fn from_env(environment: &Environment) -> Result<Self, ConfigFaults> {
        let mut reader = Reader::new(R::ROLE, environment);
        let values = Values::read(&mut reader);
        values.cross_check(R::ROLE, &mut reader);
        let Some((process, role)) = values.process(R::ROLE).zip(R::take(&values)) else {
            return Err(reader.finish_incomplete());
        };
        match reader.finish() {
            Some(faults) => Err(faults),
            None => Ok(Self { process, role }),
        }
    }
}

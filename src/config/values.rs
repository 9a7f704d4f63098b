//! Every variable read, checked against the others, and handed to the role that it is for.

use super::files::FollowedFiles;
use super::parse::{self, NamedToken, PAYPAL_SIMULATOR_ID, RetryDelay};
use super::read::Reader;
use super::roles::{
    AdyenCapture, AllConfig, ApiConfig, BatchConfig, BrokerConfig, CheckConfig, DatabaseConfig, DlqConfig,
    MigrateConfig, OpsConfig, OpsTerms, OrdersConfig, PaypalApi, ProcessConfig, ProvidersConfig, ReceiverConfig,
    ReconcilerConfig, RetryConfig, RoleConfig, StripeApi, UnknownPayments, VerifyConfig, WebhookSecrets, WorkerConfig,
};
use super::variables as v;
use crate::domain::DisputePolicy;
use crate::followed::Followed;
use crate::role::Role;
use crate::shutdown::ShutdownTimes;
use crate::telemetry::{LogFilter, LogFormat};
use secrecy::SecretString;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Bounds of the times that things are kept.
const RETENTION: RangeInclusive<Duration> = DAY..=Duration::from_secs(3650 * 24 * 3600);
/// Bounds of `RECONCILE_AFTER`.
const FIRST_LOOK: RangeInclusive<Duration> = Duration::from_millis(100)..=DAY;
/// Bounds of `OUTAGE_GRACE`.
const GRACE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Bounds of `KEEP_ALIVE`.
const KEEP_ALIVE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(3600);
/// Bounds of `SHUTDOWN_DELAY` and `DRAIN_DEADLINE`.
const SHUTDOWN_DELAY: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(600);
const DRAIN_DEADLINE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(600);
/// How long the transaction of a worker's batch may take.
const BATCH_DEADLINE: Duration = Duration::from_secs(10);

/// Bounds of `PREFETCH_BYTES`. Below, a single message could be more.
const PREFETCH_BYTES: RangeInclusive<usize> = 1 << 20..=1 << 32;

/// Every variable's value, before it is known which role gets which. Nothing is what is not set or at fault.
pub struct Values {
    database: Option<DatabaseConfig>,
    broker: Option<BrokerConfig>,
    livemode: Option<bool>,
    receiver_addr: Option<SocketAddr>,
    api_addr: Option<SocketAddr>,
    ops_addr: Option<SocketAddr>,
    metrics_addr: Option<SocketAddr>,
    keep_alive: Option<Duration>,
    shutdown_delay: Option<Duration>,
    drain_deadline: Option<Duration>,
    secrets: WebhookSecrets,
    adyen_capture: Option<AdyenCapture>,
    api_tokens: Followed<Vec<NamedToken>>,
    status_token_key: Option<Followed<SecretString>>,
    cors_origins: Vec<String>,
    ops_tokens: Followed<Vec<NamedToken>>,
    stripe_key: Option<Followed<SecretString>>,
    stripe_base: Option<String>,
    paypal_client_id: Option<String>,
    paypal_client_secret: Option<Followed<SecretString>>,
    paypal_base: Option<String>,
    reconcile_after: Option<Duration>,
    workers: Option<usize>,
    batch_max: Option<usize>,
    batch_wait_ms: Option<u64>,
    prefetch: Option<u16>,
    prefetch_bytes: Option<usize>,
    retry_delays: Option<Vec<RetryDelay>>,
    attempts_max: Option<u32>,
    outage_grace: Option<Duration>,
    dispute_policy: Option<DisputePolicy>,
    unknown_payments: Option<UnknownPayments>,
    inbox_retention: Option<Duration>,
    dead_letter_retention: Option<Duration>,
    management_url: Option<SecretString>,
    log_format: Option<LogFormat>,
    log_filter: Option<LogFilter>,
    otlp_endpoint: Option<String>,
    secret_files: FollowedFiles,
}

impl Values {
    pub(super) fn read(r: &mut Reader<'_>) -> Self {
        let libpq = r.libpq_variables();
        let database_url = move |text: &str| parse::database_url(text, |name| libpq.get(name).cloned());
        // In the order in which faults are told.
        let database = r.follow(&v::DATABASE_URL, database_url).map(|url| DatabaseConfig { url });
        let broker = r.follow(&v::AMQP_URL, parse::amqp_url).map(|url| BrokerConfig { url });
        let livemode = r.read(&v::LIVEMODE, parse::boolean);
        Self {
            database,
            broker,
            livemode,
            receiver_addr: r.read(&v::RECEIVER_ADDR, parse::address),
            api_addr: r.read(&v::API_ADDR, parse::address),
            ops_addr: r.read(&v::OPS_ADDR, parse::address),
            metrics_addr: r.read(&v::METRICS_ADDR, parse::address),
            keep_alive: r.read(&v::KEEP_ALIVE, parse::duration(KEEP_ALIVE)),
            shutdown_delay: r.read(&v::SHUTDOWN_DELAY, parse::duration(SHUTDOWN_DELAY)),
            drain_deadline: r.read(&v::DRAIN_DEADLINE, parse::duration(DRAIN_DEADLINE)),
            secrets: WebhookSecrets {
                stripe: r.follow_list(&v::STRIPE_WEBHOOK_SECRETS, parse::webhook_secrets),
                standard: r.follow_list(&v::STANDARD_WEBHOOK_SECRETS, parse::standard_webhook_secrets),
                paypal_webhook_ids: r.read_list(&v::PAYPAL_WEBHOOK_IDS, parse::webhook_ids),
                paypal_cert_hosts: r.read_list(&v::PAYPAL_CERT_HOSTS, parse::hosts),
                adyen_hmac_keys: r.follow_list(&v::ADYEN_HMAC_KEYS, parse::hmac_keys),
            },
            adyen_capture: r.read(&v::ADYEN_CAPTURE, parse::named::<AdyenCapture>),
            api_tokens: r.follow_list(&v::API_TOKENS, parse::tokens),
            status_token_key: r.follow(&v::STATUS_TOKEN_KEY, parse::status_token_key),
            cors_origins: r.read_list(&v::CORS_ORIGINS, parse::origins),
            ops_tokens: r.follow_list(&v::OPS_TOKENS, parse::tokens),
            stripe_key: r.follow(&v::STRIPE_API_KEY, move |text| parse::stripe_key(text, livemode)),
            stripe_base: r.read(&v::STRIPE_API_BASE, parse::api_base),
            paypal_client_id: r.read(&v::PAYPAL_CLIENT_ID, parse::client_id),
            paypal_client_secret: r.follow(&v::PAYPAL_CLIENT_SECRET, parse::secret),
            paypal_base: r.read(&v::PAYPAL_API_BASE, parse::api_base),
            reconcile_after: r.read(&v::RECONCILE_AFTER, parse::duration(FIRST_LOOK)),
            workers: r.read(&v::WORKERS, parse::number(1..=32)),
            batch_max: r.read(&v::BATCH_MAX, parse::number(1..=1000)),
            batch_wait_ms: r.read(&v::BATCH_WAIT_MS, parse::number(0..=1000)),
            prefetch: r.read(&v::PREFETCH, parse::number(1..=u16::MAX)),
            prefetch_bytes: r.read(&v::PREFETCH_BYTES, parse::number(PREFETCH_BYTES)),
            retry_delays: r.read(&v::RETRY_DELAYS, parse::retry_delays),
            attempts_max: r.read(&v::MAX_ATTEMPTS, parse::number(1..=1000)),
            outage_grace: r.read(&v::OUTAGE_GRACE, parse::duration(GRACE)),
            dispute_policy: r.read(&v::DISPUTE_POLICY, parse::named::<DisputePolicy>),
            unknown_payments: r.read(&v::UNKNOWN_PAYMENTS, parse::named::<UnknownPayments>),
            inbox_retention: r.read(&v::INBOX_RETENTION, parse::duration(RETENTION)),
            dead_letter_retention: r.read(&v::DEAD_LETTER_RETENTION, parse::duration(RETENTION)),
            management_url: r.read(&v::MANAGEMENT_URL, parse::management_url),
            log_format: r.read(&v::LOG_FORMAT, parse::named::<LogFormat>),
            log_filter: r.read(&v::RUST_LOG, |text| {
                text.parse().map_err(|_| "must be directives by commas, each a level or target=level".to_owned())
            }),
            otlp_endpoint: r.read(&v::OTLP_ENDPOINT, parse::web_url),
            // The last one: it takes the files of all the others.
            secret_files: r.files(),
        }
    }

    /// What no single variable can tell.
    pub(super) fn cross_check(&self, role: Role, reader: &mut Reader<'_>) {
        if self.livemode == Some(true) && self.secrets.paypal_webhook_ids.iter().any(|id| id == PAYPAL_SIMULATOR_ID) {
            let why = "has the id of PayPal's simulator, which everybody can sign with, but GRANTONCE_LIVEMODE is true";
            reader.fault(&v::PAYPAL_WEBHOOK_IDS, why);
        }
        self.check_listeners(role, reader);
        if let (Some(prefetch), Some(batch_max)) = (self.prefetch, self.batch_max)
            && usize::from(prefetch) < batch_max
        {
            reader.fault(&v::PREFETCH, format!("is {prefetch}: it must not be below GRANTONCE_BATCH_MAX, {batch_max}"));
        }
        if role == Role::Reconciler && self.stripe_key.is_none() && self.paypal_client_id.is_none() {
            reader.missing(
                &v::STRIPE_API_KEY,
                "is not set: reconciler asks Stripe, or PayPal (GRANTONCE_PAYPAL_CLIENT_ID)",
            );
        }
        if self.paypal_client_id.is_some() != self.paypal_client_secret.is_some()
            && v::PAYPAL_CLIENT_SECRET.roles.contains(&role)
        {
            reader.fault(&v::PAYPAL_CLIENT_ID, "and GRANTONCE_PAYPAL_CLIENT_SECRET come together");
        }
        if role == Role::All && reader.is_set(&v::PAYPAL_WEBHOOK_IDS) && self.paypal_client_id.is_none() {
            let why =
                "is not set: PayPal's webhooks are hints, and without it nobody could ask PayPal what they are about";
            reader.missing(&v::PAYPAL_CLIENT_ID, why);
        }
        // Only providers that the receiver serves today: one that is set up for others alone would refuse everything.
        let is_served =
            [&v::STRIPE_WEBHOOK_SECRETS, &v::PAYPAL_WEBHOOK_IDS, &v::ADYEN_HMAC_KEYS, &v::STANDARD_WEBHOOK_SECRETS];
        if v::STRIPE_WEBHOOK_SECRETS.roles.contains(&role) && is_served.iter().all(|variable| !reader.is_set(variable))
        {
            let names: Vec<_> = is_served.iter().map(|variable| variable.name).collect();
            reader.missing(&v::STRIPE_WEBHOOK_SECRETS, format!("is not set: {role} needs one of {}", names.join(", ")));
        }
    }

    /// Two listeners of one process cannot have the same address.
    fn check_listeners(&self, role: Role, reader: &mut Reader<'_>) {
        let listeners = [
            (&v::RECEIVER_ADDR, self.receiver_addr),
            (&v::API_ADDR, self.api_addr),
            (&v::OPS_ADDR, self.ops_addr),
            (&v::METRICS_ADDR, self.metrics_addr),
        ];
        let listeners: Vec<_> = listeners
            .into_iter()
            .filter(|(variable, _)| variable.roles.contains(&role))
            .filter_map(|(variable, address)| Some((variable, address?)))
            .collect();
        for (index, (variable, address)) in listeners.iter().enumerate() {
            if let Some((other, _)) = listeners.iter().take(index).find(|(_, other)| overlap(*address, *other)) {
                reader.fault(variable, format!("has the port of {}: each needs its own", other.name));
            }
        }
    }

    pub(super) fn process(&self, role: Role) -> Option<ProcessConfig> {
        // Nobody sends requests to the other roles: they stop at once.
        let is_answering = v::SHUTDOWN_DELAY.roles.contains(&role);
        let delay = if is_answering { self.shutdown_delay? } else { Duration::ZERO };
        Some(ProcessConfig {
            secret_files: self.secret_files.clone(),
            shutdown: ShutdownTimes { delay, drain_deadline: self.drain_deadline? },
            log_format: self.log_format.unwrap_or_else(LogFormat::suited),
            log_filter: self.log_filter.clone().unwrap_or_default(),
            metrics_addr: self.metrics_addr?,
            otlp_endpoint: self.otlp_endpoint.clone(),
        })
    }

    fn ops_terms(&self) -> Option<OpsTerms> {
        Some(OpsTerms {
            livemode: self.livemode?,
            adyen_capture: self.adyen_capture?,
            dispute_policy: self.dispute_policy?,
        })
    }

    fn providers(&self) -> Option<ProvidersConfig> {
        let (stripe_base, paypal_base) = (self.stripe_base.clone()?, self.paypal_base.clone()?);
        let stripe = self.stripe_key.clone().map(|key| StripeApi { key, base: stripe_base });
        let paypal = self.paypal_client_id.clone().zip(self.paypal_client_secret.clone());
        let paypal = paypal.map(|(client_id, client_secret)| PaypalApi { client_id, client_secret, base: paypal_base });
        Some(ProvidersConfig { stripe, paypal })
    }
}

impl RoleConfig for OpsConfig {
    const ROLE: Role = Role::Ops;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            addr: values.ops_addr?,
            keep_alive: values.keep_alive?,
            database: values.database.clone()?,
            broker: values.broker.clone()?,
            tokens: values.ops_tokens.clone(),
            management_url: values.management_url.clone(),
            dead_letter_retention: values.dead_letter_retention?,
            terms: values.ops_terms()?,
        })
    }
}

impl RoleConfig for ReconcilerConfig {
    const ROLE: Role = Role::Reconciler;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            database: values.database.clone()?,
            broker: values.broker.clone()?,
            livemode: values.livemode?,
            providers: values.providers()?,
            first_look_after: values.reconcile_after?,
        })
    }
}

impl RoleConfig for ReceiverConfig {
    const ROLE: Role = Role::Receiver;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            addr: values.receiver_addr?,
            keep_alive: values.keep_alive?,
            broker: values.broker.clone()?,
            livemode: values.livemode?,
            secrets: values.secrets.clone(),
            secret_files: values.secret_files.clone(),
            adyen_capture: values.adyen_capture?,
        })
    }
}

impl RoleConfig for WorkerConfig {
    const ROLE: Role = Role::Worker;

    fn take(values: &Values) -> Option<Self> {
        let (workers, messages_max) = (values.workers?, values.batch_max?);
        Some(Self {
            database: values.database.clone()?,
            broker: values.broker.clone()?,
            livemode: values.livemode?,
            batch: BatchConfig {
                workers,
                messages_max,
                wait: Duration::from_millis(values.batch_wait_ms?),
                // One batch more than are worked on waits to fill, one more is on its way.
                prefetch: values
                    .prefetch
                    .unwrap_or_else(|| u16::try_from((workers + 2) * messages_max).unwrap_or(u16::MAX)),
                prefetch_bytes: values.prefetch_bytes?,
            },
            retry: RetryConfig { delays: values.retry_delays.clone()?, attempts_max: values.attempts_max? },
            outage_grace: values.outage_grace?,
            transaction_deadline: BATCH_DEADLINE,
            dispute_policy: values.dispute_policy?,
            unknown_payments: values.unknown_payments?,
            inbox_retention: values.inbox_retention?,
        })
    }
}

impl RoleConfig for ApiConfig {
    const ROLE: Role = Role::Api;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            addr: values.api_addr?,
            keep_alive: values.keep_alive?,
            database: values.database.clone()?,
            tokens: values.api_tokens.clone(),
            status_token_key: values.status_token_key.clone()?,
            cors_origins: values.cors_origins.clone(),
            providers: values.providers()?,
            first_look_after: values.reconcile_after?,
        })
    }
}

impl RoleConfig for MigrateConfig {
    const ROLE: Role = Role::Migrate;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            database: values.database.clone()?,
            broker: values.broker.clone()?,
            retry_delays: values.retry_delays.clone()?,
        })
    }
}

impl RoleConfig for AllConfig {
    const ROLE: Role = Role::All;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            receiver: ReceiverConfig::take(values)?,
            worker: WorkerConfig::take(values)?,
            api: ApiConfig::take(values)?,
            reconciler: ReconcilerConfig::take(values).filter(|reconciler| reconciler.providers.any()),
            ops: OpsConfig::take(values)?,
        })
    }
}

impl RoleConfig for DlqConfig {
    const ROLE: Role = Role::Dlq;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            database: values.database.clone()?,
            broker: values.broker.clone()?,
            management_url: values.management_url.clone(),
            terms: values.ops_terms()?,
        })
    }
}

impl RoleConfig for OrdersConfig {
    const ROLE: Role = Role::Orders;

    fn take(values: &Values) -> Option<Self> {
        Some(Self { database: values.database.clone()?, dispute_policy: values.dispute_policy? })
    }
}

impl RoleConfig for CheckConfig {
    const ROLE: Role = Role::Check;

    fn take(values: &Values) -> Option<Self> {
        Some(Self {
            database: values.database.clone()?,
            broker: values.broker.clone()?,
            retry_delays: values.retry_delays.clone()?,
            management_url: values.management_url.clone(),
        })
    }
}

impl RoleConfig for VerifyConfig {
    const ROLE: Role = Role::Verify;

    fn take(values: &Values) -> Option<Self> {
        Some(Self { database: values.database.clone()?, dispute_policy: values.dispute_policy? })
    }
}

/// Whether a program cannot listen at both. Port 0 is another one each time.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let takes = |one: IpAddr, other: IpAddr| one.is_unspecified() && (one.is_ipv6() || other.is_ipv4());
    let (a, b) = (one.ip(), other.ip());
    one.port() != 0 && one.port() == other.port() && (a == b || takes(a, b) || takes(b, a))
}

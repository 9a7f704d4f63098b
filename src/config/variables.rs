//! Every environment variable, once: its name, default, meaning, and who reads it. The parser, the list of known
//! names and `grantonce --help-config` all come from this table.

use crate::role::Role;
use std::fmt::Write as _;

/// The prefix of our own variables.
pub(super) const PREFIX: &str = "GRANTONCE_";

/// What a variable is when it is not set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DefaultValue {
    /// Nothing; a fault in the roles that require it.
    Unset,
    /// This text, read like any other.
    Text(&'static str),
    /// Worked out, as this says.
    Derived(&'static str),
}

/// One environment variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variable {
    /// Its full name.
    pub name: &'static str,
    /// Its value where it is not set.
    pub default: DefaultValue,
    /// A right value.
    pub example: &'static str,
    /// What it decides, with unit and range.
    pub meaning: &'static str,
    /// Whether it may come as `NAME_FILE` and is never printed.
    pub is_secret: bool,
    /// The roles that read it.
    pub roles: &'static [Role],
    /// The roles that do not start without it.
    pub required_by: &'static [Role],
}

use DefaultValue::{Derived, Text, Unset};
use Role::{All, Api, Check, Dlq, Migrate, Ops, Orders, Receiver, Reconciler, Verify, Worker};

const EVERY: &[Role] = &Role::ALL;
const SERVING: &[Role] = &[Receiver, Worker, Api, Reconciler, Ops, All];
const STOPPING: &[Role] = &[Receiver, Worker, Api, Reconciler, Ops, All];
const RECEIVING: &[Role] = &[Receiver, All];
const WORKING: &[Role] = &[Worker, All];
const JUDGING: &[Role] = &[Receiver, Worker, Reconciler, Ops, All, Dlq];
const ANSWERING: &[Role] = &[Receiver, Api, Ops, All];
const SHOWING: &[Role] = &[Ops, All];
const ASKING: &[Role] = &[Api, Reconciler, All];

const PLAIN: Variable =
    Variable { name: "", default: Unset, example: "", meaning: "", is_secret: false, roles: EVERY, required_by: &[] };
const SECRET: Variable = Variable { is_secret: true, ..PLAIN };

pub(super) const DATABASE_URL: Variable = Variable {
    name: "DATABASE_URL",
    example: "postgres://grantonce:…@db.example:5432/grantonce",
    meaning: "address of Postgres; several hosts separated by commas, IPv6 in brackets, libpq's parameters after a ?",
    roles: &[Migrate, Worker, Api, Reconciler, Ops, All, Dlq, Orders, Check, Verify],
    required_by: &[Migrate, Worker, Api, Reconciler, Ops, All, Dlq, Orders, Check, Verify],
    ..SECRET
};
pub(super) const AMQP_URL: Variable = Variable {
    name: "AMQP_URL",
    example: "amqps://grantonce:…@mq.example:5671/grantonce",
    meaning: "address of RabbitMQ; several hosts separated by commas, IPv6 in brackets; amqps:// for TLS",
    roles: &[Migrate, Receiver, Worker, Reconciler, Ops, All, Dlq, Check],
    required_by: &[Migrate, Receiver, Worker, Reconciler, Ops, All, Dlq, Check],
    ..SECRET
};
pub(super) const RUST_LOG: Variable = Variable {
    name: "RUST_LOG",
    default: Derived("info"),
    example: "info,grantonce=debug",
    meaning: "log level, for all or for each module; no setting logs a message's body",
    ..PLAIN
};
pub(super) const OTLP_ENDPOINT: Variable = Variable {
    name: "OTEL_EXPORTER_OTLP_ENDPOINT",
    example: "http://collector.example:4318",
    meaning: "where to send traces; without it none are sent",
    ..PLAIN
};
pub(super) const LOG_FORMAT: Variable = Variable {
    name: "GRANTONCE_LOG_FORMAT",
    default: Derived("text on a terminal, else json"),
    example: "json",
    meaning: "format of the log on stderr: text or json",
    ..PLAIN
};
pub(super) const LIVEMODE: Variable = Variable {
    name: "GRANTONCE_LIVEMODE",
    example: "true",
    meaning: "true for real money: test events are dropped. false for tests: live events become dead letters",
    roles: &[Receiver, Worker, Api, Reconciler, Ops, All, Dlq],
    required_by: JUDGING,
    ..PLAIN
};
pub(super) const RECEIVER_ADDR: Variable = Variable {
    name: "GRANTONCE_RECEIVER_ADDR",
    default: Text("0.0.0.0:8080"),
    example: "0.0.0.0:8080",
    meaning: "address on which the receiver listens for webhooks; port 0 takes a free port",
    roles: RECEIVING,
    ..PLAIN
};
pub(super) const API_ADDR: Variable = Variable {
    name: "GRANTONCE_API_ADDR",
    default: Text("127.0.0.1:8081"),
    example: "0.0.0.0:8081",
    meaning: "address on which the API listens",
    roles: &[Api, All],
    ..PLAIN
};
pub(super) const OPS_ADDR: Variable = Variable {
    name: "GRANTONCE_OPS_ADDR",
    default: Text("127.0.0.1:8082"),
    example: "127.0.0.1:8082",
    meaning: "address on which the console listens",
    roles: SHOWING,
    ..PLAIN
};
pub(super) const METRICS_ADDR: Variable = Variable {
    name: "GRANTONCE_METRICS_ADDR",
    default: Text("127.0.0.1:9090"),
    example: "0.0.0.0:9090",
    meaning: "address on which /metrics, /healthz and /readyz are served",
    roles: SERVING,
    ..PLAIN
};
pub(super) const KEEP_ALIVE: Variable = Variable {
    name: "GRANTONCE_KEEP_ALIVE",
    default: Text("75s"),
    example: "75s",
    meaning: "how long an idle HTTP connection stays open, 1s to 1h; set it longer than your load balancer keeps its own (often 60s)",
    roles: ANSWERING,
    ..PLAIN
};
pub(super) const SHUTDOWN_DELAY: Variable = Variable {
    name: "GRANTONCE_SHUTDOWN_DELAY",
    default: Text("5s"),
    example: "5s",
    meaning: "how long requests are still served after SIGTERM while /readyz answers 503, 0s to 10m; set it longer than your \
              load balancer needs to notice. SIGINT does not wait",
    roles: ANSWERING,
    ..PLAIN
};
pub(super) const DRAIN_DEADLINE: Variable = Variable {
    name: "GRANTONCE_DRAIN_DEADLINE",
    default: Text("10s"),
    example: "10s",
    meaning: "how long the process may take to finish its work after SHUTDOWN_DELAY, 1s to 10m",
    roles: STOPPING,
    ..PLAIN
};
pub(super) const API_TOKENS: Variable = Variable {
    name: "GRANTONCE_API_TOKENS",
    example: "shop:0f6c…e1,backoffice:77ab…09",
    meaning: "bearer tokens of the API, name:token, separated by commas; each name has its own idempotency keys; a token has 16 \
              characters or more",
    roles: &[Api, All],
    required_by: &[Api, All],
    ..SECRET
};
pub(super) const OPS_TOKENS: Variable = Variable {
    name: "GRANTONCE_OPS_TOKENS",
    example: "ada:0f6c…e1,grace:77ab…09",
    meaning: "bearer tokens of the console, name:token, separated by commas; the audit log shows the name; a token has 16 \
              characters or more",
    roles: SHOWING,
    required_by: SHOWING,
    ..SECRET
};
pub(super) const STATUS_TOKEN_KEY: Variable = Variable {
    name: "GRANTONCE_STATUS_TOKEN_KEY",
    example: "the output of: openssl rand -hex 32",
    meaning: "key that makes the status tokens of orders; 32 characters or more; the same in every API process",
    roles: &[Api, All],
    required_by: &[Api, All],
    ..SECRET
};
pub(super) const CORS_ORIGINS: Variable = Variable {
    name: "GRANTONCE_CORS_ORIGINS",
    example: "https://shop.example,https://www.shop.example",
    meaning: "origins of web pages that may read an order's status, separated by commas",
    roles: &[Api, All],
    ..PLAIN
};
pub(super) const STRIPE_WEBHOOK_SECRETS: Variable = Variable {
    name: "GRANTONCE_STRIPE_WEBHOOK_SECRETS",
    example: "whsec_…,whsec_…",
    meaning: "signing secrets of Stripe endpoints, separated by commas; set the old and the new one during a rotation",
    roles: RECEIVING,
    ..SECRET
};
pub(super) const STRIPE_API_KEY: Variable = Variable {
    name: "GRANTONCE_STRIPE_API_KEY",
    example: "sk_live_…",
    meaning: "secret or restricted key of Stripe; must match LIVEMODE",
    roles: ASKING,
    ..SECRET
};
pub(super) const STRIPE_API_BASE: Variable = Variable {
    name: "GRANTONCE_STRIPE_API_BASE",
    default: Text("https://api.stripe.com"),
    example: "https://api.stripe.com",
    meaning: "address of Stripe's API",
    roles: ASKING,
    ..PLAIN
};
pub(super) const PAYPAL_WEBHOOK_IDS: Variable = Variable {
    name: "GRANTONCE_PAYPAL_WEBHOOK_IDS",
    example: "1JE4291016473214C",
    meaning: "ids of PayPal webhook subscriptions, separated by commas",
    roles: RECEIVING,
    ..PLAIN
};
pub(super) const PAYPAL_CLIENT_ID: Variable = Variable {
    name: "GRANTONCE_PAYPAL_CLIENT_ID",
    example: "AeA1QIZXiflr1_…",
    meaning: "PayPal's client id; set together with the client secret",
    roles: ASKING,
    ..PLAIN
};
pub(super) const PAYPAL_CLIENT_SECRET: Variable = Variable {
    name: "GRANTONCE_PAYPAL_CLIENT_SECRET",
    example: "ECYYrrSHdKfk_…",
    meaning: "PayPal's client secret",
    roles: ASKING,
    ..SECRET
};
pub(super) const PAYPAL_API_BASE: Variable = Variable {
    name: "GRANTONCE_PAYPAL_API_BASE",
    default: Text("https://api-m.paypal.com"),
    example: "https://api-m.sandbox.paypal.com",
    meaning: "address of PayPal's API",
    roles: ASKING,
    ..PLAIN
};
pub(super) const PAYPAL_CERT_HOSTS: Variable = Variable {
    name: "GRANTONCE_PAYPAL_CERT_HOSTS",
    default: Text("api.paypal.com,api.sandbox.paypal.com"),
    example: "api.paypal.com",
    meaning: "hosts that may serve PayPal's signing certificates, separated by commas",
    roles: RECEIVING,
    ..PLAIN
};
pub(super) const ADYEN_HMAC_KEYS: Variable = Variable {
    name: "GRANTONCE_ADYEN_HMAC_KEYS",
    example: "44782DEF547AAA06…",
    meaning: "HMAC keys of Adyen webhooks in hex, separated by commas; set the old and the new one during a rotation",
    roles: RECEIVING,
    ..SECRET
};
pub(super) const ADYEN_CAPTURE: Variable = Variable {
    name: "GRANTONCE_ADYEN_CAPTURE",
    default: Text("automatic"),
    example: "manual",
    meaning: "when an Adyen payment counts as paid: automatic (when it is authorised) or manual (when it is captured)",
    roles: &[Receiver, Ops, All, Dlq],
    ..PLAIN
};
pub(super) const STANDARD_WEBHOOK_SECRETS: Variable = Variable {
    name: "GRANTONCE_STANDARD_WEBHOOK_SECRETS",
    example: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    meaning: "secrets of Standard Webhooks senders, whsec_ and base64, separated by commas",
    roles: RECEIVING,
    ..SECRET
};
pub(super) const WORKERS: Variable = Variable {
    name: "GRANTONCE_WORKERS",
    default: Text("3"),
    example: "3",
    meaning: "batches that one process applies at the same time, 1 to 32",
    roles: WORKING,
    ..PLAIN
};
pub(super) const BATCH_MAX: Variable = Variable {
    name: "GRANTONCE_BATCH_MAX",
    default: Text("500"),
    example: "500",
    meaning: "the most messages in one transaction, 1 to 1000",
    roles: WORKING,
    ..PLAIN
};
pub(super) const BATCH_WAIT_MS: Variable = Variable {
    name: "GRANTONCE_BATCH_WAIT_MS",
    default: Text("2"),
    example: "2",
    meaning: "the shortest time between the beginnings of two batches that are not full, in milliseconds, 0 to 1000",
    roles: WORKING,
    ..PLAIN
};
pub(super) const PREFETCH: Variable = Variable {
    name: "GRANTONCE_PREFETCH",
    default: Derived("(WORKERS + 2) × BATCH_MAX"),
    example: "2500",
    meaning: "the most unacknowledged deliveries that the broker sends to a worker, BATCH_MAX to 65535",
    roles: WORKING,
    ..PLAIN
};
pub(super) const PREFETCH_BYTES: Variable = Variable {
    name: "GRANTONCE_PREFETCH_BYTES",
    default: Text("67108864"),
    example: "67108864",
    meaning: "the most bytes of deliveries in a worker's memory, 1048576 to 4294967296; it reads no more until some are settled",
    roles: WORKING,
    ..PLAIN
};
pub(super) const RETRY_DELAYS: Variable = Variable {
    name: "GRANTONCE_RETRY_DELAYS",
    default: Text("5s,1m,10m"),
    example: "5s,1m,10m",
    meaning: "how long a message waits for its order before each attempt; 1 to 10 delays, ascending, 100ms to 24h each; each \
              delay is a queue, so run migrate after a change",
    roles: &[Migrate, Worker, All, Check],
    ..PLAIN
};
pub(super) const MAX_ATTEMPTS: Variable = Variable {
    name: "GRANTONCE_MAX_ATTEMPTS",
    default: Text("10"),
    example: "10",
    meaning: "attempts to find a message's order before the message is a dead letter, 1 to 1000; the last delay repeats",
    roles: WORKING,
    ..PLAIN
};
pub(super) const INBOX_RETENTION: Variable = Variable {
    name: "GRANTONCE_INBOX_RETENTION",
    default: Text("90d"),
    example: "90d",
    meaning: "how long message ids are kept, 1d to 3650d; an order never gets a second grant, even after that",
    roles: WORKING,
    ..PLAIN
};
pub(super) const RECONCILE_AFTER: Variable = Variable {
    name: "GRANTONCE_RECONCILE_AFTER",
    default: Text("2m"),
    example: "2m",
    meaning: "how long after its creation an order without news of its payment is checked at the provider, 100ms to 1d; \
              later checks follow after 5, 15, 60 … times that, for four days. Set the same value for API and reconciler",
    roles: ASKING,
    ..PLAIN
};
pub(super) const DEAD_LETTER_RETENTION: Variable = Variable {
    name: "GRANTONCE_DEAD_LETTER_RETENTION",
    default: Text("400d"),
    example: "400d",
    meaning: "how long settled dead letters are kept, 1d to 3650d",
    roles: SHOWING,
    ..PLAIN
};
pub(super) const OUTAGE_GRACE: Variable = Variable {
    name: "GRANTONCE_OUTAGE_GRACE",
    default: Text("10s"),
    example: "10s",
    meaning: "how long a worker keeps its deliveries while Postgres is down, before it returns them to the queue, 100ms to 60s",
    roles: WORKING,
    ..PLAIN
};
pub(super) const DISPUTE_POLICY: Variable = Variable {
    name: "GRANTONCE_DISPUTE_POLICY",
    default: Text("hold"),
    example: "hold",
    meaning: "when a dispute takes the credits back: hold (while it is open) or lost (only when it is lost)",
    roles: &[Worker, Ops, All, Dlq, Orders, Verify],
    ..PLAIN
};
pub(super) const UNKNOWN_PAYMENTS: Variable = Variable {
    name: "GRANTONCE_UNKNOWN_PAYMENTS",
    default: Text("dead_letter"),
    example: "ignore",
    meaning: "what to do with messages without our order id that match no order after the last retry: dead_letter or ignore",
    roles: WORKING,
    ..PLAIN
};
pub(super) const MANAGEMENT_URL: Variable = Variable {
    name: "GRANTONCE_MANAGEMENT_URL",
    example: "http://monitor:…@mq.example:15672",
    meaning: "address of RabbitMQ's HTTP API, which shows what AMQP cannot show",
    roles: &[Check, Ops, All, Dlq],
    ..SECRET
};

/// Every variable, in the order in which they are explained.
pub const VARIABLES: &[&Variable] = &[
    &DATABASE_URL,
    &AMQP_URL,
    &LIVEMODE,
    &RECEIVER_ADDR,
    &API_ADDR,
    &OPS_ADDR,
    &METRICS_ADDR,
    &KEEP_ALIVE,
    &SHUTDOWN_DELAY,
    &DRAIN_DEADLINE,
    &STRIPE_WEBHOOK_SECRETS,
    &STANDARD_WEBHOOK_SECRETS,
    &PAYPAL_WEBHOOK_IDS,
    &PAYPAL_CERT_HOSTS,
    &ADYEN_HMAC_KEYS,
    &ADYEN_CAPTURE,
    &API_TOKENS,
    &STATUS_TOKEN_KEY,
    &CORS_ORIGINS,
    &OPS_TOKENS,
    &STRIPE_API_KEY,
    &STRIPE_API_BASE,
    &PAYPAL_CLIENT_ID,
    &PAYPAL_CLIENT_SECRET,
    &PAYPAL_API_BASE,
    &RECONCILE_AFTER,
    &WORKERS,
    &BATCH_MAX,
    &BATCH_WAIT_MS,
    &PREFETCH,
    &PREFETCH_BYTES,
    &RETRY_DELAYS,
    &MAX_ATTEMPTS,
    &OUTAGE_GRACE,
    &DISPUTE_POLICY,
    &UNKNOWN_PAYMENTS,
    &INBOX_RETENTION,
    &DEAD_LETTER_RETENTION,
    &MANAGEMENT_URL,
    &LOG_FORMAT,
    &RUST_LOG,
    &OTLP_ENDPOINT,
];

/// The text of `grantonce --help-config`.
pub fn help() -> String {
    let mut page = String::from(
        "The program reads its configuration from the environment. If a GRANTONCE_ name is unknown, or a value is missing\n\
         or malformed, the process lists all faults and ends with code 2.\n\
         You can put a secret into a file: set NAME_FILE to its path instead of NAME. The program reads changes of the\n\
         file without a restart.\n",
    );
    for variable in VARIABLES {
        let default = match variable.default {
            Unset => String::new(),
            Text(text) | Derived(text) => format!(" [default: {text}]"),
        };
        let secret = if variable.is_secret { " [secret, or NAME_FILE]" } else { "" };
        let example = if variable.default == Text(variable.example) {
            String::new()
        } else {
            format!("\n      for example: {}", variable.example)
        };
        let _ = write!(
            page,
            "\n  {}{default}{secret}\n      {}{example}\n      roles: {}\n",
            variable.name,
            variable.meaning,
            roles(variable)
        );
    }
    page
}

/// The roles that read a variable; those that do not start without it are marked.
fn roles(variable: &Variable) -> String {
    if variable.roles == EVERY {
        return "every role".to_owned();
    }
    let names: Vec<_> = variable
        .roles
        .iter()
        .map(|role| {
            let mark = if variable.required_by.contains(role) { " (required)" } else { "" };
            format!("{role}{mark}")
        })
        .collect();
    names.join(", ")
}

//! Exchanges and queues. Only `migrate` creates them. Every other role finds them, or reports what is missing.
//!
//! ```text
//! payments (topic) ──payment.<provider>──▶ fulfilment (quorum) ──delivery limit──▶ payments.dead
//! payments.retry (direct) ──<delay>──▶ fulfilment.retry.<delay> ──after <delay>──▶ fulfilment
//! payments.hints (topic) ──payment.<provider>──▶ payments.hints (quorum) ──delivery limit──▶ payments.dead
//! payments.dead (topic) ──#──▶ fulfilment.dead (quorum)
//! ```
//!
//! Correctness depends on queue *arguments*, not on policies: nobody can lose or change an argument.

use super::connection::{Connection, channel, close, close_channel, connect};
use super::error::BrokerError;
use super::rights::Tried;
use crate::address::AmqpAddress;
use crate::code::Code;
use crate::config::RetryDelay;
use crate::findings::Fault;
use crate::followed::Followed;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use std::time::Duration;

/// The exchange for payment-status messages. The right to publish here is the right to grant.
pub const PAYMENTS_EXCHANGE: &str = "payments";
/// The exchange for messages that are put off. The routing key is the delay.
pub const RETRY_EXCHANGE: &str = "payments.retry";
/// The exchange for dead letters.
pub const DEAD_EXCHANGE: &str = "payments.dead";
/// The exchange for hints: the receiver reports that something happened to a payment, and the reconcilers ask the
/// provider.
pub const HINTS_EXCHANGE: &str = "payments.hints";
/// The queue that the reconcilers consume.
pub const HINTS_QUEUE: &str = "payments.hints";
/// The queue that the workers consume.
pub const WORK_QUEUE: &str = "fulfilment";
/// The queue of the dead letters.
pub const DEAD_QUEUE: &str = "fulfilment.dead";

/// How often a message may return to the work queue before the broker gives it up. Every return counts, for a whole
/// prefetch window at a time. So this bounds crash loops, and must be far above what restarts and outages need.
pub const DELIVERY_LIMIT: i64 = 100;

/// Looks at the dead letters never reach this number. It is not -1, which 3.10 takes for a limit, and not absent, which
/// 4.0 takes for 20.
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// The most messages in the work queue, and the most hints. More are refused, and their senders keep them.
const WORK_QUEUE_LENGTH_MAX: i64 = 10_000_000;

const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// The retry queue of a delay.
pub fn retry_queue(label: &str) -> String {
    format!("{WORK_QUEUE}.retry.{label}")
}

fn quorum(more: &[(&str, AMQPValue)]) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    for (name, value) in more {
        arguments.insert((*name).into(), value.clone());
    }
    arguments
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(text.into())
}

/// Dead-letters at least once. That requires the queue to refuse messages when it is full.
fn forwards_to(exchange: &str) -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]
}

/// A queue with its arguments and its binding.
pub(super) struct QueuePlan {
    pub(super) name: String,
    arguments: FieldTable,
    /// The arguments of an earlier release, if they are still accepted. Arguments of an existing queue cannot be
    /// changed.
    earlier: Option<FieldTable>,
    pub(super) exchange: &'static str,
    pub(super) binding: String,
}

impl QueuePlan {
    /// The arguments, as the management API shows them.
    pub(super) fn wanted(&self) -> Arguments {
        as_json(&self.arguments)
    }

    /// The arguments of an earlier release, where they are accepted.
    pub(super) fn accepted(&self) -> Option<Arguments> {
        self.earlier.as_ref().map(as_json)
    }
}

/// Arguments as the management API shows them.
pub(super) type Arguments = serde_json::Map<String, serde_json::Value>;

fn as_json(arguments: &FieldTable) -> Arguments {
    let json = |value: &AMQPValue| match (value.as_long_string(), value.as_long_long_int()) {
        (Some(text), _) => text.to_string().into(),
        (None, Some(number)) => number.into(),
        (None, None) => serde_json::Value::Null,
    };
    arguments.inner().iter().map(|(name, value)| (name.as_str().to_owned(), json(value))).collect()
}

pub(super) fn plan(delays: &[RetryDelay]) -> Vec<QueuePlan> {
    let mut work = forwards_to(DEAD_EXCHANGE);
    work.push(("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)));
    work.push(("x-max-length", AMQPValue::LongLongInt(WORK_QUEUE_LENGTH_MAX)));
    let mut hints = forwards_to(DEAD_EXCHANGE);
    hints.push(("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)));
    hints.push(("x-max-length", AMQPValue::LongLongInt(WORK_QUEUE_LENGTH_MAX)));
    let no_limit = ("x-delivery-limit", AMQPValue::LongLongInt(NO_DELIVERY_LIMIT));
    let mut queues = vec![
        QueuePlan {
            name: DEAD_QUEUE.to_owned(),
            // If a policy limits its length, it refuses messages. Dropping would lose the oldest letters.
            arguments: quorum(&[no_limit.clone(), ("x-overflow", text("reject-publish"))]),
            earlier: Some(quorum(&[no_limit])),
            exchange: DEAD_EXCHANGE,
            binding: "#".to_owned(),
        },
        QueuePlan {
            name: WORK_QUEUE.to_owned(),
            arguments: quorum(&work),
            earlier: None,
            exchange: PAYMENTS_EXCHANGE,
            binding: "payment.*".to_owned(),
        },
        QueuePlan {
            name: HINTS_QUEUE.to_owned(),
            arguments: quorum(&hints),
            earlier: None,
            exchange: HINTS_EXCHANGE,
            binding: "payment.*".to_owned(),
        },
    ];
    for RetryDelay { label, delay } in delays {
        // It goes through the default exchange, to which no relay may write. By that the worker recognises its own
        // retries.
        let mut retry = forwards_to("");
        retry.push(("x-dead-letter-routing-key", text(WORK_QUEUE)));
        // There is one queue for each delay: the TTL of a message would only count when the message is at the head.
        retry.push(("x-message-ttl", AMQPValue::LongLongInt(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))));
        queues.push(QueuePlan {
            name: retry_queue(label),
            arguments: quorum(&retry),
            earlier: None,
            exchange: RETRY_EXCHANGE,
            binding: label.clone(),
        });
    }
    queues
}

pub(super) const EXCHANGES: [(&str, ExchangeKind); 4] = [
    (DEAD_EXCHANGE, ExchangeKind::Topic),
    (HINTS_EXCHANGE, ExchangeKind::Topic),
    (PAYMENTS_EXCHANGE, ExchangeKind::Topic),
    (RETRY_EXCHANGE, ExchangeKind::Direct),
];

/// Creates what is missing. An existing queue with other properties is an error, because arguments cannot be changed.
pub async fn declare(url: &Followed<AmqpAddress>, delays: &[RetryDelay]) -> Result<(), BrokerError> {
    let connection = connect(url, "migrate").await?;
    let done = declare_all(&connection, delays).await;
    close(&connection).await;
    done
}

/// Declares the queue of the dead letters. The error has reply code 406 if the queue has other arguments.
pub(super) async fn declare_dead_queue(connection: &Connection) -> Result<(), BrokerError> {
    for queue in plan(&[]).iter().filter(|queue| queue.name == DEAD_QUEUE) {
        // The declaration is not passive, because that would not show arguments. If the queue is missing, an empty one
        // does no harm.
        declare_queue(connection, queue).await?;
    }
    Ok(())
}

/// Declares a queue, or accepts the form of an earlier release.
async fn declare_queue(connection: &Connection, queue: &QueuePlan) -> Result<(), BrokerError> {
    let declare = async |arguments: &FieldTable| {
        // A refused declaration closes its channel, so each has its own.
        let channel = channel(connection).await?;
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.queue_declare(queue.name.as_str().into(), options, arguments.clone());
        BrokerError::within("declaring a queue", ANSWER_DEADLINE, declared).await.map(drop)
    };
    match (declare(&queue.arguments).await, &queue.earlier) {
        (Err(error), Some(earlier)) if error.reply_code() == Some(406) => declare(earlier).await,
        (done, _) => done,
    }
}

async fn declare_exchange(connection: &Connection, name: &str, kind: ExchangeKind) -> Result<(), BrokerError> {
    let channel = channel(connection).await?;
    let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
    let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
    BrokerError::within("declaring an exchange", ANSWER_DEADLINE, declared).await
}

async fn declare_all(connection: &Connection, delays: &[RetryDelay]) -> Result<(), BrokerError> {
    let named = |name: &str, error: BrokerError| match error.reply_code() {
        Some(406) => BrokerError::Different { name: name.to_owned(), reason: error.to_string() },
        Some(_) | None => error,
    };
    for (name, kind) in EXCHANGES {
        declare_exchange(connection, name, kind).await.map_err(|error| named(name, error))?;
    }
    let channel = channel(connection).await?;
    for queue in plan(delays) {
        declare_queue(connection, &queue).await.map_err(|error| named(&queue.name, error))?;
        let bound = channel.queue_bind(
            queue.name.as_str().into(),
            queue.exchange.into(),
            queue.binding.as_str().into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        BrokerError::within("binding a queue", ANSWER_DEADLINE, bound).await?;
    }
    Ok(())
}

/// Checks that the exchanges and queues exist. AMQP does not show arguments and bindings: see [`super::Management`].
pub async fn inspect(url: &Followed<AmqpAddress>, delays: &[RetryDelay]) -> Result<Vec<Fault>, BrokerError> {
    let connection = connect(url, "check").await?;
    let looked = look_for_all(&connection, delays).await;
    close(&connection).await;
    looked
}

pub(super) async fn look_for_all(connection: &Connection, delays: &[RetryDelay]) -> Result<Vec<Fault>, BrokerError> {
    let mut faults = vec![];
    for (name, kind) in EXCHANGES {
        // A failed passive declaration closes its channel, so each has its own.
        let channel = channel(connection).await?;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let found = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
        faults.extend(fault_of(name, BrokerError::within("looking for an exchange", ANSWER_DEADLINE, found).await)?);
        close_channel(&channel).await;
    }
    for queue in plan(delays) {
        let channel = channel(connection).await?;
        faults.extend(fault_of(&queue.name, look_for(&channel, &queue.name).await)?);
        close_channel(&channel).await;
    }
    Ok(faults)
}

/// Declares everything again, for a user with that right, to see whether exchanges and queues have their properties. It
/// changes nothing if nothing is missing, and must be called only then.
pub(super) async fn compare(
    connection: &Connection,
    delays: &[RetryDelay],
    tried: &mut Tried,
) -> Result<(), BrokerError> {
    for (name, kind) in EXCHANGES {
        different(tried, name, declare_exchange(connection, name, kind).await)?;
    }
    for queue in plan(delays) {
        different(tried, &queue.name, declare_queue(connection, &queue).await)?;
    }
    Ok(())
}

fn different(tried: &mut Tried, name: &str, declared: Result<(), BrokerError>) -> Result<(), BrokerError> {
    let Err(error) = declared else { return Ok(()) };
    match error.reply_code() {
        Some(406) => tried.different.push(Fault {
            code: Code::RabbitmqDifferent,
            what: format!("{name} exists with another type or other arguments ({error})"),
            remedy: "drain it, delete it, and run `grantonce migrate` again".to_owned(),
        }),
        Some(403) => tried.lacking.push(Fault {
            code: Code::RabbitmqRights,
            what: format!("this broker user may not declare {name} ({error})"),
            remedy: "give it the rights that deploy/rabbitmq-permissions.sh gives to grantonce-migrate".to_owned(),
        }),
        Some(_) | None => return Err(error),
    }
    Ok(())
}

async fn look_for(channel: &Channel, queue: &str) -> Result<(), BrokerError> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default());
    BrokerError::within("looking for a queue", ANSWER_DEADLINE, found).await.map(drop)
}

fn fault_of<T>(name: &str, found: Result<T, BrokerError>) -> Result<Option<Fault>, BrokerError> {
    let Err(error) = found else { return Ok(None) };
    match error.reply_code() {
        Some(404) => Ok(Some(missing(name))),
        Some(403) => Ok(Some(Fault {
            code: Code::RabbitmqRights,
            what: format!("this broker user may not look at {name}"),
            remedy: "give it `configure` or `read` on it, or leave the check to a user that has them".to_owned(),
        })),
        Some(_) | None => Err(error),
    }
}

/// The fault of a missing exchange or queue.
pub(super) fn missing(name: &str) -> Fault {
    Fault {
        code: Code::RabbitmqMissing,
        what: format!("{name} is missing at the broker"),
        remedy: "run `grantonce migrate` with a broker user that may configure it".to_owned(),
    }
}

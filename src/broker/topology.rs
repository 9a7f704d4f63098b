//! Exchanges and queues. Only `migrate` makes them; every other role finds them or says what is missing.
//!
//! ```text
//! payments (topic) ──payment.<provider>──▶ fulfilment (quorum) ──delivery limit──▶ payments.dead
//! payments.retry (direct) ──<delay>──▶ fulfilment.retry.<delay> ──after <delay>──▶ fulfilment
//! payments.hints (topic) ──payment.<provider>──▶ payments.hints (quorum) ──delivery limit──▶ payments.dead
//! payments.dead (topic) ──#──▶ fulfilment.dead (quorum)
//! ```
//!
//! What correctness rests on is a queue *argument*, not a policy: arguments cannot be lost or changed behind our back.

use super::connection::{Connection, channel, close, connect};
use super::error::BrokerError;
use crate::address::AmqpAddress;
use crate::config::RetryDelay;
use crate::followed::Followed;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
use std::fmt;
use std::time::Duration;

/// Where payment-status messages are published. The right to publish here is the right to grant.
pub const PAYMENTS_EXCHANGE: &str = "payments";
/// Where the worker puts messages off; the routing key is the delay.
pub const RETRY_EXCHANGE: &str = "payments.retry";
/// Where dead letters go.
pub const DEAD_EXCHANGE: &str = "payments.dead";
/// Where the receiver says that something happened to a payment, for the reconcilers to ask what.
pub const HINTS_EXCHANGE: &str = "payments.hints";
/// What the reconcilers consume.
pub const HINTS_QUEUE: &str = "payments.hints";
/// What the workers consume.
pub const WORK_QUEUE: &str = "fulfilment";
/// The dead letters' buffer.
pub const DEAD_QUEUE: &str = "fulfilment.dead";

/// How often a message may come back to the work queue before the broker gives up on it. Every way of giving back
/// counts, for a whole prefetch window at a time, so this bounds crash loops and must stay far above what restarts and
/// outages cost.
pub const DELIVERY_LIMIT: i64 = 100;

/// Beyond any number that looking at dead letters could reach. Not -1, which 3.10 takes for a limit, and not absent,
/// which 4.0 takes for 20.
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// Messages in the work queue, and hints; more are refused, and their senders keep them.
const WORK_QUEUE_LENGTH_MAX: i64 = 10_000_000;

const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// The queue of a delay.
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

/// Dead-letters at least once, which needs the queue to refuse when it is full.
fn forwards_to(exchange: &str) -> Vec<(&'static str, AMQPValue)> {
    vec![
        ("x-dead-letter-exchange", text(exchange)),
        ("x-dead-letter-strategy", text("at-least-once")),
        ("x-overflow", text("reject-publish")),
    ]
}

/// Each queue with its arguments and what it is bound to.
struct QueuePlan {
    name: String,
    arguments: FieldTable,
    exchange: &'static str,
    binding: String,
}

fn plan(delays: &[RetryDelay]) -> Vec<QueuePlan> {
    let mut work = forwards_to(DEAD_EXCHANGE);
    work.push(("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)));
    work.push(("x-max-length", AMQPValue::LongLongInt(WORK_QUEUE_LENGTH_MAX)));
    let mut hints = forwards_to(DEAD_EXCHANGE);
    hints.push(("x-delivery-limit", AMQPValue::LongLongInt(DELIVERY_LIMIT)));
    hints.push(("x-max-length", AMQPValue::LongLongInt(WORK_QUEUE_LENGTH_MAX)));
    let mut queues = vec![
        QueuePlan {
            name: DEAD_QUEUE.to_owned(),
            arguments: quorum(&[("x-delivery-limit", AMQPValue::LongLongInt(NO_DELIVERY_LIMIT))]),
            exchange: DEAD_EXCHANGE,
            binding: "#".to_owned(),
        },
        QueuePlan {
            name: WORK_QUEUE.to_owned(),
            arguments: quorum(&work),
            exchange: PAYMENTS_EXCHANGE,
            binding: "payment.*".to_owned(),
        },
        QueuePlan {
            name: HINTS_QUEUE.to_owned(),
            arguments: quorum(&hints),
            exchange: HINTS_EXCHANGE,
            binding: "payment.*".to_owned(),
        },
    ];
    for RetryDelay { label, delay } in delays {
        // Through the default exchange, which no relay may write to: by that the worker knows its own.
        let mut retry = forwards_to("");
        retry.push(("x-dead-letter-routing-key", text(WORK_QUEUE)));
        // One queue a delay: a message's own TTL would only count once it is at the head.
        retry.push(("x-message-ttl", AMQPValue::LongLongInt(i64::try_from(delay.as_millis()).unwrap_or(i64::MAX))));
        queues.push(QueuePlan {
            name: retry_queue(label),
            arguments: quorum(&retry),
            exchange: RETRY_EXCHANGE,
            binding: label.clone(),
        });
    }
    queues
}

const EXCHANGES: [(&str, ExchangeKind); 4] = [
    (DEAD_EXCHANGE, ExchangeKind::Topic),
    (HINTS_EXCHANGE, ExchangeKind::Topic),
    (PAYMENTS_EXCHANGE, ExchangeKind::Topic),
    (RETRY_EXCHANGE, ExchangeKind::Direct),
];

/// Makes what is missing. What is there with other properties is an error: queue arguments cannot be changed.
pub async fn declare(url: &Followed<AmqpAddress>, delays: &[RetryDelay]) -> Result<(), BrokerError> {
    let connection = connect(url, "migrate").await?;
    let done = declare_all(&connection, delays).await;
    close(&connection).await;
    done
}

/// Declares the dead letters' buffer as it is made: an error with the reply code 406 where it is there with other arguments.
pub(super) async fn declare_dead_queue(connection: &Connection) -> Result<(), BrokerError> {
    let channel = channel(connection).await?;
    for queue in plan(&[]).into_iter().filter(|queue| queue.name == DEAD_QUEUE) {
        // Not passive: that would show no arguments. And where it is missing, a queue that nothing is in does no harm.
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.queue_declare(queue.name.as_str().into(), options, queue.arguments);
        BrokerError::within("comparing a queue", ANSWER_DEADLINE, declared).await?;
    }
    Ok(())
}

async fn declare_all(connection: &Connection, delays: &[RetryDelay]) -> Result<(), BrokerError> {
    let named = |name: &str, error: BrokerError| match error.reply_code() {
        Some(406) => BrokerError::Different { name: name.to_owned(), reason: error.to_string() },
        Some(_) | None => error,
    };
    let channel = channel(connection).await?;
    for (name, kind) in EXCHANGES {
        let options = ExchangeDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
        BrokerError::within("declaring an exchange", ANSWER_DEADLINE, declared).await.map_err(|e| named(name, e))?;
    }
    for queue in plan(delays) {
        let options = QueueDeclareOptions { durable: true, ..Default::default() };
        let declared = channel.queue_declare(queue.name.as_str().into(), options, queue.arguments);
        BrokerError::within("declaring a queue", ANSWER_DEADLINE, declared).await.map_err(|e| named(&queue.name, e))?;
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

/// Something that is missing at the broker, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopologyFault {
    /// What is wrong.
    pub fault: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for TopologyFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.fault, self.remedy)
    }
}

/// Looks whether exchanges and queues are there. Arguments and bindings cannot be seen over AMQP: see
/// [`super::Management`].
pub async fn inspect(url: &Followed<AmqpAddress>, delays: &[RetryDelay]) -> Result<Vec<TopologyFault>, BrokerError> {
    let connection = connect(url, "check").await?;
    let mut faults = vec![];
    for (name, kind) in EXCHANGES {
        // A failed passive declare closes its channel: one each.
        let channel = channel(&connection).await?;
        let options = ExchangeDeclareOptions { passive: true, ..Default::default() };
        let found = channel.exchange_declare(name.into(), kind, options, FieldTable::default());
        faults.extend(missing(name, BrokerError::within("looking for an exchange", ANSWER_DEADLINE, found).await)?);
    }
    for queue in plan(delays) {
        let channel = channel(&connection).await?;
        faults.extend(missing(&queue.name, look_for(&channel, &queue.name).await)?);
    }
    close(&connection).await;
    Ok(faults)
}

async fn look_for(channel: &Channel, queue: &str) -> Result<(), BrokerError> {
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let found = channel.queue_declare(queue.into(), options, FieldTable::default());
    BrokerError::within("looking for a queue", ANSWER_DEADLINE, found).await.map(drop)
}

fn missing<T>(name: &str, found: Result<T, BrokerError>) -> Result<Option<TopologyFault>, BrokerError> {
    let Err(error) = found else { return Ok(None) };
    let fault = |fault: String, remedy: &str| Ok(Some(TopologyFault { fault, remedy: remedy.to_owned() }));
    match error.reply_code() {
        Some(404) => fault(
            format!("{name} is missing at the broker"),
            "run `grantonce migrate` with a broker user that may configure it",
        ),
        Some(403) => fault(
            format!("this broker user may not look at {name}"),
            "give it `configure` or `read` on it, or leave the check to a user that has them",
        ),
        Some(_) | None => Err(error),
    }
}

/// The arguments that a queue of ours must have, for comparison with what the management API shows.
pub(super) fn wanted_arguments(delays: &[RetryDelay]) -> Vec<(String, serde_json::Map<String, serde_json::Value>)> {
    plan(delays)
        .into_iter()
        .map(|queue| {
            let arguments = queue.arguments.inner().iter().map(|(name, value)| {
                let json = match (value.as_long_string(), value.as_long_long_int()) {
                    (Some(text), _) => text.to_string().into(),
                    (None, Some(number)) => number.into(),
                    (None, None) => serde_json::Value::Null,
                };
                (name.as_str().to_owned(), json)
            });
            let arguments = arguments.collect();
            (queue.name, arguments)
        })
        .collect()
}

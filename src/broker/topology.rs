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

use super::connection::{Connection, channel, close, close_channel, connect};
use super::error::BrokerError;
use super::rights::Tried;
use crate::address::AmqpAddress;
use crate::config::RetryDelay;
use crate::findings::Fault;
use crate::followed::Followed;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};
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
pub(super) struct QueuePlan {
    pub(super) name: String,
    arguments: FieldTable,
    /// As an earlier release made it, where that is still accepted: arguments of a queue that exists cannot be changed.
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
            // Where somebody's policy limits its length, it refuses: dropping would lose the oldest letters.
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
        // Through the default exchange, which no relay may write to: by that the worker knows its own.
        let mut retry = forwards_to("");
        retry.push(("x-dead-letter-routing-key", text(WORK_QUEUE)));
        // One queue a delay: a message's own TTL would only count once it is at the head.
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

/// Makes what is missing. What is there with other properties is an error: queue arguments cannot be changed.
pub async fn declare(url: &Followed<AmqpAddress>, delays: &[RetryDelay]) -> Result<(), BrokerError> {
    let connection = connect(url, "migrate").await?;
    let done = declare_all(&connection, delays).await;
    close(&connection).await;
    done
}

/// Declares the dead letters' buffer as it is made: an error with the reply code 406 where it is there with other arguments.
pub(super) async fn declare_dead_queue(connection: &Connection) -> Result<(), BrokerError> {
    for queue in plan(&[]).iter().filter(|queue| queue.name == DEAD_QUEUE) {
        // Not passive: that would show no arguments. And where it is missing, a queue that nothing is in does no harm.
        declare_queue(connection, queue).await?;
    }
    Ok(())
}

/// Declares a queue as it is made, or else as an earlier release made it.
async fn declare_queue(connection: &Connection, queue: &QueuePlan) -> Result<(), BrokerError> {
    let declare = async |arguments: &FieldTable| {
        // A declaration that is refused closes its channel: one each.
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

/// Looks whether exchanges and queues are there. Arguments and bindings cannot be seen over AMQP: see
/// [`super::Management`].
pub async fn inspect(url: &Followed<AmqpAddress>, delays: &[RetryDelay]) -> Result<Vec<Fault>, BrokerError> {
    let connection = connect(url, "check").await?;
    let looked = look_for_all(&connection, delays).await;
    close(&connection).await;
    looked
}

pub(super) async fn look_for_all(connection: &Connection, delays: &[RetryDelay]) -> Result<Vec<Fault>, BrokerError> {
    let mut faults = vec![];
    for (name, kind) in EXCHANGES {
        // A failed passive declare closes its channel: one each.
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

/// What declaring everything again shows, to a user who may: whether exchanges and queues are as they are made. Changes
/// nothing, so it must be called only where nothing is missing.
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
            what: format!("{name} exists with another type or other arguments ({error})"),
            remedy: "drain it, delete it, and run `grantonce migrate` again".to_owned(),
        }),
        Some(403) => tried.lacking.push(Fault {
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
            what: format!("this broker user may not look at {name}"),
            remedy: "give it `configure` or `read` on it, or leave the check to a user that has them".to_owned(),
        })),
        Some(_) | None => Err(error),
    }
}

/// Tells that an exchange or queue is missing.
pub(super) fn missing(name: &str) -> Fault {
    Fault {
        what: format!("{name} is missing at the broker"),
        remedy: "run `grantonce migrate` with a broker user that may configure it".to_owned(),
    }
}

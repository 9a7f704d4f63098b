//! Whether a broker user may do what a role does. Each right is tried in a way that publishes nothing and takes
//! nothing.

use super::connection::{ANSWER_DEADLINE, Connection, channel, close, connect};
use super::error::BrokerError;
use super::topology::{
    DEAD_EXCHANGE, DEAD_QUEUE, HINTS_EXCHANGE, HINTS_QUEUE, PAYMENTS_EXCHANGE, RETRY_EXCHANGE, WORK_QUEUE, compare,
};
use crate::address::AmqpAddress;
use crate::code::Code;
use crate::config::RetryDelay;
use crate::domain::Provider;
use crate::findings::Fault;
use crate::followed::Followed;
use crate::message::routing_key;
use crate::role::Role;
use futures_util::{FutureExt as _, StreamExt as _};
use lapin::options::{BasicConsumeOptions, BasicPublishOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Event};
use std::future::ready;
use std::pin::pin;

/// The role whose rights are tried.
#[derive(Debug, Clone)]
pub enum User {
    /// Declares all exchanges and queues.
    Migrate(Vec<RetryDelay>),
    /// Publishes the events of these providers.
    Receiver(Vec<Provider>),
    /// Consumes payments, publishes retries and dead letters.
    Worker(Vec<RetryDelay>),
    /// Consumes hints, publishes the answers of these providers.
    Reconciler(Vec<Provider>),
    /// Consumes dead letters, publishes replays.
    Ops,
}

enum Operation {
    Declare(Vec<RetryDelay>),
    Publish(&'static str, String),
    Consume(&'static str),
}

impl User {
    /// The role that connects as this user. deploy/rabbitmq-permissions.sh names the user after it.
    pub fn role(&self) -> Role {
        match self {
            Self::Migrate(_) => Role::Migrate,
            Self::Receiver(_) => Role::Receiver,
            Self::Worker(_) => Role::Worker,
            Self::Reconciler(_) => Role::Reconciler,
            Self::Ops => Role::Ops,
        }
    }

    fn operations(&self) -> Vec<Operation> {
        let publish = |exchanges: &[&'static str], providers: &[Provider]| {
            let each = |exchange: &&'static str| {
                let exchange = *exchange;
                providers.iter().map(move |provider| Operation::Publish(exchange, routing_key(provider)))
            };
            exchanges.iter().flat_map(each).collect::<Vec<_>>()
        };
        // The worker and ops publish under the key of every provider. One key stands for all.
        let any = || "payment.stripe".to_owned();
        match self {
            Self::Migrate(delays) => vec![Operation::Declare(delays.clone())],
            Self::Receiver(providers) => publish(&[PAYMENTS_EXCHANGE, HINTS_EXCHANGE, DEAD_EXCHANGE], providers),
            Self::Worker(delays) => {
                let mut operations = vec![Operation::Consume(WORK_QUEUE), Operation::Publish(DEAD_EXCHANGE, any())];
                operations.extend(delays.iter().map(|delay| Operation::Publish(RETRY_EXCHANGE, delay.label.clone())));
                operations
            }
            Self::Reconciler(providers) => {
                let mut operations = vec![Operation::Consume(HINTS_QUEUE)];
                operations.extend(publish(&[PAYMENTS_EXCHANGE, DEAD_EXCHANGE], providers));
                operations
            }
            Self::Ops => vec![
                Operation::Consume(DEAD_QUEUE),
                Operation::Publish(PAYMENTS_EXCHANGE, any()),
                Operation::Publish(HINTS_EXCHANGE, any()),
            ],
        }
    }
}

/// The result of the tries.
#[derive(Debug, Default)]
pub struct Tried {
    /// The rights that are missing.
    pub lacking: Vec<Fault>,
    /// Exchanges and queues that exist with other properties.
    pub different: Vec<Fault>,
    /// RabbitMQ has an alarm, so nothing more was tried.
    pub blocked: Option<Fault>,
}

/// Tries what a user does, as the user of the address. Missing exchanges and queues are skipped: [`super::inspect`]
/// reports them, and must have found nothing before [`User::Migrate`] is tried.
pub async fn try_rights(url: &Followed<AmqpAddress>, user: &User) -> Result<Tried, BrokerError> {
    // It has its own connection, because RabbitMQ may block one that has published.
    let connection = connect(url, "check rights").await?;
    let tried = try_deeds(&connection, user).await;
    close(&connection).await;
    match tried {
        Err(BrokerError::Deadline { .. }) if connection.status().blocked() => {
            let blocked = Fault {
                code: Code::RabbitmqAlarm,
                what: "RabbitMQ blocks this connection because memory or disk space runs out: nothing can be published"
                    .to_owned(),
                remedy: "look at `rabbitmq-diagnostics alarms`, and give the server memory or disk space".to_owned(),
            };
            Ok(Tried { blocked: Some(blocked), ..Tried::default() })
        }
        tried => tried,
    }
}

async fn try_deeds(connection: &Connection, user: &User) -> Result<Tried, BrokerError> {
    let mut all = Tried::default();
    for operation in user.operations() {
        let (tried, what, right) = match &operation {
            Operation::Declare(delays) => {
                compare(connection, delays, &mut all).await?;
                continue;
            }
            Operation::Publish(exchange, key) => (
                publish(connection, exchange, key).await,
                format!("publish to {exchange} under {key}"),
                format!("`write` on {exchange}, and the topic permission for {key}"),
            ),
            Operation::Consume(queue) => {
                (consume(connection, queue).await, format!("consume {queue}"), format!("`read` on {queue}"))
            }
        };
        let Err(error) = tried else { continue };
        match error.reply_code() {
            Some(403) => all.lacking.push(Fault {
                code: Code::RabbitmqRights,
                what: format!("this broker user may not {what}"),
                remedy: format!(
                    "give it {right}: deploy/rabbitmq-permissions.sh does so for grantonce-{}",
                    user.role()
                ),
            }),
            // The queue is missing, which `inspect` reports.
            Some(404) => {}
            Some(_) | None => return Err(error),
        }
    }
    Ok(all)
}

/// Publishes in a transaction and rolls it back. The broker refuses a publish without the right at once, and routes
/// nothing before a commit.
async fn publish(connection: &Connection, exchange: &'static str, key: &str) -> Result<(), BrokerError> {
    const WHAT: &str = "trying to publish";
    let channel = channel(connection).await?;
    BrokerError::within(WHAT, ANSWER_DEADLINE, channel.tx_select()).await?;
    // If it were committed, a worker would refuse it, because it has no properties.
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    let published = channel.basic_publish(exchange.into(), key.into(), options, b"grantonce check", properties);
    let mut errors = pin!(connection.events_listener().filter_map(|event| ready(error_of(event))));
    // Events of earlier channels.
    while let Some(Some(_)) = errors.next().now_or_never() {}
    let tried = async {
        published.await?;
        channel.tx_rollback().await
    };
    match BrokerError::within(WHAT, ANSWER_DEADLINE, tried).await {
        // A call that comes too late only learns that the channel is closed. The reason is an event of the connection.
        Err(error) if error.reply_code().is_none() && !channel.status().connected() => {
            let why = tokio::time::timeout(ANSWER_DEADLINE, errors.next()).await;
            Err(why.ok().flatten().map_or(error, |source| BrokerError::Amqp { what: WHAT, source }))
        }
        tried => tried,
    }
}

fn error_of(event: Event) -> Option<lapin::Error> {
    if let Event::Error(error) = event { Some(error) } else { None }
}

/// Begins to consume with an argument that the broker refuses with 406. It checks the right first.
async fn consume(connection: &Connection, queue: &'static str) -> Result<(), BrokerError> {
    const WHAT: &str = "trying to consume";
    let channel = channel(connection).await?;
    // If it were accepted, at most one message would be handed out and given back.
    BrokerError::within(WHAT, ANSWER_DEADLINE, channel.basic_qos(1, BasicQosOptions::default())).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-priority".into(), AMQPValue::LongString("not a number".into()));
    let consumed = channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), arguments);
    match BrokerError::within(WHAT, ANSWER_DEADLINE, consumed).await {
        Err(error) if error.reply_code() == Some(406) => Ok(()),
        Ok(_) => {
            BrokerError::within(WHAT, ANSWER_DEADLINE, channel.close(200, "done".into())).await?;
            Ok(())
        }
        Err(error) => Err(error),
    }
}

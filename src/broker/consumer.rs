//! Deliveries of the work queue, in batches, and their acknowledgement.

use super::connection::{ANSWER_DEADLINE, channel, close, connect};
use super::error::BrokerError;
use super::headers::{Death, Headers};
use crate::address::AmqpAddress;
use crate::followed::Followed;
use futures_util::{FutureExt, StreamExt};
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;

/// RabbitMQ's quorum queues take at most 32 commands of a channel at once and set further acknowledgements aside, where
/// closing the channel loses them. The broker tells nobody when it has caught up; this is how long it is given.
const LET_ACKS_SETTLE: Duration = Duration::from_millis(200);

/// Proof that all a delivery asked for is durable: what it said is committed, or its copy is confirmed elsewhere.
/// Without one nothing can be acknowledged.
pub trait Durable {}

impl Durable for super::publisher::Confirmed {}

/// One delivery.
#[derive(Debug)]
pub struct Delivery {
    /// Its number on the channel; ascending by one.
    pub tag: u64,
    /// Where it was published; empty is the default exchange, through which only the broker's own retries come.
    pub exchange: String,
    /// Under which key.
    pub routing_key: String,
    /// The property `message_id`.
    pub message_id: Option<String>,
    /// The property `type`.
    pub kind: Option<String>,
    /// The property `timestamp`, whole seconds: when its sender says that it was published.
    pub published_at: Option<OffsetDateTime>,
    /// Its headers.
    pub headers: Headers,
    /// How it last died, where the broker itself moved it here.
    pub death: Option<Death>,
    /// Its body.
    pub body: Vec<u8>,
}

impl From<lapin::message::Delivery> for Delivery {
    fn from(delivery: lapin::message::Delivery) -> Self {
        let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
        let properties = &delivery.properties;
        Self {
            tag: delivery.delivery_tag,
            message_id: text(properties.message_id()),
            kind: text(properties.kind()),
            published_at: properties
                .timestamp()
                .and_then(|s| OffsetDateTime::from_unix_timestamp(i64::try_from(s).ok()?).ok()),
            headers: properties.headers().as_ref().map(Headers::read).unwrap_or_default(),
            death: properties.headers().as_ref().and_then(Death::read),
            exchange: String::from(delivery.exchange),
            routing_key: String::from(delivery.routing_key),
            body: delivery.data,
        }
    }
}

/// Consumes one queue on a connection of its own: one that publishes would be held up by a memory alarm, and
/// acknowledgements with it.
#[derive(Debug)]
pub struct Consumer {
    connection: Connection,
    channel: Channel,
    stream: lapin::Consumer,
    /// What came behind the deliveries of the last batch. The stream tells its end only once; whoever asks it again
    /// waits for ever.
    end: Option<End>,
}

/// How a stream of deliveries ends.
#[derive(Debug)]
enum End {
    Failed(lapin::Error),
    Canceled,
}

fn take(next: Option<lapin::Result<lapin::message::Delivery>>, batch: &mut Vec<Delivery>) -> Result<(), End> {
    match next {
        Some(Ok(delivery)) => batch.push(delivery.into()),
        Some(Err(error)) => return Err(End::Failed(error)),
        None => return Err(End::Canceled),
    }
    Ok(())
}

impl Consumer {
    /// Connects and begins to take deliveries, at most `prefetch` unacknowledged ones.
    pub async fn open(
        url: &Followed<AmqpAddress>,
        name: &str,
        queue: &str,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let connection = connect(url, name).await?;
        let channel = channel(&connection).await?;
        let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
        BrokerError::within("setting the prefetch", ANSWER_DEADLINE, qos).await?;
        let stream =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let stream = BrokerError::within("consuming", ANSWER_DEADLINE, stream).await?;
        Ok(Self { connection, channel, stream, end: None })
    }

    /// The acknowledging end, which lives as long as the channel.
    pub fn acknowledger(&self) -> Acknowledger {
        Acknowledger { channel: self.channel.clone() }
    }

    /// Waits for a delivery, then takes what else is there, up to `count_max`, and waits for more until `linger` is
    /// over. `Ok(None)`: the consumer was canceled and all its deliveries have been taken.
    ///
    /// Dropping the future loses nothing: deliveries that were taken stay in `batch`.
    pub async fn fill(
        &mut self,
        batch: &mut Vec<Delivery>,
        count_max: usize,
        linger: Duration,
    ) -> Result<Option<()>, BrokerError> {
        if batch.is_empty() {
            let end = match self.end.take() {
                Some(end) => Some(end),
                None => take(self.stream.next().await, batch).err(),
            };
            match end {
                None => {}
                Some(End::Failed(source)) => return Err(BrokerError::Amqp { what: "receiving", source }),
                Some(End::Canceled) if self.channel.status().connected() => return Ok(None),
                Some(End::Canceled) => return Err(BrokerError::StreamEnded),
            }
        }
        let until = Instant::now() + linger;
        while batch.len() < count_max && self.end.is_none() {
            let next = match self.stream.next().now_or_never() {
                Some(next) => next,
                None if linger.is_zero() => break,
                None => match tokio::time::timeout_at(until, self.stream.next()).await {
                    Ok(next) => next,
                    Err(_elapsed) => break,
                },
            };
            if let Err(end) = take(next, batch) {
                // What was taken is worked on first; the next call tells the end.
                self.end = Some(end);
                break;
            }
        }
        Ok(Some(()))
    }

    /// Asks for no more deliveries. Those that are on their way still come.
    pub async fn cancel(&self) -> Result<(), BrokerError> {
        let canceled = self.channel.basic_cancel(self.stream.tag(), BasicCancelOptions::default());
        BrokerError::within("canceling the consumer", ANSWER_DEADLINE, canceled).await
    }

    /// Closes the connection; everything unacknowledged goes back to the queue, once.
    pub async fn close(self) {
        if self.channel.status().connected() {
            tokio::time::sleep(LET_ACKS_SETTLE).await;
        }
        close(&self.connection).await;
    }
}

/// Acknowledges deliveries of one channel.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    channel: Channel,
}

impl Acknowledger {
    /// Acknowledges all deliveries up to this tag at once. All of them must be durable: that is what the proof is of.
    pub async fn acknowledge_through<P: Durable + ?Sized>(&self, tag: u64, _proof: &P) -> Result<(), BrokerError> {
        self.send(tag, BasicAckOptions { multiple: true }).await
    }

    /// Acknowledges this delivery alone.
    pub async fn acknowledge<P: Durable + ?Sized>(&self, tag: u64, _proof: &P) -> Result<(), BrokerError> {
        self.send(tag, BasicAckOptions { multiple: false }).await
    }

    async fn send(&self, tag: u64, options: BasicAckOptions) -> Result<(), BrokerError> {
        BrokerError::within("acknowledging", ANSWER_DEADLINE, self.channel.basic_ack(tag, options)).await
    }
}

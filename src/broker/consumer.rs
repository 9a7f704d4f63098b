//! Takes the deliveries of a queue in batches, and acknowledges them.

use super::connection::{ANSWER_DEADLINE, Connection, channel, close, connect_within};
use super::error::BrokerError;
use super::headers::{Death, Headers};
use super::topology::DEAD_QUEUE;
use super::transport::{Bounds, InboundMeter};
use crate::address::AmqpAddress;
use crate::domain::{Reason, Refusal};
use crate::followed::Followed;
use crate::message::{self, BODY_BYTES_MAX, TRACEPARENT_HEADER};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::FieldTable;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::time::Instant;

/// A quorum queue takes at most 32 commands of a channel at once and sets further acknowledgements aside. Closing the
/// channel would lose those. The broker does not report when it has caught up, so it is given this time.
const LET_ACKS_SETTLE: Duration = Duration::from_millis(200);

/// How long a canceled consumer may go on. It may have to work on deliveries in hand first.
const CANCEL_DEADLINE: Duration = Duration::from_secs(60);

/// How much of the body of a dead letter is kept, in bytes. The largest accepted message is a quarter of it.
pub const LETTER_BODY_BYTES_MAX: usize = 1024 * 1024;

/// A batch takes at most this part of the bytes in hand, so that several batches fit.
const BATCHES_IN_WINDOW: usize = 4;

/// Proof that everything a delivery asked for is durable: its fact is committed, or its copy is confirmed. Nothing can
/// be acknowledged without a proof.
pub trait Durable {}

impl Durable for super::publisher::Confirmed {}

/// How many deliveries are taken ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Deliveries in hand that are not settled.
    pub deliveries_max: u16,
    /// Their bytes, headers included. Reading pauses at this bound. One delivery is always accepted.
    pub bytes_max: usize,
}

/// The parts of a message that differ from the message at the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable {
    /// The parts that cannot be read, with their bytes. Empty if only the body was cut.
    pub faults: String,
    /// The length of the whole body.
    pub body_bytes: u64,
}

/// One delivery of a queue.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// The number of the delivery on its channel. Each is one greater than the one before.
    pub tag: u64,
    /// The exchange. It is empty for the default exchange, through which only the broker's own retries come.
    pub exchange: String,
    /// The routing key under which it was published.
    pub routing_key: String,
    /// The property `message_id`, which is optional.
    pub message_id: Option<String>,
    /// The property `type`, which is optional.
    pub kind: Option<String>,
    /// The property `timestamp`, in whole seconds: when the sender published the message, by its own clock.
    pub published_at: Option<OffsetDateTime>,
    /// The headers that we can read.
    pub headers: Headers,
    /// How the broker moved it here, if it came from another queue.
    pub death: Option<Death>,
    /// The body. It counts as in hand until its last copy is dropped.
    pub body: Bytes,
    /// What differs from the message at the broker. Only dead letters have it: other queues do not hand such a message
    /// out.
    pub unreadable: Option<Unreadable>,
}

impl Delivery {
    /// Joins what the client library and the meter know about a delivery.
    pub(super) fn read(
        delivery: lapin::message::Delivery,
        channel: &Channel,
        meter: &Arc<InboundMeter>,
    ) -> Result<Self, BrokerError> {
        let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(|text| text.as_str().to_owned());
        let properties = &delivery.properties;
        let ticket = meter.claim(channel.id(), delivery.delivery_tag).ok_or(BrokerError::StreamEnded)?;
        let is_cut = u64::try_from(delivery.data.len()).is_ok_and(|bytes| bytes < ticket.body_bytes);
        let unreadable = (is_cut || !ticket.unreadable.is_empty())
            .then_some(Unreadable { faults: ticket.unreadable, body_bytes: ticket.body_bytes });
        Ok(Self {
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
            body: meter.hold(delivery.data, ticket.bytes),
            unreadable,
        })
    }

    /// Why nobody can work on it. `None` if somebody can.
    pub fn refusal(&self) -> Option<Refusal> {
        let Unreadable { faults, body_bytes } = self.unreadable.as_ref()?;
        let detail = if faults.is_empty() {
            format!("the body is {body_bytes} bytes long; at most {BODY_BYTES_MAX} are allowed")
        } else {
            faults.clone()
        };
        Some(Refusal::new(Reason::Malformed, detail))
    }
}

/// Consumes one queue on a connection of its own. A memory alarm blocks connections that publish, and would block the
/// acknowledgements too.
pub struct Consumer {
    connection: Connection,
    channel: Channel,
    stream: lapin::Consumer,
    meter: Arc<InboundMeter>,
    batch_bytes_max: usize,
    /// Called for each refused delivery. `None` if nothing is refused, which is so for the dead letters.
    refused: Option<Refused>,
    /// A refusal on its way to the broker. Later deliveries are not handed out before it: a cumulative acknowledgement
    /// would cover the refused one too.
    refusing: Option<BoxFuture<'static, Result<(), BrokerError>>>,
    /// A cancellation on its way to the broker.
    canceling: Option<BoxFuture<'static, Result<(), BrokerError>>>,
    /// The end that came after the deliveries of the last batch. The stream reports its end only once; a second call
    /// would wait forever.
    end: Option<End>,
}

/// Called with the reason why a delivery was refused.
type Refused = Box<dyn Fn(&Refusal) + Send + Sync>;

/// How a stream of deliveries ends.
enum End {
    Failed(BrokerError),
    Canceled,
}

impl Consumer {
    /// Connects and begins to take deliveries, as many as the window allows.
    ///
    /// A message that cannot be read, or whose body is too large, is not handed out. The consumer refuses it, and the
    /// broker moves it to the dead letters, at least once; `refused` is called. Dead letters are all handed out: no
    /// other queue is behind theirs.
    pub async fn open(
        url: &Followed<AmqpAddress>,
        name: &str,
        queue: &str,
        window: Window,
        refused: impl Fn(&Refusal) + Send + Sync + 'static,
    ) -> Result<Self, BrokerError> {
        let is_last = queue == DEAD_QUEUE;
        let bounds = Bounds {
            body_bytes_max: if is_last { LETTER_BODY_BYTES_MAX } else { BODY_BYTES_MAX },
            body_kept_bytes: if is_last { LETTER_BODY_BYTES_MAX } else { 0 },
            bytes_max: window.bytes_max,
        };
        let (connection, meter) = connect_within(url, name, bounds).await?;
        let channel = channel(&connection).await?;
        let qos = channel.basic_qos(window.deliveries_max, BasicQosOptions::default());
        BrokerError::within("setting the prefetch", ANSWER_DEADLINE, qos).await?;
        let stream =
            channel.basic_consume(queue.into(), "".into(), BasicConsumeOptions::default(), FieldTable::default());
        let stream = BrokerError::within("consuming", ANSWER_DEADLINE, stream).await?;
        Ok(Self {
            connection,
            channel,
            stream,
            meter,
            batch_bytes_max: window.bytes_max / BATCHES_IN_WINDOW,
            refused: if is_last { None } else { Some(Box::new(refused)) },
            refusing: None,
            canceling: None,
            end: None,
        })
    }

    /// The part that acknowledges. It lives as long as the channel.
    pub fn acknowledger(&self) -> Acknowledger {
        Acknowledger { channel: self.channel.clone() }
    }

    /// Waits for a delivery, then takes the ones that are there, up to `count_max`, and waits for more until that time.
    /// `Ok(None)`: the consumer was canceled, and all its deliveries have been taken.
    ///
    /// Nothing is lost if the future is dropped: deliveries that were taken stay in `batch`.
    pub async fn fill(
        &mut self,
        batch: &mut Vec<Delivery>,
        count_max: usize,
        until: Instant,
    ) -> Result<Option<()>, BrokerError> {
        if batch.is_empty() {
            let end = match self.end.take() {
                Some(end) => Some(end),
                None => self.take(batch).await.err(),
            };
            match end {
                None => {}
                Some(End::Failed(error)) => return Err(error),
                Some(End::Canceled) if self.channel.status().connected() => return Ok(None),
                Some(End::Canceled) => return Err(BrokerError::StreamEnded),
            }
        }
        let mut bytes: usize = batch.iter().map(|delivery| delivery.body.len()).sum();
        while batch.len() < count_max && bytes < self.batch_bytes_max && self.end.is_none() {
            let taken = match self.take(batch).now_or_never() {
                Some(taken) => taken,
                None if until <= Instant::now() => break,
                None => match tokio::time::timeout_at(until, self.take(batch)).await {
                    Ok(taken) => taken,
                    Err(_elapsed) => break,
                },
            };
            match taken {
                Ok(()) => bytes += batch.last().map_or(0, |delivery| delivery.body.len()),
                // The deliveries are worked on first. The next call reports the end.
                Err(end) => self.end = Some(end),
            }
        }
        Ok(Some(()))
    }

    /// Waits for a delivery that can be worked on.
    async fn take(&mut self, batch: &mut Vec<Delivery>) -> Result<(), End> {
        loop {
            finish(&mut self.refusing).await?;
            let next = tokio::select! {
                biased;
                canceled = finish(&mut self.canceling), if self.canceling.is_some() => {
                    canceled?;
                    continue;
                }
                next = self.stream.next() => next,
            };
            let delivery = match next {
                Some(Ok(delivery)) => Delivery::read(delivery, &self.channel, &self.meter).map_err(End::Failed)?,
                Some(Err(source)) => return Err(End::Failed(BrokerError::Amqp { what: "receiving", source })),
                None => return Err(End::Canceled),
            };
            match delivery.refusal().zip(self.refused.as_ref()) {
                None => {
                    batch.push(delivery);
                    return Ok(());
                }
                Some((refusal, refused)) => {
                    let trace_id = delivery.headers.text(TRACEPARENT_HEADER).and_then(message::trace_id);
                    tracing::warn!(event = "dead_letter", reason = refusal.reason.name(), detail = %refusal.detail,
                        message_id = delivery.message_id.as_deref(), trace_id, "left to the broker, which moves it as it is");
                    refused(&refusal);
                    let (channel, tag) = (self.channel.clone(), delivery.tag);
                    self.refusing = Some(Box::pin(async move {
                        let rejected = channel.basic_reject(tag, BasicRejectOptions { requeue: false });
                        BrokerError::within("refusing a delivery", ANSWER_DEADLINE, rejected).await
                    }));
                }
            }
        }
    }

    /// Asks for no more deliveries. `fill` still returns those that are on their way.
    pub fn cancel(&mut self) {
        let (channel, tag) = (self.channel.clone(), self.stream.tag());
        let mut canceling: BoxFuture<'static, _> = Box::pin(async move {
            let canceled = channel.basic_cancel(tag, BasicCancelOptions::default());
            BrokerError::within("canceling the consumer", CANCEL_DEADLINE, canceled).await
        });
        // The request is sent now. `take` waits for the answer.
        match (&mut canceling).now_or_never() {
            None => self.canceling = Some(canceling),
            Some(Ok(())) => {}
            Some(Err(error)) => self.end = Some(End::Failed(error)),
        }
    }

    /// Closes the connection. Every delivery that is not acknowledged goes back to the queue, once.
    pub async fn close(self) {
        if self.channel.status().connected() {
            tokio::time::sleep(LET_ACKS_SETTLE).await;
        }
        close(&self.connection).await;
    }
}

/// Waits for the request under way, and forgets it only after its answer.
async fn finish(under_way: &mut Option<BoxFuture<'static, Result<(), BrokerError>>>) -> Result<(), End> {
    let Some(future) = under_way else { return Ok(()) };
    let finished = future.await;
    *under_way = None;
    finished.map_err(End::Failed)
}

/// Acknowledges the deliveries of one channel.
#[derive(Debug, Clone)]
pub struct Acknowledger {
    channel: Channel,
}

impl Acknowledger {
    /// Acknowledges all deliveries up to this tag at once. The proof must cover all of them.
    pub async fn acknowledge_through<P: Durable + ?Sized>(&self, tag: u64, _proof: &P) -> Result<(), BrokerError> {
        self.send(tag, BasicAckOptions { multiple: true }).await
    }

    /// Acknowledges this delivery and no other.
    pub async fn acknowledge<P: Durable + ?Sized>(&self, tag: u64, _proof: &P) -> Result<(), BrokerError> {
        self.send(tag, BasicAckOptions { multiple: false }).await
    }

    async fn send(&self, tag: u64, options: BasicAckOptions) -> Result<(), BrokerError> {
        BrokerError::within("acknowledging", ANSWER_DEADLINE, self.channel.basic_ack(tag, options)).await
    }
}

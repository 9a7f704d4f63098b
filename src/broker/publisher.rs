//! A publisher that reports success only for messages that are confirmed and routed.
//!
//! Messages are published in groups. All waiting messages are sent with `mandatory`, then all their confirms are
//! awaited, and only then is any caller answered. The client library attaches a returned message to some confirm of the
//! channel, not to its own. After the confirms of the whole group all returns are there, and each is matched by its
//! content. So many callers share one wait for the broker's disks.

use super::ability::{Ability, AbilityReporter, DOUBT_LASTS, PROBE_KEY};
use super::alarm::Alarm;
use super::connection::{Connection, channel, close, connect};
use super::error::BrokerError;
use super::headers::Headers;
use crate::address::AmqpAddress;
use crate::clock::Clock;
use crate::followed::Followed;
use crate::retry::{Backoff, Limits};
use bytes::Bytes;
use futures_util::future::join_all;
use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::protocol::AMQPErrorKind;
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// The most messages in a group.
const GROUP_MAX: usize = 512;

/// How many messages are handed to the client library together. It reports that a message is sent when its bytes have
/// gone to the socket, and waiting for each one costs a thread switch and a packet. With more than this, `join_all`
/// would allocate memory for each.
const HANDED_OVER_MAX: usize = 30;

/// AMQP's delivery mode for messages that survive a restart.
const PERSISTENT: u8 = 2;

/// The pauses between two tries to connect.
const RECONNECT: Limits =
    Limits { initial: Duration::from_millis(50), max: Duration::from_secs(2), give_up_after: None };

/// A message that is to be published.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The exchange that it is published to.
    pub exchange: &'static str,
    /// The routing key that it is published under.
    pub routing_key: String,
    /// The id of the message. A returned message is matched by it.
    pub message_id: String,
    /// The property `type` of the message.
    pub kind: String,
    /// The property `content_type` of the message.
    pub content_type: &'static str,
    /// The headers of the message.
    pub headers: Headers,
    /// The body of the message.
    pub body: Bytes,
}

/// Proof that a message is on the broker's disks and in a queue.
#[derive(Debug)]
pub struct Confirmed(());

/// Why nobody knows that the broker has a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// There is no connection now. The publisher is connecting.
    #[error("RabbitMQ is out of reach: {0}")]
    Unavailable(String),
    /// The allowed number of messages is waiting already.
    #[error("too many messages are waiting to be published")]
    Overloaded,
    /// RabbitMQ accepts no message while one of its alarms lasts. Nothing was sent.
    #[error("publishing is blocked by RabbitMQ ({0})")]
    Blocked(String),
    /// There was no confirm in time. The broker may have the message or not: publish it again under the same id.
    #[error("RabbitMQ did not confirm within {} s", .0.as_secs_f32())]
    NotConfirmed(Duration),
    /// The queue refused the message because it is full.
    #[error("RabbitMQ refused the message: the queue is full or failing")]
    Refused,
    /// No queue is bound for the message: the topology is missing.
    #[error("no queue takes messages for {exchange} under {routing_key}: run `grantonce migrate`")]
    Unroutable {
        /// The exchange of the message.
        exchange: &'static str,
        /// The routing key of the message.
        routing_key: String,
    },
    /// The broker closed the channel because of the message, with this AMQP reply code.
    #[error("{}", channel_closed(*.0))]
    ChannelClosed(u16),
    /// A name or key is too long for AMQP.
    #[error("{0} is longer than 255 bytes")]
    TooLong(&'static str),
}

impl PublishError {
    /// The kind of the error, one of a fixed set.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unavailable(_) => "unavailable",
            Self::Overloaded => "overloaded",
            Self::Blocked(_) => "blocked",
            Self::NotConfirmed(_) => "not_confirmed",
            Self::Refused => "refused",
            Self::Unroutable { .. } => "unroutable",
            Self::ChannelClosed(_) => "channel_closed",
            Self::TooLong(_) => "too_long",
        }
    }
}

/// The meaning of a reply code for a publisher.
fn channel_closed(reply_code: u16) -> String {
    match reply_code {
        403 => "this broker user may not publish there (403)".to_owned(),
        404 => "the exchange is missing (404): run `grantonce migrate`".to_owned(),
        code => format!("RabbitMQ closed the channel ({code})"),
    }
}

/// The settings of a publisher.
#[derive(Debug, Clone)]
pub struct PublisherSettings {
    /// The address of the broker.
    pub url: Followed<AmqpAddress>,
    /// The name of the connections.
    pub name: &'static str,
    /// The number of connections. Each has one group under way.
    pub lanes: usize,
    /// How many messages may wait in each lane.
    pub waiting_max: usize,
    /// How long to wait for a confirm.
    pub confirm_deadline: Duration,
    /// The clock for the timestamp of messages, which shows their age in a queue.
    pub clock: Clock,
}

struct Request {
    message: Outgoing,
    answer: oneshot::Sender<Result<Confirmed, PublishError>>,
}

/// Publishes with confirms. It is cheap to clone. The connections close when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Publisher {
    lanes: Arc<[Lane]>,
    next: Arc<AtomicUsize>,
    ability: watch::Receiver<Ability>,
    confirm_deadline: Duration,
}

#[derive(Debug)]
struct Lane {
    queue: mpsc::Sender<Request>,
}

impl Publisher {
    /// Starts the lanes. They connect by themselves, now and after each loss of the connection.
    pub fn start(settings: &PublisherSettings) -> Self {
        let count = settings.lanes.max(1);
        let (tell, ability) = watch::channel(Ability::none(count));
        let lanes = (0..count)
            .map(|number| {
                let (queue, waiting) = mpsc::channel(settings.waiting_max.max(1));
                tokio::spawn(run_lane(settings.clone(), waiting, AbilityReporter::of(number, &tell)));
                Lane { queue }
            })
            .collect();
        Self { lanes, next: Arc::default(), ability, confirm_deadline: settings.confirm_deadline }
    }

    /// Whether messages can be published, now and after each change.
    pub fn ability(&self) -> watch::Receiver<Ability> {
        self.ability.clone()
    }

    /// Whether the broker accepts messages for this exchange. It publishes a message without a queue, which comes back
    /// and is not stored.
    pub async fn probe(&self, exchange: &'static str) -> Result<(), PublishError> {
        let message = Outgoing {
            exchange,
            routing_key: PROBE_KEY.to_owned(),
            message_id: PROBE_KEY.to_owned(),
            kind: PROBE_KEY.to_owned(),
            content_type: "text/plain",
            headers: Headers::default(),
            body: Bytes::new(),
        };
        match self.publish(message).await {
            Ok(_) | Err(PublishError::Unroutable { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Publishes a message and waits until it is confirmed.
    pub async fn publish(&self, message: Outgoing) -> Result<Confirmed, PublishError> {
        let start = self.next.fetch_add(1, Ordering::Relaxed);
        // A lane that can publish, if there is one.
        let number = {
            let ability = self.ability.borrow();
            ability.unblocked().map_err(PublishError::clone)?;
            let mut numbers = (0..self.lanes.len()).map(|step| (start.wrapping_add(step)) % self.lanes.len());
            numbers.find(|number| ability.is_able(*number)).unwrap_or(start % self.lanes.len().max(1))
        };
        let lane = self.lanes.get(number).ok_or_else(|| PublishError::Unavailable("no lane".to_owned()))?;
        let (answer, answered) = oneshot::channel();
        lane.queue.try_send(Request { message, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => PublishError::Overloaded,
            mpsc::error::TrySendError::Closed(_) => PublishError::Unavailable("the publisher has stopped".to_owned()),
        })?;
        // The lane has its own deadline for the confirms. This one also covers the wait for the group before.
        let deadline = self.confirm_deadline * 2;
        match tokio::time::timeout(deadline, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_lane_ended)) => Err(PublishError::Unavailable("the connection was lost".to_owned())),
            Err(_elapsed) => Err(PublishError::NotConfirmed(deadline)),
        }
    }
}

/// Why a lane is in doubt: publishing failed on an open connection. The doubt ends with the next confirm, or after a
/// while.
type Doubt = Option<(Instant, PublishError)>;

async fn run_lane(settings: PublisherSettings, mut waiting: mpsc::Receiver<Request>, reporter: AbilityReporter) {
    let mut backoff = Backoff::new(RECONNECT);
    let mut doubt: Doubt = None;
    loop {
        let cause = match open(&settings).await {
            Ok((connection, channel)) => {
                backoff.reset();
                let alarm = Alarm::watch(&connection);
                let ended = serve(&channel, &mut waiting, &alarm, &reporter, &mut doubt, &settings).await;
                if let Ended::Broken(cause) = &ended {
                    reporter.set_lane(Err(cause.clone()));
                }
                close(&connection).await;
                match ended {
                    Ended::NoMoreCallers => return,
                    Ended::Broken(cause) => cause,
                }
            }
            Err(error) => PublishError::Unavailable(error.to_string()),
        };
        reporter.set_lane(Err(cause.clone()));
        let pause = backoff.next_pause();
        tracing::warn!(event = "publisher_disconnected", name = settings.name, cause = %cause, retry_in_ms = pause.as_millis());
        let refusal = PublishError::Unavailable(cause.to_string());
        if !refuse_until(Instant::now() + pause, &mut waiting, &refusal).await {
            return;
        }
    }
}

async fn open(settings: &PublisherSettings) -> Result<(Connection, Channel), BrokerError> {
    let connection = connect(&settings.url, settings.name).await?;
    let channel = channel(&connection).await?;
    let confirms = channel.confirm_select(ConfirmSelectOptions::default());
    BrokerError::within("asking for confirms", settings.confirm_deadline, confirms).await?;
    Ok((connection, channel))
}

/// Answers callers at once while nothing can be published, so that they do not wait for a timeout. `false`: there are
/// no callers any more.
async fn refuse_until(until: Instant, waiting: &mut mpsc::Receiver<Request>, cause: &PublishError) -> bool {
    loop {
        match tokio::time::timeout_at(until, waiting.recv()).await {
            Ok(Some(request)) => drop(request.answer.send(Err(cause.clone()))),
            Ok(None) => return false,
            Err(_elapsed) => return true,
        }
    }
}

enum Ended {
    NoMoreCallers,
    Broken(PublishError),
}

impl Ended {
    fn lost(cause: &str) -> Self {
        Self::Broken(PublishError::Unavailable(cause.to_owned()))
    }
}

/// How often an idle lane checks that its channel is open.
const IDLE_LOOK: Duration = Duration::from_millis(500);

async fn serve(
    channel: &Channel,
    waiting: &mut mpsc::Receiver<Request>,
    alarm: &Alarm,
    reporter: &AbilityReporter,
    doubt: &mut Doubt,
    settings: &PublisherSettings,
) -> Ended {
    let mut group = Vec::new();
    loop {
        let doubted = doubt.as_ref().filter(|(since, _)| since.elapsed() < DOUBT_LASTS);
        reporter.set_lane(doubted.map_or(Ok(()), |(_, cause)| Err(cause.clone())));
        let next = tokio::time::timeout(IDLE_LOOK, waiting.recv_many(&mut group, GROUP_MAX));
        match alarm.cuts_short(next).await {
            None => return sit_out(channel, waiting, alarm, reporter).await,
            Some(Err(_idle)) if channel.status().connected() => continue,
            Some(Err(_idle)) => return Ended::lost("the connection was lost"),
            Some(Ok(0)) => return Ended::NoMoreCallers,
            Some(Ok(_)) => {}
        }
        let published = publish_group(channel, &mut group, alarm, reporter, settings).await;
        if alarm.has_come() {
            return sit_out(channel, waiting, alarm, reporter).await;
        }
        if let Err(cause) = published {
            if matches!(cause, PublishError::NotConfirmed(_)) {
                *doubt = Some((Instant::now(), cause.clone()));
            }
            return Ended::Broken(cause);
        }
        *doubt = None;
    }
}

/// Answers callers at once during an alarm of the broker. The connection is kept until the broker reports the end of
/// the alarm, and then replaced. Messages that were in flight when the alarm came are not confirmed, and a return could
/// be taken for that of another message.
async fn sit_out(
    channel: &Channel,
    waiting: &mut mpsc::Receiver<Request>,
    alarm: &Alarm,
    reporter: &AbilityReporter,
) -> Ended {
    let mut reasons = alarm.reason();
    loop {
        let reason = reasons.borrow_and_update().clone();
        let Some(reason) = reason else { return Ended::lost("RabbitMQ takes messages again") };
        if !channel.status().connected() {
            return Ended::lost("the connection was lost");
        }
        let cause = PublishError::Blocked(reason);
        reporter.set_lane(Err(cause.clone()));
        let is_going_on = tokio::select! {
            going_on = refuse_until(Instant::now() + IDLE_LOOK, waiting, &cause) => going_on,
            _ = reasons.changed() => true,
        };
        if !is_going_on {
            return Ended::NoMoreCallers;
        }
    }
}

/// Publishes a group, answers each of its callers, and leaves it empty. An error ends the channel.
async fn publish_group(
    channel: &Channel,
    group: &mut Vec<Request>,
    alarm: &Alarm,
    reporter: &AbilityReporter,
    settings: &PublisherSettings,
) -> Result<(), PublishError> {
    let (began, deadline) = (Instant::now(), settings.confirm_deadline);
    let until = began + deadline;
    let not_confirmed = || PublishError::NotConfirmed(began.elapsed().min(deadline));
    // In seconds, the finest unit of AMQP. A clock before 1970 gives none.
    let published_at_s = u64::try_from(settings.clock.now().unix_timestamp()).unwrap_or(0);
    let mut sent = Vec::with_capacity(group.len());
    let hand_over = async {
        for some in group.chunks(HANDED_OVER_MAX) {
            sent.extend(join_all(some.iter().map(|request| send(channel, &request.message, published_at_s))).await);
        }
    };
    // A message that was not handed over in time has no confirm to wait for.
    let _late = alarm.cuts_short(tokio::time::timeout_at(until, hand_over)).await;
    sent.resize_with(group.len(), || Err(not_confirmed()));

    let mut broken: Option<PublishError> = None;
    let mut returned = Vec::new();
    let mut results = Vec::with_capacity(sent.len());
    for confirm in sent {
        let result = match confirm {
            Err(error) => Err(error),
            // An alarm ends the wait. The broker may accept these messages now, after the alarm, or never.
            Ok(confirm) => match alarm.cuts_short(tokio::time::timeout_at(until, confirm)).await {
                Some(Ok(Ok(Confirmation::Ack(message)))) => {
                    returned.extend(message);
                    Ok(())
                }
                Some(Ok(Ok(Confirmation::Nack(_)))) => Err(PublishError::Refused),
                Some(Ok(Ok(Confirmation::NotRequested))) => {
                    Err(PublishError::Unavailable("the channel is not in confirm mode".to_owned()))
                }
                Some(Ok(Err(error))) => Err(failed(&error)),
                Some(Err(_)) | None => Err(not_confirmed()),
            },
        };
        if let Err(
            error @ (PublishError::Unavailable(_) | PublishError::NotConfirmed(_) | PublishError::ChannelClosed(_)),
        ) = &result
        {
            broken.get_or_insert_with(|| error.clone());
        }
        results.push(result);
    }
    let is_returned = |message: &Outgoing| {
        returned.iter().any(|back: &BasicReturnMessage| {
            let id = back.properties.message_id().as_ref().map_or("", |id| id.as_str());
            let delivery = &back.delivery;
            (id, delivery.exchange.as_str(), delivery.routing_key.as_str())
                == (message.message_id.as_str(), message.exchange, message.routing_key.as_str())
        })
    };
    // A return may still be on its way to a missing confirm. Then no message of the group counts as confirmed.
    for (Request { message, answer }, result) in group.drain(..).zip(results) {
        let result = match (result, &broken) {
            (Ok(()), Some(error)) => Err(error.clone()),
            (Ok(()), None) if is_returned(&message) => {
                Err(PublishError::Unroutable { exchange: message.exchange, routing_key: message.routing_key.clone() })
            }
            (Ok(()), None) => Ok(Confirmed(())),
            (Err(error), _) => Err(error),
        };
        reporter.note_answer(&message, result.as_ref().err());
        // A caller that is gone does not read its answer.
        drop(answer.send(result));
    }
    broken.map_or(Ok(()), Err)
}

/// Why a message could not be handed over, or has no confirm.
fn failed(error: &lapin::Error) -> PublishError {
    if let lapin::ErrorKind::ProtocolError(protocol) = error.kind()
        && matches!(protocol.kind(), AMQPErrorKind::Soft(_))
    {
        return PublishError::ChannelClosed(protocol.get_id());
    }
    PublishError::Unavailable(error.to_string())
}

/// Hands a message over. Everything that fixes the order of messages on the channel happens before its first wait. So
/// many can be begun one after the other and then awaited together.
async fn send(
    channel: &Channel,
    message: &Outgoing,
    published_at_s: u64,
) -> Result<lapin::PublisherConfirm, PublishError> {
    let short = |what: &'static str, text: &str| ShortString::try_new(text).map_err(|_| PublishError::TooLong(what));
    let properties = BasicProperties::default()
        .with_delivery_mode(PERSISTENT)
        .with_message_id(short("message_id", &message.message_id)?)
        .with_type(short("type", &message.kind)?)
        .with_content_type(short("content_type", message.content_type)?)
        .with_timestamp(published_at_s)
        .with_headers(message.headers.write());
    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
    let (exchange, routing_key) = (short("exchange", message.exchange)?, short("routing_key", &message.routing_key)?);
    let sent = channel.basic_publish(exchange, routing_key, options, &message.body, properties).await;
    sent.map_err(|error| failed(&error))
}

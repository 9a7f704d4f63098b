//! Shows the dead letters in their queue and leaves them there. For times when no database collects them.

use super::connection::{ANSWER_DEADLINE, channel, close, connect, connect_within};
use super::consumer::Delivery;
use super::error::BrokerError;
use super::management::Management;
use super::topology::{DEAD_QUEUE, declare_dead_queue};
use super::transport::Bounds;
use crate::address::AmqpAddress;
use crate::followed::Followed;
use crate::message::BODY_BYTES_MAX;
use lapin::options::BasicGetOptions;

/// Why nothing was shown.
#[derive(Debug, thiserror::Error)]
pub enum PeekError {
    /// A look would count against a delivery limit, and the broker deletes messages that reach it.
    #[error(
        "{DEAD_QUEUE} is not as `grantonce migrate` makes it: {0}. Letters that are looked at there may be destroyed"
    )]
    Dangerous(String),
    /// Nobody can see whether a look is safe.
    #[error(
        "whether looking at {DEAD_QUEUE} is safe cannot be seen: this broker user may not compare its arguments. Set \
         GRANTONCE_MANAGEMENT_URL, or use the user of `grantonce migrate`"
    )]
    CannotTell,
    /// The broker, or the way to it, failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// RabbitMQ's HTTP API could not be asked.
    #[error("GRANTONCE_MANAGEMENT_URL: {0}")]
    Management(#[from] reqwest::Error),
}

/// How much of a body is shown, in bytes. The number of letters bounds the whole.
const BOUNDS: Bounds =
    Bounds { body_bytes_max: BODY_BYTES_MAX, body_kept_bytes: BODY_BYTES_MAX, bytes_max: usize::MAX };

/// Shows the oldest dead letters and puts them back. A look counts as a delivery of each letter. So nothing is touched
/// unless the delivery limit of the queue is the one that `migrate` sets.
pub async fn peek(
    url: &Followed<AmqpAddress>,
    management: Option<&Management>,
    count_max: u16,
) -> Result<Vec<Delivery>, PeekError> {
    match management {
        Some(management) => {
            if let Some(fault) = management.danger_in_dead_queue().await? {
                return Err(PeekError::Dangerous(fault.what));
            }
        }
        None => compare_by_declaring(url).await?,
    }
    let (connection, meter) = connect_within(url, "dlq peek", BOUNDS).await?;
    let peeked = async {
        let channel = channel(&connection).await?;
        let mut letters = vec![];
        for _ in 0..count_max {
            let got = channel.basic_get(DEAD_QUEUE.into(), BasicGetOptions { no_ack: false });
            match BrokerError::within("looking at a dead letter", ANSWER_DEADLINE, got).await? {
                Some(message) => letters.push(Delivery::read(message.delivery, &channel, &meter)?),
                None => break,
            }
        }
        Ok(letters)
    };
    let peeked = peeked.await;
    // Letters that are not acknowledged go back, each to its place.
    close(&connection).await;
    peeked
}

/// Declaring a queue with its present arguments changes nothing. With other arguments it is refused.
async fn compare_by_declaring(url: &Followed<AmqpAddress>) -> Result<(), PeekError> {
    let connection = connect(url, "dlq peek").await?;
    let declared = declare_dead_queue(&connection).await;
    close(&connection).await;
    match declared {
        Ok(()) => Ok(()),
        Err(error) => match error.reply_code() {
            Some(406) => Err(PeekError::Dangerous(error.to_string())),
            Some(403) => Err(PeekError::CannotTell),
            Some(_) | None => Err(error.into()),
        },
    }
}

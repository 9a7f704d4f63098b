//! Errors of the broker.

use std::time::Duration;

/// An error of the broker, or of the way to it. All are transient for a running role: it connects again.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// RabbitMQ refused or did not answer.
    #[error("{what}: {source}")]
    Amqp {
        /// The step that failed.
        what: &'static str,
        /// The error of the client library.
        source: lapin::Error,
    },
    /// There was no answer in time.
    #[error("{what}: no answer from RabbitMQ within {} s", after.as_secs_f32())]
    Deadline {
        /// The step that failed.
        what: &'static str,
        /// How long it waited.
        after: Duration,
    },
    /// The address names no host. The parser never makes such an address, so this is a bug.
    #[error("the address of RabbitMQ names no host")]
    NoHost,
    /// The stream of deliveries ended: the channel, the connection or the queue is gone.
    #[error("the stream of deliveries ended")]
    StreamEnded,
    /// A queue or exchange of this name has other properties.
    #[error(
        "{name} exists with other properties than this version needs ({reason}); drain it, delete it, and run `grantonce migrate` again"
    )]
    Different {
        /// The name of the queue or exchange.
        name: String,
        /// The reason in the words of RabbitMQ.
        reason: String,
    },
}

impl BrokerError {
    /// Waits for the broker's answer to `what`, at most `after`.
    pub(super) async fn within<T>(
        what: &'static str,
        after: Duration,
        answer: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Self> {
        match tokio::time::timeout(after, answer).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => Err(Self::Amqp { what, source }),
            Err(_elapsed) => Err(Self::Deadline { what, after }),
        }
    }

    /// The error in a few words of our own, which anybody may see.
    pub fn in_short(&self) -> String {
        match (self, self.reply_code()) {
            (Self::Deadline { after, .. }, _) => format!("RabbitMQ did not answer within {} s", after.as_secs_f32()),
            (Self::StreamEnded, _) => "the consumer's connection was lost".to_owned(),
            (_, Some(404)) => "a queue is missing".to_owned(),
            (_, Some(code)) => format!("RabbitMQ refuses ({code})"),
            (Self::Amqp { .. } | Self::NoHost | Self::Different { .. }, None) => "RabbitMQ is out of reach".to_owned(),
        }
    }

    /// The AMQP reply code, if the broker gave one (404 not found, 403 refused, 406 other properties).
    pub(super) fn reply_code(&self) -> Option<u16> {
        let Self::Amqp { source, .. } = self else { return None };
        let lapin::ErrorKind::ProtocolError(error) = source.kind() else { return None };
        Some(error.get_id())
    }
}

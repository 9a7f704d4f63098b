//! What can go wrong with the broker.

use std::time::Duration;

/// An error of the broker or of the way to it. All are transient for a role that is running: it connects anew.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// RabbitMQ refused or did not answer.
    #[error("{what}: {source}")]
    Amqp {
        /// What was being done.
        what: &'static str,
        /// What came of it.
        source: lapin::Error,
    },
    /// No answer in time.
    #[error("{what}: no answer from RabbitMQ within {} s", after.as_secs_f32())]
    Deadline {
        /// What was being done.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// The address names no host: a mistake of ours, the parser makes none such.
    #[error("the address of RabbitMQ names no host")]
    NoHost,
    /// The stream of deliveries ended: the channel, the connection or the queue is gone.
    #[error("the stream of deliveries ended")]
    StreamEnded,
    /// Something is there already, with other properties.
    #[error(
        "{name} exists with other properties than this version needs ({reason}); drain it, delete it, and run `grantonce migrate` again"
    )]
    Different {
        /// The queue or exchange.
        name: String,
        /// RabbitMQ's words.
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

    /// The AMQP reply code, where the broker gave one (404 not found, 403 refused, 406 other properties).
    pub(super) fn reply_code(&self) -> Option<u16> {
        let Self::Amqp { source, .. } = self else { return None };
        let lapin::ErrorKind::ProtocolError(error) = source.kind() else { return None };
        Some(error.get_id())
    }
}

//! Making a connection, with a deadline on every step.

use super::error::BrokerError;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};
use std::time::Duration;

/// How long connecting, and any single answer of the broker's apart from confirms, may take.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that is silent for twice as long is taken for dead, unless the URL says otherwise.
const HEARTBEAT_S: u16 = 10;

/// Connects under a name that `rabbitmqctl list_connections` shows.
pub(super) async fn connect(url: &SecretString, name: &str) -> Result<Connection, BrokerError> {
    let mut uri: AMQPUri = url.expose_secret().parse().map_err(|reason| BrokerError::Address { reason })?;
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT_S));
    let properties = ConnectionProperties::default().with_connection_name(format!("grantonce {name}").into());
    BrokerError::within("connecting", ANSWER_DEADLINE, Connection::connect_uri(uri, properties)).await
}

/// Opens a channel.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    BrokerError::within("opening a channel", ANSWER_DEADLINE, connection.create_channel()).await
}

/// Closes a connection politely, or gives up on it.
pub(super) async fn close(connection: &Connection) {
    if let Err(error) = BrokerError::within("closing", ANSWER_DEADLINE, connection.close(200, "done".into())).await {
        tracing::debug!(event = "broker_close_failed", cause = %error);
    }
}

/// Connects once: whether the broker is there and takes this user.
pub async fn reach(url: &SecretString) -> Result<(), BrokerError> {
    let connection = connect(url, "check").await?;
    close(&connection).await;
    Ok(())
}

//! Making a connection, with a deadline on every step.

use super::error::BrokerError;
use super::transport::{Bounds, FRAME_BYTES_MAX, Ledger, dial, greet};
use lapin::uri::AMQPUri;
use lapin::{Channel, ConnectionProperties};
use secrecy::{ExposeSecret, SecretString};
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long connecting, and any single answer of the broker's apart from confirms, may take.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that is silent for twice as long is taken for dead, unless the URL says otherwise.
const HEARTBEAT_S: u16 = 10;

/// A connection, with the channels that were opened on it.
///
/// A channel that is dropped is closed some time later, and where that meets the closing of its connection the client takes it
/// for an error. So the channels are kept until the connection has been closed.
#[derive(Debug)]
pub(super) struct Connection {
    connection: lapin::Connection,
    channels: Mutex<Vec<Channel>>,
}

impl Deref for Connection {
    type Target = lapin::Connection;

    fn deref(&self) -> &lapin::Connection {
        &self.connection
    }
}

/// Connects under a name that `rabbitmqctl list_connections` shows. For connections that take no deliveries.
pub(super) async fn connect(url: &SecretString, name: &str) -> Result<Connection, BrokerError> {
    let (connection, _ledger) = connect_within(url, name, Bounds::NONE).await?;
    Ok(connection)
}

/// Connects, and bounds what deliveries of this connection may take up in memory. What the client library does not know of them
/// is in the ledger.
pub(super) async fn connect_within(
    url: &SecretString,
    name: &str,
    bounds: Bounds,
) -> Result<(Connection, Arc<Ledger>), BrokerError> {
    let mut uri: AMQPUri = url.expose_secret().parse().map_err(|reason| BrokerError::Address { reason })?;
    uri.query.heartbeat = uri.query.heartbeat.or(Some(HEARTBEAT_S));
    // The broker may want smaller frames, not larger ones.
    uri.query.frame_max = Some(uri.query.frame_max.map_or(FRAME_BYTES_MAX, |bytes| bytes.min(FRAME_BYTES_MAX)));
    let properties = ConnectionProperties::default().with_connection_name(format!("grantonce {name}").into());
    let ledger = Ledger::new(bounds);
    let connected = async {
        let mut failed = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for addr in tokio::net::lookup_host((uri.authority.host.as_str(), uri.authority.port)).await? {
            match dial(&uri, addr).await {
                Ok(socket) => {
                    return greet(uri.clone(), socket, Arc::clone(&ledger), ANSWER_DEADLINE, properties).await;
                }
                Err(error) => failed = error,
            }
        }
        Err(failed.into())
    };
    let connection = BrokerError::within("connecting", ANSWER_DEADLINE, connected).await?;
    Ok((Connection { connection, channels: Mutex::default() }, ledger))
}

/// Opens a channel.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = BrokerError::within("opening a channel", ANSWER_DEADLINE, connection.create_channel()).await?;
    let mut channels = connection.channels.lock().unwrap_or_else(PoisonError::into_inner);
    channels.retain(|channel| channel.status().connected());
    channels.push(channel.clone());
    Ok(channel)
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

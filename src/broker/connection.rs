//! Making a connection, with a deadline on every step.

use super::error::BrokerError;
use super::transport::{Bounds, FRAME_BYTES_MAX, InboundMeter, dial, greet};
use crate::address::{AmqpAddress, AmqpAuth, HostPort};
use crate::followed::Followed;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Channel, ConnectionProperties};
use secrecy::ExposeSecret as _;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long connecting, and any single answer of the broker's apart from confirms, may take.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that is silent for twice as long is taken for dead, unless the address says otherwise.
const HEARTBEAT_S: u16 = 10;

/// Most addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

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
pub(super) async fn connect(url: &Followed<AmqpAddress>, name: &str) -> Result<Connection, BrokerError> {
    let (connection, _ledger) = connect_within(url, name, Bounds::NONE).await?;
    Ok(connection)
}

/// Connects, and bounds what deliveries of this connection may take up in memory. What the client library does not know of them
/// is in the meter. The hosts of the address are tried in their order, and of each all addresses that it has, IPv6 or IPv4, each
/// with a deadline of its own.
pub(super) async fn connect_within(
    url: &Followed<AmqpAddress>,
    name: &str,
    bounds: Bounds,
) -> Result<(Connection, Arc<InboundMeter>), BrokerError> {
    let address = url.current();
    let deadline = address.connection_timeout.map_or(ANSWER_DEADLINE, |most| most.min(ANSWER_DEADLINE));
    let mut failed = BrokerError::NoHost;
    for host in &address.hosts {
        let found = async { Ok(tokio::net::lookup_host((host.host.as_str(), host.port)).await?) };
        let addrs = match BrokerError::within("looking up RabbitMQ's address", deadline, found).await {
            Ok(addrs) => addrs,
            Err(error) => {
                failed = error;
                continue;
            }
        };
        for addr in addrs.take(ADDRESSES_MAX) {
            let (uri, meter) = (uri(&address, host), InboundMeter::new(bounds));
            let properties = ConnectionProperties::default().with_connection_name(format!("grantonce {name}").into());
            let connected = async {
                let socket = dial(&uri, addr).await?;
                greet(uri.clone(), socket, Arc::clone(&meter), deadline, properties).await
            };
            match BrokerError::within("connecting", deadline, connected).await {
                Ok(connection) => return Ok((Connection { connection, channels: Mutex::default() }, meter)),
                Err(error) => {
                    tracing::debug!(event = "broker_not_reached", host = host.host, %addr, cause = %error);
                    failed = error;
                }
            }
        }
    }
    Err(failed)
}

/// One host of an address, for the client. It is told values, never a text that it would have to read.
fn uri(address: &AmqpAddress, host: &HostPort) -> AMQPUri {
    let userinfo =
        AMQPUserInfo { username: address.user.clone(), password: address.password.expose_secret().to_owned() };
    AMQPUri {
        scheme: if address.is_tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority { userinfo, host: host.host.clone(), port: host.port },
        vhost: address.vhost.clone(),
        query: AMQPQueryString {
            // The broker may want smaller frames, not larger ones: both ends keep whole frames in memory.
            frame_max: Some(address.frame_max_bytes.map_or(FRAME_BYTES_MAX, |bytes| bytes.min(FRAME_BYTES_MAX))),
            channel_max: address.channel_max,
            heartbeat: address.heartbeat_s.or(Some(HEARTBEAT_S)),
            connection_timeout: None,
            auth_mechanism: Some(match address.auth {
                AmqpAuth::Plain => SASLMechanism::Plain,
                AmqpAuth::Amqplain => SASLMechanism::AMQPlain,
            }),
        },
    }
}

/// Opens a channel.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = BrokerError::within("opening a channel", ANSWER_DEADLINE, connection.create_channel()).await?;
    let mut channels = connection.channels.lock().unwrap_or_else(PoisonError::into_inner);
    channels.retain(|channel| channel.status().connected());
    channels.push(channel.clone());
    Ok(channel)
}

/// Closes a channel, on a connection that lives longer. One that does not close goes with its connection.
pub(super) async fn close_channel(channel: &Channel) {
    if channel.status().connected() {
        let closed = channel.close(200, "done".into());
        drop(BrokerError::within("closing a channel", ANSWER_DEADLINE, closed).await);
    }
}

/// Closes a connection politely, or gives up on it.
pub(super) async fn close(connection: &Connection) {
    if let Err(error) = BrokerError::within("closing", ANSWER_DEADLINE, connection.close(200, "done".into())).await {
        tracing::debug!(event = "broker_close_failed", cause = %error);
    }
}

/// Connects once: whether the broker is there and takes this user.
pub async fn reach(url: &Followed<AmqpAddress>) -> Result<(), BrokerError> {
    let connection = connect(url, "check").await?;
    close(&connection).await;
    Ok(())
}

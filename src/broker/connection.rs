//! Makes a connection, with a deadline for every step.

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

/// How long connecting, or any answer of the broker except a confirm, may take.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that is silent for twice this time counts as dead, unless the address sets another heartbeat.
const HEARTBEAT_S: u16 = 10;

/// How many addresses of one host are tried.
const ADDRESSES_MAX: usize = 8;

/// A connection, with the channels that were opened on it.
///
/// A dropped channel is closed some time later. If its connection closes at that moment, the client library reports an
/// error. So the channels are kept until the connection is closed.
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

/// Connects under a name that `rabbitmqctl list_connections` shows. For connections without deliveries.
pub(super) async fn connect(url: &Followed<AmqpAddress>, name: &str) -> Result<Connection, BrokerError> {
    let (connection, _ledger) = connect_within(url, name, Bounds::NONE).await?;
    Ok(connection)
}

/// Connects, and limits the memory for deliveries of this connection. The meter has what the client library does not
/// know about them. The hosts of the address are tried in their order, and each with all its IPv4 and IPv6 addresses.
/// Each try has a deadline.
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

/// One host of an address, for the client library. It is given values, never a text that it would have to parse.
fn uri(address: &AmqpAddress, host: &HostPort) -> AMQPUri {
    let userinfo =
        AMQPUserInfo { username: address.user.clone(), password: address.password.expose_secret().to_owned() };
    AMQPUri {
        scheme: if address.is_tls { AMQPScheme::AMQPS } else { AMQPScheme::AMQP },
        authority: AMQPAuthority { userinfo, host: host.host.clone(), port: host.port },
        vhost: address.vhost.clone(),
        query: AMQPQueryString {
            // The broker may ask for smaller frames, but not for larger ones: both ends keep whole frames in memory.
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

/// Opens a channel on the connection.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, BrokerError> {
    let channel = BrokerError::within("opening a channel", ANSWER_DEADLINE, connection.create_channel()).await?;
    let mut channels = connection.channels.lock().unwrap_or_else(PoisonError::into_inner);
    channels.retain(|channel| channel.status().connected());
    channels.push(channel.clone());
    Ok(channel)
}

/// Closes a channel of a connection that stays open. If the channel does not close, it ends with its connection.
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

/// Connects once, to see whether the broker is there and accepts this user.
pub async fn reach(url: &Followed<AmqpAddress>) -> Result<(), BrokerError> {
    let connection = connect(url, "check").await?;
    close(&connection).await;
    Ok(())
}

//! Making a connection, with a deadline on every step.

use super::error::BrokerError;
use crate::address::{AmqpAddress, AmqpAuth, HostPort};
use crate::followed::Followed;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism};
use lapin::{Channel, Connection, ConnectionProperties};
use secrecy::ExposeSecret as _;
use std::time::Duration;

/// How long connecting, and any single answer of the broker's apart from confirms, may take.
pub(super) const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// A peer that is silent for twice as long is taken for dead, unless the address says otherwise.
const HEARTBEAT_S: u16 = 10;

/// Connects under a name that `rabbitmqctl list_connections` shows.
/// The hosts of the address are tried in their order.
pub(super) async fn connect(url: &Followed<AmqpAddress>, name: &str) -> Result<Connection, BrokerError> {
    let address = url.current();
    let mut connected = Err(BrokerError::NoHost);
    for host in &address.hosts {
        let properties = ConnectionProperties::default().with_connection_name(format!("grantonce {name}").into());
        let deadline = address.connection_timeout.map_or(ANSWER_DEADLINE, |most| most.min(ANSWER_DEADLINE));
        let connecting = Connection::connect_uri(uri(&address, host), properties);
        connected = BrokerError::within("connecting", deadline, connecting).await;
        if connected.is_ok() {
            break;
        }
    }
    connected
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
            frame_max: address.frame_max_bytes,
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
    BrokerError::within("opening a channel", ANSWER_DEADLINE, connection.create_channel()).await
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

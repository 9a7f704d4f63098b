//! The address of RabbitMQ.

use super::text::{after_scheme, checked_host, decoded, encoded, host_and_port, parts, value};
use super::{AddressError, HostPort};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// Ports where none is named.
const PORT: u16 = 5672;
const PORT_TLS: u16 = 5671;

/// User and password where no user is named: those of a fresh RabbitMQ, which lets them in from its own machine only.
const GUEST: &str = "guest";

/// Virtual host where none is named.
const VHOST: &str = "/";

/// AMQP writes its length into one byte.
const VHOST_BYTES_MAX: usize = 255;

/// Least that `channel_max` may be: `check` looks for every exchange and queue on a channel of its own, up to 18 of them.
const CHANNELS_MIN: u16 = 32;

/// Least that `frame_max` may be: what RabbitMQ 4 can be set to at least, and what every copy that we publish fits into.
const FRAME_BYTES_MIN: u32 = 8192;

/// The parameters that are known.
const KNOWN: [&str; 5] = ["heartbeat", "connection_timeout", "channel_max", "frame_max", "auth_mechanism"];

const TRUST: &str = "amqps:// trusts the machine's certificates, or those of the file in SSL_CERT_FILE";
const NO_CLIENT_CERTIFICATE: &str = "clients prove themselves by user and password";

/// Parameters of RabbitMQ's other clients, and what there is in their place.
const UNSUPPORTED: [(&str, &str); 9] = [
    ("cacertfile", TRUST),
    ("cacerts", TRUST),
    ("verify", TRUST),
    ("depth", TRUST),
    ("server_name_indication", "the name of the host is checked"),
    ("certfile", NO_CLIENT_CERTIFICATE),
    ("keyfile", NO_CLIENT_CERTIFICATE),
    ("password", NO_CLIENT_CERTIFICATE),
    ("fail_if_no_peer_cert", NO_CLIENT_CERTIFICATE),
];

/// How to reach RabbitMQ: `amqp://user:password@host1:5672,[2001:db8::1]:5672/vhost?heartbeat=10`. Its `Debug` shows
/// hosts only.
#[derive(Clone)]
pub struct AmqpAddress {
    /// Whether TLS is spoken (`amqps://`).
    pub is_tls: bool,
    /// The nodes, to be tried in this order. At least one.
    pub hosts: Vec<HostPort>,
    /// The user that connects.
    pub user: String,
    /// The password of the user.
    pub password: SecretString,
    /// `/` where the address names none: `amqp://host` and `amqp://host/` mean the same.
    pub vhost: String,
    /// Seconds between heartbeats; 0 switches them off.
    pub heartbeat_s: Option<u16>,
    /// How long reaching one host may take.
    pub connection_timeout: Option<Duration>,
    /// Most channels of one connection; 0 leaves it to the server.
    pub channel_max: Option<u16>,
    /// Largest frame, in bytes; 0 leaves it to the server.
    pub frame_max_bytes: Option<u32>,
    /// How user and password are sent.
    pub auth: AmqpAuth,
}

/// How user and password are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AmqpAuth {
    /// The mechanism `PLAIN`, the default.
    #[default]
    Plain,
    /// The mechanism `AMQPLAIN`, an older one.
    Amqplain,
}

impl AmqpAddress {
    /// The same server and user, another virtual host.
    #[must_use]
    pub fn with_vhost(&self, vhost: &str) -> Self {
        Self { vhost: vhost.to_owned(), ..self.clone() }
    }

    /// As a text that reads back as the same address.
    pub fn url(&self) -> SecretString {
        let scheme = if self.is_tls { "amqps" } else { "amqp" };
        let (user, password) = (encoded(&self.user), encoded(self.password.expose_secret()));
        let hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        let mut parameters = vec![];
        parameters.extend(self.heartbeat_s.map(|s| format!("heartbeat={s}")));
        parameters.extend(self.connection_timeout.map(|wait| format!("connection_timeout={}", wait.as_millis())));
        parameters.extend(self.channel_max.map(|most| format!("channel_max={most}")));
        parameters.extend(self.frame_max_bytes.map(|most| format!("frame_max={most}")));
        if self.auth == AmqpAuth::Amqplain {
            parameters.push("auth_mechanism=amqplain".to_owned());
        }
        let question = if parameters.is_empty() { "" } else { "?" };
        let (hosts, vhost, parameters) = (hosts.join(","), encoded(&self.vhost), parameters.join("&"));
        format!("{scheme}://{user}:{password}@{hosts}/{vhost}{question}{parameters}").into()
    }
}

impl fmt::Debug for AmqpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AmqpAddress").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl FromStr for AmqpAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = after_scheme(text, &["amqp", "amqps"], "amqp:// or amqps://")?;
        let is_tls = scheme == "amqps";
        let parts = parts(rest)?;
        let (user, password) = match (parts.user, parts.password) {
            (Some(user), Some(password)) => (user, password),
            (None, None) => (GUEST.to_owned(), GUEST.to_owned()),
            (Some(_), None) => return Err(AddressError::Credentials { named: "user", missing: "password" }),
            (None, Some(_)) => return Err(AddressError::Credentials { named: "password", missing: "user" }),
        };
        if parts.hosts.is_empty() {
            return Err(AddressError::NoHost);
        }
        let default_port = if is_tls { PORT_TLS } else { PORT };
        let host = |(number, entry): (usize, &str)| {
            let (host, port) = host_and_port(number, entry)?;
            Ok(HostPort { host: checked_host(number, host)?, port: port.unwrap_or(default_port) })
        };
        let hosts = (1..).zip(parts.hosts.split(',')).map(host).collect::<Result<_, AddressError>>()?;
        let mut address = Self {
            is_tls,
            hosts,
            user,
            password: password.into(),
            vhost: match decoded("virtual host", parts.path)? {
                none if none.is_empty() => VHOST.to_owned(),
                // The client library panics at it.
                long if long.len() > VHOST_BYTES_MAX => {
                    return Err(AddressError::TooLong { part: "virtual host", bytes_max: VHOST_BYTES_MAX });
                }
                vhost => vhost,
            },
            heartbeat_s: None,
            connection_timeout: None,
            channel_max: None,
            frame_max_bytes: None,
            auth: AmqpAuth::default(),
        };
        let mut seen = vec![];
        for (number, (raw, text)) in (1..).zip(parts.parameters) {
            let name = known(number, raw)?;
            if seen.contains(&name) {
                return Err(AddressError::Twice { name });
            }
            seen.push(name);
            address.set(name, &value(name, text)?)?;
        }
        Ok(address)
    }
}

fn known(number: usize, raw: &str) -> Result<&'static str, AddressError> {
    if let Some((name, instead)) = UNSUPPORTED.iter().find(|(name, _)| *name == raw) {
        return Err(AddressError::Unsupported { name, instead });
    }
    let known = || AddressError::Unknown { number, known: KNOWN.join(", ") };
    KNOWN.into_iter().find(|name| *name == raw).ok_or_else(known)
}

impl AmqpAddress {
    fn set(&mut self, name: &'static str, text: &str) -> Result<(), AddressError> {
        match name {
            "heartbeat" => self.heartbeat_s = Some(number(name, text, 0..=u16::MAX, "seconds")?),
            "connection_timeout" => {
                let ms = number(name, text, 1..=600_000, "milliseconds")?;
                self.connection_timeout = Some(Duration::from_millis(ms));
            }
            "channel_max" if text == "0" => self.channel_max = Some(0),
            "channel_max" => {
                self.channel_max = Some(number(name, text, CHANNELS_MIN..=u16::MAX, "channels, or 0 for no limit")?);
            }
            "frame_max" if text == "0" => self.frame_max_bytes = Some(0),
            "frame_max" => {
                self.frame_max_bytes = Some(number(name, text, FRAME_BYTES_MIN..=u32::MAX, "bytes, or 0 for no limit")?)
            }
            // What is left of KNOWN.
            _auth_mechanism => {
                self.auth = match text.to_ascii_lowercase().as_str() {
                    "plain" => AmqpAuth::Plain,
                    "amqplain" => AmqpAuth::Amqplain,
                    _ => return Err(AddressError::Value { name, demand: "must be plain or amqplain".to_owned() }),
                }
            }
        }
        Ok(())
    }
}

fn number<T>(name: &'static str, text: &str, range: RangeInclusive<T>, unit: &str) -> Result<T, AddressError>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    let demand = || format!("must be a whole number from {} to {}, in {unit}", range.start(), range.end());
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| AddressError::Value { name, demand: demand() })
}

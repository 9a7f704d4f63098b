//! The addresses of RabbitMQ and Postgres, taken apart once, when the configuration is read. The clients of both servers
//! are given values and never the text, so that they cannot understand it in another way: connect to another host, skip
//! a setting that they do not know, or log it.

mod amqp;
mod database;
mod error;
mod text;

pub use amqp::{AmqpAddress, AmqpAuth};
pub use database::{DatabaseAddress, DatabaseHost, DatabaseTls, SessionAttributes};
pub use error::AddressError;
pub use text::{decoded, encoded};

use std::fmt;
use std::net::Ipv6Addr;

/// One host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port, which is never 0.
    pub port: u16,
}

/// As it stands in an address: an IPv6 address has brackets.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.parse::<Ipv6Addr>().is_ok() { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

#[cfg(test)]
mod tests;

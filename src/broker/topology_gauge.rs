//! Checks again and again on one connection whether the exchanges and queues exist.

use super::connection::{Connection, close, connect};
use super::error::BrokerError;
use super::topology::look_for_all;
use crate::address::AmqpAddress;
use crate::config::RetryDelay;
use crate::followed::Followed;

/// Checks the topology on one connection.
#[derive(Debug)]
pub struct TopologyGauge {
    url: Followed<AmqpAddress>,
    delays: Vec<RetryDelay>,
    connection: Option<Connection>,
}

impl TopologyGauge {
    /// Connects at the first question.
    pub fn new(url: Followed<AmqpAddress>, delays: Vec<RetryDelay>) -> Self {
        Self { url, delays, connection: None }
    }

    /// The missing ones, each in a few words. After an error the next call connects again.
    pub async fn read(&mut self) -> Result<Vec<String>, BrokerError> {
        let connection = match self.connection.take() {
            Some(connection) if connection.status().connected() => connection,
            Some(_) | None => connect(&self.url, "topology").await?,
        };
        let found = look_for_all(&connection, &self.delays).await;
        match found {
            Ok(_) => self.connection = Some(connection),
            Err(_) => close(&connection).await,
        }
        Ok(found?.into_iter().map(|fault| fault.to_string()).collect())
    }
}

//! How much lies in the queues, and who takes it: what AMQP itself tells, without the management API.

use super::connection::{ANSWER_DEADLINE, Connection, channel, close, close_channel, connect};
use super::error::BrokerError;
use super::topology::{DEAD_QUEUE, HINTS_QUEUE, WORK_QUEUE};
use crate::address::AmqpAddress;
use crate::followed::Followed;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

/// One queue, as the broker tells of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    /// Messages that are ready; those that somebody has in hand are not counted.
    pub ready: u32,
    /// Who consumes.
    pub consumers: u32,
}

/// The queues that operators watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Depths {
    /// Of the workers' queue.
    pub fulfilment: Depth,
    /// Of the hints.
    pub hints: Depth,
    /// Of the dead letters' buffer.
    pub dead: Depth,
}

/// Asks again and again, by one connection.
#[derive(Debug)]
pub struct DepthGauge {
    url: Followed<AmqpAddress>,
    connection: Option<Connection>,
}

impl DepthGauge {
    /// Connects when it is first asked.
    pub fn new(url: Followed<AmqpAddress>) -> Self {
        Self { url, connection: None }
    }

    /// Asks. After an error the next call connects anew.
    pub async fn read(&mut self) -> Result<Depths, BrokerError> {
        let connection = match self.connection.take() {
            Some(connection) if connection.status().connected() => connection,
            Some(_) | None => connect(&self.url, "queue depths").await?,
        };
        let depths = async {
            Ok(Depths {
                fulfilment: depth(&connection, WORK_QUEUE).await?,
                hints: depth(&connection, HINTS_QUEUE).await?,
                dead: depth(&connection, DEAD_QUEUE).await?,
            })
        };
        let depths = depths.await;
        match depths {
            Ok(_) => self.connection = Some(connection),
            Err(_) => close(&connection).await,
        }
        depths
    }

    /// Closes the connection.
    pub async fn close(self) {
        if let Some(connection) = self.connection {
            close(&connection).await;
        }
    }
}

async fn depth(connection: &Connection, queue: &str) -> Result<Depth, BrokerError> {
    const WHAT: &str = "asking for a queue's depth";
    // A queue that is not there closes the channel: one each.
    let channel = channel(connection).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let asked = channel.queue_declare(queue.into(), options, FieldTable::default());
    let found = BrokerError::within(WHAT, ANSWER_DEADLINE, asked).await?;
    close_channel(&channel).await;
    Ok(Depth { ready: found.message_count(), consumers: found.consumer_count() })
}

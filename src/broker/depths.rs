//! How many messages and consumers the queues have, by AMQP alone and without the management API.

use super::connection::{ANSWER_DEADLINE, Connection, channel, close, close_channel, connect};
use super::error::BrokerError;
use super::topology::{DEAD_QUEUE, HINTS_QUEUE, WORK_QUEUE};
use crate::address::AmqpAddress;
use crate::followed::Followed;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;

/// One queue, as the broker describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Depth {
    /// Messages that are ready. Deliveries in hand do not count.
    pub ready: u32,
    /// The number of consumers.
    pub consumers: u32,
}

/// The queues that operators watch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Depths {
    /// The work queue of the workers.
    pub fulfilment: Depth,
    /// The queue of the hints.
    pub hints: Depth,
    /// The queue of the dead letters.
    pub dead: Depth,
}

/// Asks again and again on one connection.
#[derive(Debug)]
pub struct DepthGauge {
    url: Followed<AmqpAddress>,
    connection: Option<Connection>,
}

impl DepthGauge {
    /// Connects at the first question.
    pub fn new(url: Followed<AmqpAddress>) -> Self {
        Self { url, connection: None }
    }

    /// Asks once. After an error the next call connects again.
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

    /// Closes the connection to the broker.
    pub async fn close(self) {
        if let Some(connection) = self.connection {
            close(&connection).await;
        }
    }
}

async fn depth(connection: &Connection, queue: &str) -> Result<Depth, BrokerError> {
    const WHAT: &str = "asking for a queue's depth";
    // A missing queue closes the channel, so each queue is asked on its own channel.
    let channel = channel(connection).await?;
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let asked = channel.queue_declare(queue.into(), options, FieldTable::default());
    let found = BrokerError::within(WHAT, ANSWER_DEADLINE, asked).await?;
    close_channel(&channel).await;
    Ok(Depth { ready: found.message_count(), consumers: found.consumer_count() })
}

//! The only user of RabbitMQ: connections, topology, a publisher that waits for confirms, and a consumer of batches.
//!
//! The automatic recovery of the client library is not used: after a channel error its consumers can hang forever. A
//! connection here ends at its first error, and its user makes a new one.

mod ability;
mod alarm;
mod connection;
mod consumer;
mod depths;
mod error;
mod headers;
mod intake;
mod management;
mod outgoing;
mod peek;
mod publisher;
mod rights;
mod survey;
mod topology;
mod topology_gauge;
mod transport;

pub use ability::Ability;
pub use connection::reach;
pub use consumer::{Acknowledger, Consumer, Delivery, Durable, LETTER_BODY_BYTES_MAX, Unreadable, Window};
pub use depths::{Depth, DepthGauge, Depths};
pub use error::BrokerError;
pub use headers::{Death, HeaderValue, Headers};
pub use intake::{BatchResult, Intake};
pub use management::{Compared, Management, QueueFacts};
pub use outgoing::Letter;
pub use peek::{PeekError, peek};
pub use publisher::{Confirmed, Outgoing, PublishError, Publisher, PublisherSettings};
pub use rights::{Tried, User, try_rights};
pub use topology::{
    DEAD_EXCHANGE, DEAD_QUEUE, DELIVERY_LIMIT, HINTS_EXCHANGE, HINTS_QUEUE, PAYMENTS_EXCHANGE, RETRY_EXCHANGE,
    WORK_QUEUE, declare, inspect, retry_queue,
};
pub use topology_gauge::TopologyGauge;

//! A place of its own for every test: a database and a virtual host on the real servers, removed at the end, also of a
//! test that fails.

pub mod balancer;
pub mod collector;
pub mod db;
pub mod messages;
pub mod pgbouncer;
pub mod proxy;
pub mod raw_amqp;
pub mod servers;
pub mod standby;
pub mod traffic;
pub mod world;

pub use collector::{Collector, Told};
pub use grantonce_testkit::wait::{eventually, eventually_within};
pub use messages::{captured, event_for, stripe_webhook};
pub use pgbouncer::PgBouncer;
pub use proxy::Proxy;
pub use servers::{PrivateServers, Server};
pub use standby::Standby;
pub use traffic::{Answer, Poster, Traffic, paid};
pub use world::{OrderSpec, RunningWorker, World};

/// How long the tests' own batches wait for a locked row: until the connection's own time is over.
pub const LOCK_WAIT: std::time::Duration = std::time::Duration::from_secs(5);

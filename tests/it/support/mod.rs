//! Each test has its own database and virtual host on the real servers. They are removed at the end, even if the test fails.

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

/// How the tests' own batches are written. They wait for locks as long as the deadline of a connection.
pub const APPLYING: grantonce::store::ApplyOptions =
    grantonce::store::ApplyOptions { lock_wait: Some(std::time::Duration::from_secs(5)), announces: false };

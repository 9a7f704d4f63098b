//! The one way to serve HTTP: a listener with bounds, bodies with bounds, and errors that are all of one form. And the one
//! way to begin a client.

mod bearer;
mod body;
mod client;
mod health;
mod problem;
mod server;

pub use bearer::BearerTokens;
pub use body::{read_body, read_json};
pub use client::{client, plain_client, system_roots};
pub use health::{Readiness, ReadinessFlag, health_router, metrics_router};
pub use problem::{FieldProblem, Problem};
pub use server::{BindError, CONNECTIONS_MAX, HEADER_READ_SECONDS_MAX, Limits, Listener, bind, serve};

#[cfg(test)]
mod tests;

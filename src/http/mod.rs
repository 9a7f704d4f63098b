//! The one way to serve HTTP: a listener with bounds, bodies with bounds, and errors of one form. And the one way to
//! make a client.

mod bearer;
mod body;
mod client;
mod health;
mod html;
mod problem;
mod query;
mod server;
mod waiting;

pub use bearer::{BearerTokens, keyed};
pub use body::{read_body, read_json};
pub use client::{client, plain_client, system_roots};
pub use health::{Missing, NeedFlag, Needs, Readiness, health_router, metrics_router};
pub(crate) use html::{Html, asset, html, see};
pub use problem::{FieldProblem, Problem};
pub(crate) use query::{FAULTS_MAX, Parameters};
pub use server::{
    BindError, CONNECTIONS_MAX, HEADER_READ_SECONDS_MAX, KEEP_ALIVE_DEFAULT, Limits, Listener, bind, serve,
};

#[cfg(test)]
mod tests;

//! grantonce: payment webhooks go in, credits come out, and each payment grants its credits exactly once.
//!
//! The rooms, in the order that data flows, are told in `ARCHITECTURE.md`.

#[macro_use]
mod named;

pub mod address;
pub mod api;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod code;
pub mod config;
pub mod domain;
pub mod failpoint;
pub mod findings;
pub mod followed;
pub mod http;
pub mod message;
pub mod needs;
pub mod ops;
pub mod provider;
pub mod publishing;
pub mod receiver;
pub mod reconciler;
pub mod retry;
pub mod role;
mod run;
pub mod shutdown;
pub mod store;
pub mod telemetry;
pub mod webhook;
pub mod worker;

pub use code::{Code, Exit};
pub use named::NoSuchName;
pub use run::{Job, RunError, print, run};

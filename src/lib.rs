//! grantonce: payment webhooks go in, credits come out, and each payment grants its credits exactly once.
//!
//! The rooms, in the order that data flows, are told in `ARCHITECTURE.md`.

pub mod domain;
pub mod message;
pub mod sim;
pub mod store;

//! The program as its users meet it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    unreachable_pub,
    reason = "a test may panic"
)]

mod command_line;
mod outage;
mod store;
mod support;
mod worker;

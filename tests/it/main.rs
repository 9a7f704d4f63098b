//! The program on real servers, as its users see it. Every test has its own database and virtual host.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test that cannot go on says so by failing"
)]

mod addresses;
mod amend;
mod api;
mod bench;
mod broker;
mod cases;
mod check;
mod command_line;
mod connecting;
mod console;
mod contract;
mod crash;
mod docs;
mod events;
mod explain;
mod faults;
mod forget;
mod house;
mod letters;
mod logs;
mod monitoring;
mod outage;
mod paypal;
mod quickstart;
mod readiness;
mod readme;
mod receiver;
mod reconciler;
mod rights;
mod rolling;
mod runbook;
mod secrets;
mod separated;
mod store;
mod support;
mod terms;
mod traces;
mod unreadable;
mod worker;

//! Tests of the program against real servers. `DATABASE_URL` must name a Postgres on which databases may be created:
//! every test makes one of its own and drops it at the end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that cannot go on says so by failing"
)]

mod api;
mod support;

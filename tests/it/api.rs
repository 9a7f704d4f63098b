//! The API over real HTTP, on a database of each test's own.

mod accounts;
mod checking;
pub(crate) mod contract;
mod creating;
mod outage;
mod paying;
mod reading;
mod server;
mod terms;
mod waiting;

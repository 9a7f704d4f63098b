//! The API over real HTTP, on a database of each test's own.

mod accounts;
mod checking;
pub(crate) mod contract;
mod creating;
mod outage;
mod paying;
mod reading;
pub(crate) mod server;
mod terms;
pub(crate) mod waiting;

pub(crate) use server::Api;

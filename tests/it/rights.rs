//! The rights that `deploy/` grants are enough for each role, and no more.

mod postgres;
mod rabbitmq;

use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

/// Returns an environment variable with the address of a server.
fn server(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: the tests need Postgres and RabbitMQ"))
}

/// A word that no other test uses, in this process or another.
fn unique() -> String {
    let id = uuid::Uuid::now_v7().simple().to_string();
    id[16..].to_owned()
}

/// Runs a test and then its clean-up, also if the test fails.
async fn with_cleanup(test: impl Future<Output = ()>, cleanup: impl Future<Output = ()>) {
    let ended = AssertUnwindSafe(test).catch_unwind().await;
    cleanup.await;
    if let Err(panic) = ended {
        std::panic::resume_unwind(panic);
    }
}

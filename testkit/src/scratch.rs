//! A database and a virtual host that live for one run of the demo, or for one test. Each run has its own, so that it does
//! not disturb what else is on the servers.

mod postgres;
mod rabbitmq;

pub use postgres::{ScratchError, create_database, drop_database};
pub use rabbitmq::{Management, ManagementError};

use sha2::{Digest as _, Sha256};

/// A name for a database and a virtual host that nobody else has: `<prefix>_` and twelve hex digits.
pub fn unique_name(prefix: &str) -> String {
    let secret = secret();
    format!("{prefix}_{}", secret.get(..12).unwrap_or(&secret))
}

/// 64 hex digits that nobody can guess.
pub fn secret() -> String {
    // Two UUIDs have 148 random bits from the operating system between them.
    let mut digest = Sha256::new();
    digest.update(uuid::Uuid::now_v7());
    digest.update(uuid::Uuid::now_v7());
    hex::encode(digest.finalize())
}

/// The URL with another path: another database, another virtual host. None where the text is no URL of that scheme.
fn with_path(url: &str, schemes: &[&str], path: &str) -> Option<reqwest::Url> {
    let mut url = reqwest::Url::parse(url).ok().filter(|url| schemes.contains(&url.scheme()) && url.has_host())?;
    url.set_path(path);
    Some(url)
}

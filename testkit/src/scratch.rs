//! A database and a virtual host for one run of the demo or for one test. Each run has its own, so it does not disturb other data
//! on the servers.

mod postgres;
mod rabbitmq;

pub use postgres::{ScratchError, create_database, drop_database};
pub use rabbitmq::{Management, ManagementError};

use sha2::{Digest as _, Sha256};

/// A unique name for a database and a virtual host: `<prefix>_` and twelve hex digits.
pub fn unique_name(prefix: &str) -> String {
    let secret = secret();
    format!("{prefix}_{}", secret.get(..12).unwrap_or(&secret))
}

/// 64 random hex digits that cannot be guessed.
pub fn secret() -> String {
    // Together, the two UUIDs have 148 random bits from the operating system.
    let mut digest = Sha256::new();
    digest.update(uuid::Uuid::now_v7());
    digest.update(uuid::Uuid::now_v7());
    hex::encode(digest.finalize())
}

/// The URL with another path, which is the database or the virtual host. `None` if the text is no URL with one of the schemes.
fn with_path(url: &str, schemes: &[&str], path: &str) -> Option<reqwest::Url> {
    let mut url = reqwest::Url::parse(url).ok().filter(|url| schemes.contains(&url.scheme()) && url.has_host())?;
    url.set_path(path);
    Some(url)
}

//! The one maker of HTTP clients: with which cryptography they speak, and whom they trust.
//!
//! reqwest comes without a crypto library of its own (`rustls-no-provider`): with one there would be a second in the
//! binary, besides the `ring` by which Postgres and RabbitMQ are spoken to. A client that was begun in another way would
//! panic for want of one; `tests/it/house.rs` looks for it.

use reqwest::ClientBuilder;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// Begins a client for `http://`. It trusts nobody, so that nothing goes over TLS.
pub fn plain_client() -> ClientBuilder {
    client(RootCertStore::empty())
}

/// Begins a client that trusts whom these certificates vouch for.
pub fn client(roots: RootCertStore) -> ClientBuilder {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    match config.with_safe_default_protocol_versions() {
        Ok(config) => reqwest::Client::builder()
            .tls_backend_preconfigured(config.with_root_certificates(roots).with_no_client_auth()),
        // Not with ring, which has ciphers for every version. What is no TLS is refused by `build`.
        Err(error) => reqwest::Client::builder().tls_backend_preconfigured(error),
    }
}

/// Those that the system trusts; `SSL_CERT_FILE` and `SSL_CERT_DIR` decide where they are looked for. Reads files.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Single files that cannot be read are no reason to refuse the others.
    let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_needs_no_crypto_library_of_the_process() {
        for begun in [plain_client(), client(system_roots()).https_only(true)] {
            assert!(begun.build().is_ok());
        }
    }
}

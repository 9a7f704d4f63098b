//! The only maker of HTTP clients. It sets their cryptography and the certificates that they trust.
//!
//! reqwest is built without a crypto library (`rustls-no-provider`). Otherwise the binary would contain a second one
//! besides `ring`, which the connections to Postgres and RabbitMQ use. A client that is made in another way would
//! panic; `tests/it/house.rs` searches for such clients.

use reqwest::ClientBuilder;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// Begins a client for `http://`. It trusts no certificate, so nothing goes over TLS.
pub fn plain_client() -> ClientBuilder {
    client(RootCertStore::empty())
}

/// Begins a client that trusts the holders of these certificates.
pub fn client(roots: RootCertStore) -> ClientBuilder {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    match config.with_safe_default_protocol_versions() {
        Ok(config) => reqwest::Client::builder()
            .tls_backend_preconfigured(config.with_root_certificates(roots).with_no_client_auth()),
        // This cannot happen with ring, which has ciphers for every version. `build` refuses other configurations.
        Err(error) => reqwest::Client::builder().tls_backend_preconfigured(error),
    }
}

/// The certificates that the system trusts. `SSL_CERT_FILE` and `SSL_CERT_DIR` set their place. It reads files.
pub fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // If a single file cannot be read, the others still count.
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

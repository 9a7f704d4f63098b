//! HTTP clients. In this workspace reqwest has no crypto library of its own, so each client gets one here.

use reqwest::ClientBuilder;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use std::sync::Arc;

/// Builds a client for `http://`. It trusts no certificate.
pub fn plain_client() -> ClientBuilder {
    client(RootCertStore::empty())
}

/// Builds a client that trusts the certificates of the system.
pub fn client_of_system() -> ClientBuilder {
    let mut roots = RootCertStore::empty();
    let (_added, _ignored) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    client(roots)
}

fn client(roots: RootCertStore) -> ClientBuilder {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    match config.with_safe_default_protocol_versions() {
        Ok(config) => reqwest::Client::builder()
            .tls_backend_preconfigured(config.with_root_certificates(roots).with_no_client_auth()),
        // This does not happen with ring. `build` refuses a value that is no TLS configuration.
        Err(error) => reqwest::Client::builder().tls_backend_preconfigured(error),
    }
}

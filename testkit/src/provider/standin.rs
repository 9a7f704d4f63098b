//! The simulated provider alone, for tests of code that calls it.

use super::courier::{Courier, Secrets};
use super::{Provider, Settings, http};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A simulated provider that listens on loopback until it is dropped. Its webhooks go nowhere: it is for code that asks, not for
/// code that receives.
#[derive(Debug)]
pub struct Standin {
    /// The base URL: `http://host:port`.
    pub base: String,
    /// The address of the base URL.
    pub address: SocketAddr,
    /// The provider, for the actions of buyers, sellers and banks.
    pub provider: Provider,
    stop: DropGuard,
    served: JoinHandle<std::io::Result<()>>,
}

impl Standin {
    /// Starts a provider at a free address.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// Stops the provider. Its address is free afterwards.
    pub async fn stop(self) {
        drop(self.stop);
        // A regular stop would wait for idle connections of clients.
        self.served.abort();
        let _ = self.served.await;
    }

    /// Starts a provider at an address.
    pub async fn start_at(address: SocketAddr) -> std::io::Result<Self> {
        let stop = CancellationToken::new();
        let secrets = Secrets { stripe: String::new(), standard: String::new() };
        let courier = Courier::new("http://127.0.0.1:1".to_owned(), secrets, Duration::ZERO);
        let courier = courier.map_err(std::io::Error::other)?;
        let settings = Settings { seed: 7, copies: 1, run: "test".to_owned(), is_faulty: false };
        let provider = Provider::new(settings, courier, stop.clone());
        let router = http::router(provider.clone());
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let stopped = stop.clone().cancelled_owned();
        let served = tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stopped).await });
        Ok(Self { base: format!("http://{address}"), address, provider, stop: stop.drop_guard(), served })
    }
}

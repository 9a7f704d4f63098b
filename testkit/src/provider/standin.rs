//! The simulated provider by itself, for tests of what calls it.

use super::courier::{Courier, Secrets};
use super::{Provider, Settings, http};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A simulated provider that listens on loopback until it is dropped. Its webhooks go nowhere: it is for what asks, not for
/// what listens.
#[derive(Debug)]
pub struct Standin {
    /// `http://host:port`
    pub base: String,
    /// The same.
    pub address: SocketAddr,
    /// What buyers, sellers and banks do there.
    pub provider: Provider,
    stop: DropGuard,
    served: JoinHandle<std::io::Result<()>>,
}

impl Standin {
    /// Starts one.
    pub async fn start() -> std::io::Result<Self> {
        Self::start_at(([127, 0, 0, 1], 0).into()).await
    }

    /// Ends it; its address is free afterwards.
    pub async fn stop(self) {
        drop(self.stop);
        // It waits for connections that clients keep open, and they are of no use to anyone any more.
        self.served.abort();
        let _ = self.served.await;
    }

    /// Starts one at an address.
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

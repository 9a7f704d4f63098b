//! The listener: as many connections as are allowed, each with a deadline for its headers, and an end that lets
//! requests in flight finish.

use super::problem::Problem;
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::StatusCode;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::layer::layer_fn;
use tower::{Service, ServiceExt as _};

/// Most open connections of one listener, where nothing else is said.
pub const CONNECTIONS_MAX: usize = 10_000;

/// How long a client may take for a request's headers, in seconds; also how long an idle connection is kept.
pub const HEADER_READ_SECONDS_MAX: u64 = 10;

/// How long requests in flight may take once shutdown is requested, in seconds.
const DRAIN_SECONDS_MAX: u64 = 10;

/// How long accepting pauses when the process has no file descriptors left, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;

/// The route of requests that match none.
const NO_ROUTE: &str = "none";

/// Bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a client may take for a request's headers, and how long an idle connection is kept.
    pub header_read: Duration,
    /// Most open connections. Over it, further ones wait to be accepted.
    pub connections_max: usize,
    /// How long requests in flight may take once shutdown is requested; they are dropped then.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(HEADER_READ_SECONDS_MAX),
            connections_max: CONNECTIONS_MAX,
            drain: Duration::from_secs(DRAIN_SECONDS_MAX),
        }
    }
}

type OnResponse = Arc<dyn Fn(&str, StatusCode) + Send + Sync>;

/// An address that is bound and not served yet.
pub struct Listener {
    name: &'static str,
    tcp: TcpListener,
    local_addr: SocketAddr,
    on_response: Option<OnResponse>,
}

/// An address could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{name} cannot listen at {address}")]
pub struct BindError {
    /// The listener's name.
    pub name: &'static str,
    /// The address.
    pub address: SocketAddr,
    /// What the system says.
    pub source: io::Error,
}

/// Binds an address. `name` is the listener's in the log; port 0 takes a free one.
pub async fn bind(name: &'static str, address: SocketAddr) -> Result<Listener, BindError> {
    let failed = |source| BindError { name, address, source };
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    let local_addr = tcp.local_addr().map_err(failed)?;
    Ok(Listener { name, tcp, local_addr, on_response: None })
}

impl Listener {
    /// The address that was bound, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Calls `hook` with the route's pattern and the status of every answer. Requests that match no route have the
    /// route `none`, so that clients cannot make up any.
    #[must_use]
    pub fn on_response(mut self, hook: impl Fn(&str, StatusCode) + Send + Sync + 'static) -> Self {
        self.on_response = Some(Arc::new(hook));
        self
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listener({} at {})", self.name, self.local_addr)
    }
}

/// Serves until shutdown is requested; the task ends when the last connection is closed. Unknown paths and methods
/// are answered with a [`Problem`].
pub fn serve(listener: Listener, router: Router, limits: Limits, shutdown: CancellationToken) -> JoinHandle<()> {
    let Listener { name, tcp, local_addr, on_response } = listener;
    let mut router = router
        .fallback(async || Problem::not_found("there is nothing at this path"))
        .method_not_allowed_fallback(async || Problem::method_not_allowed());
    if let Some(hook) = on_response {
        router = router.layer(layer_fn(move |inner| Reporting { inner, hook: Arc::clone(&hook) }));
    }
    tracing::info!(event = "listening", listener = name, address = %local_addr, "listening");
    tokio::spawn(accept_until(name, tcp, router, limits, shutdown))
}

/// Tells of every answer. Not axum's `from_fn`, which clones and boxes the inner service anew for each request.
#[derive(Clone)]
struct Reporting<S> {
    inner: S,
    hook: OnResponse,
}

impl<S> Service<Request> for Reporting<S>
where
    S: Service<Request, Response = Response>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>().cloned();
        let hook = Arc::clone(&self.hook);
        let answering = self.inner.call(request);
        Box::pin(async move {
            let response = answering.await?;
            hook(route.as_ref().map_or(NO_ROUTE, MatchedPath::as_str), response.status());
            Ok(response)
        })
    }
}

async fn accept_until(
    name: &'static str,
    tcp: TcpListener,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    // A bound of zero would wait for ever, one above what a semaphore takes would panic.
    let slots = Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&tcp, &slots) => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((stream, slot)) => {
                connections.spawn(serve_connection(name, stream, slot, router.clone(), limits, shutdown.clone()));
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(event = "accept_failed", listener = name, cause = %error, "cannot accept");
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(ACCEPT_PAUSE_MS)) => {}
                    () = shutdown.cancelled() => break,
                }
            }
        }
    }
    // Closed before the wait: who comes now is refused, and finds another process.
    drop(tcp);
    connections.close();
    connections.wait().await;
    tracing::info!(event = "listener_closed", listener = name, "closed");
}

/// The slot comes first: over the bound, connections wait in the system's queue and cost us nothing.
async fn accept(tcp: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _peer) = tcp.accept().await?;
    Ok((stream, slot))
}

/// Whether accepting failed because of the client that was to be accepted.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    [ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted].contains(&error.kind())
}

async fn serve_connection(
    name: &'static str,
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    router: Router,
    limits: Limits,
    shutdown: CancellationToken,
) {
    // Answers are short: do not wait to fill a packet. A failure costs only time.
    let _ = stream.set_nodelay(true);
    let service = TowerToHyperService::new(router.map_request(|request: Request<Incoming>| request.map(Body::new)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.header_read)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(limits.drain, connection).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    tracing::warn!(event = "request_dropped", listener = name, "a request did not end in time");
                    Ok(())
                }
            }
        }
    };
    if let Err(error) = outcome {
        // Clients break off, are too slow, or send no HTTP: their trouble, not an operator's.
        tracing::debug!(event = "connection_failed", listener = name, cause = %error, "connection failed");
    }
    drop(slot);
}

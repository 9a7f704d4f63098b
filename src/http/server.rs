//! The listener. It bounds the number of connections, gives each a deadline for what it waits for, and finishes
//! requests in flight at the end.

use super::problem::Problem;
use super::waiting::{Waiting, WaitingSince, Watched, overdue};
use crate::shutdown::Shutdown;
use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
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
use tokio_util::task::TaskTracker;
use tower::layer::layer_fn;
use tower::{Service, ServiceExt as _};

/// The most open connections of one listener by default.
pub const CONNECTIONS_MAX: usize = 10_000;

/// How long a client may take for the headers of a request, in seconds.
pub const HEADER_READ_SECONDS_MAX: u64 = 10;

/// How long an idle connection is kept by default. Load balancers keep one for 60 s and must close first: if we close a
/// connection while a request is on its way, the request is lost.
pub const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(75);

/// How long an idle connection is kept after the process was told to stop. A request on its way is answered.
const LINGER_DEFAULT: Duration = Duration::from_secs(1);

/// How long accepting pauses while the process has no free file descriptor, in milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;

/// The route of requests that match no route.
const NO_ROUTE: &str = "none";

/// The bounds of one listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long a client may take for the headers of a request, counted from their first byte, or from the beginning of
    /// the connection.
    pub header_read: Duration,
    /// How long an idle connection is kept between two requests.
    pub keep_alive: Duration,
    /// How long an idle connection is kept after the process was told to stop.
    pub linger: Duration,
    /// The most open connections. Further ones wait to be accepted.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(HEADER_READ_SECONDS_MAX),
            keep_alive: KEEP_ALIVE_DEFAULT,
            linger: LINGER_DEFAULT,
            connections_max: CONNECTIONS_MAX,
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
    /// The name of the listener.
    pub name: &'static str,
    /// The address that could not be bound.
    pub address: SocketAddr,
    /// The error of the system.
    pub source: io::Error,
}

/// Binds an address. `name` is the name of the listener in the log. Port 0 takes a free port.
pub async fn bind(name: &'static str, address: SocketAddr) -> Result<Listener, BindError> {
    let failed = |source| BindError { name, address, source };
    let tcp = TcpListener::bind(address).await.map_err(failed)?;
    let local_addr = tcp.local_addr().map_err(failed)?;
    Ok(Listener { name, tcp, local_addr, on_response: None })
}

impl Listener {
    /// The bound address, with its real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Calls `hook` with the pattern of the route and the status of every answer. Requests without a route have the
    /// route `none`, so that clients cannot invent labels.
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

/// Serves until the process stops. The task ends when the last connection is closed. When the process drains, every
/// answer closes its connection. Unknown paths and methods are answered with a [`Problem`].
pub fn serve(listener: Listener, router: Router, limits: Limits, shutdown: Shutdown) -> JoinHandle<()> {
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

/// Reports every answer. It does not use axum's `from_fn`, which clones and boxes the inner service for each request.
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

async fn accept_until(name: &'static str, tcp: TcpListener, router: Router, limits: Limits, shutdown: Shutdown) {
    let stop = shutdown.token();
    // A bound of zero would wait forever, and one above the limit of a semaphore would panic.
    let slots = Arc::new(Semaphore::new(limits.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = accept(&tcp, &slots) => accepted,
            () = stop.cancelled() => break,
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
                    () = stop.cancelled() => break,
                }
            }
        }
    }
    // The system has accepted these for us. Closing now would cut off their requests.
    while let Some(Ok((stream, slot))) = accept(&tcp, &slots).now_or_never() {
        connections.spawn(serve_connection(name, stream, slot, router.clone(), limits, shutdown.clone()));
    }
    // The socket is closed before the wait: new connections are refused and find another process.
    drop(tcp);
    connections.close();
    connections.wait().await;
    tracing::info!(event = "listener_closed", listener = name, "closed");
}

/// The slot comes first. Above the bound, connections wait in the queue of the system and cost us nothing.
async fn accept(tcp: &TcpListener, slots: &Arc<Semaphore>) -> io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, _peer) = tcp.accept().await?;
    Ok((stream, slot))
}

/// Whether accepting failed because of the client.
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
    shutdown: Shutdown,
) {
    // Answers are short, so they do not wait for a full packet. A failure only costs time.
    let _ = stream.set_nodelay(true);
    let waiting = WaitingSince::new();
    let is_overdue = overdue(waiting.clone(), limits);
    let stream = Watched { stream, waiting: waiting.clone() };
    let (draining, stop) = (shutdown.draining(), shutdown.token());
    let service = service_fn(move |request: Request<Incoming>| {
        waiting.set(Waiting::Answer);
        let answering = router.clone().oneshot(request.map(Body::new));
        let (waiting, draining) = (waiting.clone(), draining.clone());
        async move {
            let mut response = answering.await?;
            if draining.is_cancelled() {
                // The client opens its next connection elsewhere.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            waiting.set(Waiting::Request);
            Ok::<_, Infallible>(response)
        }
    });
    let mut connection = pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let linger = limits.linger.min(shutdown.drain_deadline());
    let stopped = async {
        stop.cancelled().await;
        // A request on its way is invisible. Its answer closes the connection before the time is over.
        tokio::time::sleep(linger).await;
    };
    let outcome = tokio::select! {
        // What the connection waits for changes while it is polled, and its deadline must be checked after that.
        biased;
        outcome = connection.as_mut() => outcome,
        () = is_overdue => Ok(()),
        () = stopped => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(shutdown.drain_deadline() - linger, connection).await {
                Ok(outcome) => outcome,
                Err(_) => {
                    tracing::warn!(event = "request_dropped", listener = name, "a request did not end in time");
                    Ok(())
                }
            }
        }
    };
    if let Err(error) = outcome {
        // Clients break off or send no HTTP. An operator need not know.
        tracing::debug!(event = "connection_failed", listener = name, cause = %error, "connection failed");
    }
    drop(slot);
}

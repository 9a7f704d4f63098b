//! The layer between the broker's socket and the client library. It keeps from the library what would end the
//! connection or fill the memory.
//!
//! By default the library makes its own connections. Here it is given an open one, whose bytes pass through a
//! [`frame_filter::FrameFilter`]. For that it needs a runtime with our connections, [`Kit`].

mod content;
mod frame_filter;
mod inbound_meter;

pub(super) use frame_filter::FRAME_BYTES_MAX;
pub(super) use inbound_meter::{Bounds, InboundMeter};

use async_rs::traits::{Executor, Reactor, RuntimeKit};
use async_rs::util::Task;
use async_rs::{Runtime, Tokio};
use frame_filter::{FrameFilter, HEARTBEAT_FRAME, Stop};
use futures_util::io::{AsyncRead, AsyncWrite};
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::time::Sleep;

type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// How many bytes are read from the socket at once, and about how many are kept for the library.
const READ_BYTES: usize = 64 * 1024;

/// While reading pauses because there is no room, the library gets a heartbeat this often.
const BEAT: Duration = Duration::from_millis(500);

/// Connects to one address by TCP, with TLS if the URI says so. `uri` names one host, without brackets.
pub(super) async fn dial(uri: &AMQPUri, addr: SocketAddr) -> io::Result<Socket> {
    let socket = AsyncTcpStream::Plain(Tokio::current().tcp_connect_addr(addr).await?);
    match uri.scheme {
        AMQPScheme::AMQP => Ok(socket),
        AMQPScheme::AMQPS => socket.into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref()).await,
    }
}

/// Begins to speak AMQP on a socket. If no greeting comes within `patience`, the socket is given up.
pub(super) async fn greet(
    uri: AMQPUri,
    socket: Socket,
    meter: Arc<InboundMeter>,
    patience: Duration,
    properties: ConnectionProperties,
) -> lapin::Result<Connection> {
    let frame_bytes_max = uri.query.frame_max.filter(|bytes| *bytes > 0).unwrap_or(FRAME_BYTES_MAX);
    let filter = Mutex::new(Some(Filter::new(socket, FrameFilter::new(meter, frame_bytes_max), patience)));
    // Called once, because the library does not reconnect.
    let connect = async move |_uri: AMQPUri, _runtime: Runtime<Kit>| {
        let filter = filter.lock().unwrap_or_else(PoisonError::into_inner).take();
        filter.map(AsyncTcpStream::Plain).ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected).into())
    };
    Connection::connector(uri, Runtime::new(Kit(Tokio::current())), connect, properties).await
}

/// A socket whose incoming bytes pass through a [`FrameFilter`].
pub(super) struct Filter {
    socket: Socket,
    frame_filter: FrameFilter,
    /// Bytes that are read and not yet filtered, from the first number to the second.
    input: Vec<u8>,
    unread: (usize, usize),
    /// Filtered bytes for the library, from this byte on.
    output: Vec<u8>,
    handed_on: usize,
    /// When the greeting must be over, and later when the next heartbeat is due.
    timer: Pin<Box<Sleep>>,
    is_timed: bool,
}

impl Filter {
    fn new(socket: Socket, frame_filter: FrameFilter, patience: Duration) -> Self {
        Self {
            socket,
            frame_filter,
            input: vec![0; READ_BYTES],
            unread: (0, 0),
            output: Vec::new(),
            handed_on: 0,
            // The deadline of the greeting.
            timer: Box::pin(tokio::time::sleep(patience)),
            is_timed: true,
        }
    }

    /// Filters what has been read. `None`: there are bytes for the library.
    fn pass(&mut self) -> Option<Stop> {
        self.output.clear();
        self.handed_on = 0;
        let (from, to) = self.unread;
        let input = self.input.get(from..to).unwrap_or_default();
        let (taken, stop) = self.frame_filter.pass(input, &mut self.output, READ_BYTES);
        self.unread.0 += taken;
        self.output.is_empty().then_some(stop)
    }

    /// Makes room for so many bytes at once, counted from the first one that is not filtered.
    fn make_room(&mut self, needed: usize) {
        let (from, to) = self.unread;
        self.input.copy_within(from..to, 0);
        self.unread = (0, to - from);
        let length = needed.max(READ_BYTES);
        if self.input.len() < length || to - from < READ_BYTES {
            self.input.resize(length, 0);
            self.input.shrink_to(length);
        }
    }

    /// Whether the timer has run out. It is reset when it is needed again.
    fn is_late(&mut self, context: &mut Context<'_>) -> bool {
        self.is_timed && self.timer.as_mut().poll(context).is_ready()
    }
}

impl AsyncRead for Filter {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let filter = self.get_mut();
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        loop {
            let ready = filter.output.get(filter.handed_on..).unwrap_or_default();
            if !ready.is_empty() {
                let count = ready.len().min(buffer.len());
                let (to, from) = (buffer.get_mut(..count), ready.get(..count));
                if let Some((to, from)) = to.zip(from) {
                    to.copy_from_slice(from);
                }
                filter.handed_on += count;
                return Poll::Ready(Ok(count));
            }
            match filter.pass() {
                None => {}
                Some(Stop::NoRoom) => {
                    // The waker is registered first and the room is checked then, so that room made in between is seen.
                    filter.frame_filter.meter().wake_later(context.waker());
                    if filter.pass().is_none() {
                        continue;
                    }
                    if !filter.is_timed {
                        filter.timer.as_mut().reset(tokio::time::Instant::now() + BEAT);
                        filter.is_timed = true;
                    }
                    if !filter.is_late(context) {
                        return Poll::Pending;
                    }
                    filter.is_timed = false;
                    filter.output.extend(HEARTBEAT_FRAME);
                }
                Some(Stop::Needs(needed)) => {
                    filter.make_room(needed);
                    let to = filter.unread.1;
                    let room = filter.input.get_mut(to..).unwrap_or_default();
                    match Pin::new(&mut filter.socket).poll_read(context, room) {
                        Poll::Ready(Ok(0)) => return Poll::Ready(Ok(0)),
                        Poll::Ready(Ok(count)) => filter.unread.1 += count,
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending if filter.frame_filter.is_open() => {
                            filter.is_timed = false;
                            return Poll::Pending;
                        }
                        Poll::Pending if filter.is_late(context) => {
                            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}

impl AsyncWrite for Filter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_close(context)
    }
}

/// Tokio, except that the connections are made before and not by the library.
#[derive(Debug, Clone)]
pub(super) struct Kit(Tokio);

impl RuntimeKit for Kit {}

impl Executor for Kit {
    type Task<T: Send + 'static> = <Tokio as Executor>::Task<T>;

    fn block_on<T, F: Future<Output = T>>(&self, future: F) -> T {
        self.0.block_on(future)
    }

    fn spawn<T: Send + 'static, F: Future<Output = T> + Send + 'static>(&self, future: F) -> Task<Self::Task<T>> {
        self.0.spawn(future)
    }

    fn spawn_blocking<T: Send + 'static, F: FnOnce() -> T + Send + 'static>(&self, work: F) -> Task<Self::Task<T>> {
        self.0.spawn_blocking(work)
    }
}

impl Reactor for Kit {
    type TcpStream = Filter;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: Send + 'static>(
        &self,
        _socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        Err::<Filter, _>(io::ErrorKind::Unsupported.into())
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl futures_util::Stream<Item = Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        _addr: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        std::future::ready(Err(io::ErrorKind::Unsupported.into()))
    }
}

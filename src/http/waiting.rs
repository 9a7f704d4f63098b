//! What a connection waits for, and how long it may wait. The HTTP library has one deadline for the headers of a
//! request and for the pause between two requests. But slow headers are an attack, and an idle connection belongs to a
//! load balancer.

use super::server::Limits;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until};

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Waiting {
    /// The rest of the headers of a request. On a new connection, all of them.
    Head,
    /// The answer that we send.
    Answer,
    /// The next request of the client.
    Request,
}

/// What a connection waits for, and since when. Clones share it. A change wakes nobody, because the connection and
/// [`overdue`] are polled together.
#[derive(Debug, Clone)]
pub(super) struct WaitingSince(Arc<Mutex<(Waiting, Instant)>>);

impl WaitingSince {
    /// A new connection waits for a request.
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new((Waiting::Head, Instant::now()))))
    }

    fn lock(&self) -> MutexGuard<'_, (Waiting, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on, the connection waits for this.
    pub(super) fn set(&self, waiting: Waiting) {
        *self.lock() = (waiting, Instant::now());
    }

    fn begins_request(&self) {
        let mut now = self.lock();
        if now.0 == Waiting::Request {
            *now = (Waiting::Head, Instant::now());
        }
    }

    /// When the client has taken too long. `None` means that the client is not waited for.
    fn until(&self, limits: Limits) -> Option<Instant> {
        let (waiting, since) = *self.lock();
        match waiting {
            Waiting::Head => since.checked_add(limits.header_read),
            // The handlers have deadlines of their own.
            Waiting::Answer => None,
            Waiting::Request => since.checked_add(limits.keep_alive),
        }
    }
}

/// Returns when a connection has waited too long for its client. It must be polled after each poll of the connection. A
/// request moves the timer to a later time and never starts one, so it costs no wake-up.
pub(super) async fn overdue(waiting: WaitingSince, limits: Limits) {
    let mut timer = pin!(sleep_until(Instant::now()));
    poll_fn(|context| {
        let Some(until) = waiting.until(limits) else { return Poll::Pending };
        if timer.deadline() != until {
            timer.as_mut().reset(until);
        }
        timer.as_mut().poll(context)
    })
    .await;
}

/// A connection that notes when the next request begins.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    pub(super) waiting: WaitingSince,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, to);
        if to.filled().len() > before {
            self.waiting.begins_request();
        }
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

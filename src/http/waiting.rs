//! What a connection waits for, and how long it may wait. The HTTP library has one deadline for the headers of a
//! request and for the pause between two requests. But slow headers are an attack, and an idle connection belongs to a
//! load balancer.

use super::server::Limits;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

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

/// Returns when a connection has waited too long for its client.
pub(super) async fn overdue(mut waiting: watch::Receiver<Waiting>, limits: Limits) {
    loop {
        let limit = match *waiting.borrow_and_update() {
            Waiting::Head => limits.header_read,
            // The handlers have deadlines of their own.
            Waiting::Answer => Duration::MAX,
            Waiting::Request => limits.keep_alive,
        };
        match tokio::time::timeout(limit, waiting.changed()).await {
            Ok(Ok(())) => {}
            // The connection has ended, so nothing waits.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => return,
        }
    }
}

/// A connection that notes when the next request begins.
pub(super) struct Watched {
    pub(super) stream: TcpStream,
    pub(super) waiting: Arc<watch::Sender<Waiting>>,
}

impl AsyncRead for Watched {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = to.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, to);
        if to.filled().len() > before {
            self.waiting.send_if_modified(|waiting| {
                let begins = *waiting == Waiting::Request;
                if begins {
                    *waiting = Waiting::Head;
                }
                begins
            });
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

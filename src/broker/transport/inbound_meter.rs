//! Counts the bytes of deliveries in hand, and records what the client library does not see of them. Both ends of a
//! connection share it.

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// The limits for the messages of a connection in memory.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Bounds {
    /// Largest body that is passed on whole, in bytes.
    pub(in crate::broker) body_bytes_max: usize,
    /// How much of a larger body is passed on, in bytes.
    pub(in crate::broker) body_kept_bytes: usize,
    /// The most bytes of messages in hand, headers included. One message is always accepted.
    pub(in crate::broker) bytes_max: usize,
}

impl Bounds {
    /// The limits of a connection without deliveries.
    pub(in crate::broker) const NONE: Self = Self { body_bytes_max: 0, body_kept_bytes: 0, bytes_max: usize::MAX };
}

/// What belongs to a delivery and is unknown to the client library.
#[derive(Debug)]
pub(in crate::broker) struct Ticket {
    pub(in crate::broker) channel: u16,
    pub(in crate::broker) tag: u64,
    /// Counted in the meter until its body is dropped.
    pub(in crate::broker) bytes: usize,
    /// The length of the whole body at the broker.
    pub(in crate::broker) body_bytes: u64,
    /// The unreadable parts, in words. Empty for nearly every message.
    pub(in crate::broker) unreadable: String,
}

/// The deliveries that one connection has in hand.
#[derive(Debug)]
pub(in crate::broker) struct InboundMeter {
    bounds: Bounds,
    bytes: AtomicUsize,
    waiting: AtomicWaker,
    tickets: Mutex<VecDeque<Ticket>>,
}

impl InboundMeter {
    pub(in crate::broker) fn new(bounds: Bounds) -> Arc<Self> {
        Arc::new(Self { bounds, bytes: AtomicUsize::new(0), waiting: AtomicWaker::new(), tickets: Mutex::default() })
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Counts a message if there is room for it, or if it is alone.
    pub(super) fn admit(&self, bytes: usize) -> bool {
        let counted = self.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            let then = now.saturating_add(bytes);
            (now == 0 || then <= self.bounds.bytes_max).then_some(then)
        });
        counted.is_ok()
    }

    /// Registers the waker that is woken when there is more room.
    pub(super) fn wake_later(&self, waker: &Waker) {
        self.waiting.register(waker);
    }

    pub(super) fn note(&self, ticket: Ticket) {
        self.tickets().push_back(ticket);
    }

    /// The ticket of a delivery. The library hands deliveries out in the order in which they came. `None` would be a
    /// bug.
    pub(in crate::broker) fn claim(&self, channel: u16, tag: u64) -> Option<Ticket> {
        let mut tickets = self.tickets();
        let at = tickets.iter().position(|ticket| (ticket.channel, ticket.tag) == (channel, tag))?;
        tickets.remove(at)
    }

    /// A body that counts until its last copy is dropped.
    pub(in crate::broker) fn hold(self: &Arc<Self>, body: Vec<u8>, bytes: usize) -> Bytes {
        Bytes::from_owner(Held { body, bytes, meter: Arc::clone(self) })
    }

    fn tickets(&self) -> MutexGuard<'_, VecDeque<Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Held {
    body: Vec<u8>,
    bytes: usize,
    meter: Arc<InboundMeter>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        self.meter.waiting.wake();
    }
}

//! Locks on payments, within this process. Events about one payment are applied by one batch after the other.
//!
//! A provider often reports several facts about one payment at the same time, and sometimes the same fact twice. Two batches with
//! such messages would read the same order side by side, and the slower one would be overtaken and begin anew. So the later batch
//! waits with these events until the earlier one has ended, and applies them in a transaction of their own. The rest of the batch
//! does not wait. Other processes do not take part: between processes the transaction itself notices.

use crate::domain::PaymentEvent;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The locks that are held or waited for.
#[derive(Debug, Clone, Default)]
pub(super) struct PaymentLocks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    hasher: RandomState,
    held: Mutex<Vec<Held>>,
}

/// The lock of one part of a batch: hashes of the ids of its payments and orders. If two hashes are equal by chance, an event waits
/// in vain for a few milliseconds.
#[derive(Debug)]
struct Held {
    ids: HashSet<u64>,
    released: CancellationToken,
}

/// The lock of a part. It is released when it is dropped.
#[derive(Debug)]
pub(super) struct PaymentLock {
    locks: PaymentLocks,
    released: CancellationToken,
}

/// Events of a batch, the locks that they wait for, and their own lock.
#[derive(Debug)]
pub(super) struct Part<E> {
    events: Vec<E>,
    before: Vec<CancellationToken>,
    lock: PaymentLock,
}

impl<E> Part<E> {
    /// Waits until every earlier lock on one of the same payments is released. A part waits for earlier ones only, so no two wait
    /// for each other. Each has deadlines of its own.
    pub(super) async fn acquire(self) -> (Vec<E>, PaymentLock) {
        for other in self.before {
            other.cancelled().await;
        }
        (self.events, self.lock)
    }
}

impl PaymentLocks {
    fn held(&self) -> MutexGuard<'_, Vec<Held>> {
        self.0.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hashes(&self, event: &PaymentEvent) -> Vec<u64> {
        let ids = event.payment_ids().map(|id| self.0.hasher.hash_one(id.as_str()));
        ids.chain(event.order_id.map(|id| self.0.hasher.hash_one(id.0))).collect()
    }

    /// Splits the events of a batch and locks their payments. The first part may be applied at once. The second part waits: an
    /// earlier batch has a lock on a payment or an order of each of its events.
    pub(super) fn split<E: AsRef<PaymentEvent>>(&self, events: Vec<E>) -> [Part<E>; 2] {
        let (mut free, mut waiting) = ((Vec::with_capacity(events.len()), HashSet::new()), (vec![], HashSet::new()));
        let mut held = self.held();
        for event in events {
            let ids = self.hashes(event.as_ref());
            let waits = held.iter().any(|other| ids.iter().any(|id| other.ids.contains(id)));
            let (part, part_ids) = if waits { &mut waiting } else { &mut free };
            part_ids.extend(ids);
            part.push(event);
        }
        let before = held.iter().filter(|other| !other.ids.is_disjoint(&waiting.1));
        let before = before.map(|other| other.released.clone()).collect();
        [(free, vec![]), (waiting, before)].map(|((events, ids), before)| {
            let released = CancellationToken::new();
            held.push(Held { ids, released: released.clone() });
            Part { events, before, lock: PaymentLock { locks: self.clone(), released } }
        })
    }
}

impl Drop for PaymentLock {
    fn drop(&mut self) {
        self.locks.held().retain(|one| one.released != self.released);
        self.released.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{MessageId, PaymentId, PaymentStatus, Provider};
    use futures_util::FutureExt;

    fn about(payments: &[&str]) -> Vec<PaymentEvent> {
        let event = |id: &&str| PaymentEvent {
            provider: Provider::new("stripe").unwrap(),
            message_id: MessageId::new(format!("stripe::evt_{id}")).unwrap(),
            payment_id: PaymentId::new(*id).unwrap(),
            related_ids: vec![],
            provider_account: None,
            order_id: None,
            status: PaymentStatus::Pending,
            occurred_at: time::OffsetDateTime::UNIX_EPOCH,
            as_of: None,
            livemode: false,
        };
        payments.iter().map(event).collect()
    }

    fn ids(parts: &[Part<PaymentEvent>; 2]) -> [Vec<&str>; 2] {
        parts.each_ref().map(|part| part.events.iter().map(|event| event.payment_id.as_str()).collect())
    }

    #[test]
    fn events_of_a_locked_payment_wait_until_the_earlier_batch_has_ended_and_the_others_do_not() {
        let locks = PaymentLocks::default();
        let first = locks.split(about(&["pi_1", "pi_2"]));
        assert_eq!(ids(&first), [vec!["pi_1", "pi_2"], vec![]]);
        let second = locks.split(about(&["pi_2", "pi_3", "pi_2"]));
        assert_eq!(ids(&second), [vec!["pi_3"], vec!["pi_2", "pi_2"]]);
        let third = locks.split(about(&["pi_3", "pi_4"]));
        assert_eq!(ids(&third), [vec!["pi_4"], vec!["pi_3"]], "it comes after the second");
        let ([second_free, second_waiting], [_third_free, third_waiting]) = (second, third);
        let mut of_second = Box::pin(second_waiting.acquire());
        let mut of_third = Box::pin(third_waiting.acquire());
        assert!(of_second.as_mut().now_or_never().is_none());
        drop(first);
        let of_second = of_second.now_or_never();
        assert!(of_second.is_some());
        assert!(of_third.as_mut().now_or_never().is_none(), "it still waits for the second's free part");
        drop(second_free);
        assert!(of_third.now_or_never().is_some(), "and it does not wait for the second's other part");
    }

    #[test]
    fn batches_about_one_payment_acquire_its_lock_one_after_the_other() {
        let locks = PaymentLocks::default();
        let first = locks.split(about(&["pi_1"]));
        let [_, second] = locks.split(about(&["pi_1"]));
        let [_, third] = locks.split(about(&["pi_1"]));
        let mut of_third = Box::pin(third.acquire());
        drop(first);
        let of_second = second.acquire().now_or_never();
        assert!(of_second.is_some());
        assert!(of_third.as_mut().now_or_never().is_none());
        drop(of_second);
        assert!(of_third.now_or_never().is_some());
    }

    #[test]
    fn a_part_that_stops_waiting_blocks_no_other() {
        let locks = PaymentLocks::default();
        let first = locks.split(about(&["pi_1"]));
        let [second_free, second_waiting] = locks.split(about(&["pi_1", "pi_2"]));
        assert!(second_waiting.acquire().now_or_never().is_none());
        drop(second_free);
        assert_eq!(ids(&locks.split(about(&["pi_2"]))), [vec!["pi_2"], vec![]]);
        drop(first);
        assert!(locks.held().is_empty());
    }
}

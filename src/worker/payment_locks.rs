//! Which batches of this process are about the same payments: those of their events take payment_locks.
//!
//! A provider often says several things of one payment at once, and sometimes the same thing twice. Two batches with such
//! messages would read the same order side by side, and the slower one would find that it was overtaken and begin anew. So
//! what the later one has of such events is held back until the earlier one has ended, and is applied by itself then; the
//! rest of it goes at once. Between processes nothing does that, and nothing has to: there the transaction itself notices.

use crate::domain::PaymentEvent;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The parts of batches that are under way.
#[derive(Debug, Clone, Default)]
pub(super) struct PaymentLocks(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    hasher: RandomState,
    under_way: Mutex<Vec<UnderWay>>,
}

/// One of them: what it is about, by hashes, and its end. Where two hashes are equal by chance, an event waits in vain for a
/// few milliseconds.
#[derive(Debug)]
struct UnderWay {
    about: HashSet<u64>,
    ended: CancellationToken,
}

/// A part's turn; over when it is dropped.
#[derive(Debug)]
pub(super) struct PaymentLock {
    payment_locks: PaymentLocks,
    ended: CancellationToken,
}

/// Events of a batch, what they wait for, and their turn; given up when it is dropped.
#[derive(Debug)]
pub(super) struct Part<E> {
    events: Vec<E>,
    before: Vec<CancellationToken>,
    turn: PaymentLock,
}

impl<E> Part<E> {
    /// Waits until everything has ended that came before and is about one of the same payments. Only for what was earlier,
    /// so that no circle can close; each has its own deadlines.
    pub(super) async fn come(self) -> (Vec<E>, PaymentLock) {
        for other in self.before {
            other.cancelled().await;
        }
        (self.events, self.turn)
    }
}

/// A batch's events, sorted.
#[derive(Debug)]
pub(super) struct Sorted<E> {
    /// They may be applied at once.
    pub(super) free: Part<E>,
    /// They are held back.
    pub(super) held: Part<E>,
}

impl PaymentLocks {
    fn under_way(&self) -> MutexGuard<'_, Vec<UnderWay>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What an event is about.
    fn hashes(&self, event: &PaymentEvent) -> Vec<u64> {
        let ids = event.payment_ids().map(|id| self.0.hasher.hash_one(id.as_str()));
        ids.chain(event.order_id.map(|id| self.0.hasher.hash_one(id.0))).collect()
    }

    /// Sorts a batch's events: held back is what is about a payment, or an order, that something under way is about.
    pub(super) fn sort<E: AsRef<PaymentEvent>>(&self, events: Vec<E>) -> Sorted<E> {
        let events: Vec<(Vec<u64>, E)> = events.into_iter().map(|event| (self.hashes(event.as_ref()), event)).collect();
        let mut under_way = self.under_way();
        let is_held =
            |(one, _): &(Vec<u64>, E)| under_way.iter().any(|other| one.iter().any(|hash| other.about.contains(hash)));
        let (held, free): (Vec<_>, Vec<_>) = events.into_iter().partition(is_held);
        let about =
            |part: &[(Vec<u64>, E)]| -> HashSet<u64> { part.iter().flat_map(|(one, _)| one.iter().copied()).collect() };
        let (about_free, about_held) = (about(&free), about(&held));
        let before = under_way.iter().filter(|other| !other.about.is_disjoint(&about_held));
        let before = before.map(|other| other.ended.clone()).collect();
        let mut part = |events: Vec<(Vec<u64>, E)>, about, before| {
            let ended = CancellationToken::new();
            under_way.push(UnderWay { about, ended: ended.clone() });
            // From here on it ends, also when whoever has it is dropped.
            let turn = PaymentLock { payment_locks: self.clone(), ended };
            Part { events: events.into_iter().map(|(_, event)| event).collect(), before, turn }
        };
        Sorted { free: part(free, about_free, vec![]), held: part(held, about_held, before) }
    }
}

impl Drop for PaymentLock {
    fn drop(&mut self) {
        self.payment_locks.under_way().retain(|one| one.ended != self.ended);
        self.ended.cancel();
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

    fn held_and_free(sorted: &Sorted<PaymentEvent>) -> (Vec<&str>, Vec<&str>) {
        fn ids(part: &Part<PaymentEvent>) -> Vec<&str> {
            part.events.iter().map(|event| event.payment_id.as_str()).collect()
        }
        (ids(&sorted.held), ids(&sorted.free))
    }

    #[test]
    fn what_is_about_a_payment_of_an_earlier_batch_is_held_until_that_has_ended_and_the_rest_is_free() {
        let payment_locks = PaymentLocks::default();
        let first = payment_locks.sort(about(&["pi_1", "pi_2"]));
        assert_eq!(held_and_free(&first), (vec![], vec!["pi_1", "pi_2"]));
        let second = payment_locks.sort(about(&["pi_2", "pi_3", "pi_2"]));
        assert_eq!(held_and_free(&second), (vec!["pi_2", "pi_2"], vec!["pi_3"]));
        let third = payment_locks.sort(about(&["pi_3", "pi_4"]));
        assert_eq!(held_and_free(&third), (vec!["pi_3"], vec!["pi_4"]), "it comes after the second");
        let mut of_second = Box::pin(second.held.come());
        let mut of_third = Box::pin(third.held.come());
        assert!(of_second.as_mut().now_or_never().is_none());
        drop(first);
        let of_second = of_second.now_or_never();
        assert!(of_second.is_some());
        assert!(of_third.as_mut().now_or_never().is_none(), "for the second's free part it still waits");
        drop(second.free);
        assert!(of_third.now_or_never().is_some(), "and for the held one of the second it does not");
    }

    #[test]
    fn held_events_of_one_payment_come_one_batch_after_the_other() {
        let payment_locks = PaymentLocks::default();
        let first = payment_locks.sort(about(&["pi_1"]));
        let second = payment_locks.sort(about(&["pi_1"]));
        let third = payment_locks.sort(about(&["pi_1"]));
        let mut of_third = Box::pin(third.held.come());
        drop(first);
        let of_second = second.held.come().now_or_never();
        assert!(of_second.is_some());
        assert!(of_third.as_mut().now_or_never().is_none());
        drop(of_second);
        assert!(of_third.now_or_never().is_some());
    }

    #[test]
    fn whoever_gives_up_waiting_holds_nobody_up() {
        let payment_locks = PaymentLocks::default();
        let first = payment_locks.sort(about(&["pi_1"]));
        let second = payment_locks.sort(about(&["pi_1", "pi_2"]));
        let waiting = second.held.come().now_or_never();
        assert!(waiting.is_none());
        drop(second.free);
        assert_eq!(held_and_free(&payment_locks.sort(about(&["pi_2"]))), (vec![], vec!["pi_2"]));
        drop(first);
        assert!(payment_locks.under_way().is_empty());
    }
}

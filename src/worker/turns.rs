//! Which batches of this process are about the same payments: they take turns.
//!
//! A provider often says several things of one payment at once, and sometimes the same thing twice. Two batches with such
//! messages would read the same order side by side, and the slower one would find that it was overtaken and begin anew. So
//! the later one waits for the earlier one, before it begins. Between processes nothing does that, and nothing has to:
//! there the transaction itself notices.

use crate::domain::PaymentEvent;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;

/// The batches that are under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Turns(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    hasher: RandomState,
    under_way: Mutex<Vec<UnderWay>>,
}

/// One of them: what it is about, by hashes, and its end. Where two hashes are equal by chance, somebody waits in vain for a
/// few milliseconds.
#[derive(Debug)]
struct UnderWay {
    about: HashSet<u64>,
    ended: CancellationToken,
}

/// A batch's turn; over when it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    turns: Turns,
    ended: CancellationToken,
}

impl Turns {
    fn under_way(&self) -> MutexGuard<'_, Vec<UnderWay>> {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until every batch that came before and is about one of the same payments has ended. Only for earlier ones, so
    /// that no circle can close; each has its own deadlines.
    pub(super) async fn take(&self, events: &[PaymentEvent]) -> Turn {
        let about: HashSet<u64> = events
            .iter()
            .flat_map(|event| {
                let ids = event.payment_ids().map(|id| self.0.hasher.hash_one(id.as_str()));
                ids.chain(event.order_id.map(|id| self.0.hasher.hash_one(id.0)))
            })
            .collect();
        let ended = CancellationToken::new();
        // From here on it ends, also when whoever waits is dropped.
        let turn = Turn { turns: self.clone(), ended: ended.clone() };
        let before: Vec<CancellationToken> = {
            let mut under_way = self.under_way();
            let before = under_way.iter().filter(|other| !other.about.is_disjoint(&about));
            let before = before.map(|other| other.ended.clone()).collect();
            under_way.push(UnderWay { about, ended });
            before
        };
        for other in before {
            other.cancelled().await;
        }
        turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.under_way().retain(|one| one.ended != self.ended);
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
            livemode: false,
        };
        payments.iter().map(event).collect()
    }

    #[tokio::test]
    async fn batches_about_the_same_payment_take_turns_and_others_do_not() {
        let turns = Turns::default();
        let first = turns.take(&about(&["pi_1", "pi_2"])).await;
        let (later, last) = (about(&["pi_2", "pi_3"]), about(&["pi_3"]));
        let mut second = Box::pin(turns.take(&later));
        assert!(second.as_mut().now_or_never().is_none());
        let mut third = Box::pin(turns.take(&last));
        assert!(third.as_mut().now_or_never().is_none(), "it comes after the second");
        let stranger = turns.take(&about(&["pi_4"])).now_or_never();
        assert!(stranger.is_some());
        drop(first);
        let second = second.now_or_never();
        assert!(second.is_some());
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn whoever_gives_up_waiting_holds_nobody_up() {
        let turns = Turns::default();
        let first = turns.take(&about(&["pi_1"])).await;
        let waiting = turns.take(&about(&["pi_1", "pi_2"])).now_or_never();
        assert!(waiting.is_none());
        assert!(turns.take(&about(&["pi_2"])).now_or_never().is_some());
        drop(first);
        assert!(turns.under_way().is_empty());
    }
}

//! Deliveries that are not acknowledged yet, and their acknowledgement.

use super::settle::Settled;
use crate::broker::{Acknowledger, BrokerError, Delivery};
use crate::telemetry::Metrics;
use std::collections::BTreeSet;

/// The deliveries of a session that are not acknowledged yet. Only settled deliveries are acknowledged. A delivery that
/// is forgotten on the way comes again.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    acknowledger: Acknowledger,
    metrics: Metrics,
    /// The numbers of the deliveries.
    tags: BTreeSet<u64>,
    /// How many deliveries were acknowledged.
    pub(super) acknowledged: u64,
}

impl Unacknowledged {
    pub(super) fn new(acknowledger: Acknowledger, metrics: Metrics) -> Self {
        Self { acknowledger, metrics, tags: BTreeSet::new(), acknowledged: 0 }
    }

    pub(super) fn receive(&mut self, deliveries: &[Delivery]) {
        self.tags.extend(deliveries.iter().map(|delivery| delivery.tag));
    }

    /// How many deliveries would go back to the queue if the session ended now.
    pub(super) fn given_back(&self) -> u64 {
        u64::try_from(self.tags.len()).unwrap_or(u64::MAX)
    }

    /// Acknowledges settled deliveries, in ascending order of their tags. All before the first one that is not settled
    /// are acknowledged at once, the others one by one. An acknowledgement of many costs the broker one write.
    pub(super) async fn acknowledge(&mut self, settled: Vec<Settled>) -> Result<(), BrokerError> {
        let is_left = |tag: &u64| settled.binary_search_by_key(tag, |one| one.tag).is_err();
        let first_left = self.tags.iter().copied().find(is_left).unwrap_or(u64::MAX);
        let (together, alone) = settled.split_at(settled.partition_point(|one| one.tag < first_left));
        if let Some(last) = together.last() {
            self.acknowledger.acknowledge_through(last.tag, together).await?;
        }
        for one in alone {
            self.acknowledger.acknowledge(one.tag, one).await?;
        }
        for one in &settled {
            self.tags.remove(&one.tag);
            one.labels.count(&self.metrics);
        }
        self.acknowledged += u64::try_from(settled.len()).unwrap_or(u64::MAX);
        Ok(())
    }
}

//! Keeps asking what lies in the queues, for metrics and the console.

use crate::address::AmqpAddress;
use crate::broker::{Depth, DepthGauge, Depths};
use crate::clock::Clock;
use crate::followed::Followed;
use crate::telemetry::{Metrics, QueueName};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the queues are measured.
const EVERY: Duration = Duration::from_secs(5);

/// What the broker said last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct QueueDepths {
    /// When the queues were measured.
    pub(super) at: OffsetDateTime,
    /// The depths of the queues.
    pub(super) depths: Depths,
}

/// Asks until `stop`. What is told is none while the broker does not answer.
pub(super) fn watch_queues(
    url: Followed<AmqpAddress>,
    clock: Clock,
    metrics: Metrics,
    stop: CancellationToken,
) -> watch::Receiver<Option<QueueDepths>> {
    let (tell, told) = watch::channel(None);
    tokio::spawn(async move {
        let mut gauge = DepthGauge::new(url);
        let mut every = tokio::time::interval(EVERY);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            match gauge.read().await {
                Ok(depths) => {
                    for (name, Depth { ready, consumers }) in [
                        (QueueName::Fulfilment, depths.fulfilment),
                        (QueueName::PaymentsHints, depths.hints),
                        (QueueName::FulfilmentDead, depths.dead),
                    ] {
                        metrics.queue(name, ready.into(), consumers.into());
                    }
                    tell.send_replace(Some(QueueDepths { at: clock.now(), depths }));
                }
                Err(error) => {
                    // Whether the broker is there is told elsewhere, where it matters.
                    tracing::debug!(event = "queues_unknown", cause = %error);
                    metrics.queues_unknown();
                    tell.send_replace(None);
                }
            }
        }
        gauge.close().await;
    });
    told
}

//! Keeps asking what lies in the queues, for metrics and the console.

use super::console::QueueDepths;
use crate::broker::{Depth, DepthGauge};
use crate::clock::Clock;
use crate::telemetry::{Metrics, QueueName};
use secrecy::SecretString;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often.
const EVERY: Duration = Duration::from_secs(5);

/// Asks until `stop`. What is told is none while the broker does not answer.
pub(super) fn watch_queues(
    url: SecretString,
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
                    tell.send_replace(Some(QueueDepths {
                        at: clock.now(),
                        fulfilment_ready: depths.fulfilment.ready.into(),
                        fulfilment_consumers: depths.fulfilment.consumers.into(),
                        dead_ready: depths.dead.ready.into(),
                        hints_ready: depths.hints.ready.into(),
                    }));
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

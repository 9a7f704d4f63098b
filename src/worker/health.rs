//! Whether the worker has what it needs.

use super::NotYet;
use crate::broker::{Publisher, RETRY_EXCHANGE, TopologyGauge, WORK_QUEUE};
use crate::clock::Clock;
use crate::config::WorkerConfig;
use crate::http::{NeedFlag, Readiness};
use crate::needs::{PostgresNeeds, PublisherNeeds, looks};
use crate::role::Role;
use crate::store::{Store, StoreError};
use crate::telemetry::{Dependency, Metrics, Need};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Reports to metrics and readiness what is missing.
pub(super) struct Health {
    postgres: PostgresNeeds,
    topology: NeedFlag,
    consumer: NeedFlag,
}

impl Health {
    /// Nothing is known yet. A task follows the publisher until the publisher is gone.
    pub(super) fn begin(readiness: &Readiness, metrics: &Metrics, publisher: &Publisher) -> Arc<Self> {
        let needs = readiness.of(Role::Worker, metrics);
        PublisherNeeds::of(&needs).follow(publisher, Some(RETRY_EXCHANGE));
        Arc::new(Self {
            postgres: PostgresNeeds::of(&needs),
            topology: needs.flag(Need::TopologyComplete),
            consumer: needs.flag(Need::HoldsAConsumer),
        })
    }

    /// Whether a batch could be committed now. After an error the worker must not take deliveries.
    pub(super) async fn rehearse(&self, store: &Store, clock: &Clock) -> Result<(), StoreError> {
        let rehearsed = match self.postgres.look(store, clock).await {
            Ok(()) => store.rehearse(clock.now()).await.inspect_err(|error| self.postgres.failed(error)),
            Err(error) => Err(error),
        };
        if let Err(error) = &rehearsed {
            self.consumer
                .missing_for_want_of(Dependency::Postgres, format!("waiting for Postgres: {}", error.in_short()));
        }
        rehearsed
    }

    /// Reports whether the queues exist and are consumed.
    pub(super) fn consuming(&self, opened: Result<(), &NotYet>) {
        match opened {
            Ok(()) => {
                self.topology.met();
                self.consumer.met();
            }
            Err(faults @ NotYet::Topology(_)) => {
                self.topology.missing(faults.to_string());
                self.consumer.missing("waiting for queues that are missing");
            }
            Err(NotYet::Broker(error)) => self.consumer.missing(error.in_short()),
        }
    }

    /// Reports that the consumer ended because of this dependency.
    pub(super) fn consumer_lost(&self, dependency: Dependency) {
        let cause = match dependency {
            Dependency::Postgres => "a batch could not be committed",
            Dependency::Rabbitmq => "the consumer was lost, or a batch could not be settled",
        };
        self.consumer.missing_for_want_of(dependency, format!("nothing is consumed from {WORK_QUEUE}: {cause}"));
    }

    /// Looks again and again until the task is aborted.
    pub(super) fn watch(self: &Arc<Self>, store: &Store, config: &WorkerConfig, clock: &Clock) -> JoinHandle<()> {
        let (health, store, clock) = (Arc::clone(self), store.clone(), clock.clone());
        let mut gauge = TopologyGauge::new(config.broker.url.clone(), config.retry.delays.clone());
        tokio::spawn(async move {
            let topology = async {
                let mut every = looks();
                loop {
                    every.tick().await;
                    match gauge.read().await {
                        Ok(missing) if missing.is_empty() => health.topology.met(),
                        Ok(missing) => health.topology.missing(missing.join("; ")),
                        Err(error) => health.topology.missing(error.in_short()),
                    }
                }
            };
            tokio::select! {
                never = health.postgres.watch(&store, &clock) => match never {},
                () = topology => {}
            }
        })
    }
}

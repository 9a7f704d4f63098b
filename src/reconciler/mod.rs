//! The reconciler asks providers about payments without news, or with hints only, and publishes the answers as ordinary
//! messages. It grants nothing. If it publishes a fact twice, the inbox knows it.
//!
//! The looks that are due are rows in Postgres. Several reconcilers share them and keep one rate. A row comes from a
//! new order, from the API when a buyer is back, or from `hints`.

mod hints;
mod look;

use crate::broker::{Publisher, PublisherSettings};
use crate::clock::Clock;
use crate::config::ReconcilerConfig;
use crate::domain::Provider;
use crate::http::Readiness;
use crate::needs::{PostgresNeeds, PublisherNeeds};
use crate::provider::{BuildError, Providers};
use crate::role::Role;
use crate::shutdown::Shutdown;
use crate::store::{self, ClaimTerms, DueLook, Store, StoreError};
use crate::telemetry::{Metrics, Need, Traces, causes};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hints::Hints;
use look::Look;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

/// How often the reconciler searches for looks that are due.
const EVERY: Duration = Duration::from_millis(500);

/// Looks a second at one provider, by all reconcilers together. Each takes up to three calls. Stripe allows 25 calls a
/// second in test mode and 100 in live mode (<https://docs.stripe.com/rate-limits>), and the site needs some of them.
const LOOKS_PER_S_MAX: u16 = 8;

/// How many looks at one provider may be under way in this process. Then no more are claimed.
const LOOKS_AT_ONCE_MAX: usize = 16;

/// How long a claimed look belongs to this process. It is longer than asking and publishing may take together.
const LEASE: Duration = Duration::from_secs(120);

/// How long one transaction may take.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(5);

/// How long to wait for a confirm.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(10);

/// Why the reconciler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ReconcilerError {
    /// The settings of the database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The settings of a provider cannot be used.
    #[error(transparent)]
    Provider(#[from] BuildError),
    /// No provider is configured that can be asked.
    #[error("no provider can be asked: set GRANTONCE_STRIPE_API_KEY, or GRANTONCE_PAYPAL_CLIENT_ID and …_SECRET")]
    NobodyToAsk,
}

/// Asks until the process stops. Then it finishes what is under way.
pub async fn run(
    config: ReconcilerConfig,
    clock: Clock,
    metrics: Metrics,
    traces: Traces,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), ReconcilerError> {
    let stop = shutdown.token();
    let providers = Providers::configured(config.providers)?;
    let asked: Vec<Provider> = providers.set_up().collect();
    if asked.is_empty() {
        return Err(ReconcilerError::NobodyToAsk);
    }
    let store = Store::new(&store::Settings {
        url: config.database.url,
        connections_max: 4,
        deadline: TRANSACTION_DEADLINE,
        profile: store::Profile::Operations,
    })?;
    let publisher = Publisher::start(&PublisherSettings {
        url: config.broker.url.clone(),
        name: "reconciler",
        lanes: 1,
        waiting_max: 4_096,
        confirm_deadline: CONFIRM_DEADLINE,
        clock: clock.clone(),
    });
    let needs = readiness.of(Role::Reconciler, &metrics);
    let watching =
        [PostgresNeeds::of(&needs).follow(&store, &clock), PublisherNeeds::of(&needs).follow(&publisher, None)];
    let (database_up, is_database_up) = watch::channel(false);
    let hints = Hints {
        amqp_url: config.broker.url,
        store: store.clone(),
        publisher: publisher.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        traces: traces.clone(),
        consumer: needs.flag(Need::HoldsAConsumer),
    };
    let hints = tokio::spawn(hints.take(is_database_up, stop.clone()));
    let look = Look {
        store: store.clone(),
        publisher,
        providers,
        first_after: time::Duration::try_from(config.first_look_after).unwrap_or(time::Duration::MAX),
        is_live: config.livemode,
        clock: clock.clone(),
        metrics: metrics.clone(),
        traces,
    };
    // Each provider has its own loop, so that a slow one does not hold up the others.
    let asking = asked.into_iter().map(|provider| {
        let asker = Asker { provider, look: &look, store: &store, clock: &clock };
        asker.ask(&database_up, &shutdown)
    });
    let hints_end = async {
        stop.cancelled().await;
        // It ends when the process stops, within the deadlines of the broker.
        if tokio::time::timeout(shutdown.drain_deadline(), hints).await.is_err() {
            tracing::warn!(event = "hints_left", "unfinished hints will be delivered again");
        }
    };
    tokio::join!(futures_util::future::join_all(asking), hints_end);
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    store.close(Duration::from_secs(1)).await;
    Ok(())
}

/// The loop that asks one provider.
struct Asker<'a> {
    provider: Provider,
    look: &'a Look,
    store: &'a Store,
    clock: &'a Clock,
}

impl Asker<'_> {
    /// Claims looks that are due and carries them out until the process stops. Then the looks under way have the drain
    /// deadline. The others come due again by themselves.
    async fn ask(self, database_up: &watch::Sender<bool>, shutdown: &Shutdown) {
        let stop = shutdown.token();
        let mut every = interval(EVERY);
        every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut in_hand = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(()) = in_hand.next(), if !in_hand.is_empty() => {}
                _ = every.tick(), if in_hand.len() < LOOKS_AT_ONCE_MAX => {
                    let claimed = self.claim().await;
                    database_up.send_replace(claimed.is_ok());
                    match claimed {
                        Ok(due) => in_hand.extend(due.into_iter().map(|due| self.look.at(due))),
                        Err(error) => {
                            tracing::warn!(event = "looks_not_claimed", cause = %causes(&error), "trying again");
                        }
                    }
                }
            }
        }
        let rest = async { while in_hand.next().await.is_some() {} };
        if tokio::time::timeout(shutdown.drain_deadline(), rest).await.is_err() {
            tracing::warn!(event = "looks_left", "unfinished questions to providers will be asked again");
        }
    }

    async fn claim(&self) -> Result<Vec<DueLook>, StoreError> {
        let (provider, now) = (self.provider.clone(), self.clock.now());
        self.store.claim_looks(ClaimTerms { provider, per_s_max: LOOKS_PER_S_MAX, lease: LEASE, now }).await
    }
}

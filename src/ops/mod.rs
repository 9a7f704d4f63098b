//! What operators work with: dead letters are collected, looked at and sent back to work here, and the console shows them.

pub mod amending;
mod checking;
mod collector;
mod console;
mod letter_content;
pub mod prospects;
mod queues;
pub mod replay;
mod standing;

use crate::broker::{Publisher, PublisherSettings};
use crate::clock::Clock;
use crate::config::{AdyenCapture, OpsConfig, OpsTerms};
use crate::domain::Reason;
use crate::http::{self, BearerTokens, BindError, Limits, Listener, Readiness};
use crate::needs::{PostgresNeeds, PublisherNeeds};
use crate::role::Role;
use crate::shutdown::Shutdown;
use crate::store::{self, Actor, LetterFilter, NewReplay, ReplayPace, Store, StoreError};
use crate::telemetry::{ListenerName, Metrics, Need, causes};
use crate::webhook;
use collector::Collector;
use console::Console;
use prospects::Terms;
use queues::watch_queues;
use replay::{Round, Runner};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long one transaction may take.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(20);

/// How long a confirm is awaited.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(10);

/// Between two rounds while replays are under way, and while none is.
const ROUND_EVERY: Duration = Duration::from_millis(200);
const IDLE_EVERY: Duration = Duration::from_secs(1);

/// After a round that failed.
const AFTER_FAILURE: Duration = Duration::from_secs(2);

/// How often open letters are counted.
const COUNT_EVERY: Duration = Duration::from_secs(10);

/// How often it is looked for settled letters whose time is over.
const EXPIRE_EVERY: Duration = Duration::from_secs(60 * 60);

/// Letters of the broker's delivery limit that one automatic replay takes.
const ONCE_MORE_MAX: u16 = 1_000;

/// At most so many of them a second; they wait for each other besides.
const ONCE_MORE_PER_S_MAX: u16 = 20;

/// Why ops cannot run.
#[derive(Debug, thiserror::Error)]
pub enum OpsError {
    /// The settings of the database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The listener ended by itself.
    #[error("the listener ended by itself")]
    ListenerLost,
}

impl From<OpsTerms> for Terms {
    fn from(terms: OpsTerms) -> Self {
        Self {
            webhook: webhook::Terms {
                livemode: terms.livemode,
                is_adyen_captured_by_hand: terms.adyen_capture == AdyenCapture::Manual,
            },
            dispute_policy: terms.dispute_policy,
        }
    }
}

/// Binds the configured address, and goes on as [`run_on`].
pub async fn run(
    config: OpsConfig,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), OpsError> {
    let listener = http::bind(ListenerName::Ops.name(), config.addr).await?;
    run_on(listener, config, clock, metrics, readiness, shutdown).await
}

/// Collects, replays and shows until the process stops. Waits out every outage.
pub async fn run_on(
    listener: Listener,
    config: OpsConfig,
    clock: Clock,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), OpsError> {
    let stop = shutdown.token();
    let store = Store::new(&store::Settings {
        url: config.database.url,
        connections_max: 8,
        deadline: TRANSACTION_DEADLINE,
        profile: store::Profile::Operations,
    })?;
    let publisher = Publisher::start(&PublisherSettings {
        url: config.broker.url.clone(),
        name: "ops replays",
        lanes: 1,
        waiting_max: 4_096,
        confirm_deadline: CONFIRM_DEADLINE,
        clock: clock.clone(),
    });
    let needs = readiness.of(Role::Ops, &metrics);
    let watching =
        [PostgresNeeds::of(&needs).follow(&store, &clock), PublisherNeeds::of(&needs).follow(&publisher, None)];
    let queues = watch_queues(config.broker.url.clone(), clock.clone(), metrics.clone(), stop.clone());
    let console = Console {
        store: store.clone(),
        terms: config.terms.into(),
        tokens: BearerTokens::following(&config.tokens),
        publisher: publisher.clone(),
        amqp_url: config.broker.url.clone(),
        management_url: config.management_url.clone(),
        clock: clock.clone(),
        metrics: metrics.clone(),
        queues,
        readiness: readiness.clone(),
    };
    let router = console::router(console).merge(http::health_router(readiness.clone()));
    let counted = metrics.clone();
    let listener = listener.on_response(move |route, status| {
        counted.http_request(ListenerName::Ops, route, status.as_u16());
    });
    let limits = Limits { keep_alive: config.keep_alive, ..Limits::default() };
    let served = http::serve(listener, router, limits, shutdown.clone());
    let (database_up, is_database_up) = watch::channel(false);
    let collector = Collector {
        amqp_url: config.broker.url,
        store: store.clone(),
        terms: Terms::from(config.terms).webhook,
        clock: clock.clone(),
        metrics: metrics.clone(),
        consumer: needs.flag(Need::HoldsAConsumer),
    };
    let collecting = tokio::spawn(collector.run(is_database_up, stop.clone()));
    let keeper = Keeper {
        runner: Runner { store: store.clone(), publisher, terms: config.terms.into(), clock, metrics },
        retention: time::Duration::try_from(config.dead_letter_retention).unwrap_or(time::Duration::MAX),
        counted: None,
        expired: None,
        deadlocks: None,
    };
    keeper.run(database_up, &stop).await;
    // It ends when the process stops, within the broker's own deadlines.
    if tokio::time::timeout(shutdown.drain_deadline(), collecting).await.is_err() {
        tracing::warn!(event = "letters_left", "unfinished dead letters will be delivered again");
    }
    watching.iter().for_each(tokio::task::JoinHandle::abort);
    let served = served.await;
    store.close(Duration::from_secs(1)).await;
    served.map_err(|_| OpsError::ListenerLost)
}

/// Does what is to be done about letters again and again.
struct Keeper {
    runner: Runner,
    retention: time::Duration,
    counted: Option<Instant>,
    expired: Option<Instant>,
    /// Of the whole life of the database, when last looked at.
    deadlocks: Option<i64>,
}

fn is_due(last: &mut Option<Instant>, every: Duration) -> bool {
    let now = Instant::now();
    let due = last.is_none_or(|last| now.duration_since(last) >= every);
    if due {
        *last = Some(now);
    }
    due
}

impl Keeper {
    async fn run(mut self, database_up: watch::Sender<bool>, stop: &CancellationToken) {
        loop {
            let round = self.round().await;
            database_up.send_replace(round.is_ok());
            let pause = match round {
                Ok(Round::UnderWay) => ROUND_EVERY,
                Ok(Round::Idle) => IDLE_EVERY,
                Err(error) => {
                    self.runner.metrics.ledger_unknown();
                    tracing::warn!(event = "letters_not_kept_up", cause = %causes(&error), "trying again");
                    AFTER_FAILURE
                }
            };
            // The pace of the rounds; what they look for cannot be awaited.
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    async fn round(&mut self) -> Result<Round, StoreError> {
        let round = self.runner.round().await?;
        let once_more = self.try_once_more().await?;
        if is_due(&mut self.counted, COUNT_EVERY) {
            self.count().await?;
        }
        if is_due(&mut self.expired, EXPIRE_EVERY) {
            let now = self.runner.clock.now();
            while self.runner.store.expire_letters(now - self.retention, now).await? > 0 {}
        }
        Ok(if once_more { Round::UnderWay } else { round })
    }

    /// What the broker gave up was often taken by somebody who died of something else. So it is tried once more by itself, each
    /// alone.
    async fn try_once_more(&self) -> Result<bool, StoreError> {
        let store = &self.runner.store;
        let letters = store.letters_never_retried(ONCE_MORE_MAX).await?;
        if letters.is_empty() {
            return Ok(false);
        }
        let under_way = store.replays_under_way().await?;
        if under_way.iter().any(|replay| replay.actor == BY_ITSELF) {
            return Ok(true);
        }
        let replay = NewReplay {
            selection: LetterFilter::of_ids([]),
            letters,
            per_s_max: ONCE_MORE_PER_S_MAX,
            pace: ReplayPace::Singly,
            by: Actor { name: BY_ITSELF.to_owned(), is_self_declared: false },
            reason: "the broker's delivery limit: once more, each alone".to_owned(),
            now: self.runner.clock.now(),
        };
        if let Some(begun) = store.begin_replay(replay).await? {
            tracing::info!(event = "letters_tried_once_more", replay = begun.id, letters = begun.letters);
        }
        Ok(true)
    }

    async fn count(&mut self) -> Result<(), StoreError> {
        let now = self.runner.clock.now();
        let open = self.runner.store.open_letters(now).await?;
        let known =
            |(name, count): &(String, i64)| Some((Reason::from_name(name)?, u64::try_from(*count).unwrap_or(0)));
        let by_reason: Vec<_> = open.by_reason.iter().filter_map(known).collect();
        let oldest_age = open.oldest_at.map(|at| Duration::try_from(now - at).unwrap_or_default());
        self.runner.metrics.dead_letters(&by_reason, oldest_age);
        self.runner.metrics.grants_missing(u64::try_from(open.grants_missing).unwrap_or(0));
        self.runner.metrics.overpaid_orders(u64::try_from(open.overpaid_orders).unwrap_or(0));
        let deadlocks = self.runner.store.deadlocks().await?;
        if let Some(before) = self.deadlocks.replace(deadlocks) {
            // After a failover, or a reset of the statistics, the server counts from zero.
            let more = if deadlocks < before { deadlocks } else { deadlocks - before };
            self.runner.metrics.postgres_deadlocks(u64::try_from(more).unwrap_or(0));
        }
        Ok(())
    }
}

/// Who does what nobody asked for.
const BY_ITSELF: &str = "grantonce";

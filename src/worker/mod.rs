//! The worker: takes deliveries in batches, applies each batch in one transaction, and settles it after the commit.
//!
//! ```text
//! fulfilment ─▶ fill a batch ─▶ judge each ─▶ apply (one transaction) ─▶ copy what is put off or dead ─▶ acknowledge
//!                 ▲                                                                                        │
//!                 └────────────── up to `batches_in_flight` at once, acknowledged in order ◀───────────────┘
//! ```

mod apply;
mod batch;
mod health;
mod judge;
mod payment_locks;
mod session;
mod settle;
mod trace;
mod unacknowledged;

use crate::broker::{self, BrokerError, Consumer, Publisher, PublisherSettings, WORK_QUEUE, Window};
use crate::clock::Clock;
use crate::config::{BatchConfig, WorkerConfig};
use crate::domain::Refusal;
use crate::findings::Fault;
use crate::http::Readiness;
use crate::retry::{Backoff, Failure, Limits, Unfinished, retry_until_ok};
use crate::shutdown::Shutdown;
use crate::store::{self, ChangedOrders, NoteBuffer, Store, StoreError};
use crate::telemetry::{Dependency, GivenBack, InboxMaintenance, Metrics, Traces};
use health::Health;
use payment_locks::PaymentLocks;
use session::{Ended, Session};
use std::time::Duration;
use tokio::task::JoinError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The pauses between tries to reach a dependency.
const RECONNECT: Limits =
    Limits { initial: Duration::from_millis(100), max: Duration::from_secs(5), give_up_after: None };

/// The pauses between sessions that acknowledged nothing. Each session may give a delivery back once, and the broker
/// counts that ([`broker::DELIVERY_LIMIT`]). At this pace it takes most of a day until the broker gives anything up.
const FRUITLESS: Limits =
    Limits { initial: Duration::from_millis(200), max: Duration::from_secs(600), give_up_after: None };

/// How long the last notes may take after a worker has drained.
const LAST_NOTES_DEADLINE: Duration = Duration::from_millis(500);

/// How often the partitions of the inbox are maintained.
const MAINTAIN_EVERY: Duration = Duration::from_secs(60 * 60);

/// How often the clock of this machine is compared with that of Postgres.
const COMPARE_CLOCKS_EVERY: Duration = Duration::from_secs(60);

/// If the clocks differ by more than this, the worker logs a warning.
const CLOCK_OFF_MAX: time::Duration = time::Duration::seconds(30);

/// How long the publisher waits for the confirm of a copy.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(5);

/// How long a batch waits for the confirms of its copies. Deliveries whose copies take longer then wait alone.
const COPY_PATIENCE: Duration = Duration::from_millis(500);

/// How many messages a narrow session acknowledges before the next session has its full width.
const NARROW_SESSION_MESSAGES: u64 = 200;

/// Runs until the process stops. Then it finishes the batches in hand, settles them and closes. It waits out every outage, and fails
/// only if its settings cannot be used.
pub async fn run(
    config: WorkerConfig,
    clock: Clock,
    metrics: Metrics,
    traces: Traces,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), StoreError> {
    let stop = shutdown.token();
    let publisher = Publisher::start(&PublisherSettings {
        url: config.broker.url.clone(),
        name: "worker copies",
        lanes: 1,
        waiting_max: config.batch.messages_max * (config.batch.workers + 1),
        confirm_deadline: CONFIRM_DEADLINE,
        clock: clock.clone(),
    });
    let health = Health::begin(&readiness, &metrics, &publisher);
    let note_buffer = NoteBuffer::default();
    // Messages are judged by the later of our clock and Postgres' clock: a clock that is behind would refuse genuine messages as if
    // they came from the future.
    let judging = clock.apart();
    let mut fruitless = Backoff::new(FRUITLESS);
    let mut is_narrow = false;
    let retention = time::Duration::try_from(config.inbox_retention).unwrap_or(time::Duration::MAX);
    // One store for the whole life: sessions that were given up count against its bound.
    let store = Store::new(&store::Settings {
        url: config.database.url.clone(),
        // One for each batch under way, one for announcements, one for notes, one for housekeeping.
        connections_max: u32::try_from(config.batch.workers).unwrap_or(u32::MAX).saturating_add(3),
        deadline: config.transaction_deadline,
        profile: store::Profile::Batches,
    })?;
    while database(&store, &clock, &health, &stop).await? {
        let housekeeping =
            tokio::spawn(keep_house(store.clone(), retention, clock.clone(), metrics.clone(), stop.clone()));
        let writing = note_buffer.write_through(store.clone());
        // Compared before the first delivery is judged.
        compare_clocks(&store, &clock, &judging).await;
        let comparing = tokio::spawn(keep_comparing_clocks(store.clone(), clock.clone(), judging.clone()));
        let looking = health.watch(&store, &config, &clock);
        let mut config = config.clone();
        if is_narrow {
            // One delivery at a time: a message that ends a session again and again is then alone in it.
            config.batch = BatchConfig { workers: 1, messages_max: 1, prefetch: 1, ..config.batch };
        }
        let ended = match consumer(&config, &health, &metrics, &stop).await {
            None => Ended { acknowledged: 0, given_back: 0, lost: None },
            Some(consumer) => {
                tracing::info!(event = "consuming", queue = WORK_QUEUE, prefetch = config.batch.prefetch);
                let session = Session {
                    config,
                    store: store.clone(),
                    publisher: publisher.clone(),
                    changed: ChangedOrders::announce_through(store.clone()),
                    note_buffer: note_buffer.clone(),
                    acknowledged_max: is_narrow.then_some(NARROW_SESSION_MESSAGES),
                    clock: judging.clone(),
                    metrics: metrics.clone(),
                    traces: traces.clone(),
                    payment_locks: PaymentLocks::default(),
                    stopping: stop.child_token(),
                    ended: CancellationToken::new(),
                };
                // In a task, because the runtime runs this function on the main thread, and its other tasks on others. Each
                // delivery would wake two threads more.
                let shutdown = shutdown.clone();
                let session = tokio::spawn(async move { session.run(consumer, &shutdown).await });
                match session.await.map_err(JoinError::try_into_panic) {
                    Ok(ended) => ended,
                    Err(Ok(panic)) => std::panic::resume_unwind(panic),
                    // The runtime is going away, and everything with it.
                    Err(Err(_canceled)) => break,
                }
            }
        };
        for task in [looking, housekeeping, writing, comparing] {
            task.abort();
        }
        let Ended { acknowledged, given_back, lost } = ended;
        match lost {
            None if stop.is_cancelled() => {
                tracing::info!(event = "drained", acknowledged, "all batches are settled");
                // The time of a shutdown is short. The last notes may take a small part of it.
                if tokio::time::timeout(LAST_NOTES_DEADLINE, note_buffer.write(&store)).await.is_err() {
                    tracing::debug!(event = "notes_lost", "stories and charts will lack the last second");
                }
                store.close(Duration::from_secs(1)).await;
                break;
            }
            None => {}
            Some(cause) if stop.is_cancelled() => {
                tracing::warn!(event = "not_drained", acknowledged, given_back, cause = %cause,
                    "stopped with batches in hand; what was committed is known to the inbox, the rest goes to others");
                metrics.given_back(GivenBack::Shutdown, given_back);
                break;
            }
            Some(cause) => {
                let dependency = cause.dependency();
                match dependency {
                    Dependency::Postgres => {
                        tracing::error!(event = "database_outage", acknowledged, given_back, cause = %cause,
                            "deliveries given back once; consuming again when Postgres takes writes");
                    }
                    Dependency::Rabbitmq => {
                        tracing::warn!(event = "broker_lost", acknowledged, given_back, cause = %cause, "connecting anew");
                    }
                }
                health.consumer_lost(dependency);
                metrics.given_back(cause.label(), given_back);
            }
        }
        // The broker counts how often a delivery is given back. A session that settled nothing is followed by one that has one
        // delivery in hand: if one message is the cause, the others are not given back with it.
        is_narrow = acknowledged == 0 && given_back > 0;
        if acknowledged > 0 {
            fruitless.reset();
            continue;
        }
        let pause = fruitless.next_pause();
        tracing::warn!(
            event = "pausing",
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            "the last session acknowledged nothing; a restart ends the pause"
        );
        // No event tells when the cause is gone, so the worker waits.
        if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            break;
        }
    }
    Ok(())
}

/// Waits until the database takes writes. `false` means that the process stopped meanwhile.
async fn database(store: &Store, clock: &Clock, health: &Health, stop: &CancellationToken) -> Result<bool, StoreError> {
    let rehearse = || async { health.rehearse(store, clock).await.map_err(Failure::Transient) };
    match retry_until_ok(RECONNECT, stop, "reaching Postgres", rehearse).await {
        Ok(()) => Ok(true),
        Err(Unfinished::Stopped) => Ok(false),
        Err(Unfinished::Failed(error)) => Err(error),
    }
}

/// Why consuming cannot begin yet.
#[derive(Debug, thiserror::Error)]
enum NotYet {
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// Without the retry queues and the dead letters a worker could only settle messages that it applies.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Topology(Vec<Fault>),
}

/// Waits until the broker and all its queues are there, and begins to consume. `None` means that the process stopped
/// meanwhile.
async fn consumer(
    config: &WorkerConfig,
    health: &Health,
    metrics: &Metrics,
    stop: &CancellationToken,
) -> Option<Consumer> {
    let open = || async {
        let faults = broker::inspect(&config.broker.url, &config.retry.delays).await.map_err(NotYet::from);
        match faults {
            Ok(faults) if faults.is_empty() => {}
            Ok(faults) => return Err(NotYet::Topology(faults)),
            Err(error) => return Err(error),
        }
        let window = Window { deliveries_max: config.batch.prefetch, bytes_max: config.batch.prefetch_bytes };
        let metrics = metrics.clone();
        let refused = move |refusal: &Refusal| metrics.dead_lettered(refusal.reason);
        let opened = Consumer::open(&config.broker.url, "worker", WORK_QUEUE, window, refused).await;
        opened.map_err(NotYet::from)
    };
    let told = || async {
        let opened = open().await;
        health.consuming(opened.as_ref().map(|_| ()));
        opened.map_err(Failure::Transient)
    };
    retry_until_ok(RECONNECT, stop, "reaching RabbitMQ", told).await.ok()
}

/// Puts the clock by which messages are judged forward if the clock of Postgres is ahead.
async fn compare_clocks(store: &Store, clock: &Clock, judging: &Clock) {
    let own = clock.clone();
    match store.clock_ahead(move || own.now()).await {
        Ok(ahead) => {
            judging.put_forward(ahead);
            if ahead.abs() > CLOCK_OFF_MAX {
                tracing::warn!(
                    event = "clock_off",
                    postgres_ahead_s = ahead.whole_seconds(),
                    "this machine's clock and Postgres' differ: set both by NTP. Messages are judged by the later one"
                );
            }
        }
        // The next comparison follows soon.
        Err(error) => tracing::debug!(event = "clocks_not_compared", cause = %error),
    }
}

async fn keep_comparing_clocks(store: Store, clock: Clock, judging: Clock) {
    // The clocks have just been compared.
    let begin = Instant::now() + COMPARE_CLOCKS_EVERY;
    let mut every = tokio::time::interval_at(begin, COMPARE_CLOCKS_EVERY);
    loop {
        every.tick().await;
        compare_clocks(&store, &clock, &judging).await;
    }
}

/// Creates the partitions of the inbox ahead of time and drops old ones.
async fn keep_house(store: Store, retention: time::Duration, clock: Clock, metrics: Metrics, stop: CancellationToken) {
    let mut every = tokio::time::interval(MAINTAIN_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = every.tick() => {}
        }
        let maintained = store.maintain_inbox(clock.now(), retention).await;
        let outcome = if maintained.is_ok() { InboxMaintenance::Done } else { InboxMaintenance::Failed };
        metrics.inbox_maintenance(outcome);
        match maintained {
            Ok(done) if done.made + done.dropped > 0 => {
                tracing::info!(event = "inbox_maintained", made = done.made, dropped = done.dropped);
            }
            Ok(_) => {}
            // Nothing is lost: rows of days without a partition go to the default partition.
            Err(error) => tracing::warn!(event = "inbox_not_maintained", cause = %error),
        }
        delete_old_notes(&store, retention, &clock, &stop).await;
    }
}

/// Deletes the notes of messages that the inbox has forgotten, some at a time.
async fn delete_old_notes(store: &Store, retention: time::Duration, clock: &Clock, stop: &CancellationToken) {
    let mut deleted = 0;
    while !stop.is_cancelled() {
        match store.maintain_notes(clock.now(), retention).await {
            Ok((notes, has_more)) => {
                deleted += notes;
                if !has_more {
                    break;
                }
            }
            Err(error) => {
                tracing::warn!(event = "notes_not_maintained", cause = %error);
                break;
            }
        }
    }
    if deleted > 0 {
        tracing::info!(event = "notes_maintained", deleted);
    }
}

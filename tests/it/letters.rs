//! Dead letters on real servers: collected, viewed, replayed and settled.

mod amending;
mod collecting;
mod command_line;
mod concerning;
mod filters;
mod large;
mod moved;
mod outages;
mod overpaid;
mod replaying;
mod settling;

use crate::support::messages::{captured, event_for};
use crate::support::world::World;
use bytes::Bytes;
use grantonce::broker::{DEAD_EXCHANGE, Headers, Outgoing, Publisher, PublisherSettings};
use grantonce::clock::Clock;
use grantonce::config::{Config, Environment, OpsConfig};
use grantonce::domain::{DisputePolicy, LetterId, PaymentEvent};
use grantonce::http::Readiness;
use grantonce::ops::prospects::{self, Preview, Terms};
use grantonce::ops::{self, OpsError};
use grantonce::shutdown::Shutdown;
use grantonce::store::{Actor, Letter, LetterFilter, LetterRow, NewReplay, Replay, ReplayPace, Store};
use grantonce::telemetry::Metrics;
use grantonce::webhook;
use grantonce_testkit::children::Child;
use grantonce_testkit::wait::{eventually, eventually_within};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The token of the operator in these tests.
pub const OPS_TOKEN: &str = "a-token-of-ada-for-the-tests";

/// The ops role, in this process.
pub struct RunningOps {
    stop: CancellationToken,
    pub metrics: Metrics,
    task: JoinHandle<Result<(), OpsError>>,
}

impl RunningOps {
    /// Starts the role on the servers of a world.
    pub fn start(world: &World) -> Self {
        let environment: Environment = [
            ("DATABASE_URL", world.database_url.as_str()),
            ("AMQP_URL", world.amqp_url.as_str()),
            ("GRANTONCE_LIVEMODE", "false"),
            ("GRANTONCE_OPS_ADDR", "127.0.0.1:0"),
            ("GRANTONCE_OPS_TOKENS", &format!("ada:{OPS_TOKEN}")),
        ]
        .into_iter()
        .collect();
        let config = Config::<OpsConfig>::from_env(&environment).unwrap().role;
        let (shutdown, metrics) = (Shutdown::manual(), Metrics::new());
        let stop = shutdown.token();
        let run = ops::run(config, Clock::system(), metrics.clone(), Readiness::new(), shutdown);
        Self { stop, metrics, task: tokio::spawn(run) }
    }

    /// Stops the role as SIGTERM does, and waits for its end.
    pub async fn stop(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(15), self.task).await;
        ended.expect("ops ends in time").expect("ops does not panic").unwrap();
    }
}

/// The longest time that a child may take to start or to end.
pub const START: Duration = Duration::from_secs(30);

/// The ops role in its own process, which a test can kill.
pub async fn ops_child(world: &World, name: &str) -> Child {
    let children = world.children().env("GRANTONCE_OPS_ADDR", "127.0.0.1:0");
    let children = children.env("GRANTONCE_OPS_TOKENS", format!("ada:{OPS_TOKEN}"));
    children.start(name, &["ops"]).await.unwrap()
}

/// The terms for all dead letters of these tests.
pub const TERMS: Terms = Terms {
    webhook: webhook::Terms { livemode: false, is_adyen_captured_by_hand: false },
    dispute_policy: DisputePolicy::Hold,
};

pub fn ada() -> Actor {
    Actor { name: "ada".to_owned(), is_self_declared: false }
}

/// A capture of 19.99 US dollars.
pub fn paid(payment: &str, message: &str) -> PaymentEvent {
    event_for(payment, message, captured(1999))
}

/// The message of an event in the dead-letter exchange, without a reason.
pub fn letter_of(event: &PaymentEvent) -> Outgoing {
    Outgoing { exchange: DEAD_EXCHANGE, ..Outgoing::payment_status(event).unwrap() }
}

/// The message of a stored dead letter, as it first arrived.
pub fn copy_of(letter: &Letter) -> Outgoing {
    Outgoing {
        exchange: DEAD_EXCHANGE,
        routing_key: letter.routing_key.clone(),
        message_id: letter.row.message_id.clone(),
        kind: letter.row.kind.clone(),
        content_type: "application/json",
        headers: Headers::default(),
        body: Bytes::from(letter.body.clone().unwrap()),
    }
}

/// Every dead letter.
pub async fn all_letters(store: &Store) -> Vec<LetterRow> {
    let states = ["open", "replaying", "resolved", "archived"].map(str::to_owned).to_vec();
    let filter = LetterFilter { states, ..LetterFilter::default() };
    store.letters(filter, None, 500).await.unwrap().letters
}

/// Waits for a dead letter, and returns it. There must be only one.
pub async fn the_letter(store: &Store) -> LetterRow {
    let mut letters = vec![];
    eventually("a dead letter is collected", async || {
        letters = all_letters(store).await;
        !letters.is_empty()
    })
    .await;
    assert_eq!(letters.len(), 1, "{letters:#?}");
    letters.remove(0)
}

/// Waits until a dead letter is in `state`.
pub async fn until(store: &Store, id: LetterId, state: &str) -> Letter {
    let mut found = None;
    eventually(&format!("dead letter {id} is {state}"), async || {
        found = store.letter(id).await.unwrap();
        found.as_ref().is_some_and(|letter| letter.row.state.name() == state)
    })
    .await;
    found.unwrap()
}

pub async fn preview(store: &Store, filter: LetterFilter) -> Preview {
    prospects::preview(store, &TERMS, filter, OffsetDateTime::now_utc()).await.unwrap()
}

/// Begins a replay of these dead letters.
pub async fn replay(store: &Store, letters: Vec<LetterId>, pace: ReplayPace) -> Option<i64> {
    let replay = NewReplay {
        selection: LetterFilter::of_ids(letters.iter().copied()),
        letters,
        per_s_max: 1_000,
        pace,
        by: ada(),
        reason: "mended, ticket 4711".to_owned(),
        now: OffsetDateTime::now_utc(),
    };
    store.begin_replay(replay).await.unwrap().map(|begun| begun.id)
}

/// Waits until every outcome of a replay is known.
pub async fn ended(store: &Store, id: i64) -> Replay {
    let mut found = None;
    eventually(&format!("replay {id} has ended"), async || {
        found = store.replay(id).await.unwrap();
        found.as_ref().is_some_and(|replay| replay.ended_at.is_some())
    })
    .await;
    found.unwrap()
}

/// The part of ops that sends replays. The test decides when it runs.
pub fn runner(world: &World) -> ops::replay::Runner {
    ops::replay::Runner {
        store: world.store(),
        publisher: Publisher::start(&PublisherSettings {
            url: world.amqp_url.parse().unwrap(),
            name: "test replays",
            lanes: 1,
            waiting_max: 10_000,
            confirm_deadline: Duration::from_secs(20),
            clock: Clock::system(),
        }),
        terms: TERMS,
        clock: Clock::system(),
        metrics: Metrics::new(),
    }
}

/// Collects dead letters of unknown payments, `pi_0` and so on, as a worker makes them.
pub async fn unknown_payments(world: &World, count: usize) {
    let store = world.store();
    for n in 0..count {
        world.publish_raw(letter_of(&paid(&format!("pi_{n}"), &format!("evt_{n}")))).await;
    }
    let ops = RunningOps::start(world);
    let all = i64::try_from(count).unwrap();
    eventually_within(Duration::from_secs(120), "all are collected", async || {
        store.count_letters(LetterFilter::default()).await.unwrap() == all
    })
    .await;
    ops.stop().await;
}

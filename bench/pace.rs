//! How long the worker needs for a message at a given rate, and how much processor time. Messages go straight to RabbitMQ, so
//! that rates are possible for which the HTTP roles would need the whole machine. Settings are compared by turns.

use crate::cpu::Processes;
use crate::facts;
use crate::figures::{cell, median, percentile, round, table};
use crate::places::{Place, Servers, body, connect, distinct, message_id, order_id};
use crate::sides::environment;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use grantonce::broker::{Headers, Outgoing, PAYMENTS_EXCHANGE, Publisher, PublisherSettings};
use grantonce::clock::Clock;
use grantonce::domain::Provider;
use grantonce::message;
use grantonce::message::routing_key;
use serde_json::{Map, Value, json};
use sqlx::postgres::PgListener;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// How long the last orders may take after the last message was due.
const GIVE_UP: Duration = Duration::from_secs(60);

/// How often the messages that are due are published.
const PUBLISH_EVERY: Duration = Duration::from_millis(1);

/// How long the load runs before anything is counted.
const WARM: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Messages a second; each setting runs at each rate
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "100,1000,10000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rates: Vec<u32>,
    /// Duration of each run, without the first second
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds for each rate and setting
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Compare the defaults with these variables; each use of the option is one more setting
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = setting)]
    compare: Vec<String>,
}

/// Checks a setting before anything is started.
fn setting(text: &str) -> Result<String, &'static str> {
    let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| !name.is_empty());
    text.split(',').all(is_pair).then(|| text.to_owned()).ok_or("must be NAME=VALUE, or several of them by commas")
}

/// The figures of one run. Times begin when the message was due.
const FIGURES: [&str; 9] = [
    "in_hand_p50_ms",
    "in_hand_p99_ms",
    "announced_p50_ms",
    "announced_p99_ms",
    "messages_per_batch",
    "worker_us",
    "postgres_us",
    "rabbitmq_us",
    "together_us",
];

type Figures = [Option<f64>; FIGURES.len()];

/// One rate with one setting.
struct Lane<'a> {
    per_s: u32,
    setting: &'a str,
    rounds: Vec<Figures>,
}

impl Lane<'_> {
    fn medians(&self) -> Figures {
        std::array::from_fn(|at| median(self.rounds.iter().map(|figures| figures[at])))
    }
}

pub(crate) async fn pace(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let processes = Processes::of(&servers).await;
    let most = args.rates.iter().max().copied().unwrap_or(0) * (args.seconds + WARM.as_secs() as u32);
    let template = servers.template(most).await;
    let settings = || std::iter::once("").chain(args.compare.iter().map(String::as_str));
    let lane =
        |per_s: &u32| settings().map(|setting| Lane { per_s: *per_s, setting, rounds: vec![] }).collect::<Vec<_>>();
    let mut lanes: Vec<Lane<'_>> = args.rates.iter().flat_map(lane).collect();
    for n in 1..=args.rounds {
        for lane in &mut lanes {
            let place = servers.place(&template).await;
            let figures = one_run(&place, processes, lane.per_s, args.seconds, lane.setting).await;
            place.remove().await;
            let told = FIGURES.iter().zip(figures).map(|(name, figure)| format!("{name} {}", cell(figure, 1)));
            let told = told.collect::<Vec<_>>().join(", ");
            eprintln!("round {n}/{}: {}/s, {}: {told}", args.rounds, lane.per_s, name(lane.setting));
            lane.rounds.push(figures);
        }
    }
    if json {
        let of = |lane: &Lane<'_>| {
            let figures = FIGURES.iter().zip(lane.medians());
            let figures =
                figures.map(|(name, figure)| ((*name).to_owned(), figure.map(|figure| round(figure, 1)).into()));
            let mut all: Map<String, Value> = figures.collect();
            all.insert("per_s".to_owned(), lane.per_s.into());
            all.insert("set".to_owned(), lane.setting.into());
            Value::Object(all)
        };
        let mut result = facts::about(&servers, processes, Map::new()).await;
        let figures =
            json!({"pace": lanes.iter().map(of).collect::<Vec<_>>(), "n": args.rounds, "seconds": args.seconds});
        result.extend(figures.as_object().cloned().unwrap());
        println!("{}", Value::Object(result));
    } else {
        let mut rows = vec![["messages/s", "set"].iter().chain(&FIGURES).map(|head| (*head).to_owned()).collect()];
        for lane in &lanes {
            let cells = lane.medians().map(|figure| cell(figure, 1));
            rows.push([lane.per_s.to_string(), name(lane.setting).to_owned()].into_iter().chain(cells).collect());
        }
        println!("{}", table(&rows));
    }
}

fn name(setting: &str) -> &str {
    if setting.is_empty() { "defaults" } else { setting }
}

async fn one_run(place: &Place, processes: Processes, rate: u32, seconds: u32, setting: &str) -> Figures {
    let logs = tempfile::tempdir().unwrap();
    let children = setting.split_terminator(',').fold(environment(place, logs.path().into()), |children, pair| {
        let (name, value) = pair.split_once('=').unwrap();
        children.env(name, value)
    });
    let mut worker = children.start("worker", &["worker"]).await.unwrap();
    worker.consuming(START_DEADLINE).await.unwrap();
    let publisher = Publisher::start(&PublisherSettings {
        url: place.amqp_url.parse().unwrap(),
        name: "pace",
        lanes: 1,
        waiting_max: 100_000,
        confirm_deadline: Duration::from_secs(30),
        clock: Clock::system(),
    });
    publisher.ability().wait_for(|ability| ability.check().is_ok()).await.unwrap();
    let mut listener = PgListener::connect(&place.database_url).await.unwrap();
    listener.listen("grantonce_orders").await.unwrap();

    let (warm, count) = (rate * WARM.as_secs() as u32, rate * (seconds + WARM.as_secs() as u32));
    let after_start = move |n: u32| Duration::from_secs_f64(f64::from(n) / f64::from(rate));
    let (start, start_at) = (Instant::now(), OffsetDateTime::now_utc());
    let publishing = tokio::spawn(publish(publisher, count, start, after_start));
    let announced = tokio::spawn(async move {
        let mut at: Vec<Option<Instant>> = vec![None; count as usize];
        let mut left = count;
        while left > 0 {
            let news = listener.recv().await.unwrap();
            let now = Instant::now();
            for id in news.payload().as_bytes().chunks(32) {
                let id = uuid::Uuid::try_parse_ascii(id).unwrap();
                // The lowest bits of an order's id are its number.
                let seen = &mut at[(id.as_u128() & u128::from(u32::MAX)) as usize];
                left -= u32::from(seen.is_none());
                seen.get_or_insert(now);
            }
        }
        at
    });
    tokio::time::sleep_until((start + WARM).into()).await;
    let before = processes.used(worker.pid());
    let deadline = start + after_start(count) + GIVE_UP;
    let announced = tokio::time::timeout_at(deadline.into(), announced).await;
    let announced = announced.unwrap_or_else(|_| panic!("not all orders were announced\n{}", worker.tail())).unwrap();
    let cpu_us = processes.used(worker.pid()).per_message(before, f64::from(count - warm));
    publishing.await.unwrap();
    place.check(distinct(&(0..count).collect::<Vec<_>>())).await.unwrap();
    worker.terminate(Duration::from_secs(10)).await.unwrap();

    let mut sql = connect(&place.database_url).await;
    let granted: Vec<OffsetDateTime> =
        sqlx::query_scalar("SELECT granted_at FROM credit_grants WHERE order_id >= $1 ORDER BY order_id")
            .bind(order_id(warm))
            .fetch_all(&mut sql)
            .await
            .unwrap();
    let ms = |waited: f64| waited * 1000.0;
    let due = (warm..count).map(after_start);
    let in_hand = granted.iter().zip(due.clone()).map(|(at, due)| ms((*at - (start_at + due)).as_seconds_f64()));
    let mut in_hand: Vec<f64> = in_hand.collect();
    let announced = announced[warm as usize..].iter().zip(due);
    let mut announced: Vec<f64> = announced.map(|(at, due)| ms((at.unwrap() - (start + due)).as_secs_f64())).collect();
    // All grants of a batch have the same time.
    let mut batches = granted;
    batches.sort_unstable();
    batches.dedup();
    let [worker_us, postgres_us, rabbitmq_us] = cpu_us;
    [
        Some(percentile(&mut in_hand, 0.5)),
        Some(percentile(&mut in_hand, 0.99)),
        Some(percentile(&mut announced, 0.5)),
        Some(percentile(&mut announced, 0.99)),
        Some(f64::from(count - warm) / batches.len() as f64),
        worker_us,
        postgres_us,
        rabbitmq_us,
        cpu_us.into_iter().sum(),
    ]
}

/// Publishes each message when it is due, and waits until the broker has confirmed all of them.
async fn publish(publisher: Publisher, count: u32, start: Instant, after_start: impl Fn(u32) -> Duration) {
    let stripe = Provider::new("stripe").unwrap();
    let now = OffsetDateTime::now_utc();
    let mut under_way = FuturesUnordered::new();
    let mut every = tokio::time::interval(PUBLISH_EVERY);
    let mut next = 0;
    while next < count || !under_way.is_empty() {
        tokio::select! {
            biased;
            _ = every.tick(), if next < count => {
                while next < count && after_start(next) <= start.elapsed() {
                    under_way.push(publisher.publish(Outgoing {
                        exchange: PAYMENTS_EXCHANGE,
                        routing_key: routing_key(&stripe),
                        message_id: message_id(next),
                        kind: message::TYPE.to_owned(),
                        content_type: message::CONTENT_TYPE,
                        headers: Headers::default(),
                        body: body(next, now).into(),
                    }));
                    next += 1;
                }
            }
            Some(confirmed) = under_way.next(), if !under_way.is_empty() => drop(confirmed.unwrap()),
        }
    }
}

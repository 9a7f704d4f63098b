//! How fast one worker process drains a queue that is full when it starts.
//!
//! `./dev bench drain [--messages N] [--rounds N] [--json]`. The real binary, the real servers, full durability: a
//! quorum queue, `fsync` and `synchronous_commit` as the server has them. Every tenth message is a copy of another. After
//! each round the ledger is checked: one grant for each paid order.
//!
//! Beside each round stand the machine's limits at that moment (`limits.rs`), because a rate alone tells more of the
//! machine than of the worker. `--no-limits` leaves them out.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a measuring tool may panic and prints its result"
)]

mod limits;
mod work;

use grantonce::sim::children::Children;
use limits::Limits;
use std::time::{Duration, Instant};
use work::Work;

const DEADLINE: Duration = Duration::from_secs(300);

/// What is asked for.
struct Args {
    messages: u32,
    rounds: u32,
    limits: bool,
    json: bool,
}

fn args() -> Args {
    let mut args = Args { messages: 100_000, rounds: 3, limits: true, json: false };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let number = |given: Option<String>| given.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        match arg.as_str() {
            "--messages" => args.messages = number(given.next()).expect("--messages takes a number above 0"),
            "--rounds" => args.rounds = number(given.next()).expect("--rounds takes a number above 0"),
            "--no-limits" => args.limits = false,
            "--json" => args.json = true,
            // What `cargo bench` adds by itself.
            "--bench" => {}
            other => {
                eprintln!(
                    "no such option: {other}\nusage: ./dev bench drain [--messages N] [--rounds N] [--no-limits] [--json]"
                );
                std::process::exit(2);
            }
        }
    }
    args
}

/// One round's figures.
struct Round {
    msgs_per_s: f64,
    first_settled_ms: f64,
}

/// Messages that the worker has applied or recognised, by its own metrics.
async fn settled(http: &reqwest::Client, metrics_url: &str) -> u64 {
    let text = http.get(metrics_url).send().await.unwrap().text().await.unwrap();
    let value = |outcome: &str| {
        let name = format!("grantonce_messages_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
    };
    value("applied") + value("duplicate")
}

async fn round(orders: u32, messages: &[u32]) -> Round {
    let work = Work::make(orders, messages).await;
    let logs = tempfile::tempdir().unwrap();
    let children = Children::new(env!("CARGO_BIN_EXE_grantonce"), logs.path())
        .env("DATABASE_URL", &work.database_url)
        .env("AMQP_URL", &work.amqp_url)
        .env("GRANTONCE_LIVEMODE", "false")
        .env("GRANTONCE_RETRY_DELAYS", "5s")
        .env("GRANTONCE_METRICS_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_LOG_FORMAT", "json");
    // Settings under trial: BENCH_WORKERS=4 is GRANTONCE_WORKERS=4.
    let children = std::env::vars()
        .filter_map(|(name, value)| Some((format!("GRANTONCE_{}", name.strip_prefix("BENCH_")?), value)))
        .fold(children, |children, (name, value)| children.env(name, value));
    let http = grantonce::http::plain_client().build().unwrap();
    let all = messages.len() as u64;
    let started = Instant::now();
    let mut worker = children.start("worker", &["worker"]).await.unwrap();
    let address = worker.listening("metrics", DEADLINE).await.unwrap();
    let metrics_url = format!("http://{address}/metrics");
    let mut first: Option<(Instant, u64)> = None;
    let (begun, ended) = loop {
        let done = settled(&http, &metrics_url).await;
        let now = Instant::now();
        if done > 0 && first.is_none() {
            first = Some((now, done));
        }
        if done >= all {
            break (first.unwrap(), now);
        }
        assert!(started.elapsed() < DEADLINE, "only {done} of {all} after {} s\n{}", DEADLINE.as_secs(), worker.tail());
        // Asking costs the worker something, too.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    worker.terminate(Duration::from_secs(10)).await.unwrap();

    assert_eq!(work.grants().await, i64::from(orders), "one grant for each paid order");
    work.remove().await;
    let elapsed = ended - begun.0;
    Round {
        msgs_per_s: (all - begun.1) as f64 / elapsed.as_secs_f64(),
        first_settled_ms: (begun.0 - started).as_millis() as f64,
    }
}

/// Median, least and greatest.
struct Spread {
    median: f64,
    min: f64,
    max: f64,
}

impl Spread {
    fn of(figures: impl Iterator<Item = f64>) -> Option<Self> {
        let mut figures: Vec<f64> = figures.collect();
        figures.sort_by(f64::total_cmp);
        Some(Self { median: *figures.get(figures.len() / 2)?, min: *figures.first()?, max: *figures.last()? })
    }

    fn json(&self, digits: i32) -> serde_json::Value {
        let round = |figure: f64| (figure * 10_f64.powi(digits)).round() / 10_f64.powi(digits);
        serde_json::json!({"median": round(self.median), "min": round(self.min), "max": round(self.max)})
    }
}

#[tokio::main]
async fn main() {
    let args = args();
    let orders = args.messages - args.messages / 10;
    let messages = work::messages(orders, args.messages);
    let mut rounds: Vec<(Round, Option<Limits>)> = vec![];
    for n in 1..=args.rounds {
        let round = round(orders, &messages).await;
        eprintln!(
            "round {n}: {:.0} messages/s, first settled {:.0} ms after the start",
            round.msgs_per_s, round.first_settled_ms
        );
        let limits = if args.limits { Some(limits::measure(orders, &messages).await) } else { None };
        if let Some(Limits { broker, database, combined }) = &limits {
            eprintln!("  limits: broker {broker:.0}, database {database:.0}, both at once {combined:.0} messages/s");
        }
        rounds.push((round, limits));
    }
    let limit = |of: fn(&Limits) -> f64| Spread::of(rounds.iter().filter_map(|(_, limits)| limits.as_ref().map(of)));
    let rows = [
        ("msgs_per_s", 0, Spread::of(rounds.iter().map(|(round, _)| round.msgs_per_s))),
        ("first_settled_ms", 0, Spread::of(rounds.iter().map(|(round, _)| round.first_settled_ms))),
        ("limit_broker_msgs_per_s", 0, limit(|limits| limits.broker)),
        ("limit_database_msgs_per_s", 0, limit(|limits| limits.database)),
        ("limit_combined_msgs_per_s", 0, limit(|limits| limits.combined)),
        // Of each round, not of the medians: what slows one slows its neighbours.
        (
            "ratio_to_combined_limit",
            2,
            Spread::of(rounds.iter().filter_map(|(round, limits)| Some(round.msgs_per_s / limits.as_ref()?.combined))),
        ),
    ];
    let rows = rows.into_iter().filter_map(|(name, digits, spread)| Some((name, digits, spread?)));
    if args.json {
        let figures: serde_json::Map<_, _> =
            rows.map(|(name, digits, spread)| (name.to_owned(), spread.json(digits))).collect();
        let mut json = serde_json::json!({
            "messages": args.messages, "duplicates": args.messages / 10, "rounds": args.rounds
        });
        json.as_object_mut().unwrap().extend(figures);
        println!("{json}");
    } else {
        println!("{:26} {:>9} {:>9} {:>9}", format!("{} messages", args.messages), "median", "min", "max");
        for (name, digits, Spread { median, min, max }) in rows {
            let digits = usize::try_from(digits).unwrap();
            println!("{name:26} {median:9.digits$} {min:9.digits$} {max:9.digits$}");
        }
    }
}

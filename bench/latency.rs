//! How long a buyer waits: from the webhook, sent when it was due, to the answer of a long-poll that says fulfilled.

use crate::facts;
use crate::figures::{percentile, round, table};
use crate::load::{Http, SECRET, webhook};
use crate::places::{Servers, distinct, order_id};
use crate::sides::environment;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use std::time::{Duration, Instant};

const START_DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: &str = "the-benchmarks-own-token-of-32-characters";

/// How long before its webhook a buyer begins to wait.
const LEAD: Duration = Duration::from_millis(50);

/// How long one order may take before its lane comes late to its next one.
const PATIENCE: Duration = Duration::from_millis(400);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Webhooks a second, one run each
    #[arg(long, value_delimiter = ',', default_values_t = [100, 1_000, 5_000])]
    rates: Vec<u32>,
    /// How long each run takes, without its first two seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    seconds: u32,
    /// How often each rate is run
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Seconds at the beginning that are not counted.
const WARM_S: u32 = 2;

pub(crate) async fn latency(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let most = args.rates.iter().max().copied().unwrap_or(0) * (args.seconds + WARM_S);
    let template = servers.template(most).await;
    let mut figures: Vec<(u32, Vec<[f64; 4]>)> = args.rates.iter().map(|rate| (*rate, vec![])).collect();
    for n in 1..=args.rounds {
        for (rate, rounds) in &mut figures {
            let place = servers.place(&template).await;
            let [p50, p90, p99, max] = one_run(&place, *rate, args.seconds).await;
            eprintln!("round {n}/{}: {rate}/s: p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.0} ms", args.rounds);
            rounds.push([p50, p90, p99, max]);
            place.remove().await;
        }
    }
    let median = |rounds: &[[f64; 4]], at: usize| {
        let mut of_all: Vec<f64> = rounds.iter().map(|round| round[at]).collect();
        percentile(&mut of_all, 0.5)
    };
    let names = ["p50_ms", "p90_ms", "p99_ms", "max_ms"];
    if json {
        let of = |rounds: &[[f64; 4]]| -> Map<String, Value> {
            names
                .iter()
                .enumerate()
                .map(|(at, name)| ((*name).to_owned(), round(median(rounds, at), 1).into()))
                .collect()
        };
        let rates: Map<String, Value> =
            figures.iter().map(|(rate, rounds)| (rate.to_string(), Value::Object(of(rounds)))).collect();
        let (machine, versions) = (facts::machine(&servers).await, facts::versions(&servers).await);
        println!(
            "{}",
            json!({"webhook_to_fulfilled_ms": rates, "n": args.rounds, "seconds": args.seconds, "machine": machine,
                   "versions": versions, "commit": facts::commit()})
        );
    } else {
        let mut rows = vec![["webhooks/s", "p50 ms", "p90 ms", "p99 ms", "max ms"].map(str::to_owned).to_vec()];
        for (rate, rounds) in &figures {
            let cells = (0..names.len()).map(|at| format!("{:.1}", median(rounds, at)));
            rows.push(std::iter::once(rate.to_string()).chain(cells).collect());
        }
        println!("{}", table(&rows));
    }
}

async fn one_run(place: &crate::places::Place, rate: u32, seconds: u32) -> [f64; 4] {
    let logs = tempfile::tempdir().unwrap();
    let children = environment(place, logs.path().into())
        .env("GRANTONCE_RECEIVER_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_API_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_API_TOKENS", format!("bench:{TOKEN}"))
        .env("GRANTONCE_STATUS_TOKEN_KEY", "0123456789abcdef".repeat(4))
        .env("GRANTONCE_STRIPE_WEBHOOK_SECRETS", SECRET);
    let mut worker = children.start("worker", &["worker"]).await.unwrap();
    let mut receiver = children.start("receiver", &["receiver"]).await.unwrap();
    let mut api = children.start("api", &["api"]).await.unwrap();
    worker.consuming(START_DEADLINE).await.unwrap();
    let to_receiver = receiver.listening("receiver", START_DEADLINE).await.unwrap();
    let to_api = api.listening("api", START_DEADLINE).await.unwrap();

    let count = rate * (seconds + WARM_S);
    let side_by_side = (f64::from(rate) * PATIENCE.as_secs_f64()).ceil() as u32 + 8;
    let start = Instant::now() + Duration::from_secs(1);
    let lanes = (0..side_by_side.min(count)).map(|lane| {
        tokio::spawn(async move {
            let (mut sender, mut buyer) = tokio::join!(Http::connect(to_receiver), Http::connect(to_api));
            let mut took = vec![];
            for n in (lane..count).step_by(side_by_side as usize) {
                let due = start + Duration::from_secs_f64(f64::from(n) / f64::from(rate));
                let waited = one_order(&mut sender, &mut buyer, n, due).await;
                if n >= rate * WARM_S {
                    took.push(waited.as_secs_f64() * 1000.0);
                }
            }
            took
        })
    });
    let took = join_all(lanes).await.into_iter().flat_map(Result::unwrap);
    let mut took: Vec<f64> = took.collect();
    place.check(distinct(&(0..count).collect::<Vec<_>>())).await;
    for child in [&mut worker, &mut receiver, &mut api] {
        child.terminate(Duration::from_secs(10)).await.unwrap();
    }
    [0.5, 0.9, 0.99, 1.0].map(|share| percentile(&mut took, share))
}

/// Waits for an order, sends its webhook when that is due, and says how much later the order was seen fulfilled: later than
/// it was *due*, so that a stall counts for all who came during it.
async fn one_order(sender: &mut Http, buyer: &mut Http, n: u32, due: Instant) -> Duration {
    tokio::time::sleep_until((due - LEAD).into()).await;
    let request = format!(
        "GET /v1/orders/{}?wait=20 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
        order_id(n)
    );
    let seen = async {
        loop {
            let (status, body) = buyer.send(request.as_bytes()).await;
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
            let order: Value = serde_json::from_slice(body).unwrap();
            if order["status"] == "fulfilled" {
                return Instant::now();
            }
        }
    };
    let sent = async {
        tokio::time::sleep_until(due.into()).await;
        let (status, body) = sender.send(&webhook(n, time::OffsetDateTime::now_utc().unix_timestamp())).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
    };
    let (seen, ()) = tokio::join!(seen, sent);
    seen - due
}

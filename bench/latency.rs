//! How long a buyer waits from the moment when the webhook is due until a long poll answers that the order is fulfilled.
//! Also how much processor time each process uses for an order, and how much while nothing happens.

use crate::cpu::{Processes, since};
use crate::facts;
use crate::figures::{cell, cost_us, median, percentile, round, table};
use crate::load::{Http, SECRET, webhook};
use crate::places::{Place, Servers, connect, distinct, order_id};
use crate::sides::environment;
use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use time::OffsetDateTime;

const START_DEADLINE: Duration = Duration::from_secs(20);
const TOKEN: &str = "the-benchmarks-own-token-of-32-characters";

/// How long before the webhook the buyer begins to wait.
const LEAD: Duration = Duration::from_millis(50);

/// How long after an answer of 503 the request is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// The longest time that one order may take.
const GIVE_UP: Duration = Duration::from_secs(60);

/// How long one order may take before the next one of its lane is late.
const PATIENCE: Duration = Duration::from_millis(400);

/// How long the started processes are left alone before their idle time is measured.
const SETTLE: Duration = Duration::from_secs(1);

/// How long the processes are idle while their processor time is measured.
const IDLE: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Webhooks a second; one run for each rate
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "100,1000,5000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rates: Vec<u32>,
    /// Duration of each run, without the first two seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Rounds for each rate
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Seconds at the beginning of the load that are not counted.
const WARM_S: u32 = 2;

/// The figures of one run. Times are in milliseconds and begin when the webhook was due.
struct Taken {
    /// Until the receiver answered the webhook, which the broker had confirmed.
    answered: Vec<f64>,
    /// Until a worker had the message.
    in_hand: Vec<f64>,
    /// Until the waiting buyer was answered that the order is fulfilled.
    seen: Vec<f64>,
    /// The number of requests that were answered 503 and sent again.
    put_off: u32,
    cpu: Cpu,
    /// One for each of `COUNTS`. `None` means not measured.
    counts: [Option<f64>; COUNTS.len()],
}

/// The work of Postgres for one order. A server without pg_stat_statements does not count its statements. Transactions are
/// those of the whole run, because sessions report them late.
const COUNTS: [&str; 2] = ["statements", "transactions"];

/// The processor time of each of `CONSUMERS`. `None` means not measured.
struct Cpu {
    /// For one order in microseconds, without the share that an idle process uses.
    per_order_us: [Option<f64>; CONSUMERS.len()],
    /// For one second in which nothing happens, in microseconds.
    idle_us_per_s: [Option<f64>; CONSUMERS.len()],
}

/// The processes whose processor time is measured. `load` is this program: the provider and the buyers.
const CONSUMERS: [&str; 6] = ["worker", "receiver", "api", "load", "postgres", "rabbitmq"];

const STAGES: [&str; 3] = ["answered", "in_hand", "seen"];
const SHARES: [(&str, f64); 4] = [("p50_ms", 0.5), ("p90_ms", 0.9), ("p99_ms", 0.99), ("max_ms", 1.0)];

/// The percentiles of one stage in one run.
type Percentiles = [f64; SHARES.len()];

struct Rate {
    per_s: u32,
    rounds: Vec<[Percentiles; STAGES.len()]>,
    put_off: u32,
    cpu: Vec<Cpu>,
    counts: Vec<[Option<f64>; COUNTS.len()]>,
}

impl Rate {
    fn median(&self, stage: usize, share: usize) -> f64 {
        let mut of_all: Vec<f64> = self.rounds.iter().map(|round| round[stage][share]).collect();
        percentile(&mut of_all, 0.5)
    }

    /// The medians of `COUNTS`.
    fn counts(&self) -> [Option<f64>; COUNTS.len()] {
        std::array::from_fn(|at| median(self.counts.iter().map(|counts| counts[at])))
    }

    /// The medians of one figure for each of `CONSUMERS`.
    fn cpu_us(&self, figure: fn(&Cpu) -> &[Option<f64>; CONSUMERS.len()]) -> [Option<f64>; CONSUMERS.len()] {
        std::array::from_fn(|at| median(self.cpu.iter().map(|cpu| figure(cpu)[at])))
    }
}

pub(crate) async fn latency(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let processes = Processes::of(&servers).await;
    let most = args.rates.iter().max().copied().unwrap_or(0) * (args.seconds + WARM_S);
    let template = servers.template(most).await;
    let mut figures: Vec<Rate> = args
        .rates
        .iter()
        .map(|per_s| Rate { per_s: *per_s, rounds: vec![], put_off: 0, cpu: vec![], counts: vec![] })
        .collect();
    for n in 1..=args.rounds {
        for rate in &mut figures {
            let place = servers.place(&template).await;
            let mut taken = one_run(&place, processes, rate.per_s, args.seconds).await;
            let of_stage = |stage: &mut Vec<f64>| SHARES.map(|(_, share)| percentile(stage, share));
            let round = [&mut taken.answered, &mut taken.in_hand, &mut taken.seen].map(of_stage);
            let [answered, in_hand, seen] = round;
            eprintln!(
                "round {n}/{}: {}/s: answered p50 {:.1}, in hand {:.1}, seen {:.1}, p99 {:.1}, max {:.0} ms; {} put off",
                args.rounds, rate.per_s, answered[0], in_hand[0], seen[0], seen[2], seen[3], taken.put_off
            );
            rate.rounds.push(round);
            rate.put_off += taken.put_off;
            rate.cpu.push(taken.cpu);
            rate.counts.push(taken.counts);
            place.remove().await;
        }
    }
    if json {
        let of = |rate: &Rate| {
            let stages = STAGES.iter().enumerate().map(|(stage, name)| {
                let shares = SHARES.iter().enumerate();
                let shares =
                    shares.map(|(at, (share, _))| ((*share).to_owned(), round(rate.median(stage, at), 1).into()));
                ((*name).to_owned(), Value::Object(shares.collect()))
            });
            let mut all: Map<String, Value> = stages.collect();
            all.insert("put_off".to_owned(), rate.put_off.into());
            let by_name = |figures: [Option<f64>; CONSUMERS.len()]| {
                let named = CONSUMERS.iter().zip(figures);
                Value::from_iter(named.map(|(name, us)| ((*name).to_owned(), Value::from(us.map(|us| round(us, 0))))))
            };
            all.insert("cpu_us_per_order".to_owned(), by_name(rate.cpu_us(|cpu| &cpu.per_order_us)));
            all.insert("idle_cpu_us_per_s".to_owned(), by_name(rate.cpu_us(|cpu| &cpu.idle_us_per_s)));
            let counts = COUNTS.iter().zip(rate.counts());
            let counts = counts.map(|(name, n)| ((*name).to_owned(), Value::from(n.map(|n| round(n, 2)))));
            all.insert("postgres_per_order".to_owned(), Value::from_iter(counts));
            (rate.per_s.to_string(), Value::Object(all))
        };
        let rates: Map<String, Value> = figures.iter().map(of).collect();
        let mut result = facts::about(&servers, processes, Map::new()).await;
        let figures = json!({"since_webhook_was_due": rates, "n": args.rounds, "seconds": args.seconds});
        result.extend(figures.as_object().cloned().unwrap());
        println!("{}", Value::Object(result));
    } else {
        let head =
            ["webhooks/s", "answered p50", "p99", "in hand p50", "p99", "seen p50", "p90", "p99", "max ms", "put off"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for rate in &figures {
            let cells = [(0, 0), (0, 2), (1, 0), (1, 2), (2, 0), (2, 1), (2, 2), (2, 3)];
            let cells = cells.map(|(stage, share)| format!("{:.1}", rate.median(stage, share)));
            let put_off = rate.put_off.to_string();
            rows.push(std::iter::once(rate.per_s.to_string()).chain(cells).chain([put_off]).collect());
        }
        println!("{}", table(&rows));
        let head = ["CPU", "worker", "receiver", "API", "load", "Postgres", "RabbitMQ", "together"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for rate in &figures {
            let mut row = |name: &str, us: [Option<f64>; CONSUMERS.len()]| {
                let cells = us.iter().copied().chain([us.iter().copied().sum()]).map(|us| cell(us, 0));
                rows.push(std::iter::once(format!("{}/s: {name}", rate.per_s)).chain(cells).collect());
            };
            row("µs an order, without idle", rate.cpu_us(|cpu| &cpu.per_order_us));
            row("µs a second while idle", rate.cpu_us(|cpu| &cpu.idle_us_per_s));
        }
        println!("{}", table(&rows));
        let head = ["Postgres", "statements an order", "transactions an order"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for rate in &figures {
            let cells = rate.counts().map(|count| cell(count, 2));
            rows.push(std::iter::once(format!("{}/s", rate.per_s)).chain(cells).collect());
        }
        println!("{}", table(&rows));
        println!(
            "Idle time was measured for {} s before each load, and its share is not in the figures an order.",
            IDLE.as_secs()
        );
    }
}

async fn one_run(place: &Place, processes: Processes, rate: u32, seconds: u32) -> Taken {
    let transactions_before = place.transactions().await;
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

    let pids = [worker.pid(), receiver.pid(), api.pid(), Some(std::process::id())];
    tokio::time::sleep(SETTLE).await;
    let (began, before) = (Instant::now(), used(processes, pids));
    tokio::time::sleep(IDLE).await;
    let idle_s = began.elapsed().as_secs_f64();
    let idle_us_per_s = used_since(before, used(processes, pids)).map(|us| Some(us? / idle_s));

    let count = rate * (seconds + WARM_S);
    let side_by_side = (f64::from(rate) * PATIENCE.as_secs_f64()).ceil() as u32 + 8;
    let start = Instant::now() + Duration::from_secs(1);
    let start_at = OffsetDateTime::now_utc() + Duration::from_secs(1);
    let after_start = move |n: u32| Duration::from_secs_f64(f64::from(n) / f64::from(rate));
    let of_lane = |lane| {
        tokio::spawn(async move {
            let (mut sender, mut buyer) = tokio::join!(Http::connect(to_receiver), Http::connect(to_api));
            let mut orders = vec![];
            for n in (lane..count).step_by(side_by_side as usize) {
                orders.push((n, one_order(&mut sender, &mut buyer, n, start + after_start(n)).await));
            }
            orders
        })
    };
    let lanes: Vec<_> = (0..side_by_side.min(count)).map(of_lane).collect();
    // Processor time is counted for the same orders as their waits: from the end of the warm-up on.
    tokio::time::sleep_until((start + Duration::from_secs(WARM_S.into())).into()).await;
    let statements_before = place.statements().await;
    let (began, before) = (Instant::now(), used(processes, pids));
    let orders: Vec<_> = join_all(lanes).await.into_iter().flat_map(Result::unwrap).collect();
    let (load_s, under_load) = (began.elapsed().as_secs_f64(), used_since(before, used(processes, pids)));
    let counted = f64::from(rate * seconds);
    let statements =
        place.statements().await.zip(statements_before).map(|(now, before)| (now - before) as f64 / counted);
    let per_order_us = std::array::from_fn(|at| Some(cost_us(under_load[at]?, idle_us_per_s[at]?, load_s, counted)));
    place.check(distinct(&(0..count).collect::<Vec<_>>())).await.unwrap();
    for child in [&mut worker, &mut receiver, &mut api] {
        child.terminate(Duration::from_secs(10)).await.unwrap();
    }
    let transactions = (place.transactions().await - transactions_before) as f64 / f64::from(count);

    let mut sql = connect(&place.database_url).await;
    let granted: Vec<(uuid::Uuid, OffsetDateTime)> =
        sqlx::query_as("SELECT order_id, granted_at FROM credit_grants").fetch_all(&mut sql).await.unwrap();
    let granted: HashMap<_, _> = granted.into_iter().collect();
    let ms = |waited: Duration| waited.as_secs_f64() * 1000.0;
    let cpu = Cpu { per_order_us, idle_us_per_s };
    let counts = [statements, Some(transactions)];
    let mut taken = Taken { answered: vec![], in_hand: vec![], seen: vec![], put_off: 0, cpu, counts };
    for (n, order) in orders.into_iter().filter(|(n, _)| *n >= rate * WARM_S) {
        taken.answered.push(ms(order.answered));
        let in_hand = granted[&order_id(n)] - (start_at + after_start(n));
        taken.in_hand.push(in_hand.as_seconds_f64() * 1000.0);
        taken.seen.push(ms(order.seen));
        taken.put_off += order.put_off;
    }
    taken
}

/// The processor time that each of `CONSUMERS` has used up to now, in microseconds.
fn used(processes: Processes, pids: [Option<u32>; 4]) -> [Option<u64>; CONSUMERS.len()] {
    let [worker, receiver, api, load] = pids.map(|pid| processes.used(pid));
    // The three roles are children of this program, and its figure includes theirs.
    let roles: Option<u64> = [worker, receiver, api].iter().map(|role| role.program).sum();
    let own = since(load.program, roles);
    [worker.program, receiver.program, api.program, own, load.postgres, load.rabbitmq]
}

fn used_since(
    before: [Option<u64>; CONSUMERS.len()],
    now: [Option<u64>; CONSUMERS.len()],
) -> [Option<f64>; CONSUMERS.len()] {
    std::array::from_fn(|at| since(now[at], before[at]).map(|us| us as f64))
}

/// How long one order took, from when its webhook was due.
struct Order {
    answered: Duration,
    seen: Duration,
    put_off: u32,
}

/// Waits for an order as its buyer, sends its webhook when that is due, and returns how long both took. Both times begin when
/// the webhook was *due*, so a stall counts for every order that was due during it.
async fn one_order(sender: &mut Http, buyer: &mut Http, n: u32, due: Instant) -> Order {
    tokio::time::sleep_until((due - LEAD).into()).await;
    let request = format!(
        "GET /v1/orders/{}?wait=20 HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\n\r\n",
        order_id(n)
    );
    let seen = async {
        let mut put_off = 0;
        loop {
            let (status, body) = buyer.send(request.as_bytes()).await;
            match status {
                200 => {
                    let order: Value = serde_json::from_slice(body).unwrap();
                    if order["status"] == "fulfilled" {
                        return (Instant::now(), put_off);
                    }
                }
                503 => put_off += 1,
                _ => panic!("{status}: {}", String::from_utf8_lossy(body)),
            }
            again(due, put_off).await;
        }
    };
    let sent = async {
        tokio::time::sleep_until(due.into()).await;
        let mut put_off = 0;
        loop {
            let (status, body) = sender.send(&webhook(n, OffsetDateTime::now_utc().unix_timestamp())).await;
            match status {
                200 => return (Instant::now(), put_off),
                503 => put_off += 1,
                _ => panic!("{status}: {}", String::from_utf8_lossy(body)),
            }
            again(due, put_off).await;
        }
    };
    let ((seen, reads_put_off), (answered, put_off)) = tokio::join!(seen, sent);
    Order { answered: answered - due, seen: seen - due, put_off: put_off + reads_put_off }
}

/// Waits before a request that was answered 503 is sent again. Gives up after [`GIVE_UP`].
async fn again(due: Instant, put_off: u32) {
    assert!(Instant::now() < due + GIVE_UP, "an order was not fulfilled within {} s", GIVE_UP.as_secs());
    if put_off > 0 {
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

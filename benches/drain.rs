//! How fast one worker process drains a queue that is full when it starts.
//!
//! `./dev bench drain [--messages N] [--rounds N] [--json]`. The real binary, the real servers, full durability: a
//! quorum queue, `fsync` and `synchronous_commit` as the server has them. Every tenth message is a copy of another. After
//! each round the ledger is checked: one grant for each paid order.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    reason = "a measuring tool may panic and prints its result"
)]

use grantonce::broker::{self, Headers, Outgoing, PAYMENTS_EXCHANGE, Publisher, PublisherSettings, routing_key};
use grantonce::config::RetryDelay;
use grantonce::domain::{CaptureState, Currency, MessageId, Money, PaymentEvent, PaymentId, PaymentStatus, Provider};
use grantonce::message;
use grantonce::sim::children::Children;
use grantonce::sim::scratch::{Management, unique_name};
use grantonce::store::{self, scratch};
use sqlx::{Connection, PgConnection};
use std::time::{Duration, Instant};
use time::OffsetDateTime;

const DEADLINE: Duration = Duration::from_secs(300);

/// What is asked for.
struct Args {
    messages: u32,
    rounds: u32,
    json: bool,
}

fn args() -> Args {
    let mut args = Args { messages: 100_000, rounds: 3, json: false };
    let mut given = std::env::args().skip(1);
    while let Some(arg) = given.next() {
        let number = |given: Option<String>| given.and_then(|n| n.parse().ok()).filter(|n| *n > 0);
        match arg.as_str() {
            "--messages" => args.messages = number(given.next()).expect("--messages takes a number above 0"),
            "--rounds" => args.rounds = number(given.next()).expect("--rounds takes a number above 0"),
            "--json" => args.json = true,
            // What `cargo bench` adds by itself.
            "--bench" => {}
            other => {
                eprintln!("no such option: {other}\nusage: ./dev bench drain [--messages N] [--rounds N] [--json]");
                std::process::exit(2);
            }
        }
    }
    args
}

fn var(name: &str) -> String {
    std::env::var(name).expect("DATABASE_URL, AMQP_URL and GRANTONCE_MANAGEMENT_URL are set: use ./dev bench drain")
}

/// One round's figures.
struct Round {
    msgs_per_s: f64,
    first_ack_ms: u128,
    elapsed: Duration,
}

async fn prefill(database_url: &str, amqp_url: &str, orders: u32, messages: u32) {
    let mut sql = PgConnection::connect(database_url).await.unwrap();
    sqlx::query(
        "WITH made AS (
             INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, created_at, updated_at)
             -- Ordered by time, as the API makes them.
             SELECT (lpad(to_hex(1767600000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid, 'account-' || n, 100, 1999, 'USD', 'stripe', now(), now()
             FROM generate_series(0, $1 - 1) n RETURNING id, account_id)
         INSERT INTO payments (provider, payment_id, order_id, registered_at)
         SELECT 'stripe', 'pi_' || substr(account_id, 9), id, now() FROM made",
    )
    .bind(i32::try_from(orders).unwrap())
    .execute(&mut sql)
    .await
    .unwrap();
    for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut sql).await.unwrap();
    }
    sql.close().await.unwrap();

    let publisher = Publisher::start(&PublisherSettings {
        url: amqp_url.into(),
        name: "prefill",
        lanes: 2,
        waiting_max: 10_000,
        confirm_deadline: Duration::from_secs(30),
    });
    publisher.connected_lanes().wait_for(|lanes| *lanes > 0).await.unwrap();
    let stripe = Provider::new("stripe").unwrap();
    let money = Money::new(1999, Currency::new("USD").unwrap()).unwrap();
    let now = OffsetDateTime::now_utc();
    let mut lot = fastrand::Rng::with_seed(7);
    let mut ids: Vec<u32> = (0..orders).collect();
    ids.extend((0..messages - orders).map(|_| lot.u32(0..orders)));
    lot.shuffle(&mut ids);
    for ids in ids.chunks(5_000) {
        let published = ids.iter().map(|n| {
            let event = PaymentEvent {
                provider: stripe.clone(),
                message_id: MessageId::new(format!("stripe::evt_{n:024}")).unwrap(),
                payment_id: PaymentId::new(format!("pi_{n}")).unwrap(),
                related_ids: vec![],
                provider_account: None,
                order_id: None,
                status: PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded },
                occurred_at: now,
                livemode: false,
            };
            // Messages of real providers carry more; this brings the body to about 600 bytes.
            let mut body = message::encode(&event);
            body.pop();
            body.extend_from_slice(format!(",\"note\":\"{}\"}}", "x".repeat(360)).as_bytes());
            publisher.publish(Outgoing {
                exchange: PAYMENTS_EXCHANGE,
                routing_key: routing_key(&stripe),
                message_id: event.message_id.as_str().to_owned(),
                kind: message::TYPE.to_owned(),
                content_type: message::CONTENT_TYPE,
                headers: Headers::default(),
                body: body.into(),
            })
        });
        for confirmed in futures_util::future::join_all(published).await {
            confirmed.unwrap();
        }
    }
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

async fn round(messages: u32) -> Round {
    let (postgres, rabbitmq) = (var("DATABASE_URL"), var("AMQP_URL"));
    let management = Management::new(&var("GRANTONCE_MANAGEMENT_URL")).unwrap();
    let name = unique_name("grantonce_bench");
    let database_url = scratch::create_database(&postgres, &name).await.unwrap();
    let amqp_url = management.create_vhost(&rabbitmq, &name).await.unwrap();
    let delays = [RetryDelay { label: "5s".to_owned(), delay: Duration::from_secs(5) }];
    store::migrate(&database_url.clone().into()).await.unwrap();
    broker::declare(&amqp_url.clone().into(), &delays).await.unwrap();
    let orders = messages - messages / 10;
    prefill(&database_url, &amqp_url, orders, messages).await;

    let logs = tempfile::tempdir().unwrap();
    let children = Children::new(env!("CARGO_BIN_EXE_grantonce"), logs.path())
        .env("DATABASE_URL", &database_url)
        .env("AMQP_URL", &amqp_url)
        .env("GRANTONCE_LIVEMODE", "false")
        .env("GRANTONCE_RETRY_DELAYS", "5s")
        .env("GRANTONCE_METRICS_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_LOG_FORMAT", "json");
    // Settings under trial: BENCH_WORKERS=4 is GRANTONCE_WORKERS=4.
    let children = std::env::vars()
        .filter_map(|(name, value)| Some((format!("GRANTONCE_{}", name.strip_prefix("BENCH_")?), value)))
        .fold(children, |children, (name, value)| children.env(name, value));
    let http = reqwest::Client::new();
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
        if done >= u64::from(messages) {
            break (first.unwrap(), now);
        }
        assert!(
            started.elapsed() < DEADLINE,
            "only {done} of {messages} after {} s\n{}",
            DEADLINE.as_secs(),
            worker.tail()
        );
        // Asking costs the worker something, too.
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    worker.terminate(Duration::from_secs(10)).await.unwrap();

    let mut sql = PgConnection::connect(&database_url).await.unwrap();
    let grants: i64 = sqlx::query_scalar("SELECT count(*) FROM credit_grants").fetch_one(&mut sql).await.unwrap();
    assert_eq!(grants, i64::from(orders), "one grant for each paid order");
    sql.close().await.unwrap();
    scratch::drop_database(&postgres, &name).await.unwrap();
    management.delete_vhost(&name).await.unwrap();
    let elapsed = ended - begun.0;
    Round {
        msgs_per_s: (u64::from(messages) - begun.1) as f64 / elapsed.as_secs_f64(),
        first_ack_ms: (begun.0 - started).as_millis(),
        elapsed,
    }
}

#[tokio::main]
async fn main() {
    let args = args();
    let mut rounds = vec![];
    for n in 1..=args.rounds {
        let round = round(args.messages).await;
        eprintln!(
            "round {n}: {:.0} messages/s ({} messages in {:.2} s, first settled {} ms after the start)",
            round.msgs_per_s,
            args.messages,
            round.elapsed.as_secs_f64(),
            round.first_ack_ms
        );
        rounds.push(round);
    }
    rounds.sort_by(|a, b| a.msgs_per_s.total_cmp(&b.msgs_per_s));
    let (low, high) = (rounds.first().unwrap(), rounds.last().unwrap());
    let median = rounds.get(rounds.len() / 2).unwrap();
    if args.json {
        println!(
            "{}",
            serde_json::json!({
                "messages": args.messages, "duplicates": args.messages / 10, "rounds": args.rounds,
                "msgs_per_s": {"median": median.msgs_per_s.round(), "min": low.msgs_per_s.round(), "max": high.msgs_per_s.round()},
                "first_settled_ms": median.first_ack_ms
            })
        );
    } else {
        println!(
            "drain: median {:.0} messages/s, from {:.0} to {:.0}, in {} rounds of {} messages",
            median.msgs_per_s, low.msgs_per_s, high.msgs_per_s, args.rounds, args.messages
        );
    }
}

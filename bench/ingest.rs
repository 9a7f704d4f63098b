//! How many webhooks a second are verified, translated, and confirmed by the broker before they are answered.

use crate::cpu::Processes;
use crate::facts;
use crate::figures::{Spread, round, table, thousands};
use crate::load::{Http, SECRET, webhook};
use crate::peers;
use crate::places::{Place, Servers, Template};
use crate::sides::environment;
use futures_util::future::join_all;
use grantonce::broker::{PAYMENTS_EXCHANGE, WORK_QUEUE};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Connection, ConnectionProperties};
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, BufReader};

const START_DEADLINE: Duration = Duration::from_secs(20);

/// Of the words that start this program as the probe.
pub(crate) const PROBE: &str = "confirm-limit";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each side runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each round takes
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Requests that wait for their answer at the same time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    connections: u32,
    /// Where the peers are built
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.dev/peers"))]
    peers: PathBuf,
}

/// Who answers the webhooks.
enum Receiver {
    Grantonce,
    /// A command that says where it listens.
    Told(Vec<String>),
}

struct Lane {
    name: &'static str,
    receiver: Receiver,
    rates: Vec<f64>,
    cpu_us: Vec<[f64; 3]>,
}

pub(crate) async fn ingest(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let (express, versions) = peers::express(&args.peers);
    let processes = Processes::of(&servers).await;
    let template = servers.template(1_000).await;
    let own = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let mut receivers =
        vec![("grantonce", Receiver::Grantonce), ("confirm_limit", Receiver::Told(vec![own, PROBE.to_owned()]))];
    receivers.extend(express.map(|command| ("express", Receiver::Told(command))));
    let lane = |(name, receiver)| Lane { name, receiver, rates: vec![], cpu_us: vec![] };
    let mut lanes: Vec<Lane> = receivers.into_iter().map(lane).collect();
    // The first round is nobody's.
    for n in 0..=args.rounds {
        for lane in &mut lanes {
            let (rate, cpu_us) = one_round(&servers, processes, &template, &lane.receiver, args).await;
            eprintln!(
                "{}: {:14} {:>8} webhooks/s; CPU a webhook: receiver {:.0}, RabbitMQ {:.0} µs",
                if n == 0 { "warming up".to_owned() } else { format!("round {n}/{}", args.rounds) },
                lane.name,
                thousands(rate),
                cpu_us[0],
                cpu_us[2]
            );
            if n > 0 {
                lane.rates.push(rate);
                lane.cpu_us.push(cpu_us);
            }
        }
    }
    let mut of_all = facts::versions(&servers).await;
    of_all.extend(versions);
    report(&lanes, &facts::machine(&servers).await, &of_all, args, json);
}

fn report(lanes: &[Lane], machine: &Value, versions: &Map<String, Value>, args: &Args, json: bool) {
    let ratio = |lane: &Lane| Spread::of(lanes[0].rates.iter().zip(&lane.rates).map(|(ours, theirs)| ours / theirs));
    let head = ["receiver", "webhooks/s", "min", "max", "we are", "CPU µs: receiver", "RabbitMQ"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut medians, mut sides, mut ratios) = (Map::new(), Map::new(), Map::new());
    for lane in lanes {
        let rate = Spread::of(lane.rates.iter().copied()).unwrap();
        let cpu = |at: usize| Spread::of(lane.cpu_us.iter().map(|cpu| cpu[at])).unwrap().median;
        let ratio = ratio(lane).unwrap();
        rows.push(vec![
            lane.name.to_owned(),
            thousands(rate.median),
            thousands(rate.min),
            thousands(rate.max),
            if lane.name == "grantonce" { String::new() } else { format!("{:.2} ×", ratio.median) },
            format!("{:.1}", cpu(0)),
            format!("{:.1}", cpu(2)),
        ]);
        medians.insert(lane.name.to_owned(), round(rate.median, 0).into());
        let about = json!({"webhooks_per_s": rate.json(0), "cpu_us_per_webhook": {"receiver": round(cpu(0), 1), "rabbitmq": round(cpu(2), 1)}});
        sides.insert(lane.name.to_owned(), about);
        if lane.name != "grantonce" {
            ratios.insert(lane.name.to_owned(), round(ratio.median, 2).into());
        }
    }
    if json {
        let mut result = Value::Object(medians);
        let more = json!({"ratios": ratios, "n": args.rounds, "connections": args.connections, "seconds": args.seconds,
                          "machine": machine, "versions": versions, "commit": facts::commit(), "sides": sides});
        result.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        println!("{result}");
    } else {
        println!("{}", table(&rows));
        println!("machine: {machine}\nversions: {}", Value::Object(versions.clone()));
    }
}

async fn one_round(
    servers: &Servers,
    processes: Processes,
    template: &Template,
    receiver: &Receiver,
    args: &Args,
) -> (f64, [f64; 3]) {
    let place = servers.place(template).await;
    let result = match receiver {
        Receiver::Grantonce => {
            let logs = tempfile::tempdir().unwrap();
            let children = environment(&place, logs.path().into())
                .env("GRANTONCE_RECEIVER_ADDR", "127.0.0.1:0")
                .env("GRANTONCE_STRIPE_WEBHOOK_SECRETS", SECRET);
            let mut child = children.start("receiver", &["receiver"]).await.unwrap();
            let address = child.listening("receiver", START_DEADLINE).await.unwrap();
            let result = load(address, child.pid(), processes, args).await;
            child.terminate(Duration::from_secs(10)).await.unwrap();
            result
        }
        Receiver::Told(command) => {
            let (program, rest) = command.split_first().unwrap();
            let mut child = tokio::process::Command::new(program)
                .args(rest)
                .env("AMQP_URL", &place.amqp_url)
                .env("STRIPE_WEBHOOK_SECRET", SECRET)
                .env("PORT", "0")
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let listening = async {
                while let Some(line) = lines.next_line().await.unwrap() {
                    let told: Value = serde_json::from_str(&line).unwrap_or_default();
                    if let Some(address) = told.get("listening").and_then(Value::as_str) {
                        return address.parse().unwrap();
                    }
                }
                panic!("{program} ended before it listened");
            };
            let address = tokio::time::timeout(START_DEADLINE, listening).await.expect("it listens in time");
            let result = load(address, child.id(), processes, args).await;
            child.kill().await.unwrap();
            result
        }
    };
    let (accepted, rate, cpu_us) = result;
    assert_eq!(queued(&place).await, accepted, "every webhook that was accepted is in the queue");
    place.remove().await;
    (rate, cpu_us)
}

/// How many messages wait.
async fn queued(place: &Place) -> u32 {
    let connection = Connection::connect(&place.amqp_url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(WORK_QUEUE.into(), options, FieldTable::default()).await.unwrap();
    let count = queue.message_count();
    connection.close(200, "done".into()).await.unwrap();
    count
}

/// As many webhooks as are answered, over all connections at once.
async fn load(address: SocketAddr, pid: Option<u32>, processes: Processes, args: &Args) -> (u32, f64, [f64; 3]) {
    let (next, accepted) = (AtomicU32::new(0), AtomicU32::new(0));
    let clients = join_all((0..args.connections).map(|_| Http::connect(address))).await;
    let before = processes.used(pid);
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    join_all(clients.into_iter().map(async |mut client| {
        while Instant::now() < until {
            let now = time::OffsetDateTime::now_utc().unix_timestamp();
            let request = webhook(next.fetch_add(1, Ordering::Relaxed), now);
            let (status, body) = client.send(&request).await;
            assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    }))
    .await;
    let (seconds, accepted) = (began.elapsed().as_secs_f64(), accepted.into_inner());
    let used = processes.used(pid) - before;
    let cpu_us = [used.program, used.postgres, used.rabbitmq].map(|us| us as f64 / f64::from(accepted));
    (accepted, f64::from(accepted) / seconds, cpu_us)
}

/// The probe: takes the same requests, has every body confirmed by the broker as it came, and does nothing else.
pub(crate) async fn confirm_limit() {
    let url = std::env::var("AMQP_URL").expect("AMQP_URL is set");
    let connection = Connection::connect(&url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("{}", json!({"listening": listener.local_addr().unwrap().to_string()}));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        let channel = channel.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(|request: hyper::Request<Incoming>| {
                let channel = channel.clone();
                async move {
                    let body = request.into_body().collect().await.unwrap().to_bytes();
                    let properties = BasicProperties::default().with_delivery_mode(2);
                    let options = BasicPublishOptions { mandatory: true, ..Default::default() };
                    let confirm = channel
                        .basic_publish(PAYMENTS_EXCHANGE.into(), "payment.stripe".into(), options, &body, properties)
                        .await
                        .unwrap();
                    assert!(confirm.await.unwrap().is_ack());
                    Ok::<_, std::convert::Infallible>(hyper::Response::new(Empty::<Bytes>::new()))
                }
            });
            // A client that goes away is no fault.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

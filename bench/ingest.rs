//! How many webhooks a second the receiver answers. It verifies and translates each one and waits for the broker's confirm.

use crate::cpu::Processes;
use crate::facts;
use crate::figures::{Spread, cell, median, round, table, thousands, times};
use crate::load::{Http, SECRET, webhook};
use crate::peers::{self, LeftOut};
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

/// The subcommand that starts this program as the probe.
pub(crate) const PROBE: &str = "confirm-limit";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds for each side
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Duration of each round
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Requests that wait for their answer at the same time
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=4_000))]
    connections: u32,
    /// Folder in which the peers are built
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.dev/peers"))]
    peers: PathBuf,
}

/// The program that answers the webhooks.
enum Receiver {
    Grantonce,
    /// A command that prints the address on which it listens.
    Command(Vec<String>),
}

struct Lane {
    name: &'static str,
    receiver: Receiver,
    rates: Vec<f64>,
    /// Processor time a webhook in microseconds: the receiver, Postgres, RabbitMQ.
    cpu_us: Vec<[Option<f64>; 3]>,
}

impl Lane {
    /// Processor time a webhook of the receiver and RabbitMQ together. Postgres has no part in it.
    fn cpu_us_in_all(&self) -> impl Iterator<Item = Option<f64>> {
        self.cpu_us.iter().map(|[receiver, _, rabbitmq]| Some((*receiver)? + (*rabbitmq)?))
    }
}

pub(crate) async fn ingest(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let (express, versions) = peers::express(&args.peers);
    let processes = Processes::of(&servers).await;
    let template = servers.template(1_000).await;
    let own = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let mut receivers =
        vec![("grantonce", Receiver::Grantonce), ("confirm_limit", Receiver::Command(vec![own, PROBE.to_owned()]))];
    let mut left_out = vec![];
    match express {
        Ok(command) => receivers.push(("express", Receiver::Command(command))),
        Err(peer) => left_out.push(peer),
    }
    let lane = |(name, receiver)| Lane { name, receiver, rates: vec![], cpu_us: vec![] };
    let mut lanes: Vec<Lane> = receivers.into_iter().map(lane).collect();
    // Round 0 warms everything up and is not counted.
    for n in 0..=args.rounds {
        for mut lane in std::mem::take(&mut lanes) {
            let (rate, cpu_us) = match one_round(&servers, processes, &template, &lane.receiver, args).await {
                Ok(round) => round,
                Err(why) => {
                    assert_eq!(lane.name, "express", "{why}");
                    left_out.push(LeftOut::new(lane.name, why));
                    continue;
                }
            };
            eprintln!(
                "{}: {:14} {:>8} webhooks/s; CPU a webhook: receiver {}, RabbitMQ {} µs",
                if n == 0 { "warming up".to_owned() } else { format!("round {n}/{}", args.rounds) },
                lane.name,
                thousands(rate),
                cell(cpu_us[0], 0),
                cell(cpu_us[2], 0)
            );
            if n > 0 {
                lane.rates.push(rate);
                lane.cpu_us.push(cpu_us);
            }
            lanes.push(lane);
        }
    }
    report(&lanes, &left_out, facts::about(&servers, processes, versions).await, args, json);
}

fn report(lanes: &[Lane], left_out: &[LeftOut], about: Map<String, Value>, args: &Args, json: bool) {
    let ours = &lanes[0];
    let head = ["receiver", "webhooks/s", "min", "max", "rate", "CPU", "CPU µs: receiver", "RabbitMQ"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let (mut medians, mut sides, mut ratios, mut cpu_ratios) = (Map::new(), Map::new(), Map::new(), Map::new());
    for lane in lanes {
        let rate = Spread::of(lane.rates.iter().copied()).unwrap();
        let cpu_us = |at: usize| median(lane.cpu_us.iter().map(|cpu_us| cpu_us[at]));
        let ratio = Spread::of_ratio(ours.rates.iter().copied().map(Some), lane.rates.iter().copied().map(Some));
        let cpu_ratio = Spread::of_ratio(lane.cpu_us_in_all(), ours.cpu_us_in_all());
        let beside = |ratio| if lane.name == ours.name { String::new() } else { times(ratio) };
        rows.push(vec![
            lane.name.to_owned(),
            thousands(rate.median),
            thousands(rate.min),
            thousands(rate.max),
            beside(ratio),
            beside(cpu_ratio),
            cell(cpu_us(0), 1),
            cell(cpu_us(2), 1),
        ]);
        medians.insert(lane.name.to_owned(), round(rate.median, 0).into());
        let cpu_us = |at: usize| cpu_us(at).map(|us| round(us, 1));
        let side = json!({"webhooks_per_s": rate.json(0), "cpu_us_per_webhook": {"receiver": cpu_us(0), "rabbitmq": cpu_us(2)}});
        sides.insert(lane.name.to_owned(), side);
        if lane.name != ours.name {
            let median = |ratio: Option<Spread>| Value::from(ratio.map(|ratio| round(ratio.median, 2)));
            ratios.insert(lane.name.to_owned(), median(ratio));
            cpu_ratios.insert(lane.name.to_owned(), median(cpu_ratio));
        }
    }
    if json {
        let mut result = medians;
        let figures = json!({"left_out": LeftOut::json(left_out), "ratios": ratios, "cpu_ratios": cpu_ratios, "n": args.rounds,
                             "connections": args.connections, "seconds": args.seconds, "sides": sides});
        result.extend(figures.as_object().cloned().unwrap());
        result.extend(about);
        println!("{}", Value::Object(result));
    } else {
        println!("{}", table(&rows));
        println!(
            "rate: our webhooks a second over theirs. CPU: their processor time a webhook over ours, with RabbitMQ's."
        );
        println!("In both, above 1 means that grantonce does better.\n{}", LeftOut::text(left_out));
        println!("machine: {}\nversions: {}", about["machine"], about["versions"]);
    }
}

async fn one_round(
    servers: &Servers,
    processes: Processes,
    template: &Template,
    receiver: &Receiver,
    args: &Args,
) -> Result<(f64, [Option<f64>; 3]), String> {
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
        Receiver::Command(command) => match start(command, &place).await {
            Ok((mut child, address)) => {
                let result = load(address, child.id(), processes, args).await;
                child.kill().await.unwrap();
                result
            }
            Err(why) => {
                place.remove().await;
                return Err(why);
            }
        },
    };
    let (accepted, rate, cpu_us) = result;
    assert_eq!(queued(&place).await, accepted, "every webhook that was accepted is in the queue");
    place.remove().await;
    Ok((rate, cpu_us))
}

/// Starts a command and waits until it prints the address on which it listens.
async fn start(command: &[String], place: &Place) -> Result<(tokio::process::Child, SocketAddr), String> {
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
        .map_err(|error| format!("{program} could not be started: {error}"))?;
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let listening = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            let told: Value = serde_json::from_str(&line).unwrap_or_default();
            if let Some(address) = told.get("listening").and_then(Value::as_str) {
                return Ok(address.parse().unwrap());
            }
        }
        Err(format!("it ended before it listened: {}", child.wait().await.unwrap()))
    };
    let address = tokio::time::timeout(START_DEADLINE, listening).await;
    let address =
        address.unwrap_or_else(|_| Err(format!("it did not listen within {} s", START_DEADLINE.as_secs())))?;
    Ok((child, address))
}

/// The number of messages in the work queue.
async fn queued(place: &Place) -> u32 {
    let connection = Connection::connect(&place.amqp_url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = QueueDeclareOptions { passive: true, ..Default::default() };
    let queue = channel.queue_declare(WORK_QUEUE.into(), options, FieldTable::default()).await.unwrap();
    let count = queue.message_count();
    connection.close(200, "done".into()).await.unwrap();
    count
}

/// Sends webhooks over all connections at once, each as soon as the last one was answered.
async fn load(
    address: SocketAddr,
    pid: Option<u32>,
    processes: Processes,
    args: &Args,
) -> (u32, f64, [Option<f64>; 3]) {
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
    let cpu_us = processes.used(pid).per_message(before, f64::from(accepted));
    (accepted, f64::from(accepted) / seconds, cpu_us)
}

/// The probe: takes the same requests, publishes each body unchanged, waits for the broker's confirm, and does nothing else.
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
            // The result is an error if a client goes away, and that is expected.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

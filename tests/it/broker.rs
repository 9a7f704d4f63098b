//! Connections to RabbitMQ: how much memory they take, and how they end.

use crate::support::messages::{captured, event_for};
use crate::support::{World, eventually, eventually_within};
use grantonce::broker::{Outgoing, TopologyGauge, WORK_QUEUE};
use std::time::Duration;

const MIB: u64 = 1024 * 1024;

/// A figure of a process in `/proc`, in bytes.
fn memory(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Bytes that the system has received from the broker and the program has not read.
fn unread(amqp_url: &str) -> u64 {
    let url: reqwest::Url = amqp_url.parse().unwrap();
    let port = format!(":{:04X}", url.port().unwrap_or(5672));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let to_the_broker = lines.filter(|fields| fields.get(2).is_some_and(|remote| remote.ends_with(&port)));
    to_the_broker.filter_map(|fields| u64::from_str_radix(fields[4].split_once(':')?.1, 16).ok()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn o15_a_worker_holds_no_more_bytes_than_it_is_told_however_many_messages_it_may_take() {
    const COUNT: usize = 400;
    let world = World::new().await;
    world.orders(COUNT).await;
    let messages = (0..COUNT).map(|n| {
        let event = event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999));
        let good = Outgoing::payment_status(&event).unwrap();
        // JSON may end with blanks: 200 KB, and every message is genuine.
        let mut body = good.body.to_vec();
        body.resize(200_000, b' ');
        world.publish_raw(Outgoing { body: body.into(), ..good })
    });
    futures_util::future::join_all(messages).await;
    world
        .execute(
            "CREATE FUNCTION wait_here() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NEW; END $$;
             CREATE TRIGGER wait_here BEFORE INSERT ON credit_grants FOR EACH ROW EXECUTE FUNCTION wait_here()",
        )
        .await;
    let mut blocking = world.sql.begin().await.unwrap();
    sqlx::raw_sql("SELECT pg_advisory_xact_lock(1)").execute(&mut *blocking).await.unwrap();
    let children = world.children().env("GRANTONCE_PREFETCH_BYTES", (8 * MIB).to_string());
    let mut worker = children.start("worker", &["worker"]).await.unwrap();
    let pid = worker.pid().unwrap();
    eventually("its transactions wait", async || world.waiting_for_locks().await > 0).await;
    eventually("it reads no more", async || unread(&world.amqp_url) > 200_000).await;
    let held = memory(pid, "VmRSS");
    blocking.rollback().await.unwrap();
    eventually_within(Duration::from_secs(60), "all are granted", async || {
        world.grants().await == i64::try_from(COUNT).unwrap()
    })
    .await;
    let (most, at_rest) = (memory(pid, "VmHWM"), memory(pid, "VmRSS"));
    println!("{} MiB while it could not go on, {} at most, {} at the end", held / MIB, most / MIB, at_rest / MIB);
    // 80 MB arrived. 8 MiB in hand is the bound. The rest is the process, with 8 MiB of buffers for each connection.
    assert!(most < 80 * MIB, "{} MiB", most / MIB);
    worker.terminate(Duration::from_secs(20)).await.unwrap();
    assert_eq!(world.ready(WORK_QUEUE).await, 0);
    world.verify().await;
}

#[tokio::test]
async fn o15_a_connection_that_ends_as_it_should_logs_no_error() {
    let world = World::new().await;
    for command in [&["check"][..], &["dlq", "peek"]] {
        let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_grantonce"));
        child.args(command).env_clear();
        let management = std::env::var("GRANTONCE_MANAGEMENT_URL").unwrap();
        let environment = [
            ("DATABASE_URL", world.database_url.as_str()),
            ("AMQP_URL", &world.amqp_url),
            ("GRANTONCE_MANAGEMENT_URL", &management),
            ("GRANTONCE_LIVEMODE", "false"),
            ("GRANTONCE_RETRY_DELAYS", "200ms,500ms"),
            ("RUST_LOG", "info"),
        ];
        let output = child.envs(environment).output().unwrap();
        let told = [output.stderr, output.stdout].concat();
        let told = String::from_utf8_lossy(&told);
        println!("{told}");
        // The attempts of `check` that must fail end a channel, not a connection.
        assert!(!told.contains("Connection error") && !told.contains("invalid channel state"), "{command:?}: {told}");
    }
}

/// The address of the world with other hosts.
fn with_hosts(world: &World, hosts: &str) -> grantonce::followed::Followed<grantonce::address::AmqpAddress> {
    let (scheme_and_user, rest) = world.amqp_url.rsplit_once('@').unwrap();
    let (_host, vhost) = rest.split_once('/').unwrap();
    format!("{scheme_and_user}@{hosts}/{vhost}").parse().unwrap()
}

/// The address of the world's RabbitMQ.
fn real_host(world: &World) -> String {
    let url: reqwest::Url = world.amqp_url.parse().unwrap();
    format!("{}:{}", url.host_str().unwrap(), url.port().unwrap_or(5672))
}

#[tokio::test(flavor = "multi_thread")]
async fn o08_the_hosts_of_an_address_are_tried_in_their_order_and_no_other_one_is() {
    let world = World::new().await;
    let real = real_host(&world);
    // One host accepts and stays silent, one is not there, and one speaks IPv6 only.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap()
    };
    let listener = tokio::net::TcpListener::bind("[::1]:0").await.unwrap();
    let v6 = listener.local_addr().unwrap();
    let (target, counted) = (real.clone(), std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let count = std::sync::Arc::clone(&counted);
    let relay = tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let mut to = tokio::net::TcpStream::connect(&target).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    });
    let began = std::time::Instant::now();
    let hosts = format!("{},{gone},{v6}", silent.local_addr().unwrap());
    grantonce::broker::reach(&with_hosts(&world, &hosts)).await.unwrap();
    assert_eq!(counted.load(std::sync::atomic::Ordering::SeqCst), 1, "by the third host, {v6}");
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    // The first host that works is used, and the others are not contacted.
    grantonce::broker::reach(&with_hosts(&world, &format!("{gone},{real},{v6}"))).await.unwrap();
    assert_eq!(counted.load(std::sync::atomic::Ordering::SeqCst), 1);
    // No host works. Not even localhost is contacted.
    for hosts in [format!("[::1]:{}", gone.port()), format!("{gone}")] {
        let error = grantonce::broker::reach(&with_hosts(&world, &hosts)).await.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }
    relay.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn o08_a_worker_goes_on_by_the_next_host_when_its_own_is_lost() {
    let world = World::new().await;
    world.orders(20).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (first, target) = (listener.local_addr().unwrap(), real_host(&world));
    let relay = tokio::spawn(async move {
        let mut both = vec![];
        while let Ok((mut from, _)) = listener.accept().await {
            let mut to = tokio::net::TcpStream::connect(&target).await.unwrap();
            let copying = async move { tokio::io::copy_bidirectional(&mut from, &mut to).await };
            both.push(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(copying)));
        }
    });
    let mut settings = world.worker_config();
    settings.broker.url = with_hosts(&world, &format!("{first},{}", real_host(&world)));
    let worker = world.start_worker_with(settings);
    world
        .publish_all(
            &(0..10).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect::<Vec<_>>(),
        )
        .await;
    eventually("ten are granted by the first host", async || world.grants().await == 10).await;
    relay.abort();
    world
        .publish_all(
            &(10..20).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect::<Vec<_>>(),
        )
        .await;
    eventually_within(Duration::from_secs(30), "ten more by the second", async || world.grants().await == 20).await;
    world.settled(worker).await;
}

#[tokio::test]
async fn looks_at_the_topology_leave_no_channel_open() {
    let world = World::new().await;
    let mut gauge =
        TopologyGauge::new(format!("{}?channel_max=32", world.amqp_url).parse().unwrap(), world.retry_delays.clone());
    for _ in 0..5 {
        assert_eq!(gauge.read().await.unwrap(), [""; 0]);
    }
}

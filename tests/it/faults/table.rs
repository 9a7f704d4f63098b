//! Every fault: how it is caused, and how it is repaired.

use super::stage::{START, Stage};
use crate::support::messages::{captured, event_for, stripe_webhook};
use crate::support::raw_amqp::{RawAmqp, RawMessage, header, long};
use crate::support::{Server, eventually, world::STRIPE_SECRET};
use futures_util::future::{LocalBoxFuture, join_all};
use grantonce::broker::{DEAD_EXCHANGE, DEAD_QUEUE, Outgoing, PAYMENTS_EXCHANGE, WORK_QUEUE, retry_queue};
use grantonce::message::TYPE;
use grantonce_testkit::wait::eventually_within;
use lapin::options::QueueDeleteOptions;
use lapin::types::FieldTable;
use rustix::process::{Pid, Signal, kill_process};
use std::process::Stdio;
use std::time::Duration;
use tokio::time::sleep;

/// Longest wait of a buyer that a fault concerns.
const PATIENCE: Duration = Duration::from_secs(120);

/// One kind of fault.
pub struct Fault {
    pub name: &'static str,
    /// While the fault lasts, no buyer gets credits, or not at once.
    pub stops_everybody: bool,
    /// The fault needs little time and no servers of its own.
    pub is_short: bool,
    pub apply: for<'a> fn(&'a mut Stage) -> LocalBoxFuture<'a, ()>,
}

macro_rules! faults {
    ($($name:ident $(is_short: $is_short:literal)? $(stops_everybody: $stops:literal)?;)*) => {
        /// Every fault.
        pub const FAULTS: &[Fault] = &[$(Fault {
            name: stringify!($name),
            stops_everybody: false $(|| $stops)?,
            is_short: false $(|| $is_short)?,
            apply: |stage| Box::pin($name(stage)),
        }),*];
    };
}

faults! {
    text_that_is_not_utf8;
    headers_of_130_kb;
    locked_order is_short: true;
    unreadable_order is_short: true;
    memory_alarm stops_everybody: true;
    postgres_takes_no_writes stops_everybody: true;
    work_queue_without_binding stops_everybody: true;
    dead_letters_without_binding;
    retry_queue_deleted;
    commits_hang stops_everybody: true;
    log_that_nobody_reads is_short: true;
    worker_terminated is_short: true;
    worker_killed;
    receiver_terminated is_short: true;
    receiver_killed;
    secrets_rotate;
    rabbitmq_restarts stops_everybody: true;
    rabbitmq_crashes stops_everybody: true;
    postgres_restarts stops_everybody: true;
    postgres_crashes stops_everybody: true;
    huge_bodies is_short: true;
    flood_of_duplicates is_short: true;
}

/// A message about a payment that no buyer made.
fn foreign(n: usize) -> RawMessage {
    let event = event_for(&format!("pi_foreign_{n}"), &format!("evt_foreign_{n}"), captured(1999));
    let good = Outgoing::payment_status(&event).unwrap();
    let message = RawMessage {
        exchange: PAYMENTS_EXCHANGE,
        routing_key: b"payment.stripe".to_vec(),
        body: good.body.to_vec(),
        ..RawMessage::default()
    };
    message.with("message_id", event.message_id.as_str().as_bytes()).with("type", TYPE.as_bytes())
}

async fn text_that_is_not_utf8(stage: &mut Stage) {
    let mut raw = RawAmqp::connect(&stage.world.amqp_url);
    for (n, name) in ["app_id", "correlation_id", "message_id"].into_iter().enumerate() {
        raw.publish(&foreign(n).with(name, b"\xff"));
    }
    raw.publish(&foreign(3).with_headers(header(b"\xff", b'S', &long(b"text"))));
    sleep(stage.while_it_lasts()).await;
}

/// One message has an unknown order and is delayed. The other one is refused.
async fn headers_of_130_kb(stage: &mut Stage) {
    let mut raw = RawAmqp::connect(&stage.world.amqp_url);
    let bulk = || header(b"bulk", b'S', &long(&vec![b'x'; 130_000]));
    raw.publish(&foreign(10).with_headers(bulk()));
    raw.publish(&RawMessage { body: b"{}".to_vec(), ..foreign(11).with_headers(bulk()) });
    sleep(stage.while_it_lasts()).await;
}

async fn locked_order(stage: &mut Stage) {
    let name = stage.buyers.name();
    let order = stage.buyers.place(&name).await;
    let mut locking = stage.world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE").bind(order.0).execute(&mut *locking).await.unwrap();
    stage.buyers.pay(&name, order, true).await;
    sleep(if stage.is_long { Duration::from_secs(60) } else { stage.while_it_lasts() }).await;
    assert!(!stage.buyers.has_credits(&name));
    locking.rollback().await.unwrap();
    eventually_within(PATIENCE, "the locked order is granted", async || stage.buyers.has_credits(&name)).await;
}

async fn unreadable_order(stage: &mut Stage) {
    let name = stage.buyers.name();
    let order = stage.buyers.place(&name).await;
    let set = async |facts: &str| {
        sqlx::query("UPDATE orders SET facts = $2::jsonb WHERE id = $1")
            .bind(order.0)
            .bind(facts)
            .execute(&stage.world.sql)
            .await
            .unwrap();
    };
    set("[1]").await;
    stage.buyers.pay(&name, order, true).await;
    sleep(stage.while_it_lasts()).await;
    assert!(!stage.buyers.has_credits(&name));
    set("{}").await;
    eventually_within(PATIENCE, "the mended order is granted", async || stage.buyers.has_credits(&name)).await;
}

async fn memory_alarm(stage: &mut Stage) {
    stage.rabbitmq().memory_alarm(true).await;
    stage.world.try_publish(&event_for("pi_alarm", "evt_alarm", captured(1999))).await.ok();
    sleep(stage.while_it_lasts()).await;
    stage.rabbitmq().memory_alarm(false).await;
}

async fn postgres_takes_no_writes(stage: &mut Stage) {
    let database = stage.database();
    let end_sessions = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'");
    let set = async |is_read_only: &str| {
        let alter = format!("ALTER DATABASE {database} SET default_transaction_read_only = {is_read_only}");
        stage.administer(&[&alter, &end_sessions]).await;
    };
    set("on").await;
    sleep(stage.while_it_lasts()).await;
    set("off").await;
}

async fn unbind(stage: &Stage, queue: &str, exchange: &str) {
    let (connection, channel) = stage.world.channel().await;
    for key in ["#", "payment.#", "payment.*", ""] {
        channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default()).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

async fn work_queue_without_binding(stage: &mut Stage) {
    unbind(stage, WORK_QUEUE, PAYMENTS_EXCHANGE).await;
    sleep(stage.while_it_lasts()).await;
    stage.migrate().await;
}

async fn dead_letters_without_binding(stage: &mut Stage) {
    unbind(stage, DEAD_QUEUE, DEAD_EXCHANGE).await;
    let mut raw = RawAmqp::connect(&stage.world.amqp_url);
    raw.publish(&RawMessage { body: b"{}".to_vec(), ..foreign(20) });
    sleep(stage.while_it_lasts()).await;
    stage.migrate().await;
}

async fn retry_queue_deleted(stage: &mut Stage) {
    let (connection, channel) = stage.world.channel().await;
    channel.queue_delete(retry_queue("200ms").as_str().into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    stage.world.publish(&event_for("pi_foreign_21", "evt_foreign_21", captured(1999))).await;
    sleep(stage.while_it_lasts()).await;
    stage.migrate().await;
}

async fn commits_hang(stage: &mut Stage) {
    stage.administer(&["ALTER SYSTEM SET synchronous_standby_names = 'nobody'", "SELECT pg_reload_conf()"]).await;
    sleep(stage.while_it_lasts()).await;
    stage.administer(&["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"]).await;
}

/// One more worker takes its share of the messages, and its log is not read.
async fn log_that_nobody_reads(stage: &mut Stage) {
    let mut worker = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"));
    let worker = worker.arg("worker").envs(stage.world.environment()).env("RUST_LOG", "trace");
    let mut worker = worker.stderr(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    sleep(stage.while_it_lasts()).await;
    let pid = Pid::from_raw(i32::try_from(worker.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    let status = tokio::time::timeout(START, worker.wait()).await.expect("it ends").unwrap();
    assert!(status.success(), "{status}");
}

async fn worker_terminated(stage: &mut Stage) {
    let worker = &mut stage.workers[0];
    assert!(worker.terminate(START).await.unwrap().success());
    worker.restart().await.unwrap();
    worker.consuming(START).await.unwrap();
}

async fn worker_killed(stage: &mut Stage) {
    let worker = &mut stage.workers[1];
    worker.restart().await.unwrap();
    worker.consuming(START).await.unwrap();
}

async fn receiver_terminated(stage: &mut Stage) {
    let receiver = &mut stage.receivers[0];
    assert!(receiver.terminate(START).await.unwrap().success());
    receiver.restart().await.unwrap();
    receiver.listening("receiver", START).await.unwrap();
}

async fn receiver_killed(stage: &mut Stage) {
    let receiver = &mut stage.receivers[1];
    receiver.restart().await.unwrap();
    receiver.listening("receiver", START).await.unwrap();
}

async fn secrets_rotate(stage: &mut Stage) {
    let new = "whsec_another_secret_for_the_tests";
    stage.set_secrets(&format!("{STRIPE_SECRET},{new}"));
    // Both receivers must know the new secret before the provider uses it, as in every rotation.
    for turn in 0..2 {
        eventually("the new secret is believed", async || {
            let webhook = stripe_webhook(new, "evt_rotated", "pi_foreign_30", 1999, None);
            stage.buyers.is_believed(turn, &webhook).await
        })
        .await;
    }
    stage.buyers.sign_with(new);
    sleep(stage.while_it_lasts()).await;
    stage.set_secrets(new);
    sleep(stage.while_it_lasts()).await;
}

async fn rabbitmq_restarts(stage: &mut Stage) {
    stage.rabbitmq().down(Server::Rabbitmq).await;
    stage.rabbitmq().up(Server::Rabbitmq).await;
}

async fn rabbitmq_crashes(stage: &mut Stage) {
    stage.rabbitmq().crash(Server::Rabbitmq).await;
    stage.rabbitmq().up(Server::Rabbitmq).await;
}

async fn postgres_restarts(stage: &mut Stage) {
    stage.postgres().down(Server::Postgres).await;
    sleep(stage.while_it_lasts()).await;
    stage.postgres().up(Server::Postgres).await;
}

async fn postgres_crashes(stage: &mut Stage) {
    stage.postgres().crash(Server::Postgres).await;
    stage.postgres().up(Server::Postgres).await;
}

/// The bodies are too large for a receiver, and as large as a message may be.
async fn huge_bodies(stage: &mut Stage) {
    let mut raw = RawAmqp::connect(&stage.world.amqp_url);
    let large = vec![b'x'; 2_000_000];
    let webhook = (large.clone(), "t=1,v1=00".to_owned());
    for n in 0..20 {
        assert!(!stage.buyers.is_believed(n, &webhook).await);
        raw.publish(&RawMessage { body: large.clone(), ..foreign(40 + n) });
    }
}

async fn flood_of_duplicates(stage: &mut Stage) {
    let name = stage.buyers.name();
    let order = stage.buyers.place(&name).await;
    stage.buyers.pay(&name, order, true).await;
    // Another message about the payment of the webhook.
    let event = event_for(&name, &format!("evt_{name}_again"), captured(1999));
    let count = if stage.is_long { 20_000 } else { 2_000 };
    stage.world.publish_all(&vec![event; count]).await;
    let webhook = stripe_webhook(&stage.buyers.secret(), &format!("evt_{name}"), &name, 1999, Some(order));
    for _ in 0..10 {
        join_all((0..50).map(|turn| stage.buyers.post(turn, &webhook))).await;
    }
}

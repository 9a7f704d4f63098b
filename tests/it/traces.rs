//! Traces from a webhook to the commit of its payment, as an OpenTelemetry collector sees them. Without a collector, or if it is
//! away, nothing else changes.

use crate::support::world::STRIPE_SECRET;
use crate::support::{Collector, OrderSpec, Told, World, captured, event_for, eventually, stripe_webhook};
use grantonce::broker::{Outgoing, WORK_QUEUE};
use grantonce::http::plain_client;
use grantonce::telemetry::Traces;
use grantonce_testkit::children::{Child, Children};
use lapin::message::Delivery;
use lapin::options::BasicGetOptions;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use reqwest::StatusCode;
use std::time::Duration;
use tokio::time::Instant;

const START: Duration = Duration::from_secs(30);

/// A trace that another program began.
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

fn traced(world: &World, endpoint: &str) -> Children {
    world.children().env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_BSP_SCHEDULE_DELAY", "100")
}

async fn receiver(children: &Children) -> (Child, String) {
    let mut process = children.start("receiver", &["receiver"]).await.unwrap();
    let address = process.listening("receiver", START).await.unwrap();
    let url = format!("http://{address}");
    let http = plain_client().build().unwrap();
    eventually("the receiver is ready", async || {
        http.get(format!("{url}/readyz")).send().await.unwrap().status() == StatusCode::OK
    })
    .await;
    (process, url)
}

/// Posts a webhook whose sender names a trace. Anybody can do that.
async fn post(url: &str, body: Vec<u8>, signature: &str) -> StatusCode {
    let request = plain_client().build().unwrap().post(format!("{url}/webhooks/stripe")).body(body);
    let request = request.header("stripe-signature", signature).header("traceparent", TRACEPARENT);
    request.send().await.unwrap().status()
}

fn traceparent(letter: &Delivery) -> Option<String> {
    let headers = letter.properties.headers().as_ref()?;
    headers.inner().get("traceparent")?.as_long_string().map(ToString::to_string)
}

fn is_batch(span: &Told) -> bool {
    span.attributes.contains_key("messaging.batch.message_count")
}

#[tokio::test]
async fn one_webhook_is_one_trace_from_its_receiver_to_its_commit() {
    let (world, collector) = (World::new().await, Collector::start().await);
    world.order(OrderSpec::paid_by("pi_1")).await;
    let children = traced(&world, &collector.endpoint);
    let (receiver, url) = receiver(&children).await;
    let worker = children.start("worker", &["worker"]).await.unwrap();
    let (body, signature) = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, None);
    assert_eq!(post(&url, body, &signature).await, StatusCode::OK);
    eventually("it is granted", async || world.grants().await == 1).await;
    let (body, _) = stripe_webhook(STRIPE_SECRET, "evt_2", "pi_1", 1999, None);
    assert_eq!(post(&url, body, "t=1,v1=00").await, StatusCode::UNAUTHORIZED);

    let webhooks = collector.wait_for("the webhooks", 2, |span| span.kind == SpanKind::Server).await;
    let processed = collector.wait_for("the message", 1, |span| span.get("grantonce.outcome") == "applied").await;
    let publishes = collector.wait_for("the publish", 1, |span| span.kind == SpanKind::Producer).await;
    let batches = collector.wait_for("the batch", 1, is_batch).await;
    let ([webhook, refused], [process], [publish], [batch]) =
        (&webhooks[..], &processed[..], &publishes[..], &batches[..])
    else {
        panic!("{:#?}", collector.spans())
    };
    assert_eq!((webhook.parent.as_str(), publish.parent.as_str()), ("", webhook.id.as_str()));
    assert_eq!((process.parent.as_str(), &process.links), (publish.id.as_str(), &vec![batch.id.clone()]));
    assert!([&publish.trace, &process.trace].iter().all(|trace| **trace == webhook.trace), "one trace");
    assert_ne!(
        webhook.trace,
        TRACEPARENT[3..35],
        "a sender neither writes into our traces nor decides that they exist"
    );
    let spans = [webhook, publish, process, batch].map(|span| span.name.as_str());
    let work = format!("process {WORK_QUEUE}");
    assert_eq!(spans, ["POST /webhooks/{provider}", "publish payments", &work, &work]);
    for (span, name, value) in [
        (webhook, "grantonce.endpoint", "stripe"),
        (webhook, "grantonce.outcome", "accepted"),
        (webhook, "http.response.status_code", "200"),
        (refused, "grantonce.outcome", "unauthorized"),
        (publish, "messaging.system", "rabbitmq"),
        (publish, "messaging.destination.name", "payments:payment.stripe"),
        (publish, "messaging.message.id", "stripe::evt_1"),
        (process, "messaging.destination.name", "fulfilment"),
        (process, "messaging.operation.type", "process"),
        (process, "messaging.message.id", "stripe::evt_1"),
        (process, "grantonce.grants", "1"),
        (batch, "messaging.batch.message_count", "1"),
    ] {
        assert_eq!(span.get(name), value, "{name} of {span:#?}");
    }
    for (span, role) in [(webhook, "receiver"), (process, "worker")] {
        assert_eq!(
            (span.process["service.name"].as_str(), span.process["grantonce.role"].as_str()),
            ("grantonce", role)
        );
    }
    // No attribute contains a body, a signature, a secret or a long text.
    for span in collector.spans() {
        for (name, value) in &span.attributes {
            let found =
                ["payment_intent", "amount", "{\"", &signature, STRIPE_SECRET].into_iter().find(|s| value.contains(s));
            assert!(found.is_none() && value.len() <= 255, "{name} is {value}");
        }
    }
    let refused_line = std::fs::read_to_string(receiver.log_path()).unwrap();
    let refused_line = refused_line.lines().find(|line| line.contains("webhook_rejected")).unwrap().to_owned();
    assert_eq!(refused_line.matches(&refused.trace).count(), 1, "{refused_line}");
    drop(worker);
}

#[tokio::test]
async fn a_message_keeps_its_trace_through_retries_to_its_dead_letter() {
    let (world, collector) = (World::new().await, Collector::start().await);
    let children = traced(&world, &collector.endpoint).env("GRANTONCE_MAX_ATTEMPTS", "4");
    let mut worker = children.start("worker", &["worker"]).await.unwrap();
    let mut message = Outgoing::payment_status(&event_for("pi_nobody", "evt_1", captured(1999))).unwrap();
    message.headers.set_text("traceparent", TRACEPARENT);
    world.publish_raw(message).await;
    let letter = world.dead_letter().await;
    assert_eq!(traceparent(&letter).as_deref(), Some(TRACEPARENT));
    let status = worker.terminate(Duration::from_secs(10)).await.unwrap();
    assert!(status.success(), "{}", worker.tail());
    let log = std::fs::read_to_string(worker.log_path()).unwrap();
    let line = log.lines().find(|line| line.contains("\"dead_letter\"")).unwrap();
    assert_eq!(line.matches(&TRACEPARENT[3..35]).count(), 1, "{line}");
    let spans: Vec<_> = collector.spans().into_iter().filter(|span| !is_batch(span)).collect();
    let outcomes: Vec<_> = spans.iter().map(|span| span.get("grantonce.outcome")).collect();
    assert_eq!(outcomes, ["put_off", "put_off", "put_off", "dead_lettered"]);
    assert!(
        spans.iter().all(|span| span.trace == TRACEPARENT[3..35] && span.parent == TRACEPARENT[36..52]),
        "{spans:#?}"
    );
    let last = spans.last().unwrap();
    assert!(last.is_error && last.get("error.type") == "unknown_payment", "{last:#?}");
}

#[tokio::test]
async fn what_is_given_back_is_told_too() {
    let (world, collector) = (World::new().await, Collector::start().await);
    let traces = Traces::export(&collector.endpoint, "worker").unwrap();
    let worker = world.start_traced_worker(traces.clone());
    eventually("the worker consumes", async || world.consumers(WORK_QUEUE).await == 1).await;
    // A table is missing. The batch is held, and returned when its time is over.
    world.order(OrderSpec::paid_by("pi_1")).await;
    world.execute("ALTER TABLE credit_grants RENAME TO hidden").await;
    let mut message = Outgoing::payment_status(&event_for("pi_1", "evt_1", captured(1999))).unwrap();
    message.headers.set_text("traceparent", TRACEPARENT);
    world.publish_raw(message).await;
    let given_back = |span: &Told| span.get("grantonce.outcome") == "given_back";
    let found = collector.wait_for("the message that went back", 1, given_back).await;
    assert_eq!((found[0].get("error.type"), found[0].trace.as_str()), ("bug", &TRACEPARENT[3..35]));
    assert!(found[0].is_error);
    world.execute("ALTER TABLE hidden RENAME TO credit_grants").await;
    eventually("it is granted", async || world.grants().await == 1).await;
    worker.drain().await;
    traces.shutdown().await;
}

#[tokio::test]
async fn without_a_collector_no_header_is_made_and_one_that_a_relay_sent_is_kept() {
    let world = World::new().await;
    let (_receiver, url) = receiver(&world.children()).await;
    let (body, signature) = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_nobody", 1999, None);
    assert_eq!(post(&url, body, &signature).await, StatusCode::OK);
    let (connection, channel) = world.channel().await;
    let got = channel.basic_get(WORK_QUEUE.into(), BasicGetOptions { no_ack: true }).await.unwrap().unwrap();
    assert_eq!(traceparent(&got.delivery), None);
    let now_s = time::OffsetDateTime::now_utc().unix_timestamp();
    let age_s = got.delivery.properties.timestamp().map(|at_s| now_s - i64::try_from(at_s).unwrap());
    assert!(age_s.is_some_and(|age_s| (0..60).contains(&age_s)), "it says when it was published: {age_s:?} s ago");
    connection.close(200, "done".into()).await.unwrap();

    let worker = world.start_worker();
    let mut message = Outgoing::payment_status(&event_for("pi_nobody", "evt_2", captured(1999))).unwrap();
    message.headers.set_text("traceparent", TRACEPARENT);
    world.publish_raw(message).await;
    assert_eq!(traceparent(&world.dead_letter().await).as_deref(), Some(TRACEPARENT));
    world.settled(worker).await;
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nothing_up() {
    let world = World::new().await;
    world.orders(50).await;
    // One accepts connections and never answers. The other one refuses them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut receiver, url) = receiver(&traced(&world, &format!("http://{}", silent.local_addr().unwrap()))).await;
    let mut worker = traced(&world, "http://127.0.0.1:1").start("worker", &["worker"]).await.unwrap();
    for n in 0..50 {
        let (body, signature) = stripe_webhook(STRIPE_SECRET, &format!("evt_{n}"), &format!("pi_{n}"), 1999, None);
        assert_eq!(post(&url, body, &signature).await, StatusCode::OK);
    }
    eventually("all are granted", async || world.grants().await == 50).await;
    for process in [&mut receiver, &mut worker] {
        let began = Instant::now();
        let status = process.terminate(Duration::from_secs(10)).await.unwrap();
        assert!(status.success(), "{}", process.tail());
        // The process settles what it holds at once. The rest of the time is for the collector.
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        let log = std::fs::read_to_string(process.log_path()).unwrap();
        let said = log.lines().filter(|line| line.contains("traces_")).count();
        assert!((1..=2).contains(&said), "{log}");
    }
    assert_eq!(world.ready(WORK_QUEUE).await, 0);
    world.verify().await;
}

//! Messages that RabbitMQ accepts and the AMQP client cannot read, and messages that are too large. Each becomes a dead letter, and
//! all others are processed as usual.

use crate::letters::{RunningOps, all_letters, letter_of, paid};
use crate::support::messages::{captured, event_for};
use crate::support::raw_amqp::{RawAmqp, RawMessage, header, long, short};
use crate::support::{World, eventually};
use grantonce::broker::{self, DEAD_EXCHANGE, DEAD_QUEUE, HINTS_EXCHANGE, HINTS_QUEUE, PAYMENTS_EXCHANGE, WORK_QUEUE};
use grantonce::message::BODY_BYTES_MAX;
use grantonce::store::LetterRow;

/// A valid payment. A test changes a part of it.
fn payment(n: usize) -> RawMessage {
    let event = event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999));
    let good = letter_of(&event);
    RawMessage {
        exchange: PAYMENTS_EXCHANGE,
        routing_key: b"payment.stripe".to_vec(),
        body: good.body.to_vec(),
        ..RawMessage::default()
    }
    .with("message_id", good.message_id.as_bytes())
    .with("type", good.kind.as_bytes())
}

/// Tables nested in tables.
fn nested(depth: usize) -> Vec<u8> {
    (0..depth).fold(vec![b'V'], |inside, _| [vec![b'A'], long(&inside)].concat())
}

/// Every kind of message that cannot be read, with a text that its dead letter must contain.
fn unreadable() -> Vec<(RawMessage, &'static str)> {
    let texts = ["app_id", "message_id", "correlation_id", "type", "reply_to", "content_type", "content_encoding"];
    let mut all: Vec<(RawMessage, &str)> = texts
        .into_iter()
        .enumerate()
        .map(|(n, name)| (payment(100 + n).with(name, b"relay\xff"), r#" is not UTF-8: "relay\xff""#))
        .collect();
    let key = RawMessage { routing_key: b"payment.\xfe\xff".to_vec(), ..payment(110) };
    all.push((key, r#"the routing key is not UTF-8: "payment.\xfe\xff""#));
    let of_headers = |n, headers: Vec<u8>, says| (payment(n).with_headers(headers), says);
    all.push(of_headers(111, header(b"\xff", b't', &[1]), r#"a header's name is not UTF-8: "\xff""#));
    let inner = [short(b"in\xffner"), vec![b'V']].concat();
    all.push(of_headers(112, header(b"t", b'F', &long(&inner)), r#""in\xffner""#));
    all.push(of_headers(113, [short(b"deep"), nested(20_000)].concat(), r#"the header "deep" of "#));
    let large = RawMessage { body: vec![b'x'; BODY_BYTES_MAX + 1], ..payment(114) };
    all.push((large, "the body is 262145 bytes long; at most 262144 are allowed"));
    let larger = RawMessage { body: vec![b'x'; 9_000_000], ..payment(115) }.with("app_id", b"\xff");
    all.push((larger, r#"app_id is not UTF-8: "\xff""#));
    all
}

/// Messages that are odd, but can be read and granted.
fn odd_but_readable() -> Vec<RawMessage> {
    let of_headers = |n, headers: Vec<u8>| payment(n).with_headers(headers);
    let numbers = [("b", 1), ("B", 1), ("s", 2), ("u", 2), ("I", 4), ("i", 4), ("l", 8), ("f", 4), ("d", 8), ("T", 8)];
    let numbers =
        numbers.into_iter().flat_map(|(kind, bytes)| header(kind.as_bytes(), kind.as_bytes()[0], &vec![0; bytes]));
    let carbon = header(b"CC", b'A', &long(&[vec![b'S'], long(b"payment.\xff")].concat()));
    vec![
        of_headers(0, header(b"text", b'S', &long(b"\xff\xfe"))),
        of_headers(1, numbers.collect()),
        of_headers(2, header(b"bytes", b'x', &long(&[0xff; 100]))),
        of_headers(3, header(b"nothing", b'V', &[])),
        of_headers(4, [short(b"deep"), nested(20)].concat()),
        of_headers(5, header(b"large", b'S', &long(&vec![b'x'; 120_000]))),
        of_headers(6, carbon),
        payment(7).with("app_id", "Füßé".as_bytes()),
    ]
}

fn the_one<'a>(letters: &'a [LetterRow], says: &str) -> Vec<&'a LetterRow> {
    letters.iter().filter(|letter| letter.detail.contains(says)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn o02_what_cannot_be_read_is_a_dead_letter_and_its_neighbours_are_granted_in_one_session() {
    let world = World::new().await;
    let (bad, odd) = (unreadable(), odd_but_readable());
    world.orders(50).await;
    let mut raw = RawAmqp::connect(&world.amqp_url);
    odd.iter().for_each(|message| raw.publish(message));
    for n in 0..bad.len().max(42) {
        if let Some((message, _)) = bad.get(n) {
            raw.publish(message);
        }
        if n < 42 {
            raw.publish(&payment(8 + n));
        }
    }
    let worker = world.start_worker();
    eventually("all 50 are granted", async || world.grants().await == 50).await;
    let store = world.store();
    let ops = RunningOps::start(&world);
    let mut letters = vec![];
    eventually("all others are dead letters", async || {
        letters = all_letters(&store).await;
        letters.len() == bad.len()
    })
    .await;
    for (message, says) in &bad {
        assert!(!the_one(&letters, says).is_empty(), "no dead letter says {says}: {message:?}\n{letters:#?}");
    }
    for letter in &letters {
        assert_eq!(
            (letter.reason.as_str(), letter.origin.as_str(), letter.seen),
            ("malformed", "worker", 1),
            "{letter:?}"
        );
    }
    let large = the_one(&letters, r#"app_id is not UTF-8: "\xff""#)[0];
    let large = store.letter(large.id).await.unwrap().unwrap();
    assert_eq!((large.body_bytes, large.body.unwrap().len()), (9_000_000, broker::LETTER_BODY_BYTES_MAX));
    // One session: nothing was returned, so no delivery of another message counted as a return.
    let metrics = worker.metrics.render();
    let mut returns = metrics.lines().filter(|line| line.starts_with("grantonce_deliveries_given_back_total"));
    assert!(returns.all(|line| line.ends_with(" 0")), "{metrics}");
    let refused = u64::try_from(bad.len()).unwrap();
    assert_eq!(worker.metric(r#"grantonce_dead_lettered_total{reason="malformed"}"#), refused);
    ops.stop().await;
    world.settled(worker).await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
    world.verify().await;
}

/// RabbitMQ sends properties in one frame, even if the client asked for smaller frames.
#[tokio::test(flavor = "multi_thread")]
async fn o03_properties_larger_than_the_frame_that_amqp_url_asks_for_stop_nobody() {
    let world = World::new().await;
    world.orders(40).await;
    let mut raw = RawAmqp::connect(&world.amqp_url);
    for n in 0..40 {
        let message = payment(n);
        let large = header(b"large", b'S', &long(&vec![b'x'; 20_000]));
        raw.publish(&if n == 20 { message.with_headers(large) } else { message });
    }
    let mut settings = world.worker_config();
    settings.broker.url = format!("{}?frame_max=8192", world.amqp_url).parse().unwrap();
    let worker = world.start_worker_with(settings);
    eventually("the others are granted", async || world.grants().await == 39).await;
    eventually("it is a dead letter", async || world.ready(DEAD_QUEUE).await == 1).await;
    world.settled(worker).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o02_a_letter_that_cannot_be_read_holds_up_no_other_letter_and_can_be_peeked_at() {
    let world = World::new().await;
    let mut raw = RawAmqp::connect(&world.amqp_url);
    let (bad, good) = (unreadable(), paid("pi_1", "evt_1"));
    for (message, _) in &bad {
        raw.publish(&RawMessage { exchange: DEAD_EXCHANGE, ..message.clone() });
        world.publish_raw(letter_of(&good)).await;
    }
    let ready = 2 * u32::try_from(bad.len()).unwrap();
    eventually("all are there", async || world.ready(DEAD_QUEUE).await == ready).await;
    let management = grantonce::broker::Management::new(
        std::env::var("GRANTONCE_MANAGEMENT_URL").unwrap().into(),
        world.amqp_url.rsplit('/').next().unwrap(),
    );
    let peeked = broker::peek(&world.amqp_url.parse().unwrap(), Some(&management.unwrap()), 100).await.unwrap();
    assert_eq!(peeked.len(), 2 * bad.len());
    for (_, says) in &bad {
        let told = peeked.iter().filter_map(broker::Delivery::refusal).any(|refusal| refusal.detail.contains(says));
        assert!(told || says.starts_with("the body is 262145"), "no refusal says {says}");
    }
    drop(peeked);
    eventually("all are back", async || world.ready(DEAD_QUEUE).await == ready).await;
    let ops = RunningOps::start(&world);
    let store = world.store();
    eventually("all are dead letters", async || all_letters(&store).await.len() == bad.len() + 1).await;
    let letters = all_letters(&store).await;
    for (message, says) in &bad {
        let is_there = letters.iter().any(|letter| letter.detail.contains(says) && letter.origin == "publisher");
        assert!(is_there || says.starts_with("the body is"), "{message:?}\n{letters:#?}");
    }
    eventually("nothing is left", async || world.ready(DEAD_QUEUE).await == 0).await;
    ops.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn o02_a_hint_that_cannot_be_read_is_a_dead_letter_of_the_reconcilers() {
    let world = World::new().await;
    let mut raw = RawAmqp::connect(&world.amqp_url);
    raw.publish(&RawMessage { exchange: HINTS_EXCHANGE, ..payment(1).with("app_id", b"\xff") });
    let reconciler = world.children().env("GRANTONCE_STRIPE_API_KEY", "sk_test_1");
    let reconciler = reconciler.env("GRANTONCE_STRIPE_API_BASE", "http://127.0.0.1:1");
    let mut reconciler = reconciler.start("reconciler", &["reconciler"]).await.unwrap();
    let ops = RunningOps::start(&world);
    let store = world.store();
    eventually("it is a dead letter", async || all_letters(&store).await.len() == 1).await;
    let letter = all_letters(&store).await.remove(0);
    assert_eq!((letter.reason.as_str(), letter.origin.as_str()), ("malformed", "reconciler"));
    assert_eq!(letter.detail, r#"app_id is not UTF-8: "\xff""#);
    assert_eq!(world.ready(HINTS_QUEUE).await, 0);
    ops.stop().await;
    reconciler.terminate(std::time::Duration::from_secs(20)).await.unwrap();
    assert_eq!(world.ready(WORK_QUEUE).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn o03_headers_that_are_too_large_to_copy_hold_nobody_up_and_the_letter_says_what_was_dropped() {
    let world = World::new().await;
    world.orders(40).await;
    let mut raw = RawAmqp::connect(&world.amqp_url);
    let bulky = |n: usize| {
        let ours = header(b"x-grantonce-attempt", b'l', &[0, 0, 0, 0, 0, 0, 0, 99]);
        let trace = header(b"traceparent", b'S', &long(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"));
        let small = header(b"small", b'S', &long(b"kept"));
        payment(n).with_headers([header(b"bulk", b'S', &long(&vec![b'x'; 130_000])), ours, trace, small].concat())
    };
    // No order has the first payment: it is delayed and then refused. The second message is refused at once.
    raw.publish(&bulky(1_000));
    raw.publish(&RawMessage { body: b"{}".to_vec(), ..bulky(1_001) });
    (0..40).for_each(|n| raw.publish(&payment(n)));
    let began = std::time::Instant::now();
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    eventually("all others are granted", async || world.grants().await == 40).await;
    assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    let store = world.store();
    eventually("both are dead letters", async || all_letters(&store).await.len() == 2).await;
    for row in all_letters(&store).await {
        assert!(row.detail.ends_with(r#"; dropped headers: "bulk" of 130010 bytes"#), "{}", row.detail);
        let letter = store.letter(row.id).await.unwrap().unwrap();
        assert_eq!(letter.headers.as_object().unwrap().keys().collect::<Vec<_>>(), ["small", "traceparent"]);
    }
    let metrics = worker.metrics.render();
    let mut returns = metrics.lines().filter(|line| line.starts_with("grantonce_deliveries_given_back_total"));
    assert!(returns.all(|line| line.ends_with(" 0")), "{metrics}");
    ops.stop().await;
    world.settled(worker).await;
}

/// `rabbitmqctl` and the management UI can publish properties that are larger than any frame.
#[tokio::test(flavor = "multi_thread")]
async fn o03_headers_that_no_amqp_client_could_send_are_a_dead_letter_like_others() {
    let world = World::new().await;
    world.orders(10).await;
    let base: reqwest::Url = std::env::var("GRANTONCE_MANAGEMENT_URL").unwrap().parse().unwrap();
    let vhost = world.amqp_url.rsplit('/').next().unwrap().to_owned();
    let good = payment(1_000);
    for bytes in [140_000, 2_000_000] {
        let mut url = base.clone();
        url.path_segments_mut().unwrap().extend(["api", "exchanges", &vhost, PAYMENTS_EXCHANGE, "publish"]);
        let message = serde_json::json!({
            "routing_key": "payment.stripe", "payload_encoding": "string", "payload": String::from_utf8_lossy(&good.body),
            "properties": {"type": "payment-status.v1", "message_id": "stripe::evt_1000", "delivery_mode": 2,
                           "headers": {"bulk": "x".repeat(bytes), "n": bytes}},
        });
        let client = grantonce::http::plain_client().build().unwrap();
        let answer = client.post(url).json(&message).send().await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap());
    }
    let mut raw = RawAmqp::connect(&world.amqp_url);
    (0..10).for_each(|n| raw.publish(&payment(n)));
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    eventually("all others are granted", async || world.grants().await == 10).await;
    let store = world.store();
    eventually("both are dead letters", async || {
        all_letters(&store).await.iter().map(|letter| letter.seen).sum::<i32>() == 2
    })
    .await;
    for letter in all_letters(&store).await {
        assert!(letter.detail.contains("its properties are "), "{letter:?}");
    }
    ops.stop().await;
    world.settled(worker).await;
}

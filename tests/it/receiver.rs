//! The receiver over real HTTP, as a child process of the real binary.

use crate::letters::{RunningOps, ended, preview, replay, the_letter, until};
use crate::support::world::STRIPE_SECRET;
use crate::support::{OrderSpec, World, captured, event_for, eventually, stripe_webhook};
use grantonce::broker::{DEAD_QUEUE, HINTS_QUEUE, WORK_QUEUE};
use grantonce::http::plain_client;
use grantonce::message::{HINT_TYPE, decode_hint};
use grantonce::store::{LetterFilter, ReplayPace};
use grantonce_testkit::children::Child;
use grantonce_testkit::sign::stripe_signature;
use lapin::options::BasicGetOptions;
use reqwest::{Client, Response, StatusCode};
use serde_json::Value;
use std::time::Duration;
use time::OffsetDateTime;

const START: Duration = Duration::from_secs(30);

struct Receiver {
    _process: Child,
    url: String,
    http: Client,
}

impl Receiver {
    async fn start(world: &World) -> Self {
        Self::start_with(world, &[]).await
    }

    async fn start_with(world: &World, more: &[(&str, &str)]) -> Self {
        let children = more.iter().fold(world.children(), |children, (name, value)| children.env(name, value));
        let mut process = children.start("receiver", &["receiver"]).await.unwrap();
        let address = process.listening("receiver", START).await.unwrap();
        let receiver =
            Self { _process: process, url: format!("http://{address}"), http: plain_client().build().unwrap() };
        eventually("the receiver is ready", async || {
            receiver.http.get(format!("{}/readyz", receiver.url)).send().await.unwrap().status() == StatusCode::OK
        })
        .await;
        receiver
    }

    async fn post(&self, path: &str, body: impl Into<reqwest::Body>, signature: Option<&str>) -> Response {
        let mut request = self.http.post(format!("{}{path}", self.url)).header("content-type", "application/json");
        if let Some(signature) = signature {
            request = request.header("stripe-signature", signature);
        }
        request.body(body).send().await.unwrap()
    }

    async fn stripe(&self, (body, signature): (Vec<u8>, String)) -> StatusCode {
        self.post("/webhooks/stripe", body, Some(&signature)).await.status()
    }
}

fn signed(body: &[u8]) -> (Vec<u8>, String) {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    (body.to_vec(), stripe_signature(STRIPE_SECRET, now, body).unwrap())
}

async fn problem(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    (status, response.json().await.unwrap())
}

#[tokio::test]
async fn two_hundred_parallel_copies_of_one_webhook_grant_once() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let receiver = Receiver::start(&world).await;
    let workers = [world.start_worker(), world.start_worker()];
    let webhook = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, None);
    let answers = futures_util::future::join_all((0..200).map(|_| receiver.stripe(webhook.clone()))).await;
    assert!(answers.iter().all(|status| *status == StatusCode::OK), "{answers:?}");
    eventually("it is granted", async || world.grants().await == 1).await;
    let [first, second] = workers;
    world.settled(first).await;
    second.drain().await;
    assert_eq!((world.grants().await, world.admitted().await), (1, 1));
    assert_eq!(world.status(order).await, "fulfilled");
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
}

#[tokio::test]
async fn an_unroutable_publish_is_503_and_no_publish_beside_it_suffers() {
    let world = World::new().await;
    let receiver = Receiver::start(&world).await;
    let (connection, channel) = world.channel().await;
    let unbind = channel.queue_unbind(
        WORK_QUEUE.into(),
        "payments".into(),
        "payment.*".into(),
        lapin::types::FieldTable::default(),
    );
    unbind.await.unwrap();
    let response = {
        let (body, signature) = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, None);
        receiver.post("/webhooks/stripe", body, Some(&signature)).await
    };
    assert!(response.headers().contains_key("retry-after"));
    let (status, _) = problem(response).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);

    // Routable and unroutable messages at the same time: each webhook gets its own answer. The routable ones are webhooks that
    // cannot be translated.
    let mixed = (0..40).map(|n| {
        let webhook = if n % 2 == 0 {
            stripe_webhook(STRIPE_SECRET, &format!("evt_{n}"), "pi_1", 1999, None)
        } else {
            signed(
                format!("{{\"id\":\"evt_odd_{n}\",\"object\":\"event\",\"type\":\"payment_intent.succeeded\"}}")
                    .as_bytes(),
            )
        };
        receiver.stripe(webhook)
    });
    for (n, status) in futures_util::future::join_all(mixed).await.into_iter().enumerate() {
        let expected = if n % 2 == 0 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
        assert_eq!(status, expected, "webhook {n}");
    }
    eventually("the dead letters are there", async || world.ready(DEAD_QUEUE).await == 20).await;
    assert_eq!(world.ready(WORK_QUEUE).await, 0);
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn bad_input_is_answered_clearly_and_nothing_of_it_is_published() {
    let world = World::new().await;
    let receiver = Receiver::start(&world).await;
    let (good, signature) = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, None);
    let stale = {
        let then = OffsetDateTime::now_utc().unix_timestamp() - 301;
        stripe_signature(STRIPE_SECRET, then, &good).unwrap()
    };
    let forged = stripe_signature("whsec_another_secret_altogether", OffsetDateTime::now_utc().unix_timestamp(), &good);
    let forged = forged.unwrap();
    let cases = [
        ("no signature", "/webhooks/stripe", good.clone(), None, 401),
        ("a broken signature", "/webhooks/stripe", good.clone(), Some("t=1,v1=zz"), 401),
        ("a wrong signature", "/webhooks/stripe", good.clone(), Some(&forged), 401),
        ("an old signature", "/webhooks/stripe", good.clone(), Some(&stale), 401),
        ("another body", "/webhooks/stripe", b"{}".to_vec(), Some(&signature), 401),
        ("garbage without a signature", "/webhooks/stripe", vec![0xff; 1000], None, 401),
        ("an unknown provider", "/webhooks/acme", good.clone(), Some(&signature), 404),
        ("a provider without secrets", "/webhooks/standard", good.clone(), Some(&signature), 404),
        ("257 KiB", "/webhooks/stripe", vec![b' '; 257 * 1024], Some(&signature), 413),
        ("another path", "/webhook", good.clone(), None, 404),
    ];
    for (what, path, body, signature, expected) in cases {
        let (status, problem) = problem(receiver.post(path, body, signature).await).await;
        assert_eq!(status.as_u16(), expected, "{what}: {problem}");
        assert_eq!(problem["status"], expected, "{what}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{what}: {problem}");
        assert!(!problem.to_string().contains(STRIPE_SECRET));
    }
    let chunks = futures_util::stream::iter((0..300).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1024])));
    let (status, _) = problem(receiver.post("/webhooks/stripe", reqwest::Body::wrap_stream(chunks), None).await).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "300 KiB without a content-length");
    let get = receiver.http.get(format!("{}/webhooks/stripe", receiver.url)).send().await.unwrap();
    assert_eq!(problem(get).await.0, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!((world.ready(WORK_QUEUE).await, world.ready(DEAD_QUEUE).await), (0, 0));
    assert_eq!(receiver.stripe((good, signature)).await, StatusCode::OK, "the genuine one is still accepted");
    eventually("it is published", async || world.ready(WORK_QUEUE).await == 1).await;
}

#[tokio::test]
async fn a_genuine_webhook_that_we_cannot_translate_is_kept_as_it_came() {
    let world = World::new().await;
    let receiver = Receiver::start(&world).await;
    let nul =
        br#"{"id":"evt_nul","object":"event","type":"payment_intent.succeeded","created":1767600000,"livemode":false,
        "data":{"object":{"id":"pi_\u0000","object":"payment_intent","amount_received":1,"currency":"usd"}}}"#;
    let huge = br#"{"id":"evt_huge","object":"event","type":"payment_intent.succeeded","created":1767600000,"livemode":false,
        "data":{"object":{"id":"pi_1","object":"payment_intent","amount_received":9223372036854775807,"currency":"usd"}}}"#;
    let currency =
        br#"{"id":"evt_cur","object":"event","type":"payment_intent.succeeded","created":1767600000,"livemode":false,
        "data":{"object":{"id":"pi_1","object":"payment_intent","amount_received":1,"currency":"zzz"}}}"#;
    let deep = "[".repeat(100_000);
    for body in [&b"not JSON at all"[..], nul, huge, currency, deep.as_bytes()] {
        assert_eq!(receiver.stripe(signed(body)).await, StatusCode::OK);
        let letter = world.dead_letter().await;
        assert_eq!(letter.data, body, "the raw body is stored");
        assert_eq!(letter.properties.kind().as_ref().unwrap().as_str(), "webhook.stripe");
        let headers = letter.properties.headers().as_ref().unwrap();
        let text = |name: &str| headers.inner()[name].as_long_string().unwrap().to_string();
        assert_eq!(text("x-grantonce-reason"), "untranslatable");
        assert_eq!(text("x-grantonce-origin"), "receiver");
        assert!(text("x-grantonce-detail").len() > 10);
    }
    let ignored = signed(
        br#"{"id":"evt_c","object":"event","type":"customer.created","created":1767600000,"livemode":false,
        "data":{"object":{"id":"cus_1","object":"customer"}}}"#,
    );
    assert_eq!(receiver.stripe(ignored).await, StatusCode::OK);
    assert_eq!((world.ready(WORK_QUEUE).await, world.ready(DEAD_QUEUE).await), (0, 0));
}

#[tokio::test]
async fn in_live_mode_a_test_event_is_acknowledged_and_dropped() {
    let world = World::new().await;
    let receiver = Receiver::start_with(&world, &[("GRANTONCE_LIVEMODE", "true")]).await;
    let test_event = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, None);
    assert_eq!(receiver.stripe(test_event).await, StatusCode::OK);
    let odd = signed(br#"{"id":"evt_2","object":"event","type":"payment_intent.succeeded","created":1767600000,"livemode":false,"data":{}}"#);
    assert_eq!(receiver.stripe(odd).await, StatusCode::OK);
    assert_eq!((world.ready(WORK_QUEUE).await, world.ready(DEAD_QUEUE).await), (0, 0));
}

#[tokio::test]
async fn a_standard_webhook_speaks_for_its_own_provider_only() {
    use grantonce_testkit::sign::standard_signature;
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let world = World::new().await;
    let receiver = Receiver::start_with(&world, &[("GRANTONCE_STANDARD_WEBHOOK_SECRETS", SECRET)]).await;
    let send = async |id: &str, body: Vec<u8>| {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let signature = standard_signature(SECRET, id, now, &body).unwrap();
        let request = receiver.http.post(format!("{}/webhooks/standard", receiver.url));
        let request = request.header("webhook-id", id).header("webhook-timestamp", now.to_string());
        request.header("webhook-signature", signature).body(body).send().await.unwrap().status()
    };
    let mut body: Value =
        serde_json::from_slice(&grantonce::message::encode(&event_for("pay_1", "x", captured(1999))).unwrap()).unwrap();
    body["provider"] = "standard".into();
    body["message_id"] = "stripe::evt_of_somebody_else".into();
    assert_eq!(send("msg_1", serde_json::to_vec(&body).unwrap()).await, StatusCode::OK);
    eventually("it is published", async || world.ready(WORK_QUEUE).await == 1).await;
    let (connection, channel) = world.channel().await;
    let got = channel.basic_get(WORK_QUEUE.into(), lapin::options::BasicGetOptions { no_ack: true }).await.unwrap();
    let delivery = got.unwrap().delivery;
    assert_eq!(delivery.routing_key.as_str(), "payment.standard");
    assert_eq!(delivery.properties.message_id().as_ref().unwrap().as_str(), "standard::msg_1");
    connection.close(200, "done".into()).await.unwrap();

    body["provider"] = "stripe".into();
    assert_eq!(send("msg_2", serde_json::to_vec(&body).unwrap()).await, StatusCode::OK);
    assert_eq!(world.dead_letter().await.routing_key.as_str(), "payment.standard");
    assert_eq!(world.ready(WORK_QUEUE).await, 0, "a relay that claims another provider grants nothing");
}

/// The `merchantReference` of an Adyen payment is the id of the order.
#[tokio::test]
async fn every_item_of_an_adyen_webhook_counts_by_itself() {
    use grantonce_testkit::sign::adyen_signature;
    use serde_json::json;
    const KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("cart-8271")).await;
    world.execute("UPDATE orders SET provider = 'adyen'").await;
    let receiver = Receiver::start_with(&world, &[("GRANTONCE_ADYEN_HMAC_KEYS", KEY)]).await;
    // The events are of today. The inbox may drop older ones at once.
    let today = time::OffsetDateTime::now_utc().date();
    let item = |reference: &str, patch: Value| {
        let mut item = json!({
            "additionalData": {}, "amount": {"currency": "USD", "value": 1999}, "eventCode": "AUTHORISATION",
            "eventDate": format!("{today}T00:00:00+00:00"), "merchantAccountCode": "Shop", "merchantReference": order,
            "pspReference": reference, "success": "true"
        });
        for (key, value) in patch.as_object().unwrap() {
            item[key] = value.clone();
        }
        item["additionalData"]["hmacSignature"] = adyen_signature(KEY, &item).unwrap().unwrap().into();
        json!({"NotificationRequestItem": item})
    };
    let post = async |items: Vec<Value>| {
        let body = json!({"live": "false", "notificationItems": items});
        receiver.post("/webhooks/adyen", serde_json::to_vec(&body).unwrap(), None).await.status()
    };
    let good = || item("PSP1", json!({}));
    let mut forged = item("PSP2", json!({}));
    forged["NotificationRequestItem"]["amount"]["value"] = json!(1);
    assert_eq!(post(vec![good(), forged]).await, StatusCode::UNAUTHORIZED, "one bad item refuses the request");
    assert_eq!(post(vec![]).await, StatusCode::BAD_REQUEST);
    assert_eq!((world.ready(WORK_QUEUE).await, world.ready(DEAD_QUEUE).await), (0, 0));

    let odd = || item("PSP3", json!({"eventDate": "yesterday"}));
    let failed = || item("PSP0", json!({"success": "false", "reason": "Refused"}));
    for _ in 0..3 {
        assert_eq!(post(vec![failed(), odd(), good()]).await, StatusCode::OK);
    }
    let worker = world.start_worker();
    eventually("it is granted", async || world.grants().await == 1).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (1, 2));
    assert_eq!(world.status(order).await, "fulfilled");
    let letter = world.dead_letter().await;
    assert_eq!(letter.routing_key.as_str(), "payment.adyen");
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "adyen::PSP3:AUTHORISATION:true");
    world.verify().await;
}

#[tokio::test]
async fn an_event_that_says_only_that_something_happened_becomes_a_hint() {
    let world = World::new().await;
    let receiver = Receiver::start(&world).await;
    let thin = |id: &str, livemode: bool| {
        let event = serde_json::json!({
            "id": id, "object": "v2.core.event", "type": "v1.payment_intent.succeeded",
            "created": "2026-01-05T12:00:00.000Z", "livemode": livemode, "context": "acct_1",
            "related_object": {"id": "pi_1", "type": "payment_intent", "url": "/v1/payment_intents/pi_1"}
        });
        signed(event.to_string().as_bytes())
    };
    assert_eq!(receiver.stripe(thin("evt_1", false)).await, StatusCode::OK);
    let (connection, channel) = world.channel().await;
    let get = channel.basic_get(HINTS_QUEUE.into(), BasicGetOptions { no_ack: true });
    let got = get.await.unwrap().expect("the hint is in its queue").delivery;
    assert_eq!(got.properties.kind().as_ref().unwrap().as_str(), HINT_TYPE);
    let hint = decode_hint(&got.data).unwrap();
    assert_eq!((hint.provider.as_str(), hint.payment_id.as_str()), ("stripe", "pi_1"));
    assert_eq!(hint.provider_account.unwrap().as_str(), "acct_1");
    assert_eq!(got.properties.message_id().as_ref().unwrap().as_str(), hint.message_id.as_str());
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!((world.ready(WORK_QUEUE).await, world.ready(DEAD_QUEUE).await), (0, 0), "it reports no payment");

    let live = Receiver::start_with(&world, &[("GRANTONCE_LIVEMODE", "true")]).await;
    assert_eq!(live.stripe(thin("evt_2", false)).await, StatusCode::OK);
    assert_eq!(world.ready(HINTS_QUEUE).await, 0, "a test event in live mode");
}

#[tokio::test]
async fn what_is_not_understood_is_collected_and_stays_open_however_often_it_is_replayed() {
    let world = World::new().await;
    let receiver = Receiver::start(&world).await;
    assert_eq!(receiver.stripe(signed(b"not JSON at all")).await, StatusCode::OK);
    let (ops, store) = (RunningOps::start(&world), world.store());
    let letter = the_letter(&store).await;
    assert_eq!((letter.reason.as_str(), letter.origin.as_str()), ("untranslatable", "receiver"));
    assert_eq!((letter.kind.as_str(), letter.provider.as_str()), ("webhook.stripe", "stripe"));
    let seen = preview(&store, LetterFilter::default()).await;
    assert_eq!((seen.helpful.len(), seen.by_verdict.get("would_be_refused")), (0, Some(&1)));
    let id = replay(&store, seen.all, ReplayPace::Canary).await.unwrap();
    let done = ended(&store, id).await;
    assert_eq!((done.counts.dead_again, done.counts.resolved), (1, 0));
    assert_eq!(until(&store, letter.id, "open").await.row.replays, 1);
    assert_eq!(world.ready(WORK_QUEUE).await, 0, "nothing was published");
    ops.stop().await;
}

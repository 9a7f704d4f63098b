//! The reconciler on real servers and a real provider. It finds, once, the payments that no webhook reports.

use crate::support::{Collector, OrderSpec, Told, World, eventually};
use grantonce::broker::{DEAD_QUEUE, HINTS_EXCHANGE, HINTS_QUEUE, Headers, Outgoing};
use grantonce::clock::Clock;
use grantonce::config::{BrokerConfig, DatabaseConfig, PaypalApi, ProvidersConfig, ReconcilerConfig, StripeApi};
use grantonce::domain::{AccountId, Currency, Hint, MessageId, Money, OrderId, PaymentId, PriceTerms, Provider};
use grantonce::http::{Readiness, plain_client};
use grantonce::message;
use grantonce::reconciler::{self, ReconcilerError};
use grantonce::shutdown::Shutdown;
use grantonce::store::{Attach, IdempotencyKey, NewOrder, Wanted};
use grantonce::telemetry::{Metrics, Traces};
use grantonce_testkit::children::Child;
use grantonce_testkit::provider::standin::Standin;
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

fn providers(base: &str) -> ProvidersConfig {
    ProvidersConfig {
        stripe: Some(StripeApi { key: grantonce::followed::Followed::new("sk_test_1".into()), base: base.to_owned() }),
        paypal: Some(PaypalApi {
            client_id: "id".to_owned(),
            client_secret: grantonce::followed::Followed::new("secret".into()),
            base: base.to_owned(),
        }),
    }
}

/// A reconciler in this process.
struct Running {
    stop: CancellationToken,
    metrics: Metrics,
    readiness: Readiness,
    task: JoinHandle<Result<(), ReconcilerError>>,
}

impl Running {
    fn start(world: &World, base: &str) -> Self {
        Self::start_traced(world, base, Traces::off())
    }

    fn start_traced(world: &World, base: &str, traces: Traces) -> Self {
        let config = ReconcilerConfig {
            database: DatabaseConfig { url: world.database_url.parse().unwrap() },
            broker: BrokerConfig { url: world.amqp_url.parse().unwrap() },
            livemode: false,
            providers: providers(base),
            first_look_after: Duration::from_secs(120),
        };
        let (shutdown, metrics, readiness) = (Shutdown::manual(), Metrics::new(), Readiness::new());
        let stop = shutdown.token();
        let run = reconciler::run(config, Clock::system(), metrics.clone(), traces, readiness.clone(), shutdown);
        Self { stop, metrics, readiness, task: tokio::spawn(run) }
    }

    fn looks(&self, outcome: &str) -> u64 {
        self.looks_at("stripe", outcome)
    }

    fn looks_at(&self, provider: &str, outcome: &str) -> u64 {
        let name = format!("grantonce_provider_looks_total{{provider=\"{provider}\",outcome=\"{outcome}\"}} ");
        let page = self.metrics.render();
        let line = page.lines().find_map(|line| line.strip_prefix(&name));
        line.unwrap_or_else(|| panic!("no {name} in {page}")).parse().unwrap()
    }

    async fn drain(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.expect("a reconciler ends within 10 s").expect("it does not panic").unwrap();
    }
}

async fn post(provider: &Standin, path: &str, body: &Value) -> Value {
    let http = plain_client().build().unwrap();
    let answer = http.post(format!("{}{path}", provider.base)).json(body).send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.status());
    answer.json().await.unwrap()
}

/// Creates a payment of 19.99 US dollars at the provider.
async fn payment(provider: &Standin) -> String {
    let made = json!({"provider": "stripe", "amount_minor": 1999, "currency": "USD"});
    post(provider, "/payments", &made).await["id"].as_str().unwrap().to_owned()
}

/// Creates a payment that the buyer pays. No webhook reports it.
async fn paid(provider: &Standin) -> String {
    let id = payment(provider).await;
    post(provider, &format!("/payments/{id}/pay"), &json!({"outcome": "succeeded"})).await;
    id
}

/// Creates an order as the API does. The reconciler asks its provider at once.
async fn order(world: &World, payment_id: &str) -> OrderId {
    order_asked_about(world, payment_id, OffsetDateTime::now_utc()).await
}

async fn order_asked_about(world: &World, payment_id: &str, first_look_at: OffsetDateTime) -> OrderId {
    let new = NewOrder {
        id: OrderId(uuid::Uuid::now_v7()),
        account_id: AccountId::new("acc").unwrap(),
        credits: 100,
        price: Money::new(1999, Currency::new("USD").unwrap()).unwrap(),
        price_terms: PriceTerms::Total,
        provider: Provider::STRIPE,
        provider_account: None,
        payment_id: Some(PaymentId::new(payment_id).unwrap()),
        metadata: json!({}),
        now: OffsetDateTime::now_utc(),
        first_look_at,
    };
    let id = new.id;
    let key = IdempotencyKey { token_name: "site".to_owned(), key: payment_id.to_owned(), request_digest: [7; 32] };
    assert!(matches!(world.store().attach_order(key, new).await.unwrap(), Attach::Created(_)));
    id
}

fn in_an_hour() -> OffsetDateTime {
    OffsetDateTime::now_utc() + time::Duration::HOUR
}

async fn fulfilled(world: &World, id: OrderId) {
    eventually("the order is fulfilled", async || world.status(id).await == "fulfilled").await;
}

fn hint(payment_id: &str) -> Hint {
    Hint {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::hint_{payment_id}")).unwrap(),
        payment_id: PaymentId::new(payment_id).unwrap(),
        related_ids: vec![],
        provider_account: None,
        livemode: false,
    }
}

#[tokio::test]
async fn orders_of_which_no_webhook_comes_are_fulfilled_and_each_is_asked_about_once() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let mut orders = vec![];
    for _ in 0..24 {
        orders.push(order(&world, &paid(&provider).await).await);
    }
    let abandoned = order(&world, &payment(&provider).await).await;
    let reconcilers = [Running::start(&world, &provider.base), Running::start(&world, &provider.base)];
    let worker = world.start_worker();
    for id in orders {
        fulfilled(&world, id).await;
    }
    let all = |outcome: &str| reconcilers.iter().map(|reconciler| reconciler.looks(outcome)).sum::<u64>();
    eventually("the cart was looked at, too", async || all("quiet") == 1).await;
    assert_eq!(
        (all("heard"), all("contradicted"), all("failed")),
        (24, 0, 0),
        "each payment is asked about by one of the two"
    );
    assert_eq!(world.status(abandoned).await, "awaiting_payment");
    for reconciler in reconcilers {
        reconciler.drain().await;
    }
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (24, 0));
    world.verify().await;
}

#[tokio::test]
async fn what_a_look_and_a_webhook_both_tell_grants_once() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let payment_id = paid(&provider).await;
    let id = order(&world, &payment_id).await;
    let worker = world.start_worker();
    world.publish(&crate::support::event_for(&payment_id, "evt_1", crate::support::captured(1999))).await;
    fulfilled(&world, id).await;
    world.store().want_look(id, OffsetDateTime::now_utc()).await.unwrap();
    let reconciler = Running::start(&world, &provider.base);
    eventually("it was asked all the same", async || reconciler.looks("heard") == 1).await;
    // The reconciler asks once more. Now it gets the same message.
    world.store().want_look(id, OffsetDateTime::now_utc()).await.unwrap();
    eventually("twice", async || reconciler.looks("heard") == 2).await;
    eventually("the second time it is known", async || worker.metric("grantonce_inbox_duplicates_total") > 0).await;
    reconciler.drain().await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (1, 0));
    world.verify().await;
}

#[tokio::test]
async fn while_a_provider_is_away_nothing_is_lost_and_nothing_is_a_dead_letter() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let address = provider.address;
    let base = provider.base.clone();
    provider.stop().await;
    let id = order(&world, "pi_1").await;
    let worker = world.start_worker();
    let reconciler = Running::start(&world, &base);
    eventually("it was tried", async || reconciler.looks("failed") == 1).await;
    assert_eq!(world.count("SELECT failures::bigint FROM provider_looks").await, 1);
    assert_eq!(world.status(id).await, "awaiting_payment");
    let provider = Standin::start_at(address).await.unwrap();
    let payment_id = paid(&provider).await;
    world.execute(&format!("UPDATE provider_looks SET payment_id = '{payment_id}', due_at = now()")).await;
    world.execute(&format!("UPDATE payments SET payment_id = '{payment_id}'")).await;
    fulfilled(&world, id).await;
    reconciler.drain().await;
    world.settled(worker).await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
}

#[tokio::test]
async fn a_hint_has_the_provider_asked_now() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let payment_id = paid(&provider).await;
    let id = order_asked_about(&world, &payment_id, in_an_hour()).await;
    // This order has no row for the reconciler, because it was inserted by hand, for instance.
    let other = paid(&provider).await;
    let by_hand = world.order(OrderSpec::paid_by(&other)).await;
    let (worker, reconciler) = (world.start_worker(), Running::start(&world, &provider.base));
    for payment in [&payment_id, &payment_id, &other] {
        world.publish_raw(Outgoing::hint(&hint(payment)).unwrap()).await;
    }
    fulfilled(&world, id).await;
    fulfilled(&world, by_hand).await;
    // An operator must look at the broken one, and the hints behind it are processed.
    let broken = Outgoing {
        exchange: HINTS_EXCHANGE,
        routing_key: "payment.stripe".to_owned(),
        message_id: "stripe::broken".to_owned(),
        kind: message::HINT_TYPE.to_owned(),
        content_type: message::CONTENT_TYPE,
        headers: Headers::default(),
        body: b"{}".to_vec().into(),
    };
    world.publish_raw(broken).await;
    let third = paid(&provider).await;
    world.publish_raw(Outgoing::hint(&hint(&third)).unwrap()).await;
    let letter = world.dead_letter().await;
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "stripe::broken");
    // This hint comes before its order. The worker waits for the order, as for any message.
    let id = order_asked_about(&world, &third, in_an_hour()).await;
    fulfilled(&world, id).await;
    reconciler.drain().await;
    assert_eq!(world.ready(HINTS_QUEUE).await, 0);
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (3, 0));
}

#[tokio::test]
async fn what_contradicts_us_is_loud_and_an_abandoned_cart_is_not() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    order(&world, "pi_nobody_knows").await;
    order(&world, &payment(&provider).await).await;
    let granted = order(&world, &payment(&provider).await).await;
    world.execute(&format!("UPDATE orders SET status = 'fulfilled' WHERE id = '{granted}'")).await;
    world.store().want_look(granted, OffsetDateTime::now_utc()).await.unwrap();
    // The order has another price than the payment, and the worker refuses it. The second look finds the order still unpaid.
    let refused = order(&world, &paid(&provider).await).await;
    world.execute(&format!("UPDATE orders SET amount_minor = 2999 WHERE id = '{refused}'")).await;
    let (worker, reconciler) = (world.start_worker(), Running::start(&world, &provider.base));
    eventually("three are as they should not be or news", async || {
        (reconciler.looks("contradicted"), reconciler.looks("quiet"), reconciler.looks("heard")) == (2, 1, 1)
    })
    .await;
    world.dead_letter().await;
    assert_eq!(world.store().want_look(refused, OffsetDateTime::now_utc()).await.unwrap(), Some(Wanted::Due));
    eventually("the provider says so again", async || reconciler.looks("contradicted") == 3).await;
    reconciler.drain().await;
    worker.drain().await;
    assert_eq!(world.grants().await, 0);
}

#[tokio::test]
async fn a_second_payment_and_an_order_id_of_the_shops_own_contradict_nothing() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let given_up = payment(&provider).await;
    post(&provider, &format!("/payments/{given_up}/pay"), &json!({"outcome": "canceled"})).await;
    let paid_by_another = order_asked_about(&world, &given_up, in_an_hour()).await;
    let another = paid(&provider).await;
    post(&provider, &format!("/payments/{another}"), &json!({"metadata": {"order_id": paid_by_another}})).await;
    let numbered = paid(&provider).await;
    let shops_own = uuid::Uuid::now_v7().to_string();
    post(&provider, &format!("/payments/{numbered}"), &json!({"metadata": {"order_id": shops_own}})).await;
    let numbered = order(&world, &numbered).await;
    let (worker, reconciler) = (world.start_worker(), Running::start(&world, &provider.base));
    world.publish_raw(Outgoing::hint(&hint(&another)).unwrap()).await;
    fulfilled(&world, numbered).await;
    fulfilled(&world, paid_by_another).await;
    // The reconciler asks about the abandoned payment after another payment has paid the order.
    let before = reconciler.looks("heard") + reconciler.looks("quiet");
    world.store().want_look(paid_by_another, OffsetDateTime::now_utc()).await.unwrap();
    eventually("it is asked about", async || reconciler.looks("heard") + reconciler.looks("quiet") > before).await;
    assert_eq!(reconciler.looks("contradicted"), 0);
    reconciler.drain().await;
    worker.drain().await;
    assert_eq!(world.grants().await, 2);
}

#[tokio::test]
async fn without_postgres_it_waits_and_says_so() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let reconciler = Running::start(&world, &provider.base);
    let both = ["postgres", "rabbitmq"].map(|name| format!("grantonce_dependency_up{{dependency=\"{name}\"}} 1"));
    eventually("both are there", async || {
        let page = reconciler.metrics.render();
        both.iter().all(|line| page.lines().any(|found| found == line))
    })
    .await;
    assert!(reconciler.readiness.missing().is_empty());
    world.execute("ALTER TABLE provider_looks RENAME TO away").await;
    eventually("Postgres is missed", async || reconciler.readiness.missing() == ["postgres"]).await;
    let payment_id = paid(&provider).await;
    world.publish_raw(Outgoing::hint(&hint(&payment_id)).unwrap()).await;
    world.execute("ALTER TABLE away RENAME TO provider_looks").await;
    eventually("it goes on", async || reconciler.looks("heard") == 1).await;
    reconciler.drain().await;
}

/// Creates a PayPal payment through the API, with its order.
async fn paypal_order(world: &World, provider: &Standin) -> (OrderId, String, Child) {
    const TOKEN: &str = "shop-token-shop-token";
    let mut api = world
        .children()
        .env("GRANTONCE_API_TOKENS", format!("shop:{TOKEN}"))
        .env("GRANTONCE_STATUS_TOKEN_KEY", "status-key-status-key-status-key-0")
        .env("GRANTONCE_PAYPAL_CLIENT_ID", "id")
        .env("GRANTONCE_PAYPAL_CLIENT_SECRET", "secret")
        .env("GRANTONCE_PAYPAL_API_BASE", &provider.base)
        .start("api", &["api"])
        .await
        .unwrap();
    let address = api.listening("api", Duration::from_secs(30)).await.unwrap();
    let order = json!({
        "account_id": "acc", "credits": 100, "amount_minor": 1999, "currency": "USD", "provider": "paypal",
        "return_url": "https://shop.example/back"
    });
    let http = plain_client().build().unwrap();
    let request = http.post(format!("http://{address}/v1/orders")).bearer_auth(TOKEN).header("idempotency-key", "k");
    let answer = request.json(&order).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let answer: Value = answer.json().await.unwrap();
    assert!(answer["payment"]["approve_url"].as_str().unwrap().starts_with(&provider.base), "{answer}");
    let payment_id = answer["payment"]["payment_id"].as_str().unwrap().to_owned();
    (answer["id"].as_str().unwrap().parse().unwrap(), payment_id, api)
}

async fn at_the_provider(provider: &Standin, payment_id: &str) -> String {
    let http = plain_client().build().unwrap();
    let answer = http.get(format!("{}/payments/{payment_id}", provider.base)).send().await.unwrap();
    answer.json::<Value>().await.unwrap()["status"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_paypal_payment_is_captured_when_the_buyer_has_agreed_and_not_before() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let (id, payment_id, _api) = paypal_order(&world, &provider).await;
    let (worker, reconciler) = (world.start_worker(), Running::start(&world, &provider.base));
    let check = async || world.store().want_look(id, OffsetDateTime::now_utc()).await.unwrap();
    check().await;
    eventually("it was asked too early", async || reconciler.looks_at("paypal", "quiet") == 1).await;
    assert_eq!(world.status(id).await, "awaiting_payment");

    post(&provider, &format!("/payments/{payment_id}/pay"), &json!({"outcome": "succeeded"})).await;
    assert_eq!(at_the_provider(&provider, &payment_id).await, "approved", "agreed is not paid");
    check().await;
    fulfilled(&world, id).await;
    assert_eq!(at_the_provider(&provider, &payment_id).await, "succeeded");
    // A hint, as a webhook of PayPal's makes it, finds the payment in this state.
    let hint = Hint { provider: Provider::PAYPAL, ..hint(&payment_id) };
    let heard = reconciler.looks_at("paypal", "heard");
    world.publish_raw(Outgoing::hint(&hint).unwrap()).await;
    eventually("it was asked once more", async || reconciler.looks_at("paypal", "heard") > heard).await;
    reconciler.drain().await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (1, 0));
    world.verify().await;
}

#[tokio::test]
async fn a_capture_whose_answer_is_lost_takes_the_money_once() {
    for lost in ["lose_request", "lose_answer"] {
        let (world, provider) = (World::new().await, Standin::start().await.unwrap());
        let (id, payment_id, _api) = paypal_order(&world, &provider).await;
        post(&provider, &format!("/payments/{payment_id}/pay"), &json!({"outcome": "succeeded"})).await;
        let faults = plain_client().build().unwrap().post(format!("{}/faults/paypal", provider.base));
        assert_eq!(faults.json(&json!([lost, lost])).send().await.unwrap().status(), 204);
        world.store().want_look(id, OffsetDateTime::now_utc()).await.unwrap();
        let (worker, reconciler) = (world.start_worker(), Running::start(&world, &provider.base));
        fulfilled(&world, id).await;
        reconciler.drain().await;
        world.settled(worker).await;
        assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (1, 0), "{lost}");
    }
}

#[tokio::test]
async fn a_paypal_dispute_holds_the_credits_and_a_refund_takes_them() {
    let (world, provider) = (World::new().await, Standin::start().await.unwrap());
    let (id, payment_id, _api) = paypal_order(&world, &provider).await;
    post(&provider, &format!("/payments/{payment_id}/pay"), &json!({"outcome": "succeeded"})).await;
    let (worker, reconciler) = (world.start_worker(), Running::start(&world, &provider.base));
    world.store().want_look(id, OffsetDateTime::now_utc()).await.unwrap();
    fulfilled(&world, id).await;

    // Each step changes the payment at the provider and sends a hint, as the webhook does. The webhook of a dispute names the
    // capture.
    let capture = Hint { provider: Provider::PAYPAL, ..hint(&payment_id.replace("PAYPAL", "CAPTURE")) };
    let becomes = async |done: &[(&str, Value)], status: &str, credits: i64| {
        for (what, body) in done {
            post(&provider, &format!("/payments/{payment_id}/{what}"), body).await;
        }
        world.publish_raw(Outgoing::hint(&capture).unwrap()).await;
        eventually(&format!("the order is {status}"), async || world.status(id).await == status).await;
        assert_eq!(world.count("SELECT sum(credits)::bigint FROM account_balances").await, credits, "{done:?}");
    };
    becomes(&[("dispute", json!({}))], "disputed", 0).await;
    becomes(&[("dispute/close", json!({"won": true}))], "fulfilled", 100).await;
    becomes(&[("refund", json!({"amount_minor": 999}))], "partially_refunded", 50).await;
    // A lost dispute also returns its hold. The reversal of the capture takes the remaining credits.
    becomes(&[("dispute", json!({})), ("dispute/close", json!({"won": false}))], "refunded", 0).await;
    reconciler.drain().await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (1, 0));
    world.verify().await;
}

#[tokio::test]
async fn what_a_look_finds_is_followed_to_its_grant_in_one_trace() {
    let (world, provider, collector) = (World::new().await, Standin::start().await.unwrap(), Collector::start().await);
    let payment_id = paid(&provider).await;
    let id = order(&world, &payment_id).await;
    let traces = Traces::export(&collector.endpoint, "all").unwrap();
    let reconciler = Running::start_traced(&world, &provider.base, traces.clone());
    let worker = world.start_traced_worker(traces.clone());
    fulfilled(&world, id).await;
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut carries = Outgoing::hint(&hint(&payment_id)).unwrap();
    carries.headers.set_text("traceparent", traceparent);
    world.publish_raw(carries).await;
    eventually("the hint is noted", async || world.ready(HINTS_QUEUE).await == 0).await;
    reconciler.drain().await;
    world.settled(worker).await;
    traces.shutdown().await;
    let spans = collector.spans();
    let one =
        |fits: &dyn Fn(&Told) -> bool| spans.iter().find(|span| fits(span)).unwrap_or_else(|| panic!("{spans:#?}"));
    let look = one(&|span| span.name == "look" && span.get("grantonce.outcome") == "heard");
    assert_eq!(look.get("grantonce.payment_id"), payment_id);
    let publish = one(&|span| span.parent == look.id);
    assert_eq!((publish.name.as_str(), publish.trace.as_str()), ("publish payments", look.trace.as_str()));
    let process = one(&|span| span.parent == publish.id);
    assert_eq!((process.name.as_str(), process.get("grantonce.grants")), ("process fulfilment", "1"));
    let hinted = one(&|span| span.get("messaging.destination.name") == HINTS_QUEUE);
    assert_eq!(hinted.name, format!("process {HINTS_QUEUE}"));
    assert_eq!((hinted.trace.as_str(), hinted.parent.as_str()), (&traceparent[3..35], &traceparent[36..52]));
}

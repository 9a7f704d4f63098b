//! Tries the cases in every way.

use super::{Case, Names, stripe_list};
use crate::support::world::STRIPE_SECRET;
use crate::support::{World, eventually};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::Response;
use grantonce::broker::{DEAD_QUEUE, HINTS_QUEUE, Outgoing};
use grantonce::clock::Clock;
use grantonce::config::{BrokerConfig, DatabaseConfig, PaypalApi, ProvidersConfig, ReconcilerConfig, StripeApi};
use grantonce::domain::story::MissingCode;
use grantonce::domain::{
    AccountId, Currency, DisputePolicy, Hint, MessageId, Money, OrderId, PaymentEvent, PaymentId, ProviderAccount,
};
use grantonce::http::{Readiness, plain_client};
use grantonce::reconciler::{self, ReconcilerError};
use grantonce::shutdown::Shutdown;
use grantonce::store::{
    Asked, Attach, BatchTerms, Class, ExplainTerms, IdempotencyKey, NewOrder, Outcome, Profile, Store,
};
use grantonce::telemetry::{Metrics, Traces};
use grantonce::webhook::{Endpoint, Keys, Terms, Translation, Unverified};
use grantonce_testkit::sign::{adyen_signature, standard_signature, stripe_signature};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::task::JoinHandle;

const ADYEN_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";
const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Most orders of arrival that are tried for a case. If there are more, a random choice is tried.
const ARRIVALS_MAX: usize = 120;

/// Events that are applied in one transaction.
const BATCH_EVENTS: usize = 200;

const START: Duration = Duration::from_secs(30);

/// Tries each of the cases in every way.
pub async fn run(cases: impl IntoIterator<Item = Case>) {
    let cases: Vec<_> = cases.into_iter().collect();
    assert!(!cases.is_empty());
    let seed = std::env::var("CASES_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("CASES_SEED={seed}");
    let mut tries = Tries { world: World::new().await, rng: fastrand::Rng::with_seed(seed), made: 0 };
    for case in cases.iter().filter(|case| !case.bodies.is_empty()) {
        tries.in_every_order(case).await;
    }
    tries.world.verify().await;
    // One deployment has one setting for Adyen's captures.
    for by_hand in [false, true] {
        let of_kind = |case: &&Case| !case.bodies.is_empty() && case.is_adyen_captured_by_hand == by_hand;
        let some: Vec<_> = cases.iter().filter(of_kind).collect();
        if !some.is_empty() {
            tries.over_the_network(&some, by_hand).await;
        }
    }
    let asked: Vec<_> = cases.iter().filter(|case| !case.answers.is_empty()).collect();
    if !asked.is_empty() {
        tries.by_the_reconciler(&asked).await;
    }
    tries.world.verify().await;
}

/// A webhook names a refund that the provider does not know, of a payment of which a part went back. An operator is told.
pub async fn is_loud(case: &Case) {
    let mut tries = Tries { world: World::new().await, rng: fastrand::Rng::with_seed(7), made: 0 };
    let fake = Fake::start().await;
    let names = tries.names();
    fake.knows(case, names);
    tries.order_to_ask_about(case, names).await;
    let worker = tries.world.start_worker();
    let (shutdown, metrics) = (Shutdown::manual(), Metrics::new());
    let task = tries.start_reconciler(&fake, &metrics, &shutdown);
    let paid = ("fulfilled".to_owned(), case.credits);
    eventually("it is paid", async || tries.state(names).await == paid).await;
    let contradicted = || {
        let name = "grantonce_provider_looks_total{provider=\"paypal\",outcome=\"contradicted\"} ";
        metrics.render().lines().find_map(|line| line.strip_prefix(name)?.parse::<usize>().ok()).unwrap()
    };
    assert_eq!(contradicted(), 0);
    for (n, ids) in case.hints.iter().enumerate() {
        let hint = hint(case, names, ids, &n.to_string());
        tries.world.publish_raw(Outgoing::hint(&hint).unwrap()).await;
    }
    eventually("the refund is unknown there", async || contradicted() == 1).await;
    let untold = "SELECT count(*) FROM provider_looks WHERE said = 'refund_untold'";
    let again = "UPDATE provider_looks SET due_at = now() - interval '1 second' WHERE order_id IS NOT NULL";
    // Once is not enough: the refund of the webhook may be on its way.
    eventually("a part went back", async || {
        tries.world.execute(again).await;
        tries.world.count(untold).await == 1
    })
    .await;
    tries.world.execute(again).await;
    eventually("it is said again", async || contradicted() >= 2).await;
    shutdown.token().cancel();
    tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
    tries.world.settled(worker).await;
    assert_eq!(tries.state(names).await, paid);
    let asked = Asked::new(&names.order.to_string(), None).unwrap();
    let terms = ExplainTerms {
        now: OffsetDateTime::now_utc(),
        dispute_policy: DisputePolicy::Hold,
        orders_max: 50,
        entries_max: 500,
    };
    let story = tries.world.store().explain(asked, terms).await.unwrap().unwrap();
    assert!(story.summary.needs_attention);
    assert_eq!(story.summary.missing[0].code, MissingCode::RefundUntold, "{:?}", story.summary);
}

struct Tries {
    world: World,
    rng: fastrand::Rng,
    made: usize,
}

/// Translates a body in the real webhook room.
fn translate(case: &Case, body: &Value) -> Vec<Translation> {
    let now = OffsetDateTime::now_utc();
    let terms = Terms { livemode: false, is_adyen_captured_by_hand: case.is_adyen_captured_by_hand };
    let (secret, headers, body) = signed(case.endpoint, body, now);
    let keys = Keys::new(case.endpoint, &[secret.into()], terms).unwrap();
    keys.verify(Unverified { headers: &headers, body: &body, now }).unwrap().translate()
}

/// A request as the provider sends it.
fn signed(endpoint: Endpoint, body: &Value, now: OffsetDateTime) -> (&'static str, HeaderMap, Vec<u8>) {
    let mut headers = HeaderMap::new();
    let mut insert = |name: &'static str, value: String| {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_str(&value).unwrap());
    };
    let bytes = |body: &Value| match body {
        // Sent as it is: a JSON value cannot express this body.
        Value::String(raw) => raw.clone().into_bytes(),
        other => serde_json::to_vec(other).unwrap(),
    };
    let seconds = now.unix_timestamp();
    match endpoint {
        Endpoint::Stripe => {
            let body = bytes(body);
            insert("stripe-signature", stripe_signature(STRIPE_SECRET, seconds, &body).unwrap());
            (STRIPE_SECRET, headers, body)
        }
        Endpoint::Adyen => {
            let mut body = body.clone();
            for item in body["notificationItems"].as_array_mut().unwrap() {
                let item = &mut item["NotificationRequestItem"];
                let signature = adyen_signature(ADYEN_KEY, item).unwrap().unwrap();
                item["additionalData"]["hmacSignature"] = signature.into();
            }
            (ADYEN_KEY, headers, bytes(&body))
        }
        Endpoint::Standard => {
            let body = bytes(body);
            let id = format!("msg_{}", hex::encode(body.iter().rev().take(8).copied().collect::<Vec<_>>()));
            insert("webhook-signature", standard_signature(STANDARD_SECRET, &id, seconds, &body).unwrap());
            insert("webhook-timestamp", seconds.to_string());
            insert("webhook-id", id);
            (STANDARD_SECRET, headers, body)
        }
        Endpoint::Paypal => panic!("PayPal's webhooks are hints: give the case answers instead"),
    }
}

/// Every order of the numbers below `count`.
fn permutations(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![vec![]] };
    let longer = |shorter: Vec<usize>| {
        (0..count).map(move |at| {
            let mut longer = shorter.clone();
            longer.insert(at, last);
            longer
        })
    };
    permutations(last).into_iter().flat_map(longer).collect()
}

/// One try: its names, and its arrivals batch by batch.
struct Try {
    names: Names,
    batches: Vec<Vec<PaymentEvent>>,
    all: Vec<PaymentEvent>,
    letters: BTreeSet<String>,
    /// Whether an event led to no order when all of them were applied last.
    is_unknown: bool,
}

impl Tries {
    fn names(&mut self) -> Names {
        self.made += 1;
        let id = || OrderId(uuid::Uuid::now_v7());
        Names { order: id(), other: id(), number: self.made }
    }

    /// Creates an order as the API does, without a look at its provider, and a second order.
    async fn order(&self, case: &Case, names: Names) {
        self.insert(case, names, names.order).await;
        self.insert(case, names, names.other).await;
        if let Some(payment) = case.payment {
            sqlx::query(
                "INSERT INTO payments (provider, provider_account, payment_id, order_id, registered_at)
                 VALUES ($1, $2, $3, $4, now())",
            )
            .bind(case.endpoint.path())
            .bind(names.text(case.account.unwrap_or_default()))
            .bind(names.text(payment))
            .bind(names.order.0)
            .execute(&self.world.sql)
            .await
            .unwrap();
        }
    }

    async fn insert(&self, case: &Case, names: Names, id: OrderId) {
        let discount_max = case.terms.discount_max_minor();
        sqlx::query(
            "INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, provider_account, price_terms,
                                 discount_max_minor, created_at, updated_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, now(), now())",
        )
        .bind(id.0)
        .bind(format!("acc{}", names.number))
        .bind(case.credits)
        .bind(case.price_minor)
        .bind(case.currency)
        .bind(case.endpoint.path())
        .bind(names.text(case.account.unwrap_or_default()))
        .bind(case.terms.name())
        .bind(discount_max)
        .execute(&self.world.sql)
        .await
        .unwrap();
    }

    /// The arrivals to try, each with a division into batches.
    fn arrivals(&mut self, count: usize) -> Vec<(Vec<usize>, usize)> {
        const WAYS: usize = 3;
        let mut all = if count <= 5 {
            permutations(count)
        } else {
            (0..ARRIVALS_MAX)
                .map(|_| {
                    let mut arrival: Vec<_> = (0..count).collect();
                    self.rng.shuffle(&mut arrival);
                    arrival
                })
                .collect()
        };
        all.truncate(ARRIVALS_MAX);
        if all.len() <= 24 {
            all.iter().flat_map(|arrival| (0..WAYS).map(|way| (arrival.clone(), way))).collect()
        } else {
            all.into_iter().enumerate().map(|(n, arrival)| (arrival, n % WAYS)).collect()
        }
    }

    /// A duplicate comes at once, in the same batch, or much later.
    fn batches(&mut self, arrival: &[Vec<PaymentEvent>], way: usize) -> Vec<Vec<PaymentEvent>> {
        match way {
            0 => arrival.iter().flat_map(|events| [events.clone(), events.clone()]).collect(),
            1 => vec![arrival.iter().chain(arrival).flatten().cloned().collect()],
            _ => {
                let mut batches = vec![vec![]];
                for events in arrival {
                    batches.last_mut().unwrap().extend(events.iter().cloned());
                    if self.rng.bool() {
                        batches.push(events.clone());
                    }
                }
                batches
            }
        }
    }

    async fn in_every_order(&mut self, case: &Case) {
        let mut tries = vec![];
        for (arrival, way) in self.arrivals(case.bodies.len()) {
            let names = self.names();
            let mut letters = BTreeSet::new();
            let mut arriving = vec![];
            for body in arrival.iter().map(|n| names.fill(&case.bodies[*n])) {
                let mut events = vec![];
                for said in translate(case, &body) {
                    match said {
                        Translation::Events(said) => events.extend(said),
                        Translation::Untranslatable { .. } => {
                            letters.insert("untranslatable".to_owned());
                        }
                        Translation::Hint(_) | Translation::Ignored { .. } => {}
                    }
                }
                arriving.push(events);
            }
            let batches = self.batches(&arriving, way);
            let all = arriving.into_iter().rev().flatten().collect();
            self.order(case, names).await;
            tries.push(Try { names, batches, all, letters, is_unknown: false });
        }
        let store = Store::new(&self.world.store_settings(Profile::Batches)).unwrap();
        for step in 0..tries.iter().map(|it| it.batches.len()).max().unwrap_or(0) {
            apply(&store, &mut tries, |one| one.batches.get(step).cloned().unwrap_or_default()).await;
        }
        // Everything again, much later. Messages that came before the one that leads to their order are known now.
        for _ in 0..2 {
            apply(&store, &mut tries, |one| one.all.clone()).await;
        }
        for one in &tries {
            let which = format!("{} (order {})", case.name, one.names.order);
            self.check(case, one.names, &which).await;
            let mut letters: BTreeSet<_> = one.letters.iter().map(String::as_str).collect();
            // A worker waits for its order, and gives up after a while.
            letters.extend(one.is_unknown.then_some("unknown_payment"));
            assert_eq!(letters, case.letters, "{which}: dead letters");
        }
    }

    async fn state(&self, names: Names) -> (String, i64) {
        sqlx::query_as("SELECT status, credits_granted FROM orders WHERE id = $1")
            .bind(names.order.0)
            .fetch_one(&self.world.sql)
            .await
            .unwrap()
    }

    async fn check(&self, case: &Case, names: Names, which: &str) {
        let facts: Value = sqlx::query_scalar("SELECT facts FROM orders WHERE id = $1")
            .bind(names.order.0)
            .fetch_one(&self.world.sql)
            .await
            .unwrap();
        assert_eq!(self.state(names).await, (case.status.to_owned(), case.net), "{which}: {facts}");
        let grants = format!("SELECT count(*) FROM credit_grants WHERE order_id = '{}'", names.order);
        assert!(self.world.count(&grants).await <= 1, "{which}");
    }

    /// As the provider sends them: over HTTP, RabbitMQ and a worker.
    async fn over_the_network(&mut self, cases: &[&Case], by_hand: bool) {
        let children = self
            .world
            .children()
            .env("GRANTONCE_ADYEN_HMAC_KEYS", ADYEN_KEY)
            .env("GRANTONCE_STANDARD_WEBHOOK_SECRETS", STANDARD_SECRET)
            .env("GRANTONCE_ADYEN_CAPTURE", if by_hand { "manual" } else { "automatic" });
        let mut process = children.start("receiver", &["receiver"]).await.unwrap();
        let url = format!("http://{}", process.listening("receiver", START).await.unwrap());
        let http = plain_client().build().unwrap();
        eventually("the receiver is ready", async || {
            http.get(format!("{url}/readyz")).send().await.unwrap().status() == StatusCode::OK
        })
        .await;
        let worker = self.world.start_worker();
        let mut sent = vec![];
        for case in cases {
            let names = self.names();
            self.order(case, names).await;
            for body in &case.bodies {
                let (_, headers, body) = signed(case.endpoint, &names.fill(body), OffsetDateTime::now_utc());
                for _copy in 0..2 {
                    let request = http.post(format!("{url}/webhooks/{}", case.endpoint.path()));
                    let answer = request.headers(headers.clone()).body(body.clone()).send().await.unwrap();
                    assert_eq!(answer.status(), StatusCode::OK, "{}: what is genuine is answered with 200", case.name);
                }
            }
            sent.push((case, names));
        }
        for (case, names) in &sent {
            eventually(&format!("{} over the network ends as {}", case.name, case.status), async || {
                self.state(*names).await == (case.status.to_owned(), case.net)
            })
            .await;
        }
        self.world.settled(worker).await;
        for (case, names) in &sent {
            self.check(case, *names, &format!("{} over the network", case.name)).await;
        }
        let expects_letters = cases.iter().any(|case| !case.letters.is_empty());
        assert_eq!(self.world.ready(DEAD_QUEUE).await > 0, expects_letters, "dead letters over the network");
        drop(process);
        let (connection, channel) = self.world.channel().await;
        channel.queue_purge(DEAD_QUEUE.into(), Default::default()).await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
    }

    /// By the provider's answers only, before the webhooks and after them.
    async fn by_the_reconciler(&mut self, cases: &[&Case]) {
        let fake = Fake::start().await;
        let store = Store::new(&self.world.store_settings(Profile::Batches)).unwrap();
        let mut asked = vec![];
        for case in cases {
            for way in ["by its answers", "by webhooks and then its answers", "by its answers and then webhooks"] {
                let names = self.names();
                fake.knows(case, names);
                let mut events = vec![];
                for body in &case.bodies {
                    for said in translate(case, &names.fill(body)) {
                        if let Translation::Events(said) = said {
                            events.extend(said);
                        }
                    }
                }
                self.insert(case, names, names.other).await;
                self.order_to_ask_about(case, names).await;
                if way == "by webhooks and then its answers" {
                    let mut one = [Try {
                        names,
                        batches: vec![],
                        all: events.clone(),
                        letters: BTreeSet::new(),
                        is_unknown: false,
                    }];
                    apply(&store, &mut one, |one| one.all.clone()).await;
                    self.world.store().want_look(names.order, OffsetDateTime::now_utc()).await.unwrap();
                }
                asked.push((*case, names, way, events));
            }
        }
        let (shutdown, metrics) = (Shutdown::manual(), Metrics::new());
        let worker = self.world.start_worker();
        let task = self.start_reconciler(&fake, &metrics, &shutdown);
        eventually("every payment was asked about", async || looks(&metrics) >= asked.len()).await;
        for (case, names, way, _) in asked.iter().filter(|(case, ..)| !case.hints.is_empty()) {
            for copy in 0..2 {
                for (n, ids) in case.hints.iter().enumerate() {
                    let hint = hint(case, *names, ids, &format!("{n}"));
                    self.world.publish_raw(Outgoing::hint(&hint).unwrap()).await;
                }
                if copy == 0 {
                    eventually(&format!("{} {way} comes to {}", case.name, case.net), async || {
                        self.state(*names).await == (case.status.to_owned(), case.net)
                    })
                    .await;
                }
            }
        }
        eventually("the hints are noted", async || self.world.ready(HINTS_QUEUE).await == 0).await;
        shutdown.token().cancel();
        tokio::time::timeout(Duration::from_secs(10), task).await.unwrap().unwrap().unwrap();
        self.world.settled(worker).await;
        for (case, names, way, events) in asked {
            let (status, net) = case.asked.unwrap_or((case.status, case.net));
            let case = &case.clone().ends(status, net);
            if way == "by its answers and then webhooks" {
                let mut one =
                    [Try { names, batches: vec![], all: events, letters: BTreeSet::new(), is_unknown: false }];
                apply(&store, &mut one, |one| one.all.clone()).await;
            }
            self.check(case, names, &format!("{} {way}", case.name)).await;
        }
    }

    fn start_reconciler(
        &self,
        fake: &Fake,
        metrics: &Metrics,
        shutdown: &Shutdown,
    ) -> JoinHandle<Result<(), ReconcilerError>> {
        let config = ReconcilerConfig {
            database: DatabaseConfig { url: self.world.database_url.parse().unwrap() },
            broker: BrokerConfig { url: self.world.amqp_url.parse().unwrap() },
            livemode: false,
            providers: ProvidersConfig {
                stripe: Some(StripeApi {
                    key: grantonce::followed::Followed::new("sk_test_1".into()),
                    base: fake.base.clone(),
                }),
                paypal: Some(PaypalApi {
                    client_id: "id".to_owned(),
                    client_secret: grantonce::followed::Followed::new("secret".into()),
                    base: fake.base.clone(),
                }),
            },
            first_look_after: Duration::from_secs(120),
        };
        tokio::spawn(reconciler::run(
            config,
            Clock::system(),
            metrics.clone(),
            Traces::off(),
            Readiness::new(),
            shutdown.clone(),
        ))
    }

    async fn order_to_ask_about(&self, case: &Case, names: Names) {
        let payment = case.payment.expect("an order whose provider can be asked is made with a payment");
        let now = OffsetDateTime::now_utc();
        let new = NewOrder {
            id: names.order,
            account_id: AccountId::new(format!("acc{}", names.number)).unwrap(),
            credits: case.credits,
            price: Money::new(case.price_minor, Currency::new(case.currency).unwrap()).unwrap(),
            price_terms: case.terms,
            provider: case.endpoint.provider().clone(),
            provider_account: case.account.map(|account| names.text(account).parse::<ProviderAccount>().unwrap()),
            payment_id: Some(PaymentId::new(names.text(payment)).unwrap()),
            metadata: json!({}),
            now,
            first_look_at: now,
        };
        let key =
            IdempotencyKey { token_name: "site".to_owned(), key: names.order.to_string(), request_digest: [7; 32] };
        assert!(matches!(self.world.store().attach_order(key, new).await.unwrap(), Attach::Created(_)));
    }
}

/// The ids in a webhook that is only a hint.
fn hint(case: &Case, names: Names, ids: &[&str], number: &str) -> Hint {
    let mut ids = ids.iter().map(|id| PaymentId::new(names.text(id)).unwrap());
    Hint {
        provider: case.endpoint.provider().clone(),
        message_id: MessageId::new(format!("{}::hint-{}-{number}", case.endpoint.path(), names.number)).unwrap(),
        payment_id: ids.next().unwrap(),
        related_ids: ids.collect(),
        provider_account: None,
        livemode: false,
    }
}

/// Looks that the reconciler has finished, with any result.
fn looks(metrics: &Metrics) -> usize {
    let page = metrics.render();
    let counts = page.lines().filter(|line| line.starts_with("grantonce_provider_looks_total{"));
    counts.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

/// Applies some events of every try, many tries in one transaction.
async fn apply(store: &Store, tries: &mut [Try], events: impl Fn(&Try) -> Vec<PaymentEvent>) {
    let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: OffsetDateTime::now_utc() };
    let arriving: Vec<(usize, PaymentEvent)> =
        tries.iter().enumerate().flat_map(|(n, one)| events(one).into_iter().map(move |event| (n, event))).collect();
    for one in &mut *tries {
        one.is_unknown = false;
    }
    for batch in arriving.chunks(BATCH_EVENTS) {
        let events: Arc<[PaymentEvent]> = batch.iter().map(|(_, event)| event.clone()).collect();
        let applied = loop {
            match store.apply(Arc::clone(&events), terms, crate::support::APPLYING).await {
                Ok(applied) => break applied,
                Err(error) => assert_eq!(error.class(), Class::Contended, "{error}"),
            }
        };
        for ((n, _), outcome) in batch.iter().zip(applied.outcomes) {
            match outcome {
                Outcome::Applied { .. } | Outcome::Duplicate => {}
                Outcome::OrderUnknown => tries[*n].is_unknown = true,
                Outcome::Unreadable(detail) => panic!("{detail}"),
                Outcome::Refused(refusal) => {
                    tries[*n].letters.insert(refusal.reason.name().to_owned());
                }
            }
        }
    }
}

/// The answers of a fake provider, by path.
type Known = Arc<Mutex<Vec<(String, Value)>>>;

/// A provider with the answers of the cases.
struct Fake {
    base: String,
    known: Known,
    served: tokio::task::JoinHandle<()>,
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.served.abort();
    }
}

impl Fake {
    async fn start() -> Self {
        let known = Known::default();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::clone(&known);
        let router = axum::Router::new().fallback(move |request: Request| {
            let answer = answer(&asked.lock().unwrap(), &request);
            async move { answer }
        });
        let served = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { base, known, served }
    }

    fn knows(&self, case: &Case, names: Names) {
        let answers = case.answers.iter().map(|(path, answer)| (names.text(path), names.fill(answer)));
        self.known.lock().unwrap().extend(answers);
    }
}

/// The answer for the longest path that begins the request's path. Without one: an empty list if the request asks for a list, else
/// "no such object".
fn answer(known: &[(String, Value)], request: &Request) -> Response {
    let asked = request.uri().path_and_query().unwrap().as_str();
    let fits =
        |path: &str| asked.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with(['?', '&']));
    let found = known.iter().filter(|(path, _)| fits(path)).max_by_key(|(path, _)| path.len());
    let json = |status: StatusCode, body: &Value| {
        let response = Response::builder().status(status).header("content-type", "application/json");
        response.body(Body::from(serde_json::to_vec(body).unwrap())).unwrap()
    };
    match found {
        Some((_, Value::String(raw))) => Response::new(Body::from(raw.clone())),
        Some((_, answer)) => json(StatusCode::OK, answer),
        None if request.uri().path() == "/v1/oauth2/token" => {
            json(StatusCode::OK, &json!({"access_token": "t", "token_type": "Bearer", "expires_in": 32_400}))
        }
        None if asked.contains("/v1/customer/disputes?") => json(StatusCode::OK, &json!({"items": [], "links": []})),
        None if asked.contains('?') && !request.uri().path().trim_start_matches("/v1/").contains('/')
            || request.uri().path() == "/v1/checkout/sessions" =>
        {
            json(StatusCode::OK, &stripe_list([]))
        }
        None => json(
            StatusCode::NOT_FOUND,
            &json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}, "name": "RESOURCE_NOT_FOUND"}),
        ),
    }
}

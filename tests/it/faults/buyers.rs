//! Steady buyers, sites and providers that try again, and how long everybody waits for the credits.

use crate::support::eventually_within;
use crate::support::messages::stripe_webhook;
use grantonce::domain::OrderId;
use grantonce::http::plain_client;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

pub const TOKEN: &str = "shop-token-shop-token";

/// Every buyer's account and every id of their payments begins like this.
pub const GENUINE: &str = "buyer-";

/// Time between two buyers: seven a second.
const EVERY: Duration = Duration::from_millis(140);

/// Time between two tries of a site or a provider.
const AGAIN: Duration = Duration::from_millis(200);

/// How often the test looks for buyers with credits.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the last buyers may wait.
const PATIENCE: Duration = Duration::from_secs(180);

/// One buyer who has paid.
#[derive(Debug, Clone, Copy)]
pub struct Bought {
    /// When the provider first tried to report it.
    pub paid_at: Instant,
    /// When the test saw the credits.
    pub granted_at: Option<Instant>,
    /// A fault concerns this order.
    pub is_target: bool,
}

impl Bought {
    pub fn waited(&self) -> Duration {
        self.granted_at.unwrap_or_else(Instant::now) - self.paid_at
    }
}

/// The shop, the provider and all buyers.
#[derive(Clone)]
pub struct Buyers(Arc<Inner>);

struct Inner {
    http: Client,
    api: SocketAddr,
    receivers: [SocketAddr; 2],
    sql: PgPool,
    /// The secret that the provider signs with.
    secret: Mutex<String>,
    all: Mutex<BTreeMap<String, Bought>>,
    /// Answers that must not occur.
    refused: Mutex<Vec<String>>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl Buyers {
    pub fn new(api: SocketAddr, receivers: [SocketAddr; 2], sql: PgPool, secret: &str) -> Self {
        Self(Arc::new(Inner {
            // As long as the most impatient provider waits.
            http: plain_client().timeout(Duration::from_secs(10)).build().unwrap(),
            api,
            receivers,
            sql,
            secret: Mutex::new(secret.to_owned()),
            all: Mutex::default(),
            refused: Mutex::default(),
            next: AtomicUsize::new(0),
            stop: CancellationToken::new(),
        }))
    }

    /// Buyers come until this stops.
    pub fn start(&self) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let (buyers, looking) = (self.clone(), self.clone());
        tasks.spawn(async move {
            let mut shopping = JoinSet::new();
            let mut every = interval(EVERY);
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
            while buyers.0.stop.run_until_cancelled(every.tick()).await.is_some() {
                let buyers = buyers.clone();
                shopping.spawn(async move {
                    let name = buyers.name();
                    let order = buyers.place(&name).await;
                    buyers.pay(&name, order, false).await;
                });
            }
            shopping.join_all().await;
        });
        tasks.spawn(async move {
            loop {
                looking.look().await;
                if looking.0.stop.is_cancelled() && looking.waiting() == 0 {
                    return;
                }
                sleep(LOOK_EVERY).await;
            }
        });
        tasks
    }

    /// Stops new buyers, waits until all have their credits, and returns everybody's wait.
    pub async fn stop(&self, mut tasks: JoinSet<()>) -> BTreeMap<String, Bought> {
        self.0.stop.cancel();
        let all_have = async || {
            while let Some(done) = tasks.try_join_next() {
                done.unwrap();
            }
            tasks.is_empty()
        };
        eventually_within(PATIENCE, "every buyer has credits", all_have).await;
        let refused = self.0.refused.lock().unwrap();
        assert!(refused.is_empty(), "{}", refused.join("\n"));
        self.0.all.lock().unwrap().clone()
    }

    pub fn name(&self) -> String {
        format!("{GENUINE}{}", self.0.next.fetch_add(1, Ordering::Relaxed))
    }

    /// How many have paid and have no credits yet.
    fn waiting(&self) -> usize {
        self.0.all.lock().unwrap().values().filter(|bought| bought.granted_at.is_none()).count()
    }

    /// Whether nobody has waited longer than `this`.
    pub fn nobody_waits_longer_than(&self, this: Duration) -> bool {
        let all = self.0.all.lock().unwrap();
        all.values().all(|bought| bought.granted_at.is_some() || bought.waited() < this)
    }

    pub fn has_credits(&self, name: &str) -> bool {
        self.0.all.lock().unwrap().get(name).is_some_and(|bought| bought.granted_at.is_some())
    }

    /// Whether a buyer who paid after `since` has credits.
    pub fn goes_on_since(&self, since: Instant) -> bool {
        let all = self.0.all.lock().unwrap();
        all.values().any(|bought| bought.paid_at > since && bought.granted_at.is_some())
    }

    /// The provider signs with another secret from now on.
    pub fn sign_with(&self, secret: &str) {
        *self.0.secret.lock().unwrap() = secret.to_owned();
    }

    pub fn secret(&self) -> String {
        self.0.secret.lock().unwrap().clone()
    }

    /// The site creates an order, and tries until it has one.
    pub async fn place(&self, name: &str) -> OrderId {
        let order = json!({"account_id": name, "credits": 100, "amount_minor": 1999, "currency": "USD",
                           "provider": "stripe", "payment_id": name, "metadata": {}});
        loop {
            let call = self.0.http.post(format!("http://{}/v1/orders", self.0.api)).bearer_auth(TOKEN);
            if let Ok(answer) = call.header("Idempotency-Key", name).json(&order).send().await {
                match answer.status() {
                    StatusCode::CREATED => {
                        if let Ok(order) = answer.json::<Value>().await {
                            return order["id"].as_str().unwrap().parse().unwrap();
                        }
                    }
                    status if status.is_server_error() => {}
                    status => self.refused(format!("{name}: the order: {status}")),
                }
            }
            sleep(AGAIN).await;
        }
    }

    /// The provider reports the payment until a receiver accepts it, and some more times.
    pub async fn pay(&self, name: &str, order: OrderId, is_target: bool) {
        let bought = Bought { paid_at: Instant::now(), granted_at: None, is_target };
        self.0.all.lock().unwrap().insert(name.to_owned(), bought);
        let copies = 1 + name.len() % 3;
        for copy in 0..copies {
            loop {
                let secret = self.secret();
                let event = format!("evt_{name}");
                let webhook = stripe_webhook(&secret, &event, name, 1999, Some(order));
                if self.post(copy, &webhook).await {
                    break;
                }
                sleep(AGAIN).await;
            }
        }
    }

    /// Whether one of the receivers accepts it. If one is not reachable, the other is tried, as a load balancer does.
    pub async fn post(&self, turn: usize, (body, signature): &(Vec<u8>, String)) -> bool {
        for receiver in [self.0.receivers[turn % 2], self.0.receivers[(turn + 1) % 2]] {
            let call = self.0.http.post(format!("http://{receiver}/webhooks/stripe"));
            let Ok(answer) = call.header("Stripe-Signature", signature).body(body.clone()).send().await else {
                continue;
            };
            match answer.status() {
                status if status.is_success() => return true,
                status if status.is_server_error() => {}
                status => self.refused(format!("a webhook: {status}")),
            }
        }
        false
    }

    /// Whether one receiver accepts a payment that belongs to no order.
    pub async fn is_believed(&self, turn: usize, (body, signature): &(Vec<u8>, String)) -> bool {
        let call = self.0.http.post(format!("http://{}/webhooks/stripe", self.0.receivers[turn % 2]));
        let answer = call.header("Stripe-Signature", signature).body(body.clone()).send().await;
        answer.is_ok_and(|answer| answer.status().is_success())
    }

    fn refused(&self, what: String) {
        self.0.refused.lock().unwrap().push(what);
    }

    async fn look(&self) {
        let found =
            sqlx::query_scalar::<_, String>("SELECT account_id FROM credit_grants").fetch_all(&self.0.sql).await;
        // Postgres is away then.
        let Ok(found) = found else { return };
        let (found, now): (BTreeSet<String>, _) = (found.into_iter().collect(), Instant::now());
        for (name, bought) in self.0.all.lock().unwrap().iter_mut() {
            if bought.granted_at.is_none() && found.contains(name) {
                bought.granted_at = Some(now);
            }
        }
    }
}

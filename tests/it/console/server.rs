//! The console as it runs, with letters that are there already, and a client that behaves like a browser without
//! scripts.

use crate::support::{OrderSpec, World, captured, event_for};
use grantonce::clock::Clock;
use grantonce::config::{AdyenCapture, BrokerConfig, DatabaseConfig, NamedToken, OpsConfig, OpsTerms};
use grantonce::domain::{DisputePolicy, LetterContent, LetterId, PaymentEvent, Reason, cause_of};
use grantonce::http::{KEEP_ALIVE_DEFAULT, Readiness, bind, plain_client};
use grantonce::ops;
use grantonce::shutdown::Shutdown;
use grantonce::store::{NewLetter, Store};
use grantonce::telemetry::Metrics;
use reqwest::header::{COOKIE, HeaderMap, SET_COOKIE};
use reqwest::redirect::Policy;
use reqwest::{Client, Method};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::sync::Mutex;
use std::time::Duration;
use time::OffsetDateTime;

/// The token of the operator "ada".
pub(super) const ADA: &str = "ada-token-ada-token-ada-token-1";
/// The token of another operator.
pub(super) const BOB: &str = "bob-token-bob-token-bob-token-2";

/// The console of one test.
pub(super) struct Console {
    pub(super) world: World,
    pub(super) base: String,
    pub(super) store: Store,
    shutdown: Shutdown,
}

/// An answer, read whole.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) text: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The value of the first field of this name on the page.
    pub(super) fn field(&self, name: &str) -> String {
        let after = self.text.split_once(&format!("name=\"{name}\" value=\""));
        let (_, after) = after.unwrap_or_else(|| panic!("no field {name} in {}", self.text));
        after.split_once('"').unwrap().0.to_owned()
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        self.shutdown.token().cancel();
    }
}

impl Console {
    /// Starts one on a world of its own.
    pub(super) async fn start() -> Self {
        let world = World::new().await;
        let store = world.store();
        let shutdown = Shutdown::manual();
        let base = Self::serve(&world, &[("ada", ADA), ("bob", BOB)], Clock::system(), shutdown.clone()).await;
        Self { world, base, store, shutdown }
    }

    /// Another process of the same deployment, with these tokens. It ends with this one.
    pub(super) async fn another(&self, tokens: &[(&str, &str)]) -> String {
        Self::serve(&self.world, tokens, Clock::system(), self.shutdown.clone()).await
    }

    /// Another process of the same deployment, whose clock shows this.
    pub(super) async fn another_at(&self, at: OffsetDateTime) -> String {
        Self::serve(&self.world, &[("ada", ADA)], Clock::fixed(at), self.shutdown.clone()).await
    }

    async fn serve(world: &World, tokens: &[(&str, &str)], clock: Clock, shutdown: Shutdown) -> String {
        let listener = bind("ops", ([127, 0, 0, 1], 0).into()).await.unwrap();
        let base = format!("http://{}", listener.local_addr());
        let token = |(name, token): &(&str, &str)| NamedToken { name: (*name).to_owned(), token: (*token).into() };
        let config = OpsConfig {
            addr: listener.local_addr(),
            keep_alive: KEEP_ALIVE_DEFAULT,
            database: DatabaseConfig { url: world.database_url.parse().unwrap() },
            broker: BrokerConfig { url: world.amqp_url.parse().unwrap() },
            tokens: grantonce::followed::Followed::new(tokens.iter().map(token).collect()),
            management_url: None,
            dead_letter_retention: Duration::from_secs(400 * 86_400),
            terms: OpsTerms {
                livemode: false,
                adyen_capture: AdyenCapture::Automatic,
                dispute_policy: DisputePolicy::Hold,
            },
        };
        tokio::spawn(ops::run_on(listener, config, clock, Metrics::new(), Readiness::new(), shutdown));
        base
    }

    /// Keeps a dead letter of an event, as the collector would.
    pub(super) async fn letter(&self, event: &PaymentEvent, reason: Reason, detail: &str) -> LetterId {
        let letter = letter_of(event, reason, detail);
        let id = letter.id;
        self.store.keep_letters(vec![letter], OffsetDateTime::now_utc()).await.unwrap();
        id
    }

    /// Ten letters of payments that nobody has ordered; `pi_0` is ordered since.
    pub(super) async fn ten_unknown(&self) -> Vec<LetterId> {
        let mut ids = vec![];
        for n in 0..10 {
            let event = event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999));
            let detail = format!("no order has payment pi_{n} at stripe after 4 attempts");
            ids.push(self.letter(&event, Reason::UnknownPayment, &detail).await);
        }
        self.world.order(OrderSpec::paid_by("pi_0")).await;
        ids
    }
}

/// The id that the collector gives a letter: when it comes back from a replay it is the same.
fn identity(parts: [&[u8]; 4]) -> LetterId {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    LetterId(uuid::Builder::from_custom_bytes(digest.finalize()[..16].try_into().unwrap()).into_uuid())
}

/// A letter as the collector keeps it.
pub(super) fn letter_of(event: &PaymentEvent, reason: Reason, detail: &str) -> NewLetter {
    let body = grantonce::message::encode(event).unwrap();
    let (message_id, key) = (event.message_id.as_str(), format!("payment.{}", event.provider));
    NewLetter {
        id: identity([message_id.as_bytes(), b"payment-status.v1", key.as_bytes(), &body]),
        message_id: event.message_id.as_str().to_owned(),
        kind: "payment-status.v1".to_owned(),
        routing_key: format!("payment.{}", event.provider),
        headers: serde_json::json!({"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}),
        body_bytes: body.len(),
        body,
        reason,
        cause: cause_of(detail),
        detail: detail.to_owned(),
        origin: "worker",
        attempts: 4,
        replay: 0,
        content: LetterContent::from(event),
    }
}

/// A client that keeps the console's cookie, and follows no redirects by itself.
pub(super) struct Visitor {
    http: Client,
    pub(super) base: String,
    cookie: Mutex<String>,
}

impl Visitor {
    pub(super) fn new(base: &str) -> Self {
        let http = plain_client().redirect(Policy::none()).no_proxy().build().unwrap();
        Self { http, base: base.to_owned(), cookie: Mutex::default() }
    }

    /// One who is logged in.
    pub(super) async fn logged_in(base: &str, token: &str) -> Self {
        let visitor = Self::new(base);
        let answer = visitor.post("/login", &[("token", token), ("next", "/")]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/"), "{}", answer.text);
        visitor
    }

    pub(super) fn cookie(&self) -> String {
        self.cookie.lock().unwrap().clone()
    }

    pub(super) fn set_cookie(&self, cookie: &str) {
        cookie.clone_into(&mut self.cookie.lock().unwrap());
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, &[], None, None).await
    }

    /// Sends a form as a page of the console's own would.
    pub(super) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let own = self.base.clone();
        self.send(Method::POST, path, &[("origin", own.as_str())], Some(form), None).await
    }

    /// Sends a form, with these headers about where it comes from.
    pub(super) async fn post_from(&self, path: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Answer {
        self.send(Method::POST, path, headers, Some(form), None).await
    }

    /// A program's call.
    pub(super) async fn call(&self, method: Method, path: &str, token: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers: &[(&str, &str)] = if token.is_empty() { &[] } else { &[("authorization", &bearer)] };
        self.send(method, path, headers, None, body).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        form: Option<&[(&str, &str)]>,
        json: Option<Value>,
    ) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let cookie = self.cookie();
        if !cookie.is_empty() {
            request = request.header(COOKIE, cookie);
        }
        if let Some(form) = form {
            let mut url = reqwest::Url::parse("http://x/").unwrap();
            url.query_pairs_mut().extend_pairs(form);
            let body = url.query().unwrap_or_default().to_owned();
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        if let Some(json) = json {
            request = request.json(&json);
        }
        let answer = request.send().await.unwrap();
        if let Some(cookie) = answer.headers().get(SET_COOKIE) {
            let cookie = cookie.to_str().unwrap().split(';').next().unwrap().to_owned();
            self.set_cookie(if cookie.ends_with('=') { "" } else { &cookie });
        }
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Answer { status, headers, text: answer.text().await.unwrap() }
    }
}

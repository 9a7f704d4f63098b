//! A server in front of the simulated providers. It records all requests, and fails when a test tells it to. It answers some
//! calls itself, with objects that a test wrote. Among them are objects that no provider should send.

use crate::http::plain_client;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use grantonce_testkit::provider::standin::Standin;
use http::{Method, StatusCode};
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::time::Instant;

/// The time in the header of every answer, in seconds since 1970.
pub(super) const ANSWERED_AT: i64 = 1_767_700_000;

/// The same time, as a header.
const ANSWERED_AT_TEXT: &str = "Tue, 06 Jan 2026 11:46:40 GMT";

/// The answers of the server itself.
pub(super) trait World: Send + 'static {
    /// The answer. None: the simulated provider answers.
    fn answer(&mut self, asked: &Asked) -> Option<Told>;

    /// Returns whether this request may fail.
    fn may_fail(&self, _asked: &Asked) -> bool {
        true
    }
}

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Method and path: `GET /path`.
    pub(super) line: String,
    /// The path with its query.
    target: String,
    pub(super) query: HashMap<String, String>,
    pub(super) headers: HashMap<String, String>,
    pub(super) body: String,
    pub(super) at: Instant,
}

impl Asked {
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer of the provider.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

impl Told {
    pub(super) fn json(status: u16, body: &Value) -> Self {
        Self { status, headers: vec![("content-type", "application/json".to_owned())], body: body.to_string() }
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// The failure of one request.
pub(super) enum Trouble {
    /// The request does not fail.
    None,
    /// The request gets this answer and is not processed.
    Instead(Told),
    /// The request is processed, and the connection closes before the answer is complete.
    Lost,
    /// The request is processed and never answered.
    Hang,
}

struct Inner<W> {
    world: W,
    troubles: VecDeque<Trouble>,
    asked: Vec<Asked>,
}

/// The server of a fake provider.
pub(super) struct Fake<W> {
    inner: Arc<Mutex<Inner<W>>>,
    /// The simulated providers behind it.
    pub(super) simulated: Standin,
    pub(super) base: String,
}

impl<W: World> Fake<W> {
    pub(super) async fn start(world: W) -> Self {
        let simulated = Standin::start().await.unwrap();
        let inner = Arc::new(Mutex::new(Inner { world, troubles: VecDeque::new(), asked: vec![] }));
        let state = (Arc::clone(&inner), simulated.base.clone());
        let router = Router::new().fallback(handle::<W>).with_state(state);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { inner, simulated, base }
    }

    fn inner(&self) -> MutexGuard<'_, Inner<W>> {
        self.inner.lock().unwrap()
    }

    /// Reads or changes the state of the provider.
    pub(super) fn world<T>(&self, with: impl FnOnce(&mut W) -> T) -> T {
        with(&mut self.inner().world)
    }

    /// Sets the failures of the next requests, one for each request.
    pub(super) fn will(&self, troubles: impl IntoIterator<Item = Trouble>) {
        self.inner().troubles.extend(troubles);
    }

    /// All requests so far.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.inner().asked.clone()
    }

    /// The lines of all requests so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

async fn handle<W: World>(
    State((inner, simulated)): State<(Arc<Mutex<Inner<W>>>, String)>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let asked = Asked {
        line: format!("{} {}", parts.method, parts.uri.path()),
        target: parts.uri.to_string(),
        query: pairs(parts.uri.query().unwrap_or_default()),
        headers: parts.headers.iter().map(|(n, v)| (n.to_string(), v.to_str().unwrap().to_owned())).collect(),
        body: String::from_utf8(body.to_vec()).unwrap(),
        at: Instant::now(),
    };
    let (trouble, told) = {
        let mut inner = inner.lock().unwrap();
        let trouble = if inner.world.may_fail(&asked) { inner.troubles.pop_front() } else { None };
        let trouble = trouble.unwrap_or(Trouble::None);
        let told = match &trouble {
            Trouble::Instead(told) => Some(told.clone()),
            Trouble::None | Trouble::Lost | Trouble::Hang => inner.world.answer(&asked),
        };
        inner.asked.push(asked.clone());
        (trouble, told)
    };
    let told = match told {
        Some(told) => told,
        None => ask(&simulated, parts.method, &asked).await,
    };
    match trouble {
        Trouble::None | Trouble::Instead(_) => respond(&told, Body::from(told.body.clone())),
        Trouble::Lost => {
            let cut = stream::once(async { Err::<Bytes, _>(std::io::Error::other("cut")) });
            respond(&told, Body::from_stream(cut))
        }
        Trouble::Hang => std::future::pending().await,
    }
}

/// What the simulated provider answers. Its PayPal has another token than the one that these tests replace.
async fn ask(simulated: &str, method: Method, asked: &Asked) -> Told {
    let mut request = plain_client().build().unwrap().request(method, format!("{simulated}{}", asked.target));
    for (name, value) in &asked.headers {
        match name.as_str() {
            "host" | "content-length" | "transfer-encoding" => {}
            "authorization" if value.starts_with("Bearer token-") => request = request.bearer_auth("A21AA-simulated"),
            _ => request = request.header(name, value),
        }
    }
    let answer = request.body(asked.body.clone()).send().await.unwrap();
    let replayed = answer.headers().get("idempotent-replayed").map(|value| value.to_str().unwrap().to_owned());
    let headers = replayed.map(|value| ("idempotent-replayed", value)).into_iter().collect();
    Told { status: answer.status().as_u16(), headers, body: answer.text().await.unwrap() }
}

fn respond(told: &Told, body: Body) -> Response {
    let status = StatusCode::from_u16(told.status).unwrap();
    let mut response = Response::builder().status(status).header("date", ANSWERED_AT_TEXT);
    for (name, value) in &told.headers {
        response = response.header(*name, value);
    }
    response.body(body).unwrap().into_response()
}

/// Decodes a form or query, such as `a=1&b%5Bc%5D=2`.
pub(super) fn pairs(text: &str) -> HashMap<String, String> {
    let decoded = text.replace("%5B", "[").replace("%5D", "]");
    assert!(!decoded.contains('%'), "{decoded}");
    decoded.split('&').filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

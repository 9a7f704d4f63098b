//! The server over real sockets. The tests write raw HTTP.

use super::*;
use crate::shutdown::Shutdown;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use secrecy::SecretString;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

mod health;

/// No test waits longer than this.
const PATIENCE: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(60);
const LONG: Duration = Duration::from_secs(3600);
const BODY_MAX: usize = 1000;

struct Server {
    address: SocketAddr,
    shutdown: Shutdown,
    task: JoinHandle<()>,
}

impl Server {
    async fn start(router: Router, limits: Limits) -> Self {
        Self::ending(router, limits, Shutdown::manual()).await
    }

    async fn ending(router: Router, limits: Limits, shutdown: Shutdown) -> Self {
        let listener = bind("test", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        Self::of(listener, router, limits, shutdown)
    }

    fn of(listener: Listener, router: Router, limits: Limits, shutdown: Shutdown) -> Self {
        let address = listener.local_addr();
        let task = serve(listener, router, limits, shutdown.clone());
        Self { address, shutdown, task }
    }

    async fn client(&self) -> Client {
        Client(TcpStream::connect(self.address).await.unwrap())
    }

    /// Sends one request on its own connection.
    async fn ask(&self, request: &str) -> Answer {
        let mut client = self.client().await;
        client.send(request).await;
        client.answer().await
    }

    async fn end(self) {
        tokio::time::timeout(PATIENCE, self.task).await.expect("the server ends").unwrap();
    }
}

struct Client(TcpStream);

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl Client {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads one answer with a content-length. Returns `None` if the connection was closed instead.
    async fn try_answer(&mut self) -> Option<Answer> {
        let (mut bytes, mut one) = (Vec::new(), [0]);
        while !bytes.ends_with(b"\r\n\r\n") {
            match tokio::time::timeout(PATIENCE, self.0.read(&mut one)).await.expect("an answer or the end") {
                Ok(0) | Err(_) => return None,
                Ok(_) => bytes.push(one[0]),
            }
        }
        let head = String::from_utf8(bytes).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = vec![0; length.parse().unwrap()];
        self.0.read_exact(&mut body).await.unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Some(Answer { status, head, body: String::from_utf8(body).unwrap() })
    }

    async fn answer(&mut self) -> Answer {
        self.try_answer().await.expect("an answer")
    }

    async fn is_closed(&mut self) -> bool {
        self.try_answer().await.is_none()
    }
}

fn get_line(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n")
}

/// Answers with the length of the body.
async fn measure(State(deadline): State<Duration>, request: Request) -> Result<String, Problem> {
    let body = read_body(request, BODY_MAX, deadline).await?;
    Ok(body.len().to_string())
}

fn measuring(deadline: Duration) -> Router {
    Router::new().route("/", post(measure)).with_state(deadline)
}

#[tokio::test]
async fn unknown_paths_and_methods_are_problems() {
    let server = Server::start(measuring(LONG), Limits::default()).await;
    let answer = server.ask(&get_line("/nothing")).await;
    assert_eq!(answer.status, 404);
    assert!(answer.head.contains("content-type: application/problem+json\r\n"), "{answer:?}");
    let problem = answer.json();
    assert_eq!(problem["type"], "about:blank");
    assert_eq!(problem["title"], "Not Found");
    assert_eq!(problem["status"], 404);
    let answer = server.ask(&get_line("/")).await;
    assert_eq!(answer.status, 405);
    assert!(answer.head.contains("allow: post\r\n"), "{answer:?}");
    assert_eq!(answer.json()["status"], 405);
}

#[tokio::test]
async fn headers_have_a_deadline_and_idle_connections_an_end() {
    let server =
        Server::start(measuring(LONG), Limits { header_read: SHORT, keep_alive: SHORT, ..Limits::default() }).await;
    let mut silent = server.client().await;
    assert!(silent.is_closed().await);
    let mut slow = server.client().await;
    slow.send("GET / HTTP/1.1\r\nhost: test\r\nx-more: ").await;
    assert!(slow.is_closed().await);
    let mut idle = server.client().await;
    idle.send(&get_line("/")).await;
    assert_eq!(idle.answer().await.status, 405);
    assert!(idle.is_closed().await);
}

#[tokio::test]
async fn an_idle_connection_is_kept_longer_than_headers_may_take() {
    let limits = Limits { header_read: SHORT, keep_alive: LONG, ..Limits::default() };
    let server = Server::start(measuring(LONG), limits).await;
    let mut idle = server.client().await;
    let mut slow = server.client().await;
    for client in [&mut idle, &mut slow] {
        client.send(&get_line("/")).await;
        assert_eq!(client.answer().await.status, 405);
    }
    // The headers of a second request also have a deadline. When it ends, the other connection was idle for longer.
    slow.send("GET / HTTP/1.1\r\nhost: te").await;
    assert!(slow.is_closed().await);
    idle.send(&get_line("/")).await;
    assert_eq!(idle.answer().await.status, 405);
}

#[tokio::test]
async fn the_bound_is_on_the_bytes_that_come() {
    let server = Server::start(measuring(LONG), Limits::default()).await;
    let post = |rest: &str| format!("POST / HTTP/1.1\r\nhost: test\r\n{rest}");
    let chunk = |bytes: usize| format!("{bytes:x}\r\n{}\r\n", "x".repeat(bytes));
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    for (request, status, said) in [
        (post(&format!("content-length: 1000\r\n\r\n{}", "x".repeat(1000))), 200, "1000"),
        // The announced length is too large, so the request is refused. Its body never comes.
        (post("content-length: 1001\r\n\r\n"), 413, "above 1000 bytes"),
        (post(&format!("{chunked}{}{}0\r\n\r\n", chunk(400), chunk(600))), 200, "1000"),
        (post(&format!("{chunked}0\r\n\r\n")), 200, "0"),
        // No length is announced, and the body does not end. The request is refused as soon as it is too long.
        (post(&format!("{chunked}{}{}", chunk(400), chunk(601))), 413, "above 1000 bytes"),
        (post(&format!("{chunked}{}", chunk(1001))), 413, "above 1000 bytes"),
    ] {
        let answer = server.ask(&request).await;
        assert!(answer.status == status && answer.body.contains(said), "{answer:?}");
    }
}

#[tokio::test]
async fn a_slow_body_is_408() {
    let server = Server::start(measuring(SHORT), Limits::default()).await;
    let answer = server.ask("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 10\r\n\r\nxx").await;
    assert_eq!((answer.status, &answer.json()["status"]), (408, &408.into()));
}

#[tokio::test]
async fn over_the_cap_connections_wait_to_be_accepted() {
    let served = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&served);
    let router = Router::new().route(
        "/",
        get(async move || {
            count.fetch_add(1, Ordering::SeqCst);
            "ok"
        }),
    );
    let server = Server::start(router, Limits { connections_max: 2, header_read: LONG, ..Limits::default() }).await;
    let (mut one, mut two, mut three) = (server.client().await, server.client().await, server.client().await);
    for client in [&mut one, &mut two] {
        client.send(&get_line("/")).await;
        assert_eq!(client.answer().await.status, 200);
    }
    three.send(&get_line("/")).await;
    // This is enough time to serve the third connection, if it were accepted.
    for n in 3..20 {
        one.send(&get_line("/")).await;
        assert_eq!(one.answer().await.status, 200);
        assert_eq!(served.load(Ordering::SeqCst), n);
    }
    drop(two);
    assert_eq!(three.answer().await.status, 200);
}

/// A handler that reports when it is entered, and answers when the test opens it.
#[derive(Clone, Default)]
struct Gate {
    entered: Arc<Notify>,
    open: Arc<Notify>,
}

impl Gate {
    fn router(&self) -> Router {
        let gate = self.clone();
        Router::new().route(
            "/",
            get(async move || {
                gate.entered.notify_one();
                gate.open.notified().await;
                "finished"
            }),
        )
    }
}

#[tokio::test]
async fn while_it_drains_all_is_served_and_each_answer_closes_its_connection() {
    let server = Server::start(measuring(LONG), Limits::default()).await;
    let mut kept = server.client().await;
    kept.send(&get_line("/")).await;
    assert!(!kept.answer().await.head.contains("connection: close"));
    server.shutdown.draining().cancel();
    let mut new = server.client().await;
    for client in [&mut kept, &mut new] {
        client.send(&get_line("/")).await;
        let answer = client.answer().await;
        assert!(answer.status == 405 && answer.head.contains("connection: close\r\n"), "{answer:?}");
        assert!(client.is_closed().await);
    }
    assert!(!server.task.is_finished());
    server.shutdown.token().cancel();
    server.end().await;
}

#[tokio::test]
async fn what_is_on_its_way_when_it_stops_is_answered() {
    let shutdown = Shutdown::within(LONG);
    let limits = Limits { linger: LONG, ..Limits::default() };
    let server = Server::ending(measuring(LONG), limits, shutdown).await;
    let (mut fresh, mut idle, mut slow) = (server.client().await, server.client().await, server.client().await);
    idle.send(&get_line("/")).await;
    assert_eq!(idle.answer().await.status, 405);
    slow.send("GET / HTTP/1.1\r\nhost: ").await;
    server.shutdown.token().cancel();
    until_refused(server.address).await;
    fresh.send(&get_line("/")).await;
    idle.send(&get_line("/")).await;
    slow.send("test\r\n\r\n").await;
    for client in [&mut fresh, &mut idle, &mut slow] {
        let answer = client.answer().await;
        assert!(answer.status == 405 && answer.head.contains("connection: close\r\n"), "{answer:?}");
        assert!(client.is_closed().await);
    }
    server.end().await;
}

async fn until_refused(address: SocketAddr) {
    let refused = async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, refused).await.expect("new connections are refused");
}

#[tokio::test]
async fn shutdown_finishes_requests_in_flight_and_takes_no_new_ones() {
    let gate = Gate::default();
    let limits = Limits { header_read: LONG, linger: SHORT, ..Limits::default() };
    let server = Server::ending(gate.router(), limits, Shutdown::within(LONG)).await;
    let mut fresh = server.client().await;
    let mut idle = server.client().await;
    idle.send(&get_line("/none")).await;
    assert_eq!(idle.answer().await.status, 404);
    let mut busy = server.client().await;
    busy.send(&get_line("/")).await;
    gate.entered.notified().await;

    server.shutdown.token().cancel();
    assert!(fresh.is_closed().await, "this connection has no request");
    assert!(idle.is_closed().await);
    until_refused(server.address).await;
    assert!(!server.task.is_finished());

    gate.open.notify_one();
    let answer = busy.answer().await;
    assert_eq!((answer.status, answer.body.as_str()), (200, "finished"));
    assert!(busy.is_closed().await);
    server.end().await;
}

#[tokio::test]
async fn the_drain_has_a_deadline() {
    let gate = Gate::default();
    let server = Server::ending(gate.router(), Limits::default(), Shutdown::within(SHORT)).await;
    let mut stuck = server.client().await;
    stuck.send(&get_line("/")).await;
    gate.entered.notified().await;
    server.shutdown.token().cancel();
    assert!(stuck.is_closed().await);
    server.end().await;
}

#[tokio::test]
async fn every_answer_is_reported_by_its_route() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let listener = bind("test", "127.0.0.1:0".parse().unwrap())
        .await
        .unwrap()
        .on_response(move |route, status| log.lock().unwrap().push((route.to_owned(), status.as_u16())));
    let router = Router::new().route("/orders/{id}", get(async || "ok"));
    let server = Server::of(listener, router, Limits::default(), Shutdown::manual());
    server.ask(&get_line("/orders/5")).await;
    server.ask("POST /orders/6 HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n").await;
    server.ask(&get_line("/made/up")).await;
    let orders = "/orders/{id}".to_owned();
    assert_eq!(*seen.lock().unwrap(), [(orders.clone(), 200), (orders, 405), ("none".to_owned(), 404)]);
}

#[tokio::test]
async fn an_address_that_is_taken_is_told() {
    let first = bind("one", "127.0.0.1:0".parse().unwrap()).await.unwrap();
    let error = bind("two", first.local_addr()).await.unwrap_err();
    assert!(error.to_string().starts_with("two cannot listen at 127.0.0.1:"), "{error}");
}

#[test]
fn a_bearer_token_tells_who_it_is() {
    let pair = |name: &str, token: &str| (name.to_owned(), SecretString::from(token));
    let tokens = BearerTokens::new([pair("shop", "0123456789abcdef"), pair("office", "fedcba9876543210")]);
    let check = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("authorization", HeaderValue::from_str(value).unwrap());
        }
        tokens.check(&headers).map(str::to_owned)
    };
    assert_eq!(check(&["Bearer 0123456789abcdef"]).unwrap(), "shop");
    assert_eq!(check(&["bearer  fedcba9876543210"]).unwrap(), "office");
    for bad in [
        &[][..],
        &["Bearer 0123456789abcde"],
        &["Bearer 0123456789abcdef0"],
        &["Bearer"],
        &["Bearer "],
        &["Basic 0123456789abcdef"],
        &["0123456789abcdef"],
        &["Bearer 0123456789abcdef", "Bearer 0123456789abcdef"],
    ] {
        let problem = check(bad).unwrap_err();
        assert_eq!(problem.status(), StatusCode::UNAUTHORIZED, "{bad:?}");
        assert_eq!(problem.into_response().headers()["www-authenticate"], "Bearer");
    }
    assert!(BearerTokens::new(Vec::<(String, SecretString)>::new()).check(&HeaderMap::new()).is_err());
    assert_eq!(format!("{tokens:?}"), "[\"shop\", \"office\"]");
}

async fn body_of(response: Response) -> serde_json::Value {
    let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[tokio::test]
async fn a_problem_tells_its_kind_its_fields_and_when_to_come_back() {
    let response = Problem::unavailable("the broker is away", Duration::from_millis(1500)).into_response();
    assert_eq!((response.status().as_u16(), &response.headers()["retry-after"]), (503, &HeaderValue::from(2)));
    let response = Problem::too_many_requests("slower", Duration::ZERO).into_response();
    assert_eq!(response.headers()["retry-after"], "1");
    let problem = Problem::conflict("order 5 has this payment")
        .of_kind("payment-taken", "The payment belongs to another order")
        .with_field("payment_id", "is taken");
    let wanted = serde_json::json!({
        "type": "urn:grantonce:problem:payment-taken",
        "title": "The payment belongs to another order",
        "status": 409,
        "detail": "order 5 has this payment",
        "fields": [{"field": "payment_id", "detail": "is taken"}],
    });
    assert_eq!(body_of(problem.into_response()).await, wanted);
}

#[tokio::test]
async fn json_that_does_not_fit_names_the_field() {
    #[derive(Debug, serde::Deserialize)]
    struct Order {
        #[expect(dead_code, reason = "only read")]
        payment: Payment,
    }
    #[derive(Debug, serde::Deserialize)]
    struct Payment {
        #[expect(dead_code, reason = "only read")]
        amount: u32,
    }
    let read = async |media_type: &str, body: &str| {
        let request = Request::builder().header("content-type", media_type).body(body.to_owned().into()).unwrap();
        read_json::<Order>(request, BODY_MAX, LONG).await
    };
    assert!(read("application/json; charset=utf-8", "{\"payment\": {\"amount\": 5}}").await.is_ok());
    for (media_type, body, status, field) in [
        ("text/plain", "{\"payment\": {\"amount\": 5}}", 415, None),
        ("application/json", "{\"payment\": {\"amount\": \"5\"}}", 400, Some("payment.amount")),
        ("application/json", "{\"payment\": {\"amount\": 5}} x", 400, None),
        ("application/json", "nonsense", 400, None),
        ("application/json", "", 400, None),
    ] {
        let problem = read(media_type, body).await.unwrap_err();
        assert_eq!(problem.status().as_u16(), status, "{body}");
        let told = body_of(problem.into_response()).await;
        assert_eq!(told["fields"][0]["field"].as_str(), field, "{told}");
    }
}

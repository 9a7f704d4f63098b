//! Compares the contract with the router. These tests use no Postgres.

use super::*;
use crate::config::{DatabaseConfig, NamedToken, ProvidersConfig};
use crate::domain::{AMOUNT_MINOR_MAX, CREDITS_MAX, OrderStatus};
use crate::store::ENTRIES_PAGE_MAX;
use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, ORIGIN,
    VARY,
};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use tower::ServiceExt as _;

const SHOP: &str = "https://shop.example";

fn config() -> ApiConfig {
    ApiConfig {
        addr: ([127, 0, 0, 1], 0).into(),
        keep_alive: Duration::from_secs(75),
        // No server listens on port 1.
        database: DatabaseConfig { url: "postgres://nobody@127.0.0.1:1/none".parse().unwrap() },
        tokens: crate::followed::Followed::new(vec![NamedToken {
            name: "shop".to_owned(),
            token: "t".repeat(32).into(),
        }]),
        status_token_key: crate::followed::Followed::new("k".repeat(32).into()),
        cors_origins: vec![SHOP.to_owned()],
        providers: ProvidersConfig { stripe: None, paypal: None },
        first_look_after: Duration::from_secs(120),
    }
}

fn router_without_postgres() -> Router {
    let config = config();
    let settings = store::Settings {
        url: config.database.url.clone(),
        connections_max: 1,
        deadline: TRANSACTION_DEADLINE,
        profile: store::Profile::Requests,
    };
    let store = Store::new(&settings).unwrap();
    let stop = CancellationToken::new();
    stop.cancel();
    router(
        &config,
        store,
        Providers::configured(config.providers.clone()).unwrap(),
        Clock::system(),
        Metrics::new(),
        Readiness::new(),
        stop,
    )
}

async fn answer(request: Request<Body>) -> Response {
    router_without_postgres().oneshot(request).await.unwrap()
}

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// The paths of the API's own listener.
fn documented_paths(document: &Value) -> Map<String, Value> {
    let mut paths = document["paths"].as_object().unwrap().clone();
    paths.retain(|_, path| path.get("servers").is_none());
    paths
}

#[test]
fn every_path_is_documented_and_every_documented_path_exists() {
    let document = document();
    let documented = documented_paths(&document);
    let documented: BTreeSet<_> = documented.keys().map(String::as_str).collect();
    let routed = routes(Origins::new(&[])).map(|(path, _)| path);
    let routed: BTreeSet<_> = routed.into_iter().chain(["/healthz", "/readyz"]).collect();
    assert_eq!(documented, routed);
}

#[tokio::test]
async fn every_method_is_documented_and_every_documented_method_exists() {
    let document = document();
    for (path, operations) in documented_paths(&document) {
        for method in [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS] {
            let operation = operations.get(method.as_str().to_ascii_lowercase());
            let request = Request::builder().method(&method).uri(path.replace("{id}", "some-id"));
            let status = answer(request.body(Body::empty()).unwrap()).await.status();
            let Some(operation) = operation else {
                assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path} is not documented");
                continue;
            };
            assert_ne!(status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path} is documented");
            let security = operation.get("security").unwrap_or(&document["security"]).as_array().unwrap();
            let is_refused = status == StatusCode::UNAUTHORIZED;
            assert_eq!(is_refused, !security.is_empty(), "{method} {path} without any token: {status}");
        }
    }
}

#[test]
fn operations_are_told_apart_and_all_references_lead_somewhere() {
    fn walk(document: &Value, value: &Value, at: &str) {
        match value {
            Value::Object(fields) => {
                if let Some(Value::String(reference)) = fields.get("$ref") {
                    let pointer = reference.strip_prefix('#').unwrap();
                    assert!(document.pointer(pointer).is_some(), "{at}: {reference}");
                }
                fields.iter().for_each(|(name, value)| walk(document, value, &format!("{at}/{name}")));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(document, item, at)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    let document = document();
    walk(&document, &document, "");
    let mut ids = BTreeSet::new();
    for path in document["paths"].as_object().unwrap().values() {
        for operation in ["get", "post", "options"].iter().filter_map(|method| path.get(method)) {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{operation}");
        }
    }
}

#[test]
fn the_document_has_the_bounds_of_the_code() {
    let document = document();
    let at = |pointer: &str| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).clone();
    let schema = |rest: &str| at(&format!("/components/schemas/{rest}"));
    assert_eq!(schema("Credits/maximum"), CREDITS_MAX);
    assert_eq!(schema("AmountMinor/maximum"), AMOUNT_MINOR_MAX);
    assert!(schema("Metadata/description").as_str().unwrap().contains(&METADATA_BYTES_MAX.to_string()));
    for status in schema("Status/enum").as_array().unwrap() {
        assert!(OrderStatus::from_name(status.as_str().unwrap()).is_some(), "{status}");
    }
    assert_eq!(schema("Status/enum").as_array().unwrap().len(), 7);
    assert_eq!(at("/components/parameters/IdempotencyKey/schema/maxLength"), IDEMPOTENCY_KEY_CHARS_MAX);
    assert_eq!(at("/paths/~1v1~1orders~1{id}/get/parameters/0/schema/maximum"), WAIT_SECONDS_MAX);
    assert_eq!(at("/paths/~1v1~1accounts~1{id}~1entries/get/parameters/1/schema/maximum"), ENTRIES_PAGE_MAX);
    let body = at("/paths/~1v1~1orders/post/requestBody/description");
    assert!(body.as_str().unwrap().contains(&BODY_BYTES_MAX.to_string()));
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
}

fn from_origin(method: Method, path: &str, origin: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).header(ORIGIN, origin).body(Body::empty()).unwrap()
}

#[tokio::test]
async fn pages_of_known_origins_read_orders_and_nothing_else() {
    let order = "/v1/orders/01890a5d-ac96-774b-bcce-b302099a8057";
    for (path, origin, is_allowed) in [
        (order, SHOP, true),
        (order, "https://shop.example.evil", false),
        (order, "https://shop.exampl", false),
        (order, "http://shop.example", false),
        (order, "null", false),
        ("/v1/orders", SHOP, false),
        ("/v1/accounts/a/balance", SHOP, false),
        ("/v1/accounts/a/entries", SHOP, false),
        ("/openapi.json", SHOP, false),
    ] {
        // The answer is 401, and a page must be able to read that, too.
        let got = answer(from_origin(Method::GET, path, origin)).await;
        let allowed = got.headers().get(ACCESS_CONTROL_ALLOW_ORIGIN).map(|origin| origin.to_str().unwrap());
        assert_eq!(allowed, is_allowed.then_some(origin), "{path} from {origin}");
        if path == order {
            assert_eq!(got.headers()[VARY], "Origin", "a cache must tell origins apart");
        }
    }
}

#[tokio::test]
async fn a_preflight_allows_no_header_so_that_no_page_sends_a_bearer_token() {
    let order = "/v1/orders/01890a5d-ac96-774b-bcce-b302099a8057";
    let known = answer(from_origin(Method::OPTIONS, order, SHOP)).await;
    assert_eq!(known.status(), StatusCode::NO_CONTENT);
    assert_eq!(known.headers()[ACCESS_CONTROL_ALLOW_ORIGIN], SHOP);
    assert_eq!(known.headers()[ACCESS_CONTROL_ALLOW_METHODS], "GET");
    assert!(!known.headers().contains_key(ACCESS_CONTROL_ALLOW_HEADERS));
    let unknown = answer(from_origin(Method::OPTIONS, order, "https://evil.example")).await;
    assert!(!unknown.headers().contains_key(ACCESS_CONTROL_ALLOW_ORIGIN));
}

#[tokio::test]
async fn nothing_is_kept_by_a_cache() {
    for (path, rule) in
        [("/v1/orders/x", "no-store"), ("/v1/accounts/a/balance", "no-store"), ("/openapi.json", "no-cache")]
    {
        let got = answer(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(got.headers()[CACHE_CONTROL], rule, "{path}");
    }
}

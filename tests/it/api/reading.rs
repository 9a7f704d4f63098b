//! Who may read an order, and which fields they see.

use super::server::{Answer, Api, NOW, SHOP, failed, order_for, paid, refunded};
use reqwest::Method;
use serde_json::{Value, json};

/// The path of an order and its buyer's token.
async fn order(api: &Api, payment_id: &str) -> (String, String) {
    let made = api.create(SHOP, payment_id, &order_for(payment_id)).await;
    let text = |name: &str| made.field(name).as_str().unwrap().to_owned();
    (format!("/v1/orders/{}", text("id")), text("status_token"))
}

async fn with_token(api: &Api, path: &str, token: &str) -> Answer {
    api.send(api.bare(Method::GET, path).query_pairs(&[("token", token)])).await
}

trait QueryPairs {
    fn query_pairs(self, pairs: &[(&str, &str)]) -> Self;
}

impl QueryPairs for reqwest::RequestBuilder {
    fn query_pairs(self, pairs: &[(&str, &str)]) -> Self {
        let (client, request) = self.build_split();
        let mut request = request.unwrap();
        request.url_mut().query_pairs_mut().extend_pairs(pairs);
        Self::from_parts(client, request)
    }
}

#[tokio::test]
async fn a_status_token_reads_its_own_order_and_nothing_else() {
    let api = Api::start().await;
    let (mine, token) = order(&api, "pi_1").await;
    let (other, other_token) = order(&api, "pi_2").await;
    assert_ne!(token, other_token);
    assert_eq!(with_token(&api, &mine, &token).await.status, 200);
    for (path, token) in [
        (other.as_str(), token.as_str()),
        (&mine, &other_token),
        (&mine, ""),
        (&mine, &token[1..]),
        (&mine, &token.to_uppercase()),
        (&mine, &format!("{token}=")),
        (&mine, &format!("{token} ")),
        (&mine, SHOP),
        ("/v1/accounts/user-42/balance", &token),
        ("/v1/accounts/user-42/entries", &token),
    ] {
        assert_eq!(with_token(&api, path, token).await.status, 401, "{path} {token}");
    }
    // It is no bearer token either.
    let as_bearer = api.bare(Method::GET, &mine).bearer_auth(&token);
    assert_eq!(api.send(as_bearer).await.status, 401);
    // One valid token of either kind is enough.
    let both = api.bare(Method::GET, &mine).bearer_auth("stale").query_pairs(&[("token", &token)]);
    assert_eq!(api.send(both).await.status, 200);
    api.end().await;
}

#[tokio::test]
async fn who_has_no_right_cannot_tell_which_orders_there_are() {
    let api = Api::start().await;
    let (known, token) = order(&api, "pi_1").await;
    let unknown = "/v1/orders/01890a5d-ac96-774b-bcce-b302099a8057";
    let malformed = "/v1/orders/1234";
    let mut told = vec![];
    for path in [&known, unknown, malformed, "/v1/orders/%ff"] {
        for request in [
            api.bare(Method::GET, path),
            api.bare(Method::GET, path).bearer_auth("wrong"),
            // The right length, but not the token of any order.
            api.bare(Method::GET, path).query_pairs(&[("token", &"A".repeat(token.len()))]),
        ] {
            let refused = api.send(request).await;
            let mut headers = refused.headers.clone();
            headers.remove("date");
            told.push((refused.status, refused.text, format!("{headers:?}")));
        }
    }
    assert_eq!(told[0].0, 401);
    told.dedup();
    assert_eq!(told.len(), 1, "{told:?}");
    for path in [unknown, malformed, "/v1/orders/%ff"] {
        assert_eq!(api.get(path).await.status, 404, "{path}");
    }
    api.end().await;
}

#[tokio::test]
async fn the_token_is_the_documented_hmac() {
    let api = Api::start().await;
    let (path, token) = order(&api, "pi_1").await;
    let id = path.rsplit('/').next().unwrap();
    assert_eq!(token, expected_token(id));
    api.end().await;
}

fn expected_token(id: &str) -> String {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit as _, Mac as _};
    let mac = Hmac::<sha2::Sha256>::new_from_slice(super::server::STATUS_KEY.as_bytes()).unwrap();
    let tag = mac.chain_update(format!("grantonce status token v1:{id}")).finalize().into_bytes();
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(tag)
}

#[tokio::test]
async fn buyers_do_not_see_what_the_site_noted_down() {
    let api = Api::start().await;
    let (path, token) = order(&api, "pi_1").await;
    let site = api.get(&path).await.json();
    let buyer = with_token(&api, &path, &token).await.json();
    let mut expected = site.as_object().unwrap().clone();
    assert_eq!(expected.remove("metadata"), Some(json!({"cart": "8271"})));
    assert_eq!(expected.remove("account_id"), Some(json!("user-42")));
    assert_eq!(buyer, Value::Object(expected));
    api.end().await;
}

#[tokio::test]
async fn an_order_tells_how_it_stands() {
    let api = Api::start().await;
    let (path, _) = order(&api, "pi_1").await;
    let later = NOW + time::Duration::minutes(1);
    api.apply(later, vec![failed("pi_1", "Your card was declined.")]).await;
    let order = api.get(&path).await.json();
    assert_eq!(order["status"], "awaiting_payment");
    assert_eq!(order["last_failure"], "Your card was declined.");
    assert_eq!((&order["version"], &order["credits_granted"]), (&json!(2), &json!(0)));
    assert_eq!(order["updated_at"], "2026-01-05T12:01:00.123456Z");
    assert_eq!(order["created_at"], "2026-01-05T12:00:00.123456Z");

    api.apply(later, vec![paid("pi_1")]).await;
    let order = api.get(&path).await.json();
    assert_eq!((&order["status"], &order["credits_granted"]), (&json!("fulfilled"), &json!(500)));

    api.apply(later, vec![refunded("pi_1", "re_1", 1000)]).await;
    let order = api.get(&path).await.json();
    assert_eq!((&order["status"], &order["credits_granted"]), (&json!("partially_refunded"), &json!(249)));
    assert_eq!(order["version"], 4);
    api.end().await;
}

/// The fault is permanent, and it must not fail the other orders that are read at the same moment.
#[tokio::test]
async fn o04_an_order_whose_time_cannot_be_read_is_a_fault_of_its_own() {
    let api = Api::start().await;
    let (good, _) = order(&api, "pi_1").await;
    for (n, never) in ["infinity", "-infinity", "20000-01-01"].into_iter().enumerate() {
        let (bad, _) = order(&api, &format!("pi_bad_{n}")).await;
        let id = bad.rsplit('/').next().unwrap();
        api.db.execute(format!("UPDATE orders SET updated_at = '{never}' WHERE id = '{id}'")).await;
        let reads = (0..8).map(|n| api.get(if n % 2 == 0 { &bad } else { &good }));
        let told: Vec<_> = futures_util::future::join_all(reads).await.iter().map(|answer| answer.status).collect();
        assert_eq!(told, [500, 200].repeat(4), "{never}");
    }
    api.end().await;
}

#[tokio::test]
async fn parameters_are_checked_all_at_once() {
    let api = Api::start().await;
    let (path, token) = order(&api, "pi_1").await;
    for (query, fields) in [
        ("wait=31", vec!["wait"]),
        ("wait=-1", vec!["wait"]),
        ("wait=", vec!["wait"]),
        ("wait=1.5", vec!["wait"]),
        ("since=-1", vec!["since"]),
        ("since=x", vec!["since"]),
        ("since=99999999999999999999", vec!["since"]),
        ("sinse=1", vec!["sinse"]),
        ("wait=0&wait=1", vec!["wait"]),
        ("wait=x&since=y&z", vec!["wait", "since", "z"]),
    ] {
        let refused = api.get(&format!("{path}?{query}")).await;
        assert_eq!((refused.status, refused.kind().as_str()), (400, "invalid_parameters"), "{query}");
        let named = refused.field("fields");
        let named: Vec<_> = named.as_array().unwrap().iter().map(|fault| fault["field"].as_str().unwrap()).collect();
        assert_eq!(named, fields, "{query}");
        // A caller without access learns nothing about the order's parameters either.
        assert_eq!(api.send(api.bare(Method::GET, &format!("{path}?{query}"))).await.status, 401);
    }
    // The token may be percent-encoded.
    let encoded: String = token.bytes().map(|byte| format!("%{byte:02x}")).collect();
    assert_eq!(api.send(api.bare(Method::GET, &format!("{path}?token={encoded}"))).await.status, 200);
    api.end().await;
}

#[tokio::test]
async fn answers_are_counted_by_route() {
    let api = Api::start().await;
    let (path, _) = order(&api, "pi_1").await;
    api.get(&path).await;
    api.get("/v1/orders/x").await;
    api.get("/nowhere").await;
    let page = api.metrics.render();
    for line in [
        r#"grantonce_http_requests_total{listener="api",route="/v1/orders",status_class="2xx"} 1"#,
        r#"grantonce_http_requests_total{listener="api",route="/v1/orders/{id}",status_class="2xx"} 1"#,
        r#"grantonce_http_requests_total{listener="api",route="/v1/orders/{id}",status_class="4xx"} 1"#,
        r#"grantonce_http_requests_total{listener="api",route="none",status_class="4xx"} 1"#,
    ] {
        assert!(page.contains(line), "{line} is not in\n{page}");
    }
    let document = api.send(api.bare(Method::GET, "/openapi.json")).await;
    assert_eq!(document.field("openapi"), "3.1.0");
    api.end().await;
}

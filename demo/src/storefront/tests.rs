//! The shop's doors, without the roles behind it. What it sells is bought in a browser, in `demo/tests/storefront.rs`.

use super::*;
use axum::body::{Body, to_bytes};
use grantonce_testkit::fake::{Fake, Fault, STANDARD_SECRET, STRIPE_SECRET, TOKEN};
use grantonce_testkit::provider::Settings;
use grantonce_testkit::provider::courier::{Courier, Secrets};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const NAME: &str = "0123456789abcdef";

async fn shop() -> Router {
    let (_fake, base) = Fake::start(Fault::None).await;
    let secrets = Secrets { stripe: STRIPE_SECRET.to_owned(), standard: STANDARD_SECRET.to_owned() };
    let courier = Courier::new(base.clone(), secrets, Duration::ZERO).unwrap();
    let settings = Settings { seed: 1, copies: 1, run: "test".to_owned(), is_faulty: false };
    let here = "127.0.0.1:1".parse().unwrap();
    let partners = Partners {
        api: Api::new(base, TOKEN.to_owned()).unwrap(),
        provider: Provider::new(settings, courier, CancellationToken::new()),
        witness: Witness::new("postgres://nobody@127.0.0.1:1/none").unwrap(),
        receiver: here,
        provider_address: "127.0.0.1:2".parse().unwrap(),
    };
    router(partners, here)
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &'static str) -> Request {
    let mut request = Request::builder().method(method).uri(path);
    if method == "POST" {
        request = request.header("content-type", "application/x-www-form-urlencoded");
    }
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::from(body)).unwrap()
}

async fn text(response: Response) -> String {
    String::from_utf8(to_bytes(response.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn whoever_comes_first_is_given_a_name() {
    let shop = shop().await;
    let first = shop.clone().oneshot(request("GET", "/", &[], "")).await.unwrap();
    let cookie = first.headers()[SET_COOKIE].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("buyer=") && cookie.ends_with("; HttpOnly; SameSite=Lax"), "{cookie}");
    let policy = first.headers()["content-security-policy"].to_str().unwrap();
    assert!(policy.ends_with("form-action 'self' http://127.0.0.1:2"), "buying leads to the provider: {policy}");
    assert!(text(first).await.contains("<span class=\"big\" id=\"balance\">0</span>"));
    let known = format!("other=1; buyer={NAME}");
    let again = shop.oneshot(request("GET", "/", &[("cookie", &known)], "")).await.unwrap();
    assert!(!again.headers().contains_key(SET_COOKIE));
    assert!(text(again).await.contains(&format!("buyer-{NAME}")));
}

#[test]
fn a_name_that_we_did_not_give_is_none() {
    for cookie in
        ["buyer=", "buyer=0123", "buyer=<script>alert(1)", "seller=0123456789abcdef", "buyer=0123456789ABCDEF"]
    {
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).unwrap())]);
        assert!(Visitor::of(&headers).is_new, "{cookie}");
    }
}

#[tokio::test]
async fn other_sites_pages_buy_nothing_and_other_buyers_orders_are_not_shown() {
    let shop = shop().await;
    let cookie = format!("buyer={NAME}");
    let body = "product=bag&seller=stripe&cart=0123";
    for (site, status) in [("cross-site", StatusCode::FORBIDDEN), ("same-origin", StatusCode::SEE_OTHER)] {
        let strange = request("POST", "/buy", &[("sec-fetch-site", site)], body);
        assert_eq!(shop.clone().oneshot(strange).await.unwrap().status(), status, "{site}");
    }
    for (method, path, body, status) in [
        ("POST", "/buy", "product=moon&seller=stripe&cart=0123", StatusCode::UNPROCESSABLE_ENTITY),
        ("POST", "/buy", "product=bag&seller=stripe&cart=%0a", StatusCode::UNPROCESSABLE_ENTITY),
        ("GET", "/orders/01890a5d-ac96-774b-bcce-b302099a8057", "", StatusCode::NOT_FOUND),
        ("GET", "/orders/01890a5d-ac96-774b-bcce-b302099a8057/return", "", StatusCode::NOT_FOUND),
        ("GET", "/orders/01890a5d-ac96-774b-bcce-b302099a8057/live", "", StatusCode::NOT_FOUND),
        ("POST", "/orders/01890a5d-ac96-774b-bcce-b302099a8057/try", "what=replay", StatusCode::NOT_FOUND),
        ("GET", "/orders/1", "", StatusCode::BAD_REQUEST),
        ("GET", "/style.css", "", StatusCode::OK),
        ("GET", "/live.js", "", StatusCode::OK),
        ("GET", "/icon.svg", "", StatusCode::OK),
    ] {
        let response = shop.clone().oneshot(request(method, path, &[("cookie", &cookie)], body)).await.unwrap();
        assert_eq!(response.status(), status, "{path}");
    }
}

//! Nobody sees anything without a token, and nothing is done by a form that another site has sent.

use super::server::{ADA, BOB, Console, Visitor};
use crate::support::{captured, event_for};
use grantonce::domain::Reason;
use reqwest::Method;
use serde_json::json;
use time::OffsetDateTime;

const PAGES: [&str; 20] = [
    "/",
    "/dead-letters",
    "/dead-letters?reason=malformed",
    "/dead-letters/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f",
    "/dead-letters/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f/body",
    "/replay",
    "/replays",
    "/replays/1",
    "/archive",
    "/restore",
    "/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f",
    "/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f/amend",
    "/check?payment=pi_1&provider=stripe",
    "/forget?account=acc",
    "/queue",
    "/audit",
    "/audit/1",
    "/explain?q=x",
    "/explain/x",
    "/no/such/page",
];

const FORMS: [&str; 9] = [
    "/replay",
    "/archive",
    "/restore",
    "/replays/1/cancel",
    "/logout",
    "/check",
    "/forget",
    "/queue",
    "/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f/amend",
];

const CALLS: [(Method, &str); 19] = [
    (Method::GET, "/v1/dead-letters"),
    (Method::GET, "/v1/dead-letters/groups"),
    (Method::GET, "/v1/dead-letters/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f"),
    (Method::POST, "/v1/dead-letters/preview"),
    (Method::POST, "/v1/dead-letters/replay"),
    (Method::POST, "/v1/dead-letters/archive"),
    (Method::POST, "/v1/dead-letters/restore"),
    (Method::GET, "/v1/replays"),
    (Method::GET, "/v1/replays/1"),
    (Method::POST, "/v1/replays/1/cancel"),
    (Method::GET, "/v1/dead-letters/orders"),
    (Method::POST, "/v1/dead-letters/queue"),
    (Method::GET, "/v1/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f"),
    (Method::POST, "/v1/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f/check"),
    (Method::POST, "/v1/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f/amend"),
    (Method::POST, "/v1/payments/check"),
    (Method::POST, "/v1/accounts/forget"),
    (Method::GET, "/v1/no-such-thing"),
    (Method::GET, "/openapi.json"),
];

#[tokio::test]
async fn without_a_token_nothing_is_seen() {
    let console = Console::start().await;
    let ids = console.ten_unknown().await;
    let stranger = Visitor::new(&console.base);
    for path in PAGES.into_iter().chain([format!("/dead-letters/{}", ids[0]).as_str()]) {
        let answer = stranger.get(path).await;
        assert_eq!(answer.status, 303, "{path}");
        assert!(answer.header("location").starts_with("/login?next=%2F"), "{path}: {}", answer.header("location"));
        assert_eq!(answer.text, "", "{path}");
    }
    for path in FORMS.into_iter().chain(PAGES) {
        let answer = stranger.post(path, &[("reason", "x")]).await;
        assert_eq!((answer.status, answer.header("location")), (303, "/login?next=%2F"), "{path}");
    }
    for (method, path) in CALLS {
        for token in ["", "wrong-token-wrong-token-wrong"] {
            let answer = stranger.call(method.clone(), path, token, Some(json!({}))).await;
            assert_eq!(answer.status, 401, "{method} {path}");
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
    }
    for path in ["/login", "/style.css", "/live.js", "/icon.svg", "/healthz"] {
        assert_eq!(stranger.get(path).await.status, 200, "{path}");
    }
    // A session opens no call: other sites' pages could use it.
    let ada = Visitor::logged_in(&console.base, ADA).await;
    assert_eq!(ada.get("/v1/dead-letters").await.status, 401);
    assert_eq!(ada.get("/dead-letters").await.status, 200);
}

#[tokio::test]
async fn a_session_ends_with_its_token_and_counts_in_every_process() {
    let console = Console::start().await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    let cookie = ada.cookie();
    assert!(cookie.starts_with("grantonce-ops=ada."), "{cookie}");
    assert!(!cookie.contains(ADA));

    let elsewhere = Visitor::new(&console.another(&[("ada", ADA)]).await);
    elsewhere.set_cookie(&cookie);
    assert_eq!(elsewhere.get("/dead-letters").await.status, 200);
    for tokens in [[("ada", "another-token-another-token-3")], [("bob", BOB)]] {
        let renewed = Visitor::new(&console.another(&tokens).await);
        renewed.set_cookie(&cookie);
        assert_eq!(renewed.get("/dead-letters").await.status, 303, "{tokens:?}");
    }
    // It lasts a shift, whatever the browser keeps.
    for (hours, status) in [(11, 200), (13, 303)] {
        let later = console.another_at(OffsetDateTime::now_utc() + time::Duration::hours(hours)).await;
        let later = Visitor::new(&later);
        later.set_cookie(&cookie);
        assert_eq!(later.get("/dead-letters").await.status, status, "after {hours} h");
    }
    // Whatever is changed in it, it is void then.
    let (_, session) = cookie.split_once('=').unwrap();
    let parts: Vec<&str> = session.split('.').collect();
    let [name, expires, nonce, signature] = parts[..] else { panic!("{session}") };
    let later = (expires.parse::<i64>().unwrap() + 1).to_string();
    for forged in [
        format!("bob.{expires}.{nonce}.{signature}"),
        format!("{name}.{later}.{nonce}.{signature}"),
        format!("{name}.{expires}.{}.{signature}", nonce.replace(['a', '1'], "0")),
        format!("{name}.{expires}.{nonce}."),
        format!("{name}.{expires}.{nonce}"),
        "...".to_owned(),
    ] {
        let visitor = Visitor::new(&console.base);
        visitor.set_cookie(&format!("grantonce-ops={forged}"));
        assert_eq!(visitor.get("/dead-letters").await.status, 303, "{forged}");
    }
    // Logging out makes the browser forget it.
    let page = ada.get("/").await;
    let answer = ada.post("/logout", &[("form_token", &page.field("form_token"))]).await;
    assert_eq!((answer.status, ada.cookie().as_str()), (303, ""));
    assert_eq!(ada.get("/").await.status, 303);
}

#[tokio::test]
async fn the_cookie_is_as_strict_as_the_way_it_came() {
    let console = Console::start().await;
    let visitor = Visitor::new(&console.base);
    let plain = visitor.post("/login", &[("token", ADA)]).await;
    let cookie = plain.header("set-cookie").to_owned();
    assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{cookie}");
    // Behind a proxy that speaks https the browser says so.
    let host = console.base.trim_start_matches("http://");
    let origin = format!("https://{host}");
    let secure = visitor.post_from("/login", &[("token", ADA)], &[("origin", &origin)]).await;
    let cookie = secure.header("set-cookie").to_owned();
    assert!(cookie.starts_with("__Host-grantonce-ops=ada."), "{cookie}");
    assert!(cookie.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure"), "{cookie}");
    assert_eq!(visitor.get("/").await.status, 200);
}

#[tokio::test]
async fn wrong_tokens_are_slow_and_one_leads_to_own_pages_alone() {
    let console = Console::start().await;
    let visitor = Visitor::new(&console.base);
    let answer = visitor.post("/login", &[("token", "wrong"), ("next", "/replays")]).await;
    assert_eq!((answer.status, answer.field("next").as_str()), (401, "/replays"));
    assert!(!answer.text.contains("wrong\""), "a token is not repeated");
    // Many at once are not even waited for; the right one is let in meanwhile.
    let tries = (0..40).map(|_| visitor.post("/login", &[("token", "wrong")]));
    let (answers, right) = tokio::join!(futures_util::future::join_all(tries), Visitor::logged_in(&console.base, BOB));
    assert!(answers.iter().any(|answer| answer.status == 429));
    assert!(answers.iter().all(|answer| matches!(answer.status, 401 | 429)));
    assert_eq!(right.get("/").await.status, 200);

    for (next, place) in [
        ("/dead-letters?reason=malformed", "/dead-letters?reason=malformed"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example/", "/"),
        ("/\r\nset-cookie: a=b", "/"),
    ] {
        let answer = visitor.post("/login", &[("token", ADA), ("next", next)]).await;
        assert_eq!((answer.status, answer.header("location")), (303, place), "{next:?}");
        let form = visitor
            .get(&format!("/login?next={}", next.replace('\r', "%0D").replace('\n', "%0A").replace(' ', "%20")))
            .await;
        assert_eq!(form.field("next"), place.replace('&', "&amp;"), "{next:?}");
    }
}

#[tokio::test]
async fn forms_of_other_sites_do_nothing() {
    let console = Console::start().await;
    let letter = console.letter(&event_for("pi_1", "evt_1", captured(1999)), Reason::UnknownPayment, "no order").await;
    let (ada, bob) = (Visitor::logged_in(&console.base, ADA).await, Visitor::logged_in(&console.base, BOB).await);
    let page = ada.get(&format!("/archive?id={letter}")).await;
    let (token, selection) = (page.field("form_token"), page.field("selection"));
    let bobs = bob.get("/").await.field("form_token");
    let own = console.base.as_str();
    let form = |token: &str| {
        let fields = [("selection", selection.as_str()), ("reason", "because")];
        fields
            .into_iter()
            .chain([("form_token", token)])
            .map(|(name, value)| (name, value.to_owned()))
            .collect::<Vec<_>>()
    };
    let refused: [(&str, &[(&str, &str)]); 8] = [
        ("", &[("origin", own)]),
        ("wrong", &[("origin", own)]),
        (&bobs, &[("origin", own)]),
        (&token, &[]),
        (&token, &[("origin", "null")]),
        (&token, &[("origin", "https://evil.example")]),
        (&token, &[("sec-fetch-site", "cross-site"), ("origin", own)]),
        (&token, &[("sec-fetch-site", "same-site"), ("origin", own)]),
    ];
    for (token, headers) in refused {
        let form = form(token);
        let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let answer = ada.post_from("/archive", &form, headers).await;
        assert_eq!(answer.status, 403, "{token} {headers:?}: {}", answer.text);
        assert_eq!(console.world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 1);
    }
    assert_eq!(console.world.count("SELECT count(*) FROM audit_log").await, 0);
    let stranger = Visitor::new(&console.base);
    let login = stranger.post_from("/login", &[("token", ADA)], &[("origin", "https://evil.example")]).await;
    assert_eq!((login.status, login.header("set-cookie")), (403, ""));

    let form = form(&token);
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = ada.post_from("/archive", &form, &[("sec-fetch-site", "same-origin")]).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let who =
        sqlx::query_scalar::<_, String>("SELECT actor || ' ' || action || ' ' || is_self_declared FROM audit_log");
    assert_eq!(who.fetch_one(&console.world.sql).await.unwrap(), "ada letters.archive false");
}

#[tokio::test]
async fn every_page_is_held_to_what_it_is_for() {
    let console = Console::start().await;
    console.ten_unknown().await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    for path in [
        "/",
        "/dead-letters",
        "/replay",
        "/replays",
        "/audit",
        "/explain/pi_1",
        "/no/such/page",
        "/dead-letters?reasn=x",
    ] {
        let page = ada.get(path).await;
        let policy = page.header("content-security-policy");
        assert!(
            policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe") && !policy.contains("http"),
            "{policy}"
        );
        for wanted in ["form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"] {
            assert!(policy.contains(wanted), "{path}: {policy}");
        }
        assert_eq!(page.header("cache-control"), "no-store", "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(page.header("referrer-policy"), "same-origin", "{path}");
        for outside in [" style=", "<script>", " onclick=", "http://", "https://"] {
            assert!(!page.text.contains(outside), "{path}: {outside}");
        }
    }
    let missing = ada.get("/no/such/page").await;
    assert_eq!(missing.status, 404);
    assert!(missing.text.contains("/explain?q=page") && missing.text.contains("href=\"/dead-letters\""));
    assert_eq!(ada.get("/dead-letters?reasn=x").await.status, 400);
}

//! Balances and ledger entries.

use super::server::{Api, KIOSK, NOW, order_for, paid, refunded};
use reqwest::Method;
use serde_json::{Value, json};
use time::Duration;

#[tokio::test]
async fn a_balance_is_the_sum_of_all_entries() {
    let api = Api::start().await;
    let balance = async || api.get("/v1/accounts/user-42/balance").await.json();
    assert_eq!(balance().await, json!({"account_id": "user-42", "credits": 0}));
    api.order("pi_1").await;
    api.order("pi_2").await;
    assert_eq!(balance().await["credits"], 0, "an order alone grants nothing");
    api.apply(NOW, vec![paid("pi_1"), paid("pi_2")]).await;
    assert_eq!(balance().await["credits"], 1000);
    api.apply(NOW, vec![refunded("pi_1", "re_1", 1999)]).await;
    assert_eq!(balance().await["credits"], 500);
    let other = api.get("/v1/accounts/user-4/balance").await;
    assert_eq!(other.json(), json!({"account_id": "user-4", "credits": 0}));
    api.end().await;
}

#[tokio::test]
async fn any_id_of_a_site_is_an_account() {
    let api = Api::start().await;
    let odd = "a/b?c#d %e&ü';--";
    let mut order = order_for("pi_1");
    order["account_id"] = json!(odd);
    assert_eq!(api.create(KIOSK, "k", &order).await.status, 201);
    api.apply(NOW, vec![paid("pi_1")]).await;
    let encoded: String = odd.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let balance = api.get(&format!("/v1/accounts/{encoded}/balance")).await;
    assert_eq!(balance.json(), json!({"account_id": odd, "credits": 500}));
    let entries = api.get(&format!("/v1/accounts/{encoded}/entries")).await;
    assert_eq!(entries.field("entries").as_array().unwrap().len(), 1);
    for bad in ["%00", "%20a", "a%0A", "%FF", &"x".repeat(256)] {
        for what in ["balance", "entries"] {
            let refused = api.get(&format!("/v1/accounts/{bad}/{what}")).await;
            assert_eq!((refused.status, refused.kind().as_str()), (400, "invalid_parameters"), "{bad}");
        }
    }
    api.end().await;
}

#[tokio::test]
async fn entries_come_in_pages_each_once_and_in_order() {
    let api = Api::start().await;
    // Grants and first adjustments have one time, all others a later one. Equal times must not lose or repeat a line.
    let payments: Vec<String> = (0..4).map(|n| format!("pi_{n}")).collect();
    for payment in &payments {
        api.order(payment).await;
    }
    api.apply(NOW, payments.iter().map(|payment| paid(payment)).collect()).await;
    for round in 1..=3 {
        let refunds = payments.iter().map(|payment| refunded(payment, &format!("{payment}_re_{round}"), 100 * round));
        api.apply(NOW + Duration::seconds(round / 2), refunds.collect()).await;
    }
    let whole = api.get("/v1/accounts/user-42/entries").await;
    let whole = whole.field("entries").as_array().unwrap().clone();
    assert_eq!(whole.len(), 16);
    let sum: i64 = whole.iter().map(|entry| entry["credits"].as_i64().unwrap()).sum();
    assert_eq!(api.get("/v1/accounts/user-42/balance").await.field("credits"), sum);
    assert_eq!(
        (&whole[0]["kind"], &whole[0]["revision"], &whole[0]["reason"]),
        (&json!("grant"), &json!(0), &json!("grant"))
    );
    assert_eq!(whole[0]["credits"], 500);
    assert_eq!(whole[0]["at"], "2026-01-05T12:00:00.123456Z");
    assert_eq!((&whole[15]["kind"], &whole[15]["revision"]), (&json!("adjustment"), &json!(3)));
    assert_eq!(whole[15]["reason"], "partially_refunded");
    assert!(whole[15]["message_id"].as_str().unwrap().starts_with("stripe::evt_pi_"));

    for limit in [1, 3, 4, 5, 15, 16, 17, 500] {
        let mut pages: Vec<Value> = vec![];
        let mut after = String::new();
        loop {
            let page = api.get(&format!("/v1/accounts/user-42/entries?limit={limit}{after}")).await;
            let entries = page.field("entries").as_array().unwrap().clone();
            assert!(entries.len() <= limit);
            pages.extend(entries);
            assert!(pages.len() <= whole.len(), "lines come again in pages of {limit}");
            let Value::String(next) = page.field("next") else { break };
            after = format!("&after={next}");
        }
        assert_eq!(pages, whole, "in pages of {limit}");
    }
    api.end().await;
}

#[tokio::test]
async fn parameters_of_entries_are_checked() {
    let api = Api::start().await;
    for query in ["limit=0", "limit=501", "limit=x", "after=x", "after=", "before=1", "limit=1&limit=2"] {
        let refused = api.get(&format!("/v1/accounts/a/entries?{query}")).await;
        assert_eq!((refused.status, refused.kind().as_str()), (400, "invalid_parameters"), "{query}");
    }
    let refused = api.get("/v1/accounts/a/balance?at=now").await;
    assert_eq!((refused.status, refused.kind().as_str()), (400, "invalid_parameters"));
    let empty = api.get("/v1/accounts/a/entries").await;
    assert_eq!(empty.json(), json!({"entries": [], "next": null}));
    for what in ["balance", "entries"] {
        let path = format!("/v1/accounts/a/{what}");
        assert_eq!(api.send(api.bare(Method::GET, &path)).await.status, 401);
        assert_eq!(api.send(api.bare(Method::GET, &path).bearer_auth("x")).await.status, 401);
    }
    api.end().await;
}

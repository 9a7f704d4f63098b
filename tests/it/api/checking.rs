//! `POST /v1/orders/{id}/check`, for a buyer who returns from the provider.

use super::server::{Api, SHOP, order_for};
use reqwest::Method;
use serde_json::{Value, json};

async fn check(api: &Api, id: &str) -> (u16, Value) {
    let answer = api.send(api.bare(Method::POST, &format!("/v1/orders/{id}/check")).bearer_auth(SHOP)).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn a_buyer_who_is_back_a_hundred_times_makes_one_look_due() {
    let api = Api::start().await;
    let id = api.order("pi_1").await.to_string();
    assert_eq!(api.db.number("SELECT count(*) FROM provider_looks WHERE due_at > '2026-01-05 12:01Z'").await, 1);
    let calls = futures_util::future::join_all((0..100).map(|_| check(&api, &id))).await;
    assert!(calls.iter().all(|(status, body)| *status == 202 && body["will_ask"] == true), "{calls:?}");
    assert_eq!(api.db.number("SELECT wanted::bigint FROM provider_looks WHERE due_at < '2026-01-05 12:01Z'").await, 1);
    api.end().await;
}

#[tokio::test]
async fn only_the_site_may_ask_and_only_where_somebody_can_be_asked() {
    let api = Api::start().await;
    let made = api.create(SHOP, "k", &order_for("pi_1")).await;
    let (id, token) = (made.field("id"), made.field("status_token"));
    let (id, token) = (id.as_str().unwrap(), token.as_str().unwrap());
    for path in [format!("/v1/orders/{id}/check"), format!("/v1/orders/{id}/check?token={token}")] {
        assert_eq!(api.send(api.bare(Method::POST, &path)).await.status, 401, "{path}");
    }
    assert_eq!(api.db.number("SELECT wanted::bigint FROM provider_looks").await, 0);

    let mut by_adyen = order_for("psp_1");
    by_adyen["provider"] = json!("adyen");
    let adyens = api.create(SHOP, "adyen", &by_adyen).await.field("id");
    let (status, body) = check(&api, adyens.as_str().unwrap()).await;
    assert_eq!((status, &body["will_ask"]), (202, &json!(false)));
    assert!(body["detail"].as_str().unwrap().contains("cannot be asked"), "{body}");

    for unknown in ["019b8d8e-7f5a-7c3e-9f0e-0d8c7e1f2a3b", "nothing"] {
        assert_eq!(check(&api, unknown).await.0, 404);
    }
    api.end().await;
}

//! Answers while the database is away or broken.

use super::server::{Api, SHOP, order_for};
use crate::support::db::TestDb;
use crate::support::eventually;
use reqwest::Method;

#[tokio::test]
async fn an_outage_is_503_with_a_time_to_come_again() {
    let db = TestDb::create().await;
    // No server listens on port 1.
    let api = Api::start_on(db, "postgres://nobody@127.0.0.1:1/none".parse().unwrap()).await;
    let order = order_for("pi_1");
    let (made, read, waited, balance, ready) = tokio::join!(
        api.create(SHOP, "k", &order),
        api.get("/v1/orders/01890a5d-ac96-774b-bcce-b302099a8057"),
        api.get("/v1/orders/01890a5d-ac96-774b-bcce-b302099a8057?wait=30"),
        api.get("/v1/accounts/a/balance"),
        api.get("/readyz"),
    );
    for answer in [made, read, waited, balance] {
        assert_eq!(answer.status, 503, "{}", answer.text);
        assert_eq!(answer.header("retry-after"), Some("2"));
        assert!(!answer.text.contains("127.0.0.1"), "{}", answer.text);
    }
    assert_eq!((ready.status, ready.field("missing")), (503, serde_json::json!(["postgres"])));
    // Requests that need no database are answered all the same.
    assert_eq!(api.send(api.bare(Method::GET, "/healthz")).await.status, 200);
    assert_eq!(api.create("wrong", "k", &order).await.status, 401);
    assert_eq!(api.create(SHOP, "k", &serde_json::json!({})).await.status, 422);
    api.end().await;
}

#[tokio::test]
async fn a_schema_that_is_not_there_is_500_without_details_and_not_ready() {
    let api = Api::start().await;
    let is_ready = async || api.get("/readyz").await.status == 200;
    eventually("ready", is_ready).await;
    assert!(api.metrics.render().contains(r#"grantonce_dependency_up{dependency="postgres"} 1"#));
    api.db.execute("ALTER TABLE orders RENAME TO orders_elsewhere").await;
    let answer = api.get("/v1/orders/01890a5d-ac96-774b-bcce-b302099a8057").await;
    assert_eq!(answer.status, 500);
    assert!(!answer.text.contains("orders"), "{}", answer.text);
    assert_eq!(api.create(SHOP, "k", &order_for("pi_1")).await.status, 500);
    eventually("not ready", async || !is_ready().await).await;
    api.db.execute("ALTER TABLE orders_elsewhere RENAME TO orders").await;
    eventually("ready again", is_ready).await;
    assert_eq!(api.create(SHOP, "k", &order_for("pi_1")).await.status, 201);
    api.end().await;
}

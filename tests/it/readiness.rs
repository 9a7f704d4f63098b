//! `/readyz` of every role names the missing dependency from the first moment, and the metric shows the same.

mod situations;

use crate::support::{World, eventually};
use grantonce::http::plain_client;
use serde_json::{Value, json};
use std::time::Duration;

const START: Duration = Duration::from_secs(30);

/// No server listens on port 1.
const NO_POSTGRES: &str = "postgres://nobody@127.0.0.1:1/none";
const NO_RABBITMQ: &str = "amqp://nobody:nothing@127.0.0.1:1/none";

#[tokio::test]
async fn each_role_names_what_it_misses_and_nothing_else() {
    let world = World::new().await;
    let http = plain_client().build().unwrap();
    let get = async |url: String| http.get(url).send().await.unwrap();
    let both = ["postgres", "rabbitmq"].as_slice();
    for (role, needs) in [
        ("receiver", &both[1..]),
        ("worker", both),
        ("api", &both[..1]),
        ("reconciler", both),
        ("ops", both),
        ("all", both),
    ] {
        for away in [both, &both[..1], &both[1..], &[]] {
            let mut children = world
                .children()
                .env("GRANTONCE_API_TOKENS", "shop:shop-token-shop-token")
                .env("GRANTONCE_STATUS_TOKEN_KEY", "a-key-for-the-tests-only-a-key-for-the-tests")
                .env("GRANTONCE_OPS_ADDR", "127.0.0.1:0")
                .env("GRANTONCE_OPS_TOKENS", "ada:a-token-of-ada-for-the-tests")
                .env("GRANTONCE_STRIPE_API_KEY", "sk_test_1");
            for (name, variable, nowhere) in
                [("postgres", "DATABASE_URL", NO_POSTGRES), ("rabbitmq", "AMQP_URL", NO_RABBITMQ)]
            {
                if away.contains(&name) {
                    children = children.env(variable, nowhere);
                }
            }
            let mut child = children.start(role, &[role]).await.unwrap();
            let address = child.listening("metrics", START).await.unwrap();
            let missing: Vec<_> = needs.iter().filter(|need| away.contains(need)).collect();
            let first = get(format!("http://{address}/readyz")).await;
            assert!(missing.is_empty() || first.status() == 503, "{role} without {away:?} is ready at first");
            // A running server may take a moment to be reached. These roles do not connect to RabbitMQ before Postgres is reached.
            let waits_for_postgres = ["worker", "reconciler", "ops", "all"].contains(&role);
            let expected = if waits_for_postgres && away == &both[..1] { json!(both) } else { json!(missing) };
            let as_expected = async |answer: reqwest::Response| {
                let is_ready = answer.status() == 200;
                let body: Value = answer.json().await.unwrap();
                let said = &body["missing"];
                is_ready == (body["status"] == "ready") && (*said == expected || *said == json!(missing))
            };
            eventually(&format!("{role} without {away:?} misses {expected}"), async || {
                as_expected(get(format!("http://{address}/readyz")).await).await
            })
            .await;
            let page = get(format!("http://{address}/metrics")).await.text().await.unwrap();
            for name in both {
                let is_named = page.contains(&format!("grantonce_dependency_up{{dependency=\"{name}\"}}"));
                assert_eq!(is_named, needs.contains(name), "{role} and {name}");
            }
            for name in &missing {
                assert!(
                    page.contains(&format!("grantonce_dependency_up{{dependency=\"{name}\"}} 0")),
                    "{role}: {page}"
                );
            }
            child.kill().await.unwrap();
        }
    }
}

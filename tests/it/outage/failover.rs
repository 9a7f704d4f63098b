//! Several hosts in `DATABASE_URL`: the primary crashes, the standby is promoted, and every role continues by itself.

use super::{START, all_granted_once, more_grants, publishing, world_on};
use crate::support::{PrivateServers, Server, Standby, eventually, eventually_within};
use grantonce::http::plain_client;
use reqwest::Url;
use std::time::{Duration, Instant};

const TOKEN: &str = "shop-token-shop-token";

/// A database URL with both hosts that asks for the one that accepts writes.
fn of_both(standby: &str, primary: &str) -> String {
    let url = Url::parse(primary).unwrap();
    let host = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let both = url.as_str().replace(&host, &format!("{standby},{host}"));
    both.split('?').next().unwrap().to_owned() + "?target_session_attrs=read-write"
}

#[tokio::test(flavor = "multi_thread")]
async fn o08_a_worker_and_an_api_follow_a_failover_without_a_restart() {
    let servers = PrivateServers::start(Server::Postgres).await;
    let world = world_on(&servers).await;
    let standby = Standby::of(&world.database_url).await;
    world.execute("ALTER SYSTEM SET synchronous_standby_names = '*'").await;
    world.execute("SELECT pg_reload_conf()").await;
    // The standby is the first host. It accepts no writes, so the connection goes to the next host.
    let both = of_both(&standby.host, &world.database_url);

    let mut settings = world.worker_config();
    settings.database.url = both.parse().unwrap();
    let worker = world.start_worker_with(settings);
    let children = world
        .children()
        .env("DATABASE_URL", &both)
        .env("GRANTONCE_API_TOKENS", format!("shop:{TOKEN}"))
        .env("GRANTONCE_STATUS_TOKEN_KEY", "a-key-for-the-tests-only-a-key-for-the-tests");
    let mut api = children.start("api", &["api"]).await.unwrap();
    let address = api.listening("api", START).await.unwrap();
    let http = plain_client().build().unwrap();
    let balance = async |account: &str| {
        let request = http.get(format!("http://{address}/v1/accounts/{account}/balance")).bearer_auth(TOKEN);
        request.send().await.unwrap().status() == 200
    };
    let traffic = publishing(&world);
    more_grants(&world, 20).await;
    eventually("the API answers", async || balance("acc1").await).await;

    servers.crash(Server::Postgres).await;
    standby.promote().await;
    let began = Instant::now();
    let world = world.taken_over_by(&standby.url);
    let soon = Duration::from_secs(30);
    eventually_within(soon, "the API answers again", async || balance("acc1").await).await;
    let (before, paid) = (world.grants().await, traffic.taken());
    eventually_within(soon, "the worker continues", async || world.grants().await > before).await;
    assert!(began.elapsed() < soon, "{:?}", began.elapsed());
    eventually("buyers pay all the time", async || traffic.taken() > paid).await;
    let sent = traffic.stop().await;
    all_granted_once(&world, worker, sent).await;
}

//! Faults at Postgres.

use super::check;
use crate::letters::paid;
use crate::support::servers::{PrivateServers, Server};
use crate::support::world::{OrderSpec, World};
use grantonce::broker::DEAD_QUEUE;
use grantonce::clock::Clock;
use grantonce::http::Readiness;
use grantonce::shutdown::Shutdown;
use grantonce::telemetry::{Metrics, Traces};
use grantonce::worker;
use grantonce_testkit::wait::eventually;
use sqlx::Connection as _;
use time::OffsetDateTime;

/// A worker whose machine is two days behind.
#[tokio::test]
async fn o15_a_clock_that_is_far_behind_refuses_nothing_genuine() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let (shutdown, metrics) = (Shutdown::manual(), Metrics::new());
    let clock = Clock::fixed(OffsetDateTime::now_utc() - time::Duration::days(2));
    let (settings, traces) = (world.worker_config(), Traces::off());
    let worker = tokio::spawn(worker::run(settings, clock, metrics, traces, Readiness::new(), shutdown.clone()));
    world.publish(&paid("pi_1", "evt_1")).await;
    // The time is months ahead of every clock, so the message is still refused.
    let mut future = paid("pi_1", "evt_2");
    future.occurred_at += time::Duration::days(60);
    world.publish(&future).await;
    eventually("both are settled", async || world.grants().await + i64::from(world.ready(DEAD_QUEUE).await) == 2).await;
    assert_eq!(world.status(order).await, "fulfilled");
    let letter = world.dead_letter().await;
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "stripe::evt_2");
    shutdown.token().cancel();
    worker.await.unwrap().unwrap();
    world.verify().await;
}

fn database(world: &World) -> String {
    let url = reqwest::Url::parse(&world.database_url).unwrap();
    url.path().trim_start_matches('/').to_owned()
}

#[tokio::test]
async fn o07_a_read_only_database_is_a_fault() {
    let world = World::new().await;
    let name = database(&world);
    world.execute(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    for role in [&[][..], &["--role", "worker"], &["--role", "api"], &["--role", "ops"]] {
        let variables = [
            ("GRANTONCE_OPS_TOKENS", "ada:0123456789abcdef0123456789abcdef"),
            ("GRANTONCE_API_TOKENS", "shop:0123456789abcdef0123456789abcdef"),
            ("GRANTONCE_STATUS_TOKEN_KEY", "0123456789abcdef0123456789abcdef"),
        ];
        let checked = check(&world, role, &variables).await;
        checked.has_faults(&[&["Postgres is read-only here", "default_transaction_read_only"]]);
    }
    world.execute(&format!("SET transaction_read_only = off; ALTER DATABASE {name} RESET ALL")).await;
    check(&world, &[], &[]).await.is_good();
}

#[tokio::test]
async fn o07_settings_that_lose_what_is_committed_are_faults() {
    let world = World::new().await;
    let name = database(&world);
    world.execute(&format!("ALTER DATABASE {name} SET synchronous_commit = off")).await;
    check(&world, &[], &[]).await.has_faults(&[&["synchronous_commit is off", "ALTER SYSTEM"]]);
}

#[tokio::test]
async fn o07_a_database_without_connections_left_is_a_fault() {
    let world = World::new().await;
    let name = database(&world);
    world.execute(&format!("ALTER DATABASE {name} CONNECTION LIMIT 5")).await;
    // In the tests, `check` runs as a superuser, whom the limit does not stop.
    let mut held = vec![];
    for _ in 0..4 {
        held.push(sqlx::PgConnection::connect(&world.database_url).await.unwrap());
    }
    check(&world, &[], &[]).await.has_faults(&[&["too many connections: ", "of the 5 of this database"]]);
}

#[tokio::test]
async fn o07_commits_that_do_not_end_are_a_fault_and_leave_no_connection_behind() {
    let servers = PrivateServers::start(Server::Postgres).await;
    let env = servers.env().await;
    let own = |name: &str| std::env::var(name).unwrap();
    let world = World::on_servers(&env["DATABASE_URL"], &own("AMQP_URL"), &own("GRANTONCE_MANAGEMENT_URL")).await;
    check(&world, &[], &[]).await.is_good();
    world.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    world.execute("SELECT pg_reload_conf()").await;
    eventually("the setting is in force", async || {
        world
            .count("SELECT count(*) FROM pg_settings WHERE name = 'synchronous_standby_names' AND setting = 'nobody'")
            .await
            == 1
    })
    .await;
    check(&world, &[], &[]).await.has_faults(&[&["a commit does not end within 4 s", "pg_stat_replication"]]);
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    assert_eq!(world.count(waiting).await, 0, "nobody waits any more");
    world.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    world.execute("SELECT pg_reload_conf()").await;
}

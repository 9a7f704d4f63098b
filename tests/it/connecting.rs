//! The supported ways to reach Postgres, and the errors of the others.

use crate::api::Api;
use crate::api::waiting::announced_changes_wake;
use crate::support::db::TestDb;
use crate::support::{OrderSpec, PgBouncer, World, captured, event_for, eventually};
use grantonce::http::plain_client;
use grantonce::role::Role;
use grantonce::store::{Profile, Settings, Store, StoreError};
use grantonce_testkit::children::Children;
use grantonce_testkit::scratch::unique_name;
use reqwest::Url;
use sqlx::{Connection as _, PgConnection};
use std::process::Output;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(30);

fn settings(url: &str, deadline: Duration) -> Settings {
    Settings { url: url.parse().unwrap(), connections_max: 4, deadline, profile: Profile::Requests }
}

/// Every variable that any role or command needs.
fn children(world: &World, url: &str) -> Children {
    world
        .children()
        .env("DATABASE_URL", url)
        .env("GRANTONCE_API_TOKENS", "shop:shop-token-shop-token")
        .env("GRANTONCE_STATUS_TOKEN_KEY", "a-key-for-the-tests-only-a-key-for-the-tests")
        .env("GRANTONCE_OPS_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_OPS_TOKENS", "ada:a-token-of-ada-for-the-tests")
        .env("GRANTONCE_STRIPE_API_KEY", "sk_test_1")
        .env("GRANTONCE_STRIPE_API_BASE", "http://127.0.0.1:1")
}

/// Runs a command to its end with the world's environment.
async fn command(world: &World, url: &str, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.args(args).env_clear().env("DATABASE_URL", url).env("AMQP_URL", &world.amqp_url);
    command.env("GRANTONCE_LIVEMODE", "false").env("GRANTONCE_RETRY_DELAYS", "200ms,500ms");
    let Output { status, stdout, stderr } = command.output().await.unwrap();
    let said = [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    (status.code(), said)
}

#[tokio::test]
async fn o11_every_role_works_through_pgbouncer_in_session_mode() {
    let world = World::new().await;
    let pooler = PgBouncer::before(&world.database_url, "session").await;
    let mut settings = world.worker_config();
    settings.database.url = pooler.url.parse().unwrap();
    let worker = world.start_worker_with(settings);
    world.order(OrderSpec::paid_by("pi_1")).await;
    world.publish(&event_for("pi_1", "evt_1", captured(1999))).await;
    eventually("the payment is granted", async || world.grants().await == 1).await;
    let http = plain_client().build().unwrap();
    for role in ["worker", "api", "reconciler", "ops"] {
        let mut child = children(&world, &pooler.url).start(role, &[role]).await.unwrap();
        let address = child.listening("metrics", START).await.unwrap();
        let ready = async || {
            let answer = http.get(format!("http://{address}/readyz")).send().await.unwrap();
            answer.status() == 200
        };
        eventually(&format!("{role} is ready"), ready).await;
        child.terminate(START).await.unwrap();
    }
    for args in [&["verify"][..], &["check"], &["dlq", "list"], &["explain", "pi_1"], &["migrate"]] {
        let (code, said) = command(&world, &pooler.url, args).await;
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    world.settled(worker).await;
}

#[tokio::test]
async fn o11_buyers_are_woken_through_pgbouncer_in_session_mode() {
    use secrecy::ExposeSecret as _;
    let db = TestDb::create().await;
    let pooler = PgBouncer::before(db.url.expose_secret(), "session").await;
    let url = pooler.url.parse().unwrap();
    announced_changes_wake(Api::start_on(db, url).await).await;
}

/// Without these settings, a statement that waits for a lock ends only with the caller's own deadline, or never.
#[tokio::test]
async fn o11_the_servers_timeouts_are_in_force_through_pgbouncer() {
    let world = World::new().await;
    let pooler = PgBouncer::before(&world.database_url, "session").await;
    let id = world.order(OrderSpec::paid_by("pi_1")).await;
    for url in [&world.database_url, &pooler.url] {
        let store = Store::new(&settings(url, Duration::from_secs(6))).unwrap();
        let mut hold = world.sql.begin().await.unwrap();
        sqlx::query("LOCK TABLE orders").execute(&mut *hold).await.unwrap();
        let error = store.orders(&[id]).await.unwrap_err();
        assert_eq!(error.code().as_deref(), Some("SQLSTATE 55P03"), "lock_timeout: {error}");
        hold.rollback().await.unwrap();
        assert_eq!(store.orders(&[id]).await.unwrap().len(), 1, "the connection is of use afterwards");
    }
}

#[tokio::test]
async fn o11_a_pooler_that_shares_sessions_is_refused_with_2_and_a_sentence() {
    let world = World::new().await;
    for mode in ["transaction", "statement"] {
        let pooler = PgBouncer::before(&world.database_url, mode).await;
        for args in [&["worker"][..], &["api"], &["reconciler"], &["ops"], &["migrate"], &["check"], &["verify"]] {
            let began = Instant::now();
            let mut child = children(&world, &pooler.url).start(args[0], args).await.unwrap();
            let ended = child.ended(START).await.unwrap();
            let said = std::fs::read_to_string(child.log_path()).unwrap();
            assert_eq!(ended.code(), Some(2), "{args:?} in {mode} mode after {:?}: {said}", began.elapsed());
            // A separate task writes the log.
            let log = child.log_path().to_owned();
            let is_said = async || std::fs::read_to_string(&log).unwrap().contains("pool_mode = session");
            eventually(&format!("{args:?} says what to do"), is_said).await;
        }
    }
}

#[tokio::test]
async fn o15_too_many_connections_is_said_in_those_words() {
    let world = World::new().await;
    let name = unique_name("grantonce_test");
    world.execute(&format!("CREATE ROLE {name} LOGIN PASSWORD 'p' CONNECTION LIMIT 0")).await;
    let mut url = Url::parse(&world.database_url).unwrap();
    url.set_username(&name).unwrap();
    url.set_password(Some("p")).unwrap();
    let (code, said) = command(&world, url.as_str(), &["verify"]).await;
    world.execute(&format!("DROP ROLE {name}")).await;
    assert_eq!(code, Some(3), "{said}");
    for part in ["too many connections", "max_connections", "up to 2"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn o15_a_schema_that_cannot_be_migrated_ends_with_1() {
    use secrecy::ExposeSecret as _;
    let world = World::new().await;
    let db = TestDb::create().await;
    let url = db.url.expose_secret();
    let mut sql = PgConnection::connect(url).await.unwrap();
    let migrate = async || command(&world, url, &["migrate"]).await;
    for (fault, remedy, part) in [
        // An applied migration differs from the one in this program.
        ("UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 1", None, "modified"),
        // A table of another program is in the way.
        ("DROP TABLE _sqlx_migrations", Some("SELECT 1"), "already exists"),
    ] {
        sqlx::raw_sql(fault).execute(&mut sql).await.unwrap();
        let (code, said) = migrate().await;
        assert_eq!(code, Some(1), "{fault}: {said}");
        assert!(said.contains(part), "{fault}: {said}");
        if let Some(remedy) = remedy {
            sqlx::raw_sql(remedy).execute(&mut sql).await.unwrap();
        }
    }
}

#[tokio::test]
async fn deadlocks_of_whatever_program_are_counted_by_ops() {
    let world = World::new().await;
    let mut child = children(&world, &world.database_url).start("ops", &["ops"]).await.unwrap();
    let address = child.listening("metrics", START).await.unwrap();
    let http = plain_client().build().unwrap();
    let deadlocks = async || {
        let page = http.get(format!("http://{address}/metrics")).send().await.unwrap().text().await.unwrap();
        // This appears after the first count.
        if !page.contains("grantonce_grants_missing ") {
            return None;
        }
        page.lines().find_map(|line| line.strip_prefix("grantonce_postgres_deadlocks_total ")?.parse::<u64>().ok())
    };
    eventually("ops has looked", async || deadlocks().await == Some(0)).await;
    let (one, two) = (world.order(OrderSpec::paid_by("pi_1")).await, world.order(OrderSpec::paid_by("pi_2")).await);
    let (mut first, mut second) = (world.sql.begin().await.unwrap(), world.sql.begin().await.unwrap());
    let lock = async |sql: &mut PgConnection, id: grantonce::domain::OrderId| {
        sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE").bind(id.0).execute(sql).await.map(|_| ())
    };
    lock(&mut first, one).await.unwrap();
    lock(&mut second, two).await.unwrap();
    let (here, there) = tokio::join!(lock(&mut first, two), async {
        let failed = lock(&mut second, one).await;
        if failed.is_err() {
            second.rollback().await.unwrap();
        } else {
            // The other transaction was undone.
            drop(second);
        }
        failed
    });
    assert!(here.is_err() != there.is_err(), "{here:?} {there:?}");
    drop(first);
    eventually("ops has counted it", async || deadlocks().await == Some(1)).await;
}

#[tokio::test]
async fn a_database_that_was_read_only_is_found_to_take_writes_again() {
    let world = World::new().await;
    let store = Store::new(&settings(&world.database_url, START)).unwrap();
    let set = async |value: &str| {
        let database = format!(
            "EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {value}', current_database())"
        );
        world.execute(&format!("SET transaction_read_only = off; DO $$ BEGIN {database}; END $$")).await;
    };
    set("on").await;
    let probed = store.probe(Role::Api).await;
    assert!(matches!(probed, Err(StoreError::ReadOnly)), "{probed:?}");
    set("off").await;
    let probed = store.probe(Role::Api).await;
    assert!(probed.is_ok(), "{probed:?}");
}

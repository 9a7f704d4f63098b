//! The table of `docs/health.md`: each test causes a situation, sees it in `/readyz` and in the metrics, and ends it.

use crate::support::{Answer, Poster, PrivateServers, Server, World, eventually, paid};
use grantonce::broker::{self, DEAD_QUEUE, HINTS_QUEUE, PAYMENTS_EXCHANGE, WORK_QUEUE, retry_queue};
use grantonce::clock::Clock;
use grantonce::http::{Readiness, plain_client};
use grantonce::shutdown::Shutdown;
use grantonce::telemetry::{Metrics, Traces};
use grantonce::worker;
use grantonce_testkit::children::Child;
use lapin::options::{QueueBindOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use regex::Regex;
use reqwest::{Method, Url};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

const PAGE: &str = include_str!("../../../docs/health.md");
const ALERTS: &str = include_str!("../../../deploy/prometheus/alerts.yml");

/// The rows of the table: situation, role and need.
const SITUATIONS: [(&str, &str, &str); 15] = [
    ("Postgres is away", "worker", "postgres_writes"),
    ("Postgres is read-only", "worker", "postgres_writes"),
    ("Commits hang because a synchronous standby is away", "worker", "postgres_writes"),
    ("A table is missing", "worker", "schema_and_rights"),
    ("A right on a table is missing", "worker", "schema_and_rights"),
    ("The clock of a worker's machine is wrong", "worker", "clock_agrees"),
    ("RabbitMQ is away", "worker", "broker_connected"),
    ("RabbitMQ has a memory or disk alarm", "worker", "publishing_unblocked"),
    ("The right to publish is missing", "worker", "may_publish"),
    ("A retry queue is missing", "worker", "topology_complete"),
    ("The workers' queue is missing", "worker", "holds_a_consumer"),
    ("The hints' queue is missing", "reconciler", "holds_a_consumer"),
    ("The dead letters' queue is missing", "ops", "holds_a_consumer"),
    ("The workers' queue is full", "receiver", "may_publish"),
    ("The workers' queue is not bound", "receiver", "may_publish"),
];

/// The longest time that a process may take to start on a busy machine.
const START: Duration = Duration::from_secs(30);

/// The number of requests to a process that is not ready. Each must say so, even if the process's other roles are ready.
const LOOKS: usize = 40;

/// The process whose readiness is tested.
struct Process {
    child: Child,
    address: SocketAddr,
    http: reqwest::Client,
}

impl Process {
    async fn start(world: &World, role: &str, variables: &[(&str, &str)]) -> Self {
        let mut children = world
            .children()
            .env("GRANTONCE_API_TOKENS", "shop:shop-token-shop-token")
            .env("GRANTONCE_STATUS_TOKEN_KEY", "a-key-for-the-tests-only-a-key-for-the-tests")
            .env("GRANTONCE_OPS_ADDR", "127.0.0.1:0")
            .env("GRANTONCE_OPS_TOKENS", "ada:a-token-of-ada-for-the-tests")
            .env("GRANTONCE_STRIPE_API_KEY", "sk_test_1");
        for (name, value) in variables {
            children = children.env(*name, *value);
        }
        let mut child = children.start(role, &[role]).await.unwrap();
        let address = child.listening("metrics", START).await.unwrap();
        Self { child, address, http: plain_client().build().unwrap() }
    }

    async fn readyz(&self) -> (u16, Value) {
        let answer = self.http.get(format!("http://{}/readyz", self.address)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn is_ready(&self) {
        let mut last = Value::Null;
        eventually(&format!("it is ready: {last}"), async || {
            let (status, body) = self.readyz().await;
            last = body;
            status == 200
        })
        .await;
    }

    /// Waits until the need of the row is missing for this cause. After that, it must be missing in every answer and in the
    /// metrics.
    async fn shows(&self, situation: &str, cause: &str) {
        let (_, role, need) = SITUATIONS.into_iter().find(|row| row.0 == situation).expect("a row of the table");
        let mut last = Value::Null;
        eventually(&format!("{situation}: {role} lacks {need} for {cause:?}"), async || {
            last = self.readyz().await.1;
            detail(&last, role, need).is_some_and(|detail| detail["cause"].as_str().unwrap().contains(cause))
        })
        .await;
        for _ in 0..LOOKS {
            let (status, body) = self.readyz().await;
            assert_eq!((status, &body["status"]), (503, &json!("not_ready")), "{situation}: {body}");
            assert!(!body["missing"].as_array().unwrap().is_empty(), "{situation}: {body}");
            let detail = detail(&body, role, need).unwrap_or_else(|| panic!("{situation}: {body}"));
            assert!(detail["since"].is_string() && detail["for_s"].is_u64(), "{situation}: {detail}");
        }
        let page =
            self.http.get(format!("http://{}/metrics", self.address)).send().await.unwrap().text().await.unwrap();
        for line in [
            format!("grantonce_ready{{role=\"{role}\"}} 0"),
            format!("grantonce_need_up{{role=\"{role}\",need=\"{need}\"}} 0"),
        ] {
            assert!(page.lines().any(|found| found == line), "{situation}: {line} is not in\n{page}");
        }
    }

    async fn end(mut self) {
        self.child.kill().await.unwrap();
    }
}

fn detail<'a>(body: &'a Value, role: &str, need: &str) -> Option<&'a Value> {
    body["details"].as_array()?.iter().find(|detail| detail["role"] == role && detail["need"] == need)
}

/// Calls the management API of the servers that all tests share.
async fn manage(method: Method, path: &str, body: Value) {
    let base = Url::parse(&std::env::var("GRANTONCE_MANAGEMENT_URL").unwrap()).unwrap();
    let call = plain_client().build().unwrap().request(method, base.join(path).unwrap()).json(&body);
    let status = call.send().await.unwrap().status();
    assert!(status.is_success(), "{path}: {status}");
}

fn vhost(world: &World) -> String {
    Url::parse(&world.amqp_url).unwrap().path().trim_start_matches('/').to_owned()
}

async fn declare_all(world: &World) {
    broker::declare(&world.amqp_url.parse().unwrap(), &world.retry_delays).await.unwrap();
}

async fn delete_queue(world: &World, queue: &str) {
    let (connection, channel) = world.channel().await;
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

#[test]
fn each_row_of_the_table_is_a_test_and_each_test_a_row() {
    let row = Regex::new(
        r#"(?m)^\| ([^|`]+?) \| `([a-z]+)`: `([a-z_]+)` \| `grantonce_need_up\{need="([a-z_]+)"\}` \| (\w+) \|"#,
    );
    let row = row.unwrap();
    let mut rows = vec![];
    for found in row.captures_iter(PAGE) {
        let alert = format!("- alert: {}\n", &found[5]);
        assert!(found[3] == found[4] && ALERTS.contains(&alert), "{}", &found[0]);
        rows.push((found[1].to_owned(), found[2].to_owned(), found[3].to_owned()));
    }
    let wanted = SITUATIONS.map(|(situation, role, need)| (situation.to_owned(), role.to_owned(), need.to_owned()));
    assert_eq!(rows, wanted, "docs/health.md has these rows");
    let source = include_str!("situations.rs");
    for (situation, _, _) in SITUATIONS {
        assert!(source.matches(&format!("\"{situation}\"")).count() > 1, "no test covers {situation:?}");
    }
    let needs: BTreeSet<_> = SITUATIONS.iter().map(|row| row.2).collect();
    let all: BTreeSet<_> = grantonce::telemetry::Need::ALL.iter().map(|need| need.name()).collect();
    assert_eq!(needs, all, "every need has its situation");
    for need in all {
        assert!(PAGE.contains(&format!("\n| `{need}` |")), "docs/health.md does not explain {need}");
    }
}

#[tokio::test]
async fn o06_postgres_is_away_or_rabbitmq() {
    let world = World::new().await;
    let process = Process::start(&world, "all", &[("DATABASE_URL", super::NO_POSTGRES)]).await;
    process.shows("Postgres is away", "Postgres").await;
    process.end().await;
    let process = Process::start(&world, "all", &[("AMQP_URL", super::NO_RABBITMQ)]).await;
    process.shows("RabbitMQ is away", "RabbitMQ is out of reach").await;
    process.end().await;
}

#[tokio::test]
async fn o06_postgres_is_read_only() {
    let world = World::new().await;
    let process = Process::start(&world, "all", &[]).await;
    process.is_ready().await;
    // This session may still write.
    let mut owner = world.sql.acquire().await.unwrap();
    for (value, is_read_only) in [("on", true), ("off", false)] {
        let change = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = {value}', current_database()); END $$"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(change)).execute(&mut *owner).await.unwrap();
        let others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        sqlx::raw_sql(others).execute(&mut *owner).await.unwrap();
        if is_read_only {
            process.shows("Postgres is read-only", "read-only").await;
        } else {
            process.is_ready().await;
        }
    }
    process.end().await;
}

#[tokio::test]
async fn o06_commits_hang() {
    let servers = PrivateServers::start(Server::Postgres).await;
    let url = servers.env().await["DATABASE_URL"].clone();
    let (amqp, management) = ("AMQP_URL", "GRANTONCE_MANAGEMENT_URL");
    let world = World::on_servers(&url, &std::env::var(amqp).unwrap(), &std::env::var(management).unwrap()).await;
    let process = Process::start(&world, "all", &[]).await;
    process.is_ready().await;
    world.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'").await;
    world.execute("SELECT pg_reload_conf()").await;
    process.shows("Commits hang because a synchronous standby is away", "did not answer, or not commit").await;
    world.execute("ALTER SYSTEM RESET synchronous_standby_names").await;
    world.execute("SELECT pg_reload_conf()").await;
    process.is_ready().await;
    process.end().await;
}

#[tokio::test]
async fn o06_a_table_is_missing() {
    let world = World::new().await;
    let process = Process::start(&world, "all", &[]).await;
    process.is_ready().await;
    world.execute("ALTER TABLE overpaid_orders RENAME TO away").await;
    process.shows("A table is missing", "on overpaid_orders").await;
    world.execute("ALTER TABLE away RENAME TO overpaid_orders").await;
    process.is_ready().await;
    process.end().await;
}

#[tokio::test]
async fn o06_a_right_is_missing() {
    let world = World::new().await;
    // Every server has this role. The rights are granted in this database only.
    world
        .execute(
            "GRANT ALL ON ALL TABLES IN SCHEMA public TO pg_monitor; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO pg_monitor;
             GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO pg_monitor;
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET role = pg_monitor', current_database()); END $$",
        )
        .await;
    let process = Process::start(&world, "all", &[]).await;
    process.is_ready().await;
    // The sessions of the process are older than this change.
    world.execute("REVOKE INSERT ON inbox FROM pg_monitor").await;
    process.shows("A right on a table is missing", "lacks INSERT on inbox").await;
    world.execute("GRANT INSERT ON inbox TO pg_monitor").await;
    process.is_ready().await;
    process.end().await;
}

#[tokio::test]
async fn o06_the_clock_is_wrong() {
    let world = World::new().await;
    let clock = Clock::fixed(Clock::system().now() + time::Duration::hours(2));
    let (readiness, metrics, shutdown) = (Readiness::new(), Metrics::new(), Shutdown::manual());
    let run = worker::run(
        world.worker_config(),
        clock.clone(),
        metrics.clone(),
        Traces::off(),
        readiness.clone(),
        shutdown.clone(),
    );
    let worker = tokio::spawn(run);
    let (_, role, need) =
        SITUATIONS.into_iter().find(|row| row.0 == "The clock of a worker's machine is wrong").unwrap();
    eventually("the clock alone is wrong", async || {
        let details = readiness.details();
        details.len() == 1
            && (details[0].role, details[0].need) == (role, need)
            && details[0].cause.contains("s ahead of that of Postgres")
    })
    .await;
    assert!(metrics.render().contains(&format!("grantonce_need_up{{role=\"{role}\",need=\"{need}\"}} 0")));
    shutdown.token().cancel();
    worker.await.unwrap().unwrap();
}

#[tokio::test]
async fn o06_rabbitmq_has_an_alarm() {
    let servers = PrivateServers::start(Server::Rabbitmq).await;
    let own = servers.env().await;
    let database = std::env::var("DATABASE_URL").unwrap();
    let world = World::on_servers(&database, &own["AMQP_URL"], &own["GRANTONCE_MANAGEMENT_URL"]).await;
    let process = Process::start(&world, "all", &[]).await;
    process.is_ready().await;
    servers.memory_alarm(true).await;
    // Roles that have nothing to publish notice it, too.
    process.shows("RabbitMQ has a memory or disk alarm", "publishing is blocked by RabbitMQ (memory alarm)").await;
    servers.memory_alarm(false).await;
    process.is_ready().await;
    process.end().await;
}

#[tokio::test]
async fn o06_the_right_to_publish_is_missing() {
    let world = World::new().await;
    let (vhost, password) = (vhost(&world), "a-password-for-the-tests");
    let user = format!("publisher-{vhost}");
    manage(Method::PUT, &format!("api/users/{user}"), json!({"password": password, "tags": ""})).await;
    let permit = async |write: &str| {
        let rights = json!({"configure": "", "write": write, "read": ".*"});
        manage(Method::PUT, &format!("api/permissions/{vhost}/{user}"), rights).await;
    };
    permit("^$").await;
    let mut url = Url::parse(&world.amqp_url).unwrap();
    url.set_username(&user).unwrap();
    url.set_password(Some(password)).unwrap();
    let process = Process::start(&world, "worker", &[("AMQP_URL", url.as_str())]).await;
    process.shows("The right to publish is missing", "may not publish there (403)").await;
    permit(".*").await;
    process.is_ready().await;
    process.end().await;
    manage(Method::DELETE, &format!("api/users/{user}"), Value::Null).await;
}

#[tokio::test]
async fn o06_queues_are_missing() {
    let world = World::new().await;
    let process = Process::start(&world, "all", &[]).await;
    process.is_ready().await;
    let retry = retry_queue("500ms");
    for (situation, queue, cause) in [
        ("A retry queue is missing", retry.as_str(), "fulfilment.retry.500ms is missing"),
        ("The workers' queue is missing", WORK_QUEUE, "queues that are missing"),
        ("The hints' queue is missing", HINTS_QUEUE, "payments.hints"),
        ("The dead letters' queue is missing", DEAD_QUEUE, "fulfilment.dead"),
    ] {
        delete_queue(&world, queue).await;
        process.shows(situation, cause).await;
        declare_all(&world).await;
        process.is_ready().await;
    }
    process.end().await;
}

#[tokio::test]
async fn o06_the_work_queue_takes_nothing() {
    let world = World::new().await;
    let mut process = Process::start(&world, "receiver", &[]).await;
    process.is_ready().await;
    let poster = Poster::new(process.child.listening("receiver", START).await.unwrap());
    let post = async |n| poster.post(&paid(n)).await;
    assert_eq!(post(0).await, Answer::Taken);
    let policy = format!("api/policies/{}/full", vhost(&world));
    let full = json!({"pattern": "^fulfilment$", "apply-to": "queues",
        "definition": {"max-length": 1, "overflow": "reject-publish"}});
    manage(Method::PUT, &policy, full).await;
    // The broker accepts a few more before it begins to refuse.
    let mut n = 0;
    eventually("the queue is full", async || {
        n += 1;
        post(n).await == Answer::ComeAgain
    })
    .await;
    process.shows("The workers' queue is full", "the queue is full").await;
    manage(Method::DELETE, &policy, Value::Null).await;
    eventually("webhooks are accepted again", async || post(n).await == Answer::Taken).await;
    process.is_ready().await;

    let (connection, channel) = world.channel().await;
    let key = "payment.*";
    channel.queue_unbind(WORK_QUEUE.into(), PAYMENTS_EXCHANGE.into(), key.into(), FieldTable::default()).await.unwrap();
    assert_eq!(post(n).await, Answer::ComeAgain);
    process.shows("The workers' queue is not bound", "no queue takes messages for payments").await;
    let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
    channel.queue_bind(WORK_QUEUE.into(), PAYMENTS_EXCHANGE.into(), key.into(), options, nothing).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    assert_eq!(post(n).await, Answer::Taken);
    process.is_ready().await;
    process.end().await;
}

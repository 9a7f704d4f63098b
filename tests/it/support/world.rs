//! The servers, roles and queries of one test.

use super::db::{TestDb, at_the_end};
use grantonce::broker::{self, Confirmed, Outgoing, PublishError, Publisher, PublisherSettings};
use grantonce::clock::Clock;
use grantonce::config::{
    BatchConfig, BrokerConfig, DatabaseConfig, RetryConfig, RetryDelay, UnknownPayments, WorkerConfig,
};
use grantonce::domain::{DisputePolicy, OrderId, PaymentEvent};
use grantonce::http::Readiness;
use grantonce::shutdown::Shutdown;
use grantonce::store::{self, Profile, Store, StoreError};
use grantonce::telemetry::{Metrics, Traces};
use grantonce::worker;
use grantonce_testkit::children::Children;
use grantonce_testkit::scratch::{Management, unique_name};
use grantonce_testkit::wait::eventually;
use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use secrecy::ExposeSecret as _;
use sqlx::{AssertSqlSafe, PgPool};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// The webhook secret of the receivers in the tests.
pub const STRIPE_SECRET: &str = "whsec_a_secret_for_the_tests_only";

/// The test's own database and virtual host, set up by the code of `migrate`.
pub struct World {
    pub database_url: String,
    pub amqp_url: String,
    pub retry_delays: Vec<RetryDelay>,
    /// Runs queries with the rights of the owner.
    pub sql: PgPool,
    publisher: Publisher,
    logs: tempfile::TempDir,
    _vhost: Option<Vhost>,
    _db: Option<TestDb>,
}

struct Servers {
    database_url: String,
    amqp_url: String,
    management_url: String,
}

impl Servers {
    fn from_env() -> Self {
        let var = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run ./dev test, or ./dev up and then eval \"$(./dev env)\"")
            })
        };
        Self {
            database_url: var("DATABASE_URL"),
            amqp_url: var("AMQP_URL"),
            management_url: var("GRANTONCE_MANAGEMENT_URL"),
        }
    }
}

/// The test's own virtual host.
struct Vhost {
    management_url: String,
    name: String,
}

impl Drop for Vhost {
    fn drop(&mut self) {
        let (management_url, name) = (self.management_url.clone(), self.name.clone());
        at_the_end(async move {
            let management = Management::new(&management_url).map_err(|error| error.to_string())?;
            management.delete_vhost(&name).await.map_err(|error| error.to_string())
        });
    }
}

/// The fields of an order that tests set.
#[derive(Debug, Clone)]
pub struct OrderSpec<'a> {
    pub payment: &'a str,
    pub account: &'a str,
    pub credits: i64,
    pub amount_minor: i64,
}

impl<'a> OrderSpec<'a> {
    /// 100 credits for 19.99 US dollars, to account `acc`.
    pub fn paid_by(payment: &'a str) -> Self {
        Self { payment, account: "acc", credits: 100, amount_minor: 1999 }
    }
}

impl World {
    /// A world on the servers of the environment variables.
    pub async fn new() -> Self {
        Self::on(Servers::from_env()).await
    }

    /// A world on the test's own servers. The URLs are those that `./dev env` prints in another folder.
    pub async fn on_servers(database_url: &str, amqp_url: &str, management_url: &str) -> Self {
        Self::on(Servers {
            database_url: database_url.to_owned(),
            amqp_url: amqp_url.to_owned(),
            management_url: management_url.to_owned(),
        })
        .await
    }

    async fn on(servers: Servers) -> Self {
        let db = TestDb::create_on(&servers.database_url).await;
        let vhost = Vhost { name: unique_name("grantonce_test"), management_url: servers.management_url };
        let management = Management::new(&vhost.management_url).unwrap();
        let amqp_url = management.create_vhost(&servers.amqp_url, &vhost.name).await.unwrap();
        let database_url = db.url.expose_secret().to_owned();
        let retry_delays = [("200ms", 200), ("500ms", 500)]
            .map(|(label, ms)| RetryDelay { label: label.to_owned(), delay: Duration::from_millis(ms) })
            .to_vec();
        broker::declare(&amqp_url.parse().unwrap(), &retry_delays).await.unwrap();
        let publisher = Publisher::start(&PublisherSettings {
            url: amqp_url.parse().unwrap(),
            name: "test",
            lanes: 1,
            waiting_max: 100_000,
            confirm_deadline: Duration::from_secs(20),
            clock: Clock::system(),
        });
        publisher.ability().wait_for(|ability| ability.check().is_ok()).await.unwrap();
        Self {
            sql: PgPool::connect_lazy(&database_url).unwrap(),
            database_url,
            amqp_url,
            retry_delays,
            publisher,
            logs: tempfile::tempdir().unwrap(),
            _vhost: Some(vhost),
            _db: Some(db),
        }
    }

    /// The same world, after another server has taken over its database.
    pub fn taken_over_by(&self, url: &str) -> Self {
        Self {
            sql: PgPool::connect_lazy(url).unwrap(),
            database_url: url.to_owned(),
            amqp_url: self.amqp_url.clone(),
            retry_delays: self.retry_delays.clone(),
            publisher: self.publisher.clone(),
            logs: tempfile::tempdir().unwrap(),
            _vhost: None,
            _db: None,
        }
    }

    /// The configuration of a worker in this world. Retries are quick, and a held batch is returned after 10 s, as by default.
    pub fn worker_config(&self) -> WorkerConfig {
        WorkerConfig {
            database: DatabaseConfig { url: self.database_url.parse().unwrap() },
            broker: BrokerConfig { url: self.amqp_url.parse().unwrap() },
            livemode: false,
            batch: BatchConfig {
                workers: 3,
                messages_max: 250,
                wait: Duration::from_millis(2),
                prefetch: 1_250,
                prefetch_bytes: 64 * 1024 * 1024,
            },
            retry: RetryConfig { delays: self.retry_delays.clone(), attempts_max: 4 },
            outage_grace: Duration::from_secs(10),
            transaction_deadline: Duration::from_secs(10),
            dispute_policy: DisputePolicy::Hold,
            unknown_payments: UnknownPayments::DeadLetter,
            inbox_retention: Duration::from_secs(90 * 24 * 60 * 60),
        }
    }

    /// The settings of a store in this world.
    pub fn store_settings(&self, profile: Profile) -> store::Settings {
        store::Settings {
            url: self.database_url.parse().unwrap(),
            connections_max: 8,
            deadline: Duration::from_secs(10),
            profile,
        }
    }

    /// A store on this world's database, as operators have it.
    pub fn store(&self) -> Store {
        Store::new(&self.store_settings(Profile::Operations)).unwrap()
    }

    /// Starts a worker in this process.
    pub fn start_worker(&self) -> RunningWorker {
        self.start_worker_with(self.worker_config())
    }

    /// Starts a worker that is set up otherwise.
    pub fn start_worker_with(&self, config: WorkerConfig) -> RunningWorker {
        Self::run_worker(config, Traces::off())
    }

    /// Starts a worker that exports its spans.
    pub fn start_traced_worker(&self, traces: Traces) -> RunningWorker {
        Self::run_worker(self.worker_config(), traces)
    }

    fn run_worker(config: WorkerConfig, traces: Traces) -> RunningWorker {
        let (shutdown, metrics) = (Shutdown::manual(), Metrics::new());
        let stop = shutdown.token();
        let run = worker::run(config, Clock::system(), metrics.clone(), traces, Readiness::new(), shutdown);
        RunningWorker { stop, metrics, task: tokio::spawn(run) }
    }

    /// Children of the real binary, configured for this world. Add the variables of the role.
    pub fn children(&self) -> Children {
        let children = Children::new(env!("CARGO_BIN_EXE_grantonce"), self.logs.path());
        self.environment().into_iter().fold(children, |children, (name, value)| children.env(name, value))
    }

    /// The environment variables that the real program needs in this world.
    pub fn environment(&self) -> [(&'static str, &str); 11] {
        [
            ("DATABASE_URL", &self.database_url),
            ("AMQP_URL", &self.amqp_url),
            ("RUST_LOG", "info"),
            ("GRANTONCE_LIVEMODE", "false"),
            ("GRANTONCE_RECEIVER_ADDR", "127.0.0.1:0"),
            ("GRANTONCE_API_ADDR", "127.0.0.1:0"),
            ("GRANTONCE_METRICS_ADDR", "127.0.0.1:0"),
            ("GRANTONCE_SHUTDOWN_DELAY", "0s"),
            ("GRANTONCE_RETRY_DELAYS", "200ms,500ms"),
            ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", STRIPE_SECRET),
            ("GRANTONCE_LOG_FORMAT", "json"),
        ]
    }

    /// Inserts an order for a payment of Stripe's.
    pub async fn order(&self, spec: OrderSpec<'_>) -> OrderId {
        let id = OrderId(uuid::Uuid::now_v7());
        sqlx::query(
            "WITH made AS (
                 INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, 'USD', 'stripe', now(), now()) RETURNING id)
             INSERT INTO payments (provider, payment_id, order_id, registered_at) SELECT 'stripe', $5, $1, now() FROM made",
        )
        .bind(id.0)
        .bind(spec.account)
        .bind(spec.credits)
        .bind(spec.amount_minor)
        .bind(spec.payment)
        .execute(&self.sql)
        .await
        .unwrap();
        id
    }

    /// Inserts `count` orders for the payments `pi_0`, `pi_1` ….
    pub async fn orders(&self, count: usize) {
        sqlx::query(
            "WITH made AS (
                 INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, created_at, updated_at)
                 SELECT gen_random_uuid(), 'acc' || n, 100, 1999, 'USD', 'stripe', now(), now()
                 FROM generate_series(0, $1 - 1) n RETURNING id, account_id)
             INSERT INTO payments (provider, payment_id, order_id, registered_at)
             SELECT 'stripe', 'pi_' || substr(account_id, 4), id, now() FROM made",
        )
        .bind(i32::try_from(count).unwrap())
        .execute(&self.sql)
        .await
        .unwrap();
    }

    /// Publishes an event as the receiver does, and waits for the confirm.
    pub async fn publish(&self, event: &PaymentEvent) {
        self.try_publish(event).await.unwrap();
    }

    /// Publishes an event, and returns an error if the broker does not confirm it.
    pub async fn try_publish(&self, event: &PaymentEvent) -> Result<Confirmed, PublishError> {
        self.publisher.publish(Outgoing::payment_status(event).unwrap()).await
    }

    /// Publishes many events at once, and waits for all confirms.
    pub async fn publish_all(&self, events: &[PaymentEvent]) {
        for events in events.chunks(5_000) {
            let all = events.iter().map(|event| self.publish(event));
            futures_util::future::join_all(all).await;
        }
    }

    /// Publishes any message.
    pub async fn publish_raw(&self, message: Outgoing) {
        self.publisher.publish(message).await.unwrap();
    }

    /// Runs a query that returns one number.
    pub async fn count(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&self.sql).await.unwrap()
    }

    /// Runs a statement.
    pub async fn execute(&self, statement: &str) {
        sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&self.sql).await.unwrap();
    }

    /// The number of grants.
    pub async fn grants(&self) -> i64 {
        self.count("SELECT count(*) FROM credit_grants").await
    }

    /// The number of inbox rows.
    pub async fn admitted(&self) -> i64 {
        self.count("SELECT count(*) FROM inbox").await
    }

    /// The status of an order.
    pub async fn status(&self, order: OrderId) -> String {
        sqlx::query_scalar("SELECT status FROM orders WHERE id = $1").bind(order.0).fetch_one(&self.sql).await.unwrap()
    }

    /// A separate connection for direct calls to the broker. The caller closes it.
    pub async fn channel(&self) -> (lapin::Connection, lapin::Channel) {
        let connection = lapin::Connection::connect(&self.amqp_url, Default::default()).await.unwrap();
        let channel = connection.create_channel().await.unwrap();
        (connection, channel)
    }

    /// The number of messages that are ready in a queue. Those that a worker holds do not count.
    pub async fn ready(&self, queue: &str) -> u32 {
        self.look_at(queue).await.message_count()
    }

    /// The number of consumers of a queue.
    pub async fn consumers(&self, queue: &str) -> u32 {
        self.look_at(queue).await.consumer_count()
    }

    async fn look_at(&self, queue: &str) -> lapin::Queue {
        let (connection, channel) = self.channel().await;
        let options = QueueDeclareOptions { passive: true, ..Default::default() };
        let found = channel.queue_declare(queue.into(), options, FieldTable::default()).await.unwrap();
        connection.close(200, "done".into()).await.unwrap();
        found
    }

    /// The number of transactions that wait for a lock of another one.
    pub async fn waiting_for_locks(&self) -> i64 {
        self.count(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'",
        )
        .await
    }

    /// Waits for one dead letter and takes it out of its queue.
    pub async fn dead_letter(&self) -> lapin::message::Delivery {
        let (connection, channel) = self.channel().await;
        let mut letter = None;
        eventually("a dead letter arrives", async || {
            letter = channel
                .basic_get(broker::DEAD_QUEUE.into(), BasicGetOptions { no_ack: true })
                .await
                .unwrap()
                .map(|got| got.delivery);
            letter.is_some()
        })
        .await;
        connection.close(200, "done".into()).await.unwrap();
        letter.unwrap()
    }

    /// Waits until the work queue and the retry queues are empty and the worker has settled everything that it held.
    pub async fn settled(&self, worker: RunningWorker) {
        // A quorum queue without a leader, for instance after a restart, reports 0 messages and 0 consumers.
        eventually("the work queue has its worker and is empty", async || {
            let found = self.look_at(broker::WORK_QUEUE).await;
            found.consumer_count() > 0 && found.message_count() == 0
        })
        .await;
        for queue in [broker::retry_queue("200ms"), broker::retry_queue("500ms")] {
            eventually(&format!("{queue} is empty"), async || self.ready(&queue).await == 0).await;
        }
        // A worker that drains settles everything that it can. The rest is ready again.
        worker.drain().await;
        assert_eq!(self.ready(broker::WORK_QUEUE).await, 0, "messages came back to the queue");
    }

    /// Checks that no invariant of the ledger is broken.
    pub async fn verify(&self) {
        let broken = self.store().verify(DisputePolicy::Hold).await.unwrap();
        assert!(broken.is_empty(), "{broken:#?}");
    }
}

/// A worker in this process.
pub struct RunningWorker {
    stop: CancellationToken,
    pub metrics: Metrics,
    task: JoinHandle<Result<(), StoreError>>,
}

impl RunningWorker {
    /// Stops the worker as SIGTERM does, and waits for its end.
    pub async fn drain(self) {
        self.stop.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(10), self.task).await;
        ended.expect("a worker drains within 10 s").expect("a worker does not panic").unwrap();
    }

    /// The value of a metric, by its whole name with labels.
    pub fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.render();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
        line.unwrap_or_else(|| panic!("no metric {name} in\n{text}")).parse().unwrap()
    }
}

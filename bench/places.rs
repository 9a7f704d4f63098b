//! The databases and virtual hosts of a run, with their content. All of them are removed at the end, also after Ctrl-C.

use futures_util::future::join_all;
use grantonce::broker::{self, Headers, Outgoing, PAYMENTS_EXCHANGE, Publisher, PublisherSettings};
use grantonce::clock::Clock;
use grantonce::config::RetryDelay;
use grantonce::domain::{CaptureState, Currency, MessageId, Money, PaymentEvent, PaymentId, PaymentStatus, Provider};
use grantonce::message;
use grantonce::message::routing_key;
use grantonce::store;
use grantonce_testkit::scratch;
use grantonce_testkit::scratch::{Management, unique_name};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::Duration;
use time::OffsetDateTime;

pub(crate) const CREDITS: i64 = 100;

/// The retry delay of the queue. No message of the benchmark is ever retried.
pub(crate) const RETRY_DELAY: &str = "5s";

pub(crate) fn message_id(n: u32) -> String {
    format!("stripe::evt_{n:024}")
}

pub(crate) fn payment_id(n: u32) -> String {
    format!("pi_{n:024}")
}

/// The id of the nth order. Ids are ordered by time, as those that the API makes.
pub(crate) fn order_id(n: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(((1_767_600_000_000 + u128::from(n)) << 80) | (0x7000_8000 << 48) | u128::from(n))
}

/// The account of the nth order. Each account has ten orders, far from each other.
pub(crate) fn account_id(n: u32, orders: u32) -> String {
    format!("account-{}", n % (orders / 10).max(1))
}

/// For each message the number of its order. Nine in ten messages are the first of their order, the others are copies.
/// They are shuffled.
pub(crate) fn messages(orders: u32, count: u32) -> Vec<u32> {
    let mut lot = fastrand::Rng::with_seed(7);
    let distinct = count - count / 10;
    assert!(distinct <= orders, "{count} messages are about {distinct} orders, and there are {orders}");
    let mut all = lot.choose_multiple(0..orders, distinct as usize);
    for at in 0..(count / 10) as usize {
        all.push(all[at * 7 % distinct as usize]);
    }
    lot.shuffle(&mut all);
    all
}

/// The same for the orders from `first` on. At least as many orders as messages must exist.
pub(crate) fn messages_from(first: u32, count: u32) -> Vec<u32> {
    messages(count, count).into_iter().map(|n| first + n).collect()
}

/// The number of orders that are paid once all these messages are processed.
pub(crate) fn distinct(messages: &[u32]) -> i64 {
    let mut all = messages.to_vec();
    all.sort_unstable();
    all.dedup();
    i64::try_from(all.len()).unwrap()
}

fn event(n: u32, now: OffsetDateTime) -> PaymentEvent {
    PaymentEvent {
        provider: Provider::new("stripe").unwrap(),
        message_id: MessageId::new(message_id(n)).unwrap(),
        payment_id: PaymentId::new(payment_id(n)).unwrap(),
        related_ids: vec![],
        provider_account: None,
        order_id: None,
        status: PaymentStatus::Captured {
            money: Money::new(1999, Currency::new("USD").unwrap()).unwrap(),
            capture_id: None,
            state: CaptureState::Succeeded,
            breakdown: None,
        },
        occurred_at: now,
        as_of: None,
        livemode: false,
    }
}

/// The body of a message. It is filled up to about 600 bytes, as messages of real providers are.
pub(crate) fn body(n: u32, now: OffsetDateTime) -> Vec<u8> {
    let mut body = message::encode(&event(n, now)).unwrap();
    body.pop();
    body.extend_from_slice(format!(",\"note\":\"{}\"}}", "x".repeat(340)).as_bytes());
    body
}

/// The addresses of Postgres and RabbitMQ.
#[derive(Clone)]
pub(crate) struct Servers {
    pub(crate) postgres: String,
    pub(crate) rabbitmq: String,
    pub(crate) management_url: String,
    management: Management,
}

/// The names of the databases and virtual hosts that still have to be removed.
static MADE: Mutex<Vec<String>> = Mutex::new(Vec::new());

impl Servers {
    pub(crate) fn of_environment() -> Self {
        let var = |name: &str| {
            std::env::var(name).unwrap_or_else(|_| {
                eprintln!("{name} is not set: start this with ./dev bench, or set DATABASE_URL, AMQP_URL and GRANTONCE_MANAGEMENT_URL");
                std::process::exit(2);
            })
        };
        let management_url = var("GRANTONCE_MANAGEMENT_URL");
        let management = Management::new(&management_url).unwrap();
        Self { postgres: var("DATABASE_URL"), rabbitmq: var("AMQP_URL"), management_url, management }
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        connect(&self.postgres).await
    }

    async fn create_database(&self, template: Option<&Template>) -> (String, String) {
        let name = unique_name("grantonce_bench");
        MADE.lock().unwrap().push(name.clone());
        let url = match template {
            None => scratch::create_database(&self.postgres, &name).await.unwrap(),
            Some(Template { name: from, url, .. }) => {
                let mut sql = self.connect().await;
                // This copies the files and makes a checkpoint, so every round begins with the server in the same state.
                let copy = format!("CREATE DATABASE {name} TEMPLATE {from} STRATEGY FILE_COPY");
                run(&mut sql, copy).await;
                sql.close().await.unwrap();
                url.replace(from, &name)
            }
        };
        (name, url)
    }

    /// A database with orders that wait for their payment. Every round gets a copy.
    pub(crate) async fn template(&self, orders: u32) -> Template {
        let (name, url) = self.create_database(None).await;
        store::migrate(&url.parse().unwrap()).await.unwrap();
        let mut sql = connect(&url).await;
        for from in (0..orders).step_by(500_000) {
            insert_orders(&mut sql, orders, from..orders.min(from + 500_000)).await;
        }
        run(&mut sql, "VACUUM ANALYZE".to_owned()).await;
        run(&mut sql, "CHECKPOINT".to_owned()).await;
        sql.close().await.unwrap();
        Template { name, url, orders }
    }

    /// A copy of the template, and a virtual host with the queues.
    pub(crate) async fn place(&self, template: &Template) -> Place {
        let (name, database_url) = self.create_database(Some(template)).await;
        let amqp_url = self.management.create_vhost(&self.rabbitmq, &name).await.unwrap();
        let delay = RetryDelay { label: RETRY_DELAY.to_owned(), delay: Duration::from_secs(5) };
        broker::declare(&amqp_url.parse().unwrap(), &[delay]).await.unwrap();
        Place { servers: self.clone(), name, database_url, amqp_url, orders: template.orders }
    }

    async fn remove(&self, name: &str) {
        // Without the deadline that scratch databases have: to drop a large database takes longer.
        let mut sql = self.connect().await;
        run(&mut sql, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        sql.close().await.unwrap();
        self.management.delete_vhost(name).await.unwrap();
        MADE.lock().unwrap().retain(|made| made != name);
    }

    /// Removes all that is left at the end of a run, also of one that failed.
    pub(crate) async fn remove_all(&self) {
        let left = MADE.lock().unwrap().clone();
        for name in left {
            self.remove(&name).await;
        }
    }
}

pub(crate) async fn connect(url: &str) -> PgConnection {
    PgConnectOptions::from_str(url).unwrap().disable_statement_logging().connect().await.unwrap()
}

/// Runs one statement. It must not contain text from outside.
pub(crate) async fn run(sql: &mut PgConnection, statement: String) {
    sqlx::query(sqlx::AssertSqlSafe(statement)).execute(sql).await.unwrap();
}

async fn insert_orders(sql: &mut PgConnection, orders: u32, some: std::ops::Range<u32>) {
    let ids: Vec<_> = some.clone().map(order_id).collect();
    let accounts: Vec<_> = some.clone().map(|n| account_id(n, orders)).collect();
    let payments: Vec<_> = some.map(payment_id).collect();
    sqlx::query(
        "INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, created_at, updated_at)
         SELECT id, account_id, $3, 1999, 'USD', 'stripe', now(), now()
         FROM unnest($1::uuid[], $2::text[]) AS n (id, account_id)",
    )
    .bind(&ids)
    .bind(accounts)
    .bind(CREDITS)
    .execute(&mut *sql)
    .await
    .unwrap();
    sqlx::query(
        "INSERT INTO payments (provider, payment_id, order_id, registered_at)
         SELECT 'stripe', payment_id, id, now() FROM unnest($1::uuid[], $2::text[]) AS n (id, payment_id)",
    )
    .bind(ids)
    .bind(payments)
    .execute(sql)
    .await
    .unwrap();
}

/// A database that rounds copy.
pub(crate) struct Template {
    name: String,
    pub(crate) url: String,
    pub(crate) orders: u32,
}

/// The database and the virtual host for one round of one side.
pub(crate) struct Place {
    servers: Servers,
    name: String,
    pub(crate) database_url: String,
    pub(crate) amqp_url: String,
    /// The number of orders in the database.
    pub(crate) orders: u32,
}

impl Place {
    /// Fills the work queue. The broker confirms every message.
    pub(crate) async fn publish(&self, messages: &[u32]) {
        let publisher = Publisher::start(&PublisherSettings {
            url: self.amqp_url.parse().unwrap(),
            name: "prefill",
            lanes: 2,
            waiting_max: 10_000,
            confirm_deadline: Duration::from_secs(30),
            clock: Clock::system(),
        });
        publisher.ability().wait_for(|ability| ability.check().is_ok()).await.unwrap();
        let stripe = Provider::new("stripe").unwrap();
        let now = OffsetDateTime::now_utc();
        for some in messages.chunks(5_000) {
            let published = some.iter().map(|n| {
                publisher.publish(Outgoing {
                    exchange: PAYMENTS_EXCHANGE,
                    routing_key: routing_key(&stripe),
                    message_id: message_id(*n),
                    kind: message::TYPE.to_owned(),
                    content_type: message::CONTENT_TYPE,
                    headers: Headers::default(),
                    body: body(*n, now).into(),
                })
            });
            for confirmed in join_all(published).await {
                confirmed.unwrap();
            }
        }
    }

    /// Checks that every paid order has one grant, that no other order has one, and that the rows fit together.
    pub(crate) async fn check(&self, grants: i64) -> Result<(), String> {
        let mut sql = connect(&self.database_url).await;
        let counts: (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM credit_grants),
                    (SELECT count(*) FROM orders WHERE status = 'fulfilled' AND is_granted AND credits_granted = credits),
                    (SELECT count(*) FROM credit_grants g JOIN orders o ON o.id = g.order_id AND o.account_id = g.account_id
                     JOIN inbox i ON i.message_id = g.message_id AND i.order_id = o.id)",
        )
        .fetch_one(&mut sql)
        .await
        .unwrap();
        sql.close().await.unwrap();
        if counts == (grants, grants, grants) {
            return Ok(());
        }
        let (granted, fulfilled, matching) = counts;
        Err(format!(
            "its ledger is wrong: {grants} orders were paid; {granted} grants, {fulfilled} fulfilled orders, {matching} grants \
             that belong to their order"
        ))
    }

    /// The number of statements that Postgres has executed in this database, BEGIN and COMMIT included. `None` if the server
    /// does not load pg_stat_statements.
    pub(crate) async fn statements(&self) -> Option<i64> {
        let mut sql = connect(&self.database_url).await;
        let count = async {
            sqlx::query("CREATE EXTENSION IF NOT EXISTS pg_stat_statements").execute(&mut sql).await?;
            let calls = "SELECT coalesce(sum(s.calls), 0)::bigint FROM pg_stat_statements s
                         JOIN pg_database d ON d.oid = s.dbid WHERE d.datname = current_database()";
            sqlx::query_scalar(calls).fetch_one(&mut sql).await
        };
        let count: Result<i64, sqlx::Error> = count.await;
        sql.close().await.unwrap();
        count.ok()
    }

    /// The number of transactions of this database. A session reports its last ones when it ends.
    pub(crate) async fn transactions(&self) -> i64 {
        let mut sql = self.servers.connect().await;
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = $1";
        let count = sqlx::query_scalar(commits).bind(&self.name).fetch_one(&mut sql).await.unwrap();
        sql.close().await.unwrap();
        count
    }

    pub(crate) async fn remove(self) {
        self.servers.remove(&self.name).await;
    }
}

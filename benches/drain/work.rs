//! What there is to do: a database of orders, and a queue of messages about them.

use futures_util::future::join_all;
use grantonce::broker::{self, Headers, Outgoing, PAYMENTS_EXCHANGE, Publisher, PublisherSettings};
use grantonce::clock::Clock;
use grantonce::config::RetryDelay;
use grantonce::domain::{CaptureState, Currency, MessageId, Money, PaymentEvent, PaymentId, PaymentStatus, Provider};
use grantonce::message;
use grantonce::message::routing_key;
use grantonce::sim::scratch::{Management, unique_name};
use grantonce::store::{self, scratch};
use sqlx::{Connection, PgConnection};
use std::time::Duration;
use time::OffsetDateTime;

/// Which messages there are: one for each order, and copies of some of them, in any order.
pub(crate) fn messages(orders: u32, messages: u32) -> Vec<u32> {
    let mut lot = fastrand::Rng::with_seed(7);
    let mut all: Vec<u32> = (0..orders).collect();
    all.extend((0..messages - orders).map(|_| lot.u32(0..orders)));
    lot.shuffle(&mut all);
    all
}

pub(crate) fn message_id(n: u32) -> String {
    format!("stripe::evt_{n:024}")
}

fn payment_id(n: u32) -> String {
    format!("pi_{n:024}")
}

/// The id of the nth order; ordered by time, as the API makes them.
pub(crate) fn order_id(n: u32) -> uuid::Uuid {
    uuid::Uuid::from_u128(((1_767_600_000_000 + u128::from(n)) << 80) | (0x7000_8000 << 48) | u128::from(n))
}

pub(crate) fn account_id(n: u32) -> String {
    format!("account-{n}")
}

pub(crate) const CREDITS: i64 = 100;

/// Both servers' scratch places.
pub(crate) struct Work {
    name: String,
    management: Management,
    postgres: String,
    pub(crate) database_url: String,
    pub(crate) amqp_url: String,
}

fn var(name: &str) -> String {
    std::env::var(name).expect("DATABASE_URL, AMQP_URL and GRANTONCE_MANAGEMENT_URL are set: use ./dev bench drain")
}

impl Work {
    /// Makes the places, and the orders and messages in them.
    pub(crate) async fn make(orders: u32, messages: &[u32]) -> Self {
        let (postgres, rabbitmq) = (var("DATABASE_URL"), var("AMQP_URL"));
        let management = Management::new(&var("GRANTONCE_MANAGEMENT_URL")).unwrap();
        let name = unique_name("grantonce_bench");
        let database_url = scratch::create_database(&postgres, &name).await.unwrap();
        let amqp_url = management.create_vhost(&rabbitmq, &name).await.unwrap();
        let delays = [RetryDelay { label: "5s".to_owned(), delay: Duration::from_secs(5) }];
        store::migrate(&database_url.clone().into()).await.unwrap();
        broker::declare(&amqp_url.clone().into(), &delays).await.unwrap();
        let work = Self { name, management, postgres, database_url, amqp_url };
        work.publish(messages).await;
        work.insert_orders(orders).await;
        work
    }

    async fn insert_orders(&self, orders: u32) {
        let mut sql = PgConnection::connect(&self.database_url).await.unwrap();
        let all = 0..orders;
        let ids: Vec<_> = all.clone().map(order_id).collect();
        let accounts: Vec<_> = all.clone().map(account_id).collect();
        let payments: Vec<_> = all.map(payment_id).collect();
        sqlx::query(
            "INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, created_at, updated_at)
             SELECT id, account_id, $3, 1999, 'USD', 'stripe', now(), now()
             FROM unnest($1::uuid[], $2::text[]) AS n (id, account_id)",
        )
        .bind(&ids)
        .bind(accounts)
        .bind(CREDITS)
        .execute(&mut sql)
        .await
        .unwrap();
        sqlx::query(
            "INSERT INTO payments (provider, payment_id, order_id, registered_at)
             SELECT 'stripe', payment_id, id, now() FROM unnest($1::uuid[], $2::text[]) AS n (id, payment_id)",
        )
        .bind(ids)
        .bind(payments)
        .execute(&mut sql)
        .await
        .unwrap();
        for statement in ["VACUUM ANALYZE", "CHECKPOINT"] {
            sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut sql).await.unwrap();
        }
        sql.close().await.unwrap();
    }

    async fn publish(&self, messages: &[u32]) {
        let publisher = Publisher::start(&PublisherSettings {
            url: self.amqp_url.as_str().into(),
            name: "prefill",
            lanes: 2,
            waiting_max: 10_000,
            confirm_deadline: Duration::from_secs(30),
            clock: Clock::system(),
        });
        publisher.connected_lanes().wait_for(|lanes| *lanes > 0).await.unwrap();
        let stripe = Provider::new("stripe").unwrap();
        let money = Money::new(1999, Currency::new("USD").unwrap()).unwrap();
        let now = OffsetDateTime::now_utc();
        for some in messages.chunks(5_000) {
            let published = some.iter().map(|n| {
                let event = PaymentEvent {
                    provider: stripe.clone(),
                    message_id: MessageId::new(message_id(*n)).unwrap(),
                    payment_id: PaymentId::new(payment_id(*n)).unwrap(),
                    related_ids: vec![],
                    provider_account: None,
                    order_id: None,
                    status: PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded },
                    occurred_at: now,
                    livemode: false,
                };
                // Messages of real providers carry more; this brings the body to about 600 bytes.
                let mut body = message::encode(&event);
                body.pop();
                body.extend_from_slice(format!(",\"note\":\"{}\"}}", "x".repeat(340)).as_bytes());
                publisher.publish(Outgoing {
                    exchange: PAYMENTS_EXCHANGE,
                    routing_key: routing_key(&stripe),
                    message_id: event.message_id.as_str().to_owned(),
                    kind: message::TYPE.to_owned(),
                    content_type: message::CONTENT_TYPE,
                    headers: Headers::default(),
                    body: body.into(),
                })
            });
            for confirmed in join_all(published).await {
                confirmed.unwrap();
            }
        }
    }

    /// How many grants there are.
    pub(crate) async fn grants(&self) -> i64 {
        let mut sql = PgConnection::connect(&self.database_url).await.unwrap();
        let grants = sqlx::query_scalar("SELECT count(*) FROM credit_grants").fetch_one(&mut sql).await.unwrap();
        sql.close().await.unwrap();
        grants
    }

    /// Removes the places.
    pub(crate) async fn remove(self) {
        scratch::drop_database(&self.postgres, &self.name).await.unwrap();
        self.management.delete_vhost(&self.name).await.unwrap();
    }
}

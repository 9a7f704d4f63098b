//! What the machine could do at best: the broker's part alone, the database's part alone, and both at once on the same
//! cores, each without anything in between. Nothing here is a service; nothing checks an amount, retries or survives.

use crate::work::{CREDITS, Work, account_id, message_id, order_id};
use futures_util::StreamExt;
use futures_util::future::try_join_all;
use grantonce::broker::WORK_QUEUE;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use sqlx::postgres::PgPoolOptions;
use sqlx::{PgPool, Postgres, Transaction};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Instant;

/// As many as the worker takes at once, unless told otherwise.
const BATCH: usize = 500;
/// Batches under way at once.
const LANES: usize = 3;

/// Takes every message, and acknowledges five hundred at a time.
async fn consume(amqp_url: &str, messages: usize) {
    let connection = Connection::connect(amqp_url, ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.basic_qos(u16::try_from(BATCH * (LANES + 1)).unwrap(), BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut deliveries =
        channel.basic_consume(WORK_QUEUE.into(), "".into(), options, FieldTable::default()).await.unwrap();
    for n in 1..=messages {
        let delivery = deliveries.next().await.unwrap().unwrap();
        if n % BATCH == 0 || n == messages {
            channel.basic_ack(delivery.delivery_tag, BasicAckOptions { multiple: true }).await.unwrap();
        }
    }
    connection.close(200, "done".into()).await.unwrap();
}

async fn write(tx: &mut Transaction<'static, Postgres>, batch: &[u32]) -> Result<(), sqlx::Error> {
    let some: BTreeSet<u32> = batch.iter().copied().collect();
    let ids: Vec<String> = some.iter().map(|n| message_id(*n)).collect();
    let orders: Vec<_> = some.iter().map(|n| order_id(*n)).collect();
    let digests = vec![vec![0_u8; 16]; ids.len()];
    let new: Vec<uuid::Uuid> = sqlx::query_scalar(
        "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at)
         SELECT (now() AT TIME ZONE 'UTC')::date, id, digest, order_id, now()
         FROM unnest($1::text[], $2::bytea[], $3::uuid[]) AS n (id, digest, order_id)
         ON CONFLICT DO NOTHING RETURNING order_id",
    )
    .bind(&ids)
    .bind(&digests)
    .bind(&orders)
    .fetch_all(&mut **tx)
    .await?;
    let new: BTreeSet<uuid::Uuid> = new.into_iter().collect();
    let admitted: Vec<u32> = some.into_iter().filter(|n| new.contains(&order_id(*n))).collect();
    let orders: Vec<_> = admitted.iter().map(|n| order_id(*n)).collect();
    let accounts: Vec<_> = admitted.iter().map(|n| account_id(*n)).collect();
    let ids: Vec<_> = admitted.iter().map(|n| message_id(*n)).collect();
    sqlx::query(
        "INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
         SELECT order_id, account_id, $3, message_id, now()
         FROM unnest($1::uuid[], $2::text[], $4::text[]) AS n (order_id, account_id, message_id)",
    )
    .bind(&orders)
    .bind(&accounts)
    .bind(CREDITS)
    .bind(&ids)
    .execute(&mut **tx)
    .await?;
    sqlx::query(
        r#"UPDATE orders o
           SET status = 'fulfilled', is_granted = true, credits_granted = credits, version = version + 1,
               facts = '{"captured_total_minor": 1999}', updated_at = now()
           FROM unnest($1::uuid[]) AS n (id) WHERE o.id = n.id"#,
    )
    .bind(&orders)
    .execute(&mut **tx)
    .await?;
    Ok(())
}

/// Writes every message's rows, five hundred a transaction, several transactions at once.
async fn write_all(database_url: &str, messages: &[u32]) {
    let settings = [("enable_seqscan", "off"), ("jit", "off"), ("plan_cache_mode", "force_generic_plan")];
    let options = database_url.parse::<sqlx::postgres::PgConnectOptions>().unwrap().options(settings);
    let pool: PgPool = PgPoolOptions::new().max_connections(3).connect_with(options).await.unwrap();
    let batches = Mutex::new(messages.chunks(BATCH));
    let lane = || async {
        loop {
            let Some(batch) = batches.lock().unwrap().next() else { return Ok::<_, sqlx::Error>(()) };
            let mut tx = pool.begin().await?;
            write(&mut tx, batch).await?;
            tx.commit().await?;
        }
    };
    try_join_all((0..LANES).map(|_| lane())).await.unwrap();
    pool.close().await;
}

/// Messages per second of each.
pub(crate) struct Limits {
    pub(crate) broker: f64,
    pub(crate) database: f64,
    pub(crate) combined: f64,
}

pub(crate) async fn measure(orders: u32, messages: &[u32]) -> Limits {
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = |began: Instant| messages.len() as f64 / began.elapsed().as_secs_f64();

    let work = Work::make(orders, messages).await;
    let began = Instant::now();
    consume(&work.amqp_url, messages.len()).await;
    let broker = rate(began);
    let began = Instant::now();
    write_all(&work.database_url, messages).await;
    let database = rate(began);
    assert_eq!(work.grants().await, i64::from(orders), "the probe does all the work");
    work.remove().await;

    let work = Work::make(orders, messages).await;
    let began = Instant::now();
    let (url, count) = (work.amqp_url.clone(), messages.len());
    let consumed = tokio::spawn(async move { consume(&url, count).await });
    write_all(&work.database_url, messages).await;
    consumed.await.unwrap();
    let combined = rate(began);
    assert_eq!(work.grants().await, i64::from(orders), "the probe does all the work");
    work.remove().await;
    Limits { broker, database, combined }
}

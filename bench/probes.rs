//! The limits of the machine: the broker's part alone, the database's part alone, and both at once on the same cores.
//! These probes are no services: they check no amount, retry nothing, and survive no failure.

use crate::places::{CREDITS, Place, account_id, message_id, order_id};
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

/// Rows in a transaction, and messages in an acknowledgement. It is the worker's default batch size.
const BATCH: usize = 500;
/// Transactions that run at the same time.
const LANES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// Every message is consumed and acknowledged, and nothing else happens.
    Broker,
    /// The rows of every message are written, but no message is consumed.
    Database,
    /// Both at once. Neither waits for the other.
    Combined,
}

pub(crate) async fn run(probe: Probe, place: &Place, messages: &[u32]) {
    let url = place.amqp_url.clone();
    let consumed = async { tokio::spawn(consume(url, messages.len())).await.unwrap() };
    match probe {
        Probe::Broker => consumed.await,
        Probe::Database => write_all(place, messages).await,
        Probe::Combined => {
            tokio::join!(consumed, write_all(place, messages));
        }
    }
}

/// Consumes every message and acknowledges five hundred at a time.
async fn consume(amqp_url: String, messages: usize) {
    let connection = Connection::connect(&amqp_url, ConnectionProperties::default()).await.unwrap();
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

async fn write(tx: &mut Transaction<'static, Postgres>, batch: &[u32], all: u32) -> Result<(), sqlx::Error> {
    let some: BTreeSet<u32> = batch.iter().copied().collect();
    let ids: Vec<String> = some.iter().map(|n| message_id(*n)).collect();
    let orders: Vec<_> = some.iter().map(|n| order_id(*n)).collect();
    let digests = vec![vec![0_u8; 16]; ids.len()];
    let new: Vec<uuid::Uuid> = sqlx::query_scalar(
        "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
         SELECT (now() AT TIME ZONE 'UTC')::date, id, digest, order_id, now(), 'captured'
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
    let accounts: Vec<_> = admitted.iter().map(|n| account_id(*n, all)).collect();
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

/// Writes the rows of every message: five hundred in a transaction, several transactions at once.
async fn write_all(place: &Place, messages: &[u32]) {
    let off = ["enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"].map(|name| (name, "off"));
    let settings = off.into_iter().chain([("plan_cache_mode", "force_generic_plan")]);
    let options = place.database_url.parse::<sqlx::postgres::PgConnectOptions>().unwrap().options(settings);
    let lanes = u32::try_from(LANES).unwrap();
    let pool: PgPool = PgPoolOptions::new().max_connections(lanes).connect_with(options).await.unwrap();
    let batches = Mutex::new(messages.chunks(BATCH));
    let lane = || async {
        loop {
            let Some(batch) = batches.lock().unwrap().next() else { return Ok::<_, sqlx::Error>(()) };
            let mut tx = pool.begin().await?;
            write(&mut tx, batch, place.orders).await?;
            tx.commit().await?;
        }
    };
    try_join_all((0..LANES).map(|_| lane())).await.unwrap();
    pool.close().await;
}

//! The statements of a batch. Each of them takes arrays.

use super::Message;
use super::place::Place;
use super::plan::{Writes, payment_keys};
use crate::domain::{Order, OrderId};
use crate::store::error::StoreError;
use crate::store::order_row::{corrupt, order_row};
use crate::store::payment_key::PaymentKey;
use crate::store::watch::announcement;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{PgConnection, Postgres};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use time::{Date, OffsetDateTime, UtcOffset};
use uuid::Uuid;

/// The order of each registered payment id.
pub(super) type Owners<'a> = HashMap<PaymentKey<'a>, OrderId>;

/// The version of an order when it was read, and the position of its row.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(test, derive(Default))]
pub(super) struct ReadAt {
    pub(super) version: i64,
    place: Place,
}

/// An order as it was read.
#[derive(Debug, Clone)]
pub(super) struct ReadOrder {
    pub(super) order: Order,
    pub(super) at: ReadAt,
}

/// Several orders as they were read.
#[derive(Debug, Default)]
pub(super) struct Orders {
    pub(super) read: BTreeMap<OrderId, ReadOrder>,
    /// Orders whose rows exist and cannot be read, with the reason. Only the messages of these orders wait.
    pub(super) unreadable: BTreeMap<OrderId, String>,
}

impl Orders {
    /// Whether there is such an order.
    pub(super) fn has(&self, id: OrderId) -> bool {
        self.read.contains_key(&id) || self.unreadable.contains_key(&id)
    }
}

/// Proof that a message id is admitted in this transaction: its row was written before, or [`Rows`] has it, which the same call
/// writes. Every grant and adjustment contains one.
#[derive(Debug, Clone)]
pub(super) struct Admitted<'a> {
    message_id: &'a str,
}

impl<'a> Admitted<'a> {
    #[cfg(test)]
    pub(super) fn for_tests(message_id: &'a str) -> Self {
        Self { message_id }
    }

    fn of(message: &Message<'a>) -> (usize, Self) {
        (message.at, Self { message_id: message.event.message_id.as_str() })
    }
}

const ADMITTING: &str = "admitting messages";

/// Rows for the inbox, in ascending order of the inbox's key.
#[derive(Default)]
pub(super) struct Rows<'a> {
    messages: Vec<Message<'a>>,
    days: Vec<Date>,
    ids: Vec<&'a str>,
    digests: Vec<Vec<u8>>,
    orders: Vec<Uuid>,
    statuses: Vec<&'static str>,
}

impl<'a> Rows<'a> {
    /// The proofs for messages whose rows are written together with everything that is based on them.
    pub(super) fn admitted(&self) -> HashMap<usize, Admitted<'a>> {
        self.messages.iter().map(Admitted::of).collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn of(candidates: &[(Message<'a>, OrderId)]) -> Self {
        let mut sorted = candidates.to_vec();
        sorted.sort_unstable_by_key(|(message, _)| (event_day(message), message.event.message_id.as_str()));
        Self {
            days: sorted.iter().map(|(message, _)| event_day(message)).collect(),
            ids: sorted.iter().map(|(message, _)| message.event.message_id.as_str()).collect(),
            digests: sorted.iter().map(|(message, _)| message.digest.to_vec()).collect(),
            orders: sorted.iter().map(|(_, order_id)| order_id.0).collect(),
            statuses: sorted.iter().map(|(message, _)| message.event.status.name()).collect(),
            messages: sorted.into_iter().map(|(message, _)| message).collect(),
        }
    }
}

fn event_day(message: &Message<'_>) -> Date {
    message.event.occurred_at.to_offset(UtcOffset::UTC).date()
}

/// Reads the order of each registered payment that the messages are about, and the present state of all orders that they may be
/// about. It takes no lock. Payments and orders are read at one moment.
pub(super) async fn read<'a>(
    connection: &mut PgConnection,
    messages: &[Message<'a>],
) -> Result<(Owners<'a>, Orders), StoreError> {
    let keys: BTreeSet<PaymentKey<'a>> = messages.iter().flat_map(|m| payment_keys(m.event)).collect();
    let named: BTreeSet<OrderId> = messages.iter().filter_map(|m| m.event.order_id).collect();
    read_by(connection, &keys.into_iter().collect::<Vec<_>>(), &named).await
}

/// Reads the order of each registered payment, these orders, and the orders that are `named`.
///
/// The first row has all payments, each other row has one order. The query compares only the payments' ids, so Postgres walks
/// through the index once for the whole array. Providers and accounts are compared here.
pub(super) async fn read_by<'a>(
    connection: &mut PgConnection,
    keys: &[PaymentKey<'a>],
    named: &BTreeSet<OrderId>,
) -> Result<(Owners<'a>, Orders), StoreError> {
    let ids: Vec<&str> = keys.iter().map(|key| key.payment_id).collect();
    let named: Vec<Uuid> = named.iter().map(|id| id.0).collect();
    let rows = sqlx::query!(
        r#"WITH registered AS MATERIALIZED (
               SELECT provider, provider_account, payment_id, order_id FROM payments WHERE payment_id = ANY($1::text[])
           )
           SELECT array_agg(provider) AS providers, array_agg(provider_account) AS accounts, array_agg(payment_id) AS payment_ids,
                  array_agg(order_id) AS owners,
                  '(0,0)'::tid AS "place!: Place", 0::bigint AS "version!", '00000000-0000-0000-0000-000000000000'::uuid AS "id!",
                  '' AS "account_id!", 0::bigint AS "credits!", 0::bigint AS "amount_minor!", '' AS "currency!",
                  '' AS "price_terms!", NULL::bigint AS discount_max_minor, '' AS "provider!", '' AS "provider_account!",
                  '' AS "status!", false AS "is_granted!", 0::bigint AS "credits_granted!", 0 AS "revision!", '' AS "facts!"
           FROM registered HAVING count(*) > 0
           UNION ALL
           SELECT NULL, NULL, NULL, NULL, ctid, version, id, account_id, credits, amount_minor, currency, price_terms,
                  discount_max_minor, provider, provider_account, status, is_granted, credits_granted, revision, facts::text
           FROM orders WHERE id = ANY(ARRAY(SELECT order_id FROM registered) || $2::uuid[])"#,
        &ids as _,
        &named
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::sql("reading payments and orders"))?;
    let (mut owners, mut orders) = (Owners::with_capacity(keys.len()), Orders::default());
    for row in rows {
        if let (Some(providers), Some(accounts), Some(ids), Some(orders)) =
            (&row.providers, &row.accounts, &row.payment_ids, &row.owners)
        {
            for (((provider, account), payment_id), order_id) in providers.iter().zip(accounts).zip(ids).zip(orders) {
                let key = PaymentKey { provider, account, payment_id };
                if let Some(key) = keys.binary_search(&key).ok().and_then(|at| keys.get(at)) {
                    owners.insert(*key, OrderId(*order_id));
                }
            }
            continue;
        }
        let (id, at) = (OrderId(row.id), ReadAt { version: row.version, place: row.place });
        match Order::try_from(order_row!(row)) {
            Ok(order) => drop(orders.read.insert(id, ReadOrder { order, at })),
            Err(error) => drop(orders.unreadable.insert(id, error.to_string())),
        }
    }
    Ok((owners, orders))
}

/// Admits those message ids that the inbox does not have. If another transaction holds one of the ids, the statement
/// waits for it. An id that is not admitted then was committed by the other transaction.
pub(super) async fn admit_the_unknown<'a>(
    connection: &mut PgConnection,
    candidates: &[(Message<'a>, OrderId)],
    now: OffsetDateTime,
) -> Result<HashMap<usize, Admitted<'a>>, StoreError> {
    let Rows { messages, days, ids, digests, orders, statuses } = Rows::of(candidates);
    let inserted = sqlx::query_scalar!(
        "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
         SELECT day, id, digest, order_id, $5, said
         FROM unnest($1::date[], $2::text[], $3::bytea[], $4::uuid[], $6::text[])
              AS n (day, id, digest, order_id, said)
         ON CONFLICT DO NOTHING RETURNING message_id",
        &days,
        &ids as _,
        &digests as _,
        &orders,
        now,
        &statuses as _
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::sql(ADMITTING))?;
    let inserted: BTreeSet<String> = inserted.into_iter().collect();
    let admitted = messages.iter().filter(|message| inserted.contains(message.event.message_id.as_str()));
    Ok(admitted.map(Admitted::of).collect())
}

/// For each message that the inbox has: its position here, and the digest of the content that was admitted.
///
/// The query takes arrays instead of a join. While the inbox is empty, Postgres would plan a join that reads the whole
/// inbox for every message, and it keeps the plan as long as the connection. The days are two bounds instead of an
/// array, because an array excludes no partition: each of the ninety would be searched for every message. If the days of
/// the messages are far apart, the partitions between them are searched, too.
pub(super) async fn known_digests(
    connection: &mut PgConnection,
    messages: &[Message<'_>],
) -> Result<HashMap<usize, [u8; 16]>, StoreError> {
    let days = || messages.iter().map(event_day);
    // Without messages any day will do. A rehearsal has none.
    let any = OffsetDateTime::UNIX_EPOCH.date();
    let (first, last) = (days().min().unwrap_or(any), days().max().unwrap_or(any));
    let ids: Vec<&str> = messages.iter().map(|message| message.event.message_id.as_str()).collect();
    let found = sqlx::query!(
        "SELECT event_day, message_id, fact_digest FROM inbox
         WHERE message_id = ANY($1::text[]) AND event_day BETWEEN $2 AND $3",
        &ids as _,
        first,
        last
    )
    .fetch_all(connection)
    .await
    .map_err(StoreError::sql("reading digests of admitted messages"))?;
    let digest = |bytes: &[u8], id: &str| {
        bytes.try_into().map_err(|_| StoreError::Corrupt {
            what: format!("message {id} in the inbox"),
            detail: format!("its digest has {} bytes", bytes.len()),
        })
    };
    let found: HashMap<(Date, &str), [u8; 16]> = found
        .iter()
        .map(|row| Ok(((row.event_day, row.message_id.as_str()), digest(&row.fact_digest, &row.message_id)?)))
        .collect::<Result<_, StoreError>>()?;
    let known = |message: &Message<'_>| {
        let digest = found.get(&(event_day(message), message.event.message_id.as_str()))?;
        Some((message.at, *digest))
    };
    Ok(messages.iter().filter_map(known).collect())
}

/// How one call writes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Call {
    /// How long it waits for a row that another transaction has locked. Without it, the setting of the transaction or of the
    /// session counts.
    pub(super) lock_wait: Option<Duration>,
    /// Whether it announces the changed orders to their readers.
    pub(super) announces: bool,
    /// The function skips lists that are null. A rehearsal gives it empty lists instead, so every statement runs on no rows.
    pub(super) is_rehearsal: bool,
}

/// The statement that writes a batch: one call of `apply_batch_v1` (`migrations/0008_apply_batch.sql`).
pub(super) fn apply_batch(
    writes: &Writes<'_>,
    now: OffsetDateTime,
    Call { lock_wait, announces, is_rehearsal }: Call,
) -> Result<Query<'static, Postgres, PgArguments>, StoreError> {
    /// The key of a list decides whether the function skips it.
    fn key<T>(rows: Vec<T>, is_rehearsal: bool) -> Option<Vec<T>> {
        (is_rehearsal || !rows.is_empty()).then_some(rows)
    }
    let Writes { inbox, payments, orders, grants, adjustments, overpaid, .. } = writes;
    let announcement = announces.then(|| announcement(&writes.changed));
    let held = writes.held();
    let facts = |order: &Order| serde_json::to_string(&order.facts).map_err(|error| corrupt(order.id.0, error));
    let facts: Vec<String> = orders.iter().map(|(order, _)| facts(order)).collect::<Result<_, _>>()?;
    let query = sqlx::query(
        "SELECT apply_batch_v1($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22,
                               $23, $24, $25, $26, $27, $28, $29, $30, $31, $32, $33, $34)",
    )
    .bind(now)
    .bind(lock_wait.map(|wait| i32::try_from(wait.as_millis().max(1)).unwrap_or(i32::MAX)))
    .bind(&inbox.days)
    .bind(key(inbox.ids.clone(), is_rehearsal))
    .bind(&inbox.digests)
    .bind(&inbox.orders)
    .bind(&inbox.statuses)
    .bind(column(payments, |new| new.key.provider))
    .bind(column(payments, |new| new.key.account))
    .bind(key(column(payments, |new| new.key.payment_id), is_rehearsal))
    .bind(column(payments, |new| new.order_id.0))
    .bind(key(held.keys().map(|id| id.0).collect(), is_rehearsal))
    .bind(held.values().map(|at| at.version).collect::<Vec<_>>())
    .bind(key(column(orders, |(order, _)| order.id.0), is_rehearsal))
    .bind(column(orders, |(_, at)| at.place))
    .bind(column(orders, |(_, at)| at.version))
    .bind(column(orders, |(order, _)| order.status.name()))
    .bind(column(orders, |(order, _)| order.is_granted))
    .bind(column(orders, |(order, _)| order.credits_posted))
    .bind(column(orders, |(order, _)| order.revision))
    .bind(facts)
    .bind(key(column(grants, |grant| grant.order_id.0), is_rehearsal))
    .bind(column(grants, |grant| grant.account_id.as_str()))
    .bind(column(grants, |grant| grant.credits))
    .bind(column(grants, |grant| grant.by.message_id))
    .bind(key(column(adjustments, |adjustment| adjustment.order_id.0), is_rehearsal))
    .bind(column(adjustments, |adjustment| adjustment.revision))
    .bind(column(adjustments, |adjustment| adjustment.account_id.as_str()))
    .bind(column(adjustments, |adjustment| adjustment.credits))
    .bind(column(adjustments, |adjustment| adjustment.reason))
    .bind(column(adjustments, |adjustment| adjustment.by.message_id))
    .bind(key(overpaid.keys().map(|id| id.0).collect(), is_rehearsal))
    .bind(overpaid.values().copied().collect::<Vec<_>>())
    .bind(announcement);
    Ok(query)
}

/// One column of rows.
fn column<'r, R, T>(rows: &'r [R], of: impl Fn(&'r R) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// The name of the operation in errors of [`apply_batch`].
pub(super) const WRITING: &str = "writing a batch";

/// Whether a call of [`apply_batch`] wrote nothing because another transaction was faster. If the call `admits` messages, a rival
/// that admitted one of them shows as a violated key. So does a second grant of an order. A try with locks finds out which of
/// them it was, because its call admits nothing.
pub(super) fn is_overtaken(error: &sqlx::Error, admits: bool) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        // The SQLSTATE of serialization_failure.
        Some("40001") => true,
        // The SQLSTATE of unique_violation.
        Some("23505") => admits,
        Some(_) | None => false,
    }
}

//! The statements of a batch. Each takes arrays, and there is one statement for each table.

use super::Message;
use super::place::Place;
use super::plan::{Adjustment, Grant, NewPayment, payment_keys};
use crate::domain::{Order, OrderId};
use crate::store::error::StoreError;
use crate::store::order_row::{corrupt, order_row};
use crate::store::payment_key::PaymentKey;
use crate::store::tx::Tx;
use std::collections::{BTreeMap, BTreeSet, HashMap};
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

/// Proof that a message id was admitted in this transaction. Every grant and adjustment contains one.
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
struct Rows<'a> {
    messages: Vec<Message<'a>>,
    days: Vec<Date>,
    ids: Vec<&'a str>,
    digests: Vec<Vec<u8>>,
    orders: Vec<Uuid>,
    statuses: Vec<&'static str>,
}

impl<'a> Rows<'a> {
    fn of(candidates: &[(Message<'a>, OrderId)]) -> Self {
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

impl Tx {
    /// Runs every statement of a batch without any rows, and takes a transaction id. Only a server that accepts writes gives
    /// one.
    pub(super) async fn rehearse(&mut self, now: OffsetDateTime) -> Result<(), StoreError> {
        self.owners_of_payments(&[]).await?;
        self.find_orders(&BTreeSet::new()).await?;
        self.lock_rows(&BTreeSet::new()).await?;
        self.lock_free_rows(&BTreeSet::new()).await?;
        self.hold_orders(&BTreeMap::new()).await?;
        self.known_digests(&[]).await?;
        self.admit(&[], now).await?;
        self.admit_the_unknown(&[], now).await?;
        self.register_payments(&[], now).await?;
        self.write_grants(&[], now).await?;
        self.write_adjustments(&[], now).await?;
        self.write_overpaid(&BTreeMap::new(), now).await?;
        self.update_orders(&[], now).await?;
        sqlx::query("SELECT pg_current_xact_id()")
            .execute(self.connection())
            .await
            .map_err(StoreError::sql("taking a transaction id"))?;
        Ok(())
    }

    /// Returns the order of each payment.
    ///
    /// The query compares only the payments' ids, so Postgres walks through the index once for the whole array. Providers
    /// and accounts are compared here.
    pub(super) async fn owners_of_payments<'a>(&mut self, messages: &[Message<'a>]) -> Result<Owners<'a>, StoreError> {
        let keys: BTreeSet<PaymentKey<'a>> = messages.iter().flat_map(|m| payment_keys(m.event)).collect();
        let keys: Vec<PaymentKey<'a>> = keys.into_iter().collect();
        let ids: Vec<&str> = keys.iter().map(|key| key.payment_id).collect();
        let rows = sqlx::query!(
            "SELECT provider, provider_account, payment_id, order_id FROM payments WHERE payment_id = ANY($1::text[])",
            &ids as _
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("looking payments up"))?;
        let mut owners = Owners::with_capacity(rows.len());
        for row in rows {
            let key = (row.provider.as_str(), row.provider_account.as_str(), row.payment_id.as_str());
            let at = keys.binary_search_by(|other| (other.provider, other.account, other.payment_id).cmp(&key));
            if let Some(key) = at.ok().and_then(|at| keys.get(at)) {
                owners.insert(*key, OrderId(row.order_id));
            }
        }
        Ok(owners)
    }

    /// Reads the present state of orders and the positions of their rows, without a lock.
    pub(super) async fn find_orders(&mut self, ids: &BTreeSet<OrderId>) -> Result<Orders, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query!(
            r#"SELECT ctid AS "place!: Place", version, id, account_id, credits, amount_minor, currency, price_terms,
                      discount_max_minor, provider, provider_account, status, is_granted, credits_granted, revision, facts::text AS "facts!"
               FROM orders WHERE id = ANY($1)"#,
            &ids
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading orders"))?;
        let mut orders = Orders::default();
        for row in rows {
            let (id, at) = (OrderId(row.id), ReadAt { version: row.version, place: row.place });
            match Order::try_from(order_row!(row)) {
                Ok(order) => drop(orders.read.insert(id, ReadOrder { order, at })),
                Err(error) => drop(orders.unreadable.insert(id, error.to_string())),
            }
        }
        Ok(orders)
    }

    /// Admits message ids that the inbox does not have, and returns the proof for each position. `None` means that another
    /// transaction was faster with one of the ids, so nothing of this transaction may be committed. If another transaction
    /// holds such an id and has not ended, the statement waits for it.
    pub(super) async fn admit<'a>(
        &mut self,
        candidates: &[(Message<'a>, OrderId)],
        now: OffsetDateTime,
    ) -> Result<Option<HashMap<usize, Admitted<'a>>>, StoreError> {
        let Rows { messages, days, ids, digests, orders, statuses } = Rows::of(candidates);
        let inserted = sqlx::query!(
            "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
             SELECT day, id, digest, order_id, $5, said
             FROM unnest($1::date[], $2::text[], $3::bytea[], $4::uuid[], $6::text[])
                  AS n (day, id, digest, order_id, said)",
            &days,
            &ids as _,
            &digests as _,
            &orders,
            now,
            &statuses as _
        )
        .execute(self.connection())
        .await;
        match inserted {
            Ok(_) => Ok(Some(messages.iter().map(Admitted::of).collect())),
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(None),
            Err(error) => Err(StoreError::Sql { what: ADMITTING, source: error }),
        }
    }

    /// Admits those message ids that the inbox does not have. If another transaction holds one of the ids, the statement
    /// waits for it. An id that is not admitted then was committed by the other transaction.
    pub(super) async fn admit_the_unknown<'a>(
        &mut self,
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
        .fetch_all(self.connection())
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
        &mut self,
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
        .fetch_all(self.connection())
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

    /// Registers the ids of payments. Returns `false` if another transaction was faster with one of them. It may have given
    /// the payment to another order, so nothing of this transaction may be committed.
    pub(super) async fn register_payments(
        &mut self,
        payments: &[NewPayment<'_>],
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let (mut providers, mut accounts, mut ids, mut orders) = (vec![], vec![], vec![], vec![]);
        for NewPayment { key, order_id } in payments {
            providers.push(key.provider);
            accounts.push(key.account);
            ids.push(key.payment_id);
            orders.push(order_id.0);
        }
        let done = sqlx::query!(
            "INSERT INTO payments (provider, provider_account, payment_id, order_id, registered_at)
             SELECT provider, account, id, order_id, $5
             FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[]) AS n (provider, account, id, order_id)
             ON CONFLICT DO NOTHING",
            &providers as _,
            &accounts as _,
            &ids as _,
            &orders,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("registering payments"))?;
        Ok(usize::try_from(done.rows_affected()) == Ok(payments.len()))
    }

    /// Writes grants. A second grant of an order violates the primary key, and the transaction fails.
    pub(super) async fn write_grants(&mut self, grants: &[Grant<'_>], now: OffsetDateTime) -> Result<(), StoreError> {
        let (mut orders, mut accounts, mut credits, mut messages) = (vec![], vec![], vec![], vec![]);
        for grant in grants {
            orders.push(grant.order_id.0);
            accounts.push(grant.account_id.as_str());
            credits.push(grant.credits);
            messages.push(grant.by.message_id);
        }
        sqlx::query!(
            "INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
             SELECT order_id, account_id, credits, message_id, $5
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) AS n (order_id, account_id, credits, message_id)",
            &orders,
            &accounts as _,
            &credits,
            &messages as _,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing grants"))?;
        Ok(())
    }

    /// Writes the adjustments of the batch.
    pub(super) async fn write_adjustments(
        &mut self,
        adjustments: &[Adjustment<'_>],
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let (mut orders, mut revisions, mut accounts, mut credits) = (vec![], vec![], vec![], vec![]);
        let (mut reasons, mut messages) = (vec![], vec![]);
        for adjustment in adjustments {
            orders.push(adjustment.order_id.0);
            revisions.push(adjustment.revision);
            accounts.push(adjustment.account_id.clone());
            credits.push(adjustment.credits);
            reasons.push(adjustment.reason.to_owned());
            messages.push(adjustment.by.message_id.to_owned());
        }
        sqlx::query!(
            "INSERT INTO credit_adjustments (order_id, revision, account_id, credits, reason, message_id, created_at)
             SELECT order_id, revision, account_id, credits, reason, message_id, $7
             FROM unnest($1::uuid[], $2::integer[], $3::text[], $4::bigint[], $5::text[], $6::text[])
                  AS n (order_id, revision, account_id, credits, reason, message_id)",
            &orders,
            &revisions,
            &accounts,
            &credits,
            &reasons,
            &messages,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing adjustments"))?;
        Ok(())
    }

    /// Writes the surplus of each order whose surplus has changed.
    pub(super) async fn write_overpaid(
        &mut self,
        overpaid: &BTreeMap<OrderId, i64>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let (ids, minor): (Vec<Uuid>, Vec<i64>) = overpaid.iter().map(|(id, minor)| (id.0, *minor)).unzip();
        sqlx::query!(
            "INSERT INTO overpaid_orders AS o (order_id, overpaid_minor, since, updated_at)
             SELECT order_id, minor, $3, $3 FROM unnest($1::uuid[], $2::bigint[]) AS n (order_id, minor)
             ON CONFLICT (order_id) DO UPDATE SET overpaid_minor = EXCLUDED.overpaid_minor, updated_at = $3,
                 since = CASE WHEN o.overpaid_minor = 0 THEN $3 ELSE o.since END",
            &ids,
            &minor,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing what is overpaid"))?;
        Ok(())
    }

    /// Writes the new state of the orders. Returns `false` if one of them has changed since it was read. Then nothing of
    /// this transaction may be committed.
    pub(super) async fn update_orders(
        &mut self,
        orders: &[(Order, ReadAt)],
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let (mut ids, mut places, mut versions, mut statuses) = (vec![], vec![], vec![], vec![]);
        let (mut granted, mut credits, mut revisions, mut facts) = (vec![], vec![], vec![], vec![]);
        for (order, at) in orders {
            ids.push(order.id.0);
            places.push(at.place);
            versions.push(at.version);
            statuses.push(order.status.name());
            granted.push(order.is_granted);
            credits.push(order.credits_posted);
            revisions.push(order.revision);
            facts.push(serde_json::to_string(&order.facts).map_err(|e| corrupt(order.id.0, e))?);
        }
        // The statement finds each row by the position at which it was read, which saves a second search. A row that was
        // written since has another position. The row that is there now has another id or another version, so it is not
        // updated, and the count of rows shows it.
        let done = sqlx::query!(
            "UPDATE orders o
             SET status = n.status, is_granted = n.is_granted, credits_granted = n.credits, revision = n.revision,
                 facts = n.facts::jsonb, version = o.version + 1, updated_at = $9
             FROM unnest($1::uuid[], $2::tid[], $3::bigint[], $4::text[], $5::boolean[], $6::bigint[], $7::integer[], $8::text[])
                  AS n (id, place, version, status, is_granted, credits, revision, facts)
             WHERE o.ctid = n.place AND o.id = n.id AND o.version = n.version",
            &ids,
            &places as &[Place],
            &versions,
            &statuses as _,
            &granted,
            &credits,
            &revisions,
            &facts,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("updating orders"))?;
        Ok(usize::try_from(done.rows_affected()) == Ok(orders.len()))
    }
}

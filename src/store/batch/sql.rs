//! The statements of a batch: arrays in, one statement a table.

use super::Message;
use super::plan::{Adjustment, Grant, NewPayment, payment_keys};
use crate::domain::{Order, OrderId, PaymentFacts};
use crate::store::error::StoreError;
use crate::store::order_row::{OrderRow, corrupt};
use crate::store::payment_key::PaymentKey;
use crate::store::tx::Tx;
use sqlx::types::Json;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use time::{Date, OffsetDateTime, UtcOffset};
use uuid::Uuid;

/// Which order each registered payment id belongs to.
pub(super) type Owners<'a> = HashMap<PaymentKey<'a>, OrderId>;

/// Orders as they were read, with the versions that they had then.
#[derive(Debug, Default)]
pub(in crate::store) struct Orders {
    pub(in crate::store) by_id: BTreeMap<OrderId, Order>,
    pub(in crate::store) versions: HashMap<OrderId, i64>,
}

impl Orders {
    fn add(&mut self, row: LookedUpRow) -> Result<(), StoreError> {
        let id = OrderId(row.id);
        // Once for each of its payments' ids.
        if !self.versions.contains_key(&id) {
            self.versions.insert(id, row.version);
            self.by_id.insert(id, row.order().try_into()?);
        }
        Ok(())
    }
}

/// What a batch is about.
pub(super) struct LookedUp<'a> {
    pub(super) owners: Owners<'a>,
    pub(super) orders: Orders,
}

struct LookedUpRow {
    at: Option<i64>,
    version: i64,
    id: Uuid,
    account_id: String,
    credits: i64,
    amount_minor: i64,
    currency: String,
    provider: String,
    provider_account: String,
    status: String,
    is_granted: bool,
    credits_granted: i64,
    revision: i32,
    facts: Json<PaymentFacts>,
}

impl LookedUpRow {
    fn order(self) -> OrderRow {
        OrderRow {
            id: self.id,
            account_id: self.account_id,
            credits: self.credits,
            amount_minor: self.amount_minor,
            currency: self.currency,
            provider: self.provider,
            provider_account: self.provider_account,
            status: self.status,
            is_granted: self.is_granted,
            credits_granted: self.credits_granted,
            revision: self.revision,
            facts: self.facts,
        }
    }
}

/// Proof that a message id was admitted in this transaction. Grants and adjustments carry one.
#[derive(Debug, Clone)]
pub(super) struct Admitted<'a> {
    message_id: &'a str,
}

/// What the inbox said to a batch of candidates.
pub(super) struct Admission<'m, 'a> {
    /// By the message's place in the batch.
    pub(super) admitted: HashMap<usize, Admitted<'a>>,
    /// Those that were there before, with the digest of what they said then.
    pub(super) known: Vec<(&'m Message<'a>, [u8; 16])>,
}

fn event_day(message: &Message<'_>) -> Date {
    message.event.occurred_at.to_offset(UtcOffset::UTC).date()
}

impl Tx {
    /// Runs every statement of a batch on nothing, and takes a transaction id, which only a server that writes gives.
    pub(super) async fn rehearse(&mut self, now: OffsetDateTime) -> Result<(), StoreError> {
        self.look_up(&[]).await?;
        self.lock_orders(std::iter::empty()).await?;
        self.hold_orders(&BTreeMap::new()).await?;
        self.admit(&[], now).await?;
        self.register_payments(&[], now).await?;
        self.write_grants(&[], now).await?;
        self.write_adjustments(&[], now).await?;
        self.update_orders(&[], now).await?;
        sqlx::query("SELECT pg_current_xact_id()")
            .execute(self.connection())
            .await
            .map_err(StoreError::sql("taking a transaction id"))?;
        Ok(())
    }

    /// Which order each payment belongs to, and the orders that a batch is about, as they stand now, without a lock.
    pub(super) async fn look_up<'a>(&mut self, messages: &[Message<'a>]) -> Result<LookedUp<'a>, StoreError> {
        let keys: Vec<PaymentKey<'a>> =
            messages.iter().flat_map(|m| payment_keys(m.event)).collect::<BTreeSet<_>>().into_iter().collect();
        let (mut providers, mut accounts, mut ids) = (vec![], vec![], vec![]);
        for key in &keys {
            providers.push(key.provider.to_owned());
            accounts.push(key.account.to_owned());
            ids.push(key.payment_id.to_owned());
        }
        let rows = sqlx::query_as!(
            LookedUpRow,
            r#"SELECT k.at, o.version, o.id, o.account_id, o.credits, o.amount_minor, o.currency, o.provider, o.provider_account,
                      o.status, o.is_granted, o.credits_granted, o.revision, o.facts AS "facts: Json<PaymentFacts>"
               FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS k (provider, account, id, at)
               JOIN payments p ON p.provider = k.provider AND p.provider_account = k.account AND p.payment_id = k.id
               JOIN orders o ON o.id = p.order_id"#,
            &providers,
            &accounts,
            &ids
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("looking payments up"))?;
        let mut found = LookedUp { owners: Owners::with_capacity(rows.len()), orders: Orders::default() };
        for row in rows {
            let key = row.at.and_then(|at| keys.get(usize::try_from(at).ok()?.checked_sub(1)?));
            if let Some(key) = key {
                found.owners.insert(*key, OrderId(row.id));
            }
            found.orders.add(row)?;
        }
        let named = messages.iter().filter_map(|m| m.event.order_id);
        let named: BTreeSet<OrderId> = named.filter(|id| !found.orders.by_id.contains_key(id)).collect();
        if !named.is_empty() {
            let ids: Vec<Uuid> = named.iter().map(|id| id.0).collect();
            let rows = sqlx::query_as!(
                LookedUpRow,
                r#"SELECT NULL::bigint AS at, version, id, account_id, credits, amount_minor, currency, provider, provider_account,
                          status, is_granted, credits_granted, revision, facts AS "facts: Json<PaymentFacts>"
                   FROM orders WHERE id = ANY($1)"#,
                &ids
            )
            .fetch_all(self.connection())
            .await
            .map_err(StoreError::sql("reading orders"))?;
            rows.into_iter().try_for_each(|row| found.orders.add(row))?;
        }
        Ok(found)
    }

    /// Locks the orders, in ascending order of their ids, and reads them. A row that another transaction held is read
    /// anew after the wait, whole: everything the decision needs stands in it.
    pub(in crate::store) async fn lock_orders(
        &mut self,
        ids: impl Iterator<Item = OrderId>,
    ) -> Result<Orders, StoreError> {
        let ids: Vec<Uuid> = ids.map(|id| id.0).collect();
        let rows = sqlx::query_as!(
            LookedUpRow,
            r#"SELECT NULL::bigint AS at, version, id, account_id, credits, amount_minor, currency, provider, provider_account,
                      status, is_granted, credits_granted, revision, facts AS "facts: Json<PaymentFacts>"
               FROM orders WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
            &ids
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("locking orders"))?;
        let mut orders = Orders::default();
        rows.into_iter().try_for_each(|row| orders.add(row))?;
        Ok(orders)
    }

    /// Locks orders that still are as they were read, in ascending order of their ids. `false`: one of them is not.
    pub(super) async fn hold_orders(&mut self, read: &BTreeMap<OrderId, i64>) -> Result<bool, StoreError> {
        let (ids, versions): (Vec<Uuid>, Vec<i64>) = read.iter().map(|(id, version)| (id.0, *version)).unzip();
        let held = sqlx::query!(
            "SELECT o.id FROM unnest($1::uuid[], $2::bigint[]) AS n (id, version)
             JOIN orders o ON o.id = n.id AND o.version = n.version
             ORDER BY o.id FOR NO KEY UPDATE OF o",
            &ids,
            &versions
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("holding orders"))?;
        Ok(held.len() == read.len())
    }

    /// Admits message ids. A rival transaction that holds the same id is waited for: when no row comes back, the id is
    /// durably there.
    pub(super) async fn admit<'m, 'a>(
        &mut self,
        candidates: &'m [(Message<'a>, OrderId)],
        now: OffsetDateTime,
    ) -> Result<Admission<'m, 'a>, StoreError> {
        let mut rows: Vec<(Date, &'m Message<'a>, OrderId)> =
            candidates.iter().map(|(message, order_id)| (event_day(message), message, *order_id)).collect();
        rows.sort_unstable_by_key(|(day, message, _)| (*day, message.event.message_id.as_str()));
        let days: Vec<Date> = rows.iter().map(|row| row.0).collect();
        let ids: Vec<String> = rows.iter().map(|row| row.1.event.message_id.as_str().to_owned()).collect();
        let digests: Vec<Vec<u8>> = rows.iter().map(|row| row.1.digest.to_vec()).collect();
        let orders: Vec<Uuid> = rows.iter().map(|row| row.2.0).collect();
        let said: Vec<String> = rows.iter().map(|row| row.1.event.status.name().to_owned()).collect();
        let inserted = sqlx::query_scalar!(
            "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
             SELECT day, id, digest, order_id, $5, said
             FROM unnest($1::date[], $2::text[], $3::bytea[], $4::uuid[], $6::text[])
                  AS n (day, id, digest, order_id, said)
             ON CONFLICT DO NOTHING RETURNING message_id",
            &days,
            &ids,
            &digests,
            &orders,
            now,
            &said
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("admitting messages"))?;
        let inserted: BTreeSet<String> = inserted.into_iter().collect();

        let (new, old): (Vec<_>, Vec<_>) =
            rows.into_iter().partition(|(_, message, _)| inserted.contains(message.event.message_id.as_str()));
        let admitted = new
            .into_iter()
            .map(|(_, message, _)| (message.at, Admitted { message_id: message.event.message_id.as_str() }))
            .collect();
        let old = old.into_iter().map(|(day, message, _)| (day, message)).collect();
        Ok(Admission { admitted, known: self.digests_of(old).await? })
    }

    /// What the inbox knows of these messages: by their place, the digest of what they said then.
    pub(super) async fn known_digests(
        &mut self,
        messages: &[Message<'_>],
    ) -> Result<Vec<(usize, [u8; 16])>, StoreError> {
        let rows = messages.iter().map(|message| (event_day(message), message)).collect();
        let known = self.digests_of(rows).await?;
        Ok(known.into_iter().map(|(message, digest)| (message.at, digest)).collect())
    }

    async fn digests_of<'m, 'a>(
        &mut self,
        rows: Vec<(Date, &'m Message<'a>)>,
    ) -> Result<Vec<(&'m Message<'a>, [u8; 16])>, StoreError> {
        if rows.is_empty() {
            return Ok(vec![]);
        }
        let days: Vec<Date> = rows.iter().map(|row| row.0).collect();
        let ids: Vec<String> = rows.iter().map(|row| row.1.event.message_id.as_str().to_owned()).collect();
        let found = sqlx::query!(
            r#"SELECT k.at AS "at!", i.fact_digest
               FROM unnest($1::date[], $2::text[]) WITH ORDINALITY AS k (day, id, at)
               JOIN inbox i ON i.event_day = k.day AND i.message_id = k.id"#,
            &days,
            &ids
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading digests of admitted messages"))?;
        Ok(found
            .into_iter()
            .filter_map(|row| {
                let (_, message) = rows.get(usize::try_from(row.at).ok()?.checked_sub(1)?)?;
                Some((*message, row.fact_digest.try_into().unwrap_or([0; 16])))
            })
            .collect())
    }

    /// Registers payments' ids. `false`: another transaction was faster with one of them, and may have given it to
    /// another order; nothing of this transaction may stand.
    pub(super) async fn register_payments(
        &mut self,
        payments: &[NewPayment<'_>],
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let (mut providers, mut accounts, mut ids, mut orders) = (vec![], vec![], vec![], vec![]);
        for NewPayment { key, order_id } in payments {
            providers.push(key.provider.to_owned());
            accounts.push(key.account.to_owned());
            ids.push(key.payment_id.to_owned());
            orders.push(order_id.0);
        }
        let done = sqlx::query!(
            "INSERT INTO payments (provider, provider_account, payment_id, order_id, registered_at)
             SELECT provider, account, id, order_id, $5
             FROM unnest($1::text[], $2::text[], $3::text[], $4::uuid[]) AS n (provider, account, id, order_id)
             ON CONFLICT DO NOTHING",
            &providers,
            &accounts,
            &ids,
            &orders,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("registering payments"))?;
        Ok(usize::try_from(done.rows_affected()) == Ok(payments.len()))
    }

    /// Writes grants. A second grant of an order violates the primary key and fails the transaction.
    pub(super) async fn write_grants(&mut self, grants: &[Grant<'_>], now: OffsetDateTime) -> Result<(), StoreError> {
        let (mut orders, mut accounts, mut credits, mut messages) = (vec![], vec![], vec![], vec![]);
        for grant in grants {
            orders.push(grant.order_id.0);
            accounts.push(grant.account_id.clone());
            credits.push(grant.credits);
            messages.push(grant.by.message_id.to_owned());
        }
        sqlx::query!(
            "INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
             SELECT order_id, account_id, credits, message_id, $5
             FROM unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) AS n (order_id, account_id, credits, message_id)",
            &orders,
            &accounts,
            &credits,
            &messages,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing grants"))?;
        Ok(())
    }

    /// Writes adjustments.
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

    /// Writes the orders' new state. `false`: one of them is no longer as it was read, and nothing of this transaction may
    /// stand.
    pub(super) async fn update_orders(
        &mut self,
        orders: &[(Order, i64)],
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let (mut ids, mut versions, mut statuses, mut granted) = (vec![], vec![], vec![], vec![]);
        let (mut credits, mut revisions, mut facts) = (vec![], vec![], vec![]);
        for (order, version) in orders {
            ids.push(order.id.0);
            versions.push(*version);
            statuses.push(order.status.name().to_owned());
            granted.push(order.is_granted);
            credits.push(order.credits_posted);
            revisions.push(order.revision);
            facts.push(serde_json::to_string(&order.facts).map_err(|e| corrupt(order.id.0, e))?);
        }
        let done = sqlx::query!(
            "UPDATE orders o
             SET status = n.status, is_granted = n.is_granted, credits_granted = n.credits, revision = n.revision,
                 facts = n.facts::jsonb, version = o.version + 1, updated_at = $8
             FROM unnest($1::uuid[], $2::bigint[], $3::text[], $4::boolean[], $5::bigint[], $6::integer[], $7::text[])
                  AS n (id, version, status, is_granted, credits, revision, facts)
             WHERE o.id = n.id AND o.version = n.version",
            &ids,
            &versions,
            &statuses,
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

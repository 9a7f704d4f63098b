//! The statements of a batch that lock orders. All take them in ascending order of their ids.

use super::sql::ReadAt;
use crate::domain::{Order, OrderId};
use crate::store::error::StoreError;
use crate::store::order_row::OrderRow;
use crate::store::tx::Tx;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

impl Tx {
    /// Locks the orders, in ascending order of their ids, and reads them. A row that another transaction held is read
    /// anew after the wait, whole: everything the decision needs stands in it.
    pub(in crate::store) async fn lock_orders(
        &mut self,
        ids: &BTreeSet<OrderId>,
    ) -> Result<BTreeMap<OrderId, Order>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = sqlx::query_as!(
            OrderRow,
            r#"SELECT id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider,
                      provider_account, status, is_granted, credits_granted, revision, facts::text AS "facts!"
               FROM orders WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE"#,
            &ids
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("locking orders"))?;
        rows.into_iter().map(|row| Ok((OrderId(row.id), row.try_into()?))).collect()
    }

    /// Locks the orders, in ascending order of their ids, whatever their rows say.
    pub(super) async fn lock_rows(&mut self, ids: &BTreeSet<OrderId>) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        sqlx::query!("SELECT id FROM orders WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", &ids)
            .fetch_all(self.connection())
            .await
            .map_err(StoreError::sql("locking orders"))?;
        Ok(())
    }

    /// Which of the orders nobody has locked now. They are locked until this transaction ends.
    pub(super) async fn lock_free_rows(&mut self, ids: &BTreeSet<OrderId>) -> Result<BTreeSet<OrderId>, StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let free = sqlx::query_scalar!(
            "SELECT id FROM orders WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE SKIP LOCKED",
            &ids
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("looking for locked orders"))?;
        Ok(free.into_iter().map(OrderId).collect())
    }

    /// Locks orders that still are as they were read, in ascending order of their ids. `false`: one of them is not.
    pub(super) async fn hold_orders(&mut self, read: &BTreeMap<OrderId, ReadAt>) -> Result<bool, StoreError> {
        let (ids, versions): (Vec<Uuid>, Vec<i64>) = read.iter().map(|(id, at)| (id.0, at.version)).unzip();
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
}

//! The statements of a batch that lock orders. All of them lock in ascending order of the ids.

use crate::domain::{Order, OrderId};
use crate::store::error::StoreError;
use crate::store::order_row::OrderRow;
use crate::store::tx::Tx;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

impl Tx {
    /// Locks the orders in ascending order of their ids, and reads them. If another transaction held a row, Postgres reads
    /// the whole row again after the wait. The row contains everything that the decision needs.
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

    /// Locks the orders in ascending order of their ids, without reading them.
    pub(super) async fn lock_rows(&mut self, ids: &BTreeSet<OrderId>) -> Result<(), StoreError> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        sqlx::query!("SELECT id FROM orders WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE", &ids)
            .fetch_all(self.connection())
            .await
            .map_err(StoreError::sql("locking orders"))?;
        Ok(())
    }

    /// Returns the orders that no other session has locked. They stay locked until this transaction ends.
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
}

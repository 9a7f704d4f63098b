//! Amending what an order costs, before its grant.

use super::audit::{Actor, AuditEntry};
use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::Tx;
use crate::domain::{AmendmentRefusal, AuditAction, DisputePolicy, Money, OrderId, OrderStatus, Repriced, reprice};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::OffsetDateTime;

/// A new price for an order, and who wants it so.
#[derive(Debug, Clone)]
pub struct Amendment {
    /// Which order.
    pub order_id: OrderId,
    /// What it is to cost, above zero.
    pub price: Money,
    /// Whether open disputes take credits.
    pub dispute_policy: DisputePolicy,
    /// Who.
    pub by: Actor,
    /// Why, for the audit log.
    pub reason: String,
    /// The time that is written to rows.
    pub now: OffsetDateTime,
}

/// What came of an amendment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amended {
    /// Written, with its line in the audit log.
    Written {
        /// The old price.
        before: Money,
        /// The order's new version.
        version: i64,
        /// What the order became.
        repriced: Repriced,
    },
    /// The order has that price already; nothing was written.
    Unchanged,
    /// There is no such order.
    OrderUnknown,
    /// Not as things stand; nothing was written.
    Refused(AmendmentRefusal),
}

impl Store {
    /// Amends what an order costs. The order's lock is the worker's own: a grant is decided either before, and then the
    /// amendment is refused, or after, and then by the new price.
    ///
    /// An error after the deadline leaves the outcome unknown; the same call again is safe.
    pub async fn amend_order(&self, amendment: Amendment) -> Result<Amended, StoreError> {
        let id = amendment.order_id;
        let amended = self.run("amending an order", move |pool| async move { amend(&pool, &amendment).await }).await?;
        if matches!(amended, Amended::Written { .. })
            && let Err(error) = self.notify(&[id]).await
        {
            tracing::debug!(event = "announcement_lost", cause = %error, "readers will look by themselves");
        }
        Ok(amended)
    }
}

async fn amend(pool: &PooledConnection, amendment: &Amendment) -> Result<Amended, StoreError> {
    let Amendment { order_id, price, now, .. } = *amendment;
    let mut tx = Tx::begin(pool).await?;
    let Some(order) = tx.lock_orders(&BTreeSet::from([order_id])).await?.remove(&order_id) else {
        tx.roll_back().await?;
        return Ok(Amended::OrderUnknown);
    };
    let repriced = match reprice(&order, price, amendment.dispute_policy) {
        Ok(Some(repriced)) => repriced,
        Ok(None) => {
            tx.roll_back().await?;
            return Ok(Amended::Unchanged);
        }
        Err(refusal) => {
            tx.roll_back().await?;
            return Ok(Amended::Refused(refusal));
        }
    };
    let version = tx.write_price(order_id, price, repriced.status, now).await?;
    let entry = AuditEntry {
        at: now,
        by: &amendment.by,
        action: AuditAction::OrderAmend,
        subject: order_id.to_string(),
        reason: &amendment.reason,
        count: 1,
        before: terms(order.price, order.status),
        after: terms(price, repriced.status),
    };
    tx.write_audit(entry).await?;
    tx.commit().await?;
    Ok(Amended::Written { before: order.price, version, repriced })
}

/// What an amendment can change, as the audit log keeps it.
fn terms(price: Money, status: OrderStatus) -> Value {
    json!({ "amount_minor": price.amount_minor(), "currency": price.currency(), "status": status.name() })
}

impl Tx {
    /// Writes a locked order's price and gives its new version.
    async fn write_price(
        &mut self,
        id: OrderId,
        price: Money,
        status: OrderStatus,
        now: OffsetDateTime,
    ) -> Result<i64, StoreError> {
        let currency = price.currency();
        sqlx::query_scalar!(
            "UPDATE orders SET amount_minor = $2, currency = $3, status = $4, version = version + 1, updated_at = $5
             WHERE id = $1 RETURNING version",
            id.0,
            price.amount_minor(),
            currency.as_str(),
            status.name(),
            now
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql("writing an order's price"))
    }
}

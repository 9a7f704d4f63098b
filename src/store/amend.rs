//! Changes the price of an order that has no grant yet.

use super::audit::{Actor, AuditEntry};
use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::Tx;
use crate::domain::{AmendmentRefusal, AuditAction, DisputePolicy, Money, OrderId, OrderStatus, Repriced, reprice};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::OffsetDateTime;

/// A new price for an order, and the person who sets it.
#[derive(Debug, Clone)]
pub struct Amendment {
    /// The order that gets the new price.
    pub order_id: OrderId,
    /// The new price, above zero.
    pub price: Money,
    /// Whether open disputes take credits.
    pub dispute_policy: DisputePolicy,
    /// The person who amends the order.
    pub by: Actor,
    /// The reason, for the audit log.
    pub reason: String,
    /// The time that is written to the rows.
    pub now: OffsetDateTime,
}

/// The result of an amendment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Amended {
    /// The price was written, with a line in the audit log.
    Written {
        /// The old price of the order.
        before: Money,
        /// The new version of the order.
        version: i64,
        /// The effect of the new price on the order.
        repriced: Repriced,
    },
    /// The order already has this price, so nothing was written.
    Unchanged,
    /// There is no such order.
    OrderUnknown,
    /// The order cannot be amended in its present state, so nothing was written.
    Refused(AmendmentRefusal),
}

impl Store {
    /// Changes the price of an order. The worker takes the same lock on the order. So either a grant was decided before, and
    /// the amendment is refused; or the grant is decided later, with the new price.
    ///
    /// After a missed deadline the outcome is unknown. It is safe to make the same call again.
    pub async fn amend_order(&self, amendment: Amendment) -> Result<Amended, StoreError> {
        let id = amendment.order_id;
        let amended = self.run("amending an order", move |pool| async move { amend(&pool, &amendment).await }).await?;
        if matches!(amended, Amended::Written { .. })
            && let Err(error) = self.notify(&[id]).await
        {
            tracing::debug!(event = "announcement_lost", cause = %error, "readers find the change with their next check");
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

/// What an amendment can change, as the audit log stores it.
fn terms(price: Money, status: OrderStatus) -> Value {
    json!({ "amount_minor": price.amount_minor(), "currency": price.currency(), "status": status.name() })
}

impl Tx {
    /// Writes the price of a locked order and returns the order's new version.
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

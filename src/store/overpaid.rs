//! Orders whose kept money is more than their price.

use super::error::StoreError;
use super::pool::Store;
use crate::domain::OrderId;
use time::OffsetDateTime;

/// An order that was paid twice, or with too much money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverpaidOrder {
    /// The id of the order.
    pub order_id: OrderId,
    /// The money above the price, in minor units.
    pub overpaid_minor: i64,
    /// The ISO 4217 code of the currency.
    pub currency: String,
    /// When the message arrived that caused the surplus.
    pub since: OffsetDateTime,
}

impl Store {
    /// Returns overpaid orders, the oldest first.
    pub async fn overpaid_orders(&self, count_max: u16) -> Result<Vec<OverpaidOrder>, StoreError> {
        const WHAT: &str = "listing overpaid orders";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(
                "SELECT s.order_id, s.overpaid_minor, o.currency, s.since
                 FROM overpaid_orders s JOIN orders o ON o.id = s.order_id
                 WHERE s.overpaid_minor > 0 ORDER BY s.since, s.order_id LIMIT $1",
                i64::from(count_max)
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let order = |(order_id, overpaid_minor, currency, since)| OverpaidOrder {
                order_id,
                overpaid_minor,
                currency,
                since,
            };
            Ok(rows.into_iter().map(|r| order((OrderId(r.order_id), r.overpaid_minor, r.currency, r.since))).collect())
        })
        .await
    }
}

//! The row of an order, and its translation to an order.

use super::error::StoreError;
use super::payment_key::account_of;
use crate::domain::{AccountId, Currency, Money, Order, OrderId, OrderStatus, PaymentFacts, PriceTerms, Provider};
use uuid::Uuid;

/// The columns that decisions are based on.
pub(super) struct OrderRow {
    pub(super) id: Uuid,
    pub(super) account_id: String,
    pub(super) credits: i64,
    pub(super) amount_minor: i64,
    pub(super) currency: String,
    pub(super) price_terms: String,
    pub(super) discount_max_minor: Option<i64>,
    pub(super) provider: String,
    pub(super) provider_account: String,
    pub(super) status: String,
    pub(super) is_granted: bool,
    pub(super) credits_granted: i64,
    pub(super) revision: i32,
    /// The facts as JSON text.
    pub(super) facts: String,
}

/// An [`OrderRow`] from a record of `sqlx::query!` that has its columns among others.
macro_rules! order_row {
    ($row:ident) => {
        $crate::store::order_row::OrderRow {
            id: $row.id,
            account_id: $row.account_id,
            credits: $row.credits,
            amount_minor: $row.amount_minor,
            currency: $row.currency,
            price_terms: $row.price_terms,
            discount_max_minor: $row.discount_max_minor,
            provider: $row.provider,
            provider_account: $row.provider_account,
            status: $row.status,
            is_granted: $row.is_granted,
            credits_granted: $row.credits_granted,
            revision: $row.revision,
            facts: $row.facts,
        }
    };
}
pub(super) use order_row;

pub(super) fn corrupt(id: Uuid, detail: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { what: format!("order {id}"), detail: detail.to_string() }
}

impl TryFrom<OrderRow> for Order {
    type Error = StoreError;

    fn try_from(row: OrderRow) -> Result<Self, StoreError> {
        let id = row.id;
        let currency = Currency::new(&row.currency).map_err(|e| corrupt(id, e))?;
        let price = Money::new(row.amount_minor, currency).map_err(|e| corrupt(id, e))?;
        Ok(Self {
            id: OrderId(id),
            account_id: AccountId::new(row.account_id).map_err(|e| corrupt(id, e))?,
            credits: row.credits,
            price,
            price_terms: PriceTerms::new(&row.price_terms, row.discount_max_minor, price)
                .map_err(|e| corrupt(id, e))?,
            provider: Provider::new(row.provider).map_err(|e| corrupt(id, e))?,
            provider_account: account_of(row.provider_account).map_err(|e| corrupt(id, e))?,
            status: OrderStatus::from_name(&row.status).ok_or_else(|| corrupt(id, &row.status))?,
            is_granted: row.is_granted,
            credits_posted: row.credits_granted,
            revision: row.revision,
            facts: serde_json::from_str::<PaymentFacts>(&row.facts).map_err(|e| corrupt(id, e))?,
        })
    }
}

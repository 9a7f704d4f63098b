//! What an operator sees and writes when a provider is to be asked about an order, or about a payment without one.

use super::{ProviderAnswer, account_of};
use crate::domain::{AuditAction, OrderId, PaymentId, Provider, ProviderAccount};
use crate::store::audit::{Actor, AuditEntry};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::Tx;
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

/// The largest number of ids that are read for one payment.
const IDS_MAX: i64 = 9;

/// The order or the payment that the provider is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AskedAbout {
    /// The payment of this order.
    Order(OrderId),
    /// A payment that may have no order.
    Payment {
        /// The provider of the payment.
        provider: Provider,
        /// The account at the provider. `None` is our own.
        provider_account: Option<ProviderAccount>,
        /// The id of the payment at the provider.
        payment_id: PaymentId,
    },
}

/// What is known about a payment that the provider can be asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Askable {
    /// The provider to ask.
    pub provider: Provider,
    /// The account at the provider. `None` is our own.
    pub provider_account: Option<ProviderAccount>,
    /// The ids of the payment. The first one is the id to ask by. If the list is empty, the order has no payment yet.
    pub payment_ids: Vec<PaymentId>,
    /// The order of the payment, if it has one.
    pub order_id: Option<OrderId>,
    /// When the provider was asked and will be asked. `None` if no question was ever planned.
    pub look: Option<LookState>,
}

/// How often and when the provider is asked about one payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookState {
    /// The time of the next question. `None` means never.
    pub due_at: Option<OffsetDateTime>,
    /// Whether somebody has requested a question now.
    pub is_wanted: bool,
    /// The time of the last question.
    pub asked_at: Option<OffsetDateTime>,
    /// The result of the last answer.
    pub last_answer: Option<ProviderAnswer>,
    /// How many times in a row the provider could not be asked.
    pub failures: i32,
}

impl Store {
    /// Reads what is known about the payment. Returns `None` if there is no such order.
    pub async fn askable(&self, about: AskedAbout) -> Result<Option<Askable>, StoreError> {
        self.run("reading what a provider can be asked", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let askable = match about {
                AskedAbout::Order(id) => tx.askable_of_order(id).await?,
                AskedAbout::Payment { provider, provider_account, payment_id } => {
                    Some(tx.askable_of_payment(provider, provider_account, payment_id).await?)
                }
            };
            tx.roll_back().await?;
            Ok(askable)
        })
        .await
    }

    /// Writes down the person who wants the provider asked, and the reason.
    pub async fn note_check(
        &self,
        askable: Askable,
        by: Actor,
        reason: String,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        self.run("noting that a provider is to be asked", move |pool| async move {
            let payment = askable.payment_ids.first().map(ToString::to_string).unwrap_or_default();
            let (action, subject) = match askable.order_id {
                Some(order) => (AuditAction::OrderCheck, order.to_string()),
                None => (AuditAction::PaymentCheck, payment.clone()),
            };
            let after = json!({
                "provider": askable.provider.as_str(),
                "provider_account": askable.provider_account.as_ref().map(ProviderAccount::as_str),
                "payment_id": payment,
            });
            let mut tx = Tx::begin(&pool).await?;
            let entry =
                AuditEntry { at: now, by: &by, action, subject, reason: &reason, count: 1, before: Value::Null, after };
            tx.write_audit(entry).await?;
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

fn corrupt(fault: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { what: "payments".to_owned(), detail: fault.to_string() }
}

/// One row of `provider_looks`.
struct Look {
    due_at: Option<OffsetDateTime>,
    wanted: i32,
    asked_at: Option<OffsetDateTime>,
    said: Option<String>,
    failures: i32,
    payment_id: String,
    order_id: Option<Uuid>,
}

impl From<&Look> for LookState {
    fn from(look: &Look) -> Self {
        Self {
            due_at: look.due_at,
            is_wanted: look.wanted > 0,
            asked_at: look.asked_at,
            last_answer: look.said.as_deref().and_then(ProviderAnswer::from_name),
            failures: look.failures,
        }
    }
}

impl Tx {
    async fn askable_of_order(&mut self, id: OrderId) -> Result<Option<Askable>, StoreError> {
        const WHAT: &str = "reading an order's payment";
        let order = sqlx::query!("SELECT provider, provider_account FROM orders WHERE id = $1", id.0)
            .fetch_optional(self.connection())
            .await
            .map_err(StoreError::sql(WHAT))?;
        let Some(order) = order else { return Ok(None) };
        let known = sqlx::query_scalar!(
            "SELECT payment_id FROM payments WHERE order_id = $1 ORDER BY registered_at, payment_id LIMIT $2",
            id.0,
            IDS_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let look = sqlx::query_as!(
            Look,
            "SELECT due_at, wanted, asked_at, said, failures, payment_id, order_id FROM provider_looks WHERE order_id = $1",
            id.0
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        // The reconciler asks by the id in its own row.
        let first = look.iter().map(|look| look.payment_id.clone());
        let mut payment_ids: Vec<PaymentId> = vec![];
        for text in first.chain(known) {
            let id = PaymentId::new(text).map_err(corrupt)?;
            if !payment_ids.contains(&id) {
                payment_ids.push(id);
            }
        }
        Ok(Some(Askable {
            provider: Provider::new(order.provider).map_err(corrupt)?,
            provider_account: account_of(order.provider_account).map_err(corrupt)?,
            payment_ids,
            order_id: Some(id),
            look: look.as_ref().map(LookState::from),
        }))
    }

    async fn askable_of_payment(
        &mut self,
        provider: Provider,
        provider_account: Option<ProviderAccount>,
        payment_id: PaymentId,
    ) -> Result<Askable, StoreError> {
        const WHAT: &str = "reading what is known of a payment";
        let account = provider_account.as_ref().map_or("", ProviderAccount::as_str);
        let look = sqlx::query_as!(
            Look,
            "SELECT due_at, wanted, asked_at, said, failures, payment_id, order_id FROM provider_looks
             WHERE payment_id = $1 AND provider = $2 AND provider_account = $3",
            payment_id.as_str(),
            provider.as_str(),
            account
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let owner = sqlx::query_scalar!(
            "SELECT order_id FROM payments WHERE payment_id = $1 AND provider = $2 AND provider_account = $3",
            payment_id.as_str(),
            provider.as_str(),
            account
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let order_id = owner.or(look.as_ref().and_then(|look| look.order_id)).map(OrderId);
        let look = look.as_ref().map(LookState::from);
        Ok(Askable { provider, provider_account, payment_ids: vec![payment_id], order_id, look })
    }
}

//! Orders, balances and ledger entries, as the API needs them.

use super::error::StoreError;
use super::order_row::corrupt;
use super::payment_key::PaymentKey;
use super::pool::Store;
use super::tx::Tx;
use crate::domain::{
    AccountId, Currency, Money, OrderId, OrderStatus, PaymentFacts, PaymentId, PriceTerms, Provider, ProviderAccount,
};
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

/// The largest number of entries on one page.
pub const ENTRIES_PAGE_MAX: u32 = 500;

/// A new order that a site asks for.
#[derive(Debug, Clone)]
pub struct NewOrder {
    /// The id of the new order.
    pub id: OrderId,
    /// The account that gets the credits.
    pub account_id: AccountId,
    /// The number of credits, above zero.
    pub credits: i64,
    /// The price, above zero.
    pub price: Money,
    /// The part of a payment that must equal the price.
    pub price_terms: PriceTerms,
    /// The provider that takes the money.
    pub provider: Provider,
    /// The account at the provider. `None` is our own.
    pub provider_account: Option<ProviderAccount>,
    /// The payment, if the site has made it itself. `None` if it is to be created at the provider.
    pub payment_id: Option<PaymentId>,
    /// The site's own notes, a JSON object.
    pub metadata: serde_json::Value,
    /// The time of the call.
    pub now: OffsetDateTime,
    /// When the provider is asked about the payment if no message about it arrives.
    pub first_look_at: OffsetDateTime,
}

/// The caller's idempotency key. Each token has keys of its own.
#[derive(Debug, Clone)]
pub struct IdempotencyKey {
    /// The name of the token that made the call.
    pub token_name: String,
    /// The key that the caller sent.
    pub key: String,
    /// The digest of the request. It tells a repetition from another request with the same key.
    pub request_digest: [u8; 32],
}

/// The result of attaching an order to a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attach {
    /// The order was created by this call.
    Created(Created),
    /// An earlier call with the same key and the same request created the order.
    Replayed(Created),
    /// Another request has used the key.
    KeyReused,
    /// The payment already belongs to an order, under another key.
    PaymentTaken,
}

/// The facts that were fixed when the order was created. Every repetition of the call gets the same ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Created {
    /// The id of the order.
    pub id: OrderId,
    /// When the order was created.
    pub created_at: OffsetDateTime,
}

/// An order, for readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderView {
    /// The id of the order.
    pub id: OrderId,
    /// The account that gets the credits.
    pub account_id: String,
    /// The number of credits that were sold.
    pub credits: i64,
    /// The number of credits that the account has from this order.
    pub credits_granted: i64,
    /// The price in minor units of ISO 4217.
    pub amount_minor: i64,
    /// The ISO 4217 code.
    pub currency: String,
    /// The part of a payment that must equal the price.
    pub price_terms: PriceTerms,
    /// The provider that takes the money.
    pub provider: String,
    /// The account at the provider. `None` is our own.
    pub provider_account: Option<String>,
    /// The first id by which the payment was registered.
    pub payment_id: Option<String>,
    /// The status of the order.
    pub status: OrderStatus,
    /// The version, which rises with every change.
    pub version: i64,
    /// The reason for the last failed attempt, as the provider gave it.
    pub last_failure: Option<String>,
    /// The site's own notes.
    pub metadata: serde_json::Value,
    /// When the order was created.
    pub created_at: OffsetDateTime,
    /// When the order was last changed.
    pub updated_at: OffsetDateTime,
}

/// The credits of an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Balance {
    /// The sum of all entries of the account.
    pub credits: i64,
}

named! {
    /// The kind of a ledger entry.
    pub enum EntryKind {
        /// The one grant of the order.
        Grant = "grant",
        /// A difference with a sign.
        Adjustment = "adjustment",
    }
}

/// One line of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The kind of the entry.
    pub kind: EntryKind,
    /// The order of the entry.
    pub order_id: OrderId,
    /// The number 0 for the grant, then 1, 2, and so on.
    pub revision: i32,
    /// The credits, with a sign.
    pub credits: i64,
    /// The text `grant`, or the status that the order got.
    pub reason: String,
    /// The message that led to the entry.
    pub message_id: String,
    /// When the entry was written.
    pub at: OffsetDateTime,
}

impl Store {
    /// Creates an order. If the site has made the payment itself, the order gets that payment. The order, the owner of the
    /// payment and the key are one transaction. If many calls for one payment run at once, exactly one of them creates an
    /// order.
    pub async fn attach_order(&self, key: IdempotencyKey, new: NewOrder) -> Result<Attach, StoreError> {
        self.run("creating an order", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            tx.insert_order(&new).await?;
            if !tx.insert_key(&key, &new).await? {
                // A call with this key has committed, because the statement waited for it. This transaction is undone.
                let earlier = tx.created_by(&key).await?;
                tx.roll_back().await?;
                return Ok(match earlier {
                    Some((digest, created)) if digest == key.request_digest => Attach::Replayed(created),
                    Some(_) | None => Attach::KeyReused,
                });
            }
            if let Some(payment_id) = &new.payment_id {
                let payment = PaymentKey::new(&new.provider, new.provider_account.as_ref(), payment_id);
                if !tx.insert_payment(payment, new.id, new.now).await? {
                    tx.roll_back().await?;
                    return Ok(Attach::PaymentTaken);
                }
                tx.insert_look(payment, new.id, new.now, new.first_look_at).await?;
            }
            let created = Created { id: new.id, created_at: new.now };
            tx.commit().await?;
            Ok(Attach::Created(created))
        })
        .await
    }

    /// Reads orders, in no particular order. Orders that do not exist are left out.
    pub async fn orders(&self, ids: &[OrderId]) -> Result<Vec<OrderView>, StoreError> {
        const WHAT: &str = "reading orders";
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(
                r#"SELECT o.id, o.account_id, o.credits, o.credits_granted, o.amount_minor, o.currency,
                          o.price_terms, o.discount_max_minor, o.provider, o.provider_account, o.status, o.version,
                          o.facts AS "facts: Json<PaymentFacts>", o.metadata, o.created_at, o.updated_at,
                          (SELECT p.payment_id FROM payments p WHERE p.order_id = o.id
                           ORDER BY p.registered_at, p.payment_id LIMIT 1) AS payment_id
                   FROM orders o WHERE o.id = ANY($1)"#,
                &ids
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let orders = rows.into_iter().map(|row| {
                let id = OrderId(row.id);
                let status = OrderStatus::from_name(&row.status).ok_or_else(|| corrupt(row.id, &row.status))?;
                let price = Currency::new(&row.currency).and_then(|currency| Money::new(row.amount_minor, currency));
                let price = price.map_err(|fault| corrupt(row.id, fault))?;
                let price_terms = PriceTerms::new(&row.price_terms, row.discount_max_minor, price);
                let price_terms = price_terms.map_err(|fault| corrupt(row.id, fault))?;
                Ok(OrderView {
                    id,
                    price_terms,
                    account_id: row.account_id,
                    credits: row.credits,
                    credits_granted: row.credits_granted,
                    amount_minor: row.amount_minor,
                    currency: row.currency,
                    provider: row.provider,
                    provider_account: Some(row.provider_account).filter(|account| !account.is_empty()),
                    payment_id: row.payment_id,
                    status,
                    version: row.version,
                    last_failure: row.facts.0.last_failure().map(str::to_owned),
                    metadata: row.metadata,
                    created_at: row.created_at,
                    updated_at: row.updated_at,
                })
            });
            orders.collect()
        })
        .await
    }

    /// Adds up the entries of an account. An account without entries has 0 credits.
    pub async fn balance(&self, account: AccountId) -> Result<Balance, StoreError> {
        const WHAT: &str = "reading a balance";
        self.run(WHAT, move |pool| async move {
            let credits =
                sqlx::query_scalar!("SELECT credits FROM account_balances WHERE account_id = $1", account.as_str())
                    .fetch_optional(&mut *pool.connection().await?)
                    .await
                    .map_err(StoreError::sql(WHAT))?;
            Ok(Balance { credits: credits.flatten().unwrap_or(0) })
        })
        .await
    }

    /// Reads the ledger lines of an account, the oldest first, after the line `after` (time, order, revision).
    pub async fn entries(
        &self,
        account: AccountId,
        after: Option<(OffsetDateTime, OrderId, i32)>,
        count_max: u32,
    ) -> Result<Vec<Entry>, StoreError> {
        const WHAT: &str = "reading ledger entries";
        let (at, order_id, revision) =
            after.map_or((OffsetDateTime::UNIX_EPOCH, Uuid::nil(), 0), |(a, o, r)| (a, o.0, r));
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(
                r#"SELECT at AS "at!", order_id AS "order_id!", revision AS "revision!", credits AS "credits!",
                          reason AS "reason!", message_id AS "message_id!"
                   FROM (
                       (SELECT g.granted_at AS at, g.order_id, 0 AS revision, g.credits, 'grant' AS reason, g.message_id
                        FROM orders o JOIN credit_grants g ON g.order_id = o.id
                        WHERE o.account_id = $1 AND (g.granted_at, g.order_id, 0) > ($2, $3, $4)
                        ORDER BY g.granted_at, g.order_id LIMIT $5)
                       UNION ALL
                       (SELECT created_at, order_id, revision, credits, reason, message_id
                        FROM credit_adjustments
                        WHERE account_id = $1 AND (created_at, order_id, revision) > ($2, $3, $4)
                        ORDER BY created_at, order_id, revision LIMIT $5)
                   ) AS entries
                   ORDER BY 1, 2, 3 LIMIT $5"#,
                account.as_str(),
                at,
                order_id,
                revision,
                i64::from(count_max.min(ENTRIES_PAGE_MAX))
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            Ok(rows
                .into_iter()
                .map(|row| Entry {
                    kind: if row.revision == 0 { EntryKind::Grant } else { EntryKind::Adjustment },
                    order_id: OrderId(row.order_id),
                    revision: row.revision,
                    credits: row.credits,
                    reason: row.reason,
                    message_id: row.message_id,
                    at: row.at,
                })
                .collect())
        })
        .await
    }
}

impl Tx {
    async fn insert_order(&mut self, new: &NewOrder) -> Result<(), StoreError> {
        let currency = new.price.currency();
        sqlx::query!(
            "INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, provider_account, metadata,
                                 created_at, updated_at, price_terms, discount_max_minor)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $9, $10, $11)",
            new.id.0,
            new.account_id.as_str(),
            new.credits,
            new.price.amount_minor(),
            currency.as_str(),
            new.provider.as_str(),
            new.provider_account.as_ref().map_or("", ProviderAccount::as_str),
            new.metadata,
            new.now,
            new.price_terms.name(),
            new.price_terms.discount_max_minor()
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("inserting an order"))?;
        Ok(())
    }

    async fn insert_key(&mut self, key: &IdempotencyKey, new: &NewOrder) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "INSERT INTO idempotency_keys (token_name, key, request_digest, order_id, created_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            key.token_name,
            key.key,
            &key.request_digest[..],
            new.id.0,
            new.now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("inserting an idempotency key"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn created_by(&mut self, key: &IdempotencyKey) -> Result<Option<(Vec<u8>, Created)>, StoreError> {
        let row = sqlx::query!(
            "SELECT k.request_digest, o.id, o.created_at FROM idempotency_keys k JOIN orders o ON o.id = k.order_id
             WHERE k.token_name = $1 AND k.key = $2",
            key.token_name,
            key.key
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql("reading an idempotency key"))?;
        Ok(row.map(|row| (row.request_digest, Created { id: OrderId(row.id), created_at: row.created_at })))
    }

    /// Returns `false` if the payment already belongs to an order.
    pub(super) async fn insert_payment(
        &mut self,
        payment: PaymentKey<'_>,
        order_id: OrderId,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "INSERT INTO payments (provider, provider_account, payment_id, order_id, registered_at)
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            payment.provider,
            payment.account,
            payment.payment_id,
            order_id.0,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("registering a payment"))?;
        Ok(done.rows_affected() == 1)
    }
}

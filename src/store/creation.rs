//! Attempts to create an order's payment at its provider. Each is committed before its call is made.

use super::error::StoreError;
use super::payment_key::{PaymentKey, account_of};
use super::pool::Store;
use super::tx::Tx;
use crate::domain::{Attempt, Currency, Money, OrderId, PaymentId, Provider, ProviderAccount};
use std::fmt;
use time::OffsetDateTime;

/// An order whose payment is created at its provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Creation {
    /// Who takes the money.
    pub provider: Provider,
    /// At which account there; none is our own.
    pub provider_account: Option<ProviderAccount>,
    /// How much, as the order stands now.
    pub price: Money,
    /// All attempts so far, by their numbers.
    pub attempts: Vec<Attempt>,
    /// The payment, once one was handed out.
    pub handed_out: Option<HandedOut>,
}

/// What a buyer pays with.
#[derive(Clone, PartialEq, Eq)]
pub struct HandedOut {
    /// The payment's id.
    pub payment_id: PaymentId,
    /// With which the buyer's browser pays.
    pub client_secret: Option<String>,
    /// Where the buyer approves the payment.
    pub approve_url: Option<String>,
}

impl fmt::Debug for HandedOut {
    /// Without what the payment can be paid with.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedOut").field("payment_id", &self.payment_id).finish_non_exhaustive()
    }
}

/// What came of keeping a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The one that is handed out: this one, or one that a parallel call was faster with.
    HandedOut(HandedOut),
    /// The payment belongs to another order.
    PaymentTaken,
}

fn corrupt(id: OrderId, detail: impl fmt::Display) -> StoreError {
    StoreError::Corrupt { what: format!("order {id}"), detail: detail.to_string() }
}

impl Store {
    /// Reads how far the creation of an order's payment has come; none where there is no such order.
    pub async fn creation(&self, id: OrderId) -> Result<Option<Creation>, StoreError> {
        self.run("reading payment attempts", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let creation = tx.creation(id).await?;
            tx.roll_back().await?;
            Ok(creation)
        })
        .await
    }

    /// Commits that a call under this attempt's key is about to be made. `seen` are the attempts by which that was decided:
    /// a new one is opened only where they are all there is, and none was sent again since. `false`: another call is further
    /// already; read the creation again.
    pub async fn begin_attempt(
        &self,
        id: OrderId,
        number: i32,
        seen: Vec<Attempt>,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.run("beginning a payment attempt", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            // One at a time: of two that want to open a new attempt, the second finds the first one's.
            let Some(creation) = tx.locked_creation(id).await? else {
                tx.roll_back().await?;
                return Ok(false);
            };
            let last = creation.attempts.last();
            let is_last = last.is_some_and(|last| last.number == number && !last.is_burnt);
            // What was sent again meanwhile may have made a payment behind the back of who looked for one.
            let is_next = creation.attempts == seen && last.map_or(1, |last| last.number + 1) == number;
            if creation.handed_out.is_some() || !(is_last || is_next) {
                tx.roll_back().await?;
                return Ok(false);
            }
            tx.touch_attempt(id, number, now).await?;
            tx.commit().await?;
            Ok(true)
        })
        .await
    }

    /// Notes that the provider has bound an attempt's key to something that is no payment.
    pub async fn burn_attempt(&self, id: OrderId, number: i32) -> Result<(), StoreError> {
        const WHAT: &str = "burning a payment attempt";
        self.run(WHAT, move |pool| async move {
            sqlx::query!(
                "UPDATE payment_attempts SET is_burnt = true WHERE order_id = $1 AND number = $2 AND payment_id IS NULL",
                id.0,
                number
            )
            .execute(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            Ok(())
        })
        .await
    }

    /// Keeps the payment that an attempt has made, or was found to have made, and registers it to the order. The first one
    /// that is kept stays the one that is handed out. Where nothing is heard of it, its provider is asked at `first_look_at`.
    pub async fn keep_payment(
        &self,
        id: OrderId,
        number: i32,
        made: HandedOut,
        now: OffsetDateTime,
        first_look_at: OffsetDateTime,
    ) -> Result<Kept, StoreError> {
        self.run("keeping a payment", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let Some(creation) = tx.locked_creation(id).await? else {
                return Err(corrupt(id, "is gone"));
            };
            if let Some(first) = creation.handed_out {
                tx.roll_back().await?;
                return Ok(Kept::HandedOut(first));
            }
            // A webhook may have been faster and have registered it to this very order.
            let payment = PaymentKey::new(&creation.provider, creation.provider_account.as_ref(), &made.payment_id);
            if !tx.insert_payment(payment, id, now).await? && tx.owner_of(payment).await? != Some(id) {
                tx.roll_back().await?;
                return Ok(Kept::PaymentTaken);
            }
            tx.write_made(id, number, &made).await?;
            tx.insert_look(payment, id, now, first_look_at).await?;
            tx.commit().await?;
            Ok(Kept::HandedOut(made))
        })
        .await
    }
}

impl Tx {
    async fn locked_creation(&mut self, id: OrderId) -> Result<Option<Creation>, StoreError> {
        // Not the order's row: who may lock that may change it, and this is the API.
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) AS locked", format!("creation {id}"))
            .fetch_one(self.connection())
            .await
            .map_err(StoreError::sql("locking a creation"))?;
        // In a later statement: what the locking one sees may be stale by the time that it has the lock.
        self.creation(id).await
    }

    async fn creation(&mut self, id: OrderId) -> Result<Option<Creation>, StoreError> {
        let order =
            sqlx::query!("SELECT provider, provider_account, amount_minor, currency FROM orders WHERE id = $1", id.0)
                .fetch_optional(self.connection())
                .await
                .map_err(StoreError::sql("reading an order's price"))?;
        let Some(order) = order else { return Ok(None) };
        let rows = sqlx::query!(
            "SELECT number, first_sent_at, last_sent_at, is_burnt, payment_id, client_secret, approve_url
             FROM payment_attempts WHERE order_id = $1 ORDER BY number",
            id.0
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("reading payment attempts"))?;
        let currency = Currency::new(&order.currency).map_err(|error| corrupt(id, error))?;
        let mut creation = Creation {
            provider: Provider::new(order.provider).map_err(|error| corrupt(id, error))?,
            provider_account: account_of(order.provider_account).map_err(|error| corrupt(id, error))?,
            price: Money::new(order.amount_minor, currency).map_err(|error| corrupt(id, error))?,
            attempts: Vec::with_capacity(rows.len()),
            handed_out: None,
        };
        for row in rows {
            creation.attempts.push(Attempt {
                number: row.number,
                first_sent_at: row.first_sent_at,
                last_sent_at: row.last_sent_at,
                is_burnt: row.is_burnt,
            });
            if let Some(payment_id) = row.payment_id {
                creation.handed_out = Some(HandedOut {
                    payment_id: PaymentId::new(payment_id).map_err(|error| corrupt(id, error))?,
                    client_secret: row.client_secret,
                    approve_url: row.approve_url,
                });
            }
        }
        Ok(Some(creation))
    }

    async fn touch_attempt(&mut self, id: OrderId, number: i32, now: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO payment_attempts (order_id, number, first_sent_at, last_sent_at) VALUES ($1, $2, $3, $3)
             ON CONFLICT (order_id, number)
             DO UPDATE SET last_sent_at = greatest(payment_attempts.last_sent_at, excluded.last_sent_at)",
            id.0,
            number,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing a payment attempt"))?;
        Ok(())
    }

    async fn owner_of(&mut self, payment: PaymentKey<'_>) -> Result<Option<OrderId>, StoreError> {
        let owner = sqlx::query_scalar!(
            "SELECT order_id FROM payments WHERE payment_id = $1 AND provider = $2 AND provider_account = $3",
            payment.payment_id,
            payment.provider,
            payment.account
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql("reading a payment's owner"))?;
        Ok(owner.map(OrderId))
    }

    async fn write_made(&mut self, id: OrderId, number: i32, made: &HandedOut) -> Result<(), StoreError> {
        let done = sqlx::query!(
            "UPDATE payment_attempts SET payment_id = $3, client_secret = $4, approve_url = $5
             WHERE order_id = $1 AND number = $2",
            id.0,
            number,
            made.payment_id.as_str(),
            made.client_secret,
            made.approve_url
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("writing a payment attempt's result"))?;
        if done.rows_affected() == 1 { Ok(()) } else { Err(corrupt(id, format_args!("has no attempt {number}"))) }
    }
}

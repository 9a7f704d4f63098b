//! Attempts to create an order's payment at its provider. Each attempt is committed before its call is made.

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
    /// The provider that takes the money.
    pub provider: Provider,
    /// The account at the provider. `None` is our own.
    pub provider_account: Option<ProviderAccount>,
    /// The present price of the order.
    pub price: Money,
    /// All attempts so far, in the order of their numbers.
    pub attempts: Vec<Attempt>,
    /// The payment, once it was handed out.
    pub handed_out: Option<HandedOut>,
}

/// The data with which a buyer pays.
#[derive(Clone, PartialEq, Eq)]
pub struct HandedOut {
    /// The id of the payment.
    pub payment_id: PaymentId,
    /// The secret with which the buyer's browser pays.
    pub client_secret: Option<String>,
    /// The page where the buyer approves the payment.
    pub approve_url: Option<String>,
}

impl fmt::Debug for HandedOut {
    /// Prints the value without the data that allows a payment.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandedOut").field("payment_id", &self.payment_id).finish_non_exhaustive()
    }
}

/// The result of keeping a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The payment that is handed out: this one, or that of a parallel call that was faster.
    HandedOut(HandedOut),
    /// The payment belongs to another order.
    PaymentTaken,
}

fn corrupt(id: OrderId, detail: impl fmt::Display) -> StoreError {
    StoreError::Corrupt { what: format!("order {id}"), detail: detail.to_string() }
}

impl Store {
    /// Reads how far the creation of an order's payment is. Returns `None` if there is no such order.
    pub async fn creation(&self, id: OrderId) -> Result<Option<Creation>, StoreError> {
        self.run("reading payment attempts", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let creation = tx.creation(id).await?;
            tx.roll_back().await?;
            Ok(creation)
        })
        .await
    }

    /// Commits that a call with the key of this attempt is about to be made. `seen` are the attempts on which the caller
    /// decided. A new attempt is opened only if there are no others, and none was sent again since. Returns `false` if
    /// another call has got further. The caller then reads the creation again.
    pub async fn begin_attempt(
        &self,
        id: OrderId,
        number: i32,
        seen: Vec<Attempt>,
        now: OffsetDateTime,
    ) -> Result<bool, StoreError> {
        self.run("beginning a payment attempt", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            // Only one call at a time gets past this lock. If two calls want to open a new attempt, the second one finds the
            // attempt of the first.
            let Some(creation) = tx.locked_creation(id).await? else {
                tx.roll_back().await?;
                return Ok(false);
            };
            let last = creation.attempts.last();
            let is_last = last.is_some_and(|last| last.number == number && !last.is_burnt);
            // An attempt that was sent again meanwhile may have made a payment that the caller's search has missed.
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

    /// Notes that the provider has bound the key of an attempt to something that is no payment.
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

    /// Keeps the payment that an attempt has made or found, and registers it for the order. The first payment that is kept
    /// is the one that is handed out. If no message about it arrives, its provider is asked at `first_look_at`.
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
            // A webhook may have been faster and have registered the payment for this order.
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
        // This is an advisory lock, not a lock on the order's row. The right to lock a row is the right to change it, and
        // this is the API.
        sqlx::query!("SELECT pg_advisory_xact_lock(hashtextextended($1, 0)) AS locked", format!("creation {id}"))
            .fetch_one(self.connection())
            .await
            .map_err(StoreError::sql("locking a creation"))?;
        // The creation is read in a later statement, because the snapshot of the locking statement may be stale once it has
        // the lock.
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

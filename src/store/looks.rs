//! When each provider is asked about which payment. Several processes share this work. A payment that one process has
//! claimed is not given to another until the lease ends, and all processes together keep one rate.

mod ask;
mod sql;

pub use ask::{Askable, AskedAbout, LookState};

use super::error::StoreError;
use super::payment_key::{PaymentKey, account_of};
use super::pool::Store;
use super::tx::{Committed, Tx};
use crate::domain::{
    Hint, OrderId, OrderStatus, PaymentId, Provider, ProviderAccount, allowance, busy_until, can_be_asked,
};
use std::time::Duration;
use time::OffsetDateTime;

/// What to claim, and for how long.
#[derive(Debug, Clone)]
pub struct ClaimTerms {
    /// The provider to ask.
    pub provider: Provider,
    /// The largest number of questions a second, for all processes together.
    pub per_s_max: u16,
    /// How long no other process may claim them.
    pub lease: Duration,
    /// The present time.
    pub now: OffsetDateTime,
}

/// A payment that is claimed and that the provider is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueLook {
    /// The provider to ask.
    pub provider: Provider,
    /// The account of the payment at the provider. `None` is our own.
    pub provider_account: Option<ProviderAccount>,
    /// The id by which the payment is asked for.
    pub payment_id: PaymentId,
    /// The order that the payment pays for, if it is known.
    pub order: Option<LookedAt>,
    /// When the first question was planned.
    pub created_at: OffsetDateTime,
    /// How many times in a row the provider could not be asked.
    pub failures: u32,
    /// The result of the provider's last answer.
    pub last_answer: Option<ProviderAnswer>,
    claim: Claim,
}

/// The order whose payment is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedAt {
    /// The id of the order.
    pub id: OrderId,
    /// The status of the order when it was claimed.
    pub status: OrderStatus,
    /// When the order was created.
    pub created_at: OffsetDateTime,
    /// Whether the price terms of the order need the tax and the discount of the payment.
    pub needs_breakdown: bool,
}

/// Tells one claim from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    at: OffsetDateTime,
    wanted: i32,
}

named! {
    /// The result of a provider's answer.
    pub enum ProviderAnswer {
        /// Money was received.
        Paid = "paid",
        /// No money was received, or not yet.
        Unpaid = "unpaid",
        /// Money was received, and a part of it was returned. The provider tells of no refund, and the order knows of none.
        RefundUntold = "refund_untold",
        /// The provider knows no such payment.
        Unknown = "unknown",
    }
}

/// The result of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// The provider answered.
    Answered {
        /// The result of the answer.
        answer: ProviderAnswer,
        /// When to ask again. `None` means never, and a payment without an order is then also forgotten.
        next_at: Option<OffsetDateTime>,
        /// When to ask again if somebody has requested it meanwhile.
        wanted_at: OffsetDateTime,
    },
    /// The provider could not be asked.
    Failed {
        /// When to ask again. `None` means never, and a payment without an order is then also forgotten.
        next_at: Option<OffsetDateTime>,
    },
}

/// The result of a request to ask the provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The provider will be asked as soon as its rate allows.
    Due,
    /// The provider is going to be asked anyway.
    Coalesced,
    /// The order has no payment yet.
    NoPayment,
    /// This provider cannot be asked: it only sends messages.
    CannotBeAsked,
}

/// The order that a hint leads to.
#[derive(Debug, Clone, Copy)]
struct Led {
    order_id: OrderId,
    /// Whether the order knows its payment by the first id of the hint.
    by_first_id: bool,
}

impl DueLook {
    fn payment(&self) -> PaymentKey<'_> {
        PaymentKey::new(&self.provider, self.provider_account.as_ref(), &self.payment_id)
    }
}

impl Store {
    /// Claims the payments that are due.
    pub async fn claim_looks(&self, terms: ClaimTerms) -> Result<Vec<DueLook>, StoreError> {
        self.run("claiming looks", move |pool| async move {
            let ClaimTerms { provider, per_s_max, lease, now } = terms;
            let mut tx = Tx::begin(&pool).await?;
            let busy = tx.locked_pace(&provider, now).await?;
            let count_max = allowance(per_s_max, busy, now);
            if count_max == 0 {
                tx.roll_back().await?;
                return Ok(vec![]);
            }
            tx.put_off_what_is_paid(&provider, now).await?;
            let due = tx.claim(&provider, count_max, now, now - lease).await?;
            let count = u16::try_from(due.len()).unwrap_or(count_max);
            if count > 0 {
                tx.set_pace(&provider, busy_until(per_s_max, count, busy, now)).await?;
            }
            tx.commit().await?;
            Ok(due)
        })
        .await
    }

    /// Writes the result of a claimed question. It writes nothing if the lease has ended and another process has claimed the
    /// payment.
    pub async fn finish_look(&self, look: DueLook, looked: Looked, now: OffsetDateTime) -> Result<(), StoreError> {
        self.run("finishing a look", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let next_at = match looked {
                Looked::Answered { answer, next_at, wanted_at } => {
                    tx.answered(&look, answer, next_at, wanted_at, now).await?;
                    next_at
                }
                Looked::Failed { next_at } => {
                    tx.not_answered(&look, next_at, now).await?;
                    next_at
                }
            };
            if look.order.is_none() && next_at.is_none() {
                tx.forget(&look).await?;
            }
            tx.commit().await?;
            Ok(())
        })
        .await
    }

    /// Makes the question about an order due, but not within [`crate::domain::LOOKS_APART`] of the last one. Returns `None`
    /// if there is no such order.
    pub async fn want_look(&self, id: OrderId, now: OffsetDateTime) -> Result<Option<Wanted>, StoreError> {
        self.run("wanting a look", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            tx.lock_looks(vec![id], vec![]).await?;
            let wanted = match tx.want_of_order(id, now).await? {
                Some(wanted) => Some(wanted),
                None => tx.provider_of(id).await?.map(|provider| match can_be_asked(&provider) {
                    true => Wanted::NoPayment,
                    false => Wanted::CannotBeAsked,
                }),
            };
            tx.commit().await?;
            Ok(wanted)
        })
        .await
    }

    /// Whether the order exists.
    pub async fn is_order(&self, id: OrderId) -> Result<bool, StoreError> {
        self.run("looking for an order", move |pool| async move {
            let found = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM orders WHERE id = $1) AS "found!""#, id.0);
            found.fetch_one(&mut *pool.connection().await?).await.map_err(StoreError::sql("looking for an order"))
        })
        .await
    }

    /// Whether the order has a payment with an id that is not among these.
    pub async fn has_payment_besides(&self, id: OrderId, ids: Vec<PaymentId>) -> Result<bool, StoreError> {
        let ids: Vec<String> = ids.into_iter().map(PaymentId::into_string).collect();
        self.run("looking for an order's payments", move |pool| async move {
            let found = sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM payments WHERE order_id = $1 AND payment_id <> ALL($2)) AS "found!""#,
                id.0,
                &ids
            );
            found
                .fetch_one(&mut *pool.connection().await?)
                .await
                .map_err(StoreError::sql("looking for an order's payments"))
        })
        .await
    }

    /// Makes questions due for the payments of these hints. If a hint leads to no order of ours, its own id is asked about.
    /// The same holds if the order does not know its payment by this id, for example a refund that only the hint names.
    pub async fn want_looks(&self, hints: Vec<Hint>, now: OffsetDateTime) -> Result<Committed, StoreError> {
        self.run("wanting looks", move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let mut wants: Vec<(Option<Led>, &Hint)> = vec![];
            for hint in &hints {
                wants.push((tx.order_of(hint).await?, hint));
            }
            wants.sort_by_cached_key(|(_, hint)| hint.payment_id.clone());
            let orders = wants.iter().filter_map(|(led, _)| led.map(|led| led.order_id)).collect();
            tx.lock_looks(orders, wants.iter().map(|(_, hint)| hint.payment_id.as_str()).collect()).await?;
            for (led, hint) in wants {
                let payment = PaymentKey::new(&hint.provider, hint.provider_account.as_ref(), &hint.payment_id);
                let of_order = match led {
                    Some(led) => tx.want_of_order(led.order_id, now).await?,
                    None => None,
                };
                match (of_order, led) {
                    (None, _) => tx.want_of_payment(payment, led.map(|led| led.order_id), now).await?,
                    (Some(_), Some(led)) if !led.by_first_id && hint.provider == Provider::PAYPAL => {
                        tx.want_of_payment(payment, None, now).await?
                    }
                    (Some(_), _) => {}
                }
            }
            tx.commit().await
        })
        .await
    }
}

//! What providers are to be asked about, and when. Several processes share the work: what one has claimed is not given to
//! another before its lease is over, and all of them together keep one rate.

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

/// What is claimed, and for how long.
#[derive(Debug, Clone)]
pub struct ClaimTerms {
    /// Whom to ask about.
    pub provider: Provider,
    /// At most so many a second, by all processes together.
    pub per_s_max: u16,
    /// How long they are nobody else's.
    pub lease: Duration,
    /// When.
    pub now: OffsetDateTime,
}

/// Something to ask about, which is claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DueLook {
    /// Whom to ask.
    pub provider: Provider,
    /// About a payment at which account there; none is our own.
    pub provider_account: Option<ProviderAccount>,
    /// By which id.
    pub payment_id: PaymentId,
    /// The order that it pays for, where we know of one.
    pub order: Option<LookedAt>,
    /// When it was first to be asked about.
    pub created_at: OffsetDateTime,
    /// How often in a row the provider could not be asked.
    pub failures: u32,
    /// What the provider's last answer came to.
    pub last_answer: Option<ProviderAnswer>,
    claim: Claim,
}

/// An order whose payment is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookedAt {
    /// Which.
    pub id: OrderId,
    /// How it stood when it was claimed.
    pub status: OrderStatus,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// Whether its price terms need the tax and discount in what was paid.
    pub needs_breakdown: bool,
}

/// Tells one claim from the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Claim {
    at: OffsetDateTime,
    wanted: i32,
}

named! {
    /// What a provider's answer came to.
    pub enum ProviderAnswer {
        /// Money came in.
        Paid = "paid",
        /// It did not, or not yet.
        Unpaid = "unpaid",
        /// Money came in, and some of it went back, of which the provider tells no refund and the order knows none.
        RefundUntold = "refund_untold",
        /// It knows no such payment.
        Unknown = "unknown",
    }
}

/// What came of asking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Looked {
    /// The provider answered.
    Answered {
        /// What.
        answer: ProviderAnswer,
        /// When to ask again. Never: what belongs to no order is forgotten, too.
        next_at: Option<OffsetDateTime>,
        /// When to ask again where somebody has asked for it meanwhile.
        wanted_at: OffsetDateTime,
    },
    /// It could not be asked.
    Failed {
        /// When to ask again. Never: what belongs to no order is forgotten, too.
        next_at: Option<OffsetDateTime>,
    },
}

/// What came of wanting a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// The provider will be asked as soon as its turn comes.
    Due,
    /// It is going to be asked anyway.
    Coalesced,
    /// The order has no payment yet.
    NoPayment,
    /// The provider tells of payments by messages alone.
    CannotBeAsked,
}

/// The order that a hint leads to.
#[derive(Debug, Clone, Copy)]
struct Led {
    order_id: OrderId,
    /// Whether the hint's first id is one that the order knows its payment by.
    by_first_id: bool,
}

impl DueLook {
    fn payment(&self) -> PaymentKey<'_> {
        PaymentKey::new(&self.provider, self.provider_account.as_ref(), &self.payment_id)
    }
}

impl Store {
    /// Claims what is due.
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

    /// Notes what came of a look that was claimed. Nothing, where the lease was over and somebody else has claimed it.
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

    /// Makes an order's look due, though not within [`crate::domain::LOOKS_APART`] of the last one. None where there is no such order.
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

    /// Whether that is an order of ours.
    pub async fn is_order(&self, id: OrderId) -> Result<bool, StoreError> {
        self.run("looking for an order", move |pool| async move {
            let found = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM orders WHERE id = $1) AS "found!""#, id.0);
            found.fetch_one(&mut *pool.connection().await?).await.map_err(StoreError::sql("looking for an order"))
        })
        .await
    }

    /// Whether an order is known to have a payment by another id than these.
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

    /// Makes looks due for what hints are about. What leads to no order of ours is asked about by its own id, and so is what an
    /// order of ours does not know its payment by: a refund that only the hint names.
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

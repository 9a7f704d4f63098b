//! The statements about questions to providers.

use super::{Claim, DueLook, Led, LookedAt, ProviderAnswer, Wanted};
use crate::domain::{
    Hint, LOOKS_APART, OrderId, OrderStatus, PAID_FIRST_LOOK, PaymentId, PriceTerms, Provider, ProviderAccount,
    can_be_asked,
};
use crate::store::error::StoreError;
use crate::store::payment_key::{PaymentKey, account_of};
use crate::store::tx::Tx;
use time::OffsetDateTime;
use uuid::Uuid;

/// The largest number of paid orders that are put off at once, because webhooks have already told everything.
const PUT_OFF_MAX: i64 = 1_000;

impl Tx {
    /// Writes when an order's payment is first asked about. A hint may have been there before.
    pub(in crate::store) async fn insert_look(
        &mut self,
        payment: PaymentKey<'_>,
        order_id: OrderId,
        now: OffsetDateTime,
        due_at: OffsetDateTime,
    ) -> Result<(), StoreError> {
        if !can_be_asked(payment.provider) {
            return Ok(());
        }
        sqlx::query!(
            "INSERT INTO provider_looks (provider, provider_account, payment_id, order_id, created_at, due_at)
             VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (payment_id, provider, provider_account) DO UPDATE
             SET order_id = excluded.order_id, due_at = least(provider_looks.due_at, excluded.due_at)
             WHERE provider_looks.order_id IS NULL",
            payment.provider,
            payment.account,
            payment.payment_id,
            order_id.0,
            now,
            due_at
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("noting a first look"))?;
        Ok(())
    }

    /// The time until which this provider's rate is used up. Other processes that want to claim its payments wait for this
    /// lock.
    pub(super) async fn locked_pace(
        &mut self,
        provider: &Provider,
        now: OffsetDateTime,
    ) -> Result<OffsetDateTime, StoreError> {
        sqlx::query!(
            "INSERT INTO provider_pace (provider, busy_until) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            provider.as_str(),
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("beginning a provider's pace"))?;
        sqlx::query_scalar!("SELECT busy_until FROM provider_pace WHERE provider = $1 FOR UPDATE", provider.as_str())
            .fetch_one(self.connection())
            .await
            .map_err(StoreError::sql("reading a provider's pace"))
    }

    pub(super) async fn set_pace(&mut self, provider: &Provider, busy_until: OffsetDateTime) -> Result<(), StoreError> {
        sqlx::query!("UPDATE provider_pace SET busy_until = $2 WHERE provider = $1", provider.as_str(), busy_until)
            .execute(self.connection())
            .await
            .map_err(StoreError::sql("writing a provider's pace"))?;
        Ok(())
    }

    /// An order that was paid before its first question needs none so soon. That is true for most orders, and it saves a
    /// call for each. It does not apply if the provider says that money was returned and tells of no refund: see
    /// [`ProviderAnswer::RefundUntold`].
    pub(super) async fn put_off_what_is_paid(
        &mut self,
        provider: &Provider,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE provider_looks l SET due_at = o.created_at + make_interval(secs => $3)
             FROM (SELECT l.payment_id, l.provider, l.provider_account, o.created_at
                   FROM provider_looks l JOIN orders o ON o.id = l.order_id
                   WHERE l.provider = $1 AND l.due_at <= $2 AND l.wanted = 0 AND l.failures = 0 AND l.claimed_at IS NULL
                     AND o.status IN ('fulfilled', 'partially_refunded', 'refunded', 'disputed')
                     AND o.created_at + make_interval(secs => $3) > $2
                     AND l.said IS DISTINCT FROM 'refund_untold'
                   LIMIT $4 FOR UPDATE OF l SKIP LOCKED) o
             WHERE l.payment_id = o.payment_id AND l.provider = o.provider AND l.provider_account = o.provider_account",
            provider.as_str(),
            now,
            PAID_FIRST_LOOK.as_seconds_f64(),
            PUT_OFF_MAX
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("putting looks off"))?;
        Ok(())
    }

    /// Payments that somebody requested come first, then those that have waited longest.
    pub(super) async fn claim(
        &mut self,
        provider: &Provider,
        count_max: u16,
        now: OffsetDateTime,
        leased_since: OffsetDateTime,
    ) -> Result<Vec<DueLook>, StoreError> {
        const WHAT: &str = "claiming looks";
        let rows = sqlx::query!(
            r#"WITH wanted AS (
                   SELECT payment_id, provider_account, 0 AS turn FROM provider_looks
                   WHERE provider = $1 AND wanted > 0 AND due_at <= $2 AND (claimed_at IS NULL OR claimed_at <= $3)
                   ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED),
               others AS (
                   SELECT payment_id, provider_account, 1 AS turn FROM provider_looks
                   WHERE provider = $1 AND wanted = 0 AND due_at <= $2 AND (claimed_at IS NULL OR claimed_at <= $3)
                   ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED),
               due AS (
                   SELECT payment_id, provider_account FROM (SELECT * FROM wanted UNION ALL SELECT * FROM others) AS candidates
                   ORDER BY turn LIMIT $4),
               claimed AS (
                   UPDATE provider_looks l SET claimed_at = $2 FROM due
                   WHERE l.payment_id = due.payment_id AND l.provider = $1 AND l.provider_account = due.provider_account
                   RETURNING l.payment_id, l.provider_account, l.order_id, l.created_at, l.failures, l.said, l.wanted)
               SELECT c.payment_id, c.provider_account, c.order_id, c.created_at, c.failures, c.said, c.wanted,
                      o.status AS "status?", o.created_at AS "order_created_at?",
                      o.price_terms AS "price_terms?"
               FROM claimed c LEFT JOIN orders o ON o.id = c.order_id"#,
            provider.as_str(),
            now,
            leased_since,
            i64::from(count_max)
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        rows.into_iter()
            .map(|row| {
                let corrupt = |detail: String| StoreError::Corrupt { what: "provider_looks".to_owned(), detail };
                let order = row.order_id.zip(row.status.zip(row.order_created_at).zip(row.price_terms));
                let order = order.map(|(id, ((status, created_at), price_terms))| {
                    let status = OrderStatus::from_name(&status).ok_or_else(|| corrupt(status))?;
                    let needs_breakdown = price_terms != PriceTerms::Total.name();
                    Ok::<_, StoreError>(LookedAt { id: OrderId(id), status, created_at, needs_breakdown })
                });
                Ok(DueLook {
                    provider: provider.clone(),
                    provider_account: account_of(row.provider_account).map_err(|error| corrupt(error.to_string()))?,
                    payment_id: PaymentId::new(row.payment_id).map_err(|error| corrupt(error.to_string()))?,
                    order: order.transpose()?,
                    created_at: row.created_at,
                    failures: u32::try_from(row.failures).unwrap_or(0),
                    last_answer: row.said.as_deref().and_then(ProviderAnswer::from_name),
                    claim: Claim { at: now, wanted: row.wanted },
                })
            })
            .collect()
    }

    pub(super) async fn answered(
        &mut self,
        look: &DueLook,
        answer: ProviderAnswer,
        next_at: Option<OffsetDateTime>,
        wanted_at: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let payment = look.payment();
        sqlx::query!(
            "UPDATE provider_looks
             SET due_at = CASE WHEN wanted = $5 THEN $6 ELSE $7::timestamptz END,
                 wanted = wanted - $5, claimed_at = NULL, asked_at = $8, said = $9, failures = 0
             WHERE payment_id = $1 AND provider = $2 AND provider_account = $3 AND claimed_at = $4",
            payment.payment_id,
            payment.provider,
            payment.account,
            look.claim.at,
            look.claim.wanted,
            next_at,
            wanted_at,
            now,
            answer.name()
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("noting an answer"))?;
        Ok(())
    }

    pub(super) async fn forget(&mut self, look: &DueLook) -> Result<(), StoreError> {
        let payment = look.payment();
        sqlx::query!(
            "DELETE FROM provider_looks
             WHERE payment_id = $1 AND provider = $2 AND provider_account = $3
               AND order_id IS NULL AND due_at IS NULL AND claimed_at IS NULL",
            payment.payment_id,
            payment.provider,
            payment.account
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("forgetting a look"))?;
        Ok(())
    }

    pub(super) async fn not_answered(
        &mut self,
        look: &DueLook,
        next_at: Option<OffsetDateTime>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        let payment = look.payment();
        sqlx::query!(
            "UPDATE provider_looks SET due_at = $5, claimed_at = NULL, asked_at = $6, failures = failures + 1
             WHERE payment_id = $1 AND provider = $2 AND provider_account = $3 AND claimed_at = $4",
            payment.payment_id,
            payment.provider,
            payment.account,
            look.claim.at,
            next_at,
            now
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("noting that there was no answer"))?;
        Ok(())
    }

    /// Locks the questions about these orders and payments, in ascending order of their keys. Later writes in this
    /// transaction then wait for nobody. Claims skip rows that others have locked.
    pub(super) async fn lock_looks(&mut self, orders: Vec<OrderId>, payment_ids: Vec<&str>) -> Result<(), StoreError> {
        let orders: Vec<Uuid> = orders.into_iter().map(|id| id.0).collect();
        sqlx::query!(
            "SELECT payment_id FROM provider_looks WHERE order_id = ANY($1) OR payment_id = ANY($2::text[])
             ORDER BY payment_id, provider, provider_account FOR UPDATE",
            &orders,
            &payment_ids as _
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql("locking looks"))?;
        Ok(())
    }

    /// Returns `None` if no question is planned for the order.
    pub(super) async fn want_of_order(
        &mut self,
        id: OrderId,
        now: OffsetDateTime,
    ) -> Result<Option<Wanted>, StoreError> {
        // A request is only new if none is waiting. If the provider is being asked at this moment, its answer may be a
        // moment too early. If the provider could not be asked, somebody who waits must not wait as long as the others.
        let is_due = sqlx::query_scalar!(
            r#"WITH want AS (
                   UPDATE provider_looks
                   SET wanted = wanted + 1, due_at = least(due_at, greatest($2, asked_at + make_interval(secs => $3)))
                   WHERE order_id = $1 AND (wanted = 0 OR claimed_at IS NOT NULL OR failures > 0)
                   RETURNING order_id)
               SELECT EXISTS (SELECT 1 FROM want) AS "is_due!" FROM provider_looks WHERE order_id = $1"#,
            id.0,
            now,
            LOOKS_APART.as_seconds_f64()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql("wanting a look"))?;
        Ok(is_due.map(|is_due| if is_due { Wanted::Due } else { Wanted::Coalesced }))
    }

    pub(super) async fn want_of_payment(
        &mut self,
        payment: PaymentKey<'_>,
        order_id: Option<OrderId>,
        now: OffsetDateTime,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO provider_looks AS l
                 (provider, provider_account, payment_id, order_id, created_at, due_at, wanted)
             VALUES ($1, $2, $3, $4, $5, $5, 1)
             ON CONFLICT (payment_id, provider, provider_account) DO UPDATE
             SET wanted = l.wanted + 1, order_id = coalesce(l.order_id, excluded.order_id),
                 due_at = least(l.due_at, greatest($5, l.asked_at + make_interval(secs => $6)))
             WHERE l.wanted = 0 OR l.claimed_at IS NOT NULL OR l.failures > 0",
            payment.provider,
            payment.account,
            payment.payment_id,
            order_id.map(|id| id.0),
            now,
            LOOKS_APART.as_seconds_f64()
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql("wanting a look at a payment"))?;
        Ok(())
    }

    pub(super) async fn order_of(&mut self, hint: &Hint) -> Result<Option<Led>, StoreError> {
        let ids: Vec<String> = hint.payment_ids().map(|id| id.as_str().to_owned()).collect();
        let account = hint.provider_account.as_ref().map_or("", ProviderAccount::as_str);
        let led = sqlx::query!(
            r#"SELECT order_id, bool_or(payment_id = $4) AS "by_first_id!" FROM payments
               WHERE provider = $1 AND provider_account = $2 AND payment_id = ANY($3)
               GROUP BY order_id ORDER BY order_id LIMIT 1"#,
            hint.provider.as_str(),
            account,
            &ids,
            hint.payment_id.as_str()
        )
        .fetch_optional(self.connection())
        .await
        .map_err(StoreError::sql("reading a payment's order"))?;
        Ok(led.map(|led| Led { order_id: OrderId(led.order_id), by_first_id: led.by_first_id }))
    }

    pub(super) async fn provider_of(&mut self, id: OrderId) -> Result<Option<String>, StoreError> {
        sqlx::query_scalar!("SELECT provider FROM orders WHERE id = $1", id.0)
            .fetch_optional(self.connection())
            .await
            .map_err(StoreError::sql("looking for an order"))
    }
}

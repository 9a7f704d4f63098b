//! The content of letters, as it is stored in columns.

use super::settle::ToWeigh;
use super::{LetterId, LetterToWeigh};
use crate::domain::{LetterContent, PaymentId, PaymentStatus, Provider, ProviderAccount};
use crate::store::error::StoreError;
use crate::store::pool::Store;
use crate::store::tx::Tx;
use uuid::Uuid;

/// The columns for a [`LetterContent`].
pub(super) struct Columns<'a> {
    /// The provider. It is empty if the message names none.
    pub(super) provider: &'a str,
    /// The account at the provider. It is empty for our own account.
    pub(super) provider_account: &'a str,
    pub(super) payment_ids: Vec<String>,
    pub(super) order_ids: Vec<Uuid>,
    pub(super) words: Option<&'a str>,
    pub(super) said_type: Option<&'static str>,
    pub(super) said_state: Option<&'static str>,
    pub(super) amount_minor: Option<i64>,
    pub(super) currency: Option<&'static str>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(content: &'a LetterContent) -> Self {
        let status = content.status.as_ref();
        let money = status.and_then(PaymentStatus::money);
        Self {
            provider: content.provider.as_ref().map_or("", Provider::as_str),
            provider_account: content.provider_account.as_ref().map_or("", ProviderAccount::as_str),
            payment_ids: content.payment_ids.iter().map(PaymentId::to_string).collect(),
            order_ids: content.order_ids.iter().map(|id| id.0).collect(),
            words: content.words.as_deref(),
            said_type: status.map(PaymentStatus::name),
            said_state: status.and_then(PaymentStatus::state_name),
            amount_minor: money.map(|money| money.amount_minor()),
            currency: money.map(|money| money.currency().as_str()),
        }
    }
}

impl Store {
    /// Returns letters in any state whose columns do not contain the content of their bodies yet.
    pub async fn letters_to_read(&self, count_max: u16) -> Result<Vec<LetterToWeigh>, StoreError> {
        const WHAT: &str = "choosing dead letters to read";
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query_as!(
                ToWeigh,
                "SELECT id, message_id, kind, routing_key, body, body_bytes, first_seen_at
                 FROM dead_letters WHERE NOT is_read ORDER BY id LIMIT $1",
                i64::from(count_max)
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            Ok(rows.into_iter().map(LetterToWeigh::from).collect())
        })
        .await
    }

    /// Fills the columns of letters that were not read yet. If a letter cannot be read, the known columns about its payment
    /// are kept.
    pub async fn note_contents(&self, mut letters: Vec<(LetterId, LetterContent)>) -> Result<(), StoreError> {
        self.run("noting what dead letters say", move |pool| async move {
            letters.sort_by_key(|(id, _)| *id);
            let mut tx = Tx::begin(&pool).await?;
            for (id, content) in &letters {
                tx.note_contents(*id, &Columns::of(content)).await?;
            }
            tx.commit().await?;
            Ok(())
        })
        .await
    }
}

impl Tx {
    async fn note_contents(&mut self, id: LetterId, columns: &Columns<'_>) -> Result<(), StoreError> {
        const WHAT: &str = "noting what a dead letter says";
        sqlx::query!(
            "UPDATE dead_letters l
             SET is_read = true, said_type = $7, said_state = $8, amount_minor = $9, currency = $10,
                 said = coalesce($6, l.said), order_ids = $5, payment_id = coalesce(l.payment_id, ($4::text[])[1]),
                 provider = CASE WHEN $2 = '' THEN l.provider ELSE $2 END,
                 payment_ids = CASE WHEN l.payment_id IS NULL OR l.payment_id = ANY($4) THEN $4 ELSE l.payment_id || $4 END,
                 provider_account = CASE WHEN cardinality($4) > 0 THEN $3 ELSE coalesce((
                     SELECT p.provider_account FROM payments p
                     WHERE p.payment_id = l.payment_id AND p.provider = l.provider LIMIT 1), $3) END
             WHERE l.id = $1 AND NOT l.is_read",
            id.0,
            columns.provider,
            columns.provider_account,
            &columns.payment_ids,
            &columns.order_ids,
            columns.words,
            columns.said_type,
            columns.said_state,
            columns.amount_minor,
            columns.currency
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        // The letter gets one of our orders that it is about. Orders that it names come first.
        sqlx::query!(
            "UPDATE dead_letters l SET order_id = coalesce(o.id, l.order_id, l.order_ids[1]), account_id = coalesce(o.account_id, l.account_id)
             FROM (SELECT 1) AS one LEFT JOIN orders o ON o.id = (
                 SELECT c.order_id FROM orders_of_letters(ARRAY[$1]::uuid[]) AS c
                 JOIN orders ours ON ours.id = c.order_id JOIN dead_letters d ON d.id = c.letter_id
                 ORDER BY c.order_id = ANY(d.order_ids) DESC, c.order_id LIMIT 1)
             WHERE l.id = $1",
            id.0
        )
        .execute(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        Ok(())
    }
}

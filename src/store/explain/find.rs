//! Finds the thing that an id stands for, and the keys of its rows.

use super::ExplainTerms;
use crate::domain::OrderId;
use crate::domain::story::SubjectKind;
use crate::store::error::StoreError;
use crate::store::tx::Tx;
use uuid::Uuid;

/// The largest number of orders that one payment id can lead to. Several providers, or several accounts, can have the same
/// id.
const ORDERS_OF_A_PAYMENT_MAX: i64 = 10;

/// The keys by which rows are found. The orders lead to further rows.
#[derive(Debug, Default)]
pub(super) struct Keys {
    pub(super) orders: Vec<Uuid>,
    pub(super) letters: Vec<Uuid>,
    pub(super) messages: Vec<String>,
    pub(super) payments: Vec<String>,
    /// The account whose audit lines are read, beside those of the orders and their accounts.
    pub(super) account: Option<String>,
}

const WHAT: &str = "looking an id up";

impl Tx {
    /// Every row of a story is found by a key. With fresh or skewed statistics the planner may believe that it is cheaper to
    /// read a whole table.
    pub(super) async fn look_up_only(&mut self) -> Result<(), StoreError> {
        sqlx::query("SELECT set_config('enable_seqscan', 'off', true), set_config('jit', 'off', true)")
            .execute(self.connection())
            .await
            .map_err(StoreError::sql(WHAT))?;
        Ok(())
    }

    /// Returns the id in its normal spelling and the keys. Returns `None` if nothing of this kind has the id.
    pub(super) async fn find(
        &mut self,
        kind: SubjectKind,
        id: &str,
        terms: ExplainTerms,
    ) -> Result<Option<(String, Keys)>, StoreError> {
        match kind {
            SubjectKind::Order => match id.parse::<OrderId>() {
                Ok(order) => self.find_order(order).await,
                Err(_no_uuid) => Ok(None),
            },
            SubjectKind::Letter => match Uuid::try_parse(id) {
                Ok(letter) => self.find_letter(letter).await,
                Err(_no_uuid) => Ok(None),
            },
            SubjectKind::Message => self.find_message(id).await,
            SubjectKind::Payment => self.find_payment(id).await,
            SubjectKind::Account => self.find_account(id, terms.orders_max).await,
        }
    }

    /// An order id is also accepted if the order does not exist yet and messages name it.
    async fn find_order(&mut self, id: OrderId) -> Result<Option<(String, Keys)>, StoreError> {
        let is_known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM orders WHERE id = $1)
                      OR EXISTS (SELECT FROM message_notes WHERE order_id = $1)
                      OR EXISTS (SELECT FROM letters_about(ARRAY[$1]::uuid[])) AS "is_known!""#,
            id.0
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        Ok(is_known.then(|| (id.to_string(), Keys { orders: vec![id.0], ..Keys::default() })))
    }

    async fn find_letter(&mut self, id: Uuid) -> Result<Option<(String, Keys)>, StoreError> {
        let Some(message_id) = sqlx::query_scalar!("SELECT message_id FROM dead_letters WHERE id = $1", id)
            .fetch_optional(self.connection())
            .await
            .map_err(StoreError::sql(WHAT))?
        else {
            return Ok(None);
        };
        let orders = self.orders_of(Some(id), &message_id).await?;
        let messages = Some(message_id).filter(|id| !id.is_empty()).into_iter().collect();
        Ok(Some((id.to_string(), Keys { orders, letters: vec![id], messages, ..Keys::default() })))
    }

    async fn find_message(&mut self, id: &str) -> Result<Option<(String, Keys)>, StoreError> {
        let is_known = sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM inbox WHERE message_id = $1)
                      OR EXISTS (SELECT FROM message_notes WHERE message_id = $1)
                      OR EXISTS (SELECT FROM dead_letters WHERE message_id = $1) AS "is_known!""#,
            id
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        if !is_known {
            return Ok(None);
        }
        let orders = self.orders_of(None, id).await?;
        Ok(Some((id.to_owned(), Keys { orders, messages: vec![id.to_owned()], ..Keys::default() })))
    }

    /// The orders that a message is about: by the inbox, by the ids that it names, and by its payment.
    async fn orders_of(&mut self, letter: Option<Uuid>, message_id: &str) -> Result<Vec<Uuid>, StoreError> {
        sqlx::query_scalar!(
            r#"WITH noted AS (SELECT order_id, provider, payment_id FROM message_notes WHERE message_id = $2)
               SELECT order_id AS "order_id!" FROM (
                   SELECT order_id FROM inbox WHERE message_id = $2 AND $2 <> ''
                   UNION SELECT order_id FROM orders_of_letters(ARRAY(
                             SELECT id FROM dead_letters WHERE id = $1
                             UNION SELECT id FROM dead_letters WHERE message_id = $2 AND $2 <> ''))
                   UNION SELECT order_id FROM noted WHERE order_id IS NOT NULL
                   UNION SELECT p.order_id FROM noted n
                         JOIN payments p ON p.payment_id = n.payment_id AND p.provider = n.provider) AS found
               LIMIT $3"#,
            letter,
            message_id,
            ORDERS_OF_A_PAYMENT_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))
    }

    async fn find_payment(&mut self, id: &str) -> Result<Option<(String, Keys)>, StoreError> {
        let orders = sqlx::query_scalar!(
            "SELECT DISTINCT order_id FROM payments WHERE payment_id = $1 LIMIT $2",
            id,
            ORDERS_OF_A_PAYMENT_MAX
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let is_known = !orders.is_empty()
            || sqlx::query_scalar!(
                r#"SELECT EXISTS (SELECT FROM message_notes WHERE payment_id = $1)
                          OR EXISTS (SELECT FROM dead_letters WHERE payment_id = $1)
                          OR EXISTS (SELECT FROM dead_letters WHERE payment_ids @> ARRAY[$1])
                          OR EXISTS (SELECT FROM provider_looks WHERE payment_id = $1) AS "is_known!""#,
                id
            )
            .fetch_one(self.connection())
            .await
            .map_err(StoreError::sql(WHAT))?;
        Ok(is_known.then(|| (id.to_owned(), Keys { orders, payments: vec![id.to_owned()], ..Keys::default() })))
    }

    async fn find_account(&mut self, id: &str, orders_max: u16) -> Result<Option<(String, Keys)>, StoreError> {
        let orders = sqlx::query_scalar!(
            "SELECT id FROM orders WHERE account_id = $1 ORDER BY id DESC LIMIT $2",
            id,
            i64::from(orders_max)
        )
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        let is_known = !orders.is_empty();
        Ok(is_known.then(|| (id.to_owned(), Keys { orders, account: Some(id.to_owned()), ..Keys::default() })))
    }
}

//! Empties the personal data of an account's buyers. The ledger stays, with the account's opaque id.

use super::audit::{Actor, AuditEntry};
use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::Tx;
use crate::domain::{AccountId, AuditAction};
use serde_json::{Value, json};
use std::ops::AddAssign;
use time::OffsetDateTime;
use uuid::Uuid;

/// The number of orders in one transaction.
const PAGE: i32 = 500;

/// The account to forget, and the person who wants it.
#[derive(Debug, Clone)]
pub struct Forgetting {
    /// The account whose data is emptied.
    pub account: AccountId,
    /// Whether the data is emptied. Otherwise the rows are only counted.
    pub for_real: bool,
    /// The person who wants it.
    pub by: Actor,
    /// The reason, for the audit log.
    pub reason: String,
    /// The time that is written to the rows.
    pub now: OffsetDateTime,
}

/// The data that was emptied or would be emptied.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Forgotten {
    /// All orders of the account, also those that were emptied before or have no metadata.
    pub orders_seen: i64,
    /// Orders whose metadata was emptied.
    pub orders: i64,
    /// Payment attempts whose secrets were emptied.
    pub payment_attempts: i64,
    /// Dead letters whose body and headers were emptied.
    pub letters: i64,
    /// Dead letters that are open and were not changed.
    pub letters_left: i64,
}

impl Forgotten {
    /// The number of rows that were emptied.
    pub fn rows(&self) -> i64 {
        self.orders + self.payment_attempts + self.letters
    }
}

impl AddAssign for Forgotten {
    fn add_assign(&mut self, more: Self) {
        self.orders_seen += more.orders_seen;
        self.orders += more.orders;
        self.payment_attempts += more.payment_attempts;
        self.letters += more.letters;
        self.letters_left += more.letters_left;
    }
}

impl Store {
    /// Whether this database user has the rights to empty the data of an account's buyers.
    pub async fn may_forget(&self) -> Result<bool, StoreError> {
        const WHAT: &str = "asking for the right to forget an account";
        self.run(WHAT, move |pool| async move {
            let may = sqlx::query_scalar!(
                r#"SELECT coalesce(has_function_privilege(
                       to_regprocedure('forget_account(text, uuid, integer, boolean, timestamptz)'), 'EXECUTE'), false) AS "may!""#
            );
            may.fetch_one(&mut *pool.connection().await?).await.map_err(StoreError::sql(WHAT))
        })
        .await
    }

    /// Empties the data of an account's buyers: the metadata of the orders, the secrets with which their payments could be
    /// paid, and the bodies and headers of dead letters about them. Open dead letters are left. Each transaction changes 500
    /// orders and writes its own line in the audit log. Returns `None` if the account has no order.
    ///
    /// After an error a part of it may be done. The same call again does the rest.
    pub async fn forget_account(&self, forgetting: Forgetting) -> Result<Option<Forgotten>, StoreError> {
        let mut all = Forgotten::default();
        let mut behind = Uuid::nil();
        loop {
            let forgetting = forgetting.clone();
            let page = self
                .run("forgetting an account", move |pool| async move { forget_page(&pool, &forgetting, behind).await });
            let (some, last) = page.await?;
            all += some;
            match last {
                Some(last) if some.orders_seen >= i64::from(PAGE) => behind = last,
                Some(_) | None => break,
            }
        }
        Ok(Some(all).filter(|all| all.orders_seen > 0))
    }
}

async fn forget_page(
    pool: &PooledConnection,
    forgetting: &Forgetting,
    behind: Uuid,
) -> Result<(Forgotten, Option<Uuid>), StoreError> {
    let Forgetting { account, for_real, by, reason, now } = forgetting;
    let mut tx = Tx::begin(pool).await?;
    let row = sqlx::query!(
        r#"SELECT seen AS "seen!", last_order, orders_emptied AS "orders!", attempts_emptied AS "attempts!",
                  letters_emptied AS "letters!", letters_left AS "left!"
           FROM forget_account($1, $2, $3, $4, $5)"#,
        account.as_str(),
        behind,
        PAGE,
        for_real,
        now
    )
    .fetch_one(tx.connection())
    .await
    .map_err(StoreError::sql("forgetting an account"))?;
    let some = Forgotten {
        orders_seen: row.seen.into(),
        orders: row.orders.into(),
        payment_attempts: row.attempts.into(),
        letters: row.letters.into(),
        letters_left: row.left.into(),
    };
    if !for_real || some.rows() == 0 {
        tx.roll_back().await?;
        return Ok((some, row.last_order));
    }
    let entry = AuditEntry {
        at: *now,
        by,
        action: AuditAction::AccountForget,
        subject: account.to_string(),
        reason,
        count: i32::try_from(some.rows()).unwrap_or(i32::MAX),
        before: Value::Null,
        after: json!(some),
    };
    tx.write_audit(entry).await?;
    tx.commit().await?;
    Ok((some, row.last_order))
}

//! Checks the invariants of the ledger on the live database.

use super::error::StoreError;
use super::order_row::order_row;
use super::pool::{PooledConnection, Store};
use crate::domain::{DisputePolicy, Order, settle};
use futures_util::TryStreamExt;

/// The largest number of findings that are listed for each invariant.
const LISTED_MAX: i64 = 100;

/// A row that breaks an invariant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct BrokenInvariant {
    /// The invariant, as a sentence.
    pub invariant: &'static str,
    /// The id of the order.
    pub order_id: String,
    /// The values that break the invariant.
    pub found: String,
}

/// Each query returns the rows that break its invariant.
const INVARIANTS: [(&str, &str); 7] = [
    (
        "an order's credits_granted is the sum of its ledger entries",
        "SELECT o.id::text, format('credits_granted %s, ledger %s', o.credits_granted, coalesce(l.credits, 0))
         FROM orders o LEFT JOIN (
             SELECT order_id, sum(credits) AS credits FROM (
                 SELECT order_id, credits FROM credit_grants UNION ALL SELECT order_id, credits FROM credit_adjustments
             ) e GROUP BY order_id) l ON l.order_id = o.id
         WHERE o.credits_granted <> coalesce(l.credits, 0) LIMIT $1",
    ),
    (
        "an order is marked as granted if and only if it has a grant",
        "SELECT o.id::text, format('is_granted %s', o.is_granted)
         FROM orders o LEFT JOIN credit_grants g ON g.order_id = o.id
         WHERE o.is_granted <> (g.order_id IS NOT NULL) LIMIT $1",
    ),
    (
        "a grant has its order's credits and its order's account",
        "SELECT g.order_id::text, CASE WHEN o.id IS NULL THEN 'no such order'
                ELSE format('grant of %s to %s, order of %s by %s', g.credits, g.account_id, o.credits, o.account_id) END
         FROM credit_grants g LEFT JOIN orders o ON o.id = g.order_id
         WHERE o.id IS NULL OR o.credits <> g.credits OR o.account_id <> g.account_id LIMIT $1",
    ),
    (
        "adjustments follow a grant, to the same account, and are numbered without a gap up to the order's revision",
        "SELECT a.order_id::text, format('%s adjustments, highest revision %s, order''s revision %s', a.n, a.high, o.revision)
         FROM (SELECT order_id, count(*) AS n, max(revision) AS high, min(account_id) AS low_account,
                      max(account_id) AS high_account FROM credit_adjustments GROUP BY order_id) a
         LEFT JOIN orders o ON o.id = a.order_id LEFT JOIN credit_grants g ON g.order_id = a.order_id
         WHERE o.id IS NULL OR g.order_id IS NULL OR a.n <> a.high OR a.high <> o.revision
            OR a.low_account <> g.account_id OR a.high_account <> g.account_id LIMIT $1",
    ),
    (
        "net credits lie between 0 and the grant after every entry",
        "SELECT order_id::text, format('%s after revision %s', net, revision) FROM (
             SELECT a.order_id, a.revision, g.credits AS granted,
                    g.credits + sum(a.credits) OVER (PARTITION BY a.order_id ORDER BY a.revision) AS net
             FROM credit_adjustments a JOIN credit_grants g ON g.order_id = a.order_id) running
         WHERE net < 0 OR net > granted LIMIT $1",
    ),
    (
        "every granted order has a payment",
        "SELECT o.id::text, 'no payment is registered'::text FROM orders o
         WHERE NOT EXISTS (SELECT FROM payments p WHERE p.order_id = o.id) AND o.is_granted LIMIT $1",
    ),
    (
        "every row of overpaid_orders belongs to an order",
        "SELECT s.order_id::text, format('overpaid by %s, but the order does not exist', s.overpaid_minor)
         FROM overpaid_orders s WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = s.order_id) LIMIT $1",
    ),
];

impl Store {
    /// Checks every invariant and lists the rows that break it, at most 100 for each.
    pub async fn verify(&self, policy: DisputePolicy) -> Result<Vec<BrokenInvariant>, StoreError> {
        self.run("verifying the ledger", move |pool| async move {
            let mut broken = vec![];
            for (invariant, sql) in INVARIANTS {
                let rows: Vec<(String, String)> = sqlx::query_as(sql)
                    .bind(LISTED_MAX)
                    .fetch_all(&mut *pool.connection().await?)
                    .await
                    .map_err(StoreError::sql("verifying the ledger"))?;
                broken.extend(rows.into_iter().map(|(order_id, found)| BrokenInvariant { invariant, order_id, found }));
            }
            broken.extend(settled_otherwise(&pool, policy).await?);
            Ok(broken)
        })
        .await
    }
}

/// Orders whose status, credits or surplus do not follow from their facts.
async fn settled_otherwise(pool: &PooledConnection, policy: DisputePolicy) -> Result<Vec<BrokenInvariant>, StoreError> {
    const SETTLED: &str = "an order's status and credits follow from its facts";
    const OVERPAID: &str = "overpaid_orders matches the order's facts";
    let mut connection = pool.connection().await?;
    let mut rows = sqlx::query!(
        r#"SELECT id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider,
                  provider_account, status, is_granted, credits_granted, revision, facts::text AS "facts!",
                  coalesce((SELECT s.overpaid_minor FROM overpaid_orders s WHERE s.order_id = orders.id), 0) AS "overpaid_minor!"
           FROM orders"#
    )
    .fetch(&mut *connection);
    let most = usize::try_from(LISTED_MAX).unwrap_or(usize::MAX);
    let (mut settled, mut overpaid) = (vec![], vec![]);
    while let Some(row) = rows.try_next().await.map_err(StoreError::sql("verifying the ledger"))? {
        if settled.len() >= most || overpaid.len() >= most {
            break;
        }
        let (id, written) = (row.id, row.overpaid_minor);
        let listed = |invariant, found| BrokenInvariant { invariant, order_id: id.to_string(), found };
        let order = match Order::try_from(order_row!(row)) {
            Ok(order) => order,
            Err(error) => {
                settled.push(listed(SETTLED, error.to_string()));
                continue;
            }
        };
        let posting = match settle(&order, policy) {
            Ok(posting) => posting,
            Err(fault) => {
                settled.push(listed(SETTLED, fault.to_string()));
                continue;
            }
        };
        if posting.grant || posting.adjustment != 0 || posting.status != order.status {
            let found = format!(
                "status {} with {} credits, the facts say {} with {}",
                order.status.name(),
                order.credits_posted,
                posting.status.name(),
                posting.credits_net
            );
            settled.push(listed(SETTLED, found));
        }
        if posting.overpaid_minor != written {
            let found = format!(
                "overpaid by {written}, the facts say {}: the next message about its payment corrects it, for example after \
                 POST /v1/orders/{{id}}/check",
                posting.overpaid_minor
            );
            overpaid.push(listed(OVERPAID, found));
        }
    }
    settled.append(&mut overpaid);
    Ok(settled)
}

//! Finds everything that is stored about an order, a payment, a message, a dead letter or an account, by any of their ids.
//! It reads in one snapshot, and [`crate::domain::story`] makes a story of it.
//!
//! It only reads, and every read has a bound. It leaves out personal data: metadata, bodies, headers, and everything that
//! allows a payment.

mod find;
mod read;

use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::Tx;
use crate::domain::story::{Story, Subject, SubjectKind, Terms, tell};
use crate::domain::{AccountId, DisputePolicy, TextError};
use time::OffsetDateTime;

/// The id that a story is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    id: String,
    kind: Option<SubjectKind>,
}

impl Asked {
    /// Looks for an id of any kind, or only of this kind. All ids have at most 255 bytes.
    pub fn new(id: &str, kind: Option<SubjectKind>) -> Result<Self, TextError> {
        // An account's id has the fewest rules of all ids.
        Ok(Self { id: AccountId::new(id)?.into_string(), kind })
    }

    /// The id that was asked for.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The kinds of things that are searched.
    fn kinds(&self) -> impl Iterator<Item = SubjectKind> {
        SubjectKind::ALL.into_iter().filter(|kind| self.kind.is_none_or(|wanted| wanted == *kind))
    }
}

/// The terms by which a story is made, and its size.
#[derive(Debug, Clone, Copy)]
pub struct ExplainTerms {
    /// The present time. Some facts are late by it.
    pub now: OffsetDateTime,
    /// Whether open disputes take credits.
    pub dispute_policy: DisputePolicy,
    /// The largest number of orders of an account.
    pub orders_max: u16,
    /// The largest number of entries. If there are more, the oldest are left out.
    pub entries_max: u16,
}

impl Store {
    /// Makes the story of the thing that has this id. Returns `None` if there is none.
    pub async fn explain(&self, asked: Asked, terms: ExplainTerms) -> Result<Option<Story>, StoreError> {
        self.run("reading a story", move |pool| async move { explain(&pool, &asked, terms).await }).await
    }
}

async fn explain(pool: &PooledConnection, asked: &Asked, terms: ExplainTerms) -> Result<Option<Story>, StoreError> {
    let mut tx = Tx::begin_reading(pool).await?;
    tx.look_up_only().await?;
    for kind in asked.kinds() {
        let Some((id, keys)) = tx.find(kind, &asked.id, terms).await? else { continue };
        let records = tx.read_records(kind, keys).await?;
        tx.roll_back().await?;
        let terms =
            Terms { now: terms.now, dispute_policy: terms.dispute_policy, entries_max: usize::from(terms.entries_max) };
        return Ok(Some(tell(Subject { kind, id }, &records, terms)));
    }
    tx.roll_back().await?;
    Ok(None)
}

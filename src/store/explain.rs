//! What is written about an order, a payment, a message, a dead letter or an account: found by any of their ids, read
//! in one snapshot, and told by [`crate::domain::story`].
//!
//! Reads only, bounded everywhere, and without what may be personal: no metadata, no body, no header, nothing that a
//! payment can be paid with.

mod find;
mod read;

use super::error::StoreError;
use super::pool::{PooledConnection, Store};
use super::tx::Tx;
use crate::domain::story::{Story, Subject, SubjectKind, Terms, tell};
use crate::domain::{AccountId, DisputePolicy, TextError};
use time::OffsetDateTime;

/// What a story is asked for by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    id: String,
    kind: Option<SubjectKind>,
}

impl Asked {
    /// By an id of any kind, or of this one only. At most 255 bytes, as all ids have.
    pub fn new(id: &str, kind: Option<SubjectKind>) -> Result<Self, TextError> {
        // Of all ids an account's has the fewest rules.
        Ok(Self { id: AccountId::new(id)?.into_string(), kind })
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The kinds that are looked for.
    fn kinds(&self) -> impl Iterator<Item = SubjectKind> {
        SubjectKind::ALL.into_iter().filter(|kind| self.kind.is_none_or(|wanted| wanted == *kind))
    }
}

/// By what a story is told, and how much of it.
#[derive(Debug, Clone, Copy)]
pub struct ExplainTerms {
    /// The time by which something is late.
    pub now: OffsetDateTime,
    /// Whether open disputes take credits.
    pub dispute_policy: DisputePolicy,
    /// Most orders of an account.
    pub orders_max: u16,
    /// Most entries; of more, the oldest are left out.
    pub entries_max: u16,
}

impl Store {
    /// Tells the story of what is known by an id; none where nothing is.
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

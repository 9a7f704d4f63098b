//! The letters of one replay.

use crate::domain::LetterId;
use crate::store::error::StoreError;
use crate::store::pool::Store;
use serde::Serialize;
use uuid::Uuid;

/// One letter of a replay, and what became of it there. The letter itself may have gone on since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayMember {
    /// 1 is the first one.
    pub position: i32,
    /// Which letter.
    pub id: LetterId,
    /// `queued`, `sent`, `resolved`, `dead_again`, `canceled` or `unanswered`.
    pub outcome: String,
    /// Why it is, or was, a dead letter.
    pub reason: String,
    /// Why exactly.
    pub detail: String,
    /// What it says, in words.
    pub said: Option<String>,
}

impl Store {
    /// Letters of a replay with one of these outcomes, in their order; at most `count_max`.
    pub async fn replay_members(
        &self,
        id: i64,
        outcomes: &[&str],
        count_max: u16,
    ) -> Result<Vec<ReplayMember>, StoreError> {
        const WHAT: &str = "listing a replay's letters";
        let outcomes: Vec<String> = outcomes.iter().map(|&outcome| outcome.to_owned()).collect();
        self.run(WHAT, move |pool| async move {
            let rows = sqlx::query!(
                "SELECT r.position, r.letter_id, r.state, l.reason, l.detail, l.said
                 FROM replay_letters r JOIN dead_letters l ON l.id = r.letter_id
                 WHERE r.replay_id = $1 AND r.state = ANY($2) ORDER BY r.position LIMIT $3",
                id,
                &outcomes,
                i64::from(count_max)
            )
            .fetch_all(&mut *pool.connection().await?)
            .await
            .map_err(StoreError::sql(WHAT))?;
            let member = |position, id: Uuid, outcome, reason, detail, said| ReplayMember {
                position,
                id: LetterId(id),
                outcome,
                reason,
                detail,
                said,
            };
            let members = rows.into_iter();
            Ok(members.map(|r| member(r.position, r.letter_id, r.state, r.reason, r.detail, r.said)).collect())
        })
        .await
    }
}

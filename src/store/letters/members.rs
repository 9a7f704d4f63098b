//! The letters of one replay.

use crate::domain::LetterId;
use crate::store::error::StoreError;
use crate::store::pool::Store;
use serde::Serialize;
use uuid::Uuid;

/// One letter of a replay, with its outcome there. The state of the letter may have changed since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplayMember {
    /// The position in the replay. The first letter has 1.
    pub position: i32,
    /// The id of the letter.
    pub id: LetterId,
    /// The outcome: `queued`, `sent`, `resolved`, `dead_again`, `canceled` or `unanswered`.
    pub outcome: String,
    /// The reason for the dead letter.
    pub reason: String,
    /// The exact description of the problem.
    pub detail: String,
    /// The content of the message in words.
    pub said: Option<String>,
}

impl Store {
    /// Returns letters of a replay with one of these outcomes, in the order of the replay, at most `count_max`.
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

//! Dead letters. They are kept until an operator has dealt with them.
//!
//! Each dead letter is one row, however often the broker delivers it. The row has the number of its last replay, and so has
//! the message that the replay publishes. A copy that comes back with an older number changes nothing.

/// Makes a statement about the letters of a filter. The parameters of the filter are `$1` to `$13`, and those of the
/// statement begin with `$14`. So lists, counts, replays and archiving select the same letters.
macro_rules! query_of_filter {
    ($row:ident, $filter:expr, $begin:literal, $end:literal $(, $more:expr)* $(,)?) => {
        sqlx::query_as!(
            $row,
            $begin
                + " WHERE state = ANY($1) AND ($2::uuid[] IS NULL OR id = ANY($2)) AND ($3::text IS NULL OR reason = $3)
                      AND ($4::text IS NULL OR provider = $4) AND ($5::text IS NULL OR cause = $5)
                      AND ($6::text IS NULL OR verdict = $6)
                      AND ($7::uuid IS NULL OR id IN (SELECT about.id FROM letters_about(ARRAY[$7]) AS about (id)))
                      AND ($8::text IS NULL OR payment_id = $8 OR payment_ids @> ARRAY[$8])
                      AND ($9::text IS NULL OR account_id = $9 OR id IN (SELECT about.id
                           FROM letters_about(ARRAY(SELECT o.id FROM orders o WHERE o.account_id = $9)) AS about (id)))
                      AND ($10::text IS NULL OR message_id = $10)
                      AND ($11::text IS NULL OR detail ILIKE $11 OR message_id ILIKE $11 OR payment_id ILIKE $11
                           OR account_id ILIKE $11 OR order_id::text ILIKE $11
                           OR payment_ids::text ILIKE $11 OR order_ids::text ILIKE $11)
                      AND ($12::timestamptz IS NULL OR first_seen_at < $12)
                      AND ($13::timestamptz IS NULL OR first_seen_at >= $13) "
                + $end,
            &$filter.states(),
            $filter.ids.as_deref(),
            $filter.reason,
            $filter.provider,
            $filter.cause,
            $filter.verdict,
            $filter.order_id,
            $filter.payment_id,
            $filter.account_id,
            $filter.message_id,
            $filter.pattern(),
            $filter.before,
            $filter.since
            $(, $more)*
        )
    };
}

mod keep;
mod letter_content;
mod list;
mod members;
mod orders;
mod replay;
mod settle;

pub use keep::NewLetter;
pub use list::{Letter, LetterCursor, LetterGroup, LetterReplay, LetterRow, LettersPage};
pub use members::ReplayMember;
pub use orders::{LETTERS_GROUPED_MAX, LETTERS_NAMED_MAX, OrderLetters, OrdersPage};
pub use replay::{Begun, Claimed, NewReplay, REPLAY_LETTERS_MAX, Replay, ReplayCounts, ReplayPace, ReplayState, Sent};
pub use settle::{LetterToWeigh, OpenLetters, Weight};

use crate::domain::{LetterId, LetterState, OrderId};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

/// Selects letters. A field that is not set selects every letter. Several fields together select the letters that match all
/// of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
// If a misspelt field were ignored, the filter would select more letters than was meant.
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// The letters with these ids.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ids: Option<Vec<uuid::Uuid>>,
    /// Letters in one of these states. If the list is empty: open letters and letters under replay.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<String>,
    /// Letters with this reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Letters of this provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// Letters with this cause. The letters of one group have the same cause.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<String>,
    /// Letters whose last verdict was this one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// Letters about this order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<uuid::Uuid>,
    /// Letters about this payment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub payment_id: Option<String>,
    /// Letters about an order of this account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Letters of this message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_id: Option<String>,
    /// Letters with this text in the detail or in one of the ids, in upper or lower case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Letters that were first seen before this time.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub before: Option<OffsetDateTime>,
    /// Letters that were first seen at this time or later.
    #[serde(skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    pub since: Option<OffsetDateTime>,
}

impl LetterFilter {
    /// Selects these letters in any state.
    pub fn of_ids(ids: impl IntoIterator<Item = LetterId>) -> Self {
        let states = LetterState::ALL.map(|state| state.name().to_owned()).to_vec();
        Self { ids: Some(ids.into_iter().map(|id| id.0).collect()), states, ..Self::default() }
    }

    /// Selects the same letters, but only those in this state.
    #[must_use]
    pub fn in_state(mut self, state: LetterState) -> Self {
        self.states = vec![state.name().to_owned()];
        self
    }

    /// The states that the filter selects.
    fn states(&self) -> Vec<String> {
        if self.states.is_empty() {
            [LetterState::Open, LetterState::Replaying].map(|state| state.name().to_owned()).to_vec()
        } else {
            self.states.clone()
        }
    }

    /// The text as a pattern for `ILIKE`.
    fn pattern(&self) -> Option<String> {
        let text = self.text.as_deref().map(str::trim).filter(|text| !text.is_empty())?;
        Some(format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_")))
    }
}

fn order_id(id: Option<uuid::Uuid>) -> Option<OrderId> {
    id.map(OrderId)
}

fn state_of(name: &str) -> Result<LetterState, super::error::StoreError> {
    LetterState::from_name(name).ok_or_else(|| super::error::StoreError::Corrupt {
        what: "dead_letters".to_owned(),
        detail: format!("{name:?} is not a state of a letter"),
    })
}

//! The effect of an admitted message on the ledger, with the reason.

use super::records::{AdjustmentRecord, AdmittedRecord, GrantRecord};

named! {
    /// The effect of an admitted message on the ledger.
    pub enum Decision {
        /// It made the grant, and possibly an adjustment in the same transaction.
        Granted = "granted",
        /// It made an adjustment.
        Adjusted = "adjusted",
        /// Another message of the same transaction is shown with the effect of both.
        PostedWithAnother = "posted_with_another",
        /// It moved no credits.
        Nothing = "nothing",
    }
}

/// The effect of the message, the number of credits that moved, and the reason in a sentence.
pub(super) fn decision_of(
    message: &AdmittedRecord,
    grant: Option<&GrantRecord>,
    adjustments: &[&AdjustmentRecord],
) -> (Decision, i64, String) {
    let by_it = adjustments.iter().filter(|adjustment| adjustment.message_id == message.message_id);
    let adjusted: i64 = by_it.clone().map(|adjustment| adjustment.credits).sum();
    let reasons: Vec<&str> = by_it.map(|adjustment| adjustment.reason.as_str()).collect();
    if let Some(grant) = grant.filter(|grant| grant.message_id == message.message_id) {
        let why = match reasons.last() {
            None => format!("the whole price is paid: the message makes the grant of {} credits", grant.credits),
            Some(reason) => format!(
                "the whole price is paid: the message makes the grant of {} credits, and {adjusted:+} at once ({reason})",
                grant.credits
            ),
        };
        return (Decision::Granted, grant.credits + adjusted, why);
    }
    if let Some(reason) = reasons.last() {
        return (Decision::Adjusted, adjusted, format!("the message changes the credits by {adjusted:+} ({reason})"));
    }
    let at = message.admitted_at;
    let other = grant
        .filter(|grant| grant.at == at)
        .map(|grant| &grant.message_id)
        .or_else(|| adjustments.iter().find(|adjustment| adjustment.at == at).map(|adjustment| &adjustment.message_id));
    if let Some(other) = other {
        let why = format!("applied in one transaction with {other}; the ledger names that message for both");
        return (Decision::PostedWithAnother, 0, why);
    }
    let was_granted = grant.is_some_and(|grant| grant.at < at);
    (Decision::Nothing, 0, why_nothing(message.said.as_deref(), was_granted).to_owned())
}

/// Why a message with this status moved no credits.
fn why_nothing(said: Option<&str>, was_granted: bool) -> &'static str {
    match (said, was_granted) {
        (Some("pending"), _) => "no credits move: the message reports no money",
        (Some("failed"), _) => "no credits move: a failed attempt takes no credits",
        (Some("canceled"), false) => "no credits move: there is no grant to take back",
        (Some("canceled"), true) => {
            "no credits move: the money is already captured, which counts more than a cancellation"
        }
        (Some("captured"), true) => "no credits move: the order was granted already, and its credits are right",
        (Some("captured"), false) => "no credits move: the whole price was not paid yet, or was already refunded",
        (Some("refund" | "refunded_total" | "dispute"), false) => {
            "no credits move: there is no grant yet; the message counts when there is one"
        }
        (Some("refund" | "refunded_total" | "dispute"), true) => {
            "no credits move: its content was already known, or it takes no money, or less than the value of one credit"
        }
        (Some(_) | None, _) => "no credits move",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::OffsetDateTime;
    use time::macros::datetime;

    const NOON: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);
    const LATER: OffsetDateTime = datetime!(2026-01-05 13:00 UTC);
    const ORDER: uuid::Uuid = uuid::Uuid::nil();

    fn message(id: &str, said: &str, admitted_at: OffsetDateTime) -> AdmittedRecord {
        AdmittedRecord { message_id: id.to_owned(), order_id: ORDER, said: Some(said.to_owned()), admitted_at }
    }

    fn grant(by: &str) -> GrantRecord {
        let account_id = "acc".to_owned();
        GrantRecord { order_id: ORDER, account_id, credits: 100, message_id: by.to_owned(), at: NOON }
    }

    fn adjustment(by: &str, credits: i64, at: OffsetDateTime) -> AdjustmentRecord {
        let (reason, message_id) = ("refunded".to_owned(), by.to_owned());
        AdjustmentRecord { order_id: ORDER, revision: 1, credits, reason, message_id, at }
    }

    #[test]
    fn what_a_message_did_is_read_off_the_ledger() {
        let (grant, later, at_once) = (grant("a"), adjustment("b", -40, LATER), adjustment("a", -10, NOON));
        let of = |message: &AdmittedRecord, adjustments: &[&AdjustmentRecord]| {
            let (decision, credits, why) = decision_of(message, Some(&grant), adjustments);
            (decision, credits, why)
        };
        for (message, adjustments, decision, credits, part) in [
            (message("a", "captured", NOON), &[&later][..], Decision::Granted, 100, "grant of 100"),
            (message("a", "captured", NOON), &[&at_once], Decision::Granted, 90, "-10 at once (refunded)"),
            (message("b", "refund", LATER), &[&later], Decision::Adjusted, -40, "by -40 (refunded)"),
            (message("c", "pending", NOON), &[&later], Decision::PostedWithAnother, 0, "with a;"),
            (message("c", "dispute", LATER), &[&later], Decision::PostedWithAnother, 0, "with b;"),
            (message("c", "captured", LATER), &[], Decision::Nothing, 0, "granted already"),
            (message("c", "refund", LATER), &[], Decision::Nothing, 0, "known"),
            (message("c", "canceled", LATER), &[], Decision::Nothing, 0, "cancellation"),
            (message("c", "something_new", LATER), &[], Decision::Nothing, 0, "no credits move"),
        ] {
            let (was, moved, why) = of(&message, adjustments);
            assert_eq!((was, moved), (decision, credits), "{message:?}: {why}");
            assert!(why.contains(part), "{message:?}: {why}");
        }
    }

    #[test]
    fn before_the_grant_nothing_can_be_taken() {
        for (said, part) in [
            ("captured", "whole price was not paid"),
            ("refund", "no grant yet"),
            ("dispute", "no grant yet"),
            ("canceled", "no grant to take back"),
            ("failed", "failed attempt"),
            ("pending", "reports no money"),
        ] {
            let (decision, credits, why) = decision_of(&message("c", said, LATER), None, &[]);
            assert_eq!((decision, credits), (Decision::Nothing, 0));
            assert!(why.contains(part), "{said}: {why}");
        }
        let early = message("c", "captured", datetime!(2026-01-05 11:00 UTC));
        assert!(decision_of(&early, Some(&grant("a")), &[]).2.contains("was not paid yet"), "granted only later");
    }
}

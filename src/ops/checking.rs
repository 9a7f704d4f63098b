//! Asking a provider how a payment stands. A hint is published, as the receiver does; the reconciler asks when it is its turn.

use crate::broker::{Outgoing, PublishError, Publisher};
use crate::domain::{Hint, MessageId, RELATED_IDS_MAX, can_be_asked};
use crate::message::EncodeError;
use crate::store::{Actor, Askable, Store, StoreError};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// Why a provider cannot be asked about a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotAskable {
    /// The order has no payment yet.
    NoPayment,
    /// This provider has no way to ask; its messages are all there is.
    NoWayToAsk,
}

/// Why a provider was not asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotAsked {
    /// Nothing was written, and nothing was published.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It is written down who asked, and RabbitMQ is not known to have the hint. The same again is safe.
    #[error("the hint was not published: {0}")]
    Publish(#[from] PublishError),
    /// A fault of ours.
    #[error(transparent)]
    Encode(#[from] EncodeError),
}

/// Whether a provider can be asked about it.
pub(super) fn check_askable(askable: &Askable) -> Result<(), NotAskable> {
    if !can_be_asked(askable.provider.as_str()) {
        Err(NotAskable::NoWayToAsk)
    } else if askable.payment_ids.is_empty() {
        Err(NotAskable::NoPayment)
    } else {
        Ok(())
    }
}

/// Writes down who wants it, then publishes the hint. Many hints about one payment are one question.
pub(super) async fn ask(
    store: &Store,
    publisher: &Publisher,
    askable: Askable,
    (by, reason): (Actor, String),
    livemode: bool,
    now: OffsetDateTime,
) -> Result<(), NotAsked> {
    let Some(hint) = hint(&askable, livemode, now) else { return Ok(()) };
    store.note_check(askable, by, reason, now).await?;
    publisher.publish(Outgoing::hint(&hint)?).await?;
    tracing::info!(event = "provider_check_wanted", payment = %hint.payment_id, "the reconciler asks the provider");
    Ok(())
}

/// The hint; none where there is no payment to ask about.
fn hint(askable: &Askable, livemode: bool, now: OffsetDateTime) -> Option<Hint> {
    let (first, related) = askable.payment_ids.split_first()?;
    let text = format!("console check of {first} at {}", now.unix_timestamp_nanos());
    Some(Hint {
        provider: askable.provider.clone(),
        message_id: MessageId::from_digest(&askable.provider, Sha256::digest(text).into()),
        payment_id: first.clone(),
        related_ids: related.iter().take(RELATED_IDS_MAX).cloned().collect(),
        provider_account: askable.provider_account.clone(),
        livemode,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{PaymentId, Provider};
    use crate::message::{decode_hint, encode_hint};
    use time::macros::datetime;

    fn askable(provider: Provider, ids: &[&str]) -> Askable {
        Askable {
            provider,
            provider_account: None,
            payment_ids: ids.iter().map(|id| PaymentId::new(*id).unwrap()).collect(),
            order_id: None,
            look: None,
        }
    }

    #[test]
    fn a_provider_is_asked_only_where_it_can_answer() {
        assert_eq!(check_askable(&askable(Provider::STRIPE, &["pi_1"])), Ok(()));
        assert_eq!(check_askable(&askable(Provider::STRIPE, &[])), Err(NotAskable::NoPayment));
        assert_eq!(check_askable(&askable(Provider::ADYEN, &["psp_1"])), Err(NotAskable::NoWayToAsk));
    }

    #[test]
    fn the_hint_is_one_that_the_reconciler_takes() {
        let ids: Vec<String> = (0..12).map(|n| format!("pi_{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let now = datetime!(2026-01-05 12:00 UTC);
        let made = hint(&askable(Provider::STRIPE, &ids), true, now).unwrap();
        assert_eq!(decode_hint(&encode_hint(&made).unwrap()).unwrap(), made);
        assert_eq!((made.payment_id.as_str(), made.related_ids.len()), ("pi_0", RELATED_IDS_MAX));
        let later = hint(&askable(Provider::STRIPE, &ids), true, now + time::Duration::SECOND).unwrap();
        assert_ne!(made.message_id, later.message_id);
    }
}

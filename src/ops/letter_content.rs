//! What a dead letter's body says, read as receiver and worker would read it.

use super::prospects::translate;
use crate::domain::{Hint, LetterContent, LetterId, MessageId, Provider};
use crate::message::{WEBHOOK_TYPE_PREFIX, decode, decode_hint};
use crate::store::{LetterToWeigh, Store, StoreError};
use crate::webhook::{self, Endpoint, Translation};
use time::OffsetDateTime;

/// Letters that are read in one transaction.
const CHUNK: u16 = 200;

/// Reads a letter. Says at least whose payment it is about, where the endpoint or the key tells.
pub(super) fn read_content(
    kind: &str,
    message_id: &str,
    routing_key: &str,
    body: &[u8],
    terms: webhook::Terms,
    now: OffsetDateTime,
) -> LetterContent {
    let endpoint = kind.strip_prefix(WEBHOOK_TYPE_PREFIX).and_then(Endpoint::from_path);
    let read = match endpoint {
        Some(endpoint) => of_webhook(endpoint, (kind, message_id, routing_key), body, terms, now),
        None => of_message(body, now),
    };
    let of_key = || routing_key.strip_prefix("payment.").and_then(|name| Provider::new(name).ok());
    LetterContent { provider: read.provider.or_else(of_key), ..read }
}

fn of_message(body: &[u8], now: OffsetDateTime) -> LetterContent {
    if let Ok(event) = decode(body, now) {
        return LetterContent::from(&event);
    }
    decode_hint(body).map(|hint| of_hint(&hint)).unwrap_or_default()
}

fn of_hint(hint: &Hint) -> LetterContent {
    LetterContent {
        provider: Some(hint.provider.clone()),
        provider_account: hint.provider_account.clone(),
        payment_ids: hint.payment_ids().cloned().collect(),
        words: Some("a hint that something happened".to_owned()),
        ..LetterContent::default()
    }
}

/// A webhook may tell several things, of which the others were published: the letter is about the one whose id it has, or else
/// about what still cannot be translated, or else about all.
fn of_webhook(
    endpoint: Endpoint,
    (kind, message_id, routing_key): (&str, &str, &str),
    body: &[u8],
    terms: webhook::Terms,
    now: OffsetDateTime,
) -> LetterContent {
    let translations = translate(kind, message_id, routing_key, body, terms, now).unwrap_or_default();
    let parts: Vec<ContentPart> =
        translations.into_iter().flat_map(|translation| ContentPart::of(endpoint, translation)).collect();
    let is_own = |part: &&ContentPart| part.message_id.as_str() == message_id;
    let is_unclear = |part: &&ContentPart| !part.is_clear;
    let some = |is_meant: &dyn Fn(&&ContentPart) -> bool| {
        let meant: Vec<&ContentPart> = parts.iter().filter(is_meant).collect();
        (!meant.is_empty()).then_some(meant)
    };
    let meant = some(&is_own).or_else(|| some(&is_unclear)).unwrap_or_else(|| parts.iter().collect());
    let content = meant.into_iter().fold(LetterContent::default(), |content, part| content.and(part.content.clone()));
    LetterContent { provider: Some(endpoint.provider().clone()), ..content }
}

/// One thing that a webhook tells.
struct ContentPart {
    message_id: MessageId,
    is_clear: bool,
    content: LetterContent,
}

impl ContentPart {
    fn of(endpoint: Endpoint, translation: Translation) -> Vec<Self> {
        match translation {
            Translation::Events(events) => events
                .iter()
                .map(|event| Self {
                    message_id: event.message_id.clone(),
                    is_clear: true,
                    content: LetterContent::from(event),
                })
                .collect(),
            Translation::Hint(hint) => {
                let content = of_hint(&hint);
                vec![Self { message_id: hint.message_id, is_clear: true, content }]
            }
            Translation::Untranslatable { message_id, concerns, .. } => {
                let content = LetterContent {
                    provider: Some(endpoint.provider().clone()),
                    provider_account: concerns.provider_account,
                    payment_ids: concerns.payment_ids,
                    order_ids: concerns.order_id.into_iter().collect(),
                    words: concerns.status.as_ref().map(|status| status.in_words()),
                    status: concerns.status,
                };
                vec![Self { message_id, is_clear: false, content }]
            }
            Translation::Ignored { .. } => vec![],
        }
    }
}

/// Reads letters that nobody has read yet: they were kept by a release that did not, or before the columns were there.
pub(super) async fn read_the_unread(
    store: &Store,
    terms: webhook::Terms,
    now: OffsetDateTime,
) -> Result<(), StoreError> {
    let letters = store.letters_to_read(CHUNK).await?;
    if letters.is_empty() {
        return Ok(());
    }
    let read = |letter: LetterToWeigh| -> (LetterId, LetterContent) {
        let body = letter.body.as_deref().unwrap_or_default();
        (letter.id, read_content(&letter.kind, &letter.message_id, &letter.routing_key, body, terms, now))
    };
    let read: Vec<(LetterId, LetterContent)> = letters.into_iter().map(read).collect();
    tracing::info!(event = "letters_read", letters = read.len(), "letters of an earlier release have their columns");
    store.note_contents(read).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Money, OrderId, PaymentId, PaymentStatus, ProviderAccount};
    use crate::webhook::Concerns;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);
    const TERMS: webhook::Terms = webhook::Terms { livemode: false, is_adyen_captured_by_hand: false };

    #[test]
    fn what_cannot_be_translated_says_what_it_concerns() {
        let concerns = Concerns {
            order_id: Some(OrderId(uuid::Uuid::from_u128(7))),
            provider_account: Some(ProviderAccount::new("acct_1").unwrap()),
            payment_ids: vec![PaymentId::new("cs_1").unwrap()],
            status: Some(PaymentStatus::RefundedTotal { money: Money::new(5, "USD".parse().unwrap()).unwrap() }),
        };
        let message_id = MessageId::new("stripe::evt_1").unwrap();
        let translation = Translation::Untranslatable {
            message_id,
            livemode: None,
            detail: "because".to_owned(),
            concerns: concerns.clone(),
        };
        let parts = ContentPart::of(Endpoint::Stripe, translation);
        let content = &parts[0].content;
        assert_eq!(
            (content.payment_ids.as_slice(), content.status.as_ref()),
            (&concerns.payment_ids[..], concerns.status.as_ref())
        );
        assert_eq!(content.provider_account, concerns.provider_account);
        assert_eq!(content.order_ids, [OrderId(uuid::Uuid::from_u128(7))]);
        assert_eq!(content.words.as_deref(), Some("refunded 0.05 USD in all"));
    }

    #[test]
    fn what_cannot_be_read_says_whose_it_is_at_most() {
        for (kind, key, provider) in [
            ("webhook.adyen", "", Some("adyen")),
            ("webhook.nobody", "payment.acme", Some("acme")),
            ("payment-status.v1", "payment.stripe", Some("stripe")),
            ("", "what", None),
        ] {
            let content = read_content(kind, "m", key, b"\xff\x00", TERMS, NOW);
            assert_eq!(content.provider.as_ref().map(Provider::as_str), provider, "{kind} {key}");
            assert!(content.payment_ids.is_empty() && content.status.is_none(), "{kind} {key}");
        }
    }
}

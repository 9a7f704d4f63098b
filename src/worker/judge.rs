//! What a delivery is, before the database is asked. Pure.

use crate::broker::{Delivery, routing_key};
use crate::domain::{PaymentEvent, Reason, Refusal};
use crate::message::{self, ATTEMPT_HEADER, ROUTING_KEY_HEADER};
use time::OffsetDateTime;

/// A delivery's first judgement.
#[derive(Debug)]
pub(super) enum Verdict {
    /// To be applied.
    Event(PaymentEvent),
    /// A test event in a live deployment: counted and dropped.
    TestEvent,
    /// Never.
    Refused(Refusal),
}

/// Whether a delivery came out of one of our own retry queues. Those forward through the default exchange, to which
/// relays have no right to write; so only then are our own headers believed.
fn is_retry(delivery: &Delivery) -> bool {
    delivery.exchange.is_empty()
}

/// How often this message was put off before.
pub(super) fn attempts_before(delivery: &Delivery) -> u32 {
    let attempts = if is_retry(delivery) { delivery.headers.integer(ATTEMPT_HEADER) } else { None };
    attempts.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// The key under which the message was first published.
pub(super) fn first_routing_key(delivery: &Delivery) -> &str {
    if is_retry(delivery) {
        delivery.headers.text(ROUTING_KEY_HEADER).unwrap_or_default()
    } else {
        &delivery.routing_key
    }
}

/// Reads a delivery and checks what can be checked without its order.
pub(super) fn judge(delivery: &Delivery, is_live: bool, now: OffsetDateTime) -> Verdict {
    let refused = |reason, detail: String| Verdict::Refused(Refusal::new(reason, detail));
    match delivery.kind.as_deref() {
        Some(message::TYPE) => {}
        Some(other) => {
            return refused(Reason::Malformed, format!("the property type is {other:?}, not {:?}", message::TYPE));
        }
        None => {
            return refused(Reason::Malformed, format!("the property type is missing; it must be {:?}", message::TYPE));
        }
    }
    let event = match message::decode(&delivery.body, now) {
        Ok(event) => event,
        Err(error) => return refused(Reason::Malformed, error.to_string()),
    };
    match delivery.message_id.as_deref() {
        Some(id) if id == event.message_id.as_str() => {}
        Some(_) => {
            return refused(Reason::Malformed, "the property message_id is not the body's message_id".to_owned());
        }
        None => return refused(Reason::Malformed, "the property message_id is missing".to_owned()),
    }
    let key = first_routing_key(delivery);
    if key != routing_key(&event.provider) {
        let detail = format!("published under {key:?}, but the body's provider is {:?}", event.provider.as_str());
        return refused(Reason::ProviderMismatch, detail);
    }
    match (is_live, event.livemode) {
        (true, true) | (false, false) => Verdict::Event(event),
        (true, false) => Verdict::TestEvent,
        (false, true) => refused(
            Reason::LivemodeMismatch,
            "a live event, but GRANTONCE_LIVEMODE is false here: is the provider's live endpoint set to this receiver?"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Headers;
    use crate::domain::{MessageId, PaymentId, PaymentStatus, Provider};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);

    fn delivery(livemode: bool) -> Delivery {
        let event = PaymentEvent {
            provider: Provider::new("stripe").unwrap(),
            message_id: MessageId::new("stripe::evt_1").unwrap(),
            payment_id: PaymentId::new("pi_1").unwrap(),
            related_ids: vec![],
            provider_account: None,
            order_id: None,
            status: PaymentStatus::Canceled,
            occurred_at: NOW,
            livemode,
        };
        Delivery {
            tag: 1,
            exchange: "payments".to_owned(),
            routing_key: "payment.stripe".to_owned(),
            message_id: Some("stripe::evt_1".to_owned()),
            kind: Some(message::TYPE.to_owned()),
            published_at: None,
            headers: Headers::default(),
            body: message::encode(&event),
        }
    }

    fn reason(delivery: &Delivery, is_live: bool) -> Option<Reason> {
        match judge(delivery, is_live, NOW) {
            Verdict::Refused(refusal) => Some(refusal.reason),
            Verdict::Event(_) | Verdict::TestEvent => None,
        }
    }

    #[test]
    fn a_good_delivery_is_an_event() {
        assert!(matches!(judge(&delivery(true), true, NOW), Verdict::Event(_)));
        assert!(matches!(judge(&delivery(false), false, NOW), Verdict::Event(_)));
    }

    #[test]
    fn livemode_must_match() {
        assert!(matches!(judge(&delivery(false), true, NOW), Verdict::TestEvent));
        assert_eq!(reason(&delivery(true), false), Some(Reason::LivemodeMismatch));
    }

    #[test]
    fn properties_and_body_must_agree() {
        let with = |change: &dyn Fn(&mut Delivery)| {
            let mut delivery = delivery(true);
            change(&mut delivery);
            reason(&delivery, true)
        };
        assert_eq!(with(&|d| d.kind = None), Some(Reason::Malformed));
        assert_eq!(with(&|d| d.kind = Some("payment-status.v2".to_owned())), Some(Reason::Malformed));
        assert_eq!(with(&|d| d.message_id = None), Some(Reason::Malformed));
        assert_eq!(with(&|d| d.message_id = Some("stripe::evt_2".to_owned())), Some(Reason::Malformed));
        assert_eq!(with(&|d| d.body.truncate(20)), Some(Reason::Malformed));
        assert_eq!(with(&|d| d.routing_key = "payment.adyen".to_owned()), Some(Reason::ProviderMismatch));
    }

    #[test]
    fn only_the_brokers_own_retries_are_believed_their_headers() {
        let mut forged = delivery(true);
        forged.headers.set_text(ROUTING_KEY_HEADER, "payment.stripe");
        forged.headers.set_integer(ATTEMPT_HEADER, 7);
        forged.routing_key = "payment.acme".to_owned();
        assert_eq!(reason(&forged, true), Some(Reason::ProviderMismatch));
        assert_eq!(attempts_before(&forged), 0);

        let mut retry = forged;
        retry.exchange = String::new();
        retry.routing_key = "fulfilment".to_owned();
        assert_eq!(reason(&retry, true), None);
        assert_eq!(attempts_before(&retry), 7);
    }
}

//! Judges a delivery before the database is asked. Pure.

use crate::broker::Delivery;
use crate::domain::{Reason, Refusal};
use crate::message::{ATTEMPT_HEADER, Envelope, Judgement, ROUTING_KEY_HEADER, WAITS_HEADER, provider_of, routing_key};
use std::borrow::Cow;
use time::OffsetDateTime;

/// Whether a delivery came out of one of our own retry queues. A retry queue forwards through the default exchange, to
/// which relays cannot write, and the broker records the queue. Only then are our own headers believed.
pub(super) fn is_retry(delivery: &Delivery) -> bool {
    delivery.exchange.is_empty() && delivery.death.as_ref().is_some_and(|death| death.was_put_off)
}

/// Whether somebody moved the delivery here, with the management pages or a shovel. Then nobody knows its first routing
/// key: the headers are those of its first sender, who may be a relay.
fn is_moved(delivery: &Delivery) -> bool {
    delivery.exchange.is_empty() && !is_retry(delivery)
}

/// How often this message was put off because its order was unknown.
pub(super) fn attempts_before(delivery: &Delivery) -> u32 {
    own_number(delivery, ATTEMPT_HEADER)
}

/// How often it was put off through no fault of its own.
pub(super) fn waits_before(delivery: &Delivery) -> u32 {
    own_number(delivery, WAITS_HEADER)
}

fn own_number(delivery: &Delivery, header: &str) -> u32 {
    let number = if is_retry(delivery) { delivery.headers.integer(header) } else { None };
    number.and_then(|n| u32::try_from(n).ok()).unwrap_or(0)
}

/// The routing key under which the message was first published. If somebody moved the message, it is the key that the
/// body claims, for an operator to check.
pub(super) fn first_routing_key(delivery: &Delivery) -> Cow<'_, str> {
    if is_retry(delivery) {
        delivery.headers.text(ROUTING_KEY_HEADER).unwrap_or_default().into()
    } else if is_moved(delivery) {
        provider_of(&delivery.body).map(|provider| routing_key(&provider)).unwrap_or_default().into()
    } else {
        delivery.routing_key.as_str().into()
    }
}

/// Reads a delivery and checks what can be checked without its order.
pub(super) fn judge(delivery: &Delivery, is_live: bool, now: OffsetDateTime) -> Judgement {
    let envelope = Envelope {
        kind: delivery.kind.as_deref(),
        message_id: delivery.message_id.as_deref(),
        routing_key: &first_routing_key(delivery),
        body: &delivery.body,
    };
    match envelope.judge(is_live, now) {
        Judgement::Event(event) if is_moved(delivery) => Judgement::Refused(Refusal::new(
            Reason::ProviderMismatch,
            format!(
                "moved here by hand, so nobody knows under which key it was published; a replay vouches for {}",
                event.provider
            ),
        )),
        judged @ (Judgement::Event(_) | Judgement::TestEvent | Judgement::Refused(_)) => judged,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Death, Headers};
    use crate::domain::{MessageId, PaymentEvent, PaymentId, PaymentStatus, Provider, Reason};
    use crate::message;
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
            as_of: None,
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
            death: None,
            body: message::encode(&event).unwrap().into(),
            unreadable: None,
        }
    }

    fn reason(delivery: &Delivery, is_live: bool) -> Option<Reason> {
        match judge(delivery, is_live, NOW) {
            Judgement::Refused(refusal) => Some(refusal.reason),
            Judgement::Event(_) | Judgement::TestEvent => None,
        }
    }

    #[test]
    fn a_good_delivery_is_an_event() {
        assert!(matches!(judge(&delivery(true), true, NOW), Judgement::Event(_)));
        assert!(matches!(judge(&delivery(false), false, NOW), Judgement::Event(_)));
    }

    #[test]
    fn livemode_must_match() {
        assert!(matches!(judge(&delivery(false), true, NOW), Judgement::TestEvent));
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
        assert_eq!(reason(&retry, true), Some(Reason::ProviderMismatch), "moved by hand");
        assert_eq!(attempts_before(&retry), 0);
        assert_eq!(first_routing_key(&retry), "payment.stripe", "what its body claims, for its letter");

        let death = |was_put_off| Death {
            reason: "expired".to_owned(),
            queue: "fulfilment.retry.5s".to_owned(),
            exchange: "payments.retry".to_owned(),
            routing_key: "5s".to_owned(),
            was_put_off,
        };
        retry.death = Some(death(false));
        assert_eq!(reason(&retry, true), Some(Reason::ProviderMismatch));
        retry.death = Some(death(true));
        assert_eq!(reason(&retry, true), None);
        assert_eq!(attempts_before(&retry), 7);
    }
}

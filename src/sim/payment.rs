//! A payment at the simulated provider, and its events as the webhooks of that provider would tell them.

use crate::domain::{
    CaptureState, Currency, MessageId, Money, OrderId, PaymentEvent, PaymentId, PaymentStatus, Provider,
};
use crate::message;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;

/// Whose webhooks are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Seller {
    /// Stripe's events, signed as Stripe signs.
    Stripe,
    /// `payment-status.v1`, signed by Standard Webhooks 1.0.
    Standard,
}

impl Seller {
    /// The name in an order and in the receiver's path.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stripe => "stripe",
            Self::Standard => "standard",
        }
    }
}

/// What becomes of a payment once the buyer has acted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Paid.
    Succeeded,
    /// The card was declined. The buyer may try again.
    Failed,
    /// Given up.
    Canceled,
}

/// What one event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// The payment exists: genuine, and none of our business.
    Created,
    /// The bank is at it.
    Processing,
    /// An attempt failed.
    AttemptFailed,
    /// Paid.
    Succeeded,
    /// Paid, in other words: the checkout session that the payment belongs to is complete.
    SessionCompleted,
    /// Given up.
    Canceled,
}

impl Said {
    /// Whether whoever hears it owes the buyer the credits.
    pub(super) fn is_paid(self) -> bool {
        match self {
            Self::Succeeded | Self::SessionCompleted => true,
            Self::Created | Self::Processing | Self::AttemptFailed | Self::Canceled => false,
        }
    }
}

/// What stays of a payment as long as it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Payment {
    /// `pi_…` at Stripe, `pay_…` else.
    pub(super) id: String,
    /// What all ids of this payment end with.
    pub(super) tag: String,
    pub(super) seller: Seller,
    pub(super) money: Money,
    pub(super) created_at: OffsetDateTime,
}

/// One event of a payment. It holds all that its webhook says, so that every copy has the same bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: String,
    pub(super) said: Said,
    pub(super) at: OffsetDateTime,
    /// The order's id, where the payment carried it when this happened.
    pub(super) order_id: Option<OrderId>,
}

impl Payment {
    pub(super) fn new(seller: Seller, tag: String, money: Money, created_at: OffsetDateTime) -> Self {
        let prefix = match seller {
            Seller::Stripe => "pi_",
            Seller::Standard => "pay_",
        };
        Self { id: format!("{prefix}{tag}"), tag, seller, money, created_at }
    }

    /// The `number`th event of this payment.
    pub(super) fn event(&self, number: u32, said: Said, order_id: Option<OrderId>, at: OffsetDateTime) -> Event {
        let prefix = match self.seller {
            Seller::Stripe => "evt_",
            Seller::Standard => "msg_",
        };
        Event { id: format!("{prefix}{}e{number:03}", self.tag), said, at, order_id }
    }

    /// The body of the event's webhook.
    pub(super) fn body(&self, event: &Event) -> Bytes {
        match self.seller {
            Seller::Stripe => Bytes::from(self.stripe_event(event).to_string()),
            Seller::Standard => self.status_message(event).unwrap_or_default(),
        }
    }

    fn stripe_event(&self, event: &Event) -> serde_json::Value {
        let (kind, object) = match event.said {
            Said::Created => ("payment_intent.created", self.stripe_intent(event, "requires_payment_method")),
            Said::Processing => ("payment_intent.processing", self.stripe_intent(event, "processing")),
            Said::AttemptFailed => {
                ("payment_intent.payment_failed", self.stripe_intent(event, "requires_payment_method"))
            }
            Said::Succeeded => ("payment_intent.succeeded", self.stripe_intent(event, "succeeded")),
            Said::Canceled => ("payment_intent.canceled", self.stripe_intent(event, "canceled")),
            Said::SessionCompleted => ("checkout.session.completed", self.stripe_session(event)),
        };
        json!({
            "id": event.id,
            "object": "event",
            "api_version": "2025-09-30.clover",
            "created": event.at.unix_timestamp(),
            "data": {"object": object},
            "livemode": false,
            "pending_webhooks": 1,
            "request": {"id": null, "idempotency_key": null},
            "type": kind,
        })
    }

    fn stripe_intent(&self, event: &Event, status: &str) -> serde_json::Value {
        let is_paid = event.said.is_paid();
        let amount = self.money.amount_minor();
        let error = json!({"code": "card_declined", "message": "Your card was declined.", "type": "card_error"});
        json!({
            "id": self.id,
            "object": "payment_intent",
            "amount": amount,
            "amount_capturable": 0,
            "amount_received": if is_paid { amount } else { 0 },
            "capture_method": "automatic_async",
            "created": self.created_at.unix_timestamp(),
            "currency": self.money.currency().as_str().to_ascii_lowercase(),
            "last_payment_error": (event.said == Said::AttemptFailed).then_some(error),
            "latest_charge": is_paid.then(|| format!("ch_{}", self.tag)),
            "livemode": false,
            "metadata": metadata(event),
            "status": status,
        })
    }

    fn stripe_session(&self, event: &Event) -> serde_json::Value {
        json!({
            "id": format!("cs_test_{}", self.tag),
            "object": "checkout.session",
            "amount_total": self.money.amount_minor(),
            "client_reference_id": null,
            "created": self.created_at.unix_timestamp(),
            "currency": self.money.currency().as_str().to_ascii_lowercase(),
            "livemode": false,
            "metadata": metadata(event),
            "mode": "payment",
            "payment_intent": self.id,
            "payment_status": "paid",
            "status": "complete",
        })
    }

    /// None for ids that break our own rules for ids, which ours do not.
    fn status_message(&self, event: &Event) -> Option<Bytes> {
        let paid = PaymentStatus::Captured { money: self.money, capture_id: None, state: CaptureState::Succeeded };
        let (status, related) = match event.said {
            Said::Created | Said::Processing => (PaymentStatus::Pending, None),
            Said::AttemptFailed => (PaymentStatus::failed("card declined"), None),
            Said::Succeeded => (paid, None),
            Said::SessionCompleted => (paid, Some(format!("checkout_{}", self.tag))),
            Said::Canceled => (PaymentStatus::Canceled, None),
        };
        let event = PaymentEvent {
            provider: Provider::new(self.seller.name()).ok()?,
            message_id: MessageId::new(format!("{}::{}", self.seller.name(), event.id)).ok()?,
            payment_id: PaymentId::new(&self.id).ok()?,
            related_ids: related.and_then(|id| PaymentId::new(id).ok()).into_iter().collect(),
            provider_account: None,
            order_id: event.order_id,
            status,
            occurred_at: event.at,
            livemode: false,
        };
        Some(Bytes::from(message::encode(&event)))
    }
}

fn metadata(event: &Event) -> serde_json::Value {
    event.order_id.map_or_else(|| json!({}), |order_id| json!({"order_id": order_id}))
}

/// Money as a site names it.
pub(super) fn money(amount_minor: i64, currency: &str) -> Result<Money, crate::domain::MoneyError> {
    Money::new(amount_minor, Currency::new(currency)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);

    fn payment(seller: Seller) -> Payment {
        Payment::new(seller, "tag1".to_owned(), money(1999, "USD").unwrap(), NOW)
    }

    #[test]
    fn stripe_tells_one_payment_by_two_events() {
        let payment = payment(Seller::Stripe);
        let order_id = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        let read = |event: &Event| serde_json::from_slice::<serde_json::Value>(&payment.body(event)).unwrap();
        let intent = read(&payment.event(1, Said::Succeeded, Some(order_id), NOW));
        let session = read(&payment.event(2, Said::SessionCompleted, None, NOW));
        assert_eq!(intent["type"], "payment_intent.succeeded");
        assert_eq!(intent["data"]["object"]["id"], session["data"]["object"]["payment_intent"]);
        assert_eq!(intent["data"]["object"]["amount_received"], 1999);
        assert_eq!(intent["data"]["object"]["currency"], "usd");
        assert_eq!(intent["data"]["object"]["metadata"]["order_id"], order_id.to_string());
        assert_eq!(session["data"]["object"]["metadata"], json!({}));
        assert_ne!(intent["id"], session["id"]);
        assert_eq!(read(&payment.event(1, Said::AttemptFailed, None, NOW))["data"]["object"]["amount_received"], 0);
    }

    #[test]
    fn standard_tells_it_by_the_wire_contract() {
        let payment = payment(Seller::Standard);
        for (said, name) in [
            (Said::Processing, "pending"),
            (Said::AttemptFailed, "failed"),
            (Said::Succeeded, "captured"),
            (Said::SessionCompleted, "captured"),
            (Said::Canceled, "canceled"),
        ] {
            let read = message::decode(&payment.body(&payment.event(1, said, None, NOW)), NOW).unwrap();
            assert_eq!(read.status.name(), name);
            assert_eq!(read.payment_id.as_str(), "pay_tag1");
        }
    }

    #[test]
    fn every_copy_has_the_same_bytes() {
        for seller in [Seller::Stripe, Seller::Standard] {
            let payment = payment(seller);
            let event = payment.event(3, Said::Succeeded, None, NOW);
            assert_eq!(payment.body(&event), payment.body(&event.clone()));
        }
    }
}

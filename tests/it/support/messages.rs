//! Messages of providers and relays.

use grantonce::domain::{
    CaptureState, Currency, MessageId, Money, OrderId, PaymentEvent, PaymentId, PaymentStatus, Provider,
};
use grantonce_testkit::sign::stripe_signature;
use time::OffsetDateTime;

/// A capture of the whole amount in US dollars.
pub fn captured(amount_minor: i64) -> PaymentStatus {
    let money = Money::new(amount_minor, Currency::new("USD").unwrap()).unwrap();
    PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown: None }
}

/// An event of `stripe`, in test mode, now. `message` is the part of the id after `stripe::`.
pub fn event_for(payment: &str, message: &str, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent {
        provider: Provider::new("stripe").unwrap(),
        message_id: MessageId::new(format!("stripe::{message}")).unwrap(),
        payment_id: PaymentId::new(payment).unwrap(),
        related_ids: vec![],
        provider_account: None,
        order_id: None,
        status,
        occurred_at: OffsetDateTime::now_utc(),
        as_of: None,
        livemode: false,
    }
}

/// A `payment_intent.succeeded` over `amount_minor` US cents: body and signature header.
pub fn stripe_webhook(
    secret: &str,
    event: &str,
    payment: &str,
    amount_minor: i64,
    order: Option<OrderId>,
) -> (Vec<u8>, String) {
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let metadata = order.map_or(serde_json::json!({}), |id| serde_json::json!({ "order_id": id.to_string() }));
    let body = serde_json::json!({
        "id": event, "object": "event", "type": "payment_intent.succeeded", "created": now, "livemode": false,
        "api_version": "2024-06-20",
        "data": {"object": {"id": payment, "object": "payment_intent", "amount": amount_minor,
                            "amount_received": amount_minor, "currency": "usd", "status": "succeeded",
                            "livemode": false, "metadata": metadata}}
    });
    let body = serde_json::to_vec(&body).unwrap();
    let signature = stripe_signature(secret, now, &body).unwrap();
    (body, signature)
}

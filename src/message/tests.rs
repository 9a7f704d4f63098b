//! The contract, in a table of bodies.

use super::*;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);

fn body(patch: serde_json::Value) -> Vec<u8> {
    let mut body = serde_json::json!({
        "provider": "stripe", "message_id": "stripe::evt_1", "payment_id": "pi_3", "related_ids": ["cs_1"],
        "provider_account": null, "order_id": null,
        "status": {"type": "captured", "amount_minor": 1999, "currency": "USD"},
        "occurred_at": "2026-01-05T12:00:00Z", "livemode": true
    });
    for (key, value) in patch.as_object().unwrap() {
        body[key] = value.clone();
    }
    serde_json::to_vec(&body).unwrap()
}

fn event(status: PaymentStatus) -> PaymentEvent {
    PaymentEvent { status, ..decode(&body(serde_json::json!({})), NOW).unwrap() }
}

fn refusal(patch: serde_json::Value) -> String {
    decode(&body(patch), NOW).unwrap_err().to_string()
}

#[test]
fn what_is_written_is_read_back() {
    let money = |n| Money::new(n, Currency::new("USD").unwrap()).unwrap();
    let id = |text: &str| FactId::new(text).unwrap();
    let statuses = [
        PaymentStatus::Pending,
        PaymentStatus::Captured { money: money(5), capture_id: None, state: CaptureState::Succeeded, breakdown: None },
        PaymentStatus::Captured {
            money: money(5),
            capture_id: Some(id("c")),
            state: CaptureState::Failed,
            breakdown: None,
        },
        PaymentStatus::failed("card declined"),
        PaymentStatus::Canceled,
        PaymentStatus::Refund { refund_id: id("r"), state: RefundState::Pending, money: money(1) },
        PaymentStatus::RefundedTotal { money: money(2) },
        PaymentStatus::Dispute { dispute_id: id("d"), state: DisputeState::Won, round: 2, money: money(3) },
    ];
    let event = decode(&body(serde_json::json!({})), NOW).unwrap();
    for status in statuses {
        let event = PaymentEvent { status, ..event.clone() };
        assert_eq!(decode(&encode(&event).unwrap(), NOW).unwrap(), event);
    }
}

#[test]
fn a_hint_is_read_back() {
    let id = |text| PaymentId::new(text).unwrap();
    let hint = Hint {
        provider: Provider::PAYPAL,
        message_id: MessageId::new("paypal::WH-1:PAYMENT.CAPTURE.COMPLETED").unwrap(),
        payment_id: id("5O190127TN364715T"),
        related_ids: vec![id("3C679366HH908993F")],
        provider_account: None,
        livemode: false,
    };
    assert_eq!(decode_hint(&encode_hint(&hint).unwrap()).unwrap(), hint);
    assert!(decode_hint(b"{}").unwrap_err().to_string().contains("provider"));
    let many = Hint { related_ids: vec![id("x"); RELATED_IDS_MAX + 1], ..hint };
    assert!(matches!(decode_hint(&encode_hint(&many).unwrap()), Err(DecodeError::TooManyRelatedIds { .. })));
}

#[test]
fn a_refusal_names_the_field() {
    use serde_json::json;
    for (patch, part) in [
        (json!({"payment_id": ""}), "payment_id: must not be empty"),
        (json!({"payment_id": "a\u{0}"}), "payment_id: has a character that is not allowed"),
        (json!({"message_id": "evt_1"}), "message_id must begin with \"stripe:\""),
        (json!({"message_id": "stripe"}), "message_id must begin with \"stripe:\""),
        (json!({"provider": "Stripe!"}), "provider: must be"),
        (json!({"order_id": "12"}), "order_id"),
        (json!({"occurred_at": "yesterday"}), "occurred_at"),
        (json!({"occurred_at": "2026-01-07T12:00:00Z"}), "ahead of our clock"),
        (json!({"livemode": "yes"}), "livemode"),
        (json!({"status": {"type": "paid"}}), "unknown variant `paid`"),
        (json!({"status": {"type": "captured", "amount_minor": -1, "currency": "USD"}}), "amount_minor is -1"),
        (json!({"status": {"type": "captured", "amount_minor": 1.5, "currency": "USD"}}), "status"),
        (json!({"status": {"type": "captured", "amount_minor": 1, "currency": "usd"}}), "ISO 4217"),
        (json!({"related_ids": vec!["x"; 9]}), "related_ids has 9 entries"),
        (
            json!({"status": {"type": "dispute", "dispute_id": "d", "state": "open", "round": 0, "amount_minor": 1,
                              "currency": "USD"}}),
            "nonzero",
        ),
    ] {
        let said = refusal(patch.clone());
        assert!(said.contains(part), "{patch}: {said}");
    }
    assert!(decode(b"{} trailing", NOW).is_err());
    assert!(decode(&[b'['; 100_000], NOW).is_err(), "deep nesting is an error, not a stack overflow");
    assert!(matches!(decode(&vec![b' '; BODY_BYTES_MAX + 1], NOW), Err(DecodeError::TooLong { .. })));
}

#[test]
fn a_trace_id_is_hexadecimal_or_none() {
    let id = "0af7651916cd43dd8448eb211c80319c";
    assert_eq!(trace_id(&format!("00-{id}-b7ad6b7169203331-01")), Some(id));
    for bad in ["", "00", "00-1-2-01", &format!("00-{}", id.replace('0', "ä")), &format!("0x-{id}-1-01")] {
        assert_eq!(trace_id(bad), None, "{bad}");
    }
}

#[test]
fn a_senders_own_id_does_not_count_where_its_secret_names_it() {
    use serde_json::json;
    let stripe = Provider::STRIPE;
    let as_ours = |body: &[u8]| decode_as(body, NOW, &stripe, MessageId::new("stripe::mine").unwrap());
    for id in [json!("stripe::evt_1"), json!("standard::evt_1"), json!(7), json!(null), json!({"a": [1]})] {
        assert_eq!(as_ours(&body(json!({"message_id": id}))).unwrap().message_id.as_str(), "stripe::mine");
    }
    let mut without: serde_json::Value = serde_json::from_slice(&body(json!({}))).unwrap();
    without.as_object_mut().unwrap().remove("message_id");
    let without = serde_json::to_vec(&without).unwrap();
    assert!(as_ours(&without).is_ok());
    assert!(decode(&without, NOW).unwrap_err().to_string().contains("missing field `message_id`"));
    assert!(matches!(
        as_ours(&body(json!({"provider": "adyen"}))),
        Err(DecodeError::ForeignProvider { expected, .. }) if expected == stripe
    ));
    assert!(as_ours(&body(json!({"payment_id": ""}))).unwrap_err().to_string().contains("payment_id"));
}

#[test]
fn the_digest_is_of_the_fact_alone() {
    let event = decode(&body(serde_json::json!({})), NOW).unwrap();
    let later = PaymentEvent { occurred_at: NOW - Duration::days(2), ..event.clone() };
    assert_eq!(fact_digest(&event).unwrap(), fact_digest(&later).unwrap());
    let other = PaymentEvent { payment_id: PaymentId::new("pi_4").unwrap(), ..event.clone() };
    assert_ne!(fact_digest(&event).unwrap(), fact_digest(&other).unwrap());
    let canceled = PaymentEvent { status: PaymentStatus::Canceled, ..event.clone() };
    assert_ne!(fact_digest(&event).unwrap(), fact_digest(&canceled).unwrap());
}

#[test]
fn what_cannot_be_written_is_an_error_and_no_empty_body() {
    let before_all_dates = OffsetDateTime::from_unix_timestamp(-80_000_000_000).unwrap();
    for event in [
        PaymentEvent { occurred_at: before_all_dates, ..event(PaymentStatus::Pending) },
        PaymentEvent { as_of: Some(before_all_dates), ..event(PaymentStatus::Pending) },
    ] {
        assert!(encode(&event).is_err());
    }
}

#[test]
fn what_later_releases_tell_in_addition_leaves_a_copy_a_copy() {
    let money = |minor| Money::new(minor, "USD".parse().unwrap()).unwrap();
    let captured = |breakdown| {
        let (money, capture_id, state) = (money(1999), None, CaptureState::Succeeded);
        event(PaymentStatus::Captured { money, capture_id, state, breakdown })
    };
    let digest = |event: &PaymentEvent| fact_digest(event).unwrap();
    let told = captured(Some(Breakdown::new(money(1999), 319, 0).unwrap()));
    assert_eq!(digest(&told), digest(&captured(None)));
    let canceled = event(PaymentStatus::CaptureCanceled { capture_id: FactId::new("c").unwrap() });
    assert_eq!(digest(&canceled), digest(&event(PaymentStatus::Canceled)));
    let later = PaymentEvent { as_of: Some(told.occurred_at), ..told.clone() };
    assert_eq!(digest(&later), digest(&told));
}

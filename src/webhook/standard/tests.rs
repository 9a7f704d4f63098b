use super::super::tests::{NOW, STANDARD_SECRET, TERMS, at, headers, keys, only};
use super::super::{Endpoint, Translation, Unverified, Verified};
use crate::domain::{MessageId, PaymentStatus};
use serde_json::{Value, json};

fn body(patch: Value) -> Vec<u8> {
    let mut body = json!({
        "provider": "standard", "payment_id": "p_3", "related_ids": ["q_1"],
        "status": {"type": "captured", "amount_minor": 1999, "currency": "USD"},
        "occurred_at": "2026-01-05T12:00:00Z", "livemode": true
    });
    for (key, value) in patch.as_object().unwrap() {
        body[key] = value.clone();
    }
    serde_json::to_vec(&body).unwrap()
}

/// Signs, verifies and translates a body.
fn translate(id: &str, body: &[u8]) -> Translation {
    let signature = grantonce_testkit::sign::standard_signature(STANDARD_SECRET, id, NOW, body).unwrap();
    let headers =
        headers(&[("webhook-id", id), ("webhook-timestamp", &NOW.to_string()), ("webhook-signature", &signature)]);
    let keys = keys(Endpoint::Standard, &[STANDARD_SECRET]);
    only(keys.verify(Unverified { headers: &headers, body, now: at(NOW) }).unwrap().translate())
}

fn untranslatable(translation: Translation) -> (String, Option<bool>, String) {
    let Translation::Untranslatable { message_id, livemode, detail, .. } = translation.clone() else {
        panic!("{translation:?}")
    };
    (message_id.into_string(), livemode, detail)
}

#[test]
fn the_message_id_is_the_deliverys_whatever_the_body_says() {
    for own in
        [json!({}), json!({"message_id": "stripe::evt_1"}), json!({"message_id": 7}), json!({"message_id": null})]
    {
        let Translation::Events(events) = translate("msg_1", &body(own)) else { panic!() };
        let [event] = &events[..] else { panic!() };
        assert_eq!(event.message_id.as_str(), "standard::msg_1");
        assert_eq!(event.provider.as_str(), "standard");
        assert_eq!(event.payment_ids().map(|id| id.as_str()).collect::<Vec<_>>(), ["p_3", "q_1"]);
        assert!(matches!(event.status, PaymentStatus::Captured { capture_id: None, .. }));
        assert!(event.livemode);
    }
}

#[test]
fn a_secret_stands_for_no_other_provider() {
    let (id, livemode, detail) = untranslatable(translate("msg_1", &body(json!({"provider": "stripe"}))));
    assert_eq!((id.as_str(), livemode), ("standard::msg_1", Some(true)));
    assert!(detail.contains(r#"must say "standard""#), "{detail}");
}

#[test]
fn what_is_genuine_but_no_message_of_ours_is_kept() {
    for (body, livemode, part) in [
        (b"<xml/>".to_vec(), None, "expected value"),
        (b"\xff".to_vec(), None, "expected value"),
        (Vec::new(), None, "EOF"),
        (b"[]".to_vec(), None, "invalid length 0"),
        (body(json!({"payment_id": ""})), Some(true), "payment_id: must not be empty"),
        (body(json!({"livemode": "yes"})), None, "livemode"),
        (body(json!({"livemode": false, "status": {"type": "paid"}})), Some(false), "status"),
        (body(json!({"occurred_at": "2027-01-05T12:00:00Z"})), Some(true), "ahead of our clock"),
        (body(json!({"status": {"type": "captured", "amount_minor": 1, "currency": "usd"}})), Some(true), "ISO 4217"),
        (body(json!({"livemode": "x\n".repeat(5000)})), None, "livemode"),
    ] {
        let (id, said_livemode, detail) = untranslatable(translate("msg_1", &body));
        assert_eq!((id.as_str(), said_livemode), ("standard::msg_1", livemode), "{detail}");
        assert!(detail.contains(part), "{detail}");
        assert!(detail.len() <= 500 && !detail.contains('\n'), "{detail}");
    }
}

#[test]
fn a_body_with_any_field_missing_is_translated_or_kept() {
    let whole: Value = serde_json::from_slice(&body(json!({}))).unwrap();
    for field in ["provider", "payment_id", "status", "occurred_at", "livemode"] {
        let mut part = whole.clone();
        part.as_object_mut().unwrap().remove(field);
        let (_, _, detail) = untranslatable(translate("msg_1", &serde_json::to_vec(&part).unwrap()));
        assert!(detail.contains(field), "{field}: {detail}");
    }
}

#[test]
fn an_id_that_is_too_long_is_replaced_by_the_bodys_digest() {
    let fits = "m".repeat(255 - "standard::".len());
    assert!(matches!(translate(&fits, &body(json!({}))), Translation::Events(_)));
    let (id, livemode, detail) = untranslatable(translate(&format!("{fits}m"), &body(json!({}))));
    assert!(id.starts_with("standard::sha256-"), "{id}");
    assert_eq!(livemode, Some(true));
    assert!(detail.contains("webhook-id") && detail.contains("255"), "{detail}");
    let (other, ..) = untranslatable(translate(&format!("{fits}m"), &body(json!({"payment_id": "p_4"}))));
    assert_ne!(id, other);
}

#[test]
fn a_kept_body_is_translated_anew_under_its_own_id() {
    let id = MessageId::new("standard::msg_1").unwrap();
    let body = body(json!({}));
    let kept = Verified::kept(Endpoint::Standard, &id, &body, at(NOW), TERMS);
    assert_eq!(only(kept.translate()), translate("msg_1", &body));
}

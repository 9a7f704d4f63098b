//! Cases that merchants have reported, as far as one item shows them.

use super::super::super::tests::{ADYEN_KEY, TERMS, keys, only};
use super::super::super::{Endpoint, Rejection, Translation};
use super::{
    BY_HAND, ORDER, all, body, fault, id, ignored, item, modification, said_with, signed, status, translate_with,
    verdict, verify,
};
use crate::domain::{IgnoredWhy, PaymentStatus, RefundState};
use http::HeaderMap;
use serde_json::{Value, json};

#[test]
fn a26_what_may_move_money_in_another_way_is_for_an_operator_and_found_by_its_order() {
    for code in [
        "SETTLED_REVERSED",
        "HANDLED_EXTERNALLY",
        "VOID_PENDING_REFUND",
        "AUTHORISATION_ADJUSTMENT",
        "MANUAL_REVIEW_REJECT",
        "WHAT_ADYEN_MAY_ADD",
        "",
    ] {
        let translation = only(translate_with(&[modification(code, json!({}))], TERMS));
        let Translation::Untranslatable { detail, concerns, .. } = translation else {
            panic!("{code}: {translation:?}")
        };
        assert!(detail.starts_with("eventCode: "), "{detail}");
        assert_eq!(concerns.order_id.map(|id| id.to_string()).as_deref(), Some(ORDER));
        assert_eq!(concerns.payment_ids.iter().map(|id| id.as_str()).collect::<Vec<_>>(), ["PSP1"]);
    }
    // An item that would be applied but has no valid date still shows its status.
    let late = only(translate_with(&[item("AUTHORISATION", json!({"eventDate": "?"}))], TERMS));
    let Translation::Untranslatable { concerns, .. } = late else { panic!("{late:?}") };
    assert!(matches!(concerns.status, Some(PaymentStatus::Captured { .. })), "{concerns:?}");
}

#[test]
fn a03_a_cancellation_ends_the_capture_that_was_announced() {
    let reversal =
        |code: &str, action: &str| modification(code, json!({"additionalData": {"modification.action": action}}));
    let canceled = PaymentStatus::CaptureCanceled { capture_id: id("PSP1") };
    for code in ["CANCEL_OR_REFUND", "REVERSAL"] {
        let said = all(reversal(code, "cancel"), TERMS);
        assert_eq!(said, [(format!("adyen::MOD1:{code}:true#cancel"), "PSP1".to_owned(), canceled.clone())]);
        assert_eq!(all(reversal(code, "cancel"), BY_HAND)[0].2, PaymentStatus::Canceled);
        let said = all(reversal(code, "refund"), TERMS);
        assert_eq!(said[0].0, format!("adyen::MOD1:{code}:true"));
        assert!(matches!(said[0].2, PaymentStatus::Refund { state: RefundState::Succeeded, .. }));
        assert!(fault(reversal(code, "cancelRefund")).1.contains("modification.action"));
        // The refunded amount is not known.
        let mut nothing = reversal(code, "refund");
        nothing["amount"]["value"] = json!(0);
        assert!(fault(nothing).1.contains("amount.value"));
    }
    for code in ["CANCELLATION", "TECHNICAL_CANCEL", "EXPIRE"] {
        assert_eq!(all(modification(code, json!({})), BY_HAND)[0].2, PaymentStatus::Canceled, "{code}");
    }
    // The item must name its payment.
    for code in ["CANCELLATION", "TECHNICAL_CANCEL", "CAPTURE", "CAPTURE_FAILED"] {
        for missing in [json!({"originalReference": null}), json!({"originalReference": ""})] {
            assert!(fault(modification(code, missing)).1.contains("originalReference"), "{code}");
        }
    }
    assert_eq!(status(item("EXPIRE", json!({}))), canceled, "an expiry names the payment itself");
}

#[test]
fn a07_each_part_of_a_closed_order_is_given_back() {
    let closed =
        |data: Value| item("ORDER_CLOSED", json!({"success": "false", "pspReference": "ORD1", "additionalData": data}));
    let parts = json!({"order-1-pspReference": "GIFT1", "order-1-paymentAmount": "EUR 10.00", "order-2-pspReference": "CARD2",
        "order-4-pspReference": "CARD4"});
    let canceled = |reference: &str| PaymentStatus::CaptureCanceled { capture_id: id(reference) };
    let expected = [("GIFT1", 1), ("CARD2", 2), ("CARD4", 4)]
        .map(|(part, n)| (format!("adyen::ORD1:ORDER_CLOSED:false#{n}"), part.to_owned(), canceled(part)));
    assert_eq!(all(closed(parts.clone()), TERMS), expected);
    assert!(all(closed(parts), BY_HAND).iter().all(|(_, _, status)| *status == PaymentStatus::Canceled));
    assert_eq!(status(closed(json!({}))), PaymentStatus::PartsCanceled);
    let many: serde_json::Map<_, _> =
        (1..=101).map(|n| (format!("order-{n}-pspReference"), json!(format!("P{n}")))).collect();
    assert!(fault(closed(many.into())).1.contains("additionalData"));
}

#[test]
fn a01_what_cannot_be_told_apart_is_answered_with_2xx_and_never_applied() {
    let report = item(
        "REPORT_AVAILABLE",
        json!({"pspReference": "settlement_2026-11-01T00:00:00_batch.csv", "amount": {"currency": "EUR", "value": 0},
            "merchantReference": ""}),
    );
    assert_eq!(ignored(report, TERMS), IgnoredWhy::NoMoney);
    for patch in [
        json!({"pspReference": "PSP:1"}),
        json!({"originalReference": "A:B"}),
        json!({"merchantAccountCode": "Shop:A"}),
        json!({"amount": {"currency": "E:R", "value": 1999}}),
    ] {
        for code in ["AUTHORISATION", "REFUND", "CHARGEBACK", "WHAT_ADYEN_MAY_ADD"] {
            let translation = only(translate_with(&[item(code, patch.clone())], TERMS));
            let Translation::Untranslatable { message_id, concerns, .. } = translation else {
                panic!("{translation:?}")
            };
            assert!(message_id.as_str().starts_with("adyen::sha256-"), "the id of a genuine one is not used up");
            assert_eq!(concerns.order_id.map(|id| id.to_string()).as_deref(), Some(ORDER));
        }
        let refused = json!({"success": "false"});
        let mut request = item("CANCELLATION", patch);
        request["success"] = refused["success"].clone();
        assert_eq!(ignored(request, TERMS), IgnoredWhy::RequestFailed);
    }
    // A wrong signature is still wrong.
    let mut forged = signed(item("REPORT_AVAILABLE", json!({"pspReference": "a:b"})), ADYEN_KEY);
    forged["pspReference"] = json!("a:c");
    assert_eq!(verdict(&body(&[forged])), Err(Rejection::SignatureWrong));
}

#[test]
fn a01_a_signed_field_of_another_type_is_signed_as_it_is_written() {
    let mut flag = signed(item("AUTHORISATION", json!({})), ADYEN_KEY);
    flag["success"] = json!(true);
    assert_eq!(verdict(&body(&[flag])), Ok(()));
    let mut text = signed(item("REPORT_AVAILABLE", json!({})), ADYEN_KEY);
    text["amount"]["value"] = json!("1999");
    text["originalReference"] = json!(null);
    assert_eq!(verdict(&body(&[text])), Ok(()));
    let bare = signed(item("REPORT_AVAILABLE", json!({"amount": null, "merchantReference": null})), ADYEN_KEY);
    assert_eq!(verdict(&body(&[bare])), Ok(()));
}

#[test]
fn a01_webhooks_that_are_signed_as_a_whole_are_answered_with_2xx() {
    let key = "11223344D785FBAE710E7F943F307971BB61B21281C98C9129B3D4018A57B2EB";
    let body = include_bytes!("../../../../tests/vectors/adyen_header_hmac_vector_body.json");
    let signed = |signature: &str| crate::webhook::tests::headers(&[("HmacSignature", signature)]);
    let headers = signed("UVBzHbDayhfT1XgaRGAkuKvxwoxrLoVCBdfi3WZU8lI=");
    let keys = keys(Endpoint::Adyen, &[ADYEN_KEY, key]);
    let said = only(verify(&keys, &headers, body).unwrap().translate());
    assert!(matches!(said, Translation::Ignored { why: IgnoredWhy::NoPayment, .. }), "{said:?}");
    let wrong = signed("UVBzHbDayhfT1XgaRGAkuKvxwoxrLoVCBdfi3WZU8lA=");
    assert_eq!(verify(&keys, &wrong, body).map(|_| ()), Err(Rejection::SignatureWrong));
    let mac = super::super::key(key).unwrap();
    for (body, is_ignored) in [
        (&br#"{"type": "ach.notificationOfChange", "data": {}}"#[..], true),
        (br#"{"type": "something.new"}"#, false),
        (br#"{"data": {}}"#, false),
        (br#"{"type": "AUTHORISATION", "data": {}}"#, false),
    ] {
        let headers = signed(&base64::Engine::encode(&base64::prelude::BASE64_STANDARD, mac.tag(&[body])));
        let said = only(verify(&keys, &headers, body).unwrap().translate());
        assert_eq!(matches!(said, Translation::Ignored { .. }), is_ignored, "{said:?}");
        assert!(matches!(said, Translation::Ignored { .. } | Translation::Untranslatable { .. }));
    }
    // In a body with items, each item must be signed.
    let unsigned = super::body(&[item("AUTHORISATION", json!({}))]);
    let headers = signed(&base64::Engine::encode(&base64::prelude::BASE64_STANDARD, mac.tag(&[&unsigned])));
    assert_eq!(verify(&keys, &headers, &unsigned).map(|_| ()), Err(Rejection::SignatureMissing));
}

#[test]
fn s19_a_lone_surrogate_in_a_field_that_is_not_signed_changes_nothing() {
    for field in ["reason", "paymentMethod"] {
        let whole = body(&[signed(item("AUTHORISATION", json!({ field: "PLACE" })), ADYEN_KEY)]);
        let broken = String::from_utf8(whole).unwrap().replace("PLACE", r"cut \ud83d");
        let keys = keys(Endpoint::Adyen, &[ADYEN_KEY]);
        let said = only(verify(&keys, &HeaderMap::new(), broken.as_bytes()).unwrap().translate());
        assert!(matches!(said, Translation::Events(_)), "{field}: {said:?}");
    }
}

#[test]
fn a12_a_step_that_names_the_payment_makes_its_dispute_known() {
    let named = said_with(modification("CHARGEBACK", json!({})), TERMS);
    assert_eq!((named.payment_id.as_str(), named.related_ids[0].as_str()), ("PSP1", "MOD1"));
    let unnamed = said_with(modification("CHARGEBACK_REVERSED", json!({"originalReference": null})), TERMS);
    assert_eq!((unnamed.payment_id.as_str(), unnamed.related_ids.len()), ("MOD1", 0));
}

mod cases;

use super::super::tests::{ADYEN_KEY, NOW, TERMS, at, keys, only};
use super::super::{Endpoint, Keys, Rejection, Terms, Translation, Unverified, Verified};
use crate::domain::{
    CaptureState, Currency, DisputeState, FactId, IgnoredWhy, MessageId, Money, PaymentEvent, PaymentStatus,
    RefundState,
};
use http::HeaderMap;
use serde_json::{Value, json};

const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";
const BY_HAND: Terms = Terms { is_adyen_captured_by_hand: true, ..TERMS };
const OTHER_KEY: &str = "DFB1EB5485895CFA84146406857104ABB4CBCABDC8AAF103A624C8F6A3EAAB00";

/// Builds the body of a published vector from its signed text.
pub(in super::super) fn body_of_vector(signed: &str, signature: &str) -> Vec<u8> {
    let (psp, rest) = signed.split_once(':').unwrap();
    let (original, rest) = rest.split_once(':').unwrap();
    let (account, rest) = rest.split_once(':').unwrap();
    let mut last = rest.rsplitn(5, ':');
    let mut next = || last.next().unwrap();
    let (success, code, currency, value, reference) = (next(), next(), next(), next(), next());
    body(&[json!({
        "pspReference": psp, "originalReference": original, "merchantAccountCode": account,
        "merchantReference": reference, "amount": {"value": value.parse::<i64>().unwrap(), "currency": currency},
        "eventCode": code, "success": success, "additionalData": {"hmacSignature": signature}
    })])
}

fn body(items: &[Value]) -> Vec<u8> {
    let items: Vec<_> = items.iter().map(|item| json!({"NotificationRequestItem": item})).collect();
    serde_json::to_vec(&json!({"live": "true", "notificationItems": items})).unwrap()
}

fn item(code: &str, patch: Value) -> Value {
    let mut item = json!({
        "additionalData": {"expiryDate": "12/2030"}, "amount": {"currency": "EUR", "value": 1999}, "eventCode": code,
        "eventDate": "2026-01-05T13:00:00+01:00", "merchantAccountCode": "Shop", "merchantReference": ORDER,
        "paymentMethod": "visa", "pspReference": "PSP1", "reason": "", "success": "true"
    });
    for (key, value) in patch.as_object().unwrap() {
        item[key] = value.clone();
    }
    item
}

/// A later modification of the payment PSP1.
fn modification(code: &str, patch: Value) -> Value {
    let mut item = item(code, json!({"pspReference": "MOD1", "originalReference": "PSP1"}));
    for (key, value) in patch.as_object().unwrap() {
        item[key] = value.clone();
    }
    item
}

fn signed(mut item: Value, key: &str) -> Value {
    let signature = grantonce_testkit::sign::adyen_signature(key, &item).unwrap().unwrap();
    item["additionalData"]["hmacSignature"] = signature.into();
    item
}

fn verify<'a>(keys: &Keys, headers: &'a HeaderMap, body: &'a [u8]) -> Result<Verified<'a>, Rejection> {
    keys.verify(Unverified { headers, body, now: at(NOW) })
}

fn verdict(body: &[u8]) -> Result<(), Rejection> {
    verify(&keys(Endpoint::Adyen, &[OTHER_KEY, ADYEN_KEY]), &HeaderMap::new(), body).map(|_| ())
}

fn translate_with(items: &[Value], terms: Terms) -> Vec<Translation> {
    let body = body(&items.iter().map(|item| signed(item.clone(), ADYEN_KEY)).collect::<Vec<_>>());
    let keys = Keys::new(Endpoint::Adyen, &[ADYEN_KEY.into()], terms).unwrap();
    verify(&keys, &HeaderMap::new(), &body).unwrap().translate()
}

/// Translates items that are already signed.
fn translated(items: &[Value]) -> Vec<Translation> {
    let body = body(items);
    verify(&keys(Endpoint::Adyen, &[ADYEN_KEY]), &HeaderMap::new(), &body).unwrap().translate()
}

fn said_with(item: Value, terms: Terms) -> PaymentEvent {
    let translation = only(translate_with(std::slice::from_ref(&item), terms));
    let Translation::Events(events) = translation.clone() else { panic!("{item}: {translation:?}") };
    let [event] = <[PaymentEvent; 1]>::try_from(events).unwrap();
    event
}

/// Everything that an item reports: message, payment and status.
fn all(item: Value, terms: Terms) -> Vec<(String, String, PaymentStatus)> {
    let translation = only(translate_with(std::slice::from_ref(&item), terms));
    let Translation::Events(events) = translation.clone() else { panic!("{item}: {translation:?}") };
    let told = |event: PaymentEvent| (event.message_id.into_string(), event.payment_id.into_string(), event.status);
    events.into_iter().map(told).collect()
}

fn ignored(item: Value, terms: Terms) -> IgnoredWhy {
    let translation = only(translate_with(std::slice::from_ref(&item), terms));
    let Translation::Ignored { why, .. } = translation else { panic!("{item}: {translation:?}") };
    why
}

fn status(item: Value) -> PaymentStatus {
    said_with(item, TERMS).status
}

fn fault(item: Value) -> (String, String) {
    let translation = only(translate_with(std::slice::from_ref(&item), TERMS));
    let Translation::Untranslatable { message_id, livemode: None, detail, .. } = translation.clone() else {
        panic!("{item}: {translation:?}")
    };
    (message_id.into_string(), detail)
}

fn euros(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::new("EUR").unwrap()).unwrap()
}

fn id(text: &str) -> FactId {
    FactId::new(text).unwrap()
}

#[test]
fn an_authorisation_is_the_payment_where_adyen_captures_by_itself() {
    let event = said_with(item("AUTHORISATION", json!({})), TERMS);
    assert_eq!(event.message_id.as_str(), "adyen::PSP1:AUTHORISATION:true");
    assert_eq!(event.payment_id.as_str(), "PSP1");
    assert_eq!(event.order_id.unwrap().to_string(), ORDER);
    assert_eq!(event.occurred_at, at(NOW));
    assert_eq!(event.provider.as_str(), "adyen");
    let captured = PaymentStatus::Captured {
        money: euros(1999),
        capture_id: Some(id("PSP1")),
        state: CaptureState::Succeeded,
        breakdown: None,
    };
    assert_eq!(event.status, captured);
    let of = |capture: &str, state| PaymentStatus::Captured {
        money: euros(1999),
        capture_id: Some(id(capture)),
        state,
        breakdown: None,
    };
    // A later failure cancels that same capture, also if a capture was requested.
    let failed = all(modification("CAPTURE_FAILED", json!({})), TERMS);
    let expected = [
        ("adyen::MOD1:CAPTURE_FAILED:true", of("PSP1", CaptureState::Failed)),
        ("adyen::MOD1:CAPTURE_FAILED:true#capture", of("MOD1", CaptureState::Failed)),
    ];
    assert_eq!(failed, expected.map(|(id, status)| (id.to_owned(), "PSP1".to_owned(), status)));
    // A requested capture replaces the one that was announced.
    let made = all(modification("CAPTURE", json!({})), TERMS);
    let expected = [
        ("adyen::MOD1:CAPTURE:true#capture", of("MOD1", CaptureState::Succeeded)),
        ("adyen::MOD1:CAPTURE:true#announced", PaymentStatus::CaptureCanceled { capture_id: id("PSP1") }),
    ];
    assert_eq!(made, expected.map(|(id, status)| (id.to_owned(), "PSP1".to_owned(), status)));

    let by_hand = Terms { is_adyen_captured_by_hand: true, ..TERMS };
    assert_eq!(said_with(item("AUTHORISATION", json!({})), by_hand).status, PaymentStatus::Pending);
    for (code, success, state) in
        [("CAPTURE", "true", CaptureState::Succeeded), ("CAPTURE_FAILED", "true", CaptureState::Failed)]
    {
        let event = said_with(modification(code, json!({"success": success})), by_hand);
        assert_eq!(event.payment_id.as_str(), "PSP1");
        let expected =
            PaymentStatus::Captured { money: euros(1999), capture_id: Some(id("MOD1")), state, breakdown: None };
        assert_eq!(event.status, expected, "{code}");
    }
}

#[test]
fn codes_and_what_they_say() {
    let refund = |state| PaymentStatus::Refund { refund_id: id("MOD1"), state, money: euros(1999) };
    let dispute = |round, state| PaymentStatus::Dispute { dispute_id: id("MOD1"), state, round, money: euros(1999) };
    for (code, success, expected) in [
        ("AUTHORISATION", "false", PaymentStatus::failed("refused")),
        ("PENDING", "true", PaymentStatus::Pending),
        ("CANCELLATION", "true", PaymentStatus::CaptureCanceled { capture_id: id("PSP1") }),
        ("TECHNICAL_CANCEL", "true", PaymentStatus::CaptureCanceled { capture_id: id("PSP1") }),
        ("OFFER_CLOSED", "true", PaymentStatus::Canceled),
        ("EXPIRE", "true", PaymentStatus::CaptureCanceled { capture_id: id("PSP1") }),
        ("REFUND", "true", refund(RefundState::Succeeded)),
        ("CANCEL_OR_REFUND", "true", refund(RefundState::Succeeded)),
        ("REVERSAL", "true", refund(RefundState::Succeeded)),
        ("REFUND_WITH_DATA", "true", refund(RefundState::Succeeded)),
        ("REFUND_WITH_DATA", "false", refund(RefundState::Failed)),
        ("POSTPONED_REFUND", "true", refund(RefundState::Pending)),
        ("REFUND", "false", refund(RefundState::Failed)),
        ("REFUND_FAILED", "true", refund(RefundState::Failed)),
        ("REFUNDED_REVERSED", "true", refund(RefundState::Failed)),
        ("REQUEST_FOR_INFORMATION", "true", dispute(1, DisputeState::Inquiry)),
        ("NOTIFICATION_OF_CHARGEBACK", "true", dispute(1, DisputeState::Open)),
        ("CHARGEBACK", "true", dispute(1, DisputeState::Lost)),
        ("DISPUTE_OPENED_WITH_CHARGEBACK", "true", dispute(1, DisputeState::Lost)),
        ("CHARGEBACK_REVERSED", "true", dispute(2, DisputeState::Won)),
        ("ISSUER_RESPONSE_TIMEFRAME_EXPIRED", "true", dispute(2, DisputeState::Won)),
        ("PREARBITRATION_OPEN", "true", dispute(3, DisputeState::Open)),
        ("PREARBITRATION_DECLINED", "true", dispute(3, DisputeState::Open)),
        ("PREARBITRATION_ISSUER_WITHDRAWN", "true", dispute(3, DisputeState::Won)),
        ("PREARBITRATION_ACCEPTED", "true", dispute(3, DisputeState::Lost)),
        ("SCHEME_ARBITRATION", "true", dispute(5, DisputeState::Open)),
        ("SCHEME_ARBITRATION_WON", "true", dispute(5, DisputeState::Won)),
        ("SCHEME_ARBITRATION_LOST", "true", dispute(5, DisputeState::Lost)),
        ("SECOND_CHARGEBACK", "true", dispute(3, DisputeState::Lost)),
        ("PREARBITRATION_WON", "true", dispute(4, DisputeState::Won)),
        ("PREARBITRATION_LOST", "true", dispute(4, DisputeState::Lost)),
    ] {
        assert_eq!(status(modification(code, json!({"success": success}))), expected, "{code} {success}");
    }
    let refused = item("AUTHORISATION", json!({"success": "false", "reason": "Not enough balance"}));
    assert_eq!(status(refused), PaymentStatus::failed("Not enough balance"));
    let failed = json!({"success": "false"});
    for (code, patch, why) in [
        ("REPORT_AVAILABLE", json!({}), IgnoredWhy::NoMoney),
        ("CANCELLATION", failed.clone(), IgnoredWhy::RequestFailed),
        ("TECHNICAL_CANCEL", failed.clone(), IgnoredWhy::RequestFailed),
        ("CANCEL_OR_REFUND", failed.clone(), IgnoredWhy::RequestFailed),
        ("REVERSAL", failed.clone(), IgnoredWhy::RequestFailed),
        ("CAPTURE", failed.clone(), IgnoredWhy::RequestFailed),
        ("VOID_PENDING_REFUND", failed.clone(), IgnoredWhy::RequestFailed),
        ("POSTPONED_REFUND", failed.clone(), IgnoredWhy::RequestFailed),
        ("AUTHORISATION_ADJUSTMENT", failed, IgnoredWhy::RequestFailed),
        ("AUTHORISATION", json!({"amount": {"currency": "EUR", "value": 0}}), IgnoredWhy::NoMoney),
        ("NOTIFICATION_OF_FRAUD", json!({}), IgnoredWhy::NoMoney),
        ("INFORMATION_SUPPLIED", json!({}), IgnoredWhy::NoMoney),
        ("ORDER_OPENED", json!({}), IgnoredWhy::SaidByAnotherEvent),
        ("ORDER_CLOSED", json!({}), IgnoredWhy::SaidByAnotherEvent),
        ("DONATION", json!({}), IgnoredWhy::NotOurs),
        ("PAIDOUT_REVERSED", json!({}), IgnoredWhy::NoPayment),
        ("REFUND_NOT_CLEARED", json!({}), IgnoredWhy::SaidByAnotherEvent),
    ] {
        assert_eq!(ignored(modification(code, patch), TERMS), why, "{code}");
    }
    // A capture by hand reports the money.
    for code in ["AUTHORISATION_ADJUSTMENT", "MANUAL_REVIEW_REJECT"] {
        ignored(modification(code, json!({})), BY_HAND);
    }
    assert_eq!(ignored(modification("CAPTURE", json!({"success": "false"})), BY_HAND), IgnoredWhy::RequestFailed);
}

#[test]
fn amounts_are_in_adyens_own_minor_units() {
    let money = |currency: &str, value: i64| {
        let PaymentStatus::Captured { money, .. } =
            status(item("AUTHORISATION", json!({"amount": {"currency": currency, "value": value}})))
        else {
            panic!("{currency}")
        };
        money.amount_minor()
    };
    for (currency, value, minor) in [
        ("USD", 1999, 1999),
        ("JPY", 1999, 1999),
        ("BHD", 19_990, 19_990),
        // Currencies with two decimals at Adyen and none in ISO 4217, or the opposite.
        ("CLP", 199_900, 1_999),
        ("ISK", 199_900, 1_999),
        ("CVE", 1_999, 199_900),
        ("IDR", 1_999, 199_900),
    ] {
        assert_eq!(money(currency, value), minor, "{currency}");
    }
    let (_, detail) = fault(item("AUTHORISATION", json!({"amount": {"currency": "CLP", "value": 1_950}})));
    assert!(detail.contains("amount.value"), "{detail}");
}

#[test]
fn what_cannot_be_read_is_kept_with_the_field_named() {
    for (patch, part) in [
        (json!({"amount": {"currency": "EURO", "value": 1}}), "amount.currency"),
        (json!({"amount": {"currency": "EUR", "value": "1"}}), "amount.value"),
        (json!({"amount": null}), "amount"),
        (json!({"eventDate": "yesterday"}), "eventDate"),
        (json!({"success": "maybe"}), "success"),
    ] {
        let (_, detail) = fault(item("AUTHORISATION", patch.clone()));
        assert!(detail.contains(part), "{patch}: {detail}");
    }
    let (message_id, _) = fault(item("AUTHORISATION", json!({"eventDate": ""})));
    assert_eq!(message_id, "adyen::PSP1:AUTHORISATION:true", "a replay of it is known by the same id");
    // The merchant made this reference. The order is found by the payment's reference.
    let foreign = said_with(item("AUTHORISATION", json!({"merchantReference": "invoice:7"})), TERMS);
    assert_eq!(foreign.order_id, None);
}

#[test]
fn the_key_tells_test_from_live_and_not_the_body() {
    for livemode in [true, false] {
        let body = serde_json::to_vec(&json!({
            "live": livemode.to_string(),
            "notificationItems": [{"NotificationRequestItem": signed(item("AUTHORISATION", json!({})), ADYEN_KEY)}]
        }))
        .unwrap();
        for deployed in [true, false] {
            let keys = Keys::new(Endpoint::Adyen, &[ADYEN_KEY.into()], Terms { livemode: deployed, ..TERMS }).unwrap();
            let said = only(verify(&keys, &HeaderMap::new(), &body).unwrap().translate());
            match said {
                Translation::Events(events) => {
                    assert!(livemode == deployed && events.iter().all(|event| event.livemode == deployed));
                }
                Translation::Untranslatable { livemode: None, detail, .. } => {
                    assert!(livemode != deployed && detail.contains("GRANTONCE_LIVEMODE"), "{detail}");
                }
                Translation::Ignored { .. } | Translation::Untranslatable { .. } | Translation::Hint(_) => {
                    panic!("{said:?}")
                }
            }
        }
    }
}

#[test]
fn every_item_counts_and_has_to_be_signed() {
    let good = || signed(item("AUTHORISATION", json!({})), ADYEN_KEY);
    let by_old_key = || signed(item("AUTHORISATION", json!({"pspReference": "PSP2"})), OTHER_KEY);
    assert_eq!(verdict(&body(&[good(), by_old_key()])), Ok(()));

    let said = translate_with(
        &[
            item("AUTHORISATION", json!({})),
            item("AUTHORISATION", json!({"pspReference": "PSP2", "eventDate": "?"})),
            item("AUTHORISATION", json!({"pspReference": "PSP3"})),
        ],
        TERMS,
    );
    let ids: Vec<String> = said
        .iter()
        .map(|said| match said {
            Translation::Events(events) => format!("event {}", events[0].message_id),
            Translation::Untranslatable { message_id, .. } => format!("letter {message_id}"),
            Translation::Ignored { kind, .. } => kind.clone(),
            Translation::Hint(hint) => panic!("{hint:?}"),
        })
        .collect();
    assert_eq!(
        ids,
        [
            "event adyen::PSP1:AUTHORISATION:true",
            "letter adyen::PSP2:AUTHORISATION:true",
            "event adyen::PSP3:AUTHORISATION:true"
        ]
    );

    let unknown_key = "11223344D785FBAE710E7F943F307971BB61B21281C98C9129B3D4018A57B2EB";
    let wrong = Err(Rejection::SignatureWrong);
    assert_eq!(verdict(&body(&[good(), signed(item("REFUND", json!({})), unknown_key)])), wrong);
    assert_eq!(verdict(&body(&[good(), item("REFUND", json!({}))])), Err(Rejection::SignatureMissing));
    for (field, value) in [
        ("pspReference", json!("PSP2")),
        ("originalReference", json!("PSP2")),
        ("merchantAccountCode", json!("Other")),
        ("merchantReference", json!("01890a5d-ac96-774b-bcce-b302099a8058")),
        ("amount", json!({"currency": "EUR", "value": 1})),
        ("amount", json!({"currency": "USD", "value": 1999})),
        ("eventCode", json!("REFUND")),
        ("success", json!("false")),
    ] {
        let mut changed = good();
        changed[field] = value;
        assert_eq!(verdict(&body(&[changed])), wrong, "{field}");
    }
    let mut half = good();
    half["additionalData"]["hmacSignature"] = json!("AAAA");
    assert_eq!(verdict(&body(&[half])), wrong);
}

#[test]
fn a_signature_cannot_be_moved_to_another_parting_of_the_same_text() {
    // "PSP1::Shop:A:B:…" can be read as the account "Shop" with the reference "A:B", or as "Shop:A" with "B".
    let one = signed(item("AUTHORISATION", json!({"merchantReference": "A:B"})), ADYEN_KEY);
    assert_eq!(verdict(&body(std::slice::from_ref(&one))), Ok(()));
    let mut moved = one;
    moved["merchantAccountCode"] = json!("Shop:A");
    moved["merchantReference"] = json!("B");
    assert_eq!(verdict(&body(std::slice::from_ref(&moved))), Ok(()), "no retry can repair it");
    let said = only(translated(&[moved]));
    assert!(matches!(said, Translation::Untranslatable { .. }), "{said:?}");
    // Other fields can also take over a part of their neighbour.
    let whole = signed(item("AUTHORISATION", json!({"merchantReference": "A:B:C"})), ADYEN_KEY);
    for patch in [
        json!({"pspReference": "PSP1:", "originalReference": "Shop", "merchantAccountCode": "A", "merchantReference": "B:C"}),
        json!({"originalReference": ":Shop", "merchantAccountCode": "A", "merchantReference": "B:C"}),
        json!({"merchantReference": "A:B", "amount": {"value": "C:1999", "currency": "EUR"}}),
        json!({"merchantReference": "A:B:C:1999", "amount": {"value": "EUR", "currency": "AUTHORISATION"}, "eventCode": "true",
            "success": ""}),
    ] {
        let mut moved = whole.clone();
        for (key, value) in patch.as_object().unwrap() {
            moved[key] = value.clone();
        }
        match verdict(&body(std::slice::from_ref(&moved))) {
            Err(Rejection::SignatureWrong) => {}
            Ok(()) => {
                let said = only(translated(&[moved]));
                assert!(matches!(said, Translation::Untranslatable { .. }), "{patch}: {said:?}");
            }
            other => panic!("{patch}: {other:?}"),
        }
    }
}

#[test]
fn bodies_that_hold_no_signature_are_malformed() {
    for body in [
        &b""[..],
        b"{",
        b"[]",
        b"{}",
        br#"{"notificationItems": []}"#,
        br#"{"notificationItems": [{}]}"#,
        br#"{"notificationItems": [{"NotificationRequestItem": 1}]}"#,
        br#"{"notificationItems": {"NotificationRequestItem": {}}}"#,
    ] {
        assert!(matches!(verdict(body), Err(Rejection::Malformed { .. })), "{}", String::from_utf8_lossy(body));
    }
    let many = body(&vec![signed(item("AUTHORISATION", json!({})), ADYEN_KEY); 1_001]);
    assert!(matches!(verdict(&many), Err(Rejection::Malformed { .. })));
    let mut list = signed(item("AUTHORISATION", json!({})), ADYEN_KEY);
    list["amount"]["value"] = json!([1999]);
    assert!(matches!(verdict(&body(&[list])), Err(Rejection::Malformed { .. })));
}

#[test]
fn a_kept_body_is_translated_anew() {
    let kept = body(&[signed(item("AUTHORISATION", json!({})), ADYEN_KEY)]);
    let id = MessageId::new("adyen::PSP1:AUTHORISATION:true").unwrap();
    let said = only(Verified::kept(Endpoint::Adyen, &id, &kept, at(NOW), TERMS).translate());
    assert!(matches!(said, Translation::Events(events) if events[0].message_id == id));
}

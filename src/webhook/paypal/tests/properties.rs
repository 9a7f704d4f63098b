//! Properties of any request: no forgery is accepted, and nothing panics.

use super::made::{GOOD, Sent, URL, WEBHOOK_ID, keys};
use crate::domain::MessageId;
use crate::webhook::tests::{NOW, TERMS, at};
use crate::webhook::{Endpoint, Rejection, Unverified, Verified, paypal};
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde_json::{Value, json};

const HEADERS: [&str; 5] =
    [paypal::ID_HEADER, paypal::TIME_HEADER, paypal::SIGNATURE_HEADER, paypal::URL_HEADER, paypal::ALGORITHM_HEADER];

const KINDS: [&str; 3] = ["PAYMENT.CAPTURE.COMPLETED", "CHECKOUT.ORDER.APPROVED", "CUSTOMER.DISPUTE.CREATED"];

/// Mostly headers that matter, with values that look a little like real ones.
fn any_header() -> impl Strategy<Value = (&'static str, Vec<u8>)> {
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        "[A-Za-z0-9+/]{342}==".prop_map(String::into_bytes),
        "https://(api.paypal.com|[a-z.:@/%]{1,20})[/@:?#.a-zA-Z0-9%\\\\-]{0,40}".prop_map(String::into_bytes),
        Just(URL.as_bytes().to_vec()),
        Just(b"SHA256withRSA".to_vec()),
    ];
    (select(&HEADERS[..]), value)
}

/// Random bytes, a changed certificate, or a good one.
fn any_certificates() -> impl Strategy<Value = Vec<u8>> {
    let changed = (any::<Index>(), any::<u8>()).prop_map(|(place, byte)| {
        let mut pem = GOOD.clone().into_bytes();
        let place = place.index(pem.len());
        pem[place] = byte;
        pem
    });
    let base64 = "[A-Za-z0-9+/\n]{0,200}"
        .prop_map(|text| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n").into_bytes());
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..200),
        base64,
        changed,
        any::<Index>().prop_map(|end| GOOD.as_bytes()[..end.index(GOOD.len())].to_vec()),
        Just(GOOD.as_bytes().to_vec()),
    ]
}

proptest! {
    #[test]
    fn nothing_unsigned_ever_verifies_and_nothing_panics(
        pairs in proptest::collection::vec(any_header(), 0..8),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        certificates in any_certificates(),
        now in prop_oneof![Just(NOW), -377_705_116_800_i64..=253_402_300_799],
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &pairs {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        let request = Unverified { headers: &headers, body: &body, now: at(now) };
        let keys = keys(&[WEBHOOK_ID], TERMS);
        if let Ok(url) = keys.certificate_url(&request) {
            let url = url.unwrap();
            prop_assert!(url.as_str().starts_with("https://api.paypal.com/"), "{}", url.as_str());
        }
        prop_assert!(keys.verify_with(request, &certificates).is_err());
    }

    #[test]
    fn a_flipped_bit_never_verifies(
        body in proptest::collection::vec(any::<u8>(), 1..200),
        place: Index,
        bit in 0_u32..8,
    ) {
        let keys = keys(&[WEBHOOK_ID], TERMS);
        let good = Sent::to(WEBHOOK_ID, &body);
        prop_assert_eq!(good.verdict(&keys), Ok(()));
        let mut flipped = good.clone();
        flipped.body[place.index(body.len())] ^= 1 << bit;
        // A CRC-32 detects every change of a single bit.
        prop_assert_eq!(flipped.verdict(&keys), Err(Rejection::SignatureWrong));

        let engine = base64::prelude::BASE64_STANDARD;
        let mut signature = base64::Engine::decode(&engine, &good.headers[2].1).unwrap();
        let place = place.index(signature.len());
        signature[place] ^= 1 << bit;
        let flipped = good.with(paypal::SIGNATURE_HEADER, &base64::Engine::encode(&engine, signature));
        prop_assert_eq!(flipped.verdict(&keys), Err(Rejection::SignatureWrong));
    }

    /// With any other certificate file, a signature is never good for another body.
    #[test]
    fn a_changed_certificate_vouches_for_nothing_new(certificates in any_certificates()) {
        let keys = keys(&[WEBHOOK_ID], TERMS);
        let Ok(text) = String::from_utf8(certificates) else { return Ok(()) };
        let other_body = Sent { body: b"{}".to_vec(), ..Sent::to(WEBHOOK_ID, b"[]") };
        prop_assert!(other_body.under(text).verdict(&keys).is_err());
    }

    #[test]
    fn translation_never_panics_and_names_at_most_eight_payments(
        kind in prop_oneof![
            select(&KINDS[..]).prop_map(str::to_owned),
            ".{0,300}",
        ],
        id in ".{0,300}",
        resource in any_json(),
    ) {
        let kept = MessageId::new("paypal::m").unwrap();
        let body = json!({"id": id, "event_type": kind, "resource": resource}).to_string();
        for body in [body.as_bytes(), &body.as_bytes()[..body.len() / 2]] {
            let said = Verified::kept(Endpoint::Paypal, &kept, body, at(NOW), TERMS).translate();
            prop_assert!((1..=8).contains(&said.len()));
        }
    }
}

/// JSON that often contains names with a meaning.
fn any_json() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 12] = [
        "id",
        "order_id",
        "supplementary_data",
        "related_ids",
        "links",
        "rel",
        "up",
        "href",
        "/v2/payments/captures/C1",
        "disputed_transactions",
        "seller_transaction_id",
        "C1",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        select(&WORDS[..]).prop_map(Value::from),
        ".{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 16, |inner| {
        let pair = (select(&WORDS[..]).prop_map(str::to_owned), inner.clone());
        prop_oneof![
            proptest::collection::vec(inner, 0..12).prop_map(Value::from),
            proptest::collection::vec(pair, 0..12).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

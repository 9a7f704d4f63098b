//! Properties of any request: no forgery is accepted, and nothing panics.

use super::super::{Endpoint, Unverified, Verified};
use super::{ADYEN_KEY, NOW, STANDARD_SECRET, STRIPE_SECRET, TERMS, at, keys, verdict};
use crate::domain::MessageId;
use http::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

/// Mostly headers that matter, with values that look a little like real ones.
fn any_header() -> impl Strategy<Value = (String, Vec<u8>)> {
    const NAMES: [&str; 8] = [
        "stripe-signature",
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "svix-id",
        "svix-timestamp",
        "svix-signature",
        "x",
    ];
    let value = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..80),
        "t=[0-9]{1,12},(v1=[0-9a-f]{60,66},?){0,3}".prop_map(String::into_bytes),
        "(v1,[A-Za-z0-9+/]{43}= ?){0,3}".prop_map(String::into_bytes),
        "[0-9]{10}".prop_map(String::into_bytes),
        Just(NOW.to_string().into_bytes()),
    ];
    (proptest::sample::select(&NAMES[..]).prop_map(str::to_owned), value)
}

proptest! {
    #[test]
    fn nothing_unsigned_ever_verifies_and_nothing_panics(
        pairs in proptest::collection::vec(any_header(), 0..8),
        body in proptest::collection::vec(any::<u8>(), 0..200),
        now in -377_705_116_800_i64..=253_402_300_799,
    ) {
        let mut headers = HeaderMap::new();
        for (name, value) in &pairs {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.append(HeaderName::try_from(name).unwrap(), value);
            }
        }
        for keys in [
            keys(Endpoint::Stripe, &[STRIPE_SECRET]),
            keys(Endpoint::Standard, &[STANDARD_SECRET]),
            keys(Endpoint::Adyen, &[ADYEN_KEY]),
        ] {
            for now in [now, NOW] {
                let verdict = keys.verify(Unverified { headers: &headers, body: &body, now: at(now) });
                prop_assert!(verdict.is_err());
            }
        }
    }

    #[test]
    fn a_flipped_bit_never_verifies(
        body in proptest::collection::vec(any::<u8>(), 1..200),
        place: proptest::sample::Index,
        bit in 0_u32..8,
    ) {
        let mut flipped = body.clone();
        flipped[place.index(body.len())] ^= 1 << bit;
        let signature = grantonce_testkit::sign::stripe_signature(STRIPE_SECRET, NOW, &body).unwrap();
        let stripe = keys(Endpoint::Stripe, &[STRIPE_SECRET]);
        let standard_signature = grantonce_testkit::sign::standard_signature(STANDARD_SECRET, "m", NOW, &body).unwrap();
        let standard = keys(Endpoint::Standard, &[STANDARD_SECRET]);
        let now = NOW.to_string();
        let judge = |stripe_signature: &str, standard_signature: &str, body: &[u8]| {
            let pairs = [
                ("stripe-signature", stripe_signature),
                ("webhook-id", "m"),
                ("webhook-timestamp", &now),
                ("webhook-signature", standard_signature),
            ];
            (verdict(&stripe, &pairs, body, NOW), verdict(&standard, &pairs, body, NOW))
        };
        prop_assert_eq!(judge(&signature, &standard_signature, &body), (Ok(()), Ok(())));
        let (by_stripe, by_standard) = judge(&signature, &standard_signature, &flipped);
        prop_assert!(by_stripe.is_err() && by_standard.is_err());

        // A bit of the signature itself is flipped. The rest has the provider's format.
        let (start, tag) = signature.split_once("v1=").unwrap();
        let mut tag = hex::decode(tag).unwrap();
        tag[place.index(32)] ^= 1 << bit;
        let encoded = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, &tag);
        let (by_stripe, _) = judge(&format!("{start}v1={}", hex::encode(&tag)), &standard_signature, &body);
        prop_assert!(by_stripe.is_err());
        let (_, by_standard) = judge(&signature, &format!("v1,{encoded}"), &body);
        prop_assert!(by_standard.is_err());
    }

    #[test]
    fn translation_never_panics(body in any_json(), kind in proptest::sample::select(&KINDS[..])) {
        let id = MessageId::new("standard::m").unwrap();
        let mut object = body.clone();
        if let Some(object) = object.as_object_mut() {
            object.insert("object".to_owned(), kind.1.into());
        }
        let event = json!({"id": "evt_1", "type": kind.0, "created": 1, "livemode": true, "data": {"object": object}});
        let items = json!({"live": "true", "notificationItems": [{"NotificationRequestItem": event}]});
        for body in [body, event, items] {
            let body = serde_json::to_vec(&body).unwrap();
            for endpoint in Endpoint::ALL.iter().copied() {
                for body in [&body[..], &body[..body.len() / 2]] {
                    let _ = Verified::kept(endpoint, &id, body, at(NOW), TERMS).translate();
                }
            }
        }
    }
}

const KINDS: [(&str, &str); 5] = [
    ("payment_intent.succeeded", "payment_intent"),
    ("checkout.session.completed", "checkout.session"),
    ("charge.refunded", "charge"),
    ("refund.updated", "refund"),
    ("charge.dispute.closed", "dispute"),
];

/// JSON with the keys and texts that the translation reads.
fn any_json() -> impl Strategy<Value = Value> {
    const WORDS: [&str; 24] = [
        "id",
        "type",
        "data",
        "object",
        "created",
        "livemode",
        "account",
        "status",
        "amount",
        "currency",
        "metadata",
        "order_id",
        "amount_received",
        "amount_total",
        "amount_refunded",
        "latest_charge",
        "charge",
        "payment_intent",
        "mode",
        "payment",
        "payment_status",
        "paid",
        "usd",
        "message_id",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        proptest::sample::select(&WORDS[..]).prop_map(Value::from),
        ".{0,300}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 16, |inner| {
        let pair = (proptest::sample::select(&WORDS[..]).prop_map(str::to_owned), inner.clone());
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            proptest::collection::vec(pair, 0..16).prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

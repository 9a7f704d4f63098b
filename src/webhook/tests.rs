//! Rules of every endpoint: published vectors, rejections and keys.

mod properties;
mod simulated;

use super::*;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

/// The time 2026-01-05T12:00:00Z.
pub(super) const NOW: i64 = 1_767_614_400;
pub(super) const STRIPE_SECRET: &str = "whsec_8fLq3xZ1nB6vT0yKc5RjUw2EaGdHsM7p";
pub(super) const STANDARD_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OTHER_SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
pub(super) const ADYEN_KEY: &str = "44782DEF547AAA06C910C43932B1EB0C71FC68D9D0C057550C48EC2ACF6BA056";

pub(super) const TERMS: Terms = Terms { livemode: true, is_adyen_captured_by_hand: false };

/// The only translation of a body.
pub(super) fn only(mut said: Vec<Translation>) -> Translation {
    assert_eq!(said.len(), 1, "{said:?}");
    said.remove(0)
}

pub(super) fn at(unix: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix).unwrap()
}

pub(super) fn keys(endpoint: Endpoint, secrets: &[&str]) -> Keys {
    let secrets: Vec<_> = secrets.iter().map(|secret| (*secret).into()).collect();
    Keys::new(endpoint, &secrets, TERMS).unwrap()
}

pub(super) fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(HeaderName::try_from(*name).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn verdict(keys: &Keys, pairs: &[(&str, &str)], body: &[u8], now: i64) -> Result<(), Rejection> {
    keys.verify(Unverified { headers: &headers(pairs), body, now: at(now) }).map(|_| ())
}

/// The header that was found malformed.
fn malformed(verdict: Result<(), Rejection>) -> &'static str {
    let Err(Rejection::SignatureMalformed { header, .. }) = verdict else { panic!("{verdict:?}") };
    header
}

#[test]
fn published_vectors_are_judged_as_published() {
    let vectors: Vec<Value> = serde_json::from_slice(include_bytes!("../../tests/vectors/vectors.json")).unwrap();
    let mut seen = (0, 0, 0);
    for vector in &vectors {
        let text = |field: &str| vector[field].as_str().unwrap_or_default();
        let said = match text("provider") {
            "stripe" => {
                seen.0 += 1;
                let body: &[u8] = match text("body_file") {
                    "stripe_dotnet_signature_vector_body.json" => {
                        include_bytes!("../../tests/vectors/stripe_dotnet_signature_vector_body.json")
                    }
                    "stripe_async_stripe_signature_vector_body.json" => {
                        include_bytes!("../../tests/vectors/stripe_async_stripe_signature_vector_body.json")
                    }
                    "" => b"{}",
                    unknown => panic!("{unknown}"),
                };
                let secret = if text("secret").is_empty() { "any" } else { text("secret") };
                let keys = keys(Endpoint::Stripe, &["another", secret]);
                verdict(&keys, &[("Stripe-Signature", text("header"))], body, 1_533_204_620)
            }
            "standard_webhooks" => {
                seen.1 += 1;
                let timestamp = vector["timestamp"].as_i64().unwrap();
                let pairs = [
                    ("webhook-id", text("id")),
                    ("webhook-timestamp", &timestamp.to_string()),
                    ("webhook-signature", text("signature")),
                ];
                let keys = keys(Endpoint::Standard, &[text("secret")]);
                verdict(&keys, &pairs, text("body").as_bytes(), timestamp)
            }
            // Vectors of the raw body belong to other webhooks of Adyen's.
            "adyen" if vector["signing_string"].is_string() => {
                seen.2 += 1;
                let body = adyen::tests::body_of_vector(text("signing_string"), text("signature"));
                verdict(&keys(Endpoint::Adyen, &[ADYEN_KEY, text("hmac_key_hex")]), &[], &body, NOW)
            }
            _ => continue,
        };
        match text("expect") {
            "valid" => assert_eq!(said, Ok(()), "{vector}"),
            "not signed" => assert_eq!(said, Err(Rejection::SignatureMissing), "{vector}"),
            _ => assert_eq!(malformed(said), "stripe-signature", "{vector}"),
        }
    }
    assert_eq!(seen, (8, 2, 5), "a vector was lost");
}

#[test]
fn stripe_rejections() {
    let keys = keys(Endpoint::Stripe, &[STRIPE_SECRET]);
    let body = br#"{"id":"evt_1"}"#;
    let good = grantonce_testkit::sign::stripe_signature(STRIPE_SECRET, NOW, body).unwrap();
    let v1 = good.split_once("v1=").unwrap().1;
    let by_other = grantonce_testkit::sign::stripe_signature(OTHER_SECRET, NOW, body).unwrap();
    let by_other = by_other.split_once("v1=").unwrap().1;
    let judge = |header: &str| verdict(&keys, &[("stripe-signature", header)], body, NOW);

    assert_eq!(judge(&good), Ok(()));
    assert_eq!(judge(&format!("v0=00,t={NOW},scheme=x,v1={v1}")), Ok(()), "the order of items does not matter");
    assert_eq!(judge(&format!("t={NOW},v1={by_other},v1={v1}")), Ok(()), "a secret is being rolled");
    assert_eq!(judge(&format!("t={NOW},v1=zz,v1=,v1={v1}")), Ok(()), "undecodable hex is ignored");

    let wrong = Err(Rejection::SignatureWrong);
    assert_eq!(judge(&format!("t={NOW},v1={by_other}")), wrong);
    assert_eq!(judge(&format!("t={NOW},v1=zz")), wrong);
    assert_eq!(judge(&format!("t={NOW},v1={}", &v1[..62])), wrong, "a part of a signature does not count");
    assert_eq!(judge(&format!("t={NOW},v1={v1}00")), wrong);
    assert_eq!(judge(&format!("t={NOW},v1=")), wrong);
    assert_eq!(judge(&format!("t={},v1={v1}", NOW + 1)), wrong, "the time is signed");
    assert_eq!(verdict(&keys, &[("stripe-signature", &good)], b"{}", NOW), wrong);
    assert_eq!(verdict(&keys, &[], body, NOW), Err(Rejection::SignatureMissing));
    assert_eq!(judge(""), Err(Rejection::SignatureMissing));

    for header in [
        format!("t={NOW},v0={v1}"),
        format!("t={NOW}"),
        format!("v1={v1}"),
        format!("t={NOW},t={NOW},v1={v1}"),
        format!("t=+{NOW},v1={v1}"),
        format!("t= {NOW},v1={v1}"),
        format!("t=-1,v1={v1}"),
        format!("t=999999999999999999999999,v1={v1}"),
        format!("t={NOW},v1={v1},"),
        "t=\t,v1=".to_owned(),
    ] {
        assert_eq!(malformed(judge(&header)), "stripe-signature", "{header}");
    }
    let twice = [("stripe-signature", good.as_str()), ("Stripe-Signature", good.as_str())];
    assert_eq!(malformed(verdict(&keys, &twice, body, NOW)), "stripe-signature");
    let mut opaque = HeaderMap::new();
    opaque.insert("stripe-signature", HeaderValue::from_bytes(b"t=1,v1=\xff").unwrap());
    assert_eq!(
        malformed(keys.verify(Unverified { headers: &opaque, body, now: at(NOW) }).map(|_| ())),
        "stripe-signature"
    );
}

/// A request with all headers of a family. One of them is changed.
fn standard(family: &str, body: &[u8], change: impl FnOnce(&mut [String; 3])) -> Result<(), Rejection> {
    let signature = grantonce_testkit::sign::standard_signature(STANDARD_SECRET, "msg_1", NOW, body).unwrap();
    let mut values = ["msg_1".to_owned(), NOW.to_string(), signature];
    change(&mut values);
    let names = ["id", "timestamp", "signature"].map(|name| format!("{family}-{name}"));
    let pairs: Vec<_> = names.iter().map(String::as_str).zip(values.iter().map(String::as_str)).collect();
    verdict(&keys(Endpoint::Standard, &[STANDARD_SECRET]), &pairs, body, NOW)
}

#[test]
fn any_key_may_have_made_any_of_the_signatures() {
    let body = b"{}";
    let by = |secret: &str| {
        let stripe = grantonce_testkit::sign::stripe_signature(secret, NOW, body).unwrap();
        let (_, v1) = stripe.split_once(',').unwrap();
        (v1.to_owned(), grantonce_testkit::sign::standard_signature(secret, "m", NOW, body).unwrap())
    };
    let ((our_v1, ours), (other_v1, others)) = (by(STANDARD_SECRET), by(OTHER_SECRET));
    let third = "whsec_2Mq7mXvP4nR9sTbYc1dEfGhJkLwZxQaU";
    for secrets in [[STANDARD_SECRET, third], [third, STANDARD_SECRET]] {
        for (v1s, signatures) in [
            (format!("{our_v1},{other_v1}"), format!("{ours} {others}")),
            (format!("{other_v1},{our_v1}"), format!("{others} {ours}")),
        ] {
            let pairs = [
                ("stripe-signature", &*format!("t={NOW},{v1s}")),
                ("webhook-id", "m"),
                ("webhook-timestamp", &NOW.to_string()),
                ("webhook-signature", &signatures),
            ];
            // The tests of Adyen do the same for its signature in the body.
            for endpoint in [Endpoint::Stripe, Endpoint::Standard] {
                assert_eq!(verdict(&keys(endpoint, &secrets), &pairs, body, NOW), Ok(()), "{v1s}");
                assert!(verdict(&keys(endpoint, &[third]), &pairs, body, NOW).is_err());
            }
        }
    }
}

#[test]
fn standard_rejections() {
    for family in ["webhook", "svix"] {
        let judge = |change: &dyn Fn(&mut [String; 3])| standard(family, b"{}", change);
        assert_eq!(judge(&|_| {}), Ok(()));
        assert_eq!(judge(&|v| v[2] = format!("v1,AAAA v1a,{0} v2,x v1,!! {1}", "A".repeat(86), v[2])), Ok(()));
        let wrong = Err(Rejection::SignatureWrong);
        assert_eq!(judge(&|v| v[2] = v[2].replace("v1,", "v1a,")), wrong);
        assert_eq!(judge(&|v| v[2] = v[2].replace("v1,", "")), wrong);
        assert_eq!(judge(&|v| v[2] = "v1,".to_owned()), wrong);
        assert_eq!(judge(&|v| v[2].truncate(20)), wrong);
        assert_eq!(judge(&|v| v[0] = "msg_2".to_owned()), wrong, "the id is signed");
        assert_eq!(judge(&|v| v[1] = (NOW + 1).to_string()), wrong, "the time is signed");
        assert_eq!(judge(&|v| v[2] = String::new()), Err(Rejection::SignatureMissing));
        assert_eq!(malformed(judge(&|v| v[0] = String::new())), "webhook-id".replace("webhook", family));
        assert_eq!(malformed(judge(&|v| v[1] = String::new())), "webhook-timestamp".replace("webhook", family));
        for id in ["a b", "a\tb", "msg.1"] {
            assert_eq!(malformed(judge(&|v| v[0] = id.to_owned())), "webhook-id".replace("webhook", family), "{id}");
        }
        for time in ["+1", "1.5", "2026-01-05T12:00:00Z", "-5", "999999999999"] {
            assert_eq!(malformed(judge(&|v| v[1] = time.to_owned())), "webhook-timestamp", "{time}");
        }
    }
    let other = keys(Endpoint::Standard, &[OTHER_SECRET]);
    let signature = grantonce_testkit::sign::standard_signature(STANDARD_SECRET, "msg_1", NOW, b"{}").unwrap();
    let now = NOW.to_string();
    let own = [("webhook-id", "msg_1"), ("webhook-timestamp", &now), ("webhook-signature", &signature)];
    assert_eq!(verdict(&other, &own, b"{}", NOW), Err(Rejection::SignatureWrong));
    let rolled = keys(Endpoint::Standard, &[OTHER_SECRET, STANDARD_SECRET]);
    assert_eq!(verdict(&rolled, &own, b"{}", NOW), Ok(()));
    assert_eq!(verdict(&rolled, &own, b"{ }", NOW), Err(Rejection::SignatureWrong));
    assert_eq!(verdict(&rolled, &[], b"{}", NOW), Err(Rejection::SignatureMissing));
    for twice in own {
        assert_eq!(malformed(verdict(&rolled, &[&own[..], &[twice]].concat(), b"{}", NOW)), twice.0);
    }
}

#[test]
fn two_families_of_headers_must_say_the_same() {
    let keys = keys(Endpoint::Standard, &[STANDARD_SECRET]);
    let signature = grantonce_testkit::sign::standard_signature(STANDARD_SECRET, "msg_1", NOW, b"{}").unwrap();
    let (now, later) = (NOW.to_string(), (NOW + 1).to_string());
    let webhook = [("webhook-id", "msg_1"), ("webhook-timestamp", &now), ("webhook-signature", &signature)];
    let svix = [("svix-id", "msg_1"), ("svix-timestamp", now.as_str()), ("svix-signature", &signature)];
    let judge = |pairs: &[(&str, &str)]| verdict(&keys, pairs, b"{}", NOW);
    assert_eq!(judge(&[webhook, svix].concat()), Ok(()));
    for (n, other) in [(0, "msg_2"), (1, later.as_str()), (2, "v1,AAAA")] {
        let mut svix = svix;
        svix[n].1 = other;
        assert_eq!(malformed(judge(&[webhook, svix].concat())), "svix-id", "{other}");
    }
    assert!(judge(&[webhook[0], webhook[1], svix[2]]).is_err());
    assert!(judge(&[svix[0], webhook[1], webhook[2]]).is_err());
    assert!(judge(&[&webhook[..], &svix[..1]].concat()).is_err(), "not even one header too many");
}

#[test]
fn the_signed_time_may_be_300_seconds_off_either_way() {
    let stripe = keys(Endpoint::Stripe, &[STRIPE_SECRET]);
    let standard = keys(Endpoint::Standard, &[STANDARD_SECRET]);
    let stripe_signature = grantonce_testkit::sign::stripe_signature(STRIPE_SECRET, NOW, b"{}").unwrap();
    let standard_signature = grantonce_testkit::sign::standard_signature(STANDARD_SECRET, "m", NOW, b"{}").unwrap();
    let signed = NOW.to_string();
    let pairs = [
        ("stripe-signature", stripe_signature.as_str()),
        ("webhook-id", "m"),
        ("webhook-timestamp", &signed),
        ("webhook-signature", &standard_signature),
    ];
    for keys in [stripe, standard] {
        let judge = |now| verdict(&keys, &pairs, b"{}", now);
        assert_eq!(judge(NOW + 300), Ok(()));
        assert_eq!(judge(NOW - 300), Ok(()));
        assert_eq!(judge(NOW + 301), Err(Rejection::TooOld { age_seconds: 301 }));
        assert_eq!(judge(NOW - 301), Err(Rejection::TooNew { ahead_seconds: 301 }));
        assert!(judge(0).is_err());
        assert_eq!(
            verdict(&keys, &pairs, b"{ }", NOW + 301),
            Err(Rejection::SignatureWrong),
            "our clock is told to nobody without a key"
        );
    }
}

#[test]
fn a_malformed_secret_is_a_fault_of_configuration_that_names_no_secret() {
    let good = |endpoint| match endpoint {
        Endpoint::Stripe | Endpoint::Standard => OTHER_SECRET,
        Endpoint::Adyen => ADYEN_KEY,
        Endpoint::Paypal => "1JE4291016473214C",
    };
    let fault = |endpoint, secret: &str| match Keys::new(endpoint, &[good(endpoint).into(), secret.into()], TERMS) {
        Err(error @ KeyError::Secret { position: 2, fault, .. }) => {
            assert!(secret.len() < 10 || !error.to_string().contains(secret), "{error}");
            fault
        }
        other => panic!("{secret}: {other:?}"),
    };
    for endpoint in Endpoint::ALL.iter().copied() {
        assert_eq!(fault(endpoint, ""), KeyFault::Empty);
        assert_eq!(fault(endpoint, "whsec_abc\n"), KeyFault::BadCharacter);
        assert_eq!(fault(endpoint, "whsec_ö"), KeyFault::BadCharacter);
        assert_eq!(Keys::new(endpoint, &[], TERMS).unwrap_err(), KeyError::NoSecret { endpoint });
    }
    assert_eq!(fault(Endpoint::Standard, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), KeyFault::NoPrefix);
    assert_eq!(fault(Endpoint::Standard, "whsec_MfKQ9r8GKYqrTwj-PD8ILPZIo2LaLaSw"), KeyFault::NotBase64);
    assert_eq!(fault(Endpoint::Standard, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2La"), KeyFault::TooShort { min_bytes: 24 });
    assert_eq!(fault(Endpoint::Standard, "whsec_"), KeyFault::TooShort { min_bytes: 24 });
    assert_eq!(fault(Endpoint::Adyen, "44782DEF5"), KeyFault::NotHex);
    assert_eq!(fault(Endpoint::Adyen, OTHER_SECRET), KeyFault::NotHex);
    assert_eq!(fault(Endpoint::Adyen, &ADYEN_KEY[..30]), KeyFault::TooFewDigits { min_digits: 32 });
    keys(Endpoint::Standard, &["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oDAA"]); // padding may be missing
    keys(Endpoint::Stripe, &[STRIPE_SECRET]);
    keys(Endpoint::Adyen, &[&ADYEN_KEY.to_lowercase()]);
    let shown = format!("{:?}", keys(Endpoint::Stripe, &[STRIPE_SECRET]));
    assert_eq!(shown, "Keys { endpoint: Stripe, count: 1, .. }");
}

#[test]
fn endpoints_are_found_by_their_path() {
    for endpoint in Endpoint::ALL.iter().copied() {
        assert_eq!(Endpoint::from_path(endpoint.path()), Some(endpoint));
    }
    assert_eq!(Endpoint::from_path("stripe"), Some(Endpoint::Stripe));
    assert_eq!(Endpoint::from_path("standard"), Some(Endpoint::Standard));
    assert_eq!(Endpoint::from_path("paypal"), Some(Endpoint::Paypal));
    for unknown in ["", "Stripe", "stripe/", "PayPal"] {
        assert_eq!(Endpoint::from_path(unknown), None, "{unknown}");
    }
}

#[test]
fn a_rejection_is_a_401_unless_the_signature_lay_in_the_body() {
    for rejection in [
        Rejection::SignatureMissing,
        Rejection::SignatureMalformed { header: "h", fault: "f" },
        Rejection::SignatureWrong,
        Rejection::CertificateElsewhere,
        Rejection::CertificateRefused { fault: "f" },
        Rejection::TooOld { age_seconds: 301 },
        Rejection::TooNew { ahead_seconds: 301 },
    ] {
        assert!(rejection.is_unauthorized(), "{rejection}");
    }
    assert_eq!(Rejection::Malformed { fault: "f" }.status(), StatusCode::BAD_REQUEST);
}

#[test]
fn kinds_are_bounded() {
    for (kind, counted_as) in
        [("customer.created", "customer.created"), ("a\nb", "other"), ("ä", "other"), (&"x".repeat(81), "other")]
    {
        assert_eq!(
            Translation::ignored(kind, IgnoredWhy::NoMoney),
            Translation::Ignored { kind: counted_as.to_owned(), why: IgnoredWhy::NoMoney }
        );
    }
}

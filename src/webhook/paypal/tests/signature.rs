//! Which requests are accepted, and which are refused.

use super::made::{
    Authority, GOOD, LIVE, Leaf, ROOT, SANDBOX, STRANGER, Sent, TEST_TERMS, URL, WEBHOOK_ID, keys, sign,
};
use crate::domain::IgnoredWhy;
use crate::webhook::tests::{NOW, TERMS, at, headers};
use crate::webhook::{Endpoint, KeyError, KeyFault, Keys, Rejection, Translation, Trust, Unverified, paypal};
use rcgen::ExtendedKeyUsagePurpose;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;

const BODY: &[u8] = br#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"C1"}}"#;

fn good() -> Sent {
    Sent::to(WEBHOOK_ID, BODY)
}

fn judge(sent: &Sent) -> Result<(), Rejection> {
    sent.verdict(&keys(&[WEBHOOK_ID], TERMS))
}

/// The header that was found malformed.
fn malformed(verdict: Result<(), Rejection>) -> &'static str {
    let Err(Rejection::SignatureMalformed { header, .. }) = verdict else { panic!("{verdict:?}") };
    header
}

/// The fault of the certificate.
fn refused(verdict: Result<(), Rejection>) -> &'static str {
    let Err(Rejection::CertificateRefused { fault }) = verdict else { panic!("{verdict:?}") };
    fault
}

fn vectors() -> Vec<Value> {
    let all: Vec<Value> = serde_json::from_slice(include_bytes!("../../../../tests/vectors/vectors.json")).unwrap();
    all.into_iter().filter(|vector| vector["provider"] == "paypal").collect()
}

#[test]
fn published_texts_are_signed_as_published() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 2, "a vector was lost");
    for vector in &vectors {
        let text = |field: &str| vector[field].as_str().unwrap_or_default();
        let body: &[u8] = match text("body_file") {
            "paypal_signature_vector_body.json" => {
                include_bytes!("../../../../tests/vectors/paypal_signature_vector_body.json")
            }
            "" => text("body").as_bytes(),
            unknown => panic!("{unknown}"),
        };
        let signed = paypal::signed_text(text("transmission_id"), text("transmission_time"), text("webhook_id"), body);
        assert_eq!(signed, text("signing_string"));
    }
}

/// PayPal's own certificate of 2017 and a request that it signed, up to the real root. The intermediate certificates are those in
/// the program.
#[test]
fn the_published_signature_is_good_at_its_time_and_not_after() {
    let vectors = vectors();
    let vector = vectors.iter().find(|vector| vector["cert_file"].is_string()).unwrap();
    assert!(vector["expect"].as_str().unwrap().starts_with("valid"));
    let text = |field: &str| vector[field].as_str().unwrap();
    let body = include_bytes!("../../../../tests/vectors/paypal_signature_vector_body.json");
    let certificate = include_str!("../../../../tests/vectors/paypal_signature_vector_cert.pem");
    let sent = |now| {
        let sent = Sent::to("unused", body)
            .with(paypal::ID_HEADER, text("transmission_id"))
            .with(paypal::TIME_HEADER, text("transmission_time"))
            .with(paypal::SIGNATURE_HEADER, text("signature"))
            .with(paypal::ALGORITHM_HEADER, text("auth_algo"));
        Sent { now, ..sent.under(certificate) }
    };
    let root = include_bytes!("../../../../tests/vectors/digicert_high_assurance_ev_root_ca.pem");
    let root = CertificateDer::from_pem_slice(root).unwrap();
    let trust = || Trust { anchors: vec![webpki::anchor_from_trusted_cert(&root).unwrap().to_owned()], ..ROOT.trust() };
    let real = |terms| Keys::new(Endpoint::Paypal, &[text("webhook_id").into()], terms).unwrap().trusting(trust());
    // The time 2017-03-30T20:04:05Z.
    let then = 1_490_904_245;
    let said = sent(then).said(&real(TEST_TERMS)).unwrap();
    assert_eq!(said, [Translation::Ignored { kind: "BILLING.PLAN.CREATED".to_owned(), why: IgnoredWhy::NoMoney }]);
    assert!(refused(sent(NOW).verdict(&real(TEST_TERMS))).starts_with("has expired"));
    assert!(refused(sent(1_400_000_000).verdict(&real(TEST_TERMS))).starts_with("is not valid yet"));
    assert_eq!(refused(sent(then).verdict(&real(TERMS))), "is made out to another name", "the sandbox's, in live mode");
    let others = keys(&[text("webhook_id")], TEST_TERMS);
    assert!(refused(sent(then).verdict(&others)).starts_with("leads to none that this system trusts"));
    let other_id = Keys::new(Endpoint::Paypal, &[WEBHOOK_ID.into()], TEST_TERMS).unwrap().trusting(trust());
    assert_eq!(sent(then).verdict(&other_id), Err(Rejection::SignatureWrong));
}

#[test]
fn a_good_request_is_believed_for_any_configured_id() {
    assert_eq!(judge(&good()), Ok(()));
    let rolled = keys(&["0AB12345CD678901E", WEBHOOK_ID], TERMS);
    assert_eq!(good().verdict(&rolled), Ok(()));
    assert_eq!(Sent::to("0AB12345CD678901E", BODY).verdict(&rolled), Ok(()));
    assert_eq!(Sent::to("2ZZ12345CD678901E", BODY).verdict(&rolled), Err(Rejection::SignatureWrong));
    // The signed time may be old, because PayPal repeats a webhook for three days.
    let later = Sent { now: NOW + 3 * 24 * 3600, ..good() };
    assert_eq!(judge(&later), Ok(()));
}

#[test]
fn what_is_signed_is_all_of_it() {
    let wrong = Err(Rejection::SignatureWrong);
    assert_eq!(judge(&Sent { body: b"{}".to_vec(), ..good() }), wrong);
    assert_eq!(judge(&good().with(paypal::ID_HEADER, "another")), wrong);
    assert_eq!(judge(&good().with(paypal::TIME_HEADER, "2026-01-05T11:59:59Z")), wrong);
    assert_eq!(judge(&good().with(paypal::SIGNATURE_HEADER, &sign("something else"))), wrong);
    assert_eq!(judge(&good().with(paypal::SIGNATURE_HEADER, "AAAA")), wrong);
}

#[test]
fn a_header_is_there_once_and_of_its_form() {
    let header = |name: &str, value: &str| malformed(judge(&good().with(name, value)));
    for name in [paypal::ID_HEADER, paypal::TIME_HEADER, paypal::URL_HEADER, paypal::ALGORITHM_HEADER] {
        assert_eq!(header(name, ""), name);
        let mut without = good();
        without.headers.retain(|(found, _)| *found != name);
        assert_eq!(malformed(judge(&without)), name);
    }
    let mut unsigned = good();
    unsigned.headers.retain(|(name, _)| *name != paypal::SIGNATURE_HEADER);
    assert_eq!(judge(&unsigned), Err(Rejection::SignatureMissing));
    assert_eq!(judge(&Sent { headers: vec![], ..good() }), Err(Rejection::SignatureMissing));
    for (n, (name, value)) in good().headers.into_iter().enumerate() {
        let mut twice = good();
        twice.headers.insert((n + 2) % 5, (name, value));
        assert_eq!(malformed(judge(&twice)), name, "even if both say the same");
    }
    for name in [paypal::ID_HEADER, paypal::TIME_HEADER] {
        assert_eq!(header(name, "a|b"), name);
    }
    for algorithm in ["SHA1withRSA", "sha256withrsa", "SHA256withRSA ", "none", "SHA256withECDSA"] {
        assert_eq!(header(paypal::ALGORITHM_HEADER, algorithm), paypal::ALGORITHM_HEADER, "{algorithm}");
    }
    for signature in ["!!", "AAA", "A A=", &sign("x").replace('=', "")] {
        assert_eq!(header(paypal::SIGNATURE_HEADER, signature), paypal::SIGNATURE_HEADER, "{signature}");
    }
}

/// Bars separate the parts. If a part moved into another header, the text would be the same.
#[test]
fn a_signature_fits_one_parting_only() {
    let (id, time) = (good().headers[0].1.clone(), good().headers[1].1.clone());
    let moved = good().with(paypal::ID_HEADER, &format!("{id}|{time}")).with(paypal::TIME_HEADER, WEBHOOK_ID);
    assert_eq!(malformed(judge(&moved)), paypal::ID_HEADER);
}

#[test]
fn an_address_leads_where_it_seems_to() {
    let url = |url: &str| {
        let pairs: Vec<_> = good().headers.into_iter().collect();
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| (*name, if *name == paypal::URL_HEADER { url } else { value.as_str() }))
            .collect();
        let headers = headers(&pairs);
        let request = Unverified { headers: &headers, body: BODY, now: at(NOW) };
        keys(&[WEBHOOK_ID], TERMS).certificate_url(&request).map(|url| url.unwrap().as_str().to_owned())
    };
    let longest = format!("https://api.paypal.com/{}", "a".repeat(300 - 23));
    for good in [
        URL,
        "https://api.sandbox.paypal.com/v1/notifications/certs/CERT-1",
        "https://localhost:8443/CERT_1.pem",
        &longest,
    ] {
        assert_eq!(url(good), Ok(good.to_owned()));
    }
    for elsewhere in [
        "https://evil.example/v1/notifications/certs/CERT-1",
        "https://api.paypal.com.evil.example/CERT-1",
        "https://evil-api.paypal.com/CERT-1",
        "https://www.paypal.com/CERT-1",
        "https://paypal.com/CERT-1",
        "https://api.paypal.com@evil.example/CERT-1",
        "https://user@api.paypal.com/CERT-1",
        "https://user:word@api.paypal.com/CERT-1",
        "https://api.paypal.com:443/CERT-1",
        "https://api.paypal.com:8443/CERT-1",
        "https://localhost/CERT-1",
        "https://api.paypal.com\\@evil.example/CERT-1",
        "https://api.paypal.com./CERT-1",
        "https://API.paypal.com/CERT-1",
        "https://api.paypal.com%2f@evil.example/CERT-1",
        "https://api.paypal.com?/CERT-1",
        "https://api.paypal.com#/CERT-1",
        "https:///CERT-1",
        "https://169.254.169.254/CERT-1",
    ] {
        assert_eq!(url(elsewhere), Err(Rejection::CertificateElsewhere), "{elsewhere}");
    }
    for bad in [
        "http://api.paypal.com/CERT-1",
        "HTTPS://api.paypal.com/CERT-1",
        "ftp://api.paypal.com/CERT-1",
        "//api.paypal.com/CERT-1",
        "api.paypal.com/CERT-1",
        " https://api.paypal.com/CERT-1",
        "https:\\\\api.paypal.com/CERT-1",
        "https://api.paypal.com",
        "https://api.paypal.com/",
        "https://api.paypal.com//CERT-1",
        "https://api.paypal.com/CERT-1/",
        "https://api.paypal.com/../CERT-1",
        "https://api.paypal.com/a/./CERT-1",
        "https://api.paypal.com/%2e%2e/CERT-1",
        "https://api.paypal.com/CERT-1?to=evil.example",
        "https://api.paypal.com/CERT-1#x",
        "https://api.paypal.com/CERT-1;x",
        "https://api.paypal.com/\\evil.example/CERT-1",
        "https://api.paypal.com/a@evil.example",
        "https://api.paypal.com/a b",
        &format!("{longest}a"),
    ] {
        assert_eq!(malformed(url(bad).map(|_| ())), paypal::URL_HEADER, "{bad}");
    }
    // Without trusted roots, no address is accepted.
    let nobody = Keys::new(Endpoint::Paypal, &[WEBHOOK_ID.into()], TERMS).unwrap();
    assert_eq!(good().verdict(&nobody), Err(Rejection::CertificateElsewhere));
}

#[test]
fn a_certificate_is_judged_by_who_vouches_for_it_and_when_and_for_what() {
    let under = |certificates: &str| judge(&good().under(certificates));
    let of_root = |leaf: &Leaf| under(&ROOT.certify(leaf));
    assert_eq!(of_root(&Leaf::of(LIVE)), Ok(()));
    let unknown = "leads to none that this system trusts";
    for stranger in [&*STRANGER, &Authority::root("Another root")] {
        assert!(refused(under(&stranger.certify(&Leaf::of(LIVE)))).starts_with(unknown));
    }
    // A certificate that comes with its own root is still not trusted.
    let with_root = STRANGER.certify(&Leaf::of(LIVE)) + &STRANGER.pem;
    assert!(refused(under(&with_root)).starts_with(unknown));
    // The intermediate certificate is missing.
    let alone = GOOD.split_inclusive("-----END CERTIFICATE-----\n").next().unwrap();
    assert!(refused(under(alone)).starts_with(unknown));
    assert_eq!(judge(&good().under(GOOD.replace('\n', "\r\n"))), Ok(()));

    let days = |from_days, until_days| Leaf { from_days, until_days, ..Leaf::of(LIVE) };
    assert_eq!(of_root(&days(-10, 1)), Ok(()));
    assert!(refused(of_root(&days(-10, -1))).starts_with("has expired"));
    assert!(refused(of_root(&days(1, 10))).starts_with("is not valid yet"));
    // The time of the request counts, not the day on which the certificate was fetched.
    let later = Sent { now: NOW + 31 * 24 * 3600, ..good() };
    assert!(refused(judge(&later)).starts_with("has expired"));
    assert!(refused(judge(&Sent { now: -1, ..good() })).starts_with("is not valid yet"));

    for names in [
        vec!["api.paypal.com"],
        vec!["*.paypal.com"],
        vec!["messageverificationcerts.paypal.com.evil.example"],
        vec!["xmessageverificationcerts.paypal.com"],
        vec![],
    ] {
        let leaf = Leaf { names: names.clone(), ..Leaf::of(LIVE) };
        assert_eq!(refused(of_root(&leaf)), "is made out to another name", "{names:?}");
    }
    let two = Leaf { names: vec!["paypal.com", LIVE], ..Leaf::of(LIVE) };
    assert_eq!(of_root(&two), Ok(()));

    let client = Leaf { usage: ExtendedKeyUsagePurpose::ClientAuth, ..Leaf::of(LIVE) };
    let authority = Leaf { is_authority: true, ..Leaf::of(LIVE) };
    for leaf in [client, authority] {
        assert_eq!(refused(of_root(&leaf)), "is not one to sign with");
    }
}

#[test]
fn the_sandbox_signs_for_test_mode_alone() {
    let sandbox = good().under(ROOT.certify(&Leaf::of(SANDBOX)));
    assert_eq!(refused(judge(&sandbox)), "is made out to another name");
    let in_test_mode = keys(&[WEBHOOK_ID], TEST_TERMS);
    assert_eq!(sandbox.verdict(&in_test_mode), Ok(()));
    assert_eq!(good().verdict(&in_test_mode), Ok(()), "the simulator signs with the live certificate");
}

#[test]
fn what_is_no_certificate_is_refused() {
    for (certificates, fault) in [
        (String::new(), "is none: there is no certificate in what was fetched"),
        ("<html>".to_owned(), "is none: there is no certificate in what was fetched"),
        (GOOD.replace("CERTIFICATE", "PUBLIC KEY"), "is none: there is no certificate in what was fetched"),
        ("-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n".to_owned(), "is not PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "is not PEM"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), "is not one to sign with"),
        (GOOD.repeat(5), "comes with more than seven others"),
    ] {
        assert_eq!(refused(judge(&good().under(certificates.as_str()))), fault, "{certificates}");
    }
}

#[test]
fn a_secret_alone_proves_nothing_here() {
    let headers = headers(&good().headers.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>());
    let request = Unverified { headers: &headers, body: BODY, now: at(NOW) };
    assert!(keys(&[WEBHOOK_ID], TERMS).verify(request).is_err(), "without the certificate");
}

#[test]
fn an_id_is_one_of_a_subscription() {
    let fault = |id: &str, terms| match Keys::new(Endpoint::Paypal, &[id.into()], terms) {
        Err(KeyError::Secret { position: 1, fault, .. }) => fault,
        other => panic!("{id}: {other:?}"),
    };
    for id in ["a|b", "a-b", "1JE4291016473214C!", &"A".repeat(51), "WEBHOOK_ID2", "webhook_id"] {
        assert_eq!(fault(id, TERMS), KeyFault::NotWebhookId, "{id}");
    }
    // Anyone can ask PayPal's simulator to sign any event with this id.
    assert_eq!(fault("WEBHOOK_ID", TERMS), KeyFault::Simulator);
    let simulated = Sent::to("WEBHOOK_ID", BODY);
    assert_eq!(judge(&simulated), Err(Rejection::SignatureWrong));
    assert_eq!(simulated.verdict(&keys(&[WEBHOOK_ID, "WEBHOOK_ID"], TEST_TERMS)), Ok(()));
    assert_eq!(simulated.verdict(&keys(&[WEBHOOK_ID], TEST_TERMS)), Err(Rejection::SignatureWrong));
}

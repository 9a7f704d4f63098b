//! The signature covers only a CRC-32, so any body with the same CRC-32 passes. Therefore no content of a body is trusted.

use super::forge::forged;
use super::made::{Sent, WEBHOOK_ID, keys};
use crate::domain::{Hint, MessageId, PaymentId, Provider};
use crate::webhook::tests::TERMS;
use crate::webhook::{Rejection, Translation, paypal};
use serde_json::Value;

#[test]
fn a_forged_body_under_a_logged_signature_is_a_hint_and_no_more() {
    let genuine = br#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.PENDING","resource":{"id":"C1","status":"PENDING",
        "amount":{"currency_code":"USD","value":"1.00"},"custom_id":"01890a5d-ac96-774b-bcce-b302099a8057"}}"#;
    let logged = Sent::to(WEBHOOK_ID, genuine);
    let crc = paypal::CRC.checksum(genuine);
    let body = forged(
        r#"{"id":"WH-2","event_type":"PAYMENT.CAPTURE.COMPLETED","livemode":true,"resource":{"id":"C9",
        "status":"COMPLETED","amount":{"currency_code":"USD","value":"1000000.00"},"final_capture":true,
        "custom_id":"01890a5d-ac96-774b-bcce-b302099a8058","note":""#,
        r#"","supplementary_data":{"related_ids":{"order_id":"O9"}}}}"#,
        crc,
    );
    assert_eq!((paypal::CRC.checksum(&body), body == genuine), (crc, false));
    assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["resource"]["status"], "COMPLETED");

    let keys = keys(&[WEBHOOK_ID], TERMS);
    let attack = Sent { body: body.clone(), ..logged.clone() };
    // This is the only effect: PayPal is asked about a payment that an attacker has named.
    let hint = Hint {
        provider: Provider::PAYPAL,
        message_id: MessageId::new("paypal::WH-2:PAYMENT.CAPTURE.COMPLETED").unwrap(),
        payment_id: PaymentId::new("O9").unwrap(),
        related_ids: vec![PaymentId::new("C9").unwrap()],
        provider_account: None,
        livemode: true,
    };
    assert_eq!(attack.said(&keys), Ok(vec![Translation::Hint(hint)]));

    // If one character changes, the CRC is different.
    let mut other = body;
    other[10] ^= 1;
    assert_eq!(Sent { body: other, ..logged }.verdict(&keys), Err(Rejection::SignatureWrong));
}

/// Any event may claim money. None is published as a payment.
#[test]
fn no_type_of_event_says_anything_of_money() {
    let keys = keys(&[WEBHOOK_ID], TERMS);
    for kind in [
        "PAYMENT.CAPTURE.COMPLETED",
        "PAYMENT.CAPTURE.REFUNDED",
        "PAYMENT.CAPTURE.REVERSED",
        "PAYMENT.SALE.COMPLETED",
        "CHECKOUT.ORDER.COMPLETED",
        "CUSTOMER.DISPUTE.RESOLVED",
        "payment-status.v1",
    ] {
        let body = format!(
            r#"{{"id":"WH-1","event_type":"{kind}","provider":"paypal","payment_id":"O1","status":{{"type":"captured",
            "amount_minor":100000000,"currency":"USD"}},"occurred_at":"2026-01-05T12:00:00Z","livemode":true,
            "resource":{{"id":"C1","status":"COMPLETED","amount":{{"currency_code":"USD","value":"1000000.00"}},
            "disputed_transactions":[{{"seller_transaction_id":"C1"}}]}}}}"#
        );
        for said in Sent::to(WEBHOOK_ID, body.as_bytes()).said(&keys).unwrap() {
            assert!(matches!(said, Translation::Hint(_) | Translation::Ignored { .. }), "{kind}: {said:?}");
        }
    }
}

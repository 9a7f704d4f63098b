//! Thin events: an event about a payment is only a hint.

use super::{fault, ignored, translate, with};
use crate::domain::Hint;
use crate::webhook::Translation;
use serde_json::{Value, json};

/// A thin event of a v1 resource, as Stripe documents it.
fn thin(id: &str, is: &str) -> Value {
    json!({
        "id": "evt_test_65R9Ijk8dKEYZcXeRWn16R9A7j1FSQ3w3TGDPLLGSM4CW0", "object": "v2.core.event",
        "type": format!("v1.{is}.updated"), "livemode": true, "created": "2026-01-05T12:00:00.246Z", "context": null,
        "related_object": {"id": id, "type": is, "url": format!("/v1/things/{id}")},
    })
}

fn hinted(event: &Value) -> Hint {
    let translation = translate(event);
    let Translation::Hint(hint) = translation.clone() else { panic!("{event}: {translation:?}") };
    hint
}

#[test]
fn what_leads_to_a_payment_is_a_hint() {
    for (id, is) in [
        ("pi_3", "payment_intent"),
        ("cs_live_1", "checkout.session"),
        ("ch_3", "charge"),
        ("re_3", "refund"),
        ("du_3", "dispute"),
    ] {
        let hint = hinted(&thin(id, is));
        assert_eq!(hint.payment_id.as_str(), id);
        assert_eq!(hint.provider.as_str(), "stripe");
        assert_eq!(hint.message_id.as_str(), "stripe::evt_test_65R9Ijk8dKEYZcXeRWn16R9A7j1FSQ3w3TGDPLLGSM4CW0");
        assert!(hint.livemode && hint.related_ids.is_empty() && hint.provider_account.is_none());
    }
    assert!(!hinted(&with(thin("pi_3", "payment_intent"), json!({"livemode": false}))).livemode);
}

#[test]
fn nothing_that_it_says_besides_is_looked_at() {
    let more = json!({"data": {"object": {"amount_received": 1999, "status": "succeeded"}}, "created": "soon"});
    assert_eq!(hinted(&with(thin("pi_3", "payment_intent"), more)), hinted(&thin("pi_3", "payment_intent")));
}

#[test]
fn the_context_names_the_connected_account() {
    for (context, account) in [("acct_9", "acct_9"), ("org_1/acct_9", "acct_9")] {
        let hint = hinted(&with(thin("pi_3", "payment_intent"), json!({"context": context})));
        assert_eq!(hint.provider_account.unwrap().as_str(), account);
        assert!(hint.message_id.as_str().starts_with("stripe:acct_9:evt_test_"), "{}", hint.message_id);
    }
    // `account` is the field of snapshot events, and means nothing here.
    assert_eq!(hinted(&with(thin("pi_3", "charge"), json!({"account": "acct_9"}))).provider_account, None);
}

#[test]
fn what_leads_to_no_payment_is_ignored() {
    for is in ["billing.meter", "customer", "payment_method", "v2.core.account", "Payment_Intent"] {
        assert_eq!(ignored(&thin("x_1", is)), (format!("v1.{is}.updated"), "no_money"));
    }
    let nothing =
        with(thin("pi_3", "payment_intent"), json!({"related_object": null, "type": "v2.core.event_destination.ping"}));
    assert_eq!(ignored(&nothing), ("v2.core.event_destination.ping".to_owned(), "no_money"));
}

#[test]
fn one_that_cannot_be_read_is_told_by_its_field() {
    let good = || thin("pi_3", "payment_intent");
    for (patch, detail) in [
        (json!({"id": null}), "id: is missing"),
        (json!({"type": 5}), "type: must be a text"),
        (json!({"livemode": null}), "livemode: is missing"),
        (json!({"related_object": "pi_3"}), "related_object: must be an object"),
        (json!({"related_object": {"id": "pi_3"}}), "related_object.type: is missing"),
        (json!({"related_object": {"type": "charge"}}), "related_object.id: is missing"),
        (json!({"context": "a:b"}), "context: must not have a colon"),
        (json!({"context": 5}), "context: must be a text"),
    ] {
        let (message_id, _, told) = fault(&with(good(), patch));
        assert_eq!(told, detail);
        assert!(message_id.starts_with("stripe::"), "{message_id}");
    }
    let (_, _, told) = fault(&with(good(), json!({"context": "org_1/"})));
    assert!(told.starts_with("context: "), "{told}");
}

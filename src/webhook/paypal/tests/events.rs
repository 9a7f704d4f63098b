//! The payments that an event names.

use super::made::{Sent, TEST_TERMS, WEBHOOK_ID, keys};
use crate::domain::{Hint, IgnoredWhy, PaymentId};
use crate::webhook::Translation;
use crate::webhook::tests::TERMS;
use serde_json::{Value, json};

fn event(kind: &str, resource: Value) -> Value {
    json!({
        "id": "WH-58D329510W468432D-8HN650336L201105X", "event_version": "1.0", "create_time": "2026-01-05T11:59:57Z",
        "resource_type": "x", "event_type": kind, "summary": "Something happened", "resource": resource,
        "links": [{"href": "https://api.paypal.com/v1/notifications/webhooks-events/WH-58", "rel": "self"}],
    })
}

fn translate(event: &Value) -> Vec<Translation> {
    Sent::to(WEBHOOK_ID, event.to_string().as_bytes()).said(&keys(&[WEBHOOK_ID], TERMS)).unwrap()
}

fn hints(event: &Value) -> Vec<Hint> {
    let hint = |said| {
        let Translation::Hint(hint) = said else { panic!("{event}: {said:?}") };
        hint
    };
    translate(event).into_iter().map(hint).collect()
}

/// The ids of the only hint, the payment's id first.
fn named(kind: &str, resource: Value) -> Vec<String> {
    let [hint] = <[Hint; 1]>::try_from(hints(&event(kind, resource))).unwrap();
    assert_eq!(hint.message_id.as_str(), format!("paypal::WH-58D329510W468432D-8HN650336L201105X:{kind}"));
    assert!(hint.livemode && hint.provider_account.is_none() && hint.provider.as_str() == "paypal");
    hint.payment_ids().map(|id: &PaymentId| id.to_string()).collect()
}

fn fault(event: &Value) -> (String, String) {
    let [said] = <[Translation; 1]>::try_from(translate(event)).unwrap();
    let Translation::Untranslatable { message_id, livemode, detail, .. } = said.clone() else {
        panic!("{event}: {said:?}")
    };
    assert_eq!(livemode, Some(true), "as the deployment says");
    (message_id.into_string(), detail)
}

fn link(rel: &str, path: &str) -> Value {
    json!({"href": format!("https://api.paypal.com{path}"), "rel": rel, "method": "GET"})
}

/// A capture as PayPal's documentation shows it.
fn capture() -> Value {
    json!({
        "id": "12A34567BC123456S", "amount": {"currency_code": "USD", "value": "30.00"}, "final_capture": true,
        "status": "COMPLETED", "supplementary_data": {"related_ids": {"order_id": "1AB234567A1234567"}},
        "links": [
            link("self", "/v2/payments/captures/12A34567BC123456S"),
            link("refund", "/v2/payments/captures/12A34567BC123456S/refund"),
            link("up", "/v2/checkout/orders/1AB234567A1234567"),
        ],
    })
}

fn refund() -> Value {
    json!({
        "id": "1Y107995YT783435V", "amount": {"currency_code": "USD", "value": "5.00"}, "status": "COMPLETED",
        "seller_payable_breakdown": {"total_refunded_amount": {"currency_code": "USD", "value": "5.00"}},
        "links": [
            link("self", "/v2/payments/refunds/1Y107995YT783435V"),
            link("up", "/v2/payments/captures/12A34567BC123456S"),
        ],
    })
}

fn without(mut resource: Value, fields: &[&str]) -> Value {
    for field in fields {
        resource.as_object_mut().unwrap().remove(*field);
    }
    resource
}

#[test]
fn captures_name_themselves_and_their_order() {
    for state in ["COMPLETED", "PENDING", "DENIED", "DECLINED", "UNHEARD-OF"] {
        let kind = format!("PAYMENT.CAPTURE.{state}");
        let both = ["1AB234567A1234567", "12A34567BC123456S"];
        assert_eq!(named(&kind, capture()), both);
        assert_eq!(named(&kind, without(capture(), &["links"])), both);
        assert_eq!(named(&kind, without(capture(), &["supplementary_data"])), both, "by the link");
        let alone = without(capture(), &["supplementary_data", "links"]);
        assert_eq!(named(&kind, alone), ["12A34567BC123456S"]);
    }
}

#[test]
fn p03_refunds_name_themselves_and_their_capture() {
    for kind in
        ["PAYMENT.CAPTURE.REFUNDED", "PAYMENT.CAPTURE.REVERSED", "PAYMENT.REFUND.PENDING", "PAYMENT.REFUND.FAILED"]
    {
        assert_eq!(
            named(kind, refund()),
            ["1Y107995YT783435V", "12A34567BC123456S"],
            "PayPal may list it nowhere else"
        );
        let mut with_order = refund();
        with_order["supplementary_data"] = json!({"related_ids": {"order_id": "1AB234567A1234567"}});
        assert_eq!(named(kind, with_order), ["1Y107995YT783435V", "1AB234567A1234567", "12A34567BC123456S"]);
        assert_eq!(
            named(kind, without(refund(), &["links"])),
            ["1Y107995YT783435V"],
            "the refund leads to the capture"
        );
    }
}

#[test]
fn orders_name_themselves() {
    let order = json!({"id": "5O190127TN364715T", "intent": "CAPTURE", "status": "APPROVED", "purchase_units": []});
    for kind in ["CHECKOUT.ORDER.APPROVED", "CHECKOUT.ORDER.COMPLETED", "CHECKOUT.ORDER.VOIDED", "CHECKOUT.ORDER.SAVED"]
    {
        assert_eq!(named(kind, order.clone()), ["5O190127TN364715T"]);
    }
    let reversed = json!({"order_id": "5O190127TN364715T", "purchase_units": [{"custom_id": "x"}]});
    assert_eq!(named("CHECKOUT.PAYMENT-APPROVAL.REVERSED", reversed), ["5O190127TN364715T"]);
    assert_eq!(named("CHECKOUT.PAYMENT-APPROVAL.REVERSED", order), ["5O190127TN364715T"]);
}

#[test]
fn disputes_name_each_transaction() {
    let transaction = |id: &str| json!({"seller_transaction_id": id, "buyer_transaction_id": "B", "items": []});
    let dispute = |ids: &[&str]| {
        let all: Vec<_> = ids.iter().copied().map(transaction).collect();
        json!({"dispute_id": "PP-000-042-663-135", "disputed_transactions": all, "status": "OPEN"})
    };
    for kind in ["CUSTOMER.DISPUTE.CREATED", "CUSTOMER.DISPUTE.UPDATED", "CUSTOMER.DISPUTE.RESOLVED"] {
        assert_eq!(named(kind, dispute(&["00D10444LD479031K"])), ["00D10444LD479031K"]);
    }
    // The captures may belong to different payments. So each has its own hint, with its own id.
    let several: Vec<_> = hints(&event("CUSTOMER.DISPUTE.CREATED", dispute(&["C1", "C2", "C3"])))
        .into_iter()
        .map(|hint| (hint.payment_id.into_string(), hint.message_id.into_string(), hint.related_ids.len()))
        .collect();
    let id = "paypal::WH-58D329510W468432D-8HN650336L201105X:CUSTOMER.DISPUTE.CREATED";
    let expected = [("C1", String::new()), ("C2", "#2".to_owned()), ("C3", "#3".to_owned())];
    assert_eq!(several, expected.map(|(payment, number)| (payment.to_owned(), format!("{id}{number}"), 0)));
    for bad in [dispute(&[]), dispute(&["C"; 9]), without(dispute(&[]), &["disputed_transactions"])] {
        let (message_id, detail) = fault(&event("CUSTOMER.DISPUTE.CREATED", bad));
        assert_eq!(message_id, id);
        assert_eq!(detail, "resource.disputed_transactions: must have 1 to 8 of them");
    }
}

#[test]
fn what_is_none_of_our_business_is_ignored() {
    for (kind, why) in [
        ("BILLING.PLAN.CREATED", IgnoredWhy::NoMoney),
        ("BILLING.SUBSCRIPTION.ACTIVATED", IgnoredWhy::NoMoney),
        ("INVOICING.INVOICE.PAID", IgnoredWhy::NotOurs),
        ("PAYMENT.SALE.COMPLETED", IgnoredWhy::NotOurs),
        ("PAYMENT.PAYOUTSBATCH.SUCCESS", IgnoredWhy::NoPayment),
        ("MERCHANT.ONBOARDING.COMPLETED", IgnoredWhy::NoMoney),
        ("payment.capture.completed", IgnoredWhy::NotOurs),
        ("", IgnoredWhy::NotOurs),
    ] {
        for resource in [capture(), json!(null), json!(5)] {
            assert_eq!(translate(&event(kind, resource)), [Translation::Ignored { kind: kind.to_owned(), why }]);
        }
    }
}

#[test]
fn money_that_names_an_order_and_cannot_be_asked_about_is_for_an_operator() {
    let order = "01890a5d-ac96-774b-bcce-b302099a8057";
    for (kind, resource) in [
        (
            "PAYMENT.SALE.COMPLETED",
            json!({"id": "S1", "custom": order, "amount": {"total": "19.99", "currency": "USD"}}),
        ),
        ("PAYMENT.SALE.REFUNDED", json!({"id": "R1", "sale_id": "S1", "custom": order})),
        ("PAYMENT.SALE.REVERSED", json!({"id": "S1", "custom_id": order})),
        ("INVOICING.INVOICE.PAID", json!({"id": "INV2-1", "invoice": {"detail": {"reference": order}}})),
        ("SOMETHING.NEW", json!({"id": "X", "purchase_units": [{"custom_id": order}]})),
        ("PAYMENT.SOMETHING.NEW", json!({"id": "X", "custom_id": order})),
    ] {
        let said = translate(&event(kind, resource));
        let [Translation::Untranslatable { detail, concerns, .. }] = &said[..] else { panic!("{kind}: {said:?}") };
        assert!(detail.starts_with("event_type: may report money"), "{detail}");
        assert_eq!(concerns.order_id.map(|id| id.to_string()).as_deref(), Some(order), "{kind}");
        assert!(!concerns.payment_ids.is_empty() && concerns.status.is_none(), "{concerns:?}");
    }
    // Unknown types of events about payments are dead letters, even without an order's id.
    for kind in ["PAYMENT.SOMETHING.NEW", "PAYMENT.CAPTURES"] {
        assert!(fault(&event(kind, json!(null))).1.starts_with("event_type: "));
    }
}

#[test]
fn p08_authorizations_name_themselves_and_their_order() {
    let authorization = json!({"id": "A1", "status": "CREATED",
        "supplementary_data": {"related_ids": {"order_id": "1AB234567A1234567"}}});
    for kind in ["PAYMENT.AUTHORIZATION.CREATED", "PAYMENT.AUTHORIZATION.VOIDED"] {
        assert_eq!(named(kind, authorization.clone()), ["1AB234567A1234567", "A1"]);
        assert_eq!(named(kind, without(authorization.clone(), &["supplementary_data"])), ["A1"]);
    }
}

#[test]
fn a_genuine_event_that_cannot_be_read_is_told_by_its_field() {
    let of = |kind: &str, resource: Value| event(kind, resource);
    let mut typeless = event("PAYMENT.CAPTURE.COMPLETED", capture());
    typeless["event_type"] = json!(5);
    let mut idless = event("PAYMENT.CAPTURE.COMPLETED", capture());
    idless["id"] = json!(null);
    let mut two_ids = event("PAYMENT.CAPTURE.COMPLETED", capture());
    two_ids["id"] = json!("WH-1:PAYMENT");
    let mut odd_order = capture();
    odd_order["supplementary_data"]["related_ids"]["order_id"] = json!(7);
    let kind = "PAYMENT.CAPTURE.COMPLETED";
    let known = format!("paypal::WH-58D329510W468432D-8HN650336L201105X:{kind}");
    for (event, detail, has_id) in [
        (typeless, "event_type: must be a text", false),
        (idless, "id: is missing", false),
        (two_ids, "id: must not have a colon", false),
        (of(kind, json!(null)), "resource: is missing", true),
        (of(kind, json!("C1")), "resource: must be an object", true),
        (of(kind, json!({})), "resource.id: is missing", true),
        (of(kind, json!({"id": 5})), "resource.id: must be a text", true),
        (of(kind, odd_order), "supplementary_data.related_ids.order_id: must be a text", true),
    ] {
        let (message_id, told) = fault(&event);
        assert_eq!(told, detail);
        assert_eq!(message_id == known, has_id, "{message_id}");
        assert!(has_id || message_id.starts_with("paypal::sha256-"), "{message_id}");
    }
    for kind in ["CHECKOUT.ORDER.APPROVED", "CUSTOMER.DISPUTE.CREATED"] {
        assert_eq!(fault(&of(kind, json!(null))).1, "resource: is missing");
    }
    for body in ["[1]", "5", "{", "\u{feff}{}", ""] {
        let said = Sent::to(WEBHOOK_ID, body.as_bytes()).said(&keys(&[WEBHOOK_ID], TERMS)).unwrap();
        let [Translation::Untranslatable { detail, .. }] = &said[..] else { panic!("{said:?}") };
        assert_eq!(detail, "the body is not a JSON object");
    }
}

#[test]
fn the_simulators_one_id_for_all_types_makes_different_messages() {
    let ids = ["PAYMENT.CAPTURE.COMPLETED", "PAYMENT.CAPTURE.DENIED"]
        .map(|kind| hints(&event(kind, capture()))[0].message_id.clone());
    assert_ne!(ids[0], ids[1]);
}

#[test]
fn the_deployment_says_whether_it_is_about_real_money() {
    let mut event = event("PAYMENT.CAPTURE.COMPLETED", capture());
    event["livemode"] = json!(true);
    let said = Sent::to(WEBHOOK_ID, event.to_string().as_bytes()).said(&keys(&[WEBHOOK_ID], TEST_TERMS)).unwrap();
    let [Translation::Hint(hint)] = &said[..] else { panic!("{said:?}") };
    assert!(!hint.livemode);
}

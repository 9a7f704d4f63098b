//! PayPal: a payment is created once, and each state of a payment is reported correctly.

use super::fake::{Fake, Told, Trouble};
use super::fake_paypal::{Paypal, capture, error, order as told};
use super::*;
use crate::domain::{CaptureState, FactId, RefundState};
use crate::provider::paypal::is_live;
use serde_json::{Value, json};

async fn fake() -> Fake<Paypal> {
    Fake::start(Paypal::default()).await
}

fn new(order_id: OrderId) -> NewPayment {
    payment(Provider::PAYPAL, order_id)
}

#[tokio::test]
async fn a_payment_is_created_once_a_key() {
    let fake = fake().await;
    let providers = paypal_of(&fake);
    let first = providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    let approve_url = |id: &PaymentId| Some(format!("{}/checkoutnow?token={}", fake.simulated.base, id.as_str()));
    assert_eq!(first.approve_url, approve_url(&first.payment_id));
    assert!(first.client_secret.is_none() && !first.is_replay);
    let again = providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    assert_eq!(again, Created { is_replay: true, ..first });
    let asked = fake.asked();
    let body: Value = serde_json::from_str(&asked[1].body).unwrap();
    assert_eq!(asked[1].header("paypal-request-id"), "key-1");
    assert_eq!(body["purchase_units"][0]["custom_id"], json!(order(1)));
    assert_eq!(body["purchase_units"][0]["amount"], json!({"currency_code": "USD", "value": "19.99"}));
    let context = &body["payment_source"]["paypal"]["experience_context"];
    assert_eq!(context["return_url"], "https://shop.example/back");
    // Without a return address, the order is for the page's own button.
    let bare = NewPayment { return_url: None, price: money(50_000, "HUF"), ..new(order(2)) };
    let bare = providers.create(&bare, "key-2", Retry::Backoff).await.unwrap();
    assert_eq!(bare.approve_url, approve_url(&bare.payment_id));
    let body: Value = serde_json::from_str(&fake.asked()[3].body).unwrap();
    assert_eq!(body["purchase_units"][0]["amount"], json!({"currency_code": "HUF", "value": "500"}));
    assert_eq!(body.get("payment_source"), None);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_under_the_same_key() {
    let fake = fake().await;
    fake.will([Trouble::Lost, Trouble::Lost]);
    let created = paypal_of(&fake).create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    assert!(created.is_replay);
    assert_eq!(fake.simulated.provider.payments().0, 1);
}

#[tokio::test]
async fn a_key_serves_one_order_and_waits_for_its_turn() {
    let fake = fake().await;
    let providers = paypal_of(&fake);
    providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    assert_eq!(providers.create(&new(order(2)), "key-1", Retry::Backoff).await, Err(CallError::KeyReused));
    fake.will([Trouble::Instead(error(409, "RESOURCE_CONFLICT", "PREVIOUS_REQUEST_IN_PROGRESS"))]);
    assert!(providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap().is_replay);
    // PayPal cannot express this price, so nothing is sent.
    let asked = fake.asked().len();
    let price = money(50_050, "HUF");
    let refused = providers.create(&NewPayment { price, ..new(order(3)) }, "key-3", Retry::Backoff).await;
    assert_eq!((refused, fake.asked().len()), (Err(CallError::Unsupported), asked));
    fake.will([Trouble::Instead(error(422, "UNPROCESSABLE_ENTITY", "CURRENCY_NOT_SUPPORTED"))]);
    match providers.create(&new(order(3)), "key-3", Retry::Backoff).await {
        Err(CallError::Refused { status: 422, detail }) => {
            assert_eq!(detail, "422 Unprocessable Entity: UNPROCESSABLE_ENTITY No. d1 CURRENCY_NOT_SUPPORTED");
        }
        other => panic!("{other:?}"),
    }
}

fn captured(id: &str, state: CaptureState) -> PaymentStatus {
    PaymentStatus::Captured {
        money: money(1999, "USD"),
        capture_id: Some(FactId::new(id).unwrap()),
        state,
        breakdown: None,
    }
}

fn refund(id: &str, state: RefundState) -> PaymentStatus {
    PaymentStatus::Refund { refund_id: FactId::new(id).unwrap(), state, money: money(500, "USD") }
}

fn refund_told(id: &str, status: &str) -> Value {
    json!({"id": id, "status": status, "amount": {"currency_code": "USD", "value": "5.00"},
        "create_time": "2026-01-06T08:00:00Z", "update_time": "2026-01-06T09:00:00+01:00"})
}

async fn fetch(order: Value) -> Result<Option<Found>, CallError> {
    let fake = Fake::start(Paypal { orders: [("O1".to_owned(), order)].into(), ..Paypal::default() }).await;
    paypal_of(&fake).fetch(&Provider::PAYPAL, None, &id("O1")).await
}

#[tokio::test]
async fn each_state_has_its_words() {
    let one = |status: &str| json!({"captures": [capture("C1", status, "O1")]});
    let whole = PaymentStatus::RefundedTotal { money: money(1999, "USD") };
    let succeeded = captured("C1", CaptureState::Succeeded);
    let gone = captured("C1", CaptureState::Failed);
    let rows = [
        ("CREATED", json!({}), PaymentState::Payable, vec![]),
        ("CREATED", json!(null), PaymentState::Payable, vec![]),
        ("SAVED", json!({}), PaymentState::Payable, vec![]),
        ("PAYER_ACTION_REQUIRED", json!({}), PaymentState::Payable, vec![]),
        ("APPROVED", json!({}), PaymentState::Approved, vec![PaymentStatus::Pending]),
        ("VOIDED", json!({}), PaymentState::Over, vec![PaymentStatus::Canceled]),
        ("COMPLETED", one("COMPLETED"), PaymentState::Paid, vec![succeeded.clone()]),
        ("COMPLETED", one("PARTIALLY_REFUNDED"), PaymentState::Paid, vec![succeeded.clone()]),
        ("COMPLETED", one("REFUNDED"), PaymentState::Paid, vec![succeeded, whole]),
        ("COMPLETED", one("PENDING"), PaymentState::Pending, vec![PaymentStatus::Pending]),
        (
            "COMPLETED",
            one("DECLINED"),
            PaymentState::Over,
            vec![gone.clone(), PaymentStatus::failed("the payment was declined")],
        ),
        ("COMPLETED", one("FAILED"), PaymentState::Over, vec![gone, PaymentStatus::failed("the payment failed")]),
    ];
    for (status, payments, state, statuses) in rows {
        let found = fetch(told("O1", status, order(1), &payments)).await.unwrap().unwrap();
        assert_eq!((found.state, &found.statuses), (state, &statuses), "{status} {payments}");
        assert_eq!((found.payment_id, found.order_id, found.livemode), (id("O1"), Some(order(1)), false));
        assert_eq!(found.approve_url.is_some(), state == PaymentState::Payable, "{status}");
    }
}

#[tokio::test]
async fn captures_and_refunds_are_told_one_by_one() {
    let payments = json!({
        "captures": [capture("C1", "PARTIALLY_REFUNDED", "O1"), capture("C2", "PENDING", "O1")],
        "refunds": [
            refund_told("R1", "PENDING"), refund_told("R2", "COMPLETED"), refund_told("R3", "FAILED"),
            refund_told("R4", "CANCELLED"),
        ],
    });
    let found = fetch(told("O1", "COMPLETED", order(1), &payments)).await.unwrap().unwrap();
    let expected = [
        captured("C1", CaptureState::Succeeded),
        PaymentStatus::Pending,
        refund("R1", RefundState::Pending),
        refund("R2", RefundState::Succeeded),
        refund("R3", RefundState::Failed),
        refund("R4", RefundState::Failed),
    ];
    assert_eq!((found.state, found.statuses), (PaymentState::Paid, expected.to_vec()));
    assert_eq!(found.related_ids, [id("C1"), id("C2")]);
    assert_eq!(found.occurred_at, time::macros::datetime!(2026-01-06 08:00 UTC), "the latest time of all");
}

#[tokio::test]
async fn what_cannot_be_read_is_odd_and_not_left_out() {
    let captures = |capture: Value| json!({"captures": [capture]});
    let mut unpriced = capture("C1", "COMPLETED", "O1");
    unpriced["amount"]["value"] = "19,99".into();
    let mut timeless = told("O1", "CREATED", order(1), &json!({}));
    timeless["create_time"] = json!(null);
    let rows = [
        told("O1", "EATEN", order(1), &json!({})),
        told("O1", "COMPLETED", order(1), &json!({})),
        told("O1", "COMPLETED", order(1), &captures(capture("C1", "EATEN", "O1"))),
        told("O1", "COMPLETED", order(1), &captures(unpriced)),
        told("O1", "COMPLETED", order(1), &json!({"refunds": [refund_told("R1", "EATEN")]})),
        told("O1", "CREATED", order(1), &json!({"captures": 5})),
        timeless,
    ];
    for odd in rows {
        let found = fetch(odd.clone()).await;
        assert!(matches!(found, Err(CallError::Odd { .. })), "{odd}: {found:?}");
    }
}

#[tokio::test]
async fn an_order_of_ours_is_named_by_all_units_or_none() {
    let mut two = told("O1", "CREATED", order(1), &json!({}));
    let mut second = two["purchase_units"][0].clone();
    two["purchase_units"].as_array_mut().unwrap().push(second.clone());
    assert_eq!(fetch(two.clone()).await.unwrap().unwrap().order_id, Some(order(1)));
    second["custom_id"] = json!(order(2));
    two["purchase_units"][1] = second;
    assert_eq!(fetch(two).await.unwrap().unwrap().order_id, None);
    let mut foreign = told("O1", "CREATED", order(1), &json!({}));
    foreign["purchase_units"][0]["custom_id"] = "INVOICE-7".into();
    assert_eq!(fetch(foreign).await.unwrap().unwrap().order_id, None);
}

#[tokio::test]
async fn a_capture_leads_to_its_order() {
    let payments = json!({"captures": [capture("C1", "COMPLETED", "O1")]});
    let mut alone = capture("C2", "REFUNDED", "");
    alone["supplementary_data"] = json!({});
    alone["custom_id"] = json!(order(2));
    let mut partly = alone.clone();
    partly["status"] = "PARTIALLY_REFUNDED".into();
    let world = Paypal {
        orders: [("O1".to_owned(), told("O1", "COMPLETED", order(1), &payments))].into(),
        captures: [
            ("C1".to_owned(), capture("C1", "COMPLETED", "O1")),
            ("C2".to_owned(), alone),
            ("C3".to_owned(), partly),
        ]
        .into(),
        ..Paypal::default()
    };
    let fake = Fake::start(world).await;
    let providers = paypal_of(&fake);
    let found = providers.fetch(&Provider::PAYPAL, None, &id("C1")).await.unwrap().unwrap();
    assert_eq!((found.payment_id, found.order_id, found.related_ids), (id("O1"), Some(order(1)), vec![id("C1")]));
    let alone = providers.fetch(&Provider::PAYPAL, None, &id("C2")).await.unwrap().unwrap();
    let whole = PaymentStatus::RefundedTotal { money: money(1999, "USD") };
    assert_eq!((alone.payment_id, alone.order_id), (id("C2"), Some(order(2))));
    assert_eq!(
        (alone.state, alone.statuses),
        (PaymentState::Paid, vec![captured("C2", CaptureState::Succeeded), whole])
    );
    let partly = providers.fetch(&Provider::PAYPAL, None, &id("C3")).await;
    assert!(matches!(partly, Err(CallError::Odd { .. })), "the refunded amount is not known: {partly:?}");
    assert_eq!(providers.fetch(&Provider::PAYPAL, None, &id("NONE")).await, Ok(None));
    // A wrong address knows no payment, so its 404 does not mean that the payment is missing.
    fake.will([Trouble::Instead(Told { status: 404, body: "<html>".to_owned(), ..Told::default() })]);
    let wrong = providers.fetch(&Provider::PAYPAL, None, &id("O1")).await;
    assert!(matches!(wrong, Err(CallError::Refused { status: 404, .. })), "{wrong:?}");
    let asked = fake.asked().len();
    assert_eq!(providers.fetch(&Provider::PAYPAL, None, &id("../x")).await, Ok(None));
    assert_eq!(fake.asked().len(), asked);
    let listed = providers.list_of_order(&Provider::PAYPAL, None, order(1), at(0)).await;
    assert_eq!(listed, Err(CallError::Unsupported));
}

#[tokio::test]
async fn a_refund_leads_to_its_capture_and_so_to_its_order() {
    let payments =
        json!({"captures": [capture("C1", "PARTIALLY_REFUNDED", "O1")], "refunds": [refund_told("R1", "COMPLETED")]});
    let refund_up = |href: &str| {
        let mut refund = refund_told("R1", "COMPLETED");
        refund["links"] = json!([
            {"rel": "self", "href": "https://api.example/v2/payments/refunds/R1", "method": "GET"},
            {"rel": "up", "href": href, "method": "GET"},
        ]);
        refund
    };
    let world = Paypal {
        orders: [("O1".to_owned(), told("O1", "COMPLETED", order(1), &payments))].into(),
        captures: [("C1".to_owned(), capture("C1", "PARTIALLY_REFUNDED", "O1"))].into(),
        refunds: [
            ("R1".to_owned(), refund_up("https://api.example/v2/payments/captures/C1")),
            ("R2".to_owned(), refund_up("https://api.example/v2/payments/captures/NONE")),
            ("R3".to_owned(), refund_told("R3", "COMPLETED")),
        ]
        .into(),
        ..Paypal::default()
    };
    let fake = Fake::start(world).await;
    let providers = paypal_of(&fake);
    let found = providers.fetch(&Provider::PAYPAL, None, &id("R1")).await.unwrap().unwrap();
    assert_eq!((found.payment_id, found.order_id, found.related_ids), (id("O1"), Some(order(1)), vec![id("C1")]));
    assert_eq!(
        found.statuses,
        [captured("C1", CaptureState::Succeeded), refund("R1", RefundState::Succeeded)],
        "all of it is told, not the refund alone"
    );
    assert_eq!(
        fake.lines()[1..],
        [
            "GET /v2/checkout/orders/R1",
            "GET /v2/payments/captures/R1",
            "GET /v2/payments/refunds/R1",
            "GET /v2/payments/captures/C1",
            "GET /v2/checkout/orders/O1",
            "GET /v1/customer/disputes",
        ]
    );
    let lost = providers.fetch(&Provider::PAYPAL, None, &id("R2")).await;
    assert!(matches!(lost, Err(CallError::Odd { .. })), "{lost:?}");
    let nowhere = providers.fetch(&Provider::PAYPAL, None, &id("R3")).await;
    assert!(matches!(nowhere, Err(CallError::Odd { .. })), "{nowhere:?}");
}

#[tokio::test]
async fn p03_a_refund_that_the_order_does_not_list_is_told() {
    let up = |mut refund: Value| {
        refund["links"] =
            json!([{"rel": "up", "href": "https://api.example/v2/payments/captures/C1", "method": "GET"}]);
        refund
    };
    let claims = |mut refund: Value, value: &str| {
        refund["seller_payable_breakdown"] = json!({"total_refunded_amount": {"currency_code": "USD", "value": value}});
        refund
    };
    let total = |minor| PaymentStatus::RefundedTotal { money: money(minor, "USD") };
    let (part, whole) = (refund("R1", RefundState::Succeeded), captured("C1", CaptureState::Succeeded));
    let listed = |refunds: &[Value]| json!(refunds);
    let other = up(refund_told("R2", "COMPLETED"));
    let rows = [
        ("PARTIALLY_REFUNDED", listed(&[]), true, vec![whole.clone(), part.clone()]),
        ("PARTIALLY_REFUNDED", listed(&[up(refund_told("R1", "COMPLETED"))]), false, vec![whole.clone(), part.clone()]),
        (
            "PARTIALLY_REFUNDED",
            listed(&[up(refund_told("R3", "FAILED"))]),
            true,
            vec![whole.clone(), refund("R3", RefundState::Failed), part.clone()],
        ),
        (
            "PARTIALLY_REFUNDED",
            listed(&[claims(other.clone(), "10.00")]),
            true,
            vec![whole.clone(), refund("R2", RefundState::Succeeded), part.clone()],
        ),
        (
            "PARTIALLY_REFUNDED",
            listed(&[claims(other.clone(), "5.00")]),
            false,
            vec![whole.clone(), refund("R2", RefundState::Succeeded), part.clone()],
        ),
        ("REFUNDED", listed(&[]), false, vec![whole.clone(), part.clone(), total(1999)]),
        // The rules of facts subtract failed refunds from the total.
        (
            "REFUNDED",
            listed(&[up(refund_told("R3", "FAILED"))]),
            false,
            vec![whole.clone(), refund("R3", RefundState::Failed), part.clone(), total(2499)],
        ),
    ];
    for (status, refunds, is_untold, statuses) in rows {
        let payments = json!({"captures": [capture("C1", status, "O1")], "refunds": refunds});
        let world = Paypal {
            orders: [("O1".to_owned(), told("O1", "COMPLETED", order(1), &payments))].into(),
            captures: [("C1".to_owned(), capture("C1", status, "O1"))].into(),
            refunds: [("R1".to_owned(), up(refund_told("R1", "COMPLETED")))].into(),
            ..Paypal::default()
        };
        let fake = Fake::start(world).await;
        let providers = paypal_of(&fake);
        let by_order = providers.fetch(&Provider::PAYPAL, None, &id("O1")).await.unwrap().unwrap();
        assert_eq!(by_order.is_refund_untold, is_untold, "{payments}");
        let by_refund = providers.fetch(&Provider::PAYPAL, None, &id("R1")).await.unwrap().unwrap();
        assert_eq!((by_refund.statuses, by_refund.is_refund_untold), (statuses, false), "{payments}");
        assert_eq!((by_refund.payment_id, by_refund.related_ids), (id("O1"), vec![id("C1")]));
    }
}

#[tokio::test]
async fn p03_the_total_of_several_captures_counts_each_once() {
    let up = |mut refund: Value, capture: &str| {
        let href = format!("https://api.example/v2/payments/captures/{capture}");
        refund["links"] = json!([{"rel": "up", "href": href, "method": "GET"}]);
        refund
    };
    let told_total = |payments: Value| async move {
        let found = fetch(told("O1", "COMPLETED", order(1), &payments)).await.unwrap().unwrap();
        found.statuses.into_iter().find_map(|status| {
            let PaymentStatus::RefundedTotal { money } = status else { return None };
            Some(money.amount_minor())
        })
    };
    let captures = json!([capture("C1", "REFUNDED", "O1"), capture("C2", "PARTIALLY_REFUNDED", "O1")]);
    for (refunds, total) in [
        (json!([]), 1999),
        (json!([up(refund_told("R1", "COMPLETED"), "C1")]), 1999),
        (json!([up(refund_told("R1", "COMPLETED"), "C2")]), 2499),
        (json!([up(refund_told("R1", "COMPLETED"), "C1"), up(refund_told("R2", "PENDING"), "C2")]), 2499),
        // A refund without a link may belong to the completely refunded capture.
        (json!([refund_told("R1", "COMPLETED")]), 1999),
        (json!([refund_told("R1", "COMPLETED"), up(refund_told("R2", "COMPLETED"), "C2")]), 2499),
    ] {
        assert_eq!(told_total(json!({"captures": captures, "refunds": refunds})).await, Some(total), "{refunds}");
    }
    let parts = json!([capture("C1", "PARTIALLY_REFUNDED", "O1")]);
    assert_eq!(told_total(json!({"captures": parts, "refunds": [refund_told("R1", "COMPLETED")]})).await, None);
}

#[tokio::test]
async fn p08_an_authorization_is_pending_until_it_is_captured() {
    let authorization = |status: &str| {
        json!({"id": "A1", "status": status, "create_time": "2026-01-05T12:05:00Z",
        "amount": {"currency_code": "USD", "value": "19.99"}})
    };
    let only = |status: &str| json!({"authorizations": [authorization(status)]});
    let denied = PaymentStatus::failed("the authorization was denied");
    let paid = captured("C1", CaptureState::Succeeded);
    for (payments, state, statuses) in [
        (only("CREATED"), PaymentState::Pending, vec![PaymentStatus::Pending]),
        (only("PENDING"), PaymentState::Pending, vec![PaymentStatus::Pending]),
        (only("PARTIALLY_CAPTURED"), PaymentState::Pending, vec![]),
        (only("VOIDED"), PaymentState::Over, vec![PaymentStatus::Canceled]),
        (only("DENIED"), PaymentState::Over, vec![denied]),
        (
            json!({"authorizations": [authorization("CAPTURED")], "captures": [capture("C1", "COMPLETED", "O1")]}),
            PaymentState::Paid,
            vec![paid],
        ),
    ] {
        let found = fetch(told("O1", "COMPLETED", order(1), &payments)).await.unwrap().unwrap();
        assert_eq!((found.state, found.statuses), (state, statuses), "{payments}");
    }
    for odd in [only("CAPTURED"), only("EATEN"), json!({})] {
        let found = fetch(told("O1", "COMPLETED", order(1), &odd)).await;
        assert!(matches!(found, Err(CallError::Odd { .. })), "{odd}: {found:?}");
    }
    let mut approved = told("O1", "APPROVED", order(1), &json!({}));
    approved["intent"] = "AUTHORIZE".into();
    let found = fetch(approved).await.unwrap().unwrap();
    assert_eq!((found.state, found.statuses), (PaymentState::Pending, vec![PaymentStatus::Pending]));
}

#[tokio::test]
async fn the_parts_of_an_amount_are_told_where_they_add_up() {
    let usd = |value: &str| json!({"currency_code": "USD", "value": value});
    let parts_of = |breakdown: Value, captures: Value| async move {
        let mut order = told("O1", "COMPLETED", order(1), &json!({"captures": captures}));
        order["purchase_units"][0]["amount"]["breakdown"] = breakdown;
        let found = fetch(order).await?.unwrap();
        let parts = found.statuses.into_iter().find_map(|status| {
            let PaymentStatus::Captured { breakdown, .. } = status else { return None };
            Some(breakdown.map(|it| (it.tax_minor(), it.discount_minor())))
        });
        Ok::<_, CallError>(parts.unwrap())
    };
    let one = || json!([capture("C1", "COMPLETED", "O1")]);
    let all = json!({"item_total": usd("20.00"), "tax_total": usd("3.00"), "shipping": usd("2.00"), "handling": usd("0.50"),
        "insurance": usd("0.49"), "shipping_discount": usd("1.00"), "discount": usd("5.00")});
    assert_eq!(parts_of(all.clone(), one()).await, Ok(Some((300, 600))));
    assert_eq!(parts_of(json!({"item_total": usd("19.99")}), one()).await, Ok(Some((0, 0))));
    assert_eq!(parts_of(json!(null), one()).await, Ok(None));
    let declined = json!([capture("C1", "COMPLETED", "O1"), capture("C2", "DECLINED", "O1")]);
    assert_eq!(parts_of(all.clone(), declined).await, Ok(Some((300, 600))), "one capture counts");
    let two = json!([capture("C1", "COMPLETED", "O1"), capture("C2", "COMPLETED", "O1")]);
    assert_eq!(parts_of(all.clone(), two).await, Ok(None));
    let mut less = one();
    less[0]["amount"] = usd("10.00");
    assert_eq!(parts_of(all.clone(), less).await, Ok(None));
    for (patch, fault) in [
        (json!({"tax_total": usd("3.01")}), "purchase_units[].amount.breakdown: must add up"),
        (json!({"tax_total": {"currency_code": "EUR", "value": "3.00"}}), "tax_total: must be in the currency"),
        (json!({"discount": usd("-5.00")}), "value: must be a decimal number"),
        (json!({"item_total": null}), "must add up"),
    ] {
        let mut odd = all.clone();
        for (key, value) in patch.as_object().unwrap() {
            odd[key] = value.clone();
        }
        let told = parts_of(odd, one()).await.unwrap_err().to_string();
        assert!(told.contains(fault), "{told}");
    }
}

#[test]
fn real_money_moves_at_paypals_own_address_alone() {
    assert!(is_live("api-m.paypal.com") && is_live("api.paypal.com"));
    for test in ["api-m.sandbox.paypal.com", "127.0.0.1", "paypal.com.example", "evilpaypal.com"] {
        assert!(!is_live(test), "{test}");
    }
}

mod money;
mod thin;

use super::super::tests::{NOW, STRIPE_SECRET, at, headers, keys, only};
use super::super::{Endpoint, Translation, Unverified};
use crate::domain::{
    Breakdown, CaptureState, Currency, DisputeState, FactId, Money, PaymentEvent, PaymentStatus, RefundState,
};
use serde_json::{Value, json};

const ORDER: &str = "01890a5d-ac96-774b-bcce-b302099a8057";

fn intent() -> Value {
    json!({
        "id": "pi_3", "object": "payment_intent", "amount": 1999, "amount_capturable": 0, "amount_received": 1999,
        "canceled_at": null, "capture_method": "automatic", "client_secret": "pi_3_secret_x", "created": 1767614300,
        "currency": "usd", "customer": null, "description": "100 credits", "last_payment_error": null,
        "latest_charge": "ch_3", "livemode": true, "metadata": {"order_id": ORDER}, "payment_method": "pm_1",
        "payment_method_types": ["card"], "status": "succeeded", "transfer_data": null
    })
}

fn session() -> Value {
    json!({
        "id": "cs_live_1", "object": "checkout.session", "amount_subtotal": 1999, "amount_total": 1999,
        "client_reference_id": null, "created": 1767614300, "currency": "usd", "customer_details": {"email": "a@b.c"},
        "expires_at": 1767700700, "livemode": true, "metadata": {"order_id": ORDER}, "mode": "payment",
        "payment_intent": "pi_3", "payment_link": null, "payment_status": "paid", "status": "complete"
    })
}

fn charge() -> Value {
    json!({
        "id": "ch_3", "object": "charge", "amount": 1999, "amount_captured": 1999, "amount_refunded": 500,
        "currency": "usd", "livemode": true, "metadata": {"order_id": ORDER}, "paid": true, "payment_intent": "pi_3",
        "refunded": false, "status": "succeeded"
    })
}

fn refund() -> Value {
    json!({
        "id": "re_3", "object": "refund", "amount": 500, "charge": "ch_3", "created": 1767614390, "currency": "usd",
        "metadata": {"order_id": ORDER}, "payment_intent": "pi_3", "reason": "requested_by_customer",
        "status": "succeeded"
    })
}

fn dispute() -> Value {
    json!({
        "id": "du_3", "object": "dispute", "amount": 1999, "balance_transactions": [], "charge": "ch_3",
        "currency": "usd", "evidence_details": {"due_by": 1768000000, "has_evidence": false},
        "is_charge_refundable": false, "livemode": true, "metadata": {}, "payment_intent": "pi_3",
        "reason": "fraudulent", "status": "needs_response"
    })
}

fn with(mut object: Value, patch: Value) -> Value {
    for (key, value) in patch.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

fn event(kind: &str, object: Value) -> Value {
    json!({
        "id": "evt_1", "object": "event", "api_version": "2026-01-28.clover", "created": NOW - 5,
        "data": {"object": object}, "livemode": true, "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null}, "type": kind
    })
}

/// Signs, verifies and translates a body.
fn translate_bytes(body: &[u8]) -> Translation {
    let signature = grantonce_testkit::sign::stripe_signature(STRIPE_SECRET, NOW, body).unwrap();
    let headers = headers(&[("stripe-signature", &signature)]);
    let keys = keys(Endpoint::Stripe, &[STRIPE_SECRET]);
    only(keys.verify(Unverified { headers: &headers, body, now: at(NOW) }).unwrap().translate())
}

fn translate(event: &Value) -> Translation {
    translate_bytes(&serde_json::to_vec(event).unwrap())
}

fn said(event: &Value) -> PaymentEvent {
    let translation = translate(event);
    let Translation::Events(events) = translation.clone() else { panic!("{event}: {translation:?}") };
    let [event] = <[PaymentEvent; 1]>::try_from(events).unwrap();
    event
}

/// Message id, livemode and detail of an event that cannot be translated.
fn fault(event: &Value) -> (String, Option<bool>, String) {
    let translation = translate(event);
    let Translation::Untranslatable { message_id, livemode, detail, .. } = translation.clone() else {
        panic!("{event}: {translation:?}")
    };
    (message_id.into_string(), livemode, detail)
}

fn ignored(event: &Value) -> (String, &'static str) {
    let translation = translate(event);
    let Translation::Ignored { kind, why } = translation.clone() else { panic!("{event}: {translation:?}") };
    (kind, why.name())
}

fn usd(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::new("USD").unwrap()).unwrap()
}

fn captured(money: Money) -> PaymentStatus {
    PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown: None }
}

/// The status of a session without tax and discount.
fn captured_whole(money: Money) -> PaymentStatus {
    let breakdown = Breakdown::new(money, 0, 0).ok();
    PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown }
}

fn refunded(state: RefundState) -> PaymentStatus {
    PaymentStatus::Refund { refund_id: FactId::new("re_3").unwrap(), state, money: usd(500) }
}

fn disputed(state: DisputeState) -> PaymentStatus {
    PaymentStatus::Dispute { dispute_id: FactId::new("du_3").unwrap(), state, round: 1, money: usd(1999) }
}

/// Every event type that reports something, with its object and its status.
fn table() -> Vec<(&'static str, Value, PaymentStatus)> {
    let unpaid = || with(session(), json!({"payment_status": "unpaid"}));
    vec![
        ("payment_intent.succeeded", intent(), captured(usd(1999))),
        ("payment_intent.processing", intent(), PaymentStatus::Pending),
        ("payment_intent.requires_action", intent(), PaymentStatus::Pending),
        ("payment_intent.amount_capturable_updated", intent(), PaymentStatus::Pending),
        ("payment_intent.payment_failed", intent(), PaymentStatus::failed("the payment failed")),
        ("payment_intent.canceled", intent(), PaymentStatus::Canceled),
        ("checkout.session.completed", session(), captured_whole(usd(1999))),
        ("checkout.session.completed", unpaid(), PaymentStatus::Pending),
        ("checkout.session.async_payment_succeeded", session(), captured_whole(usd(1999))),
        ("checkout.session.async_payment_failed", unpaid(), PaymentStatus::failed("the payment failed")),
        ("checkout.session.expired", unpaid(), PaymentStatus::Canceled),
        ("charge.refunded", charge(), PaymentStatus::RefundedTotal { money: usd(500) }),
        ("refund.created", refund(), refunded(RefundState::Succeeded)),
        ("refund.updated", with(refund(), json!({"status": "pending"})), refunded(RefundState::Pending)),
        ("refund.updated", with(refund(), json!({"status": "requires_action"})), refunded(RefundState::Pending)),
        ("refund.failed", with(refund(), json!({"status": "failed"})), refunded(RefundState::Failed)),
        ("charge.refund.updated", with(refund(), json!({"status": "canceled"})), refunded(RefundState::Failed)),
        ("charge.dispute.created", dispute(), disputed(DisputeState::Open)),
        ("charge.dispute.updated", with(dispute(), json!({"status": "under_review"})), disputed(DisputeState::Open)),
        ("charge.dispute.updated", with(dispute(), json!({"status": "unheard_of"})), disputed(DisputeState::Open)),
        ("charge.dispute.funds_withdrawn", dispute(), disputed(DisputeState::Open)),
        ("charge.dispute.closed", with(dispute(), json!({"status": "lost"})), disputed(DisputeState::Lost)),
        ("charge.dispute.closed", with(dispute(), json!({"status": "won"})), disputed(DisputeState::Won)),
        ("charge.dispute.closed", with(dispute(), json!({"status": "prevented"})), disputed(DisputeState::Won)),
        ("charge.dispute.closed", with(dispute(), json!({"status": "charge_refunded"})), disputed(DisputeState::Won)),
        ("charge.dispute.funds_reinstated", with(dispute(), json!({"status": "won"})), disputed(DisputeState::Won)),
        ("charge.dispute.funds_reinstated", with(dispute(), json!({"status": "lost"})), disputed(DisputeState::Won)),
        (
            "charge.dispute.created",
            with(dispute(), json!({"status": "warning_needs_response"})),
            disputed(DisputeState::Inquiry),
        ),
        (
            "charge.dispute.closed",
            with(dispute(), json!({"status": "warning_closed"})),
            disputed(DisputeState::Inquiry),
        ),
    ]
}

#[test]
fn every_event_type_says_what_stripe_means_by_it() {
    for (kind, object, status) in table() {
        let is_ours = kind.starts_with("payment_intent.") || kind.starts_with("checkout.");
        let related = if kind.starts_with("checkout.") { "cs_live_1" } else { "ch_3" };
        let event = said(&event(kind, object));
        assert_eq!(event.status, status, "{kind}");
        assert_eq!(event.payment_ids().map(|id| id.as_str()).collect::<Vec<_>>(), ["pi_3", related], "{kind}");
        assert_eq!(event.order_id.map(|id| id.to_string()), is_ours.then(|| ORDER.to_owned()), "{kind}");
        assert_eq!(event.message_id.as_str(), "stripe::evt_1");
        assert_eq!(event.provider.as_str(), "stripe");
        assert_eq!(event.provider_account, None);
        assert_eq!(event.occurred_at, at(NOW - 5));
        assert!(event.livemode);
        assert_eq!(crate::message::decode(&crate::message::encode(&event).unwrap(), at(NOW)).unwrap(), event, "{kind}");
    }
}

#[test]
fn a_body_with_anything_missing_or_odd_is_told_by_its_field() {
    let mut faults = 0;
    for (kind, object, _) in table() {
        let whole = event(kind, object);
        let paths = ["", "/data", "/data/object"];
        for path in paths {
            let fields: Vec<String> = whole.pointer(path).unwrap().as_object().unwrap().keys().cloned().collect();
            for field in fields {
                for odd in
                    [None, Some(json!(null)), Some(json!([1.5])), Some(json!({})), Some(json!(-7)), Some(json!(""))]
                {
                    let mut event = whole.clone();
                    let object = event.pointer_mut(path).unwrap().as_object_mut().unwrap();
                    match odd {
                        Some(odd) => object.insert(field.clone(), odd),
                        None => object.remove(&field),
                    };
                    if let Translation::Untranslatable { detail, .. } = translate(&event) {
                        faults += 1;
                        assert!(detail.contains(&field), "{kind} {path} {field}: {detail}");
                    }
                }
            }
        }
    }
    assert!(faults > 500, "{faults}");
}

#[test]
fn what_must_be_there_must_be_there() {
    for (kind, object, field) in [
        ("payment_intent.succeeded", intent(), "id"),
        ("payment_intent.succeeded", intent(), "amount_received"),
        ("payment_intent.succeeded", intent(), "currency"),
        ("payment_intent.succeeded", intent(), "object"),
        ("checkout.session.completed", session(), "id"),
        ("checkout.session.completed", session(), "amount_total"),
        ("checkout.session.completed", session(), "mode"),
        ("checkout.session.completed", session(), "payment_status"),
        ("checkout.session.expired", session(), "mode"),
        ("charge.refunded", charge(), "id"),
        ("charge.refunded", charge(), "amount_refunded"),
        ("refund.created", refund(), "id"),
        ("refund.created", refund(), "status"),
        ("refund.created", refund(), "amount"),
        ("charge.dispute.created", dispute(), "id"),
        ("charge.dispute.created", dispute(), "status"),
        ("charge.dispute.created", dispute(), "currency"),
    ] {
        let (id, livemode, detail) = fault(&event(kind, with(object, json!({field: null}))));
        assert_eq!(detail, format!("data.object.{field}: is missing"), "{kind}");
        assert_eq!((id.as_str(), livemode), ("stripe::evt_1", Some(true)));
    }
    for field in ["created", "livemode", "type", "data"] {
        let (id, _, detail) = fault(&with(event("payment_intent.succeeded", intent()), json!({field: null})));
        assert_eq!((id.as_str(), detail), ("stripe::evt_1", format!("{field}: is missing")));
    }
    for created in [-1, i64::MAX, i64::MIN, 253_402_300_800] {
        let (_, _, detail) = fault(&with(event("payment_intent.succeeded", intent()), json!({"created": created})));
        assert!(detail.starts_with("created: "), "{detail}");
    }
}

#[test]
fn without_a_usable_id_it_is_known_by_its_digest() {
    let paid = event("payment_intent.succeeded", intent());
    for (patch, field) in [
        (json!({"id": null}), "id"),
        (json!({"id": 7}), "id"),
        (json!({"id": ""}), "id"),
        (json!({"id": "evt\n1"}), "id"),
        (json!({"id": "e".repeat(250)}), "id"),
        (json!({"account": "acct:9"}), "account"),
        (json!({"account": 9}), "account"),
        (json!({"account": ""}), "account"),
    ] {
        let (id, livemode, detail) = fault(&with(paid.clone(), patch));
        assert!(id.starts_with("stripe::sha256-") && id.len() == 79, "{id}");
        assert_eq!(livemode, Some(true));
        assert!(detail.starts_with(&format!("{field}: ")), "{detail}");
    }
    for body in [&b"not json"[..], b"", b"[]", b"\xff", b"null", &[b'['; 100_000]] {
        let Translation::Untranslatable { message_id, livemode: None, detail, .. } = translate_bytes(body) else {
            panic!()
        };
        assert!(message_id.as_str().starts_with("stripe::sha256-"), "{message_id}");
        assert!(detail.contains("not a JSON object"), "{detail}");
    }
}

#[test]
fn a_connected_accounts_event_says_so() {
    let event = said(&with(event("payment_intent.succeeded", intent()), json!({"account": "acct_9"})));
    assert_eq!(event.message_id.as_str(), "stripe:acct_9:evt_1");
    assert_eq!(event.provider_account.unwrap().as_str(), "acct_9");
}

#[test]
fn what_says_nothing_of_a_payment_is_ignored() {
    for (kind, why) in [
        ("customer.created", "no_money"),
        ("charge.succeeded", "said_by_another_event"),
        ("payment_intent.created", "no_money"),
        ("payout.paid", "not_ours"),
        ("unheard_of.created", "unknown_type"),
    ] {
        assert_eq!(ignored(&event(kind, charge())), (kind.to_owned(), why));
    }
    for mode in ["subscription", "setup"] {
        // A session that names an order of ours is a dead letter for an operator: see `money`.
        let not_ours = with(session(), json!({"mode": mode, "metadata": {}}));
        let kind = "checkout.session.completed";
        assert_eq!(ignored(&event(kind, not_ours)), (kind.to_owned(), "not_ours"));
        for kind in ["checkout.session.expired", "checkout.session.async_payment_failed"] {
            let session = with(session(), json!({"mode": mode}));
            assert_eq!(ignored(&event(kind, session)), (kind.to_owned(), "no_money"));
        }
    }
}

#[test]
fn a_session_is_paid_only_when_it_says_paid() {
    let completed = |patch| event("checkout.session.completed", with(session(), patch));
    // A discount of the whole price. The price terms decide whether that pays for an order.
    let free = json!({"payment_status": "no_payment_required", "amount_total": 0, "payment_intent": null,
        "total_details": {"amount_discount": 1999, "amount_tax": 0, "amount_shipping": 0}});
    let whole = Breakdown::new(usd(0), 0, 1999).ok();
    let nothing =
        PaymentStatus::Captured { money: usd(0), capture_id: None, state: CaptureState::Succeeded, breakdown: whole };
    for metadata in [json!({}), json!({"order_id": ORDER})] {
        let said = said(&completed(with(free.clone(), json!({"metadata": metadata}))));
        assert_eq!((said.status, said.payment_id.as_str()), (nothing.clone(), "cs_live_1"));
    }
    // Another object will be paid later.
    let later = json!({"payment_status": "no_payment_required", "payment_intent": null});
    assert_eq!(
        ignored(&completed(with(later.clone(), json!({"metadata": {}})))),
        ("checkout.session.completed".to_owned(), "not_ours")
    );
    let (_, _, detail) = fault(&completed(later));
    assert!(detail.contains("payment_status: is no_payment_required"), "{detail}");
    for (kind, status) in [
        ("checkout.session.completed", "refunded"),
        ("checkout.session.async_payment_succeeded", "unpaid"),
        ("checkout.session.async_payment_succeeded", "Paid"),
    ] {
        let (_, _, detail) = fault(&event(kind, with(session(), json!({"payment_status": status}))));
        assert!(detail.starts_with("data.object.payment_status: "), "{detail}");
    }
    let (_, _, detail) = fault(&completed(json!({"mode": "barter"})));
    assert!(detail.starts_with("data.object.mode: "), "{detail}");
    // Nothing was paid for something. The worker compares this with the order's price.
    assert_eq!(said(&completed(json!({"amount_total": 0, "amount_subtotal": null}))).status, captured(usd(0)));
}

#[test]
fn a_payment_is_known_by_every_id_that_is_named() {
    let ids = |event: &Value| said(event).payment_ids().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
    let expired = event("checkout.session.expired", with(session(), json!({"payment_intent": null})));
    assert_eq!(ids(&expired), ["cs_live_1"]);
    let expanded = with(intent(), json!({"latest_charge": {"id": "ch_9", "object": "charge"}}));
    assert_eq!(ids(&event("payment_intent.succeeded", expanded)), ["pi_3", "ch_9"]);
    let untried = with(intent(), json!({"latest_charge": null}));
    assert_eq!(ids(&event("payment_intent.canceled", untried)), ["pi_3"]);
    for (kind, object) in
        [("charge.refunded", charge()), ("refund.created", refund()), ("charge.dispute.created", dispute())]
    {
        let without_intent = with(object, json!({"payment_intent": null}));
        assert_eq!(ids(&event(kind, without_intent)), ["ch_3"], "{kind}");
    }
    let nowhere = json!({"payment_intent": null, "charge": null});
    let (_, _, detail) = fault(&event("charge.dispute.created", with(dispute(), nowhere.clone())));
    assert_eq!(detail, "data.object.payment_intent: is missing, and so is charge");
    // A refund may be of a buyer's balance at Stripe. No payment of ours is made from it.
    for kind in ["refund.created", "refund.updated", "refund.failed", "charge.refund.updated"] {
        assert_eq!(ignored(&event(kind, with(refund(), nowhere.clone()))), (kind.to_owned(), "no_payment"));
    }
}

#[test]
fn only_our_own_metadata_names_our_order() {
    let order = |object| said(&event("checkout.session.completed", object)).order_id;
    assert!(order(session()).is_some());
    let by_buyer = with(session(), json!({"metadata": {}, "client_reference_id": ORDER}));
    assert_eq!(order(by_buyer), None);
    for metadata in
        [json!(null), json!({"order_id": "12"}), json!({"order_id": 12}), json!([]), json!({"Order_id": ORDER})]
    {
        assert_eq!(order(with(session(), json!({"metadata": metadata}))), None);
    }
}

#[test]
fn a_failure_is_told_in_words_that_a_buyer_may_read() {
    for (error, reason) in [
        (
            json!({"message": "Your card was declined.", "code": "card_declined", "decline_code": "stolen_card"}),
            "Your card was declined.",
        ),
        (json!({"code": "card_declined", "decline_code": "stolen_card"}), "card_declined"),
        (json!({"decline_code": "stolen_card"}), "the payment failed"),
        (json!({"message": 7}), "the payment failed"),
        (json!("odd"), "the payment failed"),
    ] {
        let intent = with(intent(), json!({"last_payment_error": error}));
        let status = said(&event("payment_intent.payment_failed", intent)).status;
        assert_eq!(status, PaymentStatus::Failed { reason: reason.to_owned() });
    }
}

#[test]
fn amounts_are_converted_exactly_or_not_at_all() {
    let paid = |amount: i64, code: &str| {
        event("payment_intent.succeeded", with(intent(), json!({"amount_received": amount, "currency": code})))
    };
    for (amount, code, minor) in [
        (1999, "usd", 1999),
        (500, "jpy", 500),
        (500, "isk", 5),
        (500, "ugx", 5),
        (5, "mga", 500),
        (5120, "kwd", 5120),
        (1045, "huf", 1045),
        (1045, "twd", 1045),
    ] {
        let currency = Currency::new(&code.to_uppercase()).unwrap();
        assert_eq!(said(&paid(amount, code)).status, captured(Money::new(minor, currency).unwrap()), "{code}");
    }
    for (amount, code, field) in [
        (550, "isk", "amount_received"),
        (-1, "usd", "amount_received"),
        (i64::MAX, "usd", "amount_received"),
        (1, "usdc", "currency"),
        (1, "", "currency"),
        // ISO 4217 gives these currencies three decimals or none, and Stripe's page does not list them.
        (1000, "iqd", "currency"),
        (1000, "lyd", "currency"),
        (1000, "uyi", "currency"),
    ] {
        let (_, _, detail) = fault(&paid(amount, code));
        assert!(detail.starts_with(&format!("data.object.{field}: ")), "{code}: {detail}");
    }
    let fraction = event("payment_intent.succeeded", with(intent(), json!({"amount_received": 1999.0})));
    assert_eq!(fault(&fraction).2, "data.object.amount_received: must be a whole number");
}

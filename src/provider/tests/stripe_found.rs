//! The states of a payment at Stripe. The result is the same as that of the webhooks.

use super::fake::Fake;
use super::fake_stripe::{CREATED, Stripe, intent};
use super::*;
use crate::domain::{CaptureState, DisputeState, FactId, RefundState};
use serde_json::{Value, json};

fn captured(amount_minor: i64) -> PaymentStatus {
    PaymentStatus::Captured {
        money: money(amount_minor, "USD"),
        capture_id: None,
        state: CaptureState::Succeeded,
        breakdown: None,
    }
}

fn refund(id: &str, state: RefundState, amount_minor: i64) -> PaymentStatus {
    PaymentStatus::Refund { refund_id: FactId::new(id).unwrap(), state, money: money(amount_minor, "USD") }
}

fn dispute(id: &str, state: DisputeState) -> PaymentStatus {
    PaymentStatus::Dispute { dispute_id: FactId::new(id).unwrap(), state, round: 1, money: money(1999, "USD") }
}

/// The payment `pi_1` with these fields, as Stripe returns it.
fn with(fields: Value) -> Value {
    let mut made = intent("pi_1", Some(order(1)));
    for (name, value) in fields.as_object().unwrap() {
        made[name] = value.clone();
    }
    made
}

fn charge(amount_refunded: i64) -> Value {
    json!({"id": "ch_1", "object": "charge", "created": CREATED + 60, "currency": "usd", "amount_refunded": amount_refunded})
}

async fn fetch(world: Stripe) -> (Fake<Stripe>, Result<Option<Found>, CallError>) {
    let fake = Fake::start(world).await;
    let found = stripe_of(&fake).fetch(&Provider::STRIPE, None, &id("pi_1")).await;
    (fake, found)
}

#[tokio::test]
async fn each_state_has_its_words() {
    let failed = PaymentStatus::failed("Your card was declined.");
    let declined =
        json!({"code": "card_declined", "decline_code": "stolen_card", "message": "Your card was declined."});
    let paid = json!({"status": "succeeded", "amount_received": 1999, "latest_charge": charge(0)});
    let rows = [
        (json!({}), PaymentState::Payable, vec![]),
        (json!({"status": "requires_confirmation"}), PaymentState::Payable, vec![]),
        (json!({"status": "requires_action"}), PaymentState::Payable, vec![PaymentStatus::Pending]),
        (json!({"status": "processing"}), PaymentState::Pending, vec![PaymentStatus::Pending]),
        (json!({"status": "requires_capture"}), PaymentState::Pending, vec![PaymentStatus::Pending]),
        (json!({"last_payment_error": declined}), PaymentState::Payable, vec![failed.clone()]),
        (
            json!({"status": "canceled", "canceled_at": CREATED + 5, "last_payment_error": declined}),
            PaymentState::Over,
            vec![PaymentStatus::Canceled, failed],
        ),
        (paid, PaymentState::Paid, vec![captured(1999)]),
        // If Stripe reports another amount than the price, that amount is reported.
        (json!({"status": "succeeded", "amount_received": 1500}), PaymentState::Paid, vec![captured(1500)]),
    ];
    for (fields, state, statuses) in rows {
        let (_fake, found) = fetch(Stripe { intents: vec![with(fields.clone())], ..Stripe::default() }).await;
        let found = found.unwrap().unwrap();
        assert_eq!((found.state, &found.statuses), (state, &statuses), "{fields}");
        assert_eq!((found.payment_id, found.order_id), (id("pi_1"), Some(order(1))));
        assert_eq!((found.livemode, found.client_secret.as_deref()), (false, Some("pi_1_secret_x")));
    }
    for odd in [
        json!({"status": "eaten"}),
        json!({"livemode": null}),
        json!({"created": -1}),
        json!({"currency": "zzz", "status": "succeeded"}),
    ] {
        let (_fake, found) = fetch(Stripe { intents: vec![with(odd.clone())], ..Stripe::default() }).await;
        assert!(matches!(found, Err(CallError::Odd { .. })), "{odd}: {found:?}");
    }
}

fn hanging(id: &str, status: &str, after: i64) -> Value {
    json!({"id": id, "status": status, "amount": 1999, "currency": "usd", "created": CREATED + after, "payment_intent": "pi_1"})
}

#[tokio::test]
async fn refunds_and_disputes_are_told_one_by_one() {
    let paid =
        with(json!({"status": "succeeded", "amount_received": 1999, "latest_charge": charge(500), "livemode": true}));
    let mut foreign = hanging("re_x", "succeeded", 1);
    foreign["payment_intent"] = "pi_2".into();
    let world = Stripe {
        intents: vec![paid],
        refunds: vec![
            hanging("re_1", "pending", 100),
            hanging("re_2", "requires_action", 101),
            hanging("re_3", "succeeded", 900),
            foreign,
            hanging("re_4", "failed", 103),
            hanging("re_5", "canceled", 104),
        ],
        disputes: vec![
            hanging("dp_1", "warning_needs_response", 200),
            hanging("dp_2", "needs_response", 201),
            hanging("dp_3", "lost", 202),
            hanging("dp_4", "won", 203),
        ],
        page_max: Some(2),
        ..Stripe::default()
    };
    let (fake, found) = fetch(world).await;
    let found = found.unwrap().unwrap();
    let expected = [
        captured(1999),
        PaymentStatus::RefundedTotal { money: money(500, "USD") },
        refund("re_5", RefundState::Failed, 1999),
        refund("re_4", RefundState::Failed, 1999),
        refund("re_3", RefundState::Succeeded, 1999),
        refund("re_2", RefundState::Pending, 1999),
        refund("re_1", RefundState::Pending, 1999),
        dispute("dp_4", DisputeState::Won),
        dispute("dp_3", DisputeState::Lost),
        dispute("dp_2", DisputeState::Open),
        dispute("dp_1", DisputeState::Inquiry),
    ];
    assert_eq!((found.state, found.statuses), (PaymentState::Paid, expected.to_vec()));
    assert_eq!((found.related_ids, found.livemode), (vec![id("ch_1")], true));
    assert_eq!(found.occurred_at, at(CREATED + 900), "the latest time of all");
    assert_eq!(fake.asked()[0].query["expand[]"], "latest_charge");
    assert_eq!(fake.asked().len(), 1 + 3 + 2, "two a page");
}

#[tokio::test]
async fn what_has_no_money_has_no_refunds_to_ask_for() {
    let (fake, _found) = fetch(Stripe { intents: vec![with(json!({}))], ..Stripe::default() }).await;
    assert_eq!(fake.lines(), ["GET /v1/payment_intents/pi_1"]);
}

#[tokio::test]
async fn a_refund_that_cannot_be_read_is_not_left_out() {
    let paid = with(json!({"status": "succeeded", "amount_received": 1999, "latest_charge": charge(0)}));
    for bad in [json!("eaten"), json!(null)] {
        let mut refund = hanging("re_1", "x", 1);
        refund["status"] = bad;
        let (_fake, found) =
            fetch(Stripe { intents: vec![paid.clone()], refunds: vec![refund], ..Stripe::default() }).await;
        assert!(matches!(found, Err(CallError::Odd { .. })), "{found:?}");
    }
}

fn session(fields: Value) -> Value {
    let mut session = json!({
        "id": "cs_1", "object": "checkout.session", "mode": "payment", "status": "open", "payment_status": "unpaid",
        "amount_total": 1999, "currency": "usd", "created": CREATED, "livemode": false, "payment_intent": null,
        "metadata": {"order_id": order(1)}, "url": "https://checkout.example/cs_1",
    });
    for (name, value) in fields.as_object().unwrap() {
        session[name] = value.clone();
    }
    session
}

async fn fetch_session(fields: Value, intents: Vec<Value>) -> Result<Option<Found>, CallError> {
    let others = [("cs_1".to_owned(), session(fields))].into();
    let fake = Fake::start(Stripe { intents, others, ..Stripe::default() }).await;
    stripe_of(&fake).fetch(&Provider::STRIPE, None, &id("cs_1")).await
}

#[tokio::test]
async fn a_session_is_the_payment_that_it_leads_to() {
    let paid = json!({"status": "succeeded", "amount_received": 1999, "latest_charge": charge(0), "metadata": {}});
    let found = fetch_session(json!({"payment_intent": "pi_1"}), vec![with(paid)]).await.unwrap().unwrap();
    assert_eq!((found.payment_id, found.related_ids), (id("pi_1"), vec![id("cs_1"), id("ch_1")]));
    assert_eq!((found.order_id, found.statuses), (Some(order(1)), vec![captured(1999)]));
}

#[tokio::test]
async fn a_session_without_a_payment_speaks_for_itself() {
    let rows = [
        (json!({}), PaymentState::Payable, vec![]),
        (json!({"status": "expired"}), PaymentState::Over, vec![PaymentStatus::Canceled]),
        (json!({"status": "complete"}), PaymentState::Pending, vec![PaymentStatus::Pending]),
        (json!({"status": "complete", "payment_status": "paid"}), PaymentState::Paid, vec![captured(1999)]),
    ];
    for (fields, state, statuses) in rows {
        let found = fetch_session(fields.clone(), vec![]).await.unwrap().unwrap();
        assert_eq!((found.payment_id, found.state, found.statuses), (id("cs_1"), state, statuses), "{fields}");
        assert_eq!(found.approve_url.as_deref(), Some("https://checkout.example/cs_1"));
    }
    let free = json!({"status": "complete", "payment_status": "no_payment_required", "amount_total": 0});
    let found = fetch_session(free, vec![]).await.unwrap().unwrap();
    assert_eq!((found.state, found.statuses), (PaymentState::Paid, vec![captured(0)]));
    for odd in [json!({"mode": "setup"}), json!({"status": "complete", "payment_status": "no_payment_required"})] {
        let found = fetch_session(odd.clone(), vec![]).await;
        assert!(matches!(found, Err(CallError::Odd { .. })), "{odd}: {found:?}");
    }
}

#[tokio::test]
async fn refunds_and_disputes_lead_to_their_payment() {
    let object = |id: &str, is: &str, fields: Value| {
        let mut object = json!({"id": id, "object": is, "payment_intent": null, "charge": null});
        for (name, value) in fields.as_object().unwrap() {
            object[name] = value.clone();
        }
        (id.to_owned(), object)
    };
    let mut charge = charge(0);
    charge["payment_intent"] = "pi_1".into();
    let others = [
        object("re_1", "refund", json!({"payment_intent": "pi_1", "charge": "ch_1"})),
        object("pyr_1", "refund", json!({"charge": "ch_1"})),
        object("dp_1", "dispute", json!({"payment_intent": "pi_1"})),
        object("du_1", "dispute", json!({"charge": "ch_1"})),
        object("re_2", "refund", json!({})),
        object("re_3", "customer", json!({"payment_intent": "pi_1"})),
        ("ch_1".to_owned(), charge),
    ];
    let fake = Fake::start(Stripe { intents: vec![with(json!({}))], others: others.into(), ..Stripe::default() }).await;
    let providers = stripe_of(&fake);
    let rows = [
        ("re_1", "/v1/refunds/re_1", false),
        ("pyr_1", "/v1/refunds/pyr_1", true),
        ("dp_1", "/v1/disputes/dp_1", false),
        ("du_1", "/v1/disputes/du_1", true),
    ];
    for (asked, path, is_by_charge) in rows {
        let before = fake.asked().len();
        let found = providers.fetch(&Provider::STRIPE, None, &id(asked)).await.unwrap().unwrap();
        assert_eq!((found.payment_id, found.order_id), (id("pi_1"), Some(order(1))), "{asked}");
        let mut lines = vec![format!("GET {path}")];
        lines.extend(is_by_charge.then(|| "GET /v1/charges/ch_1".to_owned()));
        lines.push("GET /v1/payment_intents/pi_1".to_owned());
        assert_eq!(fake.lines()[before..], lines, "{asked}");
    }
    for unknown in ["re_0", "pyr_0", "dp_0", "du_0"] {
        assert_eq!(providers.fetch(&Provider::STRIPE, None, &id(unknown)).await, Ok(None), "{unknown}");
    }
    for odd in ["re_2", "re_3"] {
        let found = providers.fetch(&Provider::STRIPE, None, &id(odd)).await;
        assert!(matches!(found, Err(CallError::Odd { .. })), "{odd}: {found:?}");
    }
}

#[tokio::test]
async fn a_charge_leads_to_its_payment_or_is_one() {
    let mut charge = charge(0);
    charge["payment_intent"] = "pi_1".into();
    let alone = json!({
        "id": "ch_2", "object": "charge", "created": CREATED, "currency": "usd", "amount": 1999, "amount_captured": 1999,
        "amount_refunded": 500, "captured": true, "paid": true, "status": "succeeded", "payment_intent": null,
        "refunded": false, "livemode": false, "metadata": {"order_id": order(1)},
    });
    let mut part = hanging("re_1", "succeeded", 5);
    (part["charge"], part["amount"]) = ("ch_2".into(), 500.into());
    let world = |alone: &Value| Stripe {
        intents: vec![with(json!({}))],
        refunds: vec![part.clone()],
        others: [("ch_1".to_owned(), charge.clone()), ("ch_2".to_owned(), alone.clone())].into(),
        ..Stripe::default()
    };
    let fake = Fake::start(world(&alone)).await;
    let found = stripe_of(&fake).fetch(&Provider::STRIPE, None, &id("ch_1")).await.unwrap().unwrap();
    assert_eq!(found.payment_id, id("pi_1"));
    let found = stripe_of(&fake).fetch(&Provider::STRIPE, None, &id("ch_2")).await.unwrap().unwrap();
    assert_eq!((found.payment_id, found.order_id, found.state), (id("ch_2"), Some(order(1)), PaymentState::Paid));
    let total = PaymentStatus::RefundedTotal { money: money(500, "USD") };
    assert_eq!(found.statuses, [captured(1999), total, refund("re_1", RefundState::Succeeded, 500)]);
    for (fields, state, status) in [
        (json!({"captured": false}), PaymentState::Pending, PaymentStatus::Pending),
        (json!({"captured": false, "refunded": true}), PaymentState::Over, PaymentStatus::Canceled),
        (json!({"status": "pending", "captured": false}), PaymentState::Pending, PaymentStatus::Pending),
        (
            json!({"status": "failed", "captured": false, "failure_message": "Declined."}),
            PaymentState::Over,
            PaymentStatus::failed("Declined."),
        ),
    ] {
        let mut alone = alone.clone();
        alone["amount_refunded"] = 0.into();
        for (name, value) in fields.as_object().unwrap() {
            alone[name] = value.clone();
        }
        let fake = Fake::start(Stripe { refunds: vec![], ..world(&alone) }).await;
        let found = stripe_of(&fake).fetch(&Provider::STRIPE, None, &id("ch_2")).await.unwrap().unwrap();
        assert_eq!((found.state, found.statuses), (state, vec![status]), "{fields}");
    }
}

/// An authorisation of 1999. Only 1000 were captured.
fn held(amount_refunded: i64, refunds: Vec<Value>) -> Stripe {
    let mut charge = charge(amount_refunded);
    (charge["amount"], charge["amount_captured"], charge["captured"]) = (1999.into(), 1000.into(), true.into());
    let paid = json!({"status": "succeeded", "amount_received": 1000, "latest_charge": charge});
    Stripe { intents: vec![with(paid)], refunds, ..Stripe::default() }
}

#[tokio::test]
async fn a_released_hold_is_no_refund_in_an_answer_of_either_shape() {
    let made = |id: &str, amount: i64, transaction: Value| {
        let mut made = hanging(id, "succeeded", 1);
        (made["amount"], made["balance_transaction"]) = (amount.into(), transaction);
        made
    };
    let hold = || made("re_hold", 999, json!(null));
    let real = |amount| made("re_real", amount, json!("txn_1"));
    let total = |minor| PaymentStatus::RefundedTotal { money: money(minor, "USD") };
    let told = |minor| refund("re_real", RefundState::Succeeded, minor);
    for (what, world, expected) in [
        ("new: nothing refunded", held(0, vec![]), vec![]),
        ("new: 400 refunded", held(400, vec![real(400)]), vec![total(400), told(400)]),
        ("new: as much as the hold was", held(999, vec![real(999)]), vec![total(999), told(999)]),
        ("new: all of it", held(1000, vec![real(1000)]), vec![total(1000), told(1000)]),
        ("old: the hold alone", held(999, vec![hold()]), vec![]),
        ("old: the hold, not listed", held(999, vec![]), vec![]),
        ("old: 400 on top", held(1399, vec![hold(), real(400)]), vec![total(400), told(400)]),
        ("old: all of it", held(1999, vec![hold(), real(1000)]), vec![total(1000), told(1000)]),
    ] {
        let (_fake, found) = fetch(world).await;
        let found = found.unwrap().unwrap();
        assert_eq!(found.statuses[0], captured(1000), "{what}");
        assert_eq!(found.statuses[1..], expected, "{what}");
    }
}

#[tokio::test]
async fn what_is_told_is_as_of_the_answers_date() {
    let (_fake, found) = fetch(Stripe { intents: vec![with(json!({}))], ..Stripe::default() }).await;
    let as_of = found.unwrap().unwrap().as_of;
    assert_eq!(as_of, Some(at(super::fake::ANSWERED_AT)));
}

#[tokio::test]
async fn money_that_a_dispute_moves_later_is_news() {
    let paid = || with(json!({"status": "succeeded", "amount_received": 1999, "latest_charge": charge(0)}));
    let moved = |amount: i64, after: i64| json!({"amount": amount, "currency": "usd", "created": CREATED + after});
    for (transactions, state, latest) in [
        (vec![moved(-1999, 300)], DisputeState::Lost, 300),
        (vec![moved(-1999, 300), moved(1999, 90_000)], DisputeState::Won, 90_000),
    ] {
        let mut lost = hanging("dp_1", "lost", 200);
        lost["balance_transactions"] = transactions.into();
        let world = Stripe { intents: vec![paid()], disputes: vec![lost], ..Stripe::default() };
        let (_fake, found) = fetch(world).await;
        let found = found.unwrap().unwrap();
        assert_eq!(found.statuses, [captured(1999), dispute("dp_1", state)]);
        assert_eq!(found.occurred_at, at(CREATED + latest));
    }
}

#[tokio::test]
async fn the_breakdown_is_asked_for_only_where_it_is_needed() {
    let paid = || with(json!({"status": "succeeded", "amount_received": 2399, "latest_charge": charge(0)}));
    let sold = |total: i64| {
        session(json!({
            "payment_intent": "pi_1", "status": "complete", "payment_status": "paid", "amount_subtotal": 1999,
            "amount_total": total, "total_details": {"amount_tax": 400, "amount_discount": 0, "amount_shipping": 0},
        }))
    };
    let world = || Stripe { intents: vec![paid()], sessions: vec![sold(2399)], ..Stripe::default() };
    let told = |breakdown| PaymentStatus::Captured {
        money: money(2399, "USD"),
        capture_id: None,
        state: CaptureState::Succeeded,
        breakdown,
    };
    let parts = crate::domain::Breakdown::new(money(2399, "USD"), 400, 0).unwrap();
    for (needs, breakdown, asked) in [(Needs::Facts, None, 3), (Needs::Breakdown, Some(parts), 4)] {
        let fake = Fake::start(world()).await;
        let found = stripe_of(&fake).fetch_with(&Provider::STRIPE, None, &id("pi_1"), needs).await.unwrap().unwrap();
        assert_eq!((found.statuses, fake.asked().len()), (vec![told(breakdown)], asked), "{needs:?}");
        let is_named = found.related_ids.contains(&id("cs_1"));
        assert_eq!(is_named, needs == Needs::Breakdown);
    }
    // A session with another total has no parts for this payment, and an intent may have no session.
    for sessions in [vec![], vec![session(json!({"payment_intent": "pi_1"}))]] {
        let fake = Fake::start(Stripe { sessions, ..world() }).await;
        let found = stripe_of(&fake).fetch_with(&Provider::STRIPE, None, &id("pi_1"), Needs::Breakdown).await;
        assert_eq!(found.unwrap().unwrap().statuses, [told(None)]);
    }
}

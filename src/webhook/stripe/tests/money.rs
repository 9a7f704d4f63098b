//! Events about money that are easy to get wrong: holds, disputes, charges, prices with tax, and events of other systems.

use super::super::table::{ROWS, Read};
use super::*;
use crate::domain::OrderId;
use crate::webhook::Concerns;
use crate::webhook::table::{Does, row};

const OLD: &str = "2024-06-20";
const ACACIA: &str = "2024-10-28.acacia";
const LAST_ACACIA: &str = "2025-02-24.acacia";
const BASIL: &str = "2025-03-31.basil";
const NEW: &str = "2026-07-29.dahlia";

fn of_version(version: impl Into<Value>, kind: &str, object: Value) -> Value {
    with(event(kind, object), json!({"api_version": version.into()}))
}

fn total(minor: i64) -> PaymentStatus {
    PaymentStatus::RefundedTotal { money: usd(minor) }
}

#[test]
fn every_published_type_has_a_row_of_its_own_or_of_its_family() {
    let published = include_str!("../../../../tests/vectors/stripe_event_types.txt");
    let mut count = 0;
    for kind in published.lines().filter(|line| !line.starts_with('#')) {
        let name = row(ROWS, kind).unwrap().name;
        assert_ne!(name, "*", "{kind} is in no family of the table");
        let is_dead = matches!(row(ROWS, kind).unwrap().does, Does::DeadLetter);
        assert!(!is_dead, "{kind} is published, so the table must say what it means");
        count += 1;
    }
    assert!(count > 280, "{count}");
    for kind in ["payment_intent.paid_again", "charge.vanished", "checkout.session.reopened"] {
        let (_, _, detail) = fault(&event(kind, intent()));
        assert!(detail.starts_with("type: is one that may report money"), "{kind}: {detail}");
    }
    let is_read = |kind| matches!(row(ROWS, kind).unwrap().does, Does::Applied(Read::Dispute | Read::Refund));
    assert!(
        is_read("refund.reversed") && is_read("charge.dispute.reopened"),
        "their states count, whatever they are called"
    );
}

#[test]
fn before_basil_the_released_part_of_a_hold_is_no_refund() {
    let held = |captured: Value, refunded: i64| {
        with(
            charge(),
            json!({"amount": 1999, "amount_captured": captured, "amount_refunded": refunded, "captured": true}),
        )
    };
    let nothing = |version: &str, charge: Value| {
        let ignored = ignored(&of_version(version, "charge.refunded", charge));
        assert_eq!(ignored, ("charge.refunded".to_owned(), "released_hold"), "{version}");
    };
    let back = |version: &str, charge: Value| said(&of_version(version, "charge.refunded", charge)).status;
    for version in ["2020-08-27", "2022-11-15", OLD, ACACIA, LAST_ACACIA] {
        nothing(version, held(json!(1000), 999));
        assert_eq!(back(version, held(json!(1000), 1399)), total(400), "{version}: 400 on top");
        assert_eq!(back(version, held(json!(1000), 1999)), total(1000), "{version}: all of it");
        assert_eq!(back(version, held(json!(1000), 400)), total(400), "{version}: the account leaves the hold out");
        assert_eq!(back(version, held(json!(1999), 500)), total(500), "{version}: there was no hold");
        // Nothing was captured.
        nothing(version, with(held(json!(0), 1999), json!({"captured": false})));
        nothing(version, with(held(json!(null), 1999), json!({"captured": false})));
        assert_eq!(back(version, held(json!(null), 500)), total(500), "{version}: the whole was captured");
    }
    for version in [BASIL, "2025-09-30.clover", NEW] {
        assert_eq!(back(version, held(json!(1000), 400)), total(400), "{version}");
        assert_eq!(back(version, held(json!(1000), 999)), total(999), "{version}: as much as the hold");
    }
    let unversioned = of_version(Value::Null, "charge.refunded", held(json!(1000), 999));
    assert_eq!(said(&unversioned).status, total(999), "without a version, the newest version counts");
    for odd in [json!("basil"), json!("2024-6-20"), json!(20240620), json!("")] {
        let (_, _, detail) = fault(&of_version(odd, "charge.refunded", held(json!(1000), 999)));
        assert!(detail.starts_with("api_version: must"), "{detail}");
    }
}

#[test]
fn a_refund_that_moved_no_money_is_a_released_hold() {
    let made = |transaction: Option<Value>| match transaction {
        Some(transaction) => with(refund(), json!({"balance_transaction": transaction})),
        None => refund(),
    };
    for (version, transaction, is_hold) in [
        (OLD, Some(Value::Null), true),
        (OLD, None, false),
        (OLD, Some(json!("txn_1")), false),
        (ACACIA, Some(Value::Null), true),
        (LAST_ACACIA, None, true),
        (LAST_ACACIA, Some(json!("txn_1")), false),
        (LAST_ACACIA, Some(json!({"id": "txn_1"})), false),
        (BASIL, Some(Value::Null), false),
        (NEW, None, false),
    ] {
        for kind in ["refund.created", "refund.updated", "charge.refund.updated"] {
            let event = of_version(version, kind, made(transaction.clone()));
            if is_hold {
                assert_eq!(ignored(&event), (kind.to_owned(), "released_hold"), "{version} {transaction:?}");
            } else {
                assert_eq!(said(&event).status, refunded(RefundState::Succeeded), "{version} {transaction:?}");
            }
        }
    }
    // A refund that is on its way or failed has no transaction either.
    for (status, state) in [("pending", RefundState::Pending), ("failed", RefundState::Failed)] {
        let event = of_version(LAST_ACACIA, "refund.updated", with(refund(), json!({"status": status})));
        assert_eq!(said(&event).status, refunded(state));
    }
}

#[test]
fn a_disputes_credits_follow_its_money() {
    let moved = |amount: i64, currency: &str| json!({"amount": amount, "currency": currency, "fee": 1500});
    let taken = |minor| PaymentStatus::Dispute {
        dispute_id: FactId::new("du_3").unwrap(),
        state: DisputeState::Lost,
        round: 1,
        money: usd(minor),
    };
    let won = || disputed(DisputeState::Won);
    for (status, transactions, expected) in [
        ("prevented", vec![], won()),
        ("prevented", vec![moved(-1999, "usd")], taken(1999)),
        ("prevented", vec![json!({"amount": -1999})], taken(1999)),
        ("prevented", vec![moved(-1999, "usd"), moved(1999, "usd")], won()),
        ("prevented", vec![moved(-500, "usd")], taken(500)),
        // The account's balance is in another currency, so the dispute's own amount counts.
        ("prevented", vec![moved(-1800, "eur")], taken(1999)),
        ("lost", vec![], taken(1999)),
        ("lost", vec![moved(-1999, "usd")], taken(1999)),
        ("lost", vec![moved(-1999, "usd"), moved(1999, "usd")], won()),
        ("lost", vec![moved(-1800, "eur"), moved(1800, "eur")], won()),
        ("won", vec![moved(-1999, "usd")], won()),
        ("needs_response", vec![moved(-1999, "usd")], disputed(DisputeState::Open)),
        ("under_review", vec![moved(-1999, "usd"), moved(1999, "usd")], disputed(DisputeState::Open)),
        ("warning_closed", vec![], disputed(DisputeState::Inquiry)),
        ("charge_refunded", vec![moved(-1999, "usd")], won()),
    ] {
        let object = with(dispute(), json!({"status": status, "balance_transactions": transactions}));
        assert_eq!(said(&event("charge.dispute.updated", object)).status, expected, "{status} {transactions:?}");
    }
    for (status, transactions, expected) in [
        ("won", vec![moved(-1999, "usd")], won()),
        ("lost", vec![], won()),
        ("lost", vec![moved(-1999, "usd"), moved(1500, "usd")], taken(499)),
    ] {
        let object = with(dispute(), json!({"status": status, "balance_transactions": transactions}));
        let reinstated = said(&event("charge.dispute.funds_reinstated", object));
        assert_eq!(reinstated.status, expected, "{status} {transactions:?}");
    }
    let odd = with(dispute(), json!({"status": "prevented", "balance_transactions": ["txn_1"]}));
    let (_, _, detail) = fault(&event("charge.dispute.closed", odd));
    assert_eq!(detail, "data.object.balance_transactions: must be a list of objects");
}

#[test]
fn a_charge_counts_where_it_has_no_payment_intent() {
    let alone =
        |patch| with(with(charge(), json!({"payment_intent": null, "captured": true, "amount_refunded": 0})), patch);
    let declined =
        json!({"captured": false, "paid": false, "failure_message": "Your card was declined.", "failure_code": "x"});
    let held = json!({"captured": false, "amount_captured": 0});
    let old = json!({"amount_captured": null});
    let pending = json!({"captured": false, "paid": false});
    for (kind, patch, status) in [
        ("charge.succeeded", json!({}), captured(usd(1999))),
        ("charge.captured", json!({}), captured(usd(1999))),
        ("charge.updated", json!({}), captured(usd(1999))),
        ("charge.succeeded", old, captured(usd(1999))),
        ("charge.captured", json!({"amount_captured": 1000}), captured(usd(1000))),
        ("charge.succeeded", held.clone(), PaymentStatus::Pending),
        ("charge.pending", pending, PaymentStatus::Pending),
        ("charge.failed", declined, PaymentStatus::failed("Your card was declined.")),
        ("charge.expired", held.clone(), PaymentStatus::Canceled),
        ("charge.refunded", json!({"amount_refunded": 500}), total(500)),
    ] {
        let said = said(&event(kind, alone(patch)));
        assert_eq!((said.status, said.payment_id.as_str()), (status, "ch_3"), "{kind}");
        assert_eq!(
            said.order_id.map(|id| id.to_string()).as_deref(),
            Some(ORDER),
            "{kind}: its own metadata name the order"
        );
        let with_intent = event(kind, charge());
        if kind != "charge.refunded" {
            assert_eq!(ignored(&with_intent), (kind.to_owned(), "said_by_another_event"));
        }
    }
    assert_eq!(ignored(&event("charge.updated", alone(held))), ("charge.updated".to_owned(), "no_money"));
}

#[test]
fn intents_of_old_versions_name_their_charge_in_a_list() {
    let ids = |patch| {
        let said = said(&of_version("2022-08-01", "payment_intent.succeeded", with(intent(), patch)));
        said.related_ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>()
    };
    let listed =
        |ids: &[&str]| json!({"object": "list", "data": ids.iter().map(|id| json!({"id": id})).collect::<Vec<_>>()});
    assert_eq!(ids(json!({"latest_charge": null, "charges": listed(&["ch_9"])})), ["ch_9"]);
    assert_eq!(ids(json!({"latest_charge": "ch_9", "charges": listed(&["ch_9", "ch_8"])})), ["ch_9", "ch_8"]);
    assert_eq!(ids(json!({"latest_charge": null, "charges": listed(&[])})), [""; 0]);
    let many: Vec<String> = (0..20).map(|n| format!("ch_{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(ids(json!({"latest_charge": null, "charges": listed(&many)})).len(), crate::domain::RELATED_IDS_MAX);
}

#[test]
fn a_sessions_total_has_parts_that_add_up() {
    let priced = |subtotal: i64, total: i64, discount: i64, tax: i64, shipping: Value| {
        let details = json!({"amount_discount": discount, "amount_tax": tax, "amount_shipping": shipping});
        let patch = json!({"amount_subtotal": subtotal, "amount_total": total, "total_details": details});
        event("checkout.session.completed", with(session(), patch))
    };
    for (event, total, tax, discount) in [
        (priced(1999, 2399, 0, 400, json!(0)), 2399, 400, 0),
        (priced(1999, 1999, 0, 333, json!(0)), 1999, 0, 0),
        (priced(1999, 1499, 500, 0, Value::Null), 1499, 0, 500),
        (priced(1999, 1799, 500, 300, json!(0)), 1799, 300, 500),
        (priced(1999, 2899, 0, 400, json!(500)), 2899, 400, 0),
        // Some lines include their tax in the price, and some add it.
        (priced(1999, 2099, 0, 400, json!(0)), 2099, 100, 0),
        (priced(1999, 0, 1999, 0, json!(0)), 0, 0, 1999),
    ] {
        let breakdown = Breakdown::new(usd(total), tax, discount).ok();
        let expected =
            PaymentStatus::Captured { money: usd(total), capture_id: None, state: CaptureState::Succeeded, breakdown };
        assert_eq!(said(&event).status, expected, "{event}");
    }
    for event in [
        priced(1999, 2500, 0, 400, json!(0)),
        priced(1999, 1900, 0, 400, json!(0)),
        priced(1999, 1999, 500, 0, json!(0)),
        priced(1999, 1999, 0, 0, json!(100)),
    ] {
        let (_, _, detail) = fault(&event);
        assert!(detail.starts_with("data.object.total_details: does not add up: amount_subtotal 1999"), "{detail}");
    }
    let (_, _, detail) = fault(&priced(1999, 1999, -1, 0, json!(0)));
    assert!(detail.starts_with("data.object.total_details.amount_discount: "), "{detail}");
    let bare = |patch| event("checkout.session.completed", with(session(), patch));
    assert_eq!(said(&bare(json!({"amount_subtotal": null}))).status, captured(usd(1999)), "no field reports a part");
    assert_eq!(said(&bare(json!({}))).status, captured_whole(usd(1999)));
    let (_, _, detail) = fault(&bare(json!({"amount_total": 2399})));
    assert!(detail.contains("does not add up"), "{detail}");
    // Amounts are in Stripe's own unit of a currency.
    let yen =
        json!({"currency": "jpy", "amount_subtotal": 500, "amount_total": 550, "total_details": {"amount_tax": 50}});
    let status = said(&bare(yen)).status;
    assert!(
        matches!(status, PaymentStatus::Captured { breakdown: Some(parts), .. } if parts.tax_minor() == 50),
        "{status:?}"
    );
}

/// The detail of a dead letter, and the objects that it concerns.
fn about(event: &Value) -> (String, Concerns) {
    let translation = translate(event);
    let Translation::Untranslatable { detail, concerns, .. } = translation.clone() else {
        panic!("{event}: {translation:?}")
    };
    (detail, concerns)
}

#[test]
fn money_for_an_order_that_cannot_be_applied_is_a_dead_letter_that_says_what_to_do() {
    let ours: OrderId = ORDER.parse().unwrap();
    let ids = |concerns: &Concerns| concerns.payment_ids.iter().map(|id| id.as_str().to_owned()).collect::<Vec<_>>();
    for mode in ["subscription", "setup"] {
        let sold = with(session(), json!({"mode": mode, "payment_intent": null, "subscription": "sub_1"}));
        let (detail, concerns) = about(&with(event("checkout.session.completed", sold), json!({"account": "acct_9"})));
        assert!(detail.starts_with("data.object.mode: is ") && detail.contains("refund the buyer"), "{detail}");
        assert_eq!((concerns.order_id, ids(&concerns)), (Some(ours), vec!["cs_live_1".to_owned()]));
        assert_eq!(concerns.status, Some(captured_whole(usd(1999))));
        assert_eq!(concerns.provider_account.unwrap().as_str(), "acct_9");
    }
    let invoice =
        json!({"id": "in_1", "object": "invoice", "amount_paid": 1999, "currency": "usd", "payment_intent": "pi_3"});
    let named = json!({"metadata": {"order_id": ORDER}});
    for patch in [
        named.clone(),
        json!({"subscription_details": named}),
        json!({"parent": {"type": "subscription_details", "subscription_details": named}}),
    ] {
        for kind in ["invoice.paid", "invoice.payment_succeeded", "invoice.overpaid", "invoice.unheard_of"] {
            let (detail, concerns) = about(&event(kind, with(invoice.clone(), patch.clone())));
            assert!(detail.starts_with(&format!("type: is {kind} and names an order of ours")), "{detail}");
            assert_eq!((concerns.order_id, ids(&concerns)), (Some(ours), vec!["in_1".to_owned(), "pi_3".to_owned()]));
            assert_eq!(concerns.status, Some(captured(usd(1999))));
        }
        let free = with(with(invoice.clone(), patch), json!({"amount_paid": 0}));
        assert_eq!(ignored(&event("invoice.paid", free)).1, "no_money");
    }
    assert_eq!(ignored(&event("invoice.paid", invoice)), ("invoice.paid".to_owned(), "not_ours"));
    let note = json!({"id": "cn_1", "object": "credit_note", "amount": 500, "currency": "usd", "metadata": {"order_id": ORDER}});
    assert_eq!(about(&event("credit_note.created", note)).1.order_id, Some(ours));
    // If the envelope of an event is faulty, its readable content is reported, too.
    let (_, concerns) = about(&with(event("payment_intent.succeeded", intent()), json!({"created": null})));
    assert_eq!((concerns.order_id, ids(&concerns)), (Some(ours), vec!["pi_3".to_owned(), "ch_3".to_owned()]));
    assert_eq!(concerns.status, Some(captured(usd(1999))));
}

#[test]
fn the_account_may_be_named_by_the_context() {
    let paid = |patch| with(event("payment_intent.succeeded", intent()), patch);
    for (patch, account) in [
        (json!({"context": "acct_9"}), Some("acct_9")),
        (json!({"context": "org_1/acct_9"}), Some("acct_9")),
        (json!({"context": "acct_9", "account": "acct_9"}), Some("acct_9")),
        (json!({"context": "org_1/acct_9", "account": "acct_9"}), Some("acct_9")),
        (json!({"context": null}), None),
        (json!({"context": null, "account": "acct_9"}), Some("acct_9")),
    ] {
        let said = said(&paid(patch.clone()));
        assert_eq!(said.provider_account.as_ref().map(|account| account.as_str()), account, "{patch}");
        assert_eq!(said.message_id.as_str(), format!("stripe:{}:evt_1", account.unwrap_or_default()));
    }
    for (patch, told) in [
        (json!({"context": "acct_8", "account": "acct_9"}), "context: names another account"),
        (json!({"context": "org_1/"}), "context: "),
        (json!({"context": 5}), "context: must be a text"),
        (json!({"context": "a:b"}), "context: must not have a colon"),
    ] {
        let (_, _, detail) = fault(&paid(patch));
        assert!(detail.starts_with(told), "{detail}");
    }
}

/// The event as JSON. Each `…` in its texts becomes half a surrogate pair.
fn cut(event: &Value) -> Vec<u8> {
    serde_json::to_string(event).unwrap().replace('…', "\\ud83d").into_bytes()
}

#[test]
fn a_character_that_was_cut_in_two_spoils_only_what_it_stands_in() {
    for patch in [
        json!({"description": "100 credits …"}),
        json!({"a … name": 1}),
        json!({"metadata": {"order_id": ORDER, "note": "…"}}),
    ] {
        let paid = event("payment_intent.succeeded", with(intent(), patch));
        let Translation::Events(events) = translate_bytes(&cut(&paid)) else { panic!("{paid}") };
        assert_eq!(events[0].status, captured(usd(1999)));
        assert_eq!(events[0].order_id.unwrap().to_string(), ORDER);
    }
    for field in ["id", "currency", "latest_charge", "object"] {
        let paid = event("payment_intent.succeeded", with(intent(), json!({field: "pi_…"})));
        let Translation::Untranslatable { detail, .. } = translate_bytes(&cut(&paid)) else { panic!("{paid}") };
        assert_eq!(detail, format!("data.object.{field}: has a broken character in it"));
    }
    let odd_id = with(event("payment_intent.succeeded", intent()), json!({"id": "evt_…"}));
    let Translation::Untranslatable { message_id, detail, .. } = translate_bytes(&cut(&odd_id)) else { panic!() };
    assert_eq!(detail, "id: has a broken character in it");
    assert!(message_id.as_str().starts_with("stripe::sha256-"));
}

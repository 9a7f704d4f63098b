//! The receiver understands the webhooks of the simulated provider.

use crate::domain::{Currency, DisputeState, FactId, MessageId, Money, PaymentStatus, RefundState};
use crate::message;
use crate::webhook::{Endpoint, Terms, Translation, Verified};
use grantonce_testkit::provider::payment::{self as simulated, Event, Payment, Said, Seller, State, Status, Step};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);

fn payment(seller: Seller) -> Payment {
    Payment::new(seller, "tag1".to_owned(), simulated::money(1999, "USD").unwrap(), NOW)
}

fn part(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::new("USD").unwrap()).unwrap()
}

fn refund(state: simulated::RefundState) -> simulated::Refund {
    simulated::Refund { number: 1, money: simulated::money(500, "USD").unwrap(), state, at: NOW }
}

fn dispute(state: simulated::DisputeState) -> simulated::Dispute {
    simulated::Dispute { number: 1, money: simulated::money(1999, "USD").unwrap(), state, at: NOW, since: NOW }
}

/// The receiver's status for Stripe's event. `None` if the receiver ignores it.
fn heard(said: Said) -> Option<PaymentStatus> {
    let payment = payment(Seller::Stripe);
    let event = payment.event(1, said, None, NOW);
    let (body, id) = (payment.body(&event), MessageId::new(format!("stripe::{}", event.id)).unwrap());
    let terms = Terms { livemode: false, is_adyen_captured_by_hand: false };
    match Verified::kept(Endpoint::Stripe, &id, &body, NOW, terms).translate().remove(0) {
        Translation::Events(mut events) => {
            let event = events.remove(0);
            assert!(event.payment_ids().any(|id| id.as_str() == "pi_tag1"), "{event:?}");
            Some(event.status)
        }
        Translation::Ignored { .. } => None,
        other @ (Translation::Hint(_) | Translation::Untranslatable { .. }) => panic!("{other:?}"),
    }
}

#[test]
fn the_receiver_understands_each_of_stripes_events() {
    let refund_of =
        |state| PaymentStatus::Refund { refund_id: FactId::new("re_tag1r1").unwrap(), state, money: part(500) };
    let dispute_of = |state| PaymentStatus::Dispute {
        dispute_id: FactId::new("dp_tag1d1").unwrap(),
        state,
        round: 1,
        money: part(1999),
    };
    assert_eq!(heard(Said::Created), None);
    assert_eq!(heard(Said::Processing), Some(PaymentStatus::Pending));
    assert_eq!(heard(Said::AttemptFailed), Some(PaymentStatus::failed("Your card was declined.")));
    assert_eq!(heard(Said::Canceled), Some(PaymentStatus::Canceled));
    assert_eq!(heard(Said::Succeeded).map(|status| status.name()), Some("captured"));
    assert_eq!(heard(Said::Succeeded), heard(Said::SessionCompleted));
    assert_eq!(heard(Said::RefundedTotal(500)), Some(PaymentStatus::RefundedTotal { money: part(500) }));
    for (simulated, state) in [
        (simulated::RefundState::Pending, RefundState::Pending),
        (simulated::RefundState::Succeeded, RefundState::Succeeded),
        (simulated::RefundState::Failed, RefundState::Failed),
    ] {
        assert_eq!(heard(Said::RefundMade(refund(simulated))), Some(refund_of(state)));
        assert_eq!(heard(Said::RefundChanged(refund(simulated))), Some(refund_of(state)));
    }
    for (step, simulated, state) in [
        (Step::Created, simulated::DisputeState::Open, DisputeState::Open),
        (Step::FundsWithdrawn, simulated::DisputeState::Open, DisputeState::Open),
        (Step::FundsReinstated, simulated::DisputeState::Won, DisputeState::Won),
        (Step::Closed, simulated::DisputeState::Won, DisputeState::Won),
        (Step::Closed, simulated::DisputeState::Lost, DisputeState::Lost),
    ] {
        assert_eq!(heard(Said::Disputed(dispute(simulated), step)), Some(dispute_of(state)));
    }
}

#[test]
fn stripe_tells_one_payment_by_two_events() {
    let payment = payment(Seller::Stripe);
    let order_id = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
    let read = |event: &Event| serde_json::from_slice::<Value>(&payment.body(event)).unwrap();
    let intent = read(&payment.event(1, Said::Succeeded, Some(order_id), NOW));
    let session = read(&payment.event(2, Said::SessionCompleted, None, NOW));
    assert_eq!(intent["type"], "payment_intent.succeeded");
    assert_eq!(intent["data"]["object"]["id"], session["data"]["object"]["payment_intent"]);
    assert_eq!(intent["data"]["object"]["amount_received"], 1999);
    assert_eq!(intent["data"]["object"]["currency"], "usd");
    assert_eq!(intent["data"]["object"]["metadata"]["order_id"], order_id.to_string());
    assert_eq!(session["data"]["object"]["metadata"], json!({}));
    assert_ne!(intent["id"], session["id"]);
    assert_eq!(read(&payment.event(1, Said::AttemptFailed, None, NOW))["data"]["object"]["amount_received"], 0);
}

#[test]
fn standard_tells_it_by_the_wire_contract() {
    let payment = payment(Seller::Standard);
    for (said, name) in [
        (Said::Processing, "pending"),
        (Said::AttemptFailed, "failed"),
        (Said::Succeeded, "captured"),
        (Said::SessionCompleted, "captured"),
        (Said::Canceled, "canceled"),
        (Said::RefundedTotal(500), "refunded_total"),
        (Said::RefundMade(refund(simulated::RefundState::Succeeded)), "refund"),
        (Said::RefundChanged(refund(simulated::RefundState::Failed)), "refund"),
        (Said::Disputed(dispute(simulated::DisputeState::Open), Step::Created), "dispute"),
    ] {
        let read = message::decode(&payment.body(&payment.event(1, said, None, NOW)), NOW).unwrap();
        assert_eq!((read.status.name(), payment.kind(said)), (name, name));
        assert_eq!(read.payment_id.as_str(), "pay_tag1");
    }
}

#[test]
fn every_copy_has_the_same_bytes() {
    for seller in [Seller::Stripe, Seller::Standard] {
        let payment = payment(seller);
        let event = payment.event(3, Said::Succeeded, None, NOW);
        assert_eq!(payment.body(&event), payment.body(&event.clone()));
    }
}

#[test]
fn the_seller_keeps_what_did_not_go_back() {
    let payment = payment(Seller::Stripe);
    let mut state = State::new(NOW);
    assert_eq!(payment.kept_minor(&state), 0);
    state.status = Status::Succeeded;
    assert_eq!(payment.kept_minor(&state), 1999);
    state.refunds.push(refund(simulated::RefundState::Succeeded));
    state.refunds.push(refund(simulated::RefundState::Failed));
    assert_eq!(payment.kept_minor(&state), 1499);
    state.disputes.push(dispute(simulated::DisputeState::Open));
    assert_eq!(payment.kept_minor(&state), 0);
    state.disputes[0].state = simulated::DisputeState::Won;
    assert_eq!(payment.kept_minor(&state), 1499);
}

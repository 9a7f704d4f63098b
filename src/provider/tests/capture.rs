//! PayPal: an approved payment is captured, and at most one payment of an order.

use super::fake::{Fake, Trouble};
use super::fake_paypal::Paypal;
use super::*;
use crate::domain::{CaptureState, FactId};
use grantonce_testkit::provider::payment::{self as simulated, Outcome, Seller};

/// The ids of two approved payments of one order, and of one that is not approved.
const O1: &str = "PAYPALTEST0000000";
const O2: &str = "PAYPALTEST0000001";
const O3: &str = "PAYPALTEST0000002";

async fn fake() -> Fake<Paypal> {
    let fake = Fake::start(Paypal::default()).await;
    let provider = &fake.simulated.provider;
    let price = simulated::money(1999, "USD").unwrap();
    for (id, order_id) in [(O1, order(1)), (O2, order(1)), (O3, order(3))] {
        assert_eq!(provider.create(Seller::Paypal, price, Some(order_id.0), None).unwrap().id, id);
    }
    for id in [O1, O2] {
        provider.pay(id, Outcome::Succeeded).unwrap();
    }
    fake
}

async fn capture(providers: &Providers, payment: &str, order_id: OrderId) -> Result<Found, CallError> {
    providers.capture(&Provider::PAYPAL, &id(payment), order_id).await
}

fn captures(fake: &Fake<Paypal>) -> usize {
    fake.simulated.provider.payments().1
}

#[tokio::test]
async fn what_is_captured_is_paid_and_again_is_the_same() {
    let fake = fake().await;
    let providers = paypal_of(&fake);
    let first = capture(&providers, O1, order(1)).await.unwrap();
    let fact = PaymentStatus::Captured {
        money: money(1999, "USD"),
        capture_id: Some(FactId::new("CAPTURETEST0000000").unwrap()),
        state: CaptureState::Succeeded,
        breakdown: None,
    };
    assert_eq!((first.state, &first.statuses), (PaymentState::Paid, &vec![fact]));
    assert_eq!(capture(&providers, O1, order(1)).await.unwrap(), first);
    assert_eq!(captures(&fake), 1);
    assert_eq!(fake.asked()[1].header("paypal-request-id"), order(1).to_string());
}

#[tokio::test]
async fn a_lost_answer_captures_no_second_time() {
    let fake = fake().await;
    fake.will([Trouble::Lost, Trouble::Lost]);
    assert_eq!(capture(&paypal_of(&fake), O1, order(1)).await.unwrap().state, PaymentState::Paid);
    assert_eq!(captures(&fake), 1);
}

#[tokio::test]
async fn a_second_payment_of_the_order_is_not_captured() {
    let fake = fake().await;
    let providers = paypal_of(&fake);
    capture(&providers, O1, order(1)).await.unwrap();
    assert_eq!(capture(&providers, O2, order(1)).await, Err(CallError::KeyReused));
    assert_eq!(captures(&fake), 1);
    let second = providers.fetch(&Provider::PAYPAL, None, &id(O2)).await.unwrap().unwrap();
    assert_eq!(second.state, PaymentState::Approved);
}

#[tokio::test]
async fn one_that_somebody_else_captured_is_found() {
    let fake = fake().await;
    let providers = paypal_of(&fake);
    // A capture with another key, as the page's own script may send it.
    capture(&providers, O1, order(7)).await.unwrap();
    assert_eq!(capture(&providers, O1, order(1)).await.unwrap().state, PaymentState::Paid);
    assert_eq!(captures(&fake), 1);
}

#[tokio::test]
async fn one_that_nobody_approved_or_knows_is_refused() {
    let fake = fake().await;
    let providers = paypal_of(&fake);
    let open = capture(&providers, O3, order(3)).await;
    match open {
        Err(CallError::Refused { status: 422, detail }) => assert!(detail.ends_with("ORDER_NOT_APPROVED"), "{detail}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(capture(&providers, "NONE", order(4)).await, Err(CallError::Refused { status: 404, .. })));
    assert_eq!(capture(&providers, "O9/x", order(1)).await, Err(CallError::Unsupported));
    // The buyer approves later. The same key works then.
    fake.simulated.provider.pay(O3, Outcome::Succeeded).unwrap();
    assert_eq!(capture(&providers, O3, order(3)).await.unwrap().state, PaymentState::Paid);
}

//! The program's calls to the simulated providers find every change of a payment there.

use super::{at_paypal, at_stripe, money};
use crate::domain::{
    CaptureState, DisputeState, FactId, Money, OrderId, PaymentId, PaymentStatus, Provider as Name, RefundState,
};
use crate::http::plain_client;
use crate::provider::{CallError, Created, Found, NewPayment, PaymentState, Providers, Retry};
use grantonce_testkit::provider::payment::{Outcome, Seller};
use grantonce_testkit::provider::standin::Standin;
use serde_json::{Value, json};
use time::{Duration, OffsetDateTime};

/// The simulated providers, and the program's calls to them.
struct Asked {
    simulated: Standin,
    providers: Providers,
}

impl Asked {
    async fn new() -> Self {
        let simulated = Standin::start().await.unwrap();
        let (stripe, paypal) = (at_stripe(&simulated.base), at_paypal(&simulated.base));
        Self { simulated, providers: Providers::new(Some(stripe), Some(paypal)).unwrap() }
    }

    async fn create(&self, name: Name, order_id: OrderId, key: &str) -> Result<Created, CallError> {
        let return_url = (name == Name::PAYPAL).then(|| "http://127.0.0.1:1/back".to_owned());
        let new = NewPayment { provider: name, account: None, order_id, price: usd(1999), return_url };
        self.providers.create(&new, key, Retry::Never).await
    }

    async fn fetch(&self, name: &Name, id: &str) -> Option<Found> {
        self.providers.fetch(name, None, &PaymentId::new(id).unwrap()).await.unwrap()
    }

    async fn control(&self, path: &str, body: Value) {
        let call = plain_client().build().unwrap().post(format!("{}{path}", self.simulated.base)).json(&body);
        assert_eq!(call.send().await.unwrap().status(), 204);
    }
}

fn usd(amount_minor: i64) -> Money {
    money(amount_minor, "USD")
}

fn order_id() -> OrderId {
    "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap()
}

fn refund(id: String, state: RefundState, amount_minor: i64) -> PaymentStatus {
    PaymentStatus::Refund { refund_id: FactId::new(id).unwrap(), state, money: usd(amount_minor) }
}

fn total(amount_minor: i64) -> PaymentStatus {
    PaymentStatus::RefundedTotal { money: usd(amount_minor) }
}

#[tokio::test]
async fn stripe_tells_all_that_was_done_to_a_payment() {
    let asked = Asked::new().await;
    let made = asked.create(Name::STRIPE, order_id(), "k").await.unwrap();
    let id = made.payment_id.as_str();
    assert!(made.client_secret.is_some_and(|secret| secret.starts_with(id)));
    let stripe = Name::STRIPE;
    let found = asked.fetch(&stripe, id).await.unwrap();
    assert_eq!((found.state, found.order_id, found.livemode), (PaymentState::Payable, Some(order_id()), false));
    assert!(found.statuses.is_empty(), "{found:?}");

    asked.simulated.provider.pay(id, Outcome::Failed).unwrap();
    let found = asked.fetch(&stripe, id).await.unwrap();
    assert_eq!(found.statuses, [PaymentStatus::failed("Your card was declined.")]);
    assert_eq!(found.state, PaymentState::Payable);

    asked.simulated.provider.pay(id, Outcome::Succeeded).unwrap();
    let found = asked.fetch(&stripe, id).await.unwrap();
    let paid =
        PaymentStatus::Captured { money: usd(1999), capture_id: None, state: CaptureState::Succeeded, breakdown: None };
    assert_eq!((found.state, &found.statuses), (PaymentState::Paid, &vec![paid.clone()]));
    let tag = id.strip_prefix("pi_").unwrap();
    assert_eq!(found.related_ids, [PaymentId::new(format!("ch_{tag}")).unwrap()]);
    // Nothing is new, so the answer is the same, with the same time.
    assert_eq!(asked.fetch(&stripe, id).await.unwrap(), found);
    for other in [format!("ch_{tag}"), format!("cs_test_{tag}")] {
        assert_eq!(asked.fetch(&stripe, &other).await.unwrap().payment_id.as_str(), id, "{other}");
    }

    let re = |n: u32| format!("re_{tag}r{n}");
    let (succeeded, failed) = (RefundState::Succeeded, RefundState::Failed);
    asked.simulated.provider.refund(id, Some(500)).unwrap();
    asked.simulated.provider.refund(id, Some(400)).unwrap();
    asked.simulated.provider.fail_refund(id).unwrap();
    let found = asked.fetch(&stripe, id).await.unwrap();
    let refunds = [refund(re(2), failed, 400), refund(re(1), succeeded, 500)];
    assert_eq!(asked.fetch(&stripe, &re(1)).await.unwrap().payment_id.as_str(), id);
    assert_eq!(found.statuses, [&[paid.clone(), total(500)][..], &refunds].concat());

    for (is_won, state) in [(true, DisputeState::Won), (false, DisputeState::Lost)] {
        let number = if is_won { 1 } else { 2 };
        let dispute = |state| PaymentStatus::Dispute {
            dispute_id: FactId::new(format!("dp_{tag}d{number}")).unwrap(),
            state,
            round: 1,
            money: usd(1499),
        };
        asked.simulated.provider.dispute(id).unwrap();
        assert!(asked.fetch(&stripe, id).await.unwrap().statuses.contains(&dispute(DisputeState::Open)));
        asked.simulated.provider.close_dispute(id, is_won).unwrap();
        let found = asked.fetch(&stripe, id).await.unwrap();
        assert!(found.statuses.contains(&dispute(state)), "{found:?}");
    }
    assert_eq!(asked.fetch(&stripe, "pi_none").await, None);

    let canceled = asked.create(Name::STRIPE, order_id(), "k2").await.unwrap().payment_id;
    asked.simulated.provider.pay(canceled.as_str(), Outcome::Canceled).unwrap();
    let found = asked.fetch(&stripe, canceled.as_str()).await.unwrap();
    assert_eq!((found.state, found.statuses), (PaymentState::Over, vec![PaymentStatus::Canceled]));
}

#[tokio::test]
async fn what_is_new_may_not_be_listed_yet() {
    let asked = Asked::new().await;
    let made = asked.create(Name::STRIPE, order_id(), "k").await.unwrap().payment_id;
    let since = OffsetDateTime::now_utc() - Duration::HOUR;
    let listed = async || asked.providers.list_of_order(&Name::STRIPE, None, order_id(), since).await.unwrap();
    assert_eq!(listed().await.iter().map(|found| &found.payment_id).collect::<Vec<_>>(), [&made]);
    asked.simulated.provider.pay(made.as_str(), Outcome::Succeeded).unwrap();
    asked.simulated.provider.refund(made.as_str(), Some(500)).unwrap();
    asked.control("/faults/listing-lag", json!(3600.0)).await;
    assert_eq!(listed().await, []);
    // The refund is not in its list, and the charge still reports it.
    let found = asked.fetch(&Name::STRIPE, made.as_str()).await.unwrap();
    assert_eq!(found.statuses[1..], [total(500)]);
}

#[tokio::test]
async fn a_key_makes_one_payment_until_it_is_forgotten() {
    let asked = Asked::new().await;
    for (name, path) in [(Name::STRIPE, "/faults"), (Name::PAYPAL, "/faults/paypal")] {
        let create = async |key: &str| asked.create(name.clone(), order_id(), key).await;
        let first = create("one").await.unwrap();
        let again = create("one").await.unwrap();
        assert_eq!((&again.payment_id, first.is_replay, again.is_replay), (&first.payment_id, false, true));
        let other = asked.create(name.clone(), OrderId(uuid::Uuid::now_v7()), "one").await;
        assert!(matches!(other, Err(CallError::KeyReused)), "{other:?}");

        asked.control(path, json!(["lose_request", "lose_answer"])).await;
        for _ in 0..2 {
            let lost = create("two").await;
            assert!(matches!(lost, Err(CallError::Unavailable { .. })), "{lost:?}");
        }
        assert!(create("two").await.unwrap().is_replay, "the second call was done");

        asked.control(path, json!(["forget_key"])).await;
        assert_ne!(create("one").await.unwrap().payment_id, first.payment_id);
    }
    asked.control("/faults", json!(["do_and_fail"])).await;
    assert!(matches!(asked.create(Name::STRIPE, order_id(), "three").await, Err(CallError::Unavailable { .. })));
    assert!(matches!(asked.create(Name::STRIPE, order_id(), "three").await, Err(CallError::Burnt { .. })));
}

#[tokio::test]
async fn a_paypal_payment_is_agreed_to_and_then_captured_once() {
    let asked = Asked::new().await;
    let paypal = Name::PAYPAL;
    let made = asked.create(paypal.clone(), order_id(), "k").await.unwrap();
    let id = made.payment_id.as_str();
    assert_eq!(made.approve_url.unwrap(), format!("{}/checkoutnow?token={id}", asked.simulated.base));
    assert_eq!(asked.fetch(&paypal, id).await.unwrap().state, PaymentState::Payable);
    let capture = async |id: &PaymentId| asked.providers.capture(&paypal, id, order_id()).await;
    assert!(matches!(capture(&made.payment_id).await, Err(CallError::Refused { .. })), "the buyer has not agreed");

    asked.simulated.provider.pay(id, Outcome::Succeeded).unwrap();
    let found = asked.fetch(&paypal, id).await.unwrap();
    assert_eq!((found.state, found.statuses), (PaymentState::Approved, vec![PaymentStatus::Pending]));

    asked.control("/faults/paypal", json!(["lose_answer"])).await;
    let found = capture(&made.payment_id).await.unwrap();
    let paid = |id: &str| PaymentStatus::Captured {
        money: usd(1999),
        capture_id: Some(FactId::new(id.replace("PAYPAL", "CAPTURE")).unwrap()),
        state: CaptureState::Succeeded,
        breakdown: None,
    };
    assert_eq!((found.state, &found.statuses), (PaymentState::Paid, &vec![paid(id)]));
    assert_eq!(found.order_id, Some(order_id()));
    assert_eq!(capture(&made.payment_id).await.unwrap(), found);
    assert_eq!(asked.fetch(&paypal, found.related_ids[0].as_str()).await.unwrap(), found);

    // At most one of two payments of one order is captured.
    let second = asked.create(paypal.clone(), order_id(), "k2").await.unwrap().payment_id;
    asked.simulated.provider.pay(second.as_str(), Outcome::Succeeded).unwrap();
    assert!(matches!(capture(&second).await, Err(CallError::KeyReused)));
    assert_eq!(asked.fetch(&paypal, second.as_str()).await.unwrap().state, PaymentState::Approved);

    asked.simulated.provider.refund(id, Some(999)).unwrap();
    let found = asked.fetch(&paypal, id).await.unwrap();
    let refunded = refund(id.replace("PAYPAL", "REFUND") + "N1", RefundState::Succeeded, 999);
    assert_eq!(found.statuses, [paid(id), refunded.clone()]);
    asked.simulated.provider.refund(id, None).unwrap();
    let found = asked.fetch(&paypal, id).await.unwrap();
    assert!(found.statuses.contains(&refunded) && found.statuses.contains(&total(1999)), "{found:?}");
    assert_eq!(asked.fetch(&paypal, "NONE").await, None);
    assert_eq!(asked.simulated.provider.counts().sent, 0, "PayPal's webhooks are not sent");
    assert_eq!(asked.simulated.provider.known(id).unwrap().payment.seller, Seller::Paypal);
}

#[tokio::test]
async fn paypal_tells_disputes_and_takes_the_money_of_a_lost_one_from_the_capture() {
    let asked = Asked::new().await;
    let paypal = Name::PAYPAL;
    let made = asked.create(paypal.clone(), order_id(), "k").await.unwrap().payment_id;
    let id = made.as_str();
    asked.simulated.provider.pay(id, Outcome::Succeeded).unwrap();
    let paid = asked.providers.capture(&paypal, &made, order_id()).await.unwrap();
    asked.simulated.provider.refund(id, Some(500)).unwrap();
    let tag = id.strip_prefix("PAYPAL").unwrap();
    let dispute = |number: u32, state| PaymentStatus::Dispute {
        dispute_id: FactId::new(format!("PP-D-{tag}-{number}")).unwrap(),
        state,
        round: 1,
        money: usd(1499),
    };
    let refunded = refund(format!("REFUND{tag}N1"), RefundState::Succeeded, 500);
    let expected = |more: &[PaymentStatus]| [&paid.statuses[..], std::slice::from_ref(&refunded), more].concat();
    let found = async || asked.fetch(&paypal, id).await.unwrap();
    assert_eq!(found().await.statuses, expected(&[]));

    asked.simulated.provider.dispute(id).unwrap();
    let open = found().await;
    assert_eq!(open.statuses, expected(&[dispute(1, DisputeState::Open)]));
    // Nothing is new, so the answer is the same, with the same time. The id of the capture, as in a webhook, also works.
    assert_eq!(found().await, open);
    assert_eq!(asked.fetch(&paypal, &format!("CAPTURE{tag}")).await.unwrap(), open);
    asked.simulated.provider.close_dispute(id, true).unwrap();
    assert_eq!(found().await.statuses, expected(&[dispute(1, DisputeState::Won)]));

    // A lost dispute holds nothing either: a reversal takes the money.
    asked.simulated.provider.dispute(id).unwrap();
    asked.simulated.provider.close_dispute(id, false).unwrap();
    let reversed = refund(format!("REVERSAL{tag}N2"), RefundState::Succeeded, 1499);
    let over = [dispute(2, DisputeState::Won), dispute(1, DisputeState::Won)];
    assert_eq!(found().await.statuses, expected(&[&[reversed, total(1999)][..], &over].concat()));
    assert_eq!(
        asked
            .simulated
            .provider
            .known(id)
            .unwrap()
            .payment
            .kept_minor(&asked.simulated.provider.known(id).unwrap().state),
        0
    );

    // Pages, newest first, in the order of the links.
    let page = async |url: String| {
        let call = plain_client().build().unwrap().get(url).bearer_auth("A21AA-simulated");
        call.send().await.unwrap().json::<Value>().await.unwrap()
    };
    let query = format!("disputed_transaction_id=CAPTURE{tag}&page_size=1");
    let first = page(format!("{}/v1/customer/disputes?{query}", asked.simulated.base)).await;
    assert_eq!(first["items"][0]["dispute_id"], format!("PP-D-{tag}-2"));
    assert_eq!(first["links"][0]["rel"], "next");
    let last = page(first["links"][0]["href"].as_str().unwrap().to_owned()).await;
    assert_eq!(last["items"][0]["dispute_id"], format!("PP-D-{tag}-1"));
    assert_eq!(last["links"], json!([]));
}

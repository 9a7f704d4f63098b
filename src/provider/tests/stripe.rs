//! Stripe: a payment is created once, and created payments are found.

use super::fake::{Asked, Fake, Told, Trouble, World, pairs};
use super::fake_paypal::Paypal;
use super::fake_stripe::{CREATED, Stripe, error, intent};
use super::*;
use crate::http::plain_client;
use serde_json::json;

async fn fake() -> Fake<Stripe> {
    Fake::start(Stripe::default()).await
}

fn new(order_id: OrderId) -> NewPayment {
    payment(Provider::STRIPE, order_id)
}

#[tokio::test]
async fn a_payment_is_created_once_a_key() {
    let fake = fake().await;
    let providers = stripe_of(&fake);
    let first = providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    let secret = first.client_secret.clone().unwrap();
    assert!(secret.starts_with(first.payment_id.as_str()) && first.approve_url.is_none() && !first.is_replay);
    let again = providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    assert_eq!(again, Created { is_replay: true, ..first.clone() });
    let other = providers.create(&new(order(1)), "key-2", Retry::Backoff).await.unwrap();
    assert!(other.payment_id != first.payment_id && !other.is_replay);
    let made = fake.simulated.provider.payment(first.payment_id.as_str()).unwrap();
    assert_eq!((made.amount_minor, made.currency.as_str(), made.metadata.order_id), (1999, "USD", Some(order(1).0)));
    let asked = fake.asked();
    assert_eq!(asked[0].header("idempotency-key"), "key-1");
    assert_eq!(pairs(&asked[0].body)["automatic_payment_methods[enabled]"], "true");
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_under_the_same_key() {
    let fake = fake().await;
    fake.will([Trouble::Lost, Trouble::Lost]);
    let created = stripe_of(&fake).create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    assert!(created.is_replay);
    assert_eq!(fake.simulated.provider.payments().0, 1);
    assert!(fake.asked().iter().all(|asked| asked.header("idempotency-key") == "key-1"));
}

#[tokio::test]
async fn a_call_that_was_given_up_is_found_by_the_next_one() {
    let fake = fake().await;
    fake.will([Trouble::Hang, Trouble::Hang, Trouble::Hang]);
    let limits = Limits { deadlines: Deadlines { whole: SHORT, ..FAST.deadlines }, ..FAST };
    assert!(
        stripe_with(&fake, limits).create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap_err().is_transient()
    );
    let created = stripe_of(&fake).create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    assert!(created.is_replay);
}

#[tokio::test]
async fn a_key_that_failed_once_is_burnt() {
    let fake = fake().await;
    let fails = plain_client().build().unwrap().post(format!("{}/faults", fake.simulated.base)).json(&["fail"]);
    assert_eq!(fails.send().await.unwrap().status(), 204);
    let providers = stripe_of(&fake);
    for tries in [2, 3] {
        let burnt = providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap_err();
        assert!(
            matches!(&burnt, CallError::Burnt { detail } if detail.contains("An unknown error occurred")),
            "{burnt:?}"
        );
        assert!(!burnt.is_transient());
        // The first failure may be a temporary fault. A replayed failure is not tried again.
        assert_eq!(fake.asked().len(), tries);
    }
    assert_eq!(fake.simulated.provider.payments().0, 0);
}

#[tokio::test]
async fn a_key_serves_one_order() {
    let fake = fake().await;
    let providers = stripe_of(&fake);
    providers.create(&new(order(1)), "key-1", Retry::Backoff).await.unwrap();
    assert_eq!(providers.create(&new(order(2)), "key-1", Retry::Backoff).await, Err(CallError::KeyReused));
    let dearer = NewPayment { price: money(2000, "USD"), ..new(order(1)) };
    assert_eq!(providers.create(&dearer, "key-1", Retry::Backoff).await, Err(CallError::KeyReused));
    assert_eq!((fake.simulated.provider.payments().0, fake.asked().len()), (1, 3));
}

#[tokio::test]
async fn a_key_in_use_is_waited_for() {
    let fake = fake().await;
    fake.will([Trouble::Instead(error(409, "idempotency_error", Some("idempotency_key_in_use"), "In use."))]);
    assert!(stripe_of(&fake).create(&new(order(1)), "key-1", Retry::Backoff).await.is_ok());
}

#[tokio::test]
async fn amounts_are_in_stripes_unit_or_not_sent() {
    let fake = fake().await;
    let providers = stripe_of(&fake);
    for (number, (amount_minor, code, units)) in
        (1..).zip([(5, "ISK", 500), (50_000, "MGA", 500), (1000, "JPY", 1000), (1500, "KWD", 1500)])
    {
        let new = NewPayment { price: money(amount_minor, code), ..new(order(number)) };
        providers.create(&new, &format!("key-{number}"), Retry::Backoff).await.unwrap();
        let sent = pairs(&fake.asked().last().unwrap().body);
        assert_eq!((&sent["amount"], &sent["currency"]), (&units.to_string(), &code.to_ascii_lowercase()));
    }
    for price in [money(550, "MGA"), money(1, "IQD")] {
        let refused = providers.create(&NewPayment { price, ..new(order(9)) }, "key-9", Retry::Backoff).await;
        assert_eq!(refused, Err(CallError::Unsupported));
    }
    for key in ["", "a b", "a\r\nb", &"k".repeat(109)] {
        assert_eq!(providers.create(&new(order(9)), key, Retry::Backoff).await, Err(CallError::Unsupported), "{key:?}");
    }
    assert_eq!(fake.asked().len(), 4);
}

#[tokio::test]
async fn an_unknown_payment_is_nothing_and_a_wrong_address_is_not() {
    let fake = fake().await;
    let providers = stripe_of(&fake);
    for unknown in ["pi_none", "cs_none", "ch_none"] {
        assert_eq!(providers.fetch(&Provider::STRIPE, None, &id(unknown)).await, Ok(None), "{unknown}");
    }
    assert_eq!(fake.asked().len(), 3);
    // A text that is no id of Stripe's is not put into a path.
    for odd in ["pi_1/../../customers", "pi_1?expand=x", "pi 1", "pi_1%2f", ".."] {
        assert_eq!(providers.fetch(&Provider::STRIPE, None, &id(odd)).await, Ok(None), "{odd}");
    }
    assert_eq!(fake.asked().len(), 3);
    fake.will([Trouble::Instead(Told { status: 404, body: "<html>".to_owned(), ..Told::default() })]);
    let wrong = providers.fetch(&Provider::STRIPE, None, &id("pi_1")).await;
    assert!(matches!(wrong, Err(CallError::Refused { status: 404, .. })), "{wrong:?}");
}

#[tokio::test]
async fn payments_of_an_order_are_found_page_by_page() {
    let fake = fake().await;
    fake.world(|world| {
        world.page_max = Some(7);
        for number in 1..=40 {
            let owner = if [3, 21].contains(&number) { order(1) } else { order(1000 + number) };
            let mut made = intent(&format!("pi_{number}"), Some(owner));
            made["created"] = (CREATED + i64::try_from(number).unwrap()).into();
            world.intents.push(made);
        }
    });
    let providers = stripe_of(&fake);
    let found = providers.list_of_order(&Provider::STRIPE, None, order(1), at(CREATED)).await.unwrap();
    let ids: Vec<_> = found.iter().map(|found| found.payment_id.as_str()).collect();
    assert_eq!(ids, ["pi_21", "pi_3"]);
    assert!(found.iter().all(|found| found.order_id == Some(order(1))));
    let listed = fake.asked().iter().filter(|asked| asked.line == "GET /v1/payment_intents").count();
    assert_eq!(listed, 6, "40 payments, 7 a page");
    // The clocks of both sides may differ.
    assert_eq!(fake.asked()[0].query["created[gte]"], (CREATED - 600).to_string());
    let later = at(CREATED + 4 + 600);
    let found = providers.list_of_order(&Provider::STRIPE, None, order(1), later).await.unwrap();
    assert_eq!(found.len(), 1);
    let none = providers.list_of_order(&Provider::STRIPE, None, order(2), at(CREATED)).await.unwrap();
    assert!(none.is_empty());
}

/// A list without an end.
struct Endless(u64);

impl World for Endless {
    fn answer(&mut self, _asked: &Asked) -> Option<Told> {
        self.0 += 1;
        let data = [intent(&format!("pi_{}", self.0), Some(order(1000)))];
        Some(Told::json(200, &json!({"object": "list", "data": data, "has_more": true})))
    }
}

#[tokio::test]
async fn half_a_list_is_no_list() {
    let fake = Fake::start(Endless(0)).await;
    let found = stripe_of(&fake).list_of_order(&Provider::STRIPE, None, order(1), at(CREATED)).await;
    assert_eq!(found, Err(CallError::Odd { detail: "a list of more than 200 pages".to_owned() }));
    assert_eq!(fake.asked().len(), 200);
}

#[tokio::test]
async fn a_list_that_breaks_off_is_no_list() {
    let fake = fake().await;
    let page = json!({"object": "list", "data": [], "has_more": true});
    fake.will([Trouble::Instead(Told::json(200, &page))]);
    let found = stripe_of(&fake).list_of_order(&Provider::STRIPE, None, order(1), at(CREATED)).await;
    assert!(matches!(found, Err(CallError::Odd { .. })), "{found:?}");
}

#[tokio::test]
async fn what_belongs_to_a_connected_account_is_asked_for_there() {
    let fake = fake().await;
    let providers = stripe_of(&fake);
    let account = ProviderAccount::new("acct_1").unwrap();
    let theirs = NewPayment { account: Some(account.clone()), ..new(order(1)) };
    let made = providers.create(&theirs, "key-1", Retry::Backoff).await.unwrap().payment_id;
    providers.fetch(&Provider::STRIPE, Some(&account), &made).await.unwrap().unwrap();
    providers.list_of_order(&Provider::STRIPE, Some(&account), order(1), at(CREATED)).await.unwrap();
    assert!(fake.asked().len() >= 3);
    assert!(fake.asked().iter().all(|asked| asked.header("stripe-account") == "acct_1"));
    let asked_before = fake.asked().len();
    providers.fetch(&Provider::STRIPE, None, &made).await.unwrap();
    assert!(fake.asked()[asked_before..].iter().all(|asked| !asked.headers.contains_key("stripe-account")));

    let odd = ProviderAccount::new("acct 1").unwrap();
    let refused = providers.fetch(&Provider::STRIPE, Some(&odd), &id("pi_1")).await;
    assert_eq!(refused, Err(CallError::Unsupported));
    let at_paypal = NewPayment { account: Some(account), ..payment(Provider::PAYPAL, order(2)) };
    let paypals = paypal_of(&Fake::start(Paypal::default()).await);
    assert_eq!(paypals.create(&at_paypal, "key-2", Retry::Backoff).await, Err(CallError::Unsupported));
}

//! PayPal's token is fetched once, used while it is valid, and replaced afterwards.

use super::fake::{Fake, Told, Trouble};
use super::fake_paypal::{Paypal, order as told};
use super::*;
use futures_util::future::join_all;
use serde_json::json;

async fn fake(world: Paypal) -> Fake<Paypal> {
    let order = told("O1", "CREATED", order(1), &json!({}));
    Fake::start(Paypal { orders: [("O1".to_owned(), order)].into(), ..world }).await
}

async fn ask(providers: &Providers) -> Result<Option<Found>, CallError> {
    providers.fetch(&Provider::PAYPAL, None, &id("O1")).await
}

fn tokens(fake: &Fake<Paypal>) -> usize {
    fake.world(|world| world.tokens)
}

#[tokio::test]
async fn many_calls_at_once_ask_for_one_token() {
    let fake = fake(Paypal::default()).await;
    let providers = paypal_of(&fake);
    for found in join_all((0..20).map(|_| ask(&providers))).await {
        assert!(found.unwrap().is_some());
    }
    assert!(ask(&providers.clone()).await.unwrap().is_some(), "a clone shares the token");
    assert_eq!((tokens(&fake), fake.asked().len()), (1, 22));
}

#[tokio::test]
async fn a_token_that_is_refused_is_replaced_once_for_all() {
    let fake = fake(Paypal::default()).await;
    let providers = paypal_of(&fake);
    ask(&providers).await.unwrap();
    // The token was revoked, and another one is valid now.
    fake.world(|world| world.tokens += 1);
    for found in join_all((0..10).map(|_| ask(&providers))).await {
        assert!(found.unwrap().is_some());
    }
    assert_eq!(tokens(&fake), 3);
    // The new token is refused as well, so this is the answer.
    let refused = || Trouble::Instead(Told::json(401, &json!({"name": "AUTHENTICATION_FAILURE"})));
    fake.will([refused(), refused()]);
    assert!(matches!(ask(&providers).await, Err(CallError::Refused { status: 401, .. })));
    assert_eq!(tokens(&fake), 4);
}

#[tokio::test]
async fn a_payment_is_made_once_although_the_token_was_refused() {
    let fake = fake(Paypal::default()).await;
    let providers = paypal_of(&fake);
    ask(&providers).await.unwrap();
    fake.world(|world| world.tokens += 1);
    let created = providers.create(&payment(Provider::PAYPAL, order(2)), "key-1", Retry::Backoff).await.unwrap();
    assert!(!created.is_replay);
    assert_eq!(fake.simulated.provider.payments().0, 1);
}

#[tokio::test]
async fn a_token_is_used_until_shortly_before_its_end() {
    // A token is used until shortly before its end, and at least for half of its time. A token of zero seconds serves one call.
    for (seconds, expected) in [(0, 3), (3600, 1), (i64::MAX, 1)] {
        let fake = fake(Paypal { token_seconds: seconds, ..Paypal::default() }).await;
        let providers = paypal_of(&fake);
        for _ in 0..3 {
            ask(&providers).await.unwrap();
        }
        assert_eq!(tokens(&fake), expected, "{seconds}");
    }
    let fake = fake(Paypal { token_seconds: -1, ..Paypal::default() }).await;
    assert!(matches!(ask(&paypal_of(&fake)).await, Err(CallError::Odd { .. })));
}

#[tokio::test]
async fn trouble_with_the_token_is_trouble_with_the_call() {
    let fake = fake(Paypal { is_token_frail: true, ..Paypal::default() }).await;
    let busy = || Trouble::Instead(Told { status: 503, ..Told::default() });
    let providers = paypal_of(&fake);
    fake.will([busy(), busy()]);
    assert!(ask(&providers).await.unwrap().is_some(), "the third try gets a token");
    let fake_without = Paypal { is_token_frail: true, ..Paypal::default() };
    let fake = super::fake::Fake::start(fake_without).await;
    fake.will([busy(), busy(), busy()]);
    assert!(ask(&paypal_of(&fake)).await.unwrap_err().is_transient());
    assert_eq!(fake.lines(), ["POST /v1/oauth2/token"; 3]);
}

#[tokio::test]
async fn whoever_waits_for_a_token_of_anothers_asking_has_his_own_deadline() {
    let fake = fake(Paypal { is_token_frail: true, ..Paypal::default() }).await;
    fake.will((0..3).map(|_| Trouble::Hang));
    let deadlines = Deadlines { whole: SHORT, ..FAST.deadlines };
    let patience = Patience { tries_max: 1, ..FAST.patience };
    let providers = paypal_with(&fake, Limits { deadlines, patience });
    let began_at = tokio::time::Instant::now();
    let (first, second, third) = tokio::join!(ask(&providers), ask(&providers), ask(&providers));
    for late in [first, second, third] {
        assert!(late.unwrap_err().is_transient());
    }
    assert!(began_at.elapsed() < 3 * SHORT, "the calls wait at the same time, not one after the other");
}

#[tokio::test]
async fn wrong_credentials_are_refused_and_shown_nowhere() {
    let fake = fake(Paypal::default()).await;
    let settings = PaypalSettings {
        client_secret: crate::followed::Followed::new("other-secret".into()),
        ..at_paypal(&fake.base)
    };
    let wrong = Providers::with_limits(None, Some(settings.clone()), FAST).unwrap();
    let error = ask(&wrong).await.unwrap_err();
    assert!(matches!(error, CallError::Refused { status: 401, .. }), "{error:?}");
    assert!(error.to_string().contains("Basic ***"), "{error}");
    for shown in [format!("{error:?}"), format!("{wrong:?}"), format!("{settings:?}")] {
        assert!(!shown.contains("other-secret") && !shown.contains("b3RoZXItc2VjcmV0"), "{shown}");
    }
    assert_eq!(fake.asked().len(), 1);
    // If a server repeats the token in an error, the token is not shown either.
    let thrown = Told::json(400, &json!({"name": "BAD", "message": "you said token-1"}));
    fake.will([Trouble::Instead(thrown)]);
    let error = ask(&paypal_of(&fake)).await.unwrap_err().to_string();
    assert!(error.contains("you said ***"), "{error}");
}

//! The provider with a receiver that works correctly.

use super::*;
use crate::fake::{Fake, Fault, STANDARD_SECRET, STRIPE_SECRET};
use crate::provider::courier::Secrets;
use crate::provider::payment::{Outcome, Said, money};
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);

async fn provider(fault: Fault, copies: u32) -> (Provider, Fake) {
    let (fake, base) = Fake::start(fault).await;
    let secrets = Secrets { stripe: STRIPE_SECRET.to_owned(), standard: STANDARD_SECRET.to_owned() };
    let courier = Courier::new(base, secrets, SOON).unwrap();
    let settings = Settings { seed: 1, copies, run: "test".to_owned(), is_faulty: false };
    (Provider::new(settings, courier, CancellationToken::new()), fake)
}

fn client() -> reqwest::Client {
    crate::http::plain_client().build().unwrap()
}

/// Serves the provider, and returns its address.
async fn listening(provider: &Provider) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let router = http::router(provider.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    base
}

#[tokio::test]
async fn a_paid_payment_is_reported_as_often_as_asked() {
    let (provider, fake) = provider(Fault::None, 4).await;
    let money = money(1999, "EUR").unwrap();
    let id = provider.create(Seller::Standard, money, None, Some(3)).unwrap().id;
    assert!(!provider.is_heard(&id, Duration::ZERO).await.unwrap(), "the payment is not paid");
    provider.pay(&id, Outcome::Succeeded).unwrap();
    assert!(provider.is_heard(&id, SOON).await.unwrap());
    assert!(provider.is_idle(SOON).await);
    let counts = provider.counts();
    assert_eq!(counts.sent % 4, 0);
    assert_eq!((counts.accepted, counts.duplicates), (counts.sent, counts.sent / 4 * 3));
    assert_eq!(fake.webhooks(), counts.sent);
    let webhooks = provider.payment(&id).unwrap().webhooks;
    assert_eq!((webhooks.sent, webhooks.accepted), (counts.sent, counts.sent));
    assert!(webhooks.paid_sent_at.is_some());
    assert_eq!(provider.pay(&id, Outcome::Failed), Err(ProviderError::PaidAlready(id.clone())));

    let event = provider.report_once_more(&id).await.unwrap().unwrap();
    assert!(event.starts_with("msg_"), "{event}");
    let replayed = provider.replay(&id, 5, true).await.unwrap();
    assert_eq!(replayed, Replayed { sent: 5, accepted: 5 });
    assert_eq!(fake.webhooks(), counts.sent + 6);
    assert_eq!(provider.replay(&id, 0, true).await, Err(ProviderError::BadTimes));
}

#[tokio::test]
async fn a_receiver_that_is_down_now_and_then_gets_all_of_it_in_the_end() {
    let (provider, fake) = provider(Fault::Flaky, 3).await;
    for _ in 0..10 {
        let id = provider.create(Seller::Stripe, money(5, "JPY").unwrap(), None, None).unwrap().id;
        provider.pay(&id, Outcome::Failed).unwrap();
        provider.pay(&id, Outcome::Succeeded).unwrap();
    }
    assert!(provider.is_idle(SOON).await);
    let counts = provider.counts();
    assert_eq!((counts.accepted, counts.given_up), (counts.sent, 0));
    assert!(counts.retries > 0);
    assert_eq!(fake.webhooks(), counts.sent);
    assert_eq!(provider.payments(), (10, 10));
}

#[tokio::test]
async fn money_goes_back_no_further_than_it_came() {
    let (provider, fake) = provider(Fault::None, 2).await;
    let id = provider.create(Seller::Stripe, money(1999, "USD").unwrap(), None, None).unwrap().id;
    let nothing = || ProviderError::NothingLeft(id.clone());
    assert_eq!(provider.refund(&id, None), Err(nothing()), "the payment is not paid");
    assert_eq!(provider.dispute(&id), Err(nothing()));
    assert_eq!(provider.pay(&id, Outcome::Succeeded).unwrap().kept_minor, 1999);
    assert_eq!(provider.refund(&id, Some(2000)), Err(ProviderError::BadAmount(id.clone())));
    assert_eq!(provider.refund(&id, Some(0)), Err(ProviderError::BadAmount(id.clone())));
    assert_eq!(provider.refund(&id, Some(999)).unwrap().kept_minor, 1000);
    assert_eq!(provider.dispute(&id).unwrap().kept_minor, 0);
    assert_eq!(provider.refund(&id, Some(1)), Err(nothing()), "the rest is disputed");
    assert_eq!(provider.close_dispute(&id, true).unwrap().kept_minor, 1000);
    assert_eq!(provider.close_dispute(&id, true), Err(ProviderError::NoDispute(id.clone())));
    assert_eq!(provider.fail_refund(&id).unwrap().kept_minor, 1999);
    assert_eq!(provider.fail_refund(&id), Err(ProviderError::NoRefund(id.clone())));
    assert_eq!(provider.refund(&id, None).unwrap().kept_minor, 0);
    assert!(provider.is_idle(SOON).await);
    let kinds: Vec<_> = provider.told(&id).unwrap().iter().map(|told| (told.kind, told.sent, told.accepted)).collect();
    for kind in [
        "payment_intent.succeeded",
        "refund.created",
        "charge.refunded",
        "charge.dispute.created",
        "charge.dispute.funds_withdrawn",
        "charge.dispute.funds_reinstated",
        "charge.dispute.closed",
        "refund.failed",
    ] {
        assert!(kinds.contains(&(kind, 2, 2)), "{kind} in {kinds:?}");
    }
    assert_eq!(fake.webhooks(), provider.counts().sent);
    let given_up = provider.create(Seller::Stripe, money(1, "USD").unwrap(), None, None).unwrap().id;
    provider.pay(&given_up, Outcome::Canceled).unwrap();
    assert_eq!(provider.pay(&given_up, Outcome::Succeeded), Err(ProviderError::Over(given_up.clone())));
}

#[tokio::test]
async fn what_is_dropped_is_never_sent() {
    let (provider, fake) = provider(Fault::None, 3).await;
    let new = || provider.create(Seller::Stripe, money(5, "USD").unwrap(), None, None).unwrap().id;
    let silent = new();
    provider.silence(&silent).unwrap();
    provider.pay(&silent, Outcome::Succeeded).unwrap();
    provider.refund(&silent, None).unwrap();
    assert!(provider.is_idle(SOON).await);
    let told = provider.told(&silent).unwrap();
    assert!(told.iter().all(|told| told.is_dropped && told.sent == 0), "{told:?}");
    assert!(told.iter().any(|told| told.said == Said::Succeeded));
    let counts = provider.counts();
    assert_eq!((counts.sent, counts.dropped), (0, 3 * told.len() as u64));
    assert_eq!(provider.replay(&silent, 5, true).await, Err(ProviderError::NothingToReplay(silent.clone())));

    // Only the webhooks of the next action are dropped. Later ones are sent.
    let id = new();
    provider.drop_next(&id).unwrap();
    provider.pay(&id, Outcome::Succeeded).unwrap();
    provider.refund(&id, None).unwrap();
    assert!(provider.is_idle(SOON).await);
    let sent: Vec<_> = provider.told(&id).unwrap().into_iter().filter(|told| !told.is_dropped).collect();
    assert_eq!(sent.iter().map(|told| told.kind).collect::<Vec<_>>(), ["refund.created", "charge.refunded"]);
    assert_eq!((provider.counts().sent, fake.webhooks()), (6, 6));
}

#[tokio::test]
async fn after_the_shutdown_nothing_is_under_way() {
    let (fake, base) = Fake::start(Fault::None).await;
    let secrets = Secrets { stripe: "wrong".to_owned(), standard: "wrong".to_owned() };
    let shutdown = CancellationToken::new();
    let settings = Settings { seed: 1, copies: 50, run: "test".to_owned(), is_faulty: false };
    let provider = Provider::new(settings, Courier::new(base, secrets, SOON).unwrap(), shutdown.clone());
    let id = provider.create(Seller::Stripe, money(5, "USD").unwrap(), None, None).unwrap().id;
    provider.pay(&id, Outcome::Succeeded).unwrap();
    shutdown.cancel();
    assert!(provider.is_idle(SOON).await);
    assert_eq!((provider.counts().accepted, fake.webhooks()), (0, 0));
}

#[tokio::test]
async fn the_http_api_does_what_its_page_says() {
    let (provider, fake) = provider(Fault::None, 2).await;
    let base = listening(&provider).await;
    let client = client();
    let call = |path: String, body: Value| {
        let call = client.post(format!("{base}{path}")).json(&body);
        async move {
            let answer = call.send().await.unwrap();
            (answer.status().as_u16(), answer.json::<Value>().await.unwrap_or_default())
        }
    };
    let order_id = "01890a5d-ac96-774b-bcce-b302099a8057";
    let new = json!({"provider": "stripe", "amount_minor": 1999, "currency": "USD"});
    let (status, payment) = call("/payments".to_owned(), new).await;
    assert_eq!((status, &payment["status"]), (201, &json!("awaiting_payment")));
    let id = payment["id"].as_str().unwrap().to_owned();
    assert_eq!(call(format!("/payments/{id}/replay"), json!(null)).await.0, 409, "nothing to replay yet");
    let (status, payment) = call(format!("/payments/{id}"), json!({"metadata": {"order_id": order_id}})).await;
    assert_eq!((status, &payment["metadata"]["order_id"]), (200, &json!(order_id)));
    let (status, payment) = call(format!("/payments/{id}/pay"), json!({"outcome": "canceled"})).await;
    assert_eq!((status, &payment["status"]), (202, &json!("canceled")));
    assert_eq!(call(format!("/payments/{id}/pay"), json!({"outcome": "stolen"})).await.0, 422);
    assert_eq!(call("/payments/pi_x/pay".to_owned(), json!({"outcome": "failed"})).await.0, 404);
    let bad = json!({"provider": "stripe", "amount_minor": 1, "currency": "usd"});
    assert_eq!(call("/payments".to_owned(), bad).await.0, 422);

    let other = call("/payments".to_owned(), json!({"provider": "standard", "amount": 5, "currency": "EUR"})).await.1;
    let other = other["id"].as_str().unwrap().to_owned();
    assert_eq!(call(format!("/payments/{other}/pay"), json!({"outcome": "succeeded"})).await.0, 202);
    let before = fake.webhooks();
    let (status, replayed) = call(format!("/payments/{other}/replay?times=7&parallel=true"), json!(null)).await;
    assert_eq!((status, replayed), (200, json!({"sent": 7, "accepted": 7})));
    assert!(fake.webhooks() >= before + 7);
    let (status, refunded) = call(format!("/payments/{other}/refund"), json!({"amount_minor": 2})).await;
    assert_eq!((status, &refunded["kept_minor"]), (202, &json!(3)));
    assert_eq!(call(format!("/payments/{other}/refund/fail"), json!(null)).await.1["kept_minor"], 5);
    assert_eq!(call(format!("/payments/{other}/refund"), json!({"amount_minor": 6})).await.0, 422);
    assert_eq!(call(format!("/payments/{other}/dispute"), json!(null)).await.1["kept_minor"], 0);
    assert_eq!(call(format!("/payments/{other}/dispute/close"), json!({"won": false})).await.1["kept_minor"], 0);
    assert_eq!(call(format!("/payments/{other}/dispute"), json!(null)).await.0, 409);
    assert_eq!(call(format!("/payments/{other}/silence"), json!(null)).await.0, 200);
    assert_eq!(call(format!("/payments/{other}/drop-next"), json!(null)).await.0, 200);
    let page = client.get(&base).send().await.unwrap().text().await.unwrap();
    assert!(page.contains(&id) && page.contains("2 payments, 1 of them paid"), "{page}");
    let shown: Value = client.get(format!("{base}/payments/{id}")).send().await.unwrap().json().await.unwrap();
    assert_eq!(shown["id"], id.as_str());
}

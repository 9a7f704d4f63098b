//! The run against a system that is right, and against wrong ones: it must tell them apart.

use super::*;
use crate::audit::{Findings, audit, settle};
use grantonce_testkit::fake::{Fake, Fault, STANDARD_SECRET, STRIPE_SECRET, TOKEN};
use grantonce_testkit::provider::Settings;
use grantonce_testkit::provider::courier::{Courier, Secrets};
use tokio_util::sync::CancellationToken;

const ORDERS: u32 = 150;

async fn run(fault: Fault, fulfil: Duration) -> (Sales, Findings, Provider) {
    let (_fake, base) = Fake::start(fault).await;
    let secrets = Secrets { stripe: STRIPE_SECRET.to_owned(), standard: STANDARD_SECRET.to_owned() };
    let courier = Courier::new(base.clone(), secrets, Duration::from_secs(60)).unwrap();
    let settings = Settings { seed: 11, copies: 3, run: "test".to_owned(), is_faulty: false };
    let provider = Provider::new(settings, courier, CancellationToken::new());
    let api = Api::new(base, TOKEN.to_owned()).unwrap();
    let deadlines = Deadlines { fulfil, ..Deadlines::DEMO };
    let shop = Shop {
        provider: &provider,
        api: &api,
        deadlines,
        seed: 11,
        orders: ORDERS,
        silence: 0.0,
        can_create: false,
        pace: None,
    };
    let sales = shop.sell(&ProgressBar::hidden()).await;
    let remarks = settle(&provider, None, &sales, Duration::ZERO).await;
    assert_eq!(remarks, Vec::<String>::new());
    let findings = audit(&api, None, &sales.sold).await;
    (sales, findings, provider)
}

#[tokio::test]
async fn a_right_system_has_no_fault() {
    let (sales, findings, provider) = run(Fault::None, Duration::from_secs(60)).await;
    assert_eq!(findings.remarks, Vec::<String>::new());
    let paid = sales.sold.iter().filter(|sold| sold.is_paid).count();
    assert!((100..150).contains(&paid), "{paid}");
    assert_eq!(findings.grants, paid as u64);
    assert_eq!(sales.sold.iter().filter(|sold| sold.is_fulfilled && sold.latency.is_some()).count(), paid);
    assert!(sales.last_overtaken_at.is_some());
    let counts = provider.counts();
    assert_eq!(counts.sent, counts.accepted);
    assert_eq!(counts.duplicates, counts.sent / 3 * 2);
}

#[tokio::test]
async fn one_that_is_down_now_and_then_has_none_either() {
    let (sales, findings, _) = run(Fault::Flaky, Duration::from_secs(60)).await;
    assert_eq!(findings.remarks, Vec::<String>::new());
    assert_eq!(sales.sold.len(), ORDERS as usize);
}

#[tokio::test]
async fn two_grants_for_two_events_are_doubled() {
    let (_, findings, _) = run(Fault::GrantsPerEvent, Duration::from_secs(60)).await;
    assert!(findings.doubled > 5, "{findings:?}");
    assert_eq!((findings.lost, findings.invented), (0, 0));
}

#[tokio::test]
async fn credits_for_a_failed_payment_are_found() {
    let (_, findings, _) = run(Fault::GrantsFailures, Duration::from_secs(60)).await;
    assert!(findings.doubled + findings.invented > 0, "{findings:?}");
    assert_eq!(findings.lost, 0);
}

#[tokio::test]
async fn webhooks_that_came_too_early_and_are_forgotten_are_lost() {
    let (sales, findings, _) = run(Fault::ForgetsEarly, Duration::from_secs(8)).await;
    assert!(findings.lost > 5, "{findings:?}");
    assert_eq!((findings.doubled, findings.invented), (0, 0));
    let unfinished: Vec<_> = sales.sold.iter().filter(|sold| sold.unfinished.is_some()).collect();
    assert_eq!(findings.lost, unfinished.len() as u64);
    assert!(unfinished.iter().all(|sold| sold.plan.is_overtaken));
    assert!(findings.remarks[0].contains("not fulfilled"), "{}", findings.remarks[0]);
}

#[tokio::test]
async fn a_system_that_is_not_there_does_not_keep_us_for_ever() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let secrets = Secrets { stripe: STRIPE_SECRET.to_owned(), standard: STANDARD_SECRET.to_owned() };
    let patience = Duration::from_millis(100);
    let courier = Courier::new(base.clone(), secrets, patience).unwrap();
    let settings = Settings { seed: 1, copies: 1, run: "test".to_owned(), is_faulty: false };
    let provider = Provider::new(settings, courier, CancellationToken::new());
    let api = Api::new(base, TOKEN.to_owned()).unwrap();
    let deadlines = Deadlines { place: patience, fulfil: patience, unfinished_max: 100 };
    let shop = Shop {
        provider: &provider,
        api: &api,
        deadlines,
        seed: 1,
        orders: 100_000,
        silence: 0.0,
        can_create: false,
        pace: None,
    };
    let sales = shop.sell(&ProgressBar::hidden()).await;
    let untried = |sold: &&Sold| matches!(sold.unfinished, Some(Unfinished::NotTried));
    assert_eq!(sales.sold.iter().filter(|sold| sold.unfinished.is_some()).count(), 100_000);
    assert!(sales.sold.iter().filter(untried).count() > 99_000);
    let told = sales.sold.iter().find(|sold| !untried(sold)).unwrap().unfinished.as_ref().unwrap().to_string();
    assert!(told.contains("refused"), "{told}");
}

#[tokio::test]
async fn a_pace_sells_no_order_before_its_time_and_none_before_its_payment() {
    let (_fake, base) = Fake::start(Fault::None).await;
    let secrets = Secrets { stripe: STRIPE_SECRET.to_owned(), standard: STANDARD_SECRET.to_owned() };
    let courier = Courier::new(base.clone(), secrets, Duration::from_secs(60)).unwrap();
    let settings = Settings { seed: 12, copies: 1, run: "test".to_owned(), is_faulty: false };
    let provider = Provider::new(settings, courier, CancellationToken::new());
    let api = Api::new(base, TOKEN.to_owned()).unwrap();
    let (deadlines, pace) = (Deadlines::DEMO, Some(Duration::from_millis(20)));
    let shop =
        Shop { provider: &provider, api: &api, deadlines, seed: 12, orders: 30, silence: 0.0, can_create: false, pace };
    let sales = shop.sell(&ProgressBar::hidden()).await;
    assert!(sales.elapsed >= Duration::from_millis(29 * 20), "{:?}", sales.elapsed);
    assert!(sales.last_overtaken_at.is_none());
    assert!(sales.sold.iter().all(|sold| sold.unfinished.is_none()), "{:?}", sales.sold);
}

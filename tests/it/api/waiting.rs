//! Waiting for an order.

use super::server::{Answer, Api, NOW, failed, paid};
use grantonce::domain::OrderId;
use grantonce::store::ChangedOrders;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Longer than each of these tests. So such a wait never ends by its deadline.
const LONG: &str = "wait=30";

/// A waiting request, and how long it took.
fn waiting(api: &Arc<Api>, id: OrderId, query: &str) -> JoinHandle<(Answer, Duration)> {
    let (api, path) = (Arc::clone(api), format!("/v1/orders/{id}?{query}"));
    tokio::spawn(async move {
        let began = Instant::now();
        (api.get(&path).await, began.elapsed())
    })
}

async fn end(api: Arc<Api>) {
    Arc::into_inner(api).unwrap().end().await;
}

#[tokio::test]
async fn a_settled_order_answers_at_once() {
    let api = Arc::new(Api::start().await);
    let id = api.order("pi_1").await;
    api.apply(NOW, vec![paid("pi_1")]).await;
    for query in [LONG, "wait=30&since=1", "wait=0", "wait=0&since=7", "since=7", ""] {
        let (answer, took) = waiting(&api, id, query).await.unwrap();
        assert_eq!((answer.status, answer.field("status")), (200, "fulfilled".into()), "{query}");
        assert!(took < Duration::from_secs(10), "{query}: {took:?}");
    }
    end(api).await;
}

#[tokio::test]
async fn an_order_that_is_not_there_is_not_waited_for() {
    let api = Arc::new(Api::start().await);
    let (answer, took) = waiting(&api, OrderId(uuid::Uuid::now_v7()), LONG).await.unwrap();
    assert_eq!(answer.status, 404);
    assert!(took < Duration::from_secs(10), "{took:?}");
    end(api).await;
}

#[tokio::test]
async fn announced_changes_wake_whoever_waits() {
    announced_changes_wake(Api::start().await).await;
}

pub(crate) async fn announced_changes_wake(api: Api) {
    // The watch queries once a second. Ten rounds that were all woken by such a query would take about ten seconds.
    const ROUNDS: usize = 10;
    let api = Arc::new(api);
    let changed = ChangedOrders::announce_through(api.worker.clone());
    let mut in_all = Duration::ZERO;
    for round in 0..ROUNDS {
        let payment = format!("pi_{round}");
        let id = api.order(&payment).await;
        let by_version = waiting(&api, id, "wait=30&since=1");
        let by_status = waiting(&api, id, LONG);
        api.until_waiting(2).await;
        let began = Instant::now();
        changed.announce(api.apply(NOW, vec![paid(&payment)]).await);
        for waiting in [by_version, by_status] {
            let (answer, _) = waiting.await.unwrap();
            assert_eq!((answer.status, answer.field("status")), (200, "fulfilled".into()));
            assert_eq!(answer.field("version"), 2);
        }
        in_all += began.elapsed();
        api.until_waiting(0).await;
    }
    assert!(in_all < Duration::from_secs(ROUNDS as u64 / 2), "{in_all:?}");
    end(api).await;
}

#[tokio::test]
async fn a_change_wakes_whoever_waits_also_when_its_announcement_is_lost() {
    let api = Arc::new(Api::start().await);
    let id = api.order("pi_1").await;
    let by_version = waiting(&api, id, "wait=30&since=1");
    let by_status = waiting(&api, id, LONG);
    api.until_waiting(2).await;
    api.apply(NOW, vec![paid("pi_1")]).await;
    for waiting in [by_version, by_status] {
        let (answer, took) = waiting.await.unwrap();
        assert_eq!(answer.field("status"), "fulfilled");
        assert!(took < Duration::from_secs(15), "{took:?}");
    }
    end(api).await;
}

#[tokio::test]
async fn who_waits_is_answered_after_all_connections_to_postgres_were_cut() {
    let api = Arc::new(Api::start().await);
    let id = api.order("pi_1").await;
    let by_version = waiting(&api, id, "wait=30&since=1");
    let by_status = waiting(&api, id, LONG);
    api.until_waiting(2).await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'grantonce'";
    api.db.execute(cut).await;
    api.apply(NOW, vec![paid("pi_1")]).await;
    for waiting in [by_version, by_status] {
        let (answer, took) = waiting.await.unwrap();
        assert_eq!((answer.status, answer.field("status")), (200, "fulfilled".into()), "{}", answer.text);
        assert!(took < Duration::from_secs(15), "{took:?}");
    }
    end(api).await;
}

#[tokio::test]
async fn each_waits_for_its_own_news() {
    let api = Arc::new(Api::start().await);
    let id = api.order("pi_1").await;
    let for_version_2 = waiting(&api, id, "wait=30&since=1");
    let for_version_3 = waiting(&api, id, "wait=30&since=2");
    let for_the_outcome = waiting(&api, id, LONG);
    api.until_waiting(3).await;
    api.apply(NOW, vec![failed("pi_1", "declined")]).await;
    let (answer, _) = for_version_2.await.unwrap();
    assert_eq!((answer.field("version"), answer.field("status")), (2.into(), "awaiting_payment".into()));
    // A failed attempt is no outcome, and version 2 is not new to a reader that knows it.
    api.until_waiting(2).await;
    assert!(!for_version_3.is_finished() && !for_the_outcome.is_finished());
    api.apply(NOW, vec![paid("pi_1")]).await;
    for waiting in [for_version_3, for_the_outcome] {
        let (answer, _) = waiting.await.unwrap();
        assert_eq!((answer.field("version"), answer.field("status")), (3.into(), "fulfilled".into()));
    }
    end(api).await;
}

#[tokio::test]
async fn a_wait_ends_at_its_deadline() {
    let api = Arc::new(Api::start().await);
    let id = api.order("pi_1").await;
    let (answer, took) = waiting(&api, id, "wait=1&since=1").await.unwrap();
    assert_eq!((answer.status, answer.field("version")), (200, 1.into()));
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    end(api).await;
}

#[tokio::test]
async fn whoever_waits_is_answered_when_the_process_stops() {
    let api = Arc::new(Api::start().await);
    let id = api.order("pi_1").await;
    let waiting: Vec<_> = (0..20).map(|_| waiting(&api, id, "wait=30&since=1")).collect();
    api.until_waiting(20).await;
    api.stop.cancel();
    for waiting in waiting {
        let (answer, took) = waiting.await.unwrap();
        assert_eq!((answer.status, answer.field("version")), (200, 1.into()));
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    end(api).await;
}

#[tokio::test]
async fn who_goes_away_waits_no_longer() {
    let api = Arc::new(Api::start().await);
    let id = api.order("pi_1").await;
    let gone = waiting(&api, id, LONG);
    api.until_waiting(1).await;
    gone.abort();
    api.until_waiting(0).await;
    let _ = gone.await;
    end(api).await;
}

//! PayPal: the disputes of a payment's captures.

use super::fake::{Fake, Told, Trouble};
use super::fake_paypal::{Paypal, capture, error, order as told};
use super::*;
use crate::domain::{DisputeState, FactId};
use serde_json::{Value, json};
use std::io;
use std::sync::Mutex;

/// An order that was paid by these captures. The first capture has these disputes.
async fn paid(captures: &[&str], disputes: Vec<Value>) -> Fake<Paypal> {
    let made: Vec<_> = captures.iter().map(|id| capture(id, "COMPLETED", "O1")).collect();
    let world = Paypal {
        orders: [("O1".to_owned(), told("O1", "COMPLETED", order(1), &json!({"captures": made})))].into(),
        disputes: [(captures[0].to_owned(), disputes)].into(),
        ..Paypal::default()
    };
    Fake::start(world).await
}

/// Everything about a payment, or the error of PayPal. With an error, the rest of the payment is still there.
async fn fetch(providers: &Providers) -> Result<Found, CallError> {
    let found = providers.fetch(&Provider::PAYPAL, None, &id("O1")).await?.unwrap();
    assert_eq!(found.state, PaymentState::Paid);
    assert!(found.statuses.iter().any(|status| matches!(status, PaymentStatus::Captured { .. })), "{found:?}");
    match &found.incomplete {
        Some(error) => Err(error.clone()),
        None => Ok(found),
    }
}

fn listed(id: &str, status: &str, stage: &str) -> Value {
    json!({"dispute_id": id, "status": status, "dispute_life_cycle_stage": stage, "reason": "UNAUTHORISED",
        "dispute_amount": {"currency_code": "USD", "value": "5.00"},
        "create_time": "2026-01-07T08:00:00.000Z", "update_time": "2026-01-07T09:30:00.000+01:00"})
}

fn dispute(id: &str, state: DisputeState) -> PaymentStatus {
    PaymentStatus::Dispute { dispute_id: FactId::new(id).unwrap(), state, round: 1, money: money(500, "USD") }
}

fn disputes(found: &Found) -> Vec<PaymentStatus> {
    let is_dispute = |status: &&PaymentStatus| matches!(status, PaymentStatus::Dispute { .. });
    found.statuses.iter().filter(is_dispute).cloned().collect()
}

#[tokio::test]
async fn a_dispute_holds_while_it_is_open_and_no_longer() {
    use DisputeState::{Inquiry, Open, Won};
    let rows = [
        ("OPEN", "INQUIRY", Inquiry),
        ("WAITING_FOR_BUYER_RESPONSE", "INQUIRY", Inquiry),
        ("WAITING_FOR_SELLER_RESPONSE", "INQUIRY", Inquiry),
        ("OPEN", "CHARGEBACK", Open),
        ("WAITING_FOR_BUYER_RESPONSE", "CHARGEBACK", Open),
        ("WAITING_FOR_SELLER_RESPONSE", "CHARGEBACK", Open),
        ("UNDER_REVIEW", "CHARGEBACK", Open),
        ("UNDER_REVIEW", "PRE_ARBITRATION", Open),
        ("UNDER_REVIEW", "ARBITRATION", Open),
        ("OTHER", "CHARGEBACK", Open),
        ("WHAT_PAYPAL_MAY_ADD", "CHARGEBACK", Open),
        ("RESOLVED", "INQUIRY", Won),
        ("RESOLVED", "CHARGEBACK", Won),
        ("RESOLVED", "ARBITRATION", Won),
    ];
    let mut all: Vec<_> =
        rows.iter().map(|(status, stage, _)| listed(&format!("PP-{status}-{stage}"), status, stage)).collect();
    // A dispute without a stage counts as more than an inquiry.
    let mut bare = listed("PP-BARE", "OPEN", "INQUIRY");
    bare["dispute_life_cycle_stage"] = json!(null);
    all.push(bare);
    let fake = paid(&["C1"], all).await;
    let providers = paypal_of(&fake);
    let found = fetch(&providers).await.unwrap();
    let expected = rows.iter().map(|(status, stage, state)| dispute(&format!("PP-{status}-{stage}"), *state));
    assert_eq!(disputes(&found), expected.chain([dispute("PP-BARE", Open)]).collect::<Vec<_>>());
    assert_eq!((found.state, found.statuses.len()), (PaymentState::Paid, 1 + rows.len() + 1));
    assert_eq!(found.occurred_at, time::macros::datetime!(2026-01-07 08:30 UTC), "the latest time of all");
    assert_eq!(fetch(&providers).await.unwrap(), found, "nothing is new, so the answer is the same");
    let asked = fake.asked().pop().unwrap();
    assert_eq!(
        (asked.line.as_str(), asked.query["disputed_transaction_id"].as_str()),
        ("GET /v1/customer/disputes", "C1")
    );
}

#[tokio::test]
async fn where_no_money_came_in_nobody_is_asked() {
    let one = |status: &str| json!({"captures": [capture("C1", status, "O1")]});
    for (status, payments, is_asked) in [
        ("CREATED", json!({}), false),
        ("APPROVED", json!({}), false),
        ("VOIDED", json!({}), false),
        ("COMPLETED", one("PENDING"), false),
        ("COMPLETED", one("DECLINED"), false),
        ("COMPLETED", one("COMPLETED"), true),
        ("COMPLETED", one("PARTIALLY_REFUNDED"), true),
        ("COMPLETED", one("REFUNDED"), true),
    ] {
        let orders = [("O1".to_owned(), told("O1", status, order(1), &payments))].into();
        let fake = Fake::start(Paypal { orders, ..Paypal::default() }).await;
        let found = paypal_of(&fake).fetch(&Provider::PAYPAL, None, &id("O1")).await.unwrap().unwrap();
        assert_eq!((disputes(&found), found.incomplete), (vec![], None));
        let lines = fake.lines();
        assert_eq!(lines.iter().any(|line| line.contains("disputes")), is_asked, "{status} {payments}: {lines:?}");
    }
}

#[tokio::test]
async fn all_captures_are_asked_for_and_what_they_share_counts_once() {
    let (shared, own) = (listed("PP-1", "OPEN", "CHARGEBACK"), listed("PP-2", "RESOLVED", "CHARGEBACK"));
    let fake = paid(&["C1", "C2"], vec![shared.clone()]).await;
    fake.world(|world| world.disputes.insert("C2".to_owned(), vec![shared, own.clone()]));
    let expected = [dispute("PP-1", DisputeState::Open), dispute("PP-2", DisputeState::Won)];
    assert_eq!(disputes(&fetch(&paypal_of(&fake)).await.unwrap()), expected);
    // A capture that does not name its order also has disputes.
    let mut alone = capture("C3", "COMPLETED", "");
    alone["supplementary_data"] = json!({});
    fake.world(|world| {
        world.captures.insert("C3".to_owned(), alone);
        world.disputes.insert("C3".to_owned(), vec![own]);
    });
    let alone = paypal_of(&fake).fetch(&Provider::PAYPAL, None, &id("C3")).await.unwrap().unwrap();
    assert_eq!(disputes(&alone), [dispute("PP-2", DisputeState::Won)]);

    let many: Vec<_> = (0..21).map(|n| format!("C{n}")).collect();
    let many = paid(&many.iter().map(String::as_str).collect::<Vec<_>>(), vec![]).await;
    assert!(matches!(fetch(&paypal_of(&many)).await, Err(CallError::Odd { .. })));
    assert_eq!(many.lines().len(), 2, "the token and the order");
}

#[tokio::test]
async fn pages_are_followed_to_the_end_or_not_believed() {
    let some = |count: usize| (0..count).map(|n| listed(&format!("PP-{n}"), "OPEN", "CHARGEBACK")).collect::<Vec<_>>();
    for (count, calls) in [(0, 1), (1, 1), (50, 1), (51, 2), (200, 4)] {
        let fake = paid(&["C1"], some(count)).await;
        if count == 0 {
            fake.world(|world| world.disputes.clear());
        }
        let found = fetch(&paypal_of(&fake)).await.unwrap();
        assert_eq!(disputes(&found).len(), count);
        assert_eq!(fake.lines().len(), 2 + calls, "{count}");
    }
    let fake = paid(&["C1"], some(201)).await;
    let found = fetch(&paypal_of(&fake)).await;
    assert!(matches!(found, Err(CallError::Odd { .. })), "an incomplete list: {found:?}");
    assert_eq!(fake.lines().len(), 2 + 4);
}

/// Fetches a payment. This page replaces the list of disputes, after the token and the order.
async fn instead(page: Told) -> Result<Found, CallError> {
    let fake = paid(&["C1"], vec![]).await;
    fake.will([Trouble::None, Trouble::Instead(page)]);
    fetch(&paypal_of(&fake)).await
}

#[tokio::test]
async fn disputes_that_cannot_be_read_are_odd_and_not_left_out() {
    let good = listed("PP-1", "OPEN", "CHARGEBACK");
    let with = |field: &str, value: Value| {
        let mut dispute = good.clone();
        dispute[field] = value;
        json!({"items": [good, dispute]})
    };
    let next = |link: Value| json!({"items": [good], "links": [link]});
    let rows = [
        with("dispute_id", json!(null)),
        with("dispute_id", json!(7)),
        with("status", json!(null)),
        with("dispute_life_cycle_stage", json!(7)),
        with("dispute_amount", json!(null)),
        with("dispute_amount", json!({"currency_code": "USD", "value": "-5.00"})),
        with("update_time", json!("yesterday")),
        json!({"items": {}}),
        json!({"items": [1]}),
        json!([]),
        next(json!({"rel": "next"})),
        next(json!({"rel": "next", "href": "https://api.example/v1/customer/disputes"})),
        next(json!({"rel": "next", "href": "https://api.example/v1/customer/disputes?"})),
        next(json!({"rel": "next", "href": "https://api.example/v1/customer/disputes?a b"})),
        next(json!({"rel": "next", "href": format!("https://api.example/?{}", "x".repeat(1001))})),
    ];
    for row in rows {
        let found = instead(Told::json(200, &row)).await;
        assert!(matches!(found, Err(CallError::Odd { .. })), "{row}: {found:?}");
    }
    let mut timeless = good.clone();
    (timeless["create_time"], timeless["update_time"]) = (json!(null), json!(null));
    let found = instead(Told::json(200, &json!({"items": [timeless]}))).await;
    assert!(matches!(found, Err(CallError::Odd { .. })), "{found:?}");
    let html = Told { status: 200, body: "<html>".to_owned(), ..Told::default() };
    assert!(matches!(instead(html).await, Err(CallError::Odd { .. })));
    // A missing list, or a link that leads nowhere, means no disputes.
    for none in
        [json!({}), json!({"items": null}), json!({"items": [], "links": [{"rel": "next", "href": "/x?page=2"}]})]
    {
        assert_eq!(disputes(&instead(Told::json(200, &none)).await.unwrap()), [], "{none}");
    }
    assert_eq!(disputes(&instead(error(404, "RESOURCE_NOT_FOUND", "INVALID_RESOURCE_ID")).await.unwrap()), []);
    // A wrong address, a refused question and a failure do not mean that there are no disputes.
    let wrong = instead(Told { status: 404, body: "<html>".to_owned(), ..Told::default() }).await;
    assert!(matches!(wrong, Err(CallError::Refused { status: 404, .. })), "{wrong:?}");
    let refused = instead(error(400, "INVALID_REQUEST", "INVALID_PARAMETER_VALUE")).await;
    assert!(matches!(refused, Err(CallError::Refused { status: 400, .. })), "{refused:?}");
    let fake = paid(&["C1"], vec![]).await;
    let failure = || Trouble::Instead(error(500, "INTERNAL_SERVER_ERROR", "X"));
    fake.will([Trouble::None, failure(), failure(), failure()]);
    let failed = fetch(&paypal_of(&fake)).await;
    assert!(matches!(failed, Err(CallError::Unavailable { .. })), "{failed:?}");
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn without_the_right_to_see_disputes_the_rest_is_told_and_the_log_has_it_once() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let fake = paid(&["C1", "C2"], vec![listed("PP-1", "OPEN", "CHARGEBACK")]).await;
    let providers = paypal_of(&fake);
    let whole = fetch(&providers).await.unwrap();
    let calls = fake.lines().len();
    let bare = Told { status: 403, body: "<html>".to_owned(), ..Told::default() };
    let refusals =
        [error(403, "NOT_AUTHORIZED", "X"), error(400, "NOT_AUTHORIZED", "X"), error(403, "OTHER", "X"), bare];
    for refusal in refusals.clone() {
        fake.will([Trouble::None, Trouble::Instead(refusal)]);
        let found = fetch(&providers).await.unwrap();
        assert_eq!((found.state, disputes(&found)), (PaymentState::Paid, vec![]));
        assert_eq!((found.order_id, &found.statuses[..]), (whole.order_id, &whole.statuses[..2]), "both captures");
    }
    assert_eq!(fake.lines().len(), calls + 2 * refusals.len(), "the second capture is not asked about");
    // As soon as the right is there, it is used.
    assert_eq!(fetch(&providers).await.unwrap(), whole);
    let said = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    assert_eq!(said.matches("disputes_not_told").count(), 1, "{said}");
    assert!(said.contains("services/disputes/read-seller") && said.contains("NOT_AUTHORIZED"), "{said}");
    assert!(!said.contains(CLIENT_SECRET) && !said.contains("token-1"), "{said}");
}

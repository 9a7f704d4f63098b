//! A database of the release before payments had their own facts. It is migrated with its data, and works as before.

use super::dollars;
use crate::support::db::TestDb;
use crate::support::{captured, event_for};
use grantonce::domain::{DisputePolicy, DisputeState, FactId, PaymentEvent, PaymentId, PaymentStatus};
use grantonce::store::{BatchTerms, Profile, Store};
use std::sync::Arc;
use time::{Duration, OffsetDateTime};

/// The last migration of that release.
const EARLIER: &str = "0003_story.sql";

/// The payment id, status and credits of each order.
const STOOD: [(&str, &str, i64); 16] = [
    ("paid", "fulfilled", 100),
    ("partly_refunded", "partially_refunded", 74),
    ("refunded", "refunded", 0),
    ("refund_failed", "fulfilled", 100),
    ("dispute_open", "disputed", 0),
    ("dispute_lost", "disputed", 0),
    ("dispute_won", "fulfilled", 100),
    ("dispute_partly_lost", "disputed", 79),
    ("dispute_foreign", "disputed", 0),
    ("parts", "fulfilled", 100),
    ("part_failed", "processing", 0),
    ("one_part", "processing", 0),
    ("pending", "processing", 0),
    ("failed", "awaiting_payment", 0),
    ("canceled", "canceled", 0),
    ("nothing", "awaiting_payment", 0),
];

async fn migrated() -> (TestDb, Store) {
    let db = TestDb::create_as_of(EARLIER).await;
    db.execute(include_str!("upgrade/earlier.sql")).await;
    db.migrate().await;
    let store = db.store(Profile::Batches);
    (db, store)
}

async fn stands(db: &TestDb, payment: &str) -> (String, i64) {
    let of = format!("FROM orders o JOIN payments p ON p.order_id = o.id WHERE p.payment_id = 'cs_{payment}'");
    let ledger = format!(
        "SELECT coalesce((SELECT sum(credits) FROM credit_grants g WHERE g.order_id = o.id), 0)::bigint
        + coalesce((SELECT sum(credits) FROM credit_adjustments a WHERE a.order_id = o.id), 0)::bigint {of}"
    );
    (db.text(format!("SELECT o.status {of}")).await, db.number(ledger).await)
}

async fn say(store: &Store, payment: &str, seconds: i64, status: PaymentStatus) {
    let event = PaymentEvent {
        related_ids: if payment.starts_with("pi_") { vec![] } else { vec![PaymentId::new(payment).unwrap()] },
        occurred_at: time::macros::datetime!(2026-11-03 10:00 UTC) + Duration::seconds(seconds),
        ..event_for(payment, &format!("evt_new_{payment}_{seconds}"), status)
    };
    let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: OffsetDateTime::now_utc() };
    store.apply(Arc::from([event]), terms, crate::support::APPLYING).await.unwrap();
}

#[tokio::test]
async fn balances_and_statuses_are_what_they_were() {
    let (db, store) = migrated().await;
    for (payment, status, credits) in STOOD {
        assert_eq!(stands(&db, payment).await, (status.to_owned(), credits), "{payment}");
    }
    // This settles the facts of every order again.
    assert_eq!(store.verify(DisputePolicy::Hold).await.unwrap(), []);
}

#[tokio::test]
async fn orders_of_the_earlier_release_go_on_with_their_payment() {
    let (db, store) = migrated().await;
    let dispute = |state| {
        let (dispute_id, money) = (FactId::new("dp_1").unwrap(), dollars(1999));
        PaymentStatus::Dispute { dispute_id, state, round: 1, money }
    };
    say(&store, "pi_dispute_lost", 0, dispute(DisputeState::Won)).await;
    assert_eq!(stands(&db, "dispute_lost").await, ("fulfilled".to_owned(), 100));
    say(&store, "pi_dispute_open", 0, dispute(DisputeState::Lost)).await;
    assert_eq!(stands(&db, "dispute_open").await, ("disputed".to_owned(), 0));
    say(&store, "pi_paid", 0, PaymentStatus::RefundedTotal { money: dollars(1999) }).await;
    assert_eq!(stands(&db, "paid").await, ("refunded".to_owned(), 0));
    say(&store, "cs_pending", 0, captured(1999)).await;
    assert_eq!(stands(&db, "pending").await, ("fulfilled".to_owned(), 100));
    assert_eq!(store.verify(DisputePolicy::Hold).await.unwrap(), []);
}

#[tokio::test]
async fn a_second_payment_of_an_earlier_order_is_one_of_its_own() {
    let (db, store) = migrated().await;
    let order: uuid::Uuid =
        db.text("SELECT order_id::text FROM payments WHERE payment_id = 'cs_dispute_won'").await.parse().unwrap();
    let second = PaymentEvent {
        order_id: Some(grantonce::domain::OrderId(order)),
        ..event_for("pi_second", "evt_second", captured(1999))
    };
    let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: OffsetDateTime::now_utc() };
    store.apply(Arc::from([second]), terms, crate::support::APPLYING).await.unwrap();
    let overpaid = format!("SELECT overpaid_minor FROM overpaid_orders WHERE order_id = '{order}'");
    assert_eq!(db.number(overpaid.clone()).await, 1999);
    say(&store, "pi_second", 5, PaymentStatus::RefundedTotal { money: dollars(1999) }).await;
    assert_eq!(stands(&db, "dispute_won").await, ("fulfilled".to_owned(), 100));
    assert_eq!(db.number(overpaid).await, 0);
    assert_eq!(store.verify(DisputePolicy::Hold).await.unwrap(), []);
}

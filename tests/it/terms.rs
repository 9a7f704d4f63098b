//! Orders with price terms. Money waits for its parts, in every order of arrival and with copies. Parts that cannot be right become
//! a dead letter that says what to do.

use crate::support::{World, event_for, eventually};
use bytes::Bytes;
use grantonce::broker::{Headers, Outgoing, PAYMENTS_EXCHANGE};
use grantonce::domain::{
    Breakdown, CaptureState, Currency, DisputePolicy, FactId, Money, OrderId, PaymentEvent, PaymentId, PaymentStatus,
    RefundState,
};
use grantonce::message;
use grantonce::store::{BatchTerms, Outcome, Profile, Store};
use serde_json::json;
use time::{Duration, OffsetDateTime};

fn usd(minor: i64) -> Money {
    Money::new(minor, Currency::new("USD").unwrap()).unwrap()
}

/// An order of 100 credits with these terms, made for a checkout session.
async fn order(world: &World, price: i64, terms: &str, discount_max_minor: Option<i64>, session: &str) -> OrderId {
    let id = OrderId(uuid::Uuid::now_v7());
    sqlx::query(
        "WITH made AS (
             INSERT INTO orders (id, account_id, credits, amount_minor, currency, price_terms, discount_max_minor, provider,
                                 created_at, updated_at)
             VALUES ($1, 'acc', 100, $2, 'USD', $3, $4, 'stripe', now(), now()) RETURNING id)
         INSERT INTO payments (provider, payment_id, order_id, registered_at) SELECT 'stripe', $5, $1, now() FROM made",
    )
    .bind(id.0)
    .bind(price)
    .bind(terms)
    .bind(discount_max_minor)
    .bind(session)
    .execute(&world.sql)
    .await
    .unwrap();
    id
}

/// What an event reports. The event of the session also names its intent.
#[derive(Clone, Copy)]
enum Says {
    Intent(i64),
    Session { total: i64, tax: i64, discount: i64 },
    Refund(&'static str, i64),
    RefundedTotal(i64),
}

/// An event of one of many orders in the same scenario.
fn event(says: Says, number: usize, at: usize, order: OrderId) -> PaymentEvent {
    let (session, intent) = (format!("cs_{number}"), format!("pi_{number}"));
    let captured = |minor, breakdown| PaymentStatus::Captured {
        money: usd(minor),
        capture_id: None,
        state: CaptureState::Succeeded,
        breakdown,
    };
    let related = |id: &str| vec![PaymentId::new(id).unwrap()];
    let (payment, related_ids, status) = match says {
        Says::Intent(minor) => (&intent, vec![], captured(minor, None)),
        Says::Session { total, tax, discount } => {
            let breakdown = Breakdown::new(usd(total), tax, discount).unwrap();
            (&session, related(&intent), captured(total, Some(breakdown)))
        }
        Says::Refund(id, minor) => {
            let refund_id = FactId::new(format!("{id}_{number}")).unwrap();
            (&intent, vec![], PaymentStatus::Refund { refund_id, state: RefundState::Succeeded, money: usd(minor) })
        }
        Says::RefundedTotal(minor) => (&intent, vec![], PaymentStatus::RefundedTotal { money: usd(minor) }),
    };
    let occurred_at = OffsetDateTime::UNIX_EPOCH + Duration::seconds(1_767_000_000 + i64::try_from(at).unwrap());
    // The intent carries the order's id, because the site has set it.
    PaymentEvent {
        related_ids,
        order_id: Some(order),
        occurred_at,
        ..event_for(payment, &format!("evt_{number}_{at}"), status)
    }
}

/// Every order in which `count` events can arrive.
fn arrivals(count: usize) -> Vec<Vec<usize>> {
    (0..count).fold(vec![vec![]], |arrivals: Vec<Vec<usize>>, next| {
        let longer = |arrival: Vec<usize>| {
            (0..=arrival.len()).map(move |at| {
                let mut longer = arrival.clone();
                longer.insert(at, next);
                longer
            })
        };
        arrivals.into_iter().flat_map(longer).collect()
    })
}

async fn apply(store: &Store, events: &[PaymentEvent]) -> Vec<Outcome> {
    let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: OffsetDateTime::now_utc() };
    store.apply(events.into(), terms, crate::support::APPLYING).await.unwrap().outcomes
}

/// Description, price, terms, maximal discount, events, and the expected status and credits.
type Row<'a> = (&'a str, i64, &'a str, Option<i64>, &'a [Says], &'a str, i64);

#[tokio::test]
async fn in_every_order_of_arrival_and_with_copies_the_credits_are_what_was_paid_for() {
    let (intent, session) = (Says::Intent, |total, tax, discount| Says::Session { total, tax, discount });
    let rows: &[Row<'_>] = &[
        ("an intent alone waits", 1000, "before_tax", None, &[intent(1200)], "processing", 0),
        ("tax on top", 1000, "before_tax", None, &[intent(1200), session(1200, 200, 0)], "fulfilled", 100),
        ("tax in the price", 1000, "before_tax", None, &[intent(1000), session(1000, 0, 0)], "fulfilled", 100),
        (
            "half of what was paid with tax went back",
            1000,
            "before_tax",
            None,
            &[intent(1200), session(1200, 200, 0), Says::Refund("re", 600)],
            "partially_refunded",
            50,
        ),
        (
            "the same as refund and as a sum",
            1000,
            "before_tax",
            None,
            &[session(1200, 200, 0), Says::Refund("re", 600), Says::RefundedTotal(600)],
            "partially_refunded",
            50,
        ),
        (
            "a discount within the limit",
            2500,
            "before_tax_and_discount",
            Some(1000),
            &[intent(2000), session(2000, 0, 500)],
            "fulfilled",
            100,
        ),
        (
            "a discount at the limit",
            2500,
            "before_tax_and_discount",
            Some(500),
            &[intent(2000), session(2000, 0, 500)],
            "fulfilled",
            100,
        ),
        (
            "a discount above the limit",
            2500,
            "before_tax_and_discount",
            Some(499),
            &[intent(2000), session(2000, 0, 500)],
            "processing",
            0,
        ),
        (
            "a discount and tax",
            2500,
            "before_tax_and_discount",
            Some(500),
            &[intent(2400), session(2400, 400, 500)],
            "fulfilled",
            100,
        ),
        (
            "half of what was paid with a discount went back",
            2500,
            "before_tax_and_discount",
            Some(500),
            &[intent(2000), session(2000, 0, 500), Says::Refund("re", 1000)],
            "partially_refunded",
            50,
        ),
        (
            "all of it went back",
            2500,
            "before_tax_and_discount",
            Some(500),
            &[intent(2000), session(2000, 0, 500), Says::RefundedTotal(2000)],
            "refunded",
            0,
        ),
        ("all was discounted", 2500, "before_tax_and_discount", Some(2500), &[session(0, 0, 2500)], "fulfilled", 100),
        ("parts that do not add up", 1000, "before_tax", None, &[intent(1200), session(1200, 100, 0)], "processing", 0),
    ];
    let world = World::new().await;
    let store = Store::new(&world.store_settings(Profile::Batches)).unwrap();
    let mut number = 0;
    for (what, price, terms, max, said, status, credits) in rows {
        for arrival in arrivals(said.len()) {
            // One by one, each twice. Then all in one batch.
            for is_batch in [false, true] {
                number += 1;
                let id = order(&world, *price, terms, *max, &format!("cs_{number}")).await;
                let events: Vec<_> = arrival.iter().map(|at| event(said[*at], number, *at, id)).collect();
                let all: Vec<_> = events.iter().chain(events.iter().rev()).cloned().collect();
                if is_batch {
                    apply(&store, &all).await;
                } else {
                    for event in &all {
                        apply(&store, std::slice::from_ref(event)).await;
                    }
                }
                let found = format!(
                    "SELECT credits_granted FROM orders WHERE id = '{id}' AND is_granted = ({credits} > 0
                         OR EXISTS (SELECT FROM credit_grants WHERE order_id = orders.id))"
                );
                let what = format!("{what}: {arrival:?}, batch {is_batch}");
                assert_eq!((world.status(id).await.as_str(), world.count(&found).await), (*status, *credits), "{what}");
                let grants = world.count(&format!("SELECT count(*) FROM credit_grants WHERE order_id = '{id}'")).await;
                assert!(grants <= 1 && (grants == 1 || *credits == 0), "{what}: {grants} grants");
            }
        }
    }
    world.verify().await;
}

/// Publishes a body of the contract, as a relay does.
async fn publish(world: &World, message_id: &str, session: &str, status: serde_json::Value) {
    let body = json!({
        "provider": "stripe", "message_id": message_id, "payment_id": session, "status": status,
        "occurred_at": "2026-01-05T12:00:00Z", "livemode": false
    });
    let message = Outgoing {
        exchange: PAYMENTS_EXCHANGE,
        routing_key: "payment.stripe".to_owned(),
        message_id: message_id.to_owned(),
        kind: message::TYPE.to_owned(),
        content_type: message::CONTENT_TYPE,
        headers: Headers::default(),
        body: Bytes::from(body.to_string()),
    };
    world.publish_raw(message).await;
}

#[tokio::test]
async fn parts_that_cannot_be_right_are_dead_letters_that_say_what_to_do() {
    let world = World::new().await;
    order(&world, 1000, "before_tax", None, "cs_1").await;
    order(&world, 2500, "before_tax_and_discount", Some(499), "cs_2").await;
    let worker = world.start_worker();
    let captured = |minor, breakdown| json!({"type": "captured", "amount_minor": minor, "currency": "USD", "breakdown": breakdown});
    let parts = |tax: i64, discount: i64| json!({"tax_minor": tax, "discount_minor": discount});
    for (n, (session, status, reason, says)) in [
        ("cs_1", captured(1200, parts(-200, 0)), "malformed", "status.breakdown: tax_minor is -200"),
        ("cs_1", captured(1200, parts(0, -1)), "malformed", "status.breakdown: discount_minor is -1"),
        ("cs_1", captured(1200, parts(1201, 0)), "malformed", "more than the total of 1200"),
        ("cs_1", captured(1200, json!({"tax_minor": 1.5, "discount_minor": 0})), "malformed", "status"),
        ("cs_1", captured(1200, parts(100, 0)), "amount_mismatch", "amend the order if the buyer owes no more"),
        ("cs_2", captured(2000, parts(0, 500)), "amount_mismatch", "give the money back"),
    ]
    .into_iter()
    .enumerate()
    {
        publish(&world, &format!("stripe:evt_{n}"), session, status).await;
        let letter = world.dead_letter().await;
        let headers = letter.properties.headers().as_ref().unwrap().inner().clone();
        let text = |name: &str| headers[name].as_long_string().unwrap().to_string();
        assert_eq!(text("x-grantonce-reason"), reason, "{n}");
        assert!(text("x-grantonce-detail").contains(says), "{n}: {}", text("x-grantonce-detail"));
    }
    assert_eq!(world.grants().await, 0);
    // The next one is right.
    publish(&world, "stripe:evt_right", "cs_1", captured(1200, parts(200, 0))).await;
    publish(&world, "stripe:evt_right", "cs_1", captured(1200, parts(200, 0))).await;
    eventually("it is granted", async || world.grants().await == 1).await;
    world.settled(worker).await;
    world.verify().await;
}

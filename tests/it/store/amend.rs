//! The price of an order is amended before its grant or not at all, even if another transaction comes at the same time.

use super::{apply, batches, dollars, read, terms};
use crate::support::{OrderSpec, World, captured, event_for, eventually};
use grantonce::domain::{
    AmendmentRefusal, CaptureState, DisputePolicy, FactId, Money, OrderId, PaymentEvent, PaymentStatus, Reason,
};
use grantonce::store::{Actor, Amended, Amendment, Outcome, Store};

fn amendment(order_id: OrderId, price: Money) -> Amendment {
    Amendment {
        order_id,
        price,
        dispute_policy: DisputePolicy::Hold,
        by: Actor { name: "ada".to_owned(), is_self_declared: true },
        reason: "tax".to_owned(),
        now: terms().now,
    }
}

async fn amend(store: &Store, order: OrderId, minor: i64) -> Amended {
    store.amend_order(amendment(order, dollars(minor))).await.unwrap()
}

/// One capture of several, of an order for a payment.
fn part(payment: &str, message: &str, capture: &str, minor: i64) -> PaymentEvent {
    let status = PaymentStatus::Captured {
        money: dollars(minor),
        capture_id: Some(FactId::new(capture).unwrap()),
        state: CaptureState::Succeeded,
        breakdown: None,
    };
    event_for(payment, message, status)
}

#[tokio::test]
async fn what_is_refused_or_changes_nothing_leaves_nothing() {
    let world = World::new().await;
    let store = world.store();
    let unknown = OrderId(uuid::Uuid::now_v7());
    assert_eq!(amend(&store, unknown, 1999).await, Amended::OrderUnknown);

    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    assert_eq!(amend(&store, order, 1999).await, Amended::Unchanged);
    apply(&batches(&world), &[event_for("pi_1", "evt_1", captured(1999))]).await.unwrap();
    assert_eq!(amend(&store, order, 999).await, Amended::Refused(AmendmentRefusal::Granted));
    assert_eq!(amend(&store, order, 1999).await, Amended::Unchanged, "repeated after the grant");

    let left = read(&store, order).await;
    assert_eq!((left.amount_minor, left.version), (1999, 2));
    assert_eq!(world.count("SELECT count(*) FROM audit_log").await, 0);
    world.verify().await;
}

#[tokio::test]
async fn the_price_of_a_grant_stays_for_whoever_writes_to_the_table() {
    let world = World::new().await;
    world.orders(2).await;
    apply(&batches(&world), &[event_for("pi_0", "evt_0", captured(1999))]).await.unwrap();
    for column in ["amount_minor = 1", "currency = 'EUR'"] {
        let statement = format!("UPDATE orders SET {column}");
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&world.sql).await.unwrap_err();
        assert_eq!(refused.as_database_error().and_then(|error| error.code()).unwrap(), "42501", "{refused}");
    }
    world.execute("UPDATE orders SET amount_minor = 1 WHERE NOT is_granted").await;
    world.execute("UPDATE orders SET amount_minor = amount_minor").await;
}

#[tokio::test]
async fn an_amendment_is_in_the_audit_log_which_nobody_changes_not_even_its_owner() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    assert!(matches!(amend(&world.store(), order, 2999).await, Amended::Written { version: 2, .. }));
    let line = format!(
        r#"SELECT count(*) FROM audit_log WHERE actor = 'ada' AND is_self_declared AND action = 'order.amend'
           AND subject = '{order}' AND reason = 'tax' AND count = 1
           AND before = '{{"amount_minor": 1999, "currency": "USD", "status": "awaiting_payment"}}'
           AND after = '{{"amount_minor": 2999, "currency": "USD", "status": "awaiting_payment"}}'"#
    );
    assert_eq!(world.count(&line).await, 1);
    for statement in [
        "UPDATE audit_log SET reason = 'another'",
        "UPDATE audit_log SET reason = 'another' WHERE false",
        "DELETE FROM audit_log",
        "TRUNCATE audit_log",
    ] {
        let refused = sqlx::raw_sql(statement).execute(&world.sql).await.unwrap_err();
        let code = refused.as_database_error().and_then(|error| error.code()).unwrap();
        assert_eq!(code, "42501", "{statement}: {refused}");
    }
    assert_eq!(world.count(&line).await, 1);
}

#[tokio::test]
async fn parts_that_reach_the_new_price_are_granted_by_the_next_new_message_and_by_no_copy() {
    let world = World::new().await;
    let order = world.order(OrderSpec { amount_minor: 1000, ..OrderSpec::paid_by("pi_1") }).await;
    let worker = batches(&world);
    let parts = [part("pi_1", "evt_1", "c1", 400), part("pi_1", "evt_2", "c2", 350)];
    apply(&worker, &parts).await.unwrap();
    assert_eq!(world.status(order).await, "processing");

    let amended = amend(&world.store(), order, 750).await;
    let Amended::Written { repriced, .. } = amended else { panic!("{amended:?}") };
    assert!(repriced.is_grant_due);
    assert_eq!((world.grants().await, world.status(order).await.as_str()), (0, "processing"), "only a worker grants");
    let broken = world.store().verify(DisputePolicy::Hold).await.unwrap();
    assert_eq!(broken.len(), 1, "the missing grant is reported: {broken:?}");

    let copies = apply(&worker, &parts).await.unwrap();
    assert_eq!(copies.outcomes, [Outcome::Duplicate, Outcome::Duplicate]);
    assert_eq!(world.grants().await, 0, "a message that is not admitted grants nothing");

    let repeated = apply(&worker, &[part("pi_1", "evt_3", "c1", 400)]).await.unwrap();
    assert_eq!(repeated.outcomes, [Outcome::Applied { granted: true }]);
    assert_eq!((world.grants().await, world.status(order).await.as_str()), (1, "fulfilled"));
    world.verify().await;
}

#[tokio::test]
async fn whoever_waits_for_the_order_is_told() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let mut listener = sqlx::postgres::PgListener::connect(&world.database_url).await.unwrap();
    listener.listen("grantonce_orders").await.unwrap();
    let store = world.store();
    amend(&store, order, 1999).await;
    amend(&store, order, 2999).await;
    let heard = tokio::time::timeout(std::time::Duration::from_secs(20), listener.recv()).await.unwrap().unwrap();
    assert_eq!(heard.payload(), order.0.as_simple().to_string());
    assert_eq!(read(&store, order).await.version, 2, "the notification comes after the commit");
}

/// An amendment and a payment of 19.99. Both wait for a lock on the order, in the order that the parameter says.
async fn one_after_the_other(world: &World, price: i64, amended: i64, is_amended_first: bool) -> (Amended, Outcome) {
    let order = world.order(OrderSpec { amount_minor: price, ..OrderSpec::paid_by("pi_1") }).await;
    let mut hold = world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE").bind(order.0).execute(&mut *hold).await.unwrap();
    let (operator, worker) = (world.store(), batches(world));
    let amending = || {
        let operator = operator.clone();
        tokio::spawn(async move { amend(&operator, order, amended).await })
    };
    let paying = || {
        let worker = worker.clone();
        tokio::spawn(async move { apply(&worker, &[event_for("pi_1", "evt_1", captured(1999))]).await.unwrap() })
    };
    let waits_for =
        async |count| eventually("the next one waits", async || world.waiting_for_locks().await == count).await;
    let (amendment, payment) = if is_amended_first {
        let amendment = amending();
        waits_for(1).await;
        (amendment, paying())
    } else {
        let payment = paying();
        waits_for(1).await;
        (amending(), payment)
    };
    waits_for(2).await;
    hold.rollback().await.unwrap();
    (amendment.await.unwrap(), payment.await.unwrap().outcomes.remove(0))
}

fn is_mismatch(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused(refusal) if refusal.reason == Reason::AmountMismatch)
}

#[tokio::test]
async fn a_payment_that_waited_for_an_amendment_sees_the_new_price() {
    for (price, amended) in [(2999, 1999), (1999, 2999)] {
        let world = World::new().await;
        let (amendment, payment) = one_after_the_other(&world, price, amended, true).await;
        assert!(matches!(amendment, Amended::Written { .. }), "{amendment:?}");
        if amended == 1999 {
            assert_eq!(payment, Outcome::Applied { granted: true });
        } else {
            assert!(is_mismatch(&payment), "{payment:?}");
        }
        world.verify().await;
    }
}

#[tokio::test]
async fn an_amendment_that_waited_for_a_grant_is_refused() {
    let world = World::new().await;
    let (amendment, payment) = one_after_the_other(&world, 1999, 2999, false).await;
    assert_eq!(payment, Outcome::Applied { granted: true });
    assert_eq!(amendment, Amended::Refused(AmendmentRefusal::Granted));
    assert_eq!(world.count("SELECT amount_minor FROM orders").await, 1999);
    world.verify().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_a_race_the_grant_is_by_the_price_that_stands_in_the_end() {
    const ROUNDS: usize = 50;
    let world = World::new().await;
    let (operator, worker) = (world.store(), batches(&world));
    for round in 0..ROUNDS {
        // Alternately to the price that is paid, and away from it.
        let (price, amended) = if round % 2 == 0 { (2999, 1999) } else { (1999, 2999) };
        let payment = format!("pi_{round}");
        let order = world.order(OrderSpec { amount_minor: price, ..OrderSpec::paid_by(&payment) }).await;
        let event = [event_for(&payment, &format!("evt_{round}"), captured(1999))];
        let (amendment, applied) = tokio::join!(amend(&operator, order, amended), apply(&worker, &event));
        let outcome = applied.unwrap().outcomes.remove(0);
        let left = world.count(&format!("SELECT amount_minor FROM orders WHERE id = '{order}'")).await;
        match &amendment {
            Amended::Written { .. } => assert_eq!(left, amended),
            Amended::Refused(AmendmentRefusal::Granted) => assert_eq!(left, price),
            other => panic!("{other:?}"),
        }
        match &outcome {
            Outcome::Applied { granted: true } => assert_eq!(left, 1999),
            refused => assert!(is_mismatch(refused), "{refused:?}"),
        }
        // A refused event leaves no trace. The replay of the same message is judged by the current price.
        let replayed = apply(&worker, &event).await.unwrap().outcomes.remove(0);
        match (left, is_mismatch(&outcome)) {
            (1999, true) => assert_eq!(replayed, Outcome::Applied { granted: true }),
            (1999, false) => assert_eq!(replayed, Outcome::Duplicate),
            _ => assert!(is_mismatch(&replayed), "{replayed:?}"),
        }
        let audited = world.count(&format!("SELECT count(*) FROM audit_log WHERE subject = '{order}'")).await;
        assert_eq!(audited, i64::from(matches!(amendment, Amended::Written { .. })));
    }
    let paid = world.count("SELECT count(*) FROM orders WHERE amount_minor = 1999").await;
    assert_eq!(world.grants().await, paid);
    world.verify().await;
}

//! The one call that writes a batch: how many round trips a batch makes, and what each kind of failure inside the call means.

use super::{apply, batches, terms};
use crate::support::{APPLYING, OrderSpec, Proxy, World, captured, event_for, eventually};
use grantonce::domain::{OrderId, PaymentEvent, Reason};
use grantonce::store::{Applied, ApplyOptions, Class, Outcome, Profile, Settings, Store, StoreError};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;

fn event(n: usize) -> PaymentEvent {
    event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))
}

/// Numbers of new orders, and their events.
async fn paid_orders(world: &World, numbers: std::ops::Range<usize>) -> Vec<PaymentEvent> {
    for n in numbers.clone() {
        world.order(OrderSpec::paid_by(&format!("pi_{n}"))).await;
    }
    numbers.map(event).collect()
}

fn is_all_applied(applied: &Applied) -> bool {
    applied.outcomes.iter().all(|outcome| matches!(outcome, Outcome::Applied { granted: true }))
}

#[tokio::test]
async fn a_batch_without_conflict_makes_at_most_three_round_trips() {
    let world = World::new().await;
    let (proxy, url) = Proxy::before(&world.database_url).await;
    let settings = Settings {
        url: String::from(url).parse().unwrap(),
        connections_max: 1,
        ..world.store_settings(Profile::Batches)
    };
    let store = Store::new(&settings).unwrap();
    let round_trips_of = async |events: &[PaymentEvent]| {
        let before = proxy.round_trips();
        let applied = apply(&store, events).await.unwrap();
        assert_eq!(applied.overtaken, 0);
        (proxy.round_trips() - before, applied)
    };
    // The first batches prepare every statement, which takes round trips once for each connection.
    let first = paid_orders(&world, 0..2).await;
    for _ in 0..2 {
        apply(&store, &first).await.unwrap();
    }

    let one = paid_orders(&world, 2..3).await;
    let (round_trips, applied) = round_trips_of(&one).await;
    assert!(is_all_applied(&applied));
    assert_eq!(round_trips, 2, "a read, and the call that writes");

    let many = paid_orders(&world, 3..60).await;
    let (round_trips, applied) = round_trips_of(&many).await;
    assert!(is_all_applied(&applied));
    assert_eq!(round_trips, 2, "the number of messages does not matter");

    let mixed: Vec<_> = many[..20].iter().cloned().chain(paid_orders(&world, 60..70).await).collect();
    let (round_trips, applied) = round_trips_of(&mixed).await;
    assert_eq!(applied.outcomes.iter().filter(|outcome| **outcome == Outcome::Duplicate).count(), 20);
    assert_eq!(round_trips, 3, "the inbox is asked about the copies");

    let (round_trips, applied) = round_trips_of(&many).await;
    assert!(applied.outcomes.iter().all(|outcome| *outcome == Outcome::Duplicate));
    assert_eq!(round_trips, 2, "a batch of copies writes nothing");

    let unknown = event_for("pi_unknown", "evt_unknown", captured(1999));
    let (round_trips, applied) = round_trips_of(&[unknown]).await;
    assert_eq!((round_trips, applied.outcomes), (1, vec![Outcome::OrderUnknown]));
    world.verify().await;
}

#[tokio::test]
async fn a_batch_announces_its_orders_itself_if_it_is_told_to() {
    let world = World::new().await;
    let mut listener = PgListener::connect(&world.database_url).await.unwrap();
    listener.listen("grantonce_orders").await.unwrap();
    let store = batches(&world);
    let announcing = ApplyOptions { announces: true, ..APPLYING };

    let events = paid_orders(&world, 0..2).await;
    let applied = store.apply(events.into(), terms(), announcing).await.unwrap();
    assert_eq!(applied.changed, [], "nothing is left to announce");
    let ids: Vec<String> = sqlx::query_scalar("SELECT replace(id::text, '-', '') FROM orders ORDER BY id")
        .fetch_all(&world.sql)
        .await
        .unwrap();
    assert_eq!(listener.recv().await.unwrap().payload(), ids.concat());

    // An announcement of so many orders does not fit into one notification. The worker announces them afterwards.
    let many = paid_orders(&world, 2..243).await;
    let applied = store.apply(many.into(), terms(), announcing).await.unwrap();
    assert_eq!(applied.changed.len(), 241);
}

/// Holds a change of the database open while a batch runs into it, then commits the change.
async fn overtaken_by(world: &World, change: &str, event: &PaymentEvent) -> Applied {
    let store = batches(world);
    let mut rival = world.sql.begin().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(change.to_owned())).execute(&mut *rival).await.unwrap();
    let events = [event.clone()];
    let applying = tokio::spawn(async move { apply(&store, &events).await });
    eventually("the batch waits for the rival", async || world.waiting_for_locks().await > 0).await;
    rival.commit().await.unwrap();
    applying.await.unwrap().unwrap()
}

#[tokio::test]
async fn a_batch_that_another_transaction_overtakes_is_decided_anew() {
    let world = World::new().await;
    world.orders(4).await;
    let other = world.order(OrderSpec::paid_by("pi_other")).await;

    // Its order has another price now.
    let repriced = "UPDATE orders SET amount_minor = 2000, version = version + 1
                    WHERE id = (SELECT order_id FROM payments WHERE payment_id = 'pi_0')";
    let applied = overtaken_by(&world, repriced, &event(0)).await;
    assert_eq!(applied.overtaken, 1);
    assert!(matches!(&applied.outcomes[..], [Outcome::Refused(refusal)] if refusal.reason == Reason::AmountMismatch));

    // Its second payment id belongs to another order now.
    let claimed = format!(
        "INSERT INTO payments (provider, payment_id, order_id, registered_at) VALUES ('stripe', 'cs_1', '{}', now())",
        other.0
    );
    let event_1 = PaymentEvent { related_ids: vec!["cs_1".parse().unwrap()], ..event(1) };
    let applied = overtaken_by(&world, &claimed, &event_1).await;
    assert_eq!(applied.overtaken, 1);
    assert!(matches!(&applied.outcomes[..], [Outcome::Refused(refusal)] if refusal.reason == Reason::PaymentConflict));

    // Its message id was admitted with another content. The inbox is asked under locks only, because the order does not know the
    // fact.
    let admitted = format!(
        "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at)
         VALUES ('{}', '{}', decode(repeat('00', 16), 'hex'), '{}', now())",
        event(2).occurred_at.date(),
        event(2).message_id,
        OrderId(uuid::Uuid::nil()).0
    );
    let applied = overtaken_by(&world, &admitted, &event(2)).await;
    assert!(applied.overtaken >= 2, "{}", applied.overtaken);
    assert!(matches!(&applied.outcomes[..], [Outcome::Refused(refusal)] if refusal.reason == Reason::IdReused));

    // A change that makes no difference.
    let touched = "UPDATE orders SET version = version + 1, updated_at = now()
                   WHERE id = (SELECT order_id FROM payments WHERE payment_id = 'pi_3')";
    let applied = overtaken_by(&world, touched, &event(3)).await;
    assert_eq!((applied.overtaken, is_all_applied(&applied)), (1, true));
    assert_eq!(world.grants().await, 1);
}

#[tokio::test]
async fn a_failure_inside_the_call_has_its_class_and_leaves_nothing() {
    // What is done to the database before, the class of the error, and what undoes it.
    const REFUSE: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'";
    let refuse = |using: &str, trigger: &str| {
        format!("{REFUSE} {using}; END $$; CREATE {trigger} ON credit_grants FOR EACH ROW EXECUTE FUNCTION refuse()")
    };
    const UNDO_REFUSE: &str = "DROP FUNCTION refuse CASCADE";
    let cases = [
        ("an operator's trigger", refuse("", "TRIGGER refuse BEFORE INSERT"), Class::Data, UNDO_REFUSE),
        // The call itself succeeds, and its commit does not.
        (
            "a constraint that is checked at the commit",
            refuse("USING ERRCODE = '23514'", "CONSTRAINT TRIGGER refuse AFTER INSERT"),
            Class::Data,
            UNDO_REFUSE,
        ),
        (
            "a constraint that is checked at the commit and deferred",
            format!(
                "{REFUSE} USING ERRCODE = '23514'; END $$; CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON credit_grants
                 DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()"
            ),
            Class::Data,
            UNDO_REFUSE,
        ),
        (
            "a deadlock",
            refuse("USING ERRCODE = 'deadlock_detected'", "TRIGGER refuse BEFORE INSERT"),
            Class::Contended,
            UNDO_REFUSE,
        ),
        (
            "a full disk",
            refuse("USING ERRCODE = 'disk_full'", "TRIGGER refuse BEFORE INSERT"),
            Class::Transient,
            UNDO_REFUSE,
        ),
        (
            "a shutdown",
            refuse("USING ERRCODE = 'admin_shutdown'", "TRIGGER refuse BEFORE INSERT"),
            Class::Transient,
            UNDO_REFUSE,
        ),
        (
            "a missing right",
            refuse("USING ERRCODE = 'insufficient_privilege'", "TRIGGER refuse BEFORE INSERT"),
            Class::Bug,
            UNDO_REFUSE,
        ),
        (
            "a grant that exists although its order has none",
            "INSERT INTO credit_grants SELECT id, account_id, credits, 'by hand', now() FROM orders".to_owned(),
            Class::Data,
            "ALTER TABLE credit_grants DISABLE TRIGGER append_only; DELETE FROM credit_grants;
             ALTER TABLE credit_grants ENABLE TRIGGER append_only",
        ),
        (
            "a missing column",
            "ALTER TABLE credit_grants RENAME COLUMN credits TO units".to_owned(),
            Class::Bug,
            "ALTER TABLE credit_grants RENAME COLUMN units TO credits",
        ),
        (
            "a missing function",
            "ALTER FUNCTION apply_batch_v1 RENAME TO apply_batch_v0".to_owned(),
            Class::Bug,
            "ALTER FUNCTION apply_batch_v0 RENAME TO apply_batch_v1",
        ),
    ];
    let world = World::new().await;
    world.orders(1).await;
    let written = "SELECT (SELECT count(*) FROM inbox) + (SELECT count(*) FROM orders WHERE version > 1)";
    for (what, done, class, undone) in cases {
        let store = batches(&world);
        world.execute(&done).await;
        let error = apply(&store, &[event(0)]).await.expect_err(what);
        assert_eq!(error.class(), class, "{what}: {error}");
        assert_eq!(world.count(written).await, 0, "{what}");
        world.execute(undone).await;
    }

    // A row that another session has locked.
    let mut holder = world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM orders FOR UPDATE").execute(&mut *holder).await.unwrap();
    let impatient = ApplyOptions { lock_wait: Some(Duration::from_millis(50)), announces: true };
    let store = batches(&world);
    let error = store.apply([event(0)].into(), terms(), impatient).await.unwrap_err();
    assert!(error.is_lock_timeout(), "{error}");
    assert_eq!(error.class(), Class::Contended);
    holder.rollback().await.unwrap();

    // A session that ends while its call waits.
    let mut holder = world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM orders FOR UPDATE").execute(&mut *holder).await.unwrap();
    let applying = tokio::spawn(async move { apply(&store, &[event(0)]).await });
    eventually("the call waits", async || world.waiting_for_locks().await > 0).await;
    end_waiting_sessions(&mut holder).await;
    let error: StoreError = applying.await.unwrap().unwrap_err();
    assert_eq!(error.class(), Class::Transient, "{error}");
    holder.rollback().await.unwrap();
    assert_eq!((world.count(written).await, world.grants().await), (0, 0));

    assert!(is_all_applied(&apply(&batches(&world), &[event(0)]).await.unwrap()));
    world.verify().await;
}

async fn end_waiting_sessions(sql: &mut PgConnection) {
    sqlx::query(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'",
    )
    .execute(sql)
    .await
    .unwrap();
}

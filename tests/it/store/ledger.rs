//! Written rows stay, and a failed transaction leaves nothing.

use super::{apply, batches};
use crate::support::{OrderSpec, World, captured, event_for};
use grantonce::domain::{FactId, PaymentStatus, RefundState};
use grantonce::store::Class;

#[tokio::test]
async fn nobody_changes_the_ledger_not_even_its_owner() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let refund = PaymentStatus::Refund {
        refund_id: FactId::new("re_1").unwrap(),
        state: RefundState::Succeeded,
        money: super::dollars(500),
    };
    let events = [event_for("pi_1", "evt_1", captured(1999)), event_for("pi_1", "evt_2", refund)];
    apply(&batches(&world), &events[..1]).await.unwrap();
    apply(&batches(&world), &events[1..]).await.unwrap();
    assert_eq!(world.count("SELECT count(*) FROM credit_adjustments").await, 1);

    for table in ["credit_grants", "credit_adjustments"] {
        for statement in [
            format!("UPDATE {table} SET credits = credits + 1"),
            format!("UPDATE {table} SET credits = 1 WHERE false"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
            format!(
                "INSERT INTO {table} SELECT * FROM {table} ON CONFLICT ON CONSTRAINT {table}_pkey DO UPDATE SET credits = 1"
            ),
        ] {
            let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone())).execute(&world.sql).await.unwrap_err();
            let code = refused.as_database_error().and_then(|error| error.code()).unwrap();
            assert_eq!(code, "42501", "{statement}: {refused}");
        }
    }
    assert_eq!(world.count("SELECT count(*) FROM credit_grants WHERE credits = 100").await, 1);
    world.verify().await;
}

#[tokio::test]
async fn a_batch_whose_grant_is_refused_is_an_error_and_leaves_nothing() {
    let world = World::new().await;
    world.orders(3).await;
    world
        .execute(
            "CREATE FUNCTION refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.message_id = 'stripe::evt_1' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '23514'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER refuse_one BEFORE INSERT ON credit_grants FOR EACH ROW EXECUTE FUNCTION refuse_one()",
        )
        .await;
    let store = batches(&world);
    let events: Vec<_> = (0..3).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect();
    for _ in 0..10 {
        let error = apply(&store, &events).await.unwrap_err();
        assert_eq!(error.class(), Class::Data, "{error}");
        assert_eq!((world.grants().await, world.admitted().await), (0, 0));
    }
    assert_eq!(world.count("SELECT count(*) FROM orders WHERE status <> 'awaiting_payment'").await, 0);

    // The connections of the failed transactions work as before.
    world.execute("DROP TRIGGER refuse_one ON credit_grants").await;
    apply(&store, &events).await.unwrap();
    assert_eq!((world.grants().await, world.admitted().await), (3, 3));
    world.verify().await;
}

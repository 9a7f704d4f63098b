//! `grantonce forget`, as an operator calls it.

use crate::support::{OrderSpec, World};
use serde_json::Value;

async fn run(world: &World, more: &[&str]) -> (Option<i32>, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"))
        .args(["forget", "acc", "--reason", "ticket 4711", "--as", "ada"])
        .args(more)
        .env_clear()
        .env("DATABASE_URL", &world.database_url)
        .output()
        .await
        .unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

async fn forget(world: &World, more: &[&str]) -> (Option<i32>, Value) {
    let (exit, printed) = run(world, &[more, &["--json"]].concat()).await;
    (exit, serde_json::from_str(&printed).unwrap())
}

fn counts(told: &Value) -> [i64; 5] {
    ["orders_seen", "orders", "payment_attempts", "letters", "letters_left"].map(|name| told[name].as_i64().unwrap())
}

/// Counts the rows that still contain data of a buyer.
async fn kept(world: &World) -> [i64; 3] {
    [
        world.count("SELECT count(*) FROM orders WHERE metadata <> '{}'").await,
        world
            .count("SELECT count(*) FROM payment_attempts WHERE client_secret IS NOT NULL OR approve_url IS NOT NULL")
            .await,
        world.count("SELECT count(*) FROM dead_letters WHERE body IS NOT NULL OR headers <> '{}'").await,
    ]
}

/// Creates three orders of `acc`, one order of another account, and four dead letters: one names its order, the others only their
/// payment. One is open, and one belongs to the other account.
async fn buyers(world: &World) {
    for (payment, account) in [("pi_1", "acc"), ("pi_2", "acc"), ("pi_3", "acc"), ("pi_4", "other")] {
        world.order(OrderSpec { account, ..OrderSpec::paid_by(payment) }).await;
    }
    let letter = |n: u8, payment: &str, state: &str| {
        format!(
            "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail,
                 origin, attempts, provider, payment_id, order_id, state, state_at, first_seen_at, last_seen_at)
             SELECT '0d9f0000-0000-4000-8000-00000000000{n}', 'm{n}', '', '', '{{\"a\": 1}}', 'name', 4, 'malformed', '', '', 'worker',
                 1, 'stripe', payment_id, CASE WHEN {n} = 1 THEN order_id END, '{state}', now(), now(), now()
             FROM payments WHERE payment_id = '{payment}';"
        )
    };
    let letters = [(1, "pi_1", "archived"), (2, "pi_2", "resolved"), (3, "pi_2", "open"), (4, "pi_4", "archived")];
    let letters: String = letters.into_iter().map(|(n, payment, state)| letter(n, payment, state)).collect();
    world
        .execute(&format!(
            "UPDATE orders SET metadata = '{{\"name\": \"somebody\"}}'
             WHERE id IN (SELECT order_id FROM payments WHERE payment_id <> 'pi_3');
             INSERT INTO payment_attempts
             SELECT order_id, 1, now(), now(), false, payment_id, 'secret', NULL FROM payments WHERE payment_id IN ('pi_1', 'pi_4');
             {letters}"
        ))
        .await;
}

#[tokio::test]
async fn an_account_is_forgotten_when_that_is_meant_and_nobody_else_is() {
    let world = World::new().await;
    buyers(&world).await;
    world.execute("DELETE FROM dead_letters WHERE state = 'open'").await;
    let (exit, told) = forget(&world, &[]).await;
    assert_eq!((exit, &told["outcome"], counts(&told)), (Some(0), &"would_forget".into(), [3, 2, 1, 2, 0]));
    assert_eq!(kept(&world).await, [3, 2, 3], "nothing is done without --yes");
    assert_eq!(world.count("SELECT count(*) FROM audit_log").await, 0);

    let (exit, told) = forget(&world, &["--yes"]).await;
    assert_eq!((exit, &told["outcome"], counts(&told)), (Some(0), &"forgotten".into(), [3, 2, 1, 2, 0]));
    assert_eq!(kept(&world).await, [1, 1, 1], "the data of the other account stays");
    let audited = "SELECT count(*) FROM audit_log WHERE action = 'account.forget' AND subject = 'acc' AND actor = 'ada'
                   AND reason = 'ticket 4711' AND count = 5 AND after->>'letters' = '2'";
    assert_eq!(world.count(audited).await, 1);
    let renewed = "SELECT count(*) FROM orders WHERE version = 2 AND account_id = 'acc'";
    assert_eq!(world.count(renewed).await, 2, "the version rises with every change of the row");

    let (exit, told) = forget(&world, &["--yes"]).await;
    assert_eq!((exit, &told["outcome"]), (Some(0), &"nothing_left".into()));
    assert_eq!(
        world.count("SELECT count(*) FROM audit_log").await,
        1,
        "a call that changes nothing is not in the audit log"
    );
}

#[tokio::test]
async fn a_letter_that_may_still_grant_is_left_and_told_of() {
    let world = World::new().await;
    buyers(&world).await;
    let (exit, printed) = run(&world, &["--yes"]).await;
    assert_eq!(exit, Some(1), "{printed}");
    assert!(printed.contains("dead letters that are left: 1") && printed.contains("replay or archive"), "{printed}");
    assert_eq!(kept(&world).await, [1, 1, 2]);
    let is_whole = "SELECT count(*) FROM dead_letters WHERE state = 'open' AND body IS NOT NULL AND headers <> '{}'";
    assert_eq!(world.count(is_whole).await, 1);

    world.execute("UPDATE dead_letters SET state = 'archived' WHERE state = 'open'").await;
    let (exit, told) = forget(&world, &["--yes"]).await;
    assert_eq!((exit, counts(&told)), (Some(0), [3, 0, 0, 1, 0]));
}

#[tokio::test]
async fn an_account_of_many_orders_goes_page_by_page() {
    let world = World::new().await;
    world
        .execute(
            "INSERT INTO orders (id, account_id, credits, amount_minor, currency, provider, metadata, created_at, updated_at)
             SELECT gen_random_uuid(), 'acc', 1, 1, 'USD', 'stripe', '{\"a\": 1}', now(), now() FROM generate_series(1, 1001)",
        )
        .await;
    let (_, told) = forget(&world, &[]).await;
    assert_eq!(counts(&told), [1001, 1001, 0, 0, 0]);
    let (exit, told) = forget(&world, &["--yes"]).await;
    assert_eq!((exit, counts(&told)), (Some(0), [1001, 1001, 0, 0, 0]));
    assert_eq!(kept(&world).await, [0, 0, 0]);
    assert_eq!(world.count("SELECT sum(count)::bigint FROM audit_log").await, 1001);
}

#[tokio::test]
async fn nobody_and_nothing_have_their_exit_codes() {
    let world = World::new().await;
    let (exit, printed) = run(&world, &["--yes"]).await;
    assert_eq!(exit, Some(1));
    assert!(printed.contains("no order is of this account"), "{printed}");
}

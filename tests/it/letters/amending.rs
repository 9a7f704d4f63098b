//! `grantonce dlq amend`: the orders of a whole group get the price that was paid, and a replay grants their credits.

use super::command_line::dlq;
use super::{RunningOps, the_letter};
use crate::support::messages::{captured, event_for};
use crate::support::world::{OrderSpec, World};
use grantonce::domain::{Breakdown, CaptureState, Currency, Money, OrderId, PaymentEvent, PaymentStatus};
use grantonce_testkit::wait::eventually;
use serde_json::{Value, json};

/// A capture with its parts.
fn parted(payment: &str, message: &str, minor: i64, tax: i64, discount: i64) -> PaymentEvent {
    let money = Money::new(minor, Currency::new("USD").unwrap()).unwrap();
    let breakdown = Some(Breakdown::new(money, tax, discount).unwrap());
    let status = PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown };
    event_for(payment, message, status)
}

async fn order(world: &World, payment: &str, minor: i64) -> OrderId {
    world.order(OrderSpec { amount_minor: minor, ..OrderSpec::paid_by(payment) }).await
}

async fn by_terms(world: &World, order: OrderId, terms: &str, discount_max_minor: Option<i64>) {
    let max = discount_max_minor.map_or("NULL".to_owned(), |max| max.to_string());
    let set = format!("price_terms = '{terms}', discount_max_minor = {max}");
    world.execute(&format!("UPDATE orders SET {set} WHERE id = '{order}'")).await;
}

/// The workers refuse these events. The messages become dead letters and are collected.
async fn refused(world: &World, events: &[PaymentEvent]) {
    let worker = world.start_worker();
    for event in events {
        world.publish(event).await;
    }
    let ops = RunningOps::start(world);
    let all = i64::try_from(events.len()).unwrap();
    let open = "SELECT count(*) FROM dead_letters WHERE reason = 'amount_mismatch'";
    eventually("all are collected", async || world.count(open).await == all).await;
    world.settled(worker).await;
    ops.stop().await;
}

fn object(printed: &str) -> Value {
    serde_json::from_str(printed).unwrap_or_else(|error| panic!("{error}: {printed}"))
}

fn line(printed: &Value, order: OrderId) -> Value {
    let lines = printed["orders"].as_array().unwrap();
    lines.iter().find(|line| line["order_id"] == order.to_string()).unwrap_or_else(|| panic!("{printed}")).clone()
}

async fn price(world: &World, order: OrderId) -> i64 {
    world.count(&format!("SELECT amount_minor FROM orders WHERE id = '{order}'")).await
}

#[tokio::test]
async fn a_group_costs_what_was_paid_and_is_replayed() {
    let world = World::new().await;
    let total = order(&world, "pi_1", 2999).await;
    let tax = order(&world, "pi_2", 1000).await;
    by_terms(&world, tax, "before_tax", None).await;
    let discount = order(&world, "pi_3", 2500).await;
    by_terms(&world, discount, "before_tax_and_discount", Some(500)).await;
    // The prices of these orders stay.
    let too_much_off = order(&world, "pi_4", 2500).await;
    by_terms(&world, too_much_off, "before_tax_and_discount", Some(500)).await;
    let differ = order(&world, "pi_5", 1000).await;
    let below_max = order(&world, "pi_6", 2500).await;
    by_terms(&world, below_max, "before_tax_and_discount", Some(2500)).await;
    let events = [
        event_for("pi_1", "evt_1", captured(1999)),
        event_for("pi_1", "evt_1b", captured(1999)),
        parted("pi_2", "evt_2", 960, 160, 0),
        parted("pi_3", "evt_3", 2160, 160, 300),
        parted("pi_4", "evt_4", 1900, 0, 600),
        event_for("pi_5", "evt_5", captured(700)),
        event_for("pi_5", "evt_5b", captured(800)),
        parted("pi_6", "evt_6", 2000, 0, 0),
    ];
    refused(&world, &events).await;

    let (exit, printed) = dlq(&world, &["amend", "--to-what-was-paid", "--all", "--json"]).await;
    let looked = object(&printed);
    assert_eq!((exit, &looked["outcome"]), (Some(0), &json!("looked")), "{printed}");
    assert_eq!((&looked["would_amend"], &looked["stays"]), (&json!(3), &json!(3)), "{printed}");
    for (order, before, after) in [(total, 2999, 1999), (tax, 1000, 800), (discount, 2500, 2300)] {
        let line = line(&looked, order);
        assert_eq!((&line["outcome"], &line["reason"]), (&json!("would_amend"), &Value::Null), "{line}");
        assert_eq!(line["before"]["amount_minor"], before, "{line}");
        assert_eq!(line["after"], json!({"amount_minor": after, "currency": "USD"}), "{line}");
        assert!(line["detail"].as_str().unwrap().contains("would grant 100 credits"), "{line}");
        assert_eq!(price(&world, order).await, before, "nothing is changed without --yes");
    }
    assert_eq!(line(&looked, total)["letters"].as_array().unwrap().len(), 2);
    for (order, reason) in
        [(too_much_off, "discount_above_limit"), (differ, "letters_differ"), (below_max, "below_discount_max")]
    {
        let line = line(&looked, order);
        assert_eq!((&line["outcome"], &line["reason"]), (&json!("stays"), &json!(reason)), "{line}");
    }
    let (_, text) = dlq(&world, &["amend", "--to-what-was-paid", "--all"]).await;
    for part in ["29.99 USD → 19.99 USD", "stays at", "3 orders to be amended, 3 stay", "nothing was changed. To amend"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(world.count("SELECT count(*) FROM audit_log").await, 0);

    // First one order alone, then all.
    let args = ["--to-what-was-paid", "--yes", "--reason", "tax, ticket 4711", "--as", "ada", "--json"];
    let (exit, printed) = dlq(&world, &[&["amend", "--payment", "pi_2"][..], &args].concat()).await;
    assert_eq!((exit, &object(&printed)["amended"]), (Some(0), &json!(1)), "{printed}");
    assert_eq!((price(&world, tax).await, price(&world, total).await), (800, 2999));
    let (exit, printed) = dlq(&world, &[&["amend", "--all"][..], &args].concat()).await;
    let done = object(&printed);
    // Some prices stay, so the exit code is 1: an operator has to look.
    assert_eq!((exit, &done["amended"], &done["stays"]), (Some(1), &json!(2), &json!(4)), "{printed}");
    assert_eq!(line(&done, total)["outcome"], "amended");
    assert_eq!(line(&done, tax)["reason"], "not_mismatched", "the order already costs what was paid");
    assert_eq!((price(&world, discount).await, price(&world, total).await), (2300, 1999));
    let audited = "SELECT count(DISTINCT subject) FROM audit_log WHERE action = 'order.amend' AND actor = 'ada'
                       AND reason = 'tax, ticket 4711' AND count = 1";
    assert_eq!(world.count(audited).await, 3, "a line for each order");
    assert_eq!(world.count("SELECT count(*) FROM audit_log").await, 3);
    assert_eq!(world.grants().await, 0, "only a worker grants");

    // The same call again changes nothing.
    let (exit, printed) = dlq(&world, &[&["amend", "--all"][..], &args].concat()).await;
    assert_eq!((exit, &object(&printed)["outcome"]), (Some(1), &json!("nothing_to_amend")), "{printed}");
    let worker = world.start_worker();
    let replay = ["replay", "--reason-is", "amount_mismatch", "--yes", "--reason", "amended", "--json"];
    let (exit, printed) = dlq(&world, &replay).await;
    assert_eq!(exit, Some(0), "{printed}");
    world.settled(worker).await;
    assert_eq!(world.grants().await, 3);
    for order in [total, tax, discount] {
        assert_eq!(world.status(order).await, "fulfilled");
    }
    for order in [too_much_off, differ, below_max] {
        assert_eq!(world.status(order).await, "awaiting_payment");
    }
    world.verify().await;
}

#[tokio::test]
async fn what_is_granted_or_unknown_or_unreadable_stays() {
    let world = World::new().await;
    let order = order(&world, "pi_1", 1000).await;
    refused(&world, &[event_for("pi_1", "evt_1", captured(700))]).await;
    let letter = the_letter(&world.store()).await;
    // Then the buyer pays the right amount.
    let worker = world.start_worker();
    world.publish(&event_for("pi_1", "evt_2", captured(1000))).await;
    eventually("it is granted", async || world.grants().await == 1).await;
    world.settled(worker).await;
    let look = ["amend", "--to-what-was-paid", "--order", &order.to_string(), "--json"];
    let (_, printed) = dlq(&world, &look).await;
    assert_eq!(line(&object(&printed), order)["reason"], "granted", "{printed}");

    world.execute("UPDATE dead_letters SET body = convert_to('{}', 'UTF8'), body_bytes = 2").await;
    let (_, printed) = dlq(&world, &["amend", "--to-what-was-paid", &letter.id.to_string(), "--json"]).await;
    let only = object(&printed)["orders"][0].clone();
    assert_eq!((&only["order_id"], &only["reason"]), (&Value::Null, &json!("unreadable")), "{printed}");
    world.execute("UPDATE dead_letters SET body = NULL").await;
    let (_, text) = dlq(&world, &["amend", "--to-what-was-paid", "--all"]).await;
    assert!(text.contains("its body was emptied"), "{text}");
}

#[tokio::test]
async fn prices_are_not_changed_by_mistake() {
    let world = World::new().await;
    for args in [
        &["amend", "--all"][..],
        &["amend", "--to-what-was-paid"],
        &["amend", "--to-what-was-paid", "--all", "--yes"],
        &["amend", "--to-what-was-paid", "--reason-is", "currency_mismatch"],
    ] {
        assert_eq!(dlq(&world, args).await.0, Some(2), "{args:?}");
    }
    let args = ["amend", "--to-what-was-paid", "--all", "--yes", "--reason", "x"];
    let (exit, printed) = dlq(&world, &args).await;
    assert_eq!((exit, printed.contains("nothing was changed")), (Some(0), true), "{printed}");
}

#[tokio::test]
async fn one_look_takes_so_many_letters_and_says_that_there_are_more() {
    let world = World::new().await;
    world
        .execute(
            "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail, origin,
                 attempts, provider, state_at, first_seen_at, last_seen_at)
             SELECT gen_random_uuid(), 'stripe::' || n, '', '', '{}', 'x', 1, 'amount_mismatch', '', '', 'worker', 1, 'stripe', now(),
                 now() - n * interval '1 s', now() FROM generate_series(1, 2100) n",
        )
        .await;
    let (exit, printed) = dlq(&world, &["amend", "--to-what-was-paid", "--all", "--json"]).await;
    let looked = object(&printed);
    assert_eq!((exit, &looked["is_cut"], &looked["stays"]), (Some(0), &json!(true), &json!(2_000)));
    let (_, printed) = dlq(&world, &["amend", "--to-what-was-paid", "--newer-than", "90s", "--json"]).await;
    assert_eq!(object(&printed)["is_cut"], false);
    let (_, text) = dlq(&world, &["amend", "--to-what-was-paid", "--all"]).await;
    assert!(text.contains("narrow the letters down"), "{text}");
}

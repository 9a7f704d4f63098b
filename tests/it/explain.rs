//! `grantonce explain`, as people and programs call it.

use crate::contract::schema::Schema;
use crate::support::{OrderSpec, World, captured, event_for, eventually};
use grantonce::domain::{OrderId, PaymentEvent, PaymentStatus};
use serde_json::Value;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use uuid::Uuid;

static SCHEMA: LazyLock<Schema> =
    LazyLock::new(|| Schema::new(serde_json::from_str(include_str!("../../contract/story.v1.schema.json")).unwrap()));

const LETTER: &str = "0d9f0000-0000-4000-8000-000000000001";

async fn run(database_url: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"))
        .arg("explain")
        .args(arguments)
        .env_clear()
        .env("DATABASE_URL", database_url)
        .output()
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The story as text: found, within the columns, and without colours.
async fn text(world: &World, id: &str) -> String {
    let (exit, printed, told) = run(&world.database_url, &[id]).await;
    assert_eq!(exit, Some(0), "{printed}{told}");
    for line in printed.lines() {
        let is_one_word = line.trim().split(' ').count() == 1;
        assert!(line.chars().count() <= 120 || is_one_word, "{line}");
    }
    assert!(!printed.contains('\x1b'), "{printed:?}");
    printed
}

/// The story as JSON: found, in the documented form, and without an undocumented field.
async fn json(world: &World, arguments: &[&str]) -> Value {
    let (exit, printed, told) = run(&world.database_url, &[arguments, &["--json"]].concat()).await;
    assert_eq!(exit, Some(0), "{printed}{told}");
    let story: Value = serde_json::from_str(&printed).unwrap();
    SCHEMA.check(&story).unwrap();
    let defs = &SCHEMA.root()["$defs"];
    is_documented(&story, SCHEMA.root());
    let list = |value: &Value| value.as_array().unwrap().clone();
    for order in list(&story["orders"]) {
        is_documented(&order, &defs["order"]);
        list(&order["missing"]).iter().for_each(|missing| is_documented(missing, &defs["missing"]));
    }
    for entry in list(&story["entries"]) {
        is_documented(&entry, &defs[entry["kind"].as_str().unwrap()]);
    }
    story
}

fn is_documented(object: &Value, schema: &Value) {
    let names = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(object), names(&schema["properties"]), "{object}");
}

fn kinds(story: &Value) -> Vec<&str> {
    story["entries"].as_array().unwrap().iter().map(|entry| entry["kind"].as_str().unwrap()).collect()
}

fn entry<'a>(story: &'a Value, kind: &str) -> &'a Value {
    let entries = story["entries"].as_array().unwrap();
    entries.iter().find(|entry| entry["kind"] == kind).unwrap_or_else(|| panic!("no {kind} in {story:#}"))
}

fn codes(story: &Value) -> Vec<&str> {
    let missing = story["summary"]["missing"].as_array().unwrap();
    missing.iter().map(|missing| missing["code"].as_str().unwrap()).collect()
}

/// A dead letter as the collector writes it.
async fn letter(world: &World, event: &PaymentEvent, reason: &str, order: Option<OrderId>) {
    sqlx::query(
        "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail, origin,
                                   attempts, provider, payment_id, payment_ids, order_id, said, said_type, said_state, amount_minor,
                                   currency, is_read, state_at, first_seen_at, last_seen_at, seen)
         VALUES ($1, $2, 'payment-status.v1', 'payment.stripe', '{}', 'buyer''s name', 12, $3, 'a cause', 'the detail', 'worker',
                 4, 'stripe', $4, ARRAY[$4], $5, 'captured 19.99 USD', 'captured', 'succeeded', 1999, 'USD', true, now(), now(),
                 now(), 2)",
    )
    .bind(Uuid::parse_str(LETTER).unwrap())
    .bind(event.message_id.as_str())
    .bind(reason)
    .bind(event.payment_id.as_str())
    .bind(order.map(|order| order.0))
    .execute(&world.sql)
    .await
    .unwrap();
}

/// A payment that came before its order, with another amount, three times, and half of it refunded.
async fn a_long_life(world: &World) -> OrderId {
    let worker = world.start_worker();
    let pending = event_for("pi_1", "evt_early", PaymentStatus::Pending);
    world.publish(&pending).await;
    let put_off = "grantonce_messages_total{outcome=\"put_off\"}";
    eventually("the early message is put off", async || worker.metric(put_off) > 0).await;
    let order = world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_1") }).await;
    eventually("the early message is admitted", async || world.admitted().await == 1).await;

    let amend = ["orders", "amend", &order.to_string(), "--amount-minor", "1999", "--currency", "USD"];
    let amended = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"))
        .args(amend)
        .args(["--reason", "promotion code SPRING", "--as", "ada"])
        .env_clear()
        .env("DATABASE_URL", &world.database_url)
        .output();
    assert!(amended.await.unwrap().status.success());

    let paid = event_for("pi_1", "evt_paid", captured(1999));
    world.publish(&paid).await;
    eventually("it is granted", async || world.grants().await == 1).await;
    world.publish_all(&[paid.clone(), paid]).await;
    let PaymentStatus::Captured { money, .. } = captured(1000) else { unreachable!() };
    world.publish(&event_for("pi_1", "evt_refund", PaymentStatus::RefundedTotal { money })).await;
    eventually("it is refunded", async || world.status(order).await == "partially_refunded").await;
    world.settled(worker).await;
    world
        .execute(&format!(
            "INSERT INTO provider_looks (provider, payment_id, order_id, created_at, due_at, asked_at, said)
             VALUES ('stripe', 'pi_1', '{order}', now(), now() + interval '1 day', now(), 'paid');
             INSERT INTO payment_attempts VALUES ('{order}', 1, now(), now(), false, 'pi_1', 'a secret', 'https://pay.example');
             UPDATE orders SET metadata = '{{\"name\": \"a secret\"}}'"
        ))
        .await;
    order
}

#[tokio::test]
async fn an_orders_life_is_told_from_its_beginning_to_its_end() {
    let world = World::new().await;
    let order = a_long_life(&world).await;
    let story = json(&world, &[&order.to_string()]).await;
    assert_eq!(story["subject"]["kind"], "order");
    assert_eq!((&story["summary"]["needs_attention"], codes(&story).len()), (&false.into(), 0), "{story:#}");
    assert_eq!(story["summary"]["text"], "partially_refunded: 49 of 100 credits are left with acc");
    assert_eq!(story["orders"][0]["payment_ids"], serde_json::json!(["pi_1"]));

    let told = kinds(&story);
    assert_eq!(told[0], "message_put_off", "it came first: {told:?}");
    let at = |kind: &str| told.iter().position(|known| *known == kind).unwrap_or_else(|| panic!("{kind}: {told:?}"));
    assert!(at("message_put_off") < at("order_created"));
    assert!(at("order_created") < at("order_amended") && at("order_amended") < at("credits_granted"));
    assert!(at("credits_granted") < at("credits_adjusted") && at("credits_adjusted") < at("provider_asked"));
    assert_eq!(told.iter().filter(|kind| **kind == "message_admitted").count(), 3);
    let created = entry(&story, "order_created");
    assert_eq!((&created["amount_minor"], &created["currency"]), (&2999.into(), &"USD".into()), "the price of then");
    assert_eq!(entry(&story, "order_amended")["after"]["amount_minor"], 1999);
    assert_eq!(entry(&story, "message_put_off")["is_waiting"], false);
    let admitted = |id: &str| {
        let entries = story["entries"].as_array().unwrap().iter();
        let mut of_it = entries.filter(|entry| entry["kind"] == "message_admitted" && entry["message_id"] == id);
        of_it.next().unwrap().clone()
    };
    let paid = admitted("stripe::evt_paid");
    assert_eq!((&paid["decision"], &paid["credits"], &paid["copies"]), (&"granted".into(), &100.into(), &2.into()));
    let refund = admitted("stripe::evt_refund");
    assert_eq!(
        (&refund["decision"], &refund["credits"], &refund["said"]),
        (&"adjusted".into(), &(-51).into(), &"refunded_total".into())
    );
    assert_eq!(admitted("stripe::evt_early")["decision"], "nothing");
    assert_eq!(entry(&story, "credits_adjusted")["is_message_pruned"], false);
    assert!(!story.to_string().contains("secret"), "{story:#}");

    let printed = text(&world, &order.to_string()).await;
    for part in [
        "49 of 100 credits are left",
        "put off",
        "amended from 2999 USD (minor units) to 1999 USD (minor units) by ada (self-declared): promotion code SPRING",
        "+100 credits granted to acc by stripe::evt_paid",
        "2 copies had no effect",
        "-51 credits, adjustment 1 (partially_refunded)",
        "stripe was asked about pi_1: paid",
    ] {
        let flat = printed.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(flat.contains(part), "{part}: {printed}");
    }
    assert!(!printed.contains("secret"), "{printed}");

    // The id of the payment gives the same story. A message has its own part of it.
    let by_payment = json(&world, &["pi_1"]).await;
    assert_eq!((&by_payment["subject"]["kind"], &by_payment["entries"]), (&"payment".into(), &story["entries"]));
    let by_message = json(&world, &["stripe::evt_paid"]).await;
    assert_eq!(by_message["subject"]["kind"], "message");
    assert_eq!(kinds(&by_message), ["message_admitted", "credits_granted"]);
    assert_eq!(by_message["orders"][0]["order_id"], order.to_string());
    let newest = json(&world, &[&order.to_string(), "--limit", "2"]).await;
    assert_eq!((kinds(&newest).len(), &newest["entries_left_out"]), (2, &(told.len() - 2).into()));
}

#[tokio::test]
async fn what_was_pruned_is_said_to_be() {
    let world = World::new().await;
    let order = a_long_life(&world).await;
    world.execute("DELETE FROM inbox; DELETE FROM message_notes; UPDATE orders SET created_at = '2020-01-01'").await;
    let story = json(&world, &[&order.to_string()]).await;
    assert_eq!(entry(&story, "credits_granted")["is_message_pruned"], true);
    assert_eq!(entry(&story, "credits_adjusted")["is_message_pruned"], true);
    assert!(entry(&story, "credits_granted")["text"].as_str().unwrap().contains("no longer has"));
    assert!(story["gaps"][0].as_str().unwrap().contains("no longer kept"), "{story:#}");
}

#[tokio::test]
async fn a_payment_without_an_order_has_its_story_too() {
    let world = World::new().await;
    let worker = world.start_worker();
    let named = OrderId(Uuid::now_v7());
    let event = PaymentEvent { order_id: Some(named), ..event_for("pi_9", "evt_9", captured(1999)) };
    world.publish(&event).await;
    eventually("it is put off", async || worker.metric("grantonce_messages_total{outcome=\"put_off\"}") > 0).await;
    eventually("that is noted", async || world.count("SELECT count(*) FROM message_notes").await == 1).await;
    let story = json(&world, &["pi_9"]).await;
    assert_eq!((kinds(&story), codes(&story)), (vec!["message_put_off"], vec!["message_waiting"]));
    assert_eq!(entry(&story, "message_put_off")["is_waiting"], true);
    assert_eq!(story["summary"]["needs_attention"], false);

    let by_order = json(&world, &[&named.to_string()]).await;
    assert_eq!((&by_order["subject"]["kind"], &by_order["orders"]), (&"order".into(), &serde_json::json!([])));
    assert_eq!((kinds(&by_order), codes(&by_order)), (vec!["message_put_off"], vec!["message_waiting"]));

    letter(&world, &event, "unknown_payment", None).await;
    worker.drain().await;
    for (id, kind) in [("pi_9", "payment"), ("stripe::evt_9", "message"), (LETTER, "letter")] {
        let story = json(&world, &[id]).await;
        assert_eq!(story["subject"]["kind"], kind);
        assert_eq!((kinds(&story), codes(&story)), (vec!["message_put_off", "letter_received"], vec!["letter_open"]));
        assert_eq!(entry(&story, "message_put_off")["is_waiting"], false);
        assert_eq!(story["summary"]["needs_attention"], true);
        let printed = text(&world, id).await;
        assert!(printed.contains("create the order with this payment") && printed.contains(LETTER), "{printed}");
    }
}

#[tokio::test]
async fn a_dead_letter_of_an_order_is_what_is_missing() {
    let world = World::new().await;
    let order = world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_1") }).await;
    let other = world.order(OrderSpec { account: "other", ..OrderSpec::paid_by("pi_2") }).await;
    letter(&world, &event_for("pi_1", "evt_1", captured(1999)), "amount_mismatch", None).await;
    let story = json(&world, &[&order.to_string()]).await;
    assert_eq!(codes(&story), ["letter_open", "payment_not_applied"]);
    let missing = &story["summary"]["missing"][0];
    assert_eq!(missing["text"], "paid, but the message is a dead letter: amount_mismatch");
    let next = missing["next"].as_str().unwrap();
    assert!(next.contains(&format!("grantonce dlq show {LETTER}")) && next.contains("orders amend"), "{next}");
    let not_applied = &story["summary"]["missing"][1];
    assert_eq!(
        not_applied["text"],
        format!("a payment of 19.99 USD is reported and not applied: dead letter {LETTER}")
    );
    assert_eq!(codes(&json(&world, &[&other.to_string()]).await), ["awaiting_payment"], "it is not about this one");

    world
        .execute(&format!(
            "UPDATE dead_letters SET state = 'archived', state_by = 'ada', state_reason = 'a test payment', replays = 1;
             INSERT INTO replays (created_at, actor, is_self_declared, reason, selection, per_s_max, pace, state, letters, busy_until)
             VALUES (now(), 'bob', true, 'tax', '{{}}', 1, 'steady', 'finished', 1, now());
             INSERT INTO replay_letters VALUES (1, 1, '{LETTER}', 1, 'dead_again', now(), now(), now());
             INSERT INTO audit_log (at, actor, is_self_declared, action, subject, reason)
             VALUES (now(), 'ada', false, 'letters.archive', 'letter {LETTER}', 'a test payment')"
        ))
        .await;
    let story = json(&world, &[LETTER]).await;
    assert_eq!(kinds(&story), ["letter_received", "letter_changed", "letter_replayed", "acted_by_hand"]);
    assert_eq!(entry(&story, "letter_changed")["actor"], "ada");
    assert_eq!(
        (&entry(&story, "letter_replayed")["actor"], &entry(&story, "letter_replayed")["state"]),
        (&"bob".into(), &"dead_again".into())
    );
    assert_eq!(story["orders"][0]["order_id"], order.to_string());
    assert_eq!(codes(&story), ["awaiting_payment"], "what is archived is missed by nobody");
    assert_eq!(
        story["summary"]["missing"][0]["text"],
        format!("a payment of 19.99 USD was reported and not applied: dead letter {LETTER} is archived by ada")
    );
}

#[tokio::test]
async fn an_accounts_orders_are_listed_the_newest_first_and_bounded() {
    let world = World::new().await;
    let mut orders = vec![];
    for n in 0..4 {
        orders.push(world.order(OrderSpec::paid_by(&format!("pi_{n}"))).await.to_string());
    }
    letter(&world, &event_for("pi_3", "evt_1", captured(1)), "amount_mismatch", None).await;
    let story = json(&world, &["acc", "--limit", "3"]).await;
    assert_eq!((&story["subject"]["kind"], &story["summary"]["needs_attention"]), (&"account".into(), &true.into()));
    let listed: Vec<_> =
        story["orders"].as_array().unwrap().iter().map(|order| order["order_id"].as_str().unwrap()).collect();
    assert_eq!(listed, [&orders[3], &orders[2], &orders[1]]);
    let attention: Vec<_> = story["orders"].as_array().unwrap().iter().map(|order| &order["needs_attention"]).collect();
    assert_eq!(attention, [true, false, false]);
    let printed = text(&world, "acc").await;
    assert!(
        printed.contains("orders shown: 4; 1 of them need attention") && printed.contains("0/100 credits"),
        "{printed}"
    );
}

#[tokio::test]
async fn every_way_to_end_has_its_exit_code() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let (exit, printed, _) = run(&world.database_url, &["nobody's"]).await;
    assert_eq!(exit, Some(1));
    for kind in ["order:", "letter:", "message:", "payment:", "account:", "GRANTONCE_INBOX_RETENTION"] {
        assert!(printed.contains(kind), "{printed}");
    }
    let (exit, printed, _) = run(&world.database_url, &[&order.to_string(), "--kind", "payment", "--json"]).await;
    let printed: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(
        (exit, &printed["found"], &printed["looked_for"]),
        (Some(1), &false.into(), &serde_json::json!(["payment"]))
    );
    assert_eq!(run(&world.database_url, &["x", "--kind", "person"]).await.0, Some(2));
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("postgres://u@{}/x", closed.local_addr().unwrap());
    drop(closed);
    assert_eq!(run(&nobody, &["x"]).await.0, Some(3));
}

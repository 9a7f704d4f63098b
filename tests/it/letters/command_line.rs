//! `grantonce dlq`, as an operator types it.

use super::{RunningOps, unknown_payments};
use crate::support::world::{OrderSpec, World};
use grantonce::broker::DEAD_QUEUE;
use grantonce_testkit::wait::eventually;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::process::Stdio;

fn command(world: &World, args: &[&str]) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.arg("dlq").args(args).env_clear();
    command
        .env("DATABASE_URL", &world.database_url)
        .env("AMQP_URL", &world.amqp_url)
        .env("GRANTONCE_LIVEMODE", "false");
    command
}

/// Runs `grantonce dlq`. Returns its exit code and its output.
pub async fn dlq(world: &World, args: &[&str]) -> (Option<i32>, String) {
    let output = command(world, args).output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(!told.contains("panicked"), "{told}");
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

pub fn lines(printed: &str) -> Vec<Value> {
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn the_way_from_a_list_to_resolved() {
    let world = World::new().await;
    unknown_payments(&world, 3).await;
    let (exit, printed) = dlq(&world, &["list", "--json"]).await;
    let letters = lines(&printed);
    assert_eq!((exit, letters.len()), (Some(0), 3));
    let letter = letters.iter().find(|letter| letter["payment_id"] == "pi_2").unwrap();
    let id = letter["id"].as_str().unwrap();
    let (_, groups) = dlq(&world, &["list", "--groups", "--json"]).await;
    assert_eq!(lines(&groups)[0]["letters"], 3);
    let (_, none) = dlq(&world, &["list", "--reason-is", "amount_mismatch"]).await;
    assert_eq!(none, "no such letters\n");

    let (exit, shown) = dlq(&world, &["show", id]).await;
    assert_eq!(exit, Some(0));
    for part in ["cause ", "no order has payment pi_2 at stripe", "captured 19.99 USD", "\"payment_id\": \"pi_2\""] {
        assert!(shown.contains(part), "{part}: {shown}");
    }

    // A replay would help none of them. The command sends nothing and prints this.
    let (exit, printed) = dlq(&world, &["replay", "--all", "--yes", "--reason", "try"]).await;
    assert_eq!(exit, Some(1), "{printed}");
    assert!(printed.contains("3 order_unknown") && printed.contains("nothing was sent"), "{printed}");

    world.orders(3).await;
    let (exit, looked) = dlq(&world, &["replay", "--all", "--json"]).await;
    let looked: Value = serde_json::from_str(&looked).unwrap();
    assert_eq!((exit, &looked["outcome"]), (Some(0), &"looked".into()));
    assert_eq!((&looked["preview"]["credits"], &looked["preview"]["helpful"]), (&300.into(), &3.into()));
    assert_eq!(world.count("SELECT count(*) FROM replays").await, 0, "nothing is changed without --yes");

    let worker = world.start_worker();
    let args = ["replay", "--all", "--yes", "--reason", "orders made, ticket 4711", "--as", "ada", "--json"];
    let (exit, printed) = dlq(&world, &args).await;
    let done: Value = serde_json::from_str(&printed).unwrap();
    assert_eq!((exit, &done["replay"]["counts"]["resolved"]), (Some(0), &3.into()), "{printed}");
    assert_eq!((&done["replay"]["actor"], &done["replay"]["is_self_declared"]), (&"ada".into(), &true.into()));
    world.settled(worker).await;
    assert_eq!(world.grants().await, 3);
    let (_, printed) = dlq(&world, &["list", "--state", "resolved", "--json"]).await;
    assert_eq!(lines(&printed).len(), 3);
    world.verify().await;
}

#[tokio::test]
async fn what_is_archived_can_be_restored_and_counted() {
    let world = World::new().await;
    unknown_payments(&world, 2).await;
    let (exit, printed) = dlq(&world, &["archive", "--payment", "pi_1", "--reason", "refunded by hand"]).await;
    assert_eq!((exit, printed.as_str()), (Some(0), "archived: 1 letters\n"));
    let (exit, _) = dlq(&world, &["archive", "--payment", "pi_1", "--reason", "again"]).await;
    assert_eq!(exit, Some(1), "there is none left");
    let (_, stats) = dlq(&world, &["stats", "--json"]).await;
    let stats: Value = serde_json::from_str(&stats).unwrap();
    assert_eq!((&stats["letters"]["open"], &stats["letters"]["archived"]), (&1.into(), &1.into()));
    assert_eq!(stats["queues"]["dead"]["ready"], 0);
    let (exit, _) = dlq(&world, &["restore", "--payment", "pi_1", "--reason", "not refunded"]).await;
    assert_eq!(exit, Some(0));
    let (_, text) = dlq(&world, &["stats"]).await;
    assert!(text.contains("2 open: unexplained"), "{text}");
}

#[tokio::test]
async fn too_much_is_not_done_by_mistake() {
    let world = World::new().await;
    for args in [
        &["replay"][..],
        &["archive", "--reason", "x"],
        &["restore", "--reason", "x"],
        &["replay", "--all", "--yes"],
        &["list", "--reason-is", "nonsense"],
        &["show", "not-a-letter"],
    ] {
        assert_eq!(dlq(&world, args).await.0, Some(2), "{args:?}");
    }
    let (exit, printed) = dlq(&world, &["show", "5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f"]).await;
    assert_eq!((exit, printed.contains("there is no letter")), (Some(1), true));
    let unreachable =
        command(&world, &["list"]).env("DATABASE_URL", "postgres://u@127.0.0.1:1/x").output().await.unwrap();
    assert_eq!(unreachable.status.code(), Some(3));
}

#[tokio::test]
async fn without_a_database_the_brokers_own_letters_can_be_looked_at_again_and_again() {
    let world = World::new().await;
    world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_1") }).await;
    let worker = world.start_worker();
    world.publish(&super::paid("pi_1", "evt_1")).await;
    eventually("it is a dead letter", async || world.ready(DEAD_QUEUE).await == 1).await;
    worker.drain().await;
    for _ in 0..30 {
        let mut peek = command(&world, &["peek", "--json"]);
        let output = peek.env("DATABASE_URL", "postgres://u@127.0.0.1:1/x").output().await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let letters = lines(std::str::from_utf8(&output.stdout).unwrap());
        assert_eq!(letters.len(), 1);
        assert_eq!(
            (&letters[0]["reason"], &letters[0]["message_id"]),
            (&"amount_mismatch".into(), &"stripe::evt_1".into())
        );
    }
    // The dead letter is still there and unchanged.
    let (ops, store) = (RunningOps::start(&world), world.store());
    assert_eq!(super::the_letter(&store).await.reason, "amount_mismatch");
    ops.stop().await;
}

#[tokio::test]
async fn a_queue_that_a_look_could_empty_is_not_looked_at() {
    let world = World::new().await;
    let (connection, channel) = world.channel().await;
    channel.queue_delete(DEAD_QUEUE.into(), Default::default()).await.unwrap();
    let mut arguments = lapin::types::FieldTable::default();
    arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), lapin::types::AMQPValue::LongLongInt(2));
    let options = lapin::options::QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(DEAD_QUEUE.into(), options, arguments).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
    let output = command(&world, &["peek"]).output().await.unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("may be destroyed"), "{told}");
}

#[tokio::test]
async fn ctrl_c_leaves_what_was_not_sent() {
    let world = World::new().await;
    unknown_payments(&world, 10).await;
    world.orders(10).await;
    // No worker runs. The outcome of the first dead letter stays unknown, and the others wait for it.
    let args = ["replay", "--all", "--yes", "--reason", "ticket 4711"];
    let child = command(&world, &args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let sent = "SELECT count(*) FROM replay_letters WHERE state = 'sent'";
    eventually("the first is sent", async || world.count(sent).await == 1).await;
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let output = child.wait_with_output().await.unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains("canceled") && printed.contains("9 not sent"), "{printed}");
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 9);
}

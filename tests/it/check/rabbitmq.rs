//! Faults at RabbitMQ.

use super::{Checked, Host, check, command, migrate};
use crate::letters::paid;
use crate::support::world::{OrderSpec, World};
use grantonce::broker::DEAD_QUEUE;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::json;

#[tokio::test]
async fn o07_bindings_that_are_gone_are_faults_that_migrate_mends() {
    let world = World::new().await;
    let host = Host::of(&world);
    for (exchange, queue, key) in [
        ("payments", "fulfilment", "payment.*"),
        ("payments.hints", "payments.hints", "payment.*"),
        ("payments.dead", "fulfilment.dead", "%23"),
        ("payments.retry", "fulfilment.retry.500ms", "500ms"),
    ] {
        host.delete(&format!("bindings/{{}}/e/{exchange}/q/{queue}/{key}")).await;
    }
    let gone = check(&world, &[], &[]).await;
    gone.has_faults(&[
        &["queue fulfilment is not bound to exchange payments by", "grantonce migrate"],
        &["queue payments.hints is not bound to exchange payments.hints", "grantonce migrate"],
        &["queue fulfilment.dead is not bound to exchange payments.dead", "grantonce migrate"],
        &["queue fulfilment.retry.500ms is not bound to exchange payments.retry", "grantonce migrate"],
    ]);
    // AMQP alone does not show them, and `check` says so.
    let blind = check(&world, &["--role", "worker"], &[]).await;
    assert_eq!(blind.exit, Some(0), "{blind:?}");
    blind.notes_have("AMQP does not show them: bindings, policies");
    assert_eq!((&gone.said["complete"], &blind.said["complete"]), (&true.into(), &false.into()));
    let printed = command(&world, &["check", "--role", "worker"]).output().await.unwrap().stdout;
    assert!(String::from_utf8(printed).unwrap().ends_with("what was compared is as it must be\n"));
    assert_eq!(migrate(&world).await, Some(0));
    check(&world, &[], &[]).await.is_good();
}

#[tokio::test]
async fn o07_surplus_bindings_are_noted() {
    let world = World::new().await;
    let host = Host::of(&world);
    host.put("queues/{}/archive", json!({"durable": true})).await;
    host.put("exchanges/{}/theirs", json!({"type": "topic", "durable": true})).await;
    for path in
        ["bindings/{}/e/payments/q/archive", "bindings/{}/e/theirs/q/fulfilment", "bindings/{}/e/theirs/e/payments"]
    {
        host.call(reqwest::Method::POST, path, Some(json!({"routing_key": "payment.stripe"}))).await;
    }
    let checked = check(&world, &[], &[]).await;
    checked.is_good();
    checked.notes_have("archive gets a copy of what payments is sent");
    checked.notes_have("fulfilment is also bound to theirs");
    checked.notes_have("payments is also bound to theirs");
}

#[tokio::test]
async fn o07_policies_that_drop_or_divert_are_faults() {
    let world = World::new().await;
    let host = Host::of(&world);
    host.put(
        "policies/{}/everything",
        json!({"pattern": ".*", "apply-to": "all", "definition": {"max-length": 3, "message-ttl": 1000, "expires": 60_000}}),
    )
    .await;
    let checked = check(&world, &[], &[]).await;
    checked.has_faults(&[&[
        "policy \\\"everything\\\" sets expires 60000, max-length 3, message-ttl 1000 on",
        "fulfilment, fulfilment.dead, fulfilment.retry.200ms",
        "rabbitmqctl clear_policy",
    ]]);
    // The remedy works at once, whatever the statistics still say.
    host.delete("policies/{}/everything").await;
    host.put("policies/{}/harmless", json!({"pattern": ".*", "definition": {"queue-leader-locator": "balanced"}}))
        .await;
    host.put(
        "policies/{}/another",
        json!({"pattern": "^other$", "apply-to": "queues", "priority": 5, "definition": {"max-length": 3}}),
    )
    .await;
    check(&world, &[], &[]).await.is_good();

    host.put(
        "operator-policies/{}/dead",
        json!({"pattern": "dead$", "apply-to": "queues", "definition": {"max-length": 9}}),
    )
    .await;
    host.put(
        "policies/{}/alternate",
        json!({"pattern": "^payments$", "apply-to": "exchanges", "priority": 9,
        "definition": {"alternate-exchange": "amq.fanout"}}),
    )
    .await;
    check(&world, &[], &[]).await.has_faults(&[
        &["operator policy \\\"dead\\\" sets max-length 9 on fulfilment.dead", "clear_operator_policy"],
        &["policy \\\"alternate\\\" sets alternate-exchange on payments"],
    ]);
}

#[tokio::test]
async fn o07_exchanges_and_queues_of_another_kind_are_faults() {
    let world = World::new().await;
    let host = Host::of(&world);
    for path in ["exchanges/{}/payments.retry", "queues/{}/payments.hints", "queues/{}/fulfilment.retry.200ms"] {
        host.delete(path).await;
    }
    host.put("exchanges/{}/payments.retry", json!({"type": "fanout", "durable": true})).await;
    host.put(
        "queues/{}/payments.hints",
        json!({"durable": true, "arguments": {"x-queue-type": "quorum", "x-expires": 60_000}}),
    )
    .await;
    let faults = check(&world, &[], &[]).await;
    assert_eq!(faults.exit, Some(1));
    for part in [
        "exchange payments.retry is not durable, of type direct",
        "queue payments.hints has x-expires 60000 instead of nothing",
        "queue payments.hints has x-delivery-limit nothing instead of 100",
        "fulfilment.retry.200ms is missing",
    ] {
        let count = faults.faults().iter().filter(|fault| fault.contains(part)).count();
        assert_eq!(count, 1, "{part}: {:#?}", faults.faults());
    }
    // The user of migrate sees it over AMQP, too, because nothing is missing there.
    host.put(
        "queues/{}/fulfilment.retry.200ms",
        json!({"durable": true, "arguments": {"x-queue-type": "quorum", "x-message-ttl": 200}}),
    )
    .await;
    let mut alone = command(&world, &["check", "--json", "--role", "migrate"]);
    alone.env_remove("GRANTONCE_MANAGEMENT_URL");
    let output = alone.output().await.unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap();
    let seen = Checked { exit: output.status.code(), said, stderr: String::new() };
    assert_eq!(seen.exit, Some(1), "{seen:?}");
    for name in ["payments.retry", "payments.hints", "fulfilment.retry.200ms"] {
        let count = seen.faults().iter().filter(|fault| fault.contains(&format!("{name} exists with another"))).count();
        assert_eq!(count, 1, "{name}: {:#?}", seen.faults());
    }
}

#[tokio::test]
async fn o07_rights_that_are_missing_are_faults_and_trying_them_moves_nothing() {
    let world = World::new().await;
    let host = Host::of(&world);
    let user = format!("check-{}", host.name);
    host.put(&format!("users/{user}"), json!({"password": "p", "tags": ""})).await;
    let permit = async |write: &str, read: &str| {
        let body = json!({"configure": "^$", "write": write, "read": read});
        host.put(&format!("permissions/{{}}/{user}"), body).await;
    };
    let amqp = {
        let mut url = reqwest::Url::parse(&world.amqp_url).unwrap();
        url.set_username(&user).unwrap();
        url.set_password(Some("p")).unwrap();
        url.to_string()
    };
    let as_user = [("AMQP_URL", amqp.as_str())];
    // Each queue contains a message: trying the rights must neither take nor add one.
    world.publish(&paid("pi_1", "evt_1")).await;

    permit("^(payments\\.retry|payments\\.dead)$", "^fulfilment$").await;
    let worker = check(&world, &["--role", "worker"], &as_user).await;
    let plain = check(&world, &[], &as_user).await;
    permit("^payments\\.retry$", "^$").await;
    let lacking = check(&world, &["--role", "worker"], &as_user).await;
    permit("", ".*").await;
    let nothing = check(&world, &[], &as_user).await;
    let depth = world.ready("fulfilment").await;
    let dead = world.ready(DEAD_QUEUE).await;
    let redelivered = {
        let (connection, channel) = world.channel().await;
        let got = channel.basic_get("fulfilment".into(), Default::default()).await.unwrap().unwrap();
        connection.close(200, "done".into()).await.unwrap();
        got.delivery.redelivered
    };
    host.delete(&format!("users/{user}")).await;

    worker.is_good();
    worker.notes_have("this user has the rights of: worker");
    plain.is_good();
    plain.notes_have("this user lacks rights of: migrate, receiver, reconciler, ops");
    lacking.has_faults(&[
        &["this broker user may not consume fulfilment", "`read` on fulfilment"],
        &["this broker user may not publish to payments.dead", "grantonce-worker"],
    ]);
    nothing.has_faults(&[&["this broker user does not have all rights of any role", "rabbitmq-permissions.sh"]]);
    assert_eq!((depth, dead, redelivered), (1, 0, false), "nothing was moved, and nothing counts as delivered");
}

/// `fulfilment.dead` as an earlier release made it, bound, with one dead letter.
async fn with_an_earlier_dead_queue(world: &World) {
    let (connection, channel) = world.channel().await;
    channel.queue_delete(DEAD_QUEUE.into(), Default::default()).await.unwrap();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(1_000_000_000));
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(DEAD_QUEUE.into(), durable, arguments).await.unwrap();
    let (exchange, options) = ("payments.dead".into(), QueueBindOptions::default());
    channel.queue_bind(DEAD_QUEUE.into(), exchange, "#".into(), options, FieldTable::default()).await.unwrap();
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn o07_the_dead_letters_queue_of_an_earlier_release_is_kept_with_its_letters() {
    let world = World::new().await;
    let host = Host::of(&world);
    with_an_earlier_dead_queue(&world).await;
    let worker = world.start_worker();
    let order = world.order(OrderSpec { amount_minor: 5, ..OrderSpec::paid_by("pi_1") }).await;
    world.publish(&paid("pi_1", "evt_1")).await;
    grantonce_testkit::wait::eventually("a letter is there", async || world.ready(DEAD_QUEUE).await == 1).await;
    assert_eq!(migrate(&world).await, Some(0), "{order}");
    assert_eq!(world.ready(DEAD_QUEUE).await, 1, "migrate touches no letter");
    let checked = check(&world, &[], &[]).await;
    checked.is_good();
    checked.notes_have("is as an earlier release made it, without x-overflow");
    let peeked = command(&world, &["dlq", "peek", "--json"]).output().await.unwrap();
    assert_eq!((peeked.status.code(), peeked.stdout.iter().filter(|byte| **byte == b'\n').count()), (Some(0), 1));

    // The documented way to make it anew: unbind it first, so that its senders keep dead letters.
    host.delete("bindings/{}/e/payments.dead/q/fulfilment.dead/%23").await;
    world.order(OrderSpec { amount_minor: 5, ..OrderSpec::paid_by("pi_2") }).await;
    world.publish(&paid("pi_2", "evt_2")).await;
    let first = world.dead_letter().await;
    assert_eq!(first.properties.message_id().as_ref().unwrap().as_str(), "stripe::evt_1");
    assert_eq!(world.ready(DEAD_QUEUE).await, 0, "nothing comes any more");
    host.delete("queues/{}/fulfilment.dead").await;
    assert_eq!(migrate(&world).await, Some(0));
    let second = world.dead_letter().await;
    assert_eq!(second.properties.message_id().as_ref().unwrap().as_str(), "stripe::evt_2", "its sender kept it");
    worker.drain().await;
    let checked = check(&world, &[], &[]).await;
    checked.is_good();
    assert!(!checked.notes().iter().any(|note| note.contains("earlier release")), "{checked:?}");
}

#[tokio::test]
async fn o07_where_a_policy_limits_dead_letters_the_queue_refuses_and_the_oldest_stays() {
    let world = World::new().await;
    let host = Host::of(&world);
    host.put("policies/{}/short", json!({"pattern": "dead", "apply-to": "queues", "definition": {"max-length": 1}}))
        .await;
    let (connection, channel) = world.channel().await;
    channel.confirm_select(Default::default()).await.unwrap();
    let mut refused = 0;
    for n in 0..20 {
        let body = format!("{n}");
        let confirm = channel
            .basic_publish(
                "payments.dead".into(),
                "payment.x".into(),
                Default::default(),
                body.as_bytes(),
                Default::default(),
            )
            .await
            .unwrap();
        refused += u32::from(matches!(confirm.await.unwrap(), lapin::Confirmation::Nack(_)));
    }
    connection.close(200, "done".into()).await.unwrap();
    assert!(refused > 0, "the broker refuses");
    assert_eq!(world.dead_letter().await.data, b"0", "the oldest letter was not dropped");
    check(&world, &[], &[]).await.has_faults(&[&["sets max-length 1 on fulfilment.dead"]]);
}

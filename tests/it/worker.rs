//! The worker on real servers: which messages are granted, delayed, or become dead letters.

use crate::support::{OrderSpec, World, captured, event_for, eventually};
use grantonce::broker::{DEAD_QUEUE, Headers, Outgoing, PAYMENTS_EXCHANGE, WORK_QUEUE};
use grantonce::config::UnknownPayments;
use grantonce::domain::{OrderId, PaymentEvent, PaymentId, PaymentStatus, ProviderAccount};
use grantonce::message;
use lapin::message::Delivery;
use std::time::Duration;

fn header(letter: &Delivery, name: &str) -> String {
    let headers = letter.properties.headers().as_ref().unwrap();
    let value = &headers.inner()[name];
    value.as_long_string().map_or_else(|| value.as_long_long_int().unwrap().to_string(), ToString::to_string)
}

fn reason(letter: &Delivery) -> String {
    header(letter, "x-grantonce-reason")
}

/// A message of Stripe's with any body.
pub fn raw(body: &[u8]) -> Outgoing {
    Outgoing {
        exchange: PAYMENTS_EXCHANGE,
        routing_key: "payment.stripe".to_owned(),
        message_id: "stripe::raw".to_owned(),
        kind: message::TYPE.to_owned(),
        content_type: message::CONTENT_TYPE,
        headers: Headers::default(),
        body: body.to_vec().into(),
    }
}

#[tokio::test]
async fn fifty_different_events_for_one_payment_grant_once() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let workers = [world.start_worker(), world.start_worker(), world.start_worker()];
    let events: Vec<_> = (0..50).map(|n| event_for("pi_1", &format!("evt_{n}"), captured(1999))).collect();
    world.publish_all(&events).await;
    eventually("all events are admitted", async || world.admitted().await == 50).await;
    for worker in workers {
        worker.drain().await;
    }
    assert_eq!(world.grants().await, 1);
    assert_eq!(world.count("SELECT sum(credits)::bigint FROM account_balances").await, 100);
    assert_eq!(world.status(order).await, "fulfilled");
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
    world.verify().await;
}

#[tokio::test]
async fn a_message_id_is_admitted_once_however_often_it_comes() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let event = event_for("pi_1", "evt_1", captured(1999));
    world.publish_all(&vec![event; 200]).await;
    let workers = [world.start_worker(), world.start_worker()];
    eventually("the grant is there", async || world.grants().await == 1).await;
    let [first, second] = workers;
    eventually("all copies are seen", async || {
        let seen = |name: &str| first.metric(name) + second.metric(name);
        seen("grantonce_inbox_duplicates_total") + seen("grantonce_messages_total{outcome=\"applied\"}") == 200
    })
    .await;
    world.settled(first).await;
    second.drain().await;
    assert_eq!((world.grants().await, world.admitted().await), (1, 1));
}

#[tokio::test]
async fn a_mismatch_is_a_dead_letter_and_grants_when_replayed_after_the_order_was_corrected() {
    let world = World::new().await;
    let order = world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_1") }).await;
    let worker = world.start_worker();
    let event = event_for("pi_1", "evt_1", captured(1999));
    world.publish(&event).await;
    let letter = world.dead_letter().await;
    assert_eq!(reason(&letter), "amount_mismatch");
    let detail = header(&letter, "x-grantonce-detail");
    assert!(detail.contains("2999") && detail.contains("1999") && detail.contains(&order.to_string()), "{detail}");
    assert_eq!(header(&letter, "x-grantonce-routing-key"), "payment.stripe");
    assert_eq!(header(&letter, "x-grantonce-origin"), "worker");
    assert_eq!(header(&letter, "x-grantonce-attempt"), "1");
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "stripe::evt_1");
    assert_eq!(message::decode(&letter.data, event.occurred_at).unwrap(), event, "the body is unchanged");
    assert_eq!((world.grants().await, world.admitted().await), (0, 0), "a refused message leaves no inbox row");

    world.execute("UPDATE orders SET amount_minor = 1999").await;
    world.publish(&event).await;
    eventually("the replay grants", async || world.grants().await == 1).await;
    world.settled(worker).await;
    assert_eq!(world.status(order).await, "fulfilled");
}

#[tokio::test]
async fn what_does_not_fit_the_order_is_a_dead_letter_with_its_reason_and_never_a_grant() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let other = world.order(OrderSpec::paid_by("pi_2")).await;
    let worker = world.start_worker();
    let paid = |message: &str| event_for("pi_1", message, captured(1999));
    let euros = {
        let money = grantonce::domain::Money::new(1999, "EUR".parse().unwrap()).unwrap();
        PaymentStatus::Captured {
            money,
            capture_id: None,
            state: grantonce::domain::CaptureState::Succeeded,
            breakdown: None,
        }
    };
    let cases: Vec<(&str, PaymentEvent)> = vec![
        ("currency_mismatch", PaymentEvent { status: euros, ..paid("evt_eur") }),
        ("amount_mismatch", PaymentEvent { status: captured(1), ..paid("evt_less") }),
        (
            "account_mismatch",
            PaymentEvent {
                provider_account: Some(ProviderAccount::new("acct_other").unwrap()),
                order_id: Some(order),
                ..paid("evt_account")
            },
        ),
        ("payment_conflict", PaymentEvent { order_id: Some(other), ..paid("evt_other_order") }),
        (
            "payment_conflict",
            PaymentEvent { related_ids: vec![PaymentId::new("pi_2").unwrap()], ..paid("evt_related") },
        ),
        ("livemode_mismatch", PaymentEvent { livemode: true, ..paid("evt_live") }),
    ];
    for (expected, event) in cases {
        world.publish(&event).await;
        let letter = world.dead_letter().await;
        assert_eq!(reason(&letter), expected, "{}", event.message_id);
        assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), event.message_id.as_str());
    }
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (0, 0));
}

#[tokio::test]
async fn a_foreign_or_broken_message_is_a_dead_letter_as_it_came() {
    let world = World::new().await;
    let worker = world.start_worker();
    let genuine = message::encode(&event_for("pi_1", "raw", captured(1999))).unwrap();
    let deep = "[".repeat(100_000);
    let cases = [
        ("malformed", raw(b"garbage")),
        ("malformed", raw(b"")),
        ("malformed", raw(deep.as_bytes())),
        // The worker does not copy this one. The broker itself moves it.
        ("rejected", raw(&vec![b' '; 257 * 1024])),
        ("malformed", Outgoing { kind: "something.else".to_owned(), ..raw(&genuine) }),
        ("malformed", Outgoing { message_id: "stripe::other".to_owned(), ..raw(&genuine) }),
        ("provider_mismatch", Outgoing { routing_key: "payment.acme".to_owned(), ..raw(&genuine) }),
    ];
    for (expected, message) in cases {
        world.publish_raw(message.clone()).await;
        let letter = world.dead_letter().await;
        let by_the_broker = ["rejected"].contains(&expected);
        let name = if by_the_broker { "x-first-death-reason" } else { "x-grantonce-reason" };
        assert_eq!(header(&letter, name), expected);
        assert_eq!(letter.data, message.body, "the body is unchanged");
        assert_eq!(letter.routing_key.as_str(), message.routing_key);
    }
    world.settled(worker).await;
    assert_eq!(world.admitted().await, 0);
}

#[tokio::test]
async fn a_message_that_overtakes_its_order_waits_and_then_grants() {
    let world = World::new().await;
    let worker = world.start_worker();
    let event = event_for("pi_late", "evt_1", captured(1999));
    world.publish(&event).await;
    eventually("it is put off", async || worker.metric("grantonce_messages_total{outcome=\"put_off\"}") >= 1).await;
    assert_eq!(world.admitted().await, 0, "a message that waits leaves no inbox row");
    let order = world.order(OrderSpec::paid_by("pi_late")).await;
    eventually("the retry grants", async || world.grants().await == 1).await;
    assert_eq!(world.status(order).await, "fulfilled");
    world.settled(worker).await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
}

#[tokio::test]
async fn a_payment_that_stays_unknown_is_tried_as_often_as_set_and_then_a_dead_letter() {
    let world = World::new().await;
    let worker = world.start_worker();
    let by_our_id = PaymentEvent {
        order_id: Some(OrderId(uuid::Uuid::now_v7())),
        ..event_for("pi_nowhere", "evt_1", captured(1999))
    };
    world.publish(&by_our_id).await;
    let letter = world.dead_letter().await;
    assert_eq!(reason(&letter), "unknown_payment");
    assert_eq!(header(&letter, "x-grantonce-attempt"), "4");
    assert_eq!(header(&letter, "x-grantonce-routing-key"), "payment.stripe");
    assert_eq!(letter.routing_key.as_str(), "payment.stripe");
    let headers = letter.properties.headers().as_ref().unwrap().inner();
    assert!(headers.keys().all(|name| !name.as_str().contains("death")), "the broker's own headers are stripped");
    assert_eq!(worker.metric("grantonce_messages_total{outcome=\"put_off\"}"), 3);
    world.settled(worker).await;
    assert_eq!(world.admitted().await, 0);
}

#[tokio::test]
async fn payments_of_others_are_dropped_where_that_is_set_but_never_one_with_our_order_id() {
    let world = World::new().await;
    let mut settings = world.worker_config();
    settings.unknown_payments = UnknownPayments::Ignore;
    let worker = world.start_worker_with(settings);
    world.publish(&event_for("pi_not_ours", "evt_1", captured(1999))).await;
    let ours = PaymentEvent {
        order_id: Some(OrderId(uuid::Uuid::now_v7())),
        ..event_for("pi_nowhere", "evt_2", captured(1999))
    };
    world.publish(&ours).await;
    let letter = world.dead_letter().await;
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "stripe::evt_2");
    eventually("the other is dropped", async || {
        worker.metric("grantonce_messages_total{outcome=\"ignored_unknown\"}") == 1
    })
    .await;
    world.settled(worker).await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
}

#[tokio::test]
async fn one_id_with_two_contents_is_a_dead_letter_in_one_batch_and_across_batches() {
    let world = World::new().await;
    let held = world.order(OrderSpec::paid_by("pi_held")).await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    world.order(OrderSpec::paid_by("pi_2")).await;
    let first = event_for("pi_1", "evt_1", captured(1999));
    let second = event_for("pi_2", "evt_1", captured(1999));
    let mut settings = world.worker_config();
    settings.batch.workers = 1;
    let worker = world.start_worker_with(settings);
    // Both messages come into one batch, because they wait behind a batch that waits for a lock.
    let mut hold = world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE").bind(held.0).execute(&mut *hold).await.unwrap();
    world.publish(&event_for("pi_held", "evt_held", captured(1999))).await;
    eventually("a transaction waits", async || world.waiting_for_locks().await > 0).await;
    world.publish(&first).await;
    world.publish(&second).await;
    eventually("the worker holds both", async || world.ready(WORK_QUEUE).await == 0).await;
    hold.rollback().await.unwrap();
    let letter = world.dead_letter().await;
    assert_eq!(reason(&letter), "id_reused");
    assert_eq!(letter.data, message::encode(&second).unwrap());
    // The same message again, alone.
    world.publish(&second).await;
    assert_eq!(reason(&world.dead_letter().await), "id_reused");
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (2, 2));
    assert_eq!(world.count("SELECT count(*) FROM orders WHERE status = 'fulfilled'").await, 2);
}

#[tokio::test]
async fn only_what_is_about_a_payment_of_an_earlier_batch_waits_for_that_batch() {
    let world = World::new().await;
    let held = world.order(OrderSpec::paid_by("pi_held")).await;
    let free = world.order(OrderSpec::paid_by("pi_free")).await;
    world.order(OrderSpec::paid_by("pi_wrong")).await;
    let mut settings = world.worker_config();
    // The five messages below become one batch.
    (settings.batch.messages_max, settings.batch.wait) = (5, Duration::from_secs(60));
    let worker = world.start_worker_with(settings);
    let mut hold = world.sql.begin().await.unwrap();
    sqlx::query("SELECT FROM orders WHERE id = $1 FOR UPDATE").bind(held.0).execute(&mut *hold).await.unwrap();
    let first = event_for("pi_held", "evt_held", captured(1999));
    world.publish(&first).await;
    eventually("the first batch waits for the lock", async || world.waiting_for_locks().await == 1).await;
    let wrong_of_held = event_for("pi_held", "evt_held_wrong", captured(1));
    let wrong = event_for("pi_wrong", "evt_wrong", captured(2));
    for event in [&first, &wrong, &wrong_of_held, &event_for("pi_free", "evt_free", captured(1999)), &first] {
        world.publish(event).await;
    }
    eventually("the second batch goes past the first", async || world.status(free).await == "fulfilled").await;
    assert_eq!(world.waiting_for_locks().await, 1, "messages about the held payment wait outside of the database");
    assert_eq!(worker.metric("grantonce_messages_total{outcome=\"applied\"}"), 0, "the batch is not settled in part");
    hold.rollback().await.unwrap();
    let letters = [world.dead_letter().await, world.dead_letter().await];
    let mut refused = letters.map(|letter| {
        assert_eq!(reason(&letter), "amount_mismatch");
        letter.properties.message_id().as_ref().unwrap().to_string()
    });
    refused.sort();
    assert_eq!(refused, ["stripe::evt_held_wrong", "stripe::evt_wrong"]);
    eventually("the copies are counted", async || worker.metric("grantonce_inbox_duplicates_total") == 2).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await, world.status(held).await.as_str()), (2, 2, "fulfilled"));
    world.verify().await;
}

#[tokio::test]
async fn one_malformed_message_among_five_hundred_leaves_the_others_granted() {
    let world = World::new().await;
    world.orders(500).await;
    for n in 0..500 {
        if n == 250 {
            world.publish_raw(raw(b"garbage")).await;
        } else {
            world.publish(&event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).await;
        }
    }
    let worker = world.start_worker();
    eventually("all others are granted", async || world.grants().await == 499).await;
    assert_eq!(reason(&world.dead_letter().await), "malformed");
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (499, 0));
}

#[tokio::test]
async fn one_message_that_the_database_refuses_is_found_among_five_hundred() {
    let world = World::new().await;
    world.orders(500).await;
    world
        .execute(
            "CREATE FUNCTION refuse_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 IF NEW.message_id = 'stripe::evt_137' THEN RAISE EXCEPTION 'not this one' USING ERRCODE = '23514'; END IF;
                 RETURN NEW; END $$;
             CREATE TRIGGER refuse_one BEFORE INSERT ON credit_grants FOR EACH ROW EXECUTE FUNCTION refuse_one()",
        )
        .await;
    let events: Vec<_> = (0..500).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect();
    world.publish_all(&events).await;
    let worker = world.start_worker();
    eventually("all others are granted", async || world.grants().await == 499).await;
    let letter = world.dead_letter().await;
    assert_eq!(reason(&letter), "rejected_by_database");
    assert!(header(&letter, "x-grantonce-detail").contains("23514"));
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "stripe::evt_137");
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await, world.ready(DEAD_QUEUE).await), (499, 499, 0));
    world.verify().await;
}

#[tokio::test]
async fn what_the_inbox_forgot_is_still_not_granted_twice() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let worker = world.start_worker();
    let event = event_for("pi_1", "evt_1", captured(1999));
    world.publish(&event).await;
    eventually("it is granted", async || world.grants().await == 1).await;
    let later = event.occurred_at + time::Duration::days(100);
    let done = world.store().maintain_inbox(later, time::Duration::days(90)).await.unwrap();
    assert!(done.dropped > 0, "{done:?}");
    assert_eq!(world.admitted().await, 0, "the inbox has forgotten");
    world.publish(&event).await;
    eventually("it is admitted anew", async || world.admitted().await == 1).await;
    world.settled(worker).await;
    assert_eq!(world.grants().await, 1);
    assert_eq!(world.count("SELECT count(*) FROM credit_adjustments").await, 0);
    world.verify().await;
}

#[tokio::test]
async fn refunds_and_disputes_take_credits_back_in_any_order() {
    use grantonce::domain::{DisputeState, FactId, Money, RefundState};
    let world = World::new().await;
    let order = world.order(OrderSpec { amount_minor: 1000, ..OrderSpec::paid_by("pi_1") }).await;
    let worker = world.start_worker();
    let dollars = |minor| Money::new(minor, "USD".parse().unwrap()).unwrap();
    let refund = |state| PaymentStatus::Refund { refund_id: FactId::new("re_1").unwrap(), state, money: dollars(500) };
    let dispute = |state| PaymentStatus::Dispute {
        dispute_id: FactId::new("dp_1").unwrap(),
        state,
        round: 1,
        money: dollars(1000),
    };
    let step = async |message: &str, status: PaymentStatus, credits: i64, expected: &str| {
        world.publish(&event_for("pi_1", message, status)).await;
        eventually(&format!("{message} leads to {expected}"), async || world.status(order).await == expected).await;
        let balance = world.count("SELECT coalesce(sum(credits), 0)::bigint FROM account_balances").await;
        assert_eq!(balance, credits, "{message}");
    };
    // The refund arrives before the payment.
    world.publish(&event_for("pi_1", "evt_0", refund(RefundState::Succeeded))).await;
    eventually("the refund is admitted", async || world.admitted().await == 1).await;
    step("evt_1", captured(1000), 50, "partially_refunded").await;
    step("evt_2", dispute(DisputeState::Open), 0, "disputed").await;
    step("evt_3", dispute(DisputeState::Won), 50, "partially_refunded").await;
    step("evt_4", refund(RefundState::Failed), 100, "fulfilled").await;
    world.settled(worker).await;
    assert_eq!(world.grants().await, 1);
    world.verify().await;
}

#[tokio::test]
async fn the_brokers_delivery_limit_ends_a_crash_loop_in_the_dead_letters() {
    use grantonce::broker::DELIVERY_LIMIT;
    use lapin::options::{BasicGetOptions, BasicNackOptions};
    let world = World::new().await;
    world.publish(&event_for("pi_1", "evt_1", captured(1999))).await;
    let connection = lapin::Connection::connect(&world.amqp_url, Default::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    let mut returns = 0;
    while let Some(got) = channel.basic_get(WORK_QUEUE.into(), BasicGetOptions::default()).await.unwrap() {
        got.delivery.acker.nack(BasicNackOptions { requeue: true, ..Default::default() }).await.unwrap();
        returns += 1;
        assert!(returns <= DELIVERY_LIMIT + 1, "the limit does not hold");
    }
    let letter = world.dead_letter().await;
    assert_eq!(header(&letter, "x-first-death-reason"), "delivery_limit");
    assert_eq!(letter.routing_key.as_str(), "payment.stripe");
    assert_eq!(returns, DELIVERY_LIMIT + 1);
}

#[tokio::test]
async fn how_long_messages_waited_is_told_by_their_senders_time_and_not_of_what_was_put_off() {
    let world = World::new().await;
    let (connection, channel) = world.channel().await;
    let now_s = time::OffsetDateTime::now_utc().unix_timestamp();
    for (message, waited_s) in [("evt_none", None), ("evt_old", Some(100)), ("evt_ahead", Some(-3_600))] {
        let event = event_for("pi_nobody", message, captured(1999));
        let mut properties = lapin::BasicProperties::default()
            .with_message_id(event.message_id.as_str().into())
            .with_type(message::TYPE.into())
            .with_delivery_mode(2);
        if let Some(waited_s) = waited_s {
            properties = properties.with_timestamp(u64::try_from(now_s - waited_s).unwrap());
        }
        let body = message::encode(&event).unwrap();
        let options = lapin::options::BasicPublishOptions::default();
        let sent = channel.basic_publish(PAYMENTS_EXCHANGE.into(), "payment.stripe".into(), options, &body, properties);
        sent.await.unwrap().await.unwrap();
    }
    eventually("all wait", async || world.ready(WORK_QUEUE).await == 3).await;
    connection.close(200, "done".into()).await.unwrap();
    let mut settings = world.worker_config();
    settings.batch.messages_max = 1;
    let worker = world.start_worker_with(settings);
    eventually("all are dead letters", async || {
        worker.metric("grantonce_dead_lettered_total{reason=\"unknown_payment\"}") == 3
    })
    .await;
    let within = |le: &str| worker.metric(&format!("grantonce_queue_wait_seconds_bucket{{le=\"{le}\"}}"));
    // A time in the future counts as no wait, a message without a time is not measured, and neither are the nine retries.
    assert_eq!((within("1.0"), within("60.0"), within("300.0"), within("+Inf")), (1, 1, 2, 2));
    let confirmed = |exchange: &str| {
        worker.metric(&format!(
            "messaging_client_operation_duration_seconds_count{{messaging_system=\"rabbitmq\",\
             messaging_operation_name=\"publish\",messaging_destination_name=\"{exchange}\"}}"
        ))
    };
    assert_eq!((confirmed("payments.retry"), confirmed("payments.dead")), (9, 3));
    assert_eq!(worker.metric("grantonce_inbox_maintenance_total{outcome=\"done\"}"), 1);
    worker.drain().await;
}

/// Money never depends on a value that replaces an unreadable one.
#[tokio::test]
async fn what_cannot_be_waits_alone_and_is_neither_called_applied_nor_given_up() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let worker = world.start_worker();
    let paid = event_for("pi_1", "evt_1", captured(1999));
    world.publish(&paid).await;
    eventually("it is granted", async || world.grants().await == 1).await;
    world.settled(worker).await;
    // The digest tells a copy from another message with the same id. Here the digest is cut.
    world.execute("UPDATE inbox SET fact_digest = substr(fact_digest, 1, 5)").await;
    let worker = world.start_worker();
    world.publish(&paid).await;
    eventually("it is tried more often than an unknown payment", async || {
        worker.metric("grantonce_deliveries_separated_total{cause=\"fault\"}") > 4
    })
    .await;
    assert_eq!(worker.metric("grantonce_messages_total{outcome=\"duplicate\"}"), 0);
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
    let whole = grantonce::message::fact_digest(&paid).unwrap();
    sqlx::query("UPDATE inbox SET fact_digest = $1").bind(whole.as_slice()).execute(&world.sql).await.unwrap();
    eventually("it is known again", async || worker.metric("grantonce_messages_total{outcome=\"duplicate\"}") == 1)
        .await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.status(order).await.as_str()), (1, "fulfilled"));
}

#[tokio::test]
async fn a_message_after_a_pause_goes_at_once_and_messages_of_a_stream_share_a_batch() {
    let world = World::new().await;
    world.orders(21).await;
    let mut settings = world.worker_config();
    // Nobody waits for a batch that is not full.
    (settings.batch.messages_max, settings.batch.wait) = (20, Duration::from_secs(600));
    let worker = world.start_worker_with(settings);
    for n in 0..=20 {
        world.publish(&event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).await;
        if n == 0 {
            eventually("the first message is granted", async || world.grants().await == 1).await;
        }
    }
    eventually("the others are granted", async || world.grants().await == 21).await;
    eventually("both are acknowledged", async || worker.metric("grantonce_batch_messages_count") == 2).await;
    world.settled(worker).await;
}

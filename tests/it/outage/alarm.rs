//! RabbitMQ raises an alarm and reads no more from publishers.

use super::{receiver, world_on};
use crate::support::{Answer, PrivateServers, Server, captured, event_for, eventually, paid};
use grantonce::broker::{PublishError, WORK_QUEUE};
use std::time::{Duration, Instant};

/// Much shorter than the deadline of a confirm, and much longer than the answer of a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);

#[tokio::test]
async fn o05_while_rabbitmq_blocks_publishing_senders_are_told_so_at_once_and_afterwards_it_goes_on() {
    let servers = PrivateServers::start(Server::Rabbitmq).await;
    let world = world_on(&servers).await;
    let (_receiver, poster) = receiver(&world).await;
    let publish = async |n: usize| {
        let began = Instant::now();
        let event = event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999));
        (world.try_publish(&event).await, began.elapsed())
    };
    publish(0).await.0.unwrap();
    for round in 1..=2 {
        servers.memory_alarm(true).await;
        // The broker tells only a connection that publishes, and only when it does. This message may be accepted after the alarm.
        let (first, took) = publish(round * 10).await;
        assert!(matches!(first, Err(PublishError::NotConfirmed(_))) && took < AT_ONCE, "{first:?} after {took:?}");
        let (next, took) = publish(round * 10 + 1).await;
        let error = next.unwrap_err();
        assert_eq!(error.to_string(), "publishing is blocked by RabbitMQ (memory alarm)");
        assert!(error == PublishError::Blocked("memory alarm".to_owned()) && took < AT_ONCE, "{error} after {took:?}");
        for n in 0..8 {
            let began = Instant::now();
            let answer = poster.post(&paid(1000 * round + n)).await;
            assert_eq!(answer, Answer::ComeAgain);
            assert!(began.elapsed() < AT_ONCE, "webhook {n} was answered after {:?}", began.elapsed());
        }
        servers.memory_alarm(false).await;
        eventually("messages are accepted again", async || publish(round * 10 + 1).await.0.is_ok()).await;
        eventually("webhooks are accepted again", async || poster.post(&paid(1000 * round)).await == Answer::Taken)
            .await;
    }
}

#[tokio::test]
async fn o05_under_an_alarm_all_is_acknowledged_that_needs_no_copy() {
    const BUYERS: usize = 600;
    let servers = PrivateServers::start(Server::Rabbitmq).await;
    let world = world_on(&servers).await;
    let mut events: Vec<_> =
        (0..BUYERS).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))).collect();
    events.insert(BUYERS / 2, event_for("pi_nobody", "evt_nobody", captured(1999)));
    world.publish_all(&events).await;
    servers.memory_alarm(true).await;
    let worker = world.start_worker();
    eventually("every buyer has credits", async || world.grants().await == i64::try_from(BUYERS).unwrap()).await;
    eventually("one message waits", async || worker.metric("grantonce_deliveries_waiting") == 1).await;
    let given_back = "grantonce_deliveries_given_back_total{cause=\"publish_failed\"}";
    assert_eq!(worker.metric(given_back), 0);
    worker.drain().await;
    eventually("only this message returns", async || world.ready(WORK_QUEUE).await == 1).await;

    servers.memory_alarm(false).await;
    let mut settings = world.worker_config();
    settings.retry.attempts_max = 1;
    let worker = world.start_worker_with(settings);
    let letter = world.dead_letter().await;
    assert_eq!(letter.properties.message_id().as_ref().unwrap().as_str(), "stripe::evt_nobody");
    world.settled(worker).await;
    world.verify().await;
}

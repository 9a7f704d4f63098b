//! A message that cannot be settled now is separated from its batch. All other buyers get their credits, and the message uses up no
//! attempt.

use crate::support::{OrderSpec, RunningWorker, World, captured, event_for, eventually};
use crate::worker::raw;
use grantonce::broker::{self, DEAD_EXCHANGE, DEAD_QUEUE, Outgoing, WORK_QUEUE};
use grantonce::domain::Separated;
use lapin::options::QueueBindOptions;
use lapin::types::FieldTable;
use sqlx::{AssertSqlSafe, PgConnection};
use std::time::Duration;
use time::OffsetDateTime;

/// Buyers without a problem. Their messages are published together with the one that cannot be settled.
const OTHERS: i64 = 40;

/// More attempts than a message of an unknown order gets in these tests.
const TIMES: u64 = 6;

fn paid(n: i64) -> grantonce::domain::PaymentEvent {
    event_for(&format!("pi_{n}"), &format!("evt_{n}"), captured(1999))
}

/// A world with the orders of `pi_0` … `pi_40`. The tests cause a problem with the first one.
async fn world() -> World {
    let world = World::new().await;
    world.orders(usize::try_from(OTHERS).unwrap() + 1).await;
    world
}

/// Every buyer pays, and each payment is reported twice. The first one is among the others in each batch.
async fn everybody_pays(world: &World) {
    let mut all: Vec<_> = (0..=OTHERS).map(paid).collect();
    all.extend((0..=OTHERS).map(|n| event_for(&format!("pi_{n}"), &format!("evt_{n}_again"), captured(1999))));
    world.publish_all(&all).await;
}

async fn the_others_are_granted(world: &World) {
    eventually("the others have their credits", async || world.grants().await >= OTHERS).await;
}

/// Waits for the grants of the others. The messages of the first one return again and again without using up an attempt.
async fn only_the_others_are_granted(world: &World, worker: &RunningWorker, cause: &str) {
    the_others_are_granted(world).await;
    let metric = format!("grantonce_deliveries_separated_total{{cause=\"{cause}\"}}");
    eventually("it returned more often than it may be tried", async || worker.metric(&metric) >= TIMES).await;
    assert_eq!((world.grants().await, world.ready(DEAD_QUEUE).await), (OTHERS, 0));
    let cause = Separated::from_name(cause).unwrap();
    let lately = OffsetDateTime::now_utc() - Duration::from_secs(60);
    eventually("the console shows it", async || {
        world
            .store()
            .waiting_messages(lately)
            .await
            .unwrap()
            .iter()
            .any(|(told, messages)| (*told, *messages) == (cause, 2))
    })
    .await;
    if cause != Separated::UnreadableOrder {
        let told = explained(world, "stripe::evt_0").await;
        assert!(told.contains(&format!("waits, because {}", cause.words())), "{told}");
    }
}

/// The text that `grantonce explain` prints about a message.
async fn explained(world: &World, message: &str) -> String {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.args(["explain", message]).env_clear().env("DATABASE_URL", &world.database_url);
    String::from_utf8(command.output().await.unwrap().stdout).unwrap()
}

/// Waits until every buyer is granted, after the problem has ended.
async fn everybody_is_granted(world: &World, worker: RunningWorker) {
    eventually("the last one has its credits", async || world.grants().await == OTHERS + 1).await;
    world.settled(worker).await;
    assert_eq!((world.admitted().await, world.ready(DEAD_QUEUE).await), (2 * (OTHERS + 1), 0));
    world.verify().await;
}

async fn first_order(world: &World) -> String {
    sqlx::query_scalar("SELECT order_id::text FROM payments WHERE payment_id = 'pi_0'")
        .fetch_one(&world.sql)
        .await
        .unwrap()
}

/// Opens a transaction of another session, and leaves it open.
async fn left_open(world: &World, statement: &str) -> PgConnection {
    use sqlx::{Connection as _, Executor as _};
    let mut somebody = PgConnection::connect(&world.database_url).await.unwrap();
    somebody.execute("BEGIN").await.unwrap();
    somebody.execute(sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))).await.unwrap();
    somebody
}

async fn while_somebody_holds(statement: impl AsyncFn(&World) -> String) {
    use sqlx::Connection as _;
    let world = world().await;
    let somebody = left_open(&world, &statement(&world).await).await;
    let worker = world.start_worker();
    everybody_pays(&world).await;
    only_the_others_are_granted(&world, &worker, "locked").await;
    somebody.close().await.unwrap();
    everybody_is_granted(&world, worker).await;
}

#[tokio::test]
async fn o04_one_locked_order_holds_up_nobody_else() {
    while_somebody_holds(async |world| {
        format!("SELECT FROM orders WHERE id = '{}' FOR UPDATE", first_order(world).await)
    })
    .await;
}

#[tokio::test]
async fn o04_an_order_that_somebody_is_changing_holds_up_nobody_else() {
    while_somebody_holds(async |world| {
        format!("UPDATE orders SET updated_at = now() WHERE id = '{}'", first_order(world).await)
    })
    .await;
}

#[tokio::test]
async fn o04_a_message_that_a_hung_transaction_has_admitted_holds_up_nobody_else() {
    while_somebody_holds(async |world| {
        let order = first_order(world).await;
        let (one, two) = (paid(0), event_for("pi_0", "evt_0_again", captured(1999)));
        let row = |event: &grantonce::domain::PaymentEvent| {
            format!(
                "('{}', '{}', '\\x00000000000000000000000000000000', '{order}', now(), 'captured')",
                event.occurred_at.date(),
                event.message_id
            )
        };
        format!(
            "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said) VALUES {}, {}",
            row(&one),
            row(&two)
        )
    })
    .await;
}

#[tokio::test]
async fn o04_an_order_that_cannot_be_read_holds_up_nobody_else() {
    for (broken, mended) in [
        ("facts = '{\"captures\": 7}'", "facts = '{}'"),
        ("provider_account = repeat('x', 300)", "provider_account = ''"),
    ] {
        let world = world().await;
        let order = first_order(&world).await;
        world.execute(&format!("UPDATE orders SET {broken} WHERE id = '{order}'")).await;
        let worker = world.start_worker();
        everybody_pays(&world).await;
        only_the_others_are_granted(&world, &worker, "unreadable_order").await;
        world.execute(&format!("UPDATE orders SET {mended} WHERE id = '{order}'")).await;
        everybody_is_granted(&world, worker).await;
    }
}

/// While a queue or binding is missing, the others are granted and acknowledged. A worker that stops returns the one message.
async fn while_a_copy_has_no_way(first: Outgoing, take_away: impl AsyncFn(&World), give_back: impl AsyncFn(&World)) {
    let world = world().await;
    let worker = world.start_worker();
    eventually("the worker consumes", async || world.consumers(WORK_QUEUE).await == 1).await;
    take_away(&world).await;
    world.publish_raw(first.clone()).await;
    for n in 1..=OTHERS {
        world.publish(&paid(n)).await;
    }
    the_others_are_granted(&world).await;
    eventually("it waits", async || worker.metric("grantonce_deliveries_waiting") == 1).await;
    worker.drain().await;
    eventually("only this message was returned", async || world.ready(WORK_QUEUE).await == 1).await;

    let mut settings = world.worker_config();
    settings.retry.attempts_max = 1;
    give_back(&world).await;
    let worker = world.start_worker_with(settings);
    let letter = world.dead_letter().await;
    assert_eq!(letter.data, first.body);
    world.settled(worker).await;
    assert_eq!(world.grants().await, OTHERS);
}

async fn bind(world: &World, is_bound: bool) {
    let (connection, channel) = world.channel().await;
    let (queue, exchange) = (DEAD_QUEUE.into(), DEAD_EXCHANGE.into());
    if is_bound {
        let bound = channel.queue_bind(queue, exchange, "#".into(), QueueBindOptions::default(), FieldTable::default());
        bound.await.unwrap();
    } else {
        channel.queue_unbind(queue, exchange, "#".into(), FieldTable::default()).await.unwrap();
    }
    connection.close(200, "done".into()).await.unwrap();
}

#[tokio::test]
async fn a_dead_letter_that_no_queue_takes_holds_up_nobody_else() {
    let (take_away, give_back) =
        (async |world: &World| bind(world, false).await, async |world: &World| bind(world, true).await);
    while_a_copy_has_no_way(raw(b"no message"), take_away, give_back).await;
}

#[tokio::test]
async fn a_message_that_no_retry_queue_takes_holds_up_nobody_else() {
    let unknown = Outgoing::payment_status(&event_for("pi_nobody", "evt_nobody", captured(1999))).unwrap();
    let take_away = async |world: &World| {
        let (connection, channel) = world.channel().await;
        for retry in &world.retry_delays {
            channel.queue_delete(broker::retry_queue(&retry.label).as_str().into(), Default::default()).await.unwrap();
        }
        connection.close(200, "done".into()).await.unwrap();
    };
    let give_back =
        async |world: &World| broker::declare(&world.amqp_url.parse().unwrap(), &world.retry_delays).await.unwrap();
    while_a_copy_has_no_way(unknown, take_away, give_back).await;
}

#[tokio::test]
async fn a_worker_that_stops_puts_off_what_it_has_in_hand() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let worker = world.start_worker();
    eventually("the worker consumes", async || world.consumers(WORK_QUEUE).await == 1).await;
    let somebody = left_open(&world, "LOCK TABLE payments IN ACCESS EXCLUSIVE MODE").await;
    world.publish(&event_for("pi_nobody", "evt_nobody", captured(1999))).await;
    eventually("its transaction waits", async || world.waiting_for_locks().await > 0).await;
    let metrics = worker.metrics.clone();
    let draining = tokio::spawn(worker.drain());
    eventually("the worker takes no more messages", async || world.consumers(WORK_QUEUE).await == 0).await;
    somebody.close().await.unwrap();
    draining.await.unwrap();
    let told = metrics.render();
    assert!(told.contains("grantonce_messages_total{outcome=\"put_off\"} 1"), "{told}");
    let mut given_back = told.lines().filter(|line| line.starts_with("grantonce_deliveries_given_back_total"));
    assert!(given_back.all(|line| line.ends_with(" 0")), "{told}");
}

#[tokio::test]
async fn a_worker_with_as_many_waiting_copies_as_it_may_have_stops_at_once() {
    let world = World::new().await;
    let mut settings = world.worker_config();
    settings.batch.prefetch = 4;
    bind(&world, false).await;
    let worker = world.start_worker_with(settings);
    for _ in 0..8 {
        world.publish_raw(raw(b"no message")).await;
    }
    eventually("the worker takes no more messages", async || worker.metric("grantonce_deliveries_waiting") >= 2).await;
    tokio::time::timeout(Duration::from_secs(5), worker.drain()).await.expect("the worker does not wait for a copy");
    eventually("all were returned", async || world.ready(WORK_QUEUE).await == 8).await;
}

#[tokio::test]
async fn a_lock_on_a_whole_table_gives_nothing_up_and_ends_with_the_lock() {
    use sqlx::Connection as _;
    let world = world().await;
    let worker = world.start_worker();
    eventually("the worker consumes", async || world.consumers(WORK_QUEUE).await == 1).await;
    let somebody = left_open(&world, "LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").await;
    everybody_pays(&world).await;
    eventually("the worker waits for the table", async || world.waiting_for_locks().await > 0).await;
    assert_eq!(world.ready(DEAD_QUEUE).await, 0);
    somebody.close().await.unwrap();
    everybody_is_granted(&world, worker).await;
}

#[tokio::test]
async fn an_order_of_its_own_is_granted_while_the_first_is_locked() {
    use sqlx::Connection as _;
    let world = World::new().await;
    let locked = world.order(OrderSpec::paid_by("pi_locked")).await;
    let somebody = left_open(&world, &format!("SELECT FROM orders WHERE id = '{locked}' FOR UPDATE")).await;
    let worker = world.start_worker();
    for n in 0..20 {
        world.publish(&event_for("pi_locked", &format!("evt_locked_{n}"), captured(1999))).await;
        world.order(OrderSpec::paid_by(&format!("pi_{n}"))).await;
        world.publish(&paid(n)).await;
        eventually("a later buyer is granted", async || world.grants().await == n + 1).await;
    }
    somebody.close().await.unwrap();
    eventually("the first buyer is granted in the end", async || world.grants().await == 21).await;
    world.settled(worker).await;
    world.verify().await;
}

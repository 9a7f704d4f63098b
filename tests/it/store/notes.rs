//! Notes for stories and charts are added up, are kept for a limited time, and never delay the worker.

use super::batches;
use crate::support::{OrderSpec, World, captured, event_for, eventually};
use grantonce::store::{Activity, ActivityMinute, MessageNote, NoteBuffer, Noted};
use time::macros::datetime;
use time::{Duration, OffsetDateTime};

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:30 UTC);

fn note(message: &str, noted: Noted) -> MessageNote {
    MessageNote::new(&event_for("pi_1", message, captured(1999)), noted)
}

async fn counts(world: &World, message: &str) -> (i64, i64) {
    sqlx::query_as("SELECT copies, put_offs FROM message_notes WHERE message_id = $1")
        .bind(format!("stripe::{message}"))
        .fetch_one(&world.sql)
        .await
        .unwrap()
}

#[tokio::test]
async fn what_several_workers_note_is_added_up() {
    let world = World::new().await;
    let store = batches(&world);
    let activity = Activity { applied: 10, duplicates: 2, put_off: 1, dead_lettered: 1, grants: 9 };
    let notebooks = [NoteBuffer::default(), NoteBuffer::default()];
    for (n, note_buffer) in notebooks.iter().enumerate() {
        let now = NOW + Duration::seconds(i64::try_from(n).unwrap());
        note_buffer.note(activity, vec![note("b", Noted::Copy), note("a", Noted::PutOff), note("b", Noted::Copy)], now);
        note_buffer.note(activity, vec![note("b", Noted::PutOff)], now + Duration::minutes(1));
    }
    for note_buffer in &notebooks {
        note_buffer.write(&store).await;
        note_buffer.write(&store).await; // Nothing is left to write.
    }
    assert_eq!(counts(&world, "a").await, (0, 2));
    assert_eq!(counts(&world, "b").await, (4, 2));
    let since = "SELECT count(*) FROM message_notes WHERE message_id = 'stripe::b' AND said = 'captured'
                 AND first_noted_at = '2026-01-05 12:00:30Z' AND last_noted_at = '2026-01-05 12:01:31Z'";
    assert_eq!(world.count(since).await, 1);
    let minute =
        |minute| ActivityMinute { minute, applied: 20, duplicates: 4, put_off: 2, dead_lettered: 2, grants: 18 };
    let (first, second) = (datetime!(2026-01-05 12:00 UTC), datetime!(2026-01-05 12:01 UTC));
    assert_eq!(store.activity(first).await.unwrap(), [minute(first), minute(second)]);
    assert_eq!(store.activity(second).await.unwrap(), [minute(second)]);
}

#[tokio::test]
async fn notes_go_with_the_inbox_and_minutes_after_35_days() {
    let world = World::new().await;
    let store = batches(&world);
    let note_buffer = NoteBuffer::default();
    let some = Activity { applied: 1, ..Activity::default() };
    for days in [0, 34, 36, 89, 91, 200] {
        note_buffer.note(some, vec![note(&format!("of_{days}"), Noted::Copy)], NOW - Duration::days(days));
    }
    note_buffer.write(&store).await;
    assert_eq!(store.maintain_notes(NOW, Duration::days(90)).await.unwrap(), (2, false));
    assert_eq!(store.maintain_notes(NOW, Duration::days(90)).await.unwrap(), (0, false));
    let left = "SELECT string_agg(message_id, ' ' ORDER BY message_id) FROM message_notes";
    let left: String = sqlx::query_scalar(left).fetch_one(&world.sql).await.unwrap();
    assert_eq!(left, "stripe::of_0 stripe::of_34 stripe::of_36 stripe::of_89");
    assert_eq!(store.activity(NOW - Duration::days(500)).await.unwrap().len(), 2);
}

#[tokio::test]
async fn more_notes_than_one_call_deletes_go_one_call_after_the_other() {
    let world = World::new().await;
    world
        .execute(
            "INSERT INTO message_notes SELECT 'm' || n, 'stripe', 'pi', NULL, 'captured', 1, 0, '2025-01-01', '2025-01-01'
             FROM generate_series(1, 20001) n",
        )
        .await;
    let store = batches(&world);
    assert_eq!(store.maintain_notes(NOW, Duration::days(90)).await.unwrap(), (20_000, true));
    assert_eq!(store.maintain_notes(NOW, Duration::days(90)).await.unwrap(), (1, false));
}

#[tokio::test]
async fn a_worker_notes_copies_and_what_waits_for_its_order_and_what_it_said() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    let worker = world.start_worker();
    let (first, early) = (event_for("pi_1", "evt_1", captured(1999)), event_for("pi_2", "evt_2", captured(1999)));
    world.publish_all(&[first.clone(), first.clone(), first, early]).await;
    eventually("the early one was put off", async || {
        worker.metric("grantonce_messages_total{outcome=\"put_off\"}") >= 1
    })
    .await;
    world.order(OrderSpec { account: "other", ..OrderSpec::paid_by("pi_2") }).await;
    eventually("both are granted", async || world.grants().await == 2).await;
    let put_offs = i64::try_from(worker.metric("grantonce_messages_total{outcome=\"put_off\"}")).unwrap();
    world.settled(worker).await;
    assert_eq!(counts(&world, "evt_1").await, (2, 0));
    assert_eq!(counts(&world, "evt_2").await, (0, put_offs));
    assert_eq!(world.count("SELECT count(*) FROM inbox WHERE said = 'captured'").await, 2);
    let activity = "SELECT sum(applied * 1000 + duplicates * 100 + grants)::bigint FROM activity";
    assert_eq!(world.count(activity).await, 2_000 + 200 + 2);
    assert_eq!(world.count("SELECT sum(put_off)::bigint FROM activity").await, put_offs);
}

/// Without the tables of the notes, a worker works as before.
#[tokio::test]
async fn a_worker_that_cannot_note_works_all_the_same() {
    let world = World::new().await;
    world.order(OrderSpec::paid_by("pi_1")).await;
    world.execute("DROP TABLE message_notes, activity").await;
    let worker = world.start_worker();
    let event = event_for("pi_1", "evt_1", captured(1999));
    world.publish_all(&[event.clone(), event.clone()]).await;
    eventually("it is granted", async || world.grants().await == 1).await;
    world.publish(&event).await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (1, 1));
    world.verify().await;
}

//! Archived, restored, expired: always with a name and a reason.

use super::{RunningOps, ada, all_letters, the_letter, unknown_payments, until};
use crate::support::await_::eventually;
use crate::support::world::World;
use bytes::Bytes;
use grantonce::broker::{DEAD_EXCHANGE, Headers, Outgoing};
use grantonce::domain::LetterState;
use grantonce::store::{LetterFilter, Letters};
use time::{Duration, OffsetDateTime};

#[tokio::test]
async fn archiving_is_undone_by_restoring_and_both_are_on_record() {
    let world = World::new().await;
    unknown_payments(&world, 3).await;
    let (store, now) = (world.store(), OffsetDateTime::now_utc());
    let one = LetterFilter { payment_id: Some("pi_1".to_owned()), ..LetterFilter::default() };
    assert_eq!(store.archive_letters(one.clone(), ada(), "refunded by hand".to_owned(), now).await.unwrap(), 1);
    assert_eq!(store.archive_letters(one.clone(), ada(), "again".to_owned(), now).await.unwrap(), 0);
    assert_eq!(store.letters(LetterFilter::default(), None, 10).await.unwrap().letters.len(), 2);
    let archived = one.clone().in_state(LetterState::Archived);
    let letter = store.letters(archived, None, 10).await.unwrap().letters.remove(0);
    assert_eq!((letter.state_by.as_deref(), letter.state_reason.as_deref()), (Some("ada"), Some("refunded by hand")));

    assert_eq!(store.restore_letters(one, ada(), "not refunded".to_owned(), now).await.unwrap(), 1);
    until(&store, letter.id, "open").await;
    let lines =
        "SELECT count(*) FROM audit_log WHERE action IN ('letters.archive', 'letters.restore') AND actor = 'ada'";
    assert_eq!(world.count(lines).await, 2);
}

#[tokio::test]
async fn what_is_archived_stays_so_when_another_copy_comes() {
    let world = World::new().await;
    unknown_payments(&world, 1).await;
    let (store, now) = (world.store(), OffsetDateTime::now_utc());
    let letter = the_letter(&store).await;
    store.archive_letters(LetterFilter::of_ids([letter.id]), ada(), "test".to_owned(), now).await.unwrap();
    let body = store.letter(letter.id).await.unwrap().unwrap().body.unwrap();
    let copy = Outgoing {
        exchange: DEAD_EXCHANGE,
        routing_key: "payment.stripe".to_owned(),
        message_id: letter.message_id,
        kind: letter.kind,
        content_type: "application/json",
        headers: Headers::default(),
        body: Bytes::from(body),
    };
    world.publish_raw(copy).await;
    let ops = RunningOps::start(&world);
    eventually("the copy is counted", async || the_letter(&store).await.seen == 2).await;
    assert_eq!(the_letter(&store).await.state, LetterState::Archived);
    ops.stop().await;
}

#[tokio::test]
async fn only_what_is_settled_expires_and_the_record_says_so() {
    let world = World::new().await;
    unknown_payments(&world, 3).await;
    let (store, now) = (world.store(), OffsetDateTime::now_utc());
    let one = LetterFilter { payment_id: Some("pi_1".to_owned()), ..LetterFilter::default() };
    store.archive_letters(one, ada(), "test".to_owned(), now - Duration::days(401)).await.unwrap();
    assert_eq!(store.expire_letters(now - Duration::days(400), now).await.unwrap(), 1);
    assert_eq!(store.expire_letters(now - Duration::days(400), now).await.unwrap(), 0);
    assert_eq!(all_letters(&store).await.len(), 2, "open letters stay, however old");
    assert_eq!(world.count("SELECT count::bigint FROM audit_log WHERE action = 'letters.expire'").await, 1);
}

#[tokio::test]
async fn lists_are_paged_filtered_and_grouped() {
    let world = World::new().await;
    unknown_payments(&world, 25).await;
    let store = world.store();
    let (mut seen, mut after): (Vec<_>, Option<Letters>) = (vec![], None);
    loop {
        let page = store.letters(LetterFilter::default(), after, 10).await.unwrap();
        seen.extend(page.letters.iter().map(|letter| letter.id));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 25, "no letter twice");

    let count = async |filter: LetterFilter| store.count_letters(filter).await.unwrap();
    let text = |text: &str| LetterFilter { text: Some(text.to_owned()), ..LetterFilter::default() };
    assert_eq!(count(text("EVT_1")).await, 11, "in whatever case: 1, and 10 to 19");
    assert_eq!(count(text("evt%1")).await, 0, "a percent sign is a percent sign");
    assert_eq!(count(LetterFilter { provider: Some("stripe".to_owned()), ..Default::default() }).await, 25);
    assert_eq!(count(LetterFilter { reason: Some("malformed".to_owned()), ..Default::default() }).await, 0);
    let now = OffsetDateTime::now_utc();
    assert_eq!(count(LetterFilter { before: Some(now - Duration::HOUR), ..Default::default() }).await, 0);
    let groups = store.letter_groups(LetterFilter::default()).await.unwrap();
    assert_eq!((groups.len(), groups[0].letters), (1, 25));
}

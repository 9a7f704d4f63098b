//! Dead letters are archived, restored and expired, always with a name and a reason.

use super::{RunningOps, ada, all_letters, copy_of, replay, the_letter, unknown_payments, until};
use crate::support::world::World;
use grantonce::domain::LetterState;
use grantonce::store::{LetterCursor, LetterFilter, NewReplay, ReplayPace, Store};
use grantonce_testkit::wait::eventually;
use std::collections::BTreeMap;
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
    world.publish_raw(copy_of(&store.letter(letter.id).await.unwrap().unwrap())).await;
    let ops = RunningOps::start(&world);
    eventually("the copy is counted", async || the_letter(&store).await.seen == 2).await;
    assert_eq!(the_letter(&store).await.state, LetterState::Archived);
    ops.stop().await;
}

#[tokio::test]
async fn only_what_is_settled_expires_and_the_record_says_so() {
    let world = World::new().await;
    unknown_payments(&world, 5).await;
    let (store, now) = (world.store(), OffsetDateTime::now_utc());
    for (payment, state) in [("pi_1", "replaying"), ("pi_2", "resolved"), ("pi_3", "archived")] {
        world.execute(&format!("UPDATE dead_letters SET state = '{state}' WHERE payment_id = '{payment}'")).await;
    }
    world.execute("UPDATE dead_letters SET state_at = state_at - interval '401 days'").await;
    let one = LetterFilter { payment_id: Some("pi_4".to_owned()), ..LetterFilter::default() };
    store.archive_letters(one, ada(), "test".to_owned(), now - Duration::days(399)).await.unwrap();
    assert_eq!(store.expire_letters(now - Duration::days(400), now).await.unwrap(), 2);
    assert_eq!(store.expire_letters(now - Duration::days(400), now).await.unwrap(), 0);
    let mut left: Vec<_> = all_letters(&store).await.into_iter().filter_map(|letter| letter.payment_id).collect();
    left.sort_unstable();
    assert_eq!(left, ["pi_0", "pi_1", "pi_4"], "open and replaying dead letters stay at any age");
    assert_eq!(world.count("SELECT count::bigint FROM audit_log WHERE action = 'letters.expire'").await, 2);
}

/// The payments of all dead letters, with their states.
async fn states(store: &Store) -> BTreeMap<String, &'static str> {
    let letters = all_letters(store).await;
    letters.into_iter().filter_map(|letter| Some((letter.payment_id?, letter.state.name()))).collect()
}

#[tokio::test]
async fn what_cannot_be_put_on_record_is_not_done() {
    let world = World::new().await;
    unknown_payments(&world, 3).await;
    let (store, now) = (world.store(), OffsetDateTime::now_utc());
    let of = |payment: &str| LetterFilter { payment_id: Some(payment.to_owned()), ..LetterFilter::default() };
    let id_of = |payment: &str| {
        let (store, filter) = (store.clone(), of(payment));
        async move { store.letters(filter, None, 1).await.unwrap().letters[0].id }
    };
    let (open, replayed) = (id_of("pi_0").await, id_of("pi_2").await);
    let long_ago = now - Duration::days(401);
    store.archive_letters(of("pi_1"), ada(), "test".to_owned(), long_ago).await.unwrap();
    let under_way = replay(&store, vec![replayed], ReplayPace::Canary).await.unwrap();
    let (before, recorded) = (states(&store).await, "SELECT count(*) FROM audit_log");
    let expected = [("pi_0", "open"), ("pi_1", "archived"), ("pi_2", "replaying")];
    assert_eq!((before.clone(), world.count(recorded).await), (expected.map(|(p, s)| (p.to_owned(), s)).into(), 2));

    world.execute("ALTER TABLE audit_log ADD CONSTRAINT full_up CHECK (false) NOT VALID").await;
    let why = || "test".to_owned();
    let begun = NewReplay {
        selection: LetterFilter::of_ids([open]),
        letters: vec![open],
        per_s_max: 1_000,
        pace: ReplayPace::Canary,
        by: ada(),
        reason: why(),
        now,
    };
    assert!(store.expire_letters(now - Duration::days(400), now).await.is_err());
    assert!(store.archive_letters(of("pi_0"), ada(), why(), now).await.is_err());
    assert!(store.restore_letters(of("pi_1"), ada(), why(), now).await.is_err());
    assert!(store.begin_replay(begun).await.is_err());
    assert!(store.cancel_replay(under_way, ada(), why(), now).await.is_err());
    assert_eq!(states(&store).await, before);
    assert_eq!(store.replays_under_way().await.unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_not_done_is_not_on_record() {
    let world = World::new().await;
    unknown_payments(&world, 1).await;
    let store = world.store();
    // Everything works until the commit.
    world
        .execute(
            "CREATE CONSTRAINT TRIGGER at_the_end AFTER UPDATE ON dead_letters DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION refuse_change()",
        )
        .await;
    let (why, now) = ("test".to_owned(), OffsetDateTime::now_utc());
    assert!(store.archive_letters(LetterFilter::default(), ada(), why, now).await.is_err());
    assert_eq!(the_letter(&store).await.state, LetterState::Open);
    assert_eq!(world.count("SELECT count(*) FROM audit_log").await, 0);
}

#[tokio::test]
async fn lists_are_paged_filtered_and_grouped() {
    let world = World::new().await;
    unknown_payments(&world, 25).await;
    let store = world.store();
    let (mut seen, mut after): (Vec<_>, Option<LetterCursor>) = (vec![], None);
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
    assert_eq!(seen.len(), 25, "no dead letter is there twice");

    let count = async |filter: LetterFilter| store.count_letters(filter).await.unwrap();
    let text = |text: &str| LetterFilter { text: Some(text.to_owned()), ..LetterFilter::default() };
    assert_eq!(count(text("EVT_1")).await, 11, "in any case: 1, and 10 to 19");
    assert_eq!(count(text("evt%1")).await, 0, "a percent sign is a percent sign");
    assert_eq!(count(LetterFilter { provider: Some("stripe".to_owned()), ..Default::default() }).await, 25);
    assert_eq!(count(LetterFilter { reason: Some("malformed".to_owned()), ..Default::default() }).await, 0);
    let now = OffsetDateTime::now_utc();
    assert_eq!(count(LetterFilter { before: Some(now - Duration::HOUR), ..Default::default() }).await, 0);
    let groups = store.letter_groups(LetterFilter::default()).await.unwrap();
    assert_eq!((groups.len(), groups[0].letters), (1, 25));
}

//! Which dead letters a filter selects. Every field narrows the selection, and every user of a filter selects the same dead
//! letters.

use super::command_line::{dlq, lines};
use super::{ada, all_letters};
use crate::support::world::{OrderSpec, World};
use grantonce::domain::{LetterContent, LetterId, LetterState, OrderId, PaymentId, Provider, Reason};
use grantonce::store::{LetterFilter, NewLetter, Store};
use std::collections::BTreeSet;
use time::macros::datetime;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

const NOON: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);

/// A dead letter that a test changes in one point. Everything else is the same in all of them.
fn like_the_others(n: u128) -> NewLetter {
    NewLetter {
        id: LetterId(Uuid::from_u128(n)),
        message_id: "stripe::evt".to_owned(),
        kind: "payment-status.v1".to_owned(),
        routing_key: "payment.stripe".to_owned(),
        headers: serde_json::json!({}),
        body: b"{}".to_vec(),
        body_bytes: 2,
        reason: Reason::Unexplained,
        cause: "as usual".to_owned(),
        detail: "as usual".to_owned(),
        origin: "publisher",
        attempts: 0,
        replay: 0,
        content: says("stripe", &["pi"], &[]),
    }
}

/// The content of a message about a payment, by its ids, and with orders.
fn says(provider: &str, payment_ids: &[&str], orders: &[OrderId]) -> LetterContent {
    LetterContent {
        provider: Some(Provider::new(provider).unwrap()),
        payment_ids: payment_ids.iter().map(|id| PaymentId::new(*id).unwrap()).collect(),
        order_ids: orders.to_vec(),
        ..LetterContent::default()
    }
}

/// Each dead letter differs in one field of the filter. `order` belongs to account `someone`.
async fn a_letter_of_each_kind(world: &World, unknown: OrderId, order: OrderId) {
    let at_noon = vec![
        like_the_others(0),
        NewLetter { reason: Reason::Malformed, ..like_the_others(1) },
        NewLetter { content: says("acme", &["pi"], &[]), ..like_the_others(2) },
        NewLetter { cause: "something else".to_owned(), ..like_the_others(3) },
        like_the_others(4),
        NewLetter { content: says("stripe", &["pi"], &[unknown]), ..like_the_others(5) },
        NewLetter { content: says("stripe", &["pi_6"], &[]), ..like_the_others(6) },
        NewLetter { content: says("stripe", &["pi"], &[order]), ..like_the_others(7) },
        NewLetter { message_id: "stripe::evt_8".to_owned(), ..like_the_others(8) },
        NewLetter { detail: "an Odd word".to_owned(), ..like_the_others(9) },
    ];
    let store = world.store();
    store.keep_letters(at_noon, NOON).await.unwrap();
    store.keep_letters(vec![like_the_others(10)], NOON - Duration::DAY).await.unwrap();
    store.keep_letters(vec![like_the_others(11)], NOON + Duration::DAY).await.unwrap();
    let looked_at = format!("UPDATE dead_letters SET verdict = 'would_grant' WHERE id = '{}'", Uuid::from_u128(4));
    world.execute(&looked_at).await;
}

fn numbers(ids: impl IntoIterator<Item = LetterId>) -> BTreeSet<u128> {
    ids.into_iter().map(|id| id.0.as_u128()).collect()
}

async fn listed(store: &Store, filter: LetterFilter) -> BTreeSet<u128> {
    numbers(store.letters(filter, None, 100).await.unwrap().letters.iter().map(|letter| letter.id))
}

async fn to_replay(store: &Store, filter: LetterFilter) -> BTreeSet<u128> {
    numbers(store.letters_to_replay(filter, None, 100).await.unwrap().iter().map(|(_, letter)| letter.id))
}

async fn archived(store: &Store) -> BTreeSet<u128> {
    let all = all_letters(store).await;
    numbers(all.iter().filter(|letter| letter.state == LetterState::Archived).map(|letter| letter.id))
}

#[tokio::test]
async fn every_field_narrows_down_what_is_listed_counted_replayed_and_archived() {
    let world = World::new().await;
    let order = world.order(OrderSpec { account: "someone", ..OrderSpec::paid_by("pi_of_someone") }).await;
    let unknown = OrderId("019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f".parse().unwrap());
    a_letter_of_each_kind(&world, unknown, order).await;
    let any = LetterFilter::default;
    let name = |name: &str| Some(name.to_owned());
    let text = |text: &str| LetterFilter { text: name(text), ..any() };
    let ids = Some([2, 4].map(Uuid::from_u128).to_vec());
    let all: Vec<u128> = (0..12).collect();
    let (store, now) = (world.store(), OffsetDateTime::now_utc());
    for (filter, expected) in [
        (any(), all.as_slice()),
        (LetterFilter { ids, ..any() }, &[2, 4]),
        (LetterFilter { ids: Some(vec![]), ..any() }, &[]),
        (LetterFilter { reason: name("malformed"), ..any() }, &[1]),
        (LetterFilter { provider: name("acme"), ..any() }, &[2]),
        (LetterFilter { cause: name("something else"), ..any() }, &[3]),
        (LetterFilter { verdict: name("would_grant"), ..any() }, &[4]),
        (LetterFilter { order_id: Some(unknown.0), ..any() }, &[5]),
        (LetterFilter { payment_id: name("pi_6"), ..any() }, &[6]),
        (LetterFilter { account_id: name("someone"), ..any() }, &[7]),
        (LetterFilter { message_id: name("stripe::evt_8"), ..any() }, &[8]),
        (text("oDD"), &[9]),
        (text("EVT_8"), &[8]),
        (text("PI_6"), &[6]),
        (text("someon"), &[7]),
        (text("5c1a-7D3E"), &[5]),
        // Noon itself is not before noon.
        (LetterFilter { before: Some(NOON), ..any() }, &[10]),
        (LetterFilter { since: Some(NOON + Duration::DAY), ..any() }, &[11]),
        (LetterFilter { reason: name("malformed"), provider: name("acme"), ..any() }, &[]),
    ] {
        let (expected, count) = (BTreeSet::from_iter(expected.iter().copied()), expected.len());
        assert_eq!(listed(&store, filter.clone()).await, expected, "listed: {filter:?}");
        let counted = store.count_letters(filter.clone()).await.unwrap();
        assert_eq!(usize::try_from(counted), Ok(count), "counted: {filter:?}");
        let groups = store.letter_groups(filter.clone()).await.unwrap();
        assert_eq!(groups.iter().map(|group| group.letters).sum::<i64>(), counted, "in groups: {filter:?}");
        assert_eq!(to_replay(&store, filter.clone()).await, expected, "replayed: {filter:?}");
        let count = u64::try_from(count).unwrap();
        assert_eq!(store.archive_letters(filter.clone(), ada(), "test".to_owned(), now).await.unwrap(), count);
        assert_eq!(archived(&store).await, expected, "archived: {filter:?}");
        assert_eq!(store.restore_letters(filter.clone(), ada(), "test".to_owned(), now).await.unwrap(), count);
        assert!(archived(&store).await.is_empty(), "restored: {filter:?}");
    }
}

#[tokio::test]
async fn each_flag_of_the_command_line_is_one_of_these_fields() {
    let world = World::new().await;
    let order = world.order(OrderSpec { account: "someone", ..OrderSpec::paid_by("pi_of_someone") }).await;
    let unknown = OrderId("019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f".parse().unwrap());
    a_letter_of_each_kind(&world, unknown, order).await;
    let [two, four] = [2, 4].map(|n| Uuid::from_u128(n).to_string());
    let age_of = |at: OffsetDateTime| format!("{}s", (OffsetDateTime::now_utc() - at).whole_seconds());
    let unknown = unknown.to_string();
    let (half_a_day_before, half_a_day_after) =
        (age_of(NOON - Duration::hours(12)), age_of(NOON + Duration::hours(12)));
    for (args, expected) in [
        (&[two.as_str(), four.as_str()][..], &[2, 4][..]),
        (&["--reason-is", "malformed"], &[1]),
        (&["--provider", "acme"], &[2]),
        (&["--cause", "something else"], &[3]),
        (&["--verdict", "would_grant"], &[4]),
        (&["--order", unknown.as_str()], &[5]),
        (&["--payment", "pi_6"], &[6]),
        (&["--account", "someone"], &[7]),
        (&["--message", "stripe::evt_8"], &[8]),
        (&["--text", "odd"], &[9]),
        (&["--older-than", half_a_day_before.as_str()], &[10]),
        (&["--newer-than", half_a_day_after.as_str()], &[11]),
    ] {
        let (exit, printed) = dlq(&world, &[&["list", "--json"], args].concat()).await;
        let listed = lines(&printed).into_iter().map(|letter| letter["id"].as_str().unwrap().parse().map(LetterId));
        let listed = numbers(listed.map(Result::unwrap));
        assert_eq!((exit, listed), (Some(0), expected.iter().copied().collect()), "{args:?}");
    }
}

#[tokio::test]
async fn what_is_settled_is_meant_only_where_that_was_said() {
    let world = World::new().await;
    let store = world.store();
    store.keep_letters((0..4).map(like_the_others).collect(), NOON).await.unwrap();
    for (n, state) in [(1, "replaying"), (2, "resolved"), (3, "archived")] {
        let id = Uuid::from_u128(n);
        world.execute(&format!("UPDATE dead_letters SET state = '{state}' WHERE id = '{id}'")).await;
    }
    let any = LetterFilter::default;
    assert_eq!(listed(&store, any()).await, [0, 1].into());
    let settled = LetterFilter { states: ["resolved", "archived"].map(str::to_owned).to_vec(), ..any() };
    assert_eq!(listed(&store, settled.clone()).await, [2, 3].into());
    // Only open dead letters are replayed or archived, and only archived ones are restored, with any filter.
    for filter in [any(), settled] {
        assert_eq!(to_replay(&store, filter.clone()).await, [0].into(), "{filter:?}");
        let now = OffsetDateTime::now_utc();
        assert_eq!(store.archive_letters(filter.clone(), ada(), "test".to_owned(), now).await.unwrap(), 1);
        assert_eq!(archived(&store).await, [0, 3].into(), "{filter:?}");
        assert_eq!(store.restore_letters(filter.clone(), ada(), "test".to_owned(), now).await.unwrap(), 2);
        let id = Uuid::from_u128(3);
        world.execute(&format!("UPDATE dead_letters SET state = 'archived' WHERE id = '{id}'")).await;
    }
}

//! Which orders a dead letter concerns, and which money it reports. Columns decide this, never words.

use super::command_line::{dlq, lines};
use super::{RunningOps, TERMS, all_letters, letter_of, paid, preview, replay, the_letter, until};
use crate::support::messages::{captured, event_for};
use crate::support::world::{OrderSpec, World};
use bytes::Bytes;
use grantonce::broker::Outgoing;
use grantonce::domain::story::{MissingCode, Story};
use grantonce::domain::{
    CaptureState, DisputePolicy, FactId, LetterContent, LetterId, OrderId, PaymentEvent, PaymentId, PaymentStatus,
    Provider, ProviderAccount, Reason,
};
use grantonce::message;
use grantonce::store::{Asked, ExplainTerms, LetterFilter, NewLetter, ReplayPace, Store};
use grantonce_testkit::wait::{eventually, eventually_within};
use std::time::Duration;
use time::OffsetDateTime;
use uuid::Uuid;

/// A shop's own order number: a UUID that none of our orders has.
fn foreign() -> OrderId {
    OrderId(Uuid::from_u128(0x0b5e_55ed_0000_4000_8000_0000_0000_4711))
}

async fn story(store: &Store, id: &str) -> Option<Story> {
    let terms = ExplainTerms {
        now: OffsetDateTime::now_utc(),
        dispute_policy: DisputePolicy::Hold,
        orders_max: 10,
        entries_max: 100,
    };
    store.explain(Asked::new(id, None).unwrap(), terms).await.unwrap()
}

/// The missing parts of an order, in sentences.
async fn missing(store: &Store, order: OrderId) -> String {
    let story = story(store, &order.to_string()).await.unwrap();
    story.summary.missing.into_iter().map(|missing| format!("{:?}: {}\n", missing.code, missing.text)).collect()
}

async fn found_by(store: &Store, filter: LetterFilter) -> Vec<LetterId> {
    store.letters(filter, None, 10).await.unwrap().letters.into_iter().map(|letter| letter.id).collect()
}

async fn of_order(store: &Store, order: OrderId) -> Vec<LetterId> {
    found_by(store, LetterFilter { order_id: Some(order.0), ..LetterFilter::default() }).await
}

async fn of_account(store: &Store, account: &str) -> Vec<LetterId> {
    found_by(store, LetterFilter { account_id: Some(account.to_owned()), ..LetterFilter::default() }).await
}

/// Empties the dead letters of an account. Returns how many were emptied, and how many are left.
async fn forget(world: &World, account: &str) -> (i64, i64) {
    let call = |what: &str| {
        format!("SELECT {what}::bigint FROM forget_account('{account}', '{}', 10, false, now())", Uuid::nil())
    };
    (world.count(&call("letters_emptied")).await, world.count(&call("letters_left")).await)
}

async fn grants_missing(store: &Store) -> i64 {
    store.open_letters(OffsetDateTime::now_utc()).await.unwrap().grants_missing
}

/// A capture of a payment of one of our orders. It names the shop's own order number.
fn with_a_foreign_number(amount_minor: i64) -> PaymentEvent {
    PaymentEvent {
        order_id: Some(foreign()),
        related_ids: vec![PaymentId::new("ch_1").unwrap()],
        ..event_for("pi_1", "evt_1", captured(amount_minor))
    }
}

#[tokio::test]
async fn x01_a_letter_is_found_everywhere_by_the_order_of_its_payment() {
    let world = World::new().await;
    let order = world.order(OrderSpec { account: "someone", ..OrderSpec::paid_by("pi_1") }).await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    world.publish(&with_a_foreign_number(2398)).await;
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!((letter.reason.as_str(), letter.order_id), ("amount_mismatch", Some(order)));
    assert_eq!((letter.account_id.as_deref(), letter.order_ids.as_slice()), (Some("someone"), &[foreign().0][..]));
    assert_eq!(letter.payment_ids, ["pi_1", "ch_1"]);
    assert_eq!((letter.said_type.as_deref(), letter.said_state.as_deref()), (Some("captured"), Some("succeeded")));
    assert_eq!((letter.amount_minor, letter.currency.as_deref()), (Some(2398), Some("USD")));
    // The result does not depend on the column with one order.
    for order_id in ["order_id".to_owned(), "NULL".to_owned(), format!("'{}'", foreign())] {
        world.execute(&format!("UPDATE dead_letters SET order_id = {order_id}, account_id = NULL")).await;
        assert_eq!(of_order(&store, order).await, [letter.id], "{order_id}");
        assert_eq!(of_account(&store, "someone").await, [letter.id], "{order_id}");
        assert_eq!(of_account(&store, "somebody else").await, []);
        assert_eq!(of_order(&store, foreign()).await, [letter.id], "also by the order number that it names");
        let by_charge = LetterFilter { payment_id: Some("ch_1".to_owned()), ..LetterFilter::default() };
        assert_eq!(found_by(&store, by_charge).await, [letter.id]);
        assert_eq!(store.letter(letter.id).await.unwrap().unwrap().orders, [order]);
        assert_eq!(grants_missing(&store).await, 1, "{order_id}");
        assert_eq!(forget(&world, "someone").await, (0, 1), "{order_id}");
        let told = missing(&store, order).await;
        let not_applied = format!("a payment of 23.98 USD is reported and not applied: dead letter {}", letter.id);
        assert!(
            told.contains(&format!("LetterOpen: paid, but the message is a dead letter: {}", letter.reason)),
            "{told}"
        );
        assert!(told.contains(&not_applied) && !told.contains("no payment is known"), "{told}");
        for id in [letter.id.to_string(), foreign().to_string(), "pi_1".to_owned(), "ch_1".to_owned()] {
            let story = story(&store, &id).await.unwrap();
            assert!(story.entries.iter().any(|entry| entry.what.kind() == "letter_received"), "{id}: {story:#?}");
        }
    }
    let (exit, listed) = dlq(&world, &["list", "--order", &order.to_string(), "--json"]).await;
    assert_eq!((exit, &lines(&listed)[0]["id"]), (Some(0), &letter.id.to_string().into()));
    ops.stop().await;
    worker.drain().await;
}

#[tokio::test]
async fn x01_both_orders_that_a_letter_concerns_find_it() {
    let world = World::new().await;
    let named = world.order(OrderSpec { account: "one", ..OrderSpec::paid_by("pi_of_one") }).await;
    let paid_by = world.order(OrderSpec { account: "two", ..OrderSpec::paid_by("pi_1") }).await;
    let neither = world.order(OrderSpec { account: "three", ..OrderSpec::paid_by("pi_of_three") }).await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    world.publish(&PaymentEvent { order_id: Some(named), ..paid("pi_1", "evt_1") }).await;
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!((letter.reason.as_str(), letter.order_id), ("payment_conflict", Some(named)));
    for (order, account) in [(named, "one"), (paid_by, "two")] {
        assert_eq!(
            (of_order(&store, order).await, of_account(&store, account).await),
            (vec![letter.id], vec![letter.id])
        );
        assert!(missing(&store, order).await.contains("PaymentNotApplied"), "{account}");
        assert_eq!(forget(&world, account).await, (0, 1));
    }
    assert_eq!((of_order(&store, neither).await, of_account(&store, "three").await), (vec![], vec![]));
    assert!(missing(&store, neither).await.contains("no payment is known yet"));
    let orders = store.letter(letter.id).await.unwrap().unwrap().orders;
    assert_eq!(orders.len(), 2, "{orders:?}");
    assert_eq!(grants_missing(&store).await, 2);
    ops.stop().await;
    worker.drain().await;
}

#[tokio::test]
async fn x01_a_payment_of_the_same_id_at_another_account_is_another_payment() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let account = ProviderAccount::new("acct_1").unwrap();
    world.publish_raw(letter_of(&PaymentEvent { provider_account: Some(account), ..paid("pi_1", "evt_1") })).await;
    let ops = RunningOps::start(&world);
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!((letter.provider_account.as_str(), letter.order_id), ("acct_1", None));
    assert_eq!((of_order(&store, order).await, grants_missing(&store).await), (vec![], 0));
    assert!(missing(&store, order).await.contains("no payment is known yet"));
    ops.stop().await;
}

/// A dead letter as the previous release stores it: without the columns for its content.
async fn kept_by_the_release_before(world: &World, event: &PaymentEvent, state: &str, body: bool) -> LetterId {
    let id = Uuid::now_v7();
    sqlx::query(
        "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail, origin,
                                   attempts, provider, payment_id, order_id, said, state, state_at, first_seen_at, last_seen_at)
         VALUES ($1, $2, 'payment-status.v1', 'payment.stripe', '{\"a\": \"b\"}', $3, $4, 'payment_conflict', 'a cause', 'a detail', 'worker', 1,
                 'stripe', $5, $6, 'captured 19.99 USD', $7, now(), now(), now())",
    )
    .bind(id)
    .bind(event.message_id.as_str())
    .bind(Some(message::encode(event).unwrap()).filter(|_| body))
    .bind(i32::try_from(message::encode(event).unwrap().len()).unwrap())
    .bind(event.payment_id.as_str())
    .bind(event.order_id.map(|id| id.0))
    .bind(state)
    .execute(&world.sql)
    .await
    .unwrap();
    LetterId(id)
}

#[tokio::test]
async fn x01_a_letter_of_the_release_before_is_found_at_once_then_read_and_now_applied() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let of_old = kept_by_the_release_before(&world, &with_a_foreign_number(1999), "open", true).await;
    let emptied = event_for("pi_1", "evt_2", captured(1));
    let emptied = kept_by_the_release_before(&world, &emptied, "archived", false).await;
    let store = world.store();
    assert_eq!(of_order(&store, order).await, [of_old], "before its body is read");
    let told = missing(&store, order).await;
    assert!(told.contains("the paid amount is unknown") && !told.contains("no payment is known"), "{told}");
    assert_eq!(forget(&world, "acc").await, (1, 1), "one is emptied, and the open one is left");

    let ops = RunningOps::start(&world);
    eventually("all are read", async || world.count("SELECT count(*) FROM dead_letters WHERE NOT is_read").await == 0)
        .await;
    eventually("it has a verdict", async || all_letters(&store).await.iter().any(|l| l.verdict.is_some())).await;
    let letters = all_letters(&store).await;
    let row = letters.iter().find(|letter| letter.id == of_old).unwrap();
    assert_eq!((row.payment_ids.len(), row.order_ids.as_slice()), (2, &[foreign().0][..]));
    assert_eq!((row.order_id, row.account_id.as_deref()), (Some(order), Some("acc")));
    assert_eq!(row.verdict.as_deref(), Some("would_grant"), "the payment decides");
    let row = letters.iter().find(|letter| letter.id == emptied).unwrap();
    assert_eq!((row.payment_ids.as_slice(), &row.said_type), (&["pi_1".to_owned()][..], &None));
    assert!(missing(&store, order).await.contains("a payment of 19.99 USD is reported and not applied"));

    let worker = world.start_worker();
    replay(&store, vec![of_old], ReplayPace::Canary).await.unwrap();
    until(&store, of_old, "resolved").await;
    assert_eq!((world.grants().await, world.status(order).await.as_str()), (1, "fulfilled"));
    assert_eq!(missing(&store, order).await, "");
    ops.stop().await;
    worker.drain().await;
    world.verify().await;
}

#[tokio::test]
async fn x01_a_webhook_that_was_kept_raw_is_found_by_what_it_is_about() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let body = serde_json::json!({
        "id": "evt_1", "object": "event", "type": "payment_intent.succeeded", "created": 1_767_607_200, "livemode": false,
        "api_version": "2024-06-20",
        "data": {"object": {"id": "pi_1", "object": "payment_intent", "amount": 2398, "amount_received": 2398,
                            "currency": "usd", "status": "succeeded", "livemode": false, "metadata": {}}}
    });
    let webhook = Outgoing {
        message_id: "stripe::evt_1".to_owned(),
        kind: "webhook.stripe".to_owned(),
        body: Bytes::from(serde_json::to_vec(&body).unwrap()),
        ..letter_of(&paid("pi_1", "evt_1"))
    };
    world.publish_raw(webhook).await;
    let ops = RunningOps::start(&world);
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!(
        (letter.order_id, letter.amount_minor, letter.said.as_deref()),
        (Some(order), Some(2398), Some("captured 23.98 USD"))
    );
    assert!(missing(&store, order).await.contains("a payment of 23.98 USD is reported and not applied"));
    assert_eq!(preview(&store, LetterFilter::default()).await.by_verdict["would_be_refused"], 1, "{TERMS:?}");
    ops.stop().await;
}

/// A capture that was reported and failed.
fn failed_capture() -> PaymentEvent {
    let PaymentStatus::Captured { money, breakdown, .. } = captured(1999) else { unreachable!() };
    let (capture_id, state) = (Some(FactId::new("cap_1").unwrap()), CaptureState::Failed);
    event_for("pi_1", "evt_failed", PaymentStatus::Captured { money, capture_id, state, breakdown })
}

#[tokio::test]
async fn x02_a_capture_that_failed_is_no_money_whatever_its_words_are() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    world.publish_raw(letter_of(&failed_capture())).await;
    let ops = RunningOps::start(&world);
    let store = world.store();
    let letter = the_letter(&store).await;
    assert_eq!(letter.said.as_deref(), Some("capture of 19.99 USD failed"));
    assert_eq!((letter.said_type.as_deref(), letter.said_state.as_deref()), (Some("captured"), Some("failed")));
    for words in ["capture of 19.99 USD failed", "captured 19.99 USD"] {
        world.execute(&format!("UPDATE dead_letters SET said = '{words}'")).await;
        assert_eq!(grants_missing(&store).await, 0, "{words}");
        let told = missing(&store, order).await;
        assert!(
            told.contains("LetterOpen: a message is a dead letter") && told.contains("no payment is known"),
            "{told}"
        );
    }
    world.publish_raw(letter_of(&paid("pi_1", "evt_1"))).await;
    eventually("the other one is collected", async || all_letters(&store).await.len() == 2).await;
    world.execute("UPDATE dead_letters SET said = 'prose'").await;
    assert_eq!(grants_missing(&store).await, 1);
    eventually_within(Duration::from_secs(30), "the metric shows it", async || {
        ops.metrics.render().contains("grantonce_grants_missing 1.0")
    })
    .await;
    assert!(missing(&store, order).await.contains(&format!("{:?}", MissingCode::PaymentNotApplied)));
    ops.stop().await;
}

#[tokio::test]
async fn a_letter_about_two_things_says_the_one_that_is_money() {
    let world = World::new().await;
    let (one, two) = (paid("pi_1", "evt_1"), failed_capture());
    let says = LetterContent::from(&two).and(LetterContent::from(&one));
    assert!(says.reports_money() && says.payment_ids.len() == 1);
    let letter = NewLetter {
        id: LetterId(Uuid::now_v7()),
        message_id: String::new(),
        kind: String::new(),
        routing_key: "payment.stripe".to_owned(),
        headers: serde_json::json!({}),
        body: vec![],
        body_bytes: 0,
        reason: Reason::Unexplained,
        cause: String::new(),
        detail: String::new(),
        origin: "publisher",
        attempts: 0,
        replay: 0,
        content: LetterContent { provider: Some(Provider::STRIPE), ..says },
    };
    world.store().keep_letters(vec![letter], OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(all_letters(&world.store()).await[0].said_state.as_deref(), Some("succeeded"));
}

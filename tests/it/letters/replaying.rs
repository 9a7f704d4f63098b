//! Sent back to work: nothing lost, nothing doubled, whoever presses the button, whoever dies.

use super::{
    RunningOps, TERMS, ada, all_letters, ended, paid, preview, replay, runner, the_letter, unknown_payments, until,
};
use crate::support::await_::eventually;
use crate::support::messages::{captured, event_for, stripe_webhook};
use crate::support::world::{OrderSpec, STRIPE_SECRET, World};
use bytes::Bytes;
use grantonce::broker::{DEAD_EXCHANGE, Headers, Outgoing, WORK_QUEUE};
use grantonce::domain::{DisputePolicy, LetterId};
use grantonce::ops::prospects;
use grantonce::store::{Amended, Amendment, LetterFilter, ReplayPace, ReplayState};
use time::OffsetDateTime;

#[tokio::test]
async fn after_the_cause_is_mended_a_replay_grants_once_and_the_letter_is_resolved() {
    let world = World::new().await;
    unknown_payments(&world, 1).await;
    let (store, letter) = (world.store(), the_letter(&world.store()).await);
    let before = preview(&store, LetterFilter::default()).await;
    assert_eq!((before.helpful.len(), before.by_verdict.get("order_unknown")), (0, Some(&1)));

    world.order(OrderSpec::paid_by("pi_0")).await;
    let after = preview(&store, LetterFilter::default()).await;
    assert_eq!((after.helpful.as_slice(), after.credits), ([letter.id].as_slice(), 100));

    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let id = replay(&store, after.helpful, ReplayPace::Canary).await.unwrap();
    let done = ended(&store, id).await;
    assert_eq!((done.state, done.counts.resolved), (ReplayState::Finished, 1));
    let letter = until(&store, letter.id, "resolved").await;
    assert_eq!((world.grants().await, letter.row.replays), (1, 1));
    assert_eq!((letter.history[0].actor.as_str(), letter.history[0].state.as_str()), ("ada", "resolved"));
    assert_eq!(
        world.count("SELECT count::bigint FROM audit_log WHERE action = 'replay.begin' AND actor = 'ada'").await,
        1
    );
    ops.stop().await;
    worker.drain().await;
    world.verify().await;
}

#[tokio::test]
async fn a_letter_is_resolved_by_itself_when_another_message_brought_its_fact() {
    let world = World::new().await;
    unknown_payments(&world, 1).await;
    let (store, letter) = (world.store(), the_letter(&world.store()).await);
    world.order(OrderSpec::paid_by("pi_0")).await;
    let worker = world.start_worker();
    world.publish(&paid("pi_0", "evt_other")).await;
    eventually("it is granted", async || world.grants().await == 1).await;
    let seen = preview(&store, LetterFilter::default()).await;
    assert_eq!(seen.by_verdict.get("already_applied"), Some(&1));
    let letter = until(&store, letter.id, "resolved").await;
    assert_eq!(letter.row.replays, 0, "nothing was sent");
    worker.drain().await;
}

#[tokio::test]
async fn letters_of_messages_that_are_granted_change_no_balance() {
    let world = World::new().await;
    for n in 0..20 {
        world.order(OrderSpec::paid_by(&format!("pi_{n}"))).await;
    }
    unknown_payments(&world, 20).await;
    let worker = world.start_worker();
    for n in 0..20 {
        world.publish(&paid(&format!("pi_{n}"), &format!("evt_{n}"))).await;
    }
    eventually("all are granted", async || world.grants().await == 20).await;
    // Sent all the same, by somebody who does not look first.
    let store = world.store();
    let letters: Vec<LetterId> = all_letters(&store).await.iter().map(|letter| letter.id).collect();
    let balance = "SELECT sum(credits)::bigint FROM account_balances";
    let (before, ops) = (world.count(balance).await, RunningOps::start(&world));
    if let Some(id) = replay(&store, letters, ReplayPace::Steady).await {
        ended(&store, id).await;
    }
    eventually("all are resolved", async || {
        world.count("SELECT count(*) FROM dead_letters WHERE state <> 'resolved'").await == 0
    })
    .await;
    ops.stop().await;
    world.settled(worker).await;
    assert_eq!((world.count(balance).await, world.grants().await), (before, 20));
    world.verify().await;
}

#[tokio::test]
async fn two_operators_at_once_send_each_letter_once() {
    let world = World::new().await;
    unknown_payments(&world, 200).await;
    world.orders(200).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    assert_eq!(letters.len(), 200);
    let (one, two) = (world.store(), world.store());
    let (one, two) = tokio::join!(
        replay(&one, letters.clone(), ReplayPace::Canary),
        replay(&two, letters.clone(), ReplayPace::Canary)
    );
    // Two that send, as well.
    let (worker, first, second) = (world.start_worker(), RunningOps::start(&world), RunningOps::start(&world));
    for id in [one, two].into_iter().flatten() {
        ended(&store, id).await;
    }
    let sent = "SELECT count(*) FROM replay_letters WHERE state = 'resolved'";
    assert_eq!(world.count(sent).await, 200, "each letter is in one of the replays");
    first.stop().await;
    second.stop().await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (200, 200));
    world.verify().await;
}

#[tokio::test]
async fn what_is_refused_again_is_open_again_with_the_new_reason() {
    let world = World::new().await;
    unknown_payments(&world, 3).await;
    // Their orders cost something else.
    for n in 0..3 {
        world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by(&format!("pi_{n}")) }).await;
    }
    let store = world.store();
    let seen = preview(&store, LetterFilter::default()).await;
    assert_eq!((seen.helpful.len(), seen.by_verdict.get("would_be_refused")), (0, Some(&3)));

    // Somebody insists. The first one goes alone, and the others stay.
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let id = replay(&store, seen.all.clone(), ReplayPace::Canary).await.unwrap();
    let done = ended(&store, id).await;
    assert_eq!(done.state, ReplayState::Stopped);
    assert_eq!((done.counts.dead_again, done.counts.canceled), (1, 2));
    let canary = store.letter(seen.all[0]).await.unwrap().unwrap();
    assert_eq!((canary.row.state.name(), canary.row.reason.as_str()), ("open", "amount_mismatch"));
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 3);

    // The way out: the price is amended, then the same letters again.
    let orders: Vec<_> = all_letters(&store).await.iter().map(|letter| letter.order_id.unwrap()).collect();
    for order_id in orders {
        let amendment = Amendment {
            order_id,
            price: "USD".parse().and_then(|usd| grantonce::domain::Money::new(1999, usd)).unwrap(),
            dispute_policy: DisputePolicy::Hold,
            by: ada(),
            reason: "promotion code".to_owned(),
            now: OffsetDateTime::now_utc(),
        };
        assert!(matches!(store.amend_order(amendment).await.unwrap(), Amended::Written { .. }));
    }
    let helpful = preview(&store, LetterFilter::default()).await.helpful;
    let id = replay(&store, helpful, ReplayPace::Canary).await.unwrap();
    let done = ended(&store, id).await;
    assert_eq!((done.state, done.counts.resolved), (ReplayState::Finished, 3));
    ops.stop().await;
    world.settled(worker).await;
    assert_eq!(world.grants().await, 3);
    world.verify().await;
}

#[tokio::test]
async fn an_older_replays_letter_changes_nothing() {
    let world = World::new().await;
    unknown_payments(&world, 1).await;
    let (store, letter) = (world.store(), the_letter(&world.store()).await);
    let id = replay(&store, vec![letter.id], ReplayPace::Steady).await.unwrap();
    // A late copy of the first death, from before the replay.
    let ops = RunningOps::start(&world);
    let copy = Outgoing {
        exchange: DEAD_EXCHANGE,
        routing_key: "payment.stripe".to_owned(),
        message_id: letter.message_id.clone(),
        kind: letter.kind.clone(),
        content_type: "application/json",
        headers: Headers::default(),
        body: Bytes::from(store.letter(letter.id).await.unwrap().unwrap().body.unwrap()),
    };
    world.publish_raw(copy).await;
    eventually("the copy is counted", async || store.letter(letter.id).await.unwrap().unwrap().row.seen == 2).await;
    let now = store.letter(letter.id).await.unwrap().unwrap();
    assert_eq!((now.row.state.name(), now.row.replays), ("replaying", 1));
    let replay = store.replay(id).await.unwrap().unwrap();
    assert_eq!(replay.counts.dead_again, 0);
    ops.stop().await;
}

#[tokio::test]
async fn a_canceled_replay_leaves_what_it_did_not_send() {
    let world = World::new().await;
    unknown_payments(&world, 10).await;
    world.orders(10).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    let id = replay(&store, letters, ReplayPace::Canary).await.unwrap();
    // Nobody works: the first letter lies in the queue, the others wait for its outcome.
    let runner = runner(&world);
    eventually("the canary is sent", async || {
        runner.round().await.unwrap();
        world.ready(WORK_QUEUE).await == 1
    })
    .await;
    let now = OffsetDateTime::now_utc();
    assert_eq!(store.cancel_replay(id, ada(), "wrong ones".to_owned(), now).await.unwrap(), Some(9));
    assert_eq!(store.cancel_replay(id, ada(), "again".to_owned(), now).await.unwrap(), None, "once is enough");
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 9);
    assert_eq!(world.count("SELECT count(*) FROM audit_log WHERE action = 'replay.cancel'").await, 1);

    // What was sent is still heard of.
    let worker = world.start_worker();
    eventually("the canary's outcome is known", async || {
        runner.round().await.unwrap();
        store.replay(id).await.unwrap().unwrap().counts.resolved == 1
    })
    .await;
    let replay = ended(&store, id).await;
    assert_eq!((replay.state, replay.counts.canceled), (ReplayState::Canceled, 9));
    world.settled(worker).await;
    assert_eq!(world.grants().await, 1);
}

#[tokio::test]
async fn whoever_takes_over_from_a_sender_that_died_doubles_nothing() {
    let world = World::new().await;
    unknown_payments(&world, 30).await;
    world.orders(30).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    let id = replay(&store, letters, ReplayPace::Steady).await.unwrap();
    // One claims, publishes, and dies before it could write that down: its lease passes, and another sends them again.
    let runner = runner(&world);
    let claimed = store.claim_replay(id, std::time::Duration::ZERO, OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(claimed.len(), 30);
    for letter in &claimed {
        let copy = Outgoing {
            exchange: grantonce::broker::PAYMENTS_EXCHANGE,
            routing_key: letter.routing_key.clone(),
            message_id: letter.message_id.clone(),
            kind: letter.kind.clone(),
            content_type: "application/json",
            headers: Headers::default(),
            body: Bytes::from(letter.body.clone().unwrap()),
        };
        world.publish_raw(copy).await;
    }
    world.execute("UPDATE replay_letters SET claimed_at = claimed_at - interval '1 minute'").await;
    let worker = world.start_worker();
    eventually("every outcome is known", async || {
        runner.round().await.unwrap();
        store.replay(id).await.unwrap().unwrap().ended_at.is_some()
    })
    .await;
    world.settled(worker).await;
    assert_eq!((world.grants().await, world.admitted().await), (30, 30));
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'resolved'").await, 30);
    world.verify().await;
}

#[tokio::test]
async fn a_webhook_that_was_not_understood_is_translated_anew() {
    let world = World::new().await;
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    let (body, _) = stripe_webhook(STRIPE_SECRET, "evt_1", "pi_1", 1999, Some(order));
    // As a receiver of long ago kept it.
    let letter = Outgoing {
        exchange: DEAD_EXCHANGE,
        routing_key: "payment.stripe".to_owned(),
        message_id: "stripe::evt_1".to_owned(),
        kind: "webhook.stripe".to_owned(),
        content_type: "application/json",
        headers: Headers::default(),
        body: Bytes::from(body),
    };
    world.publish_raw(letter).await;
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let (store, letter) = (world.store(), the_letter(&world.store()).await);
    let seen = preview(&store, LetterFilter::default()).await;
    assert_eq!((seen.helpful.as_slice(), seen.credits), ([letter.id].as_slice(), 100));
    let id = replay(&store, seen.helpful, ReplayPace::Canary).await.unwrap();
    let done = ended(&store, id).await;
    assert_eq!(done.counts.resolved, 1);
    eventually("it is granted", async || world.grants().await == 1).await;
    ops.stop().await;
    worker.drain().await;
}

#[tokio::test]
async fn the_verdict_is_what_the_worker_then_does() {
    let world = World::new().await;
    let store = world.store();
    world.order(OrderSpec::paid_by("pi_a")).await;
    world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_b") }).await;
    world.order(OrderSpec::paid_by("pi_d")).await;
    let worker = world.start_worker();
    world.publish(&paid("pi_d", "evt_used")).await;
    eventually("one is granted", async || world.grants().await == 1).await;
    world.settled(worker).await;
    let refunded = |payment, id| {
        let money = grantonce::domain::Money::new(1999, "USD".parse().unwrap()).unwrap();
        event_for(payment, id, grantonce::domain::PaymentStatus::RefundedTotal { money })
    };
    for (event, verdict) in [
        (paid("pi_a", "evt_1"), "would_grant"),
        (paid("pi_b", "evt_2"), "would_be_refused"),
        (paid("pi_c", "evt_3"), "order_unknown"),
        (paid("pi_d", "evt_used"), "already_applied"),
        (event_for("pi_d", "evt_used", captured(5)), "would_be_refused"),
        (refunded("pi_d", "evt_6"), "would_adjust"),
        (refunded("pi_a", "evt_7"), "would_change"),
    ] {
        let weighed = store.weigh([event.clone()].into(), DisputePolicy::Hold).await.unwrap();
        assert_eq!(weighed[0].verdict.name(), verdict, "{event:?}");
    }
    let none = prospects::preview(&store, &TERMS, LetterFilter::default(), OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(none, prospects::Preview::default());
}

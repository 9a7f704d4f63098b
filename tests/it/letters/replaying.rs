//! Replays lose no message and double no grant, even if two operators begin one or a sender dies.

use super::{
    RunningOps, TERMS, ada, all_letters, copy_of, ended, letter_of, paid, preview, replay, runner, the_letter,
    unknown_payments, until,
};
use crate::support::messages::{event_for, stripe_webhook};
use crate::support::world::{OrderSpec, STRIPE_SECRET, World};
use bytes::Bytes;
use grantonce::broker::{Outgoing, PAYMENTS_EXCHANGE, WORK_QUEUE};
use grantonce::domain::{DisputePolicy, LetterId, Money, PaymentStatus, Verdict};
use grantonce::ops::prospects;
use grantonce::store::{
    Amended, Amendment, BatchTerms, LetterFilter, Outcome, Profile, ReplayPace, ReplayState, Sent, Store,
};
use grantonce_testkit::wait::eventually;
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
    // An operator sends them without a preview.
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
    // Two instances of ops send, too.
    let (worker, first, second) = (world.start_worker(), RunningOps::start(&world), RunningOps::start(&world));
    for id in [one, two].into_iter().flatten() {
        ended(&store, id).await;
    }
    let sent = "SELECT count(*) FROM replay_letters WHERE state = 'resolved'";
    assert_eq!(world.count(sent).await, 200, "each dead letter is in one of the replays");
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
    // Their orders have another price.
    for n in 0..3 {
        world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by(&format!("pi_{n}")) }).await;
    }
    let store = world.store();
    let seen = preview(&store, LetterFilter::default()).await;
    assert_eq!((seen.helpful.len(), seen.by_verdict.get("would_be_refused")), (0, Some(&3)));

    // The operator replays them nevertheless. The first one goes alone, and the others stay.
    let (worker, ops) = (world.start_worker(), RunningOps::start(&world));
    let id = replay(&store, seen.all.clone(), ReplayPace::Canary).await.unwrap();
    let done = ended(&store, id).await;
    assert_eq!(done.state, ReplayState::Stopped);
    assert_eq!((done.counts.dead_again, done.counts.canceled), (1, 2));
    let canary = store.letter(seen.all[0]).await.unwrap().unwrap();
    assert_eq!((canary.row.state.name(), canary.row.reason.as_str()), ("open", "amount_mismatch"));
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 3);

    // The solution: the price is amended, then the same dead letters are replayed.
    let orders: Vec<_> = all_letters(&store).await.iter().map(|letter| letter.order_id.unwrap()).collect();
    for order_id in orders {
        let amendment = Amendment {
            order_id,
            price: "USD".parse().and_then(|usd| Money::new(1999, usd)).unwrap(),
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
    // A late copy of the first failure, from before the replay.
    let ops = RunningOps::start(&world);
    world.publish_raw(copy_of(&store.letter(letter.id).await.unwrap().unwrap())).await;
    eventually("the copy is counted", async || store.letter(letter.id).await.unwrap().unwrap().row.seen == 2).await;
    let now = store.letter(letter.id).await.unwrap().unwrap();
    assert_eq!((now.row.state.name(), now.row.replays), ("replaying", 1));
    let replay = store.replay(id).await.unwrap().unwrap();
    assert_eq!(replay.counts.dead_again, 0);
    ops.stop().await;
}

#[tokio::test]
async fn a_late_word_of_an_earlier_replay_is_not_taken_for_the_later_ones() {
    let world = World::new().await;
    unknown_payments(&world, 1).await;
    let (store, letter) = (world.store(), the_letter(&world.store()).await);
    for late in [Sent::Confirmed, Sent::Resolved, Sent::Refused] {
        let earlier = replay(&store, vec![letter.id], ReplayPace::Steady).await.unwrap();
        let now = OffsetDateTime::now_utc();
        let claimed = store.claim_replay(earlier, std::time::Duration::from_secs(30), now).await.unwrap().remove(0);
        // The sender takes so long that the dead letter is in another replay before the result is known.
        assert_eq!(store.cancel_replay(earlier, ada(), "too slow".to_owned(), now).await.unwrap(), Some(1));
        let later = replay(&store, vec![letter.id], ReplayPace::Steady).await.unwrap();
        store.note_sent(vec![(letter.id, claimed.number, late)], now).await.unwrap();

        let letter = store.letter(letter.id).await.unwrap().unwrap().row;
        assert_eq!((letter.state.name(), letter.replays), ("replaying", claimed.number + 1), "{late:?}");
        let (earlier, later) = (store.replay(earlier).await.unwrap(), store.replay(later).await.unwrap());
        let (earlier, later) = (earlier.unwrap(), later.unwrap());
        assert_eq!(
            (earlier.counts.canceled, later.counts.queued),
            (0, 1),
            "{late:?}: the result belongs to the earlier replay"
        );
        assert_eq!(store.cancel_replay(later.id, ada(), "next".to_owned(), now).await.unwrap(), Some(1));
    }
}

#[tokio::test]
async fn a_canceled_replay_leaves_what_it_did_not_send() {
    let world = World::new().await;
    unknown_payments(&world, 10).await;
    world.orders(10).await;
    let store = world.store();
    let letters = preview(&store, LetterFilter::default()).await.helpful;
    let id = replay(&store, letters, ReplayPace::Canary).await.unwrap();
    // No worker runs. The first dead letter is in the queue, and the others wait for its outcome.
    let runner = runner(&world);
    eventually("the canary is sent", async || {
        runner.round().await.unwrap();
        world.ready(WORK_QUEUE).await == 1
    })
    .await;
    let now = OffsetDateTime::now_utc();
    assert_eq!(store.cancel_replay(id, ada(), "wrong ones".to_owned(), now).await.unwrap(), Some(9));
    assert_eq!(
        store.cancel_replay(id, ada(), "again".to_owned(), now).await.unwrap(),
        None,
        "a canceled replay is not canceled again"
    );
    assert_eq!(world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 9);
    assert_eq!(world.count("SELECT count(*) FROM audit_log WHERE action = 'replay.cancel'").await, 1);

    // The outcome of a sent dead letter is still noted.
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
    // A sender claims, publishes, and dies before it notes that. Its lease ends, and another sender sends them again.
    let runner = runner(&world);
    let claimed = store.claim_replay(id, std::time::Duration::ZERO, OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(claimed.len(), 30);
    for letter in &claimed {
        let kept = store.letter(letter.id).await.unwrap().unwrap();
        world.publish_raw(Outgoing { exchange: PAYMENTS_EXCHANGE, ..copy_of(&kept) }).await;
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
    // An old release of the receiver stored this.
    let letter = letter_of(&paid("pi_1", "evt_1"));
    world.publish_raw(Outgoing { kind: "webhook.stripe".to_owned(), body: Bytes::from(body), ..letter }).await;
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
    let store = Store::new(&world.store_settings(Profile::Batches)).unwrap();
    world.order(OrderSpec::paid_by("pi_a")).await;
    world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_b") }).await;
    world.order(OrderSpec::paid_by("pi_d")).await;
    let refunded = |payment, id| {
        let money = Money::new(1999, "USD".parse().unwrap()).unwrap();
        event_for(payment, id, PaymentStatus::RefundedTotal { money })
    };
    let used = paid("pi_d", "evt_used");
    let did = |granted| Some(Outcome::Applied { granted });
    // If a worker refuses the message, the verdict contains the same refusal.
    for (event, verdict, outcome) in [
        (used.clone(), "would_grant", did(true)),
        (used, "already_applied", Some(Outcome::Duplicate)),
        (paid("pi_d", "evt_again"), "already_applied", did(false)),
        (refunded("pi_d", "evt_used"), "would_be_refused", None),
        (refunded("pi_d", "evt_6"), "would_adjust", did(false)),
        (refunded("pi_a", "evt_7"), "would_change", did(false)),
        (paid("pi_a", "evt_1"), "would_change", did(false)),
        (paid("pi_b", "evt_2"), "would_be_refused", None),
        (paid("pi_c", "evt_3"), "order_unknown", Some(Outcome::OrderUnknown)),
    ] {
        let weighed = store.weigh([event.clone()].into(), DisputePolicy::Hold).await.unwrap().remove(0).verdict;
        assert_eq!(weighed.name(), verdict, "{event:?}");
        let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: OffsetDateTime::now_utc() };
        let done =
            store.apply([event.clone()].into(), terms, crate::support::APPLYING).await.unwrap().outcomes.remove(0);
        match (&done, outcome) {
            (Outcome::Refused(refusal), None) => assert_eq!(weighed, Verdict::WouldBeRefused(refusal.clone())),
            (_, outcome) => assert_eq!(Some(done), outcome, "{event:?}"),
        }
    }
    let none = prospects::preview(&store, &TERMS, LetterFilter::default(), OffsetDateTime::now_utc()).await.unwrap();
    assert_eq!(none, prospects::Preview::default());
}

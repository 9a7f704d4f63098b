//! The daily work of each role, with its own rights.

use super::NOW;
use super::deployment::{Deployment, run};
use grantonce::domain::{
    AccountId, CaptureState, Currency, DisputePolicy, Hint, LetterContent, LetterId, MessageId, Money, OrderId,
    Outlook, PaymentEvent, PaymentId, PaymentStatus, PriceTerms, Provider, Reason, Refusal, Verdict,
};
use grantonce::store::{
    Activity, Actor, Amended, Amendment, Asked, AskedAbout, Attach, BatchTerms, ClaimTerms, ExplainTerms, Forgetting,
    HandedOut, IdempotencyKey, Kept, LetterFilter, Looked, MessageNote, NewLetter, NewOrder, NewReplay, NoteBuffer,
    Noted, Outcome, Profile, ProviderAnswer, ReplayPace, Sent, Wanted, Weight,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

fn usd(amount_minor: i64) -> Money {
    Money::new(amount_minor, Currency::new("USD").unwrap()).unwrap()
}

fn new_order() -> NewOrder {
    NewOrder {
        id: OrderId(uuid::Uuid::now_v7()),
        account_id: AccountId::new("buyer").unwrap(),
        credits: 100,
        price: usd(1999),
        price_terms: PriceTerms::Total,
        provider: Provider::STRIPE,
        provider_account: None,
        payment_id: Some(PaymentId::new("pi_1").unwrap()),
        metadata: serde_json::json!({}),
        now: NOW,
        first_look_at: NOW + time::Duration::minutes(2),
    }
}

fn event(id: &str, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::{id}")).unwrap(),
        payment_id: PaymentId::new("pi_1").unwrap(),
        related_ids: vec![PaymentId::new("cs_1").unwrap()],
        provider_account: None,
        order_id: None,
        status,
        occurred_at: NOW,
        as_of: None,
        livemode: true,
    }
}

/// The API creates an order of 29.99, and an operator amends it to 19.99.
pub async fn make_and_amend_an_order(on: &Deployment) {
    let api = on.store("grantonce_api", Profile::Requests);
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "2".to_owned(), request_digest: [0; 32] };
    let new = NewOrder { price: usd(2999), payment_id: Some(PaymentId::new("pi_2").unwrap()), ..new_order() };
    let order_id = new.id;
    assert!(matches!(api.attach_order(key, new).await.unwrap(), Attach::Created(_)));
    let amendment = Amendment {
        order_id,
        price: usd(1999),
        dispute_policy: DisputePolicy::Hold,
        by: Actor { name: "ada".to_owned(), is_self_declared: true },
        reason: "tax".to_owned(),
        now: NOW,
    };
    // Another order, whose payment the API creates.
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "3".to_owned(), request_digest: [0; 32] };
    let new = NewOrder { payment_id: None, ..new_order() };
    let paid_for = new.id;
    assert!(matches!(api.attach_order(key, new).await.unwrap(), Attach::Created(_)));
    assert!(api.begin_attempt(paid_for, 1, vec![], NOW).await.unwrap());
    api.burn_attempt(paid_for, 1).await.unwrap();
    let seen = api.creation(paid_for).await.unwrap().unwrap().attempts;
    assert!(api.begin_attempt(paid_for, 2, seen, NOW).await.unwrap());
    let made = HandedOut { payment_id: PaymentId::new("pi_3").unwrap(), client_secret: None, approve_url: None };
    assert_eq!(api.keep_payment(paid_for, 2, made.clone(), NOW, NOW).await.unwrap(), Kept::HandedOut(made));

    let operator = on.store("grantonce_operator", Profile::Operations);
    let amended = operator.amend_order(amendment.clone()).await.unwrap();
    assert!(matches!(amended, Amended::Written { version: 2, .. }), "{amended:?}");
    // The console amends orders to the price that was paid.
    let ops = on.store("grantonce_ops", Profile::Operations);
    for price in [2999, 1999] {
        let amended = ops.amend_order(Amendment { price: usd(price), ..amendment.clone() }).await.unwrap();
        assert!(matches!(amended, Amended::Written { .. }), "{amended:?}");
    }
}

/// The API makes a look due, and a reconciler takes it. Another look is due because of a hint only.
pub async fn ask_about_an_order(on: &Deployment) {
    let api = on.store("grantonce_api", Profile::Requests);
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "4".to_owned(), request_digest: [0; 32] };
    let new = NewOrder { payment_id: Some(PaymentId::new("pi_4").unwrap()), ..new_order() };
    let id = new.id;
    assert!(matches!(api.attach_order(key, new).await.unwrap(), Attach::Created(_)));
    assert_eq!(api.want_look(id, NOW).await.unwrap(), Some(Wanted::Due));

    let reconciler = on.store("grantonce_reconciler", Profile::Operations);
    let hint = Hint {
        provider: Provider::STRIPE,
        message_id: MessageId::new("stripe::evt_9").unwrap(),
        payment_id: PaymentId::new("pi_9").unwrap(),
        related_ids: vec![],
        provider_account: None,
        livemode: true,
    };
    reconciler.want_looks(vec![hint], NOW).await.unwrap();
    let terms = ClaimTerms { provider: Provider::STRIPE, per_s_max: 9, lease: Duration::from_secs(60), now: NOW };
    let due = reconciler.claim_looks(terms).await.unwrap();
    assert_eq!(due.len(), 3, "with the one whose payment was created: {due:?}");
    for look in due {
        let looked = Looked::Answered { answer: ProviderAnswer::Unpaid, next_at: None, wanted_at: NOW };
        reconciler.finish_look(look, looked, NOW).await.unwrap();
    }
}

/// The API creates an order, and the worker grants it, each with its own rights.
pub async fn make_and_pay_an_order(on: &Deployment) {
    let api = on.store("grantonce_api", Profile::Requests);
    let key = IdempotencyKey { token_name: "site".to_owned(), key: "1".to_owned(), request_digest: [0; 32] };
    assert!(matches!(api.attach_order(key.clone(), new_order()).await.unwrap(), Attach::Created(_)));
    assert!(matches!(api.attach_order(key, new_order()).await.unwrap(), Attach::Replayed(_)));

    let captured =
        PaymentStatus::Captured { money: usd(1999), capture_id: None, state: CaptureState::Succeeded, breakdown: None };
    let events = [
        event("evt_1", captured.clone()),
        event("evt_1", captured),
        event("evt_2", PaymentStatus::RefundedTotal { money: usd(1000) }),
    ];
    let worker = on.store("grantonce_worker", Profile::Batches);
    let terms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: NOW };
    let applied = worker.apply(Arc::new(events), terms, crate::support::APPLYING).await.unwrap();
    assert_eq!(
        applied.outcomes,
        [Outcome::Applied { granted: true }, Outcome::Duplicate, Outcome::Applied { granted: false }]
    );
    worker.maintain_inbox(NOW, time::Duration::days(90)).await.unwrap();
    let note_buffer = NoteBuffer::default();
    let copy = MessageNote::new(&event("evt_1", PaymentStatus::Canceled), Noted::Copy);
    for _ in 0..2 {
        note_buffer.note(Activity { applied: 1, ..Activity::default() }, vec![copy.clone()], NOW);
        note_buffer.write(&worker).await;
    }
    assert_eq!(worker.activity(NOW - time::Duration::minutes(1)).await.unwrap()[0].applied, 2);
    worker.maintain_notes(NOW, time::Duration::days(90)).await.unwrap();
}

/// Reads a story with a row of every table, with the rights of `verify`.
pub async fn tell_a_story(on: &Deployment) {
    run(
        &mut on.as_administrator().await,
        "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail, origin,
             attempts, provider, payment_id, state_at, first_seen_at, last_seen_at)
         VALUES (gen_random_uuid(), 'stripe::x', '', '', '{}', 'x', 1, 'malformed', '', '', 'worker', 1, 'stripe', 'pi_1', now(),
                 now(), now());
         INSERT INTO replays (created_at, actor, is_self_declared, reason, selection, per_s_max, pace, state, letters, busy_until)
         VALUES (now(), 'bob', true, 'tax', '{}', 1, 'steady', 'finished', 1, now());
         INSERT INTO replay_letters SELECT r.id, 1, l.id, 1, 'resolved', now(), now(), now() FROM replays r, dead_letters l;",
    )
    .await
    .unwrap();
    let verify = on.store("grantonce_verify", Profile::Audit);
    let terms = ExplainTerms { now: NOW, dispute_policy: DisputePolicy::Hold, orders_max: 50, entries_max: 500 };
    let story = verify.explain(Asked::new("pi_1", None).unwrap(), terms).await.unwrap().unwrap();
    let kinds: BTreeSet<_> = story.entries.iter().map(|entry| entry.what.kind()).collect();
    for kind in ["message_admitted", "credits_granted", "letter_received", "letter_replayed", "provider_asked"] {
        assert!(kinds.contains(kind), "{kind}: {story:#?}");
    }
    assert!(story.entries.iter().any(|entry| entry.text.contains("2 copies")), "{story:#?}");
    for id in ["stripe::evt_1", "buyer"] {
        assert!(verify.explain(Asked::new(id, None).unwrap(), terms).await.unwrap().is_some(), "{id}");
    }
}

/// Ops stores, weighs, replays, archives and restores a dead letter, and deletes it in the end.
pub async fn work_on_a_letter(on: &Deployment) {
    let ops = on.store("grantonce_ops", Profile::Operations);
    let id = LetterId("5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f".parse().unwrap());
    let letter = NewLetter {
        id,
        message_id: "stripe::evt_9".to_owned(),
        kind: "payment-status.v1".to_owned(),
        routing_key: "payment.stripe".to_owned(),
        headers: serde_json::json!({}),
        body: b"x".to_vec(),
        body_bytes: 1,
        reason: Reason::Malformed,
        cause: "x".to_owned(),
        detail: "x".to_owned(),
        origin: "worker",
        attempts: 1,
        replay: 0,
        content: LetterContent { provider: Some(Provider::STRIPE), ..LetterContent::default() },
    };
    ops.keep_letters(vec![letter], NOW).await.unwrap();
    ops.letters_to_read(10).await.unwrap();
    ops.note_contents(vec![(id, LetterContent::default())]).await.unwrap();
    assert_eq!(ops.open_letters(NOW).await.unwrap().overpaid_orders, 0);
    assert!(ops.overpaid_orders(10).await.unwrap().is_empty());
    let by = || Actor { name: "ada".to_owned(), is_self_declared: false };
    let refused = || Verdict::WouldBeRefused(Refusal::new(Reason::Malformed, "x"));
    assert!(!ops.letters_to_weigh(NOW, 10).await.unwrap().is_empty());
    let weight = || Weight { id, outlook: Outlook::new(vec![refused()]), order: None };
    ops.note_weights(vec![weight()], NOW).await.unwrap();
    let event = event("evt_1", PaymentStatus::Canceled);
    assert_eq!(ops.weigh([event].into(), DisputePolicy::Hold).await.unwrap().len(), 1);
    let replay = NewReplay {
        letters: vec![id],
        selection: LetterFilter::default(),
        per_s_max: 10,
        pace: ReplayPace::Canary,
        by: by(),
        reason: "a test".to_owned(),
        now: NOW,
    };
    let begun = ops.begin_replay(replay).await.unwrap().unwrap();
    assert_eq!(ops.claim_replay(begun.id, Duration::from_secs(1), NOW).await.unwrap().len(), 1);
    ops.note_sent(vec![(id, 1, Sent::Confirmed)], NOW).await.unwrap();
    assert!(ops.cancel_replay(begun.id, by(), "enough".to_owned(), NOW).await.unwrap().is_some());
    ops.end_replays(NOW + time::Duration::DAY, NOW).await.unwrap();
    assert!(ops.replay(begun.id).await.unwrap().unwrap().ended_at.is_some());
    let this = || LetterFilter { ids: Some(vec![id.0]), ..LetterFilter::default() };
    assert_eq!(ops.archive_letters(this(), by(), "x".to_owned(), NOW).await.unwrap(), 1);
    assert_eq!(ops.restore_letters(this(), by(), "x".to_owned(), NOW).await.unwrap(), 1);
    assert_eq!(ops.archive_letters(this(), by(), "x".to_owned(), NOW).await.unwrap(), 1);
    assert_eq!(ops.expire_letters(NOW + time::Duration::DAY, NOW).await.unwrap(), 1);
    assert_eq!(ops.open_letters(NOW).await.unwrap().by_reason.len(), 1);
    ops.activity(NOW).await.unwrap();
    assert!(ops.letter_groups(LetterFilter::default()).await.unwrap().len() == 1);
    let orders = ops.letters_by_order(LetterFilter::default(), None, 10).await.unwrap().orders;
    let wanted = orders.iter().filter_map(|order| order.order_id).collect();
    assert_eq!(ops.letters_to_read_again(orders[0].ids.clone()).await.unwrap().len(), orders[0].ids.len());
    ops.orders_to_judge(wanted).await.unwrap();
    let payment = AskedAbout::Payment {
        provider: Provider::STRIPE,
        provider_account: None,
        payment_id: PaymentId::new("pi_1").unwrap(),
    };
    let askable = ops.askable(payment).await.unwrap().unwrap();
    let order = askable.order_id.expect("the payment's order");
    assert_eq!(ops.askable(AskedAbout::Order(order)).await.unwrap().unwrap().payment_ids[0].as_str(), "pi_1");
    ops.note_check(askable, by(), "to see".to_owned(), NOW).await.unwrap();
    // Only where a deployment hands it out.
    assert!(!ops.may_forget().await.unwrap());
    assert!(on.store("grantonce_operator", Profile::Operations).may_forget().await.unwrap());
    let terms = ExplainTerms { now: NOW, dispute_policy: DisputePolicy::Hold, orders_max: 50, entries_max: 500 };
    for id in ["pi_1", "buyer"] {
        assert!(ops.explain(Asked::new(id, None).unwrap(), terms).await.unwrap().is_some(), "{id}");
    }
}

/// The operator forgets the buyer, without a right to read the emptied data.
pub async fn forget_the_buyer(on: &Deployment) {
    run(&mut on.as_administrator().await, "UPDATE orders SET metadata = '{\"name\": \"somebody\"}'").await.unwrap();
    let operator = on.store("grantonce_operator", Profile::Operations);
    let forgetting = Forgetting {
        account: AccountId::new("buyer").unwrap(),
        for_real: true,
        by: Actor { name: "ada".to_owned(), is_self_declared: true },
        reason: "a request".to_owned(),
        now: NOW,
    };
    let forgotten = operator.forget_account(forgetting).await.unwrap().unwrap();
    assert_eq!((forgotten.orders, forgotten.letters_left), (forgotten.orders_seen, 1), "{forgotten:?}");
}

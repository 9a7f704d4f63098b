//! Every transaction that locks more than one row runs against all others on few orders. There is never a deadlock.

use super::{apply, batches, key, order_for};
use crate::letters::{ada, all_letters};
use crate::support::{World, captured, event_for};
use futures_util::future::join_all;
use grantonce::domain::{
    AccountId, DisputePolicy, Hint, LetterContent, LetterId, MessageId, Money, OrderId, Outlook, PaymentEvent,
    PaymentId, PaymentStatus, Provider, Reason, Verdict,
};
use grantonce::store::{
    Amendment, Attach, ClaimTerms, Class, Forgetting, HandedOut, LetterFilter, Looked, NewLetter, NewReplay,
    ProviderAnswer, ReplayPace, Sent, Store, StoreError, Weight,
};
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;

/// Few orders, so every transaction meets others.
const ORDERS: usize = 6;

/// The number of rounds for each caller. Each kind of transaction has two callers.
const ROUNDS: usize = 60;

/// The rows that all callers work on.
struct Things {
    orders: Vec<(OrderId, String)>,
    letters: Vec<LetterId>,
}

impl Things {
    /// Some of the payments, in a random order.
    fn payments(&self) -> Vec<String> {
        shuffled(self.orders.iter().map(|(_, payment)| payment.clone()).collect())
    }

    fn order(&self) -> OrderId {
        self.orders[fastrand::usize(..self.orders.len())].0
    }

    fn letters(&self) -> Vec<LetterId> {
        shuffled(self.letters.clone())
    }
}

/// A dead letter about each order.
fn letter_about((n, (order, payment)): (usize, &(OrderId, String))) -> NewLetter {
    NewLetter {
        id: LetterId(uuid::Uuid::from_u128(u128::try_from(n).unwrap())),
        message_id: format!("stripe::evt_{n}"),
        kind: "payment-status.v1".to_owned(),
        routing_key: "payment.stripe".to_owned(),
        headers: serde_json::json!({}),
        body: b"{}".to_vec(),
        body_bytes: 2,
        reason: Reason::Malformed,
        cause: String::new(),
        detail: String::new(),
        origin: "worker",
        attempts: 1,
        replay: 0,
        content: LetterContent {
            provider: Some(Provider::STRIPE),
            payment_ids: vec![PaymentId::new(payment.as_str()).unwrap()],
            order_ids: vec![*order],
            ..LetterContent::default()
        },
    }
}

fn shuffled<T>(mut things: Vec<T>) -> Vec<T> {
    fastrand::shuffle(&mut things);
    things.truncate(things.len() * 2 / 3 + 1);
    things
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

/// Accepts an error of class `Contended`, because all callers block each other. Postgres counts deadlocks even if the code hides
/// them.
fn may_be_contended<T>(done: Result<T, StoreError>) -> Option<T> {
    match done {
        Ok(done) => Some(done),
        Err(error) if error.class() == Class::Contended => None,
        Err(error) => panic!("{error}"),
    }
}

/// Four events of each payment, as a provider sends them at one moment. Two workers have copies of most of them.
async fn a_batch(store: Store, things: Arc<Things>, round: usize) {
    let of_payment = |payment: String| {
        let events = [
            event_for(&payment, &format!("{payment}_{round}_created"), PaymentStatus::Pending),
            event_for(&payment, &format!("{payment}_{round}_charge"), captured(1999)),
            PaymentEvent {
                related_ids: vec![PaymentId::new(format!("cs_{payment}_{round}")).unwrap()],
                ..event_for(&payment, &format!("{payment}_{round}_session"), captured(1999))
            },
            event_for(&payment, &format!("{payment}_known"), captured(1999)),
        ];
        shuffled(events.to_vec())
    };
    let events: Vec<PaymentEvent> = things.payments().into_iter().flat_map(of_payment).collect();
    may_be_contended(apply(&store, &events).await);
}

async fn a_creation(store: Store, things: Arc<Things>, round: usize) {
    // Some payments belong to another order, some are registered by a batch at the same moment.
    let payment = match round % 3 {
        0 => things.payments().remove(0),
        1 => format!("cs_{}_{round}", things.payments().remove(0)),
        _ => format!("pi_new_{round}"),
    };
    let order = order_for(&payment);
    let id = order.id;
    let made = may_be_contended(store.attach_order(key(&format!("key_{}", round % 7)), order).await);
    if matches!(made, Some(Attach::Created(_))) {
        may_be_contended(store.begin_attempt(id, 1, vec![], now()).await);
        let made = HandedOut { payment_id: PaymentId::new(payment).unwrap(), client_secret: None, approve_url: None };
        may_be_contended(store.keep_payment(id, 1, made, now(), now()).await);
    }
}

async fn an_amendment(store: Store, things: Arc<Things>, round: usize) {
    let price = Money::new(1999 + i64::try_from(round % 2).unwrap(), "USD".parse().unwrap()).unwrap();
    let (order_id, by, reason) = (things.order(), ada(), "r".to_owned());
    let amendment = Amendment { order_id, price, dispute_policy: DisputePolicy::Hold, by, reason, now: now() };
    may_be_contended(store.amend_order(amendment).await);
}

async fn a_forgetting(store: Store, _: Arc<Things>, _: usize) {
    let account = AccountId::new("acc").unwrap();
    let forgetting = Forgetting { account, for_real: true, by: ada(), reason: "r".to_owned(), now: now() };
    may_be_contended(store.forget_account(forgetting).await);
}

async fn hints(store: Store, things: Arc<Things>, round: usize) {
    let hint = |payment: String| Hint {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::hint_{payment}_{round}")).unwrap(),
        payment_id: PaymentId::new(payment).unwrap(),
        related_ids: vec![],
        provider_account: None,
        livemode: false,
    };
    let of_payment = |payment: String| [hint(format!("cs_{payment}_{round}")), hint(payment)];
    let hints = shuffled(things.payments().into_iter().flat_map(of_payment).collect());
    may_be_contended(store.want_looks(hints, now()).await);
    may_be_contended(store.want_look(things.order(), now()).await);
}

async fn looks(store: Store, _: Arc<Things>, _: usize) {
    let terms =
        ClaimTerms { provider: Provider::STRIPE, per_s_max: 1_000, lease: Duration::from_millis(1), now: now() };
    for due in may_be_contended(store.claim_looks(terms).await).unwrap_or_default() {
        let looked = Looked::Answered { answer: ProviderAnswer::Paid, next_at: Some(now()), wanted_at: now() };
        may_be_contended(store.finish_look(due, looked, now()).await);
    }
}

async fn a_replay(store: Store, things: Arc<Things>, round: usize) {
    let replay = NewReplay {
        letters: things.letters(),
        selection: LetterFilter::default(),
        per_s_max: 1_000,
        pace: ReplayPace::Steady,
        by: ada(),
        reason: "r".to_owned(),
        now: now() - Duration::from_secs(1),
    };
    let Some(Some(begun)) = may_be_contended(store.begin_replay(replay).await) else { return };
    let lease = Duration::from_millis(1);
    let claimed = may_be_contended(store.claim_replay(begun.id, lease, now()).await).unwrap_or_default();
    let sent = claimed.iter().map(|letter| (letter.id, letter.number, Sent::Confirmed)).collect();
    may_be_contended(store.note_sent(shuffled(sent), now()).await);
    if round.is_multiple_of(2) {
        may_be_contended(store.cancel_replay(begun.id, ada(), "r".to_owned(), now()).await);
    }
    may_be_contended(store.end_replays(now() + Duration::from_secs(1), now()).await);
}

async fn weights(store: Store, things: Arc<Things>, round: usize) {
    let verdict = || match round.is_multiple_of(3) {
        true => Verdict::NothingToDo { why: "a test" },
        false => Verdict::WouldAsk { payment_id: PaymentId::new("pi_0").unwrap() },
    };
    let weight = |id| Weight { id, outlook: Outlook::new(vec![verdict()]), order: None };
    let weights = things.letters().into_iter().map(weight).collect();
    may_be_contended(store.note_weights(weights, now()).await);
}

async fn archiving(store: Store, things: Arc<Things>, _: usize) {
    let filter = || LetterFilter::of_ids(things.letters());
    may_be_contended(store.archive_letters(filter(), ada(), "r".to_owned(), now()).await);
    may_be_contended(store.restore_letters(filter(), ada(), "r".to_owned(), now()).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_transactions_of_ours_wait_for_each_other_in_a_circle() {
    let world = World::new().await;
    let store = world.store();
    let mut orders = vec![];
    for n in 0..ORDERS {
        let order = order_for(&format!("pi_{n}"));
        orders.push((order.id, format!("pi_{n}")));
        store.attach_order(key(&format!("first_{n}")), order).await.unwrap();
    }
    store.keep_letters(orders.iter().enumerate().map(letter_about).collect(), now()).await.unwrap();
    let letters = all_letters(&store).await.iter().map(|letter| letter.id).collect();
    let things = Arc::new(Things { orders, letters });

    macro_rules! twice {
        ($($what:ident),*) => {{
            let mut callers = vec![];
            $(for _ in 0..2 {
                let (store, things) = (batches(&world), Arc::clone(&things));
                callers.push(tokio::spawn(async move {
                    for round in 0..ROUNDS {
                        $what(store.clone(), Arc::clone(&things), round).await;
                    }
                    // A connection reports its counters when it ends.
                    store.close(Duration::from_secs(5)).await;
                }));
            })*
            callers
        }};
    }
    let callers =
        twice!(a_batch, a_batch, a_creation, an_amendment, a_forgetting, hints, looks, a_replay, weights, archiving);
    for done in join_all(callers).await {
        done.unwrap();
    }
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(world.count(deadlocks).await, 0, "deadlocks");
    world.verify().await;
}

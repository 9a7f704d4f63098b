//! Questions to providers are shared between the reconcilers, keep one rate, and are never forgotten.

use super::{key, order_for};
use crate::support::World;
use grantonce::domain::{Hint, MessageId, OrderId, OrderStatus, PaymentId, Provider, ProviderAccount};
use grantonce::store::{Attach, ClaimTerms, DueLook, Looked, NewOrder, ProviderAnswer, Store, Wanted};
use std::collections::BTreeSet;
use std::time::Duration;
use time::OffsetDateTime;
use time::macros::datetime;

const NOW: OffsetDateTime = datetime!(2026-01-05 12:00:00 UTC);
const SECOND: time::Duration = time::Duration::SECOND;

fn terms(per_s_max: u16, now: OffsetDateTime) -> ClaimTerms {
    ClaimTerms { provider: Provider::STRIPE, per_s_max, lease: Duration::from_secs(60), now }
}

/// An order that is due at `NOW`.
async fn order(store: &Store, payment: &str) -> OrderId {
    let new = NewOrder { now: NOW - time::Duration::minutes(2), first_look_at: NOW, ..order_for(payment) };
    let id = new.id;
    assert!(matches!(store.attach_order(key(payment), new).await.unwrap(), Attach::Created(_)));
    id
}

fn hint(payment: &str, related: &[&str]) -> Hint {
    let id = |text: &str| PaymentId::new(text).unwrap();
    Hint {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::hint_{payment}")).unwrap(),
        payment_id: id(payment),
        related_ids: related.iter().map(|text| id(text)).collect(),
        provider_account: None,
        livemode: false,
    }
}

fn names(due: &[DueLook]) -> Vec<&str> {
    due.iter().map(|look| look.payment_id.as_str()).collect()
}

fn answered(answer: ProviderAnswer, next_at: Option<OffsetDateTime>) -> Looked {
    Looked::Answered { answer, next_at, wanted_at: NOW + SECOND * 30 }
}

#[tokio::test]
async fn of_many_that_claim_each_look_goes_to_one() {
    let world = World::new().await;
    let store = world.store();
    for n in 0..60 {
        order(&store, &format!("pi_{n}")).await;
    }
    let claims = (0..8).map(|_| {
        let store = world.store();
        tokio::spawn(async move {
            let mut mine = vec![];
            loop {
                let due = store.claim_looks(terms(1_000, NOW + SECOND)).await.unwrap();
                if due.is_empty() {
                    return mine;
                }
                mine.extend(due);
            }
        })
    });
    let mut all = vec![];
    for claim in claims.collect::<Vec<_>>() {
        all.extend(claim.await.unwrap());
    }
    assert_eq!(all.len(), 60);
    assert_eq!(names(&all).into_iter().collect::<BTreeSet<_>>().len(), 60);
    assert!(all.iter().all(|look| look.order.unwrap().status == OrderStatus::AwaitingPayment));
}

#[tokio::test]
async fn all_that_claim_keep_one_rate() {
    let world = World::new().await;
    let store = world.store();
    for n in 0..60 {
        order(&store, &format!("pi_{n}")).await;
    }
    let (first, second) = (world.store(), world.store());
    let mut counts = vec![];
    for step in 0..31 {
        let now = NOW + SECOND / 10 * step;
        let (one, other) = tokio::join!(first.claim_looks(terms(10, now)), second.claim_looks(terms(10, now)));
        counts.push(one.unwrap().len() + other.unwrap().len());
    }
    assert_eq!(counts[0], 10, "one second's worth at once");
    assert_eq!(counts.iter().sum::<usize>(), 40, "and ten a second: {counts:?}");
}

#[tokio::test]
async fn an_order_that_was_paid_meanwhile_costs_no_call() {
    let world = World::new().await;
    let store = world.store();
    let paid = order(&store, "pi_paid").await;
    order(&store, "pi_open").await;
    world.execute(&format!("UPDATE orders SET status = 'fulfilled' WHERE id = '{paid}'")).await;
    assert_eq!(names(&store.claim_looks(terms(10, NOW)).await.unwrap()), ["pi_open"]);
    let in_a_day = "SELECT count(*) FROM provider_looks l JOIN orders o ON o.id = l.order_id
                    WHERE l.due_at = o.created_at + interval '1 day'";
    assert_eq!(world.count(in_a_day).await, 1);
    // It is due if an API call asks for it.
    assert_eq!(store.want_look(paid, NOW).await.unwrap(), Some(Wanted::Due));
    assert_eq!(names(&store.claim_looks(terms(10, NOW + SECOND)).await.unwrap()), ["pi_paid"]);
}

#[tokio::test]
async fn who_asks_is_served_first_and_once_in_a_while() {
    let world = World::new().await;
    let store = world.store();
    for n in 0..20 {
        order(&store, &format!("pi_{n}")).await;
    }
    let wanted = NewOrder { first_look_at: NOW + SECOND * 9_000, ..order_for("pi_wanted") };
    let id = wanted.id;
    assert!(matches!(store.attach_order(key("wanted"), wanted).await.unwrap(), Attach::Created(_)));
    assert_eq!(store.want_look(id, NOW).await.unwrap(), Some(Wanted::Due));
    for _ in 0..3 {
        assert_eq!(store.want_look(id, NOW).await.unwrap(), Some(Wanted::Coalesced));
    }
    let due = store.claim_looks(terms(5, NOW)).await.unwrap();
    assert!(names(&due).contains(&"pi_wanted"), "{due:?}");
    let look = due.into_iter().find(|look| look.payment_id.as_str() == "pi_wanted").unwrap();

    // The buyer comes back once more while the provider answers. There may be news.
    assert_eq!(store.want_look(id, NOW + SECOND).await.unwrap(), Some(Wanted::Due));
    store.finish_look(look, answered(ProviderAnswer::Unpaid, None), NOW + SECOND * 2).await.unwrap();
    let is_due = async |now| {
        let due = store.claim_looks(terms(100, now)).await.unwrap();
        due.into_iter().find(|look| look.payment_id.as_str() == "pi_wanted")
    };
    assert_eq!(is_due(NOW + SECOND * 29).await, None, "not before the pause is over");
    let again = is_due(NOW + SECOND * 31).await.expect("the second want was not forgotten");
    assert_eq!(again.last_answer, Some(ProviderAnswer::Unpaid));
    store.finish_look(again, answered(ProviderAnswer::Unpaid, None), NOW + SECOND * 32).await.unwrap();
    let unexpected = "SELECT count(*) FROM provider_looks WHERE payment_id = 'pi_wanted' AND due_at IS NULL";
    assert_eq!(world.count(unexpected).await, 1, "nothing more is expected");
    // The provider was asked a moment ago, so the next question waits a little, and is asked then.
    assert_eq!(store.want_look(id, NOW + SECOND * 33).await.unwrap(), Some(Wanted::Due));
    assert_eq!(is_due(NOW + SECOND * 36).await, None);
    assert!(is_due(NOW + SECOND * 37).await.is_some());
}

#[tokio::test]
async fn a_claim_that_is_not_finished_is_over_by_itself_and_its_owner_is_late() {
    let world = World::new().await;
    let store = world.store();
    order(&store, "pi_1").await;
    let [lost] = &store.claim_looks(terms(10, NOW)).await.unwrap()[..] else { panic!("one is due") };
    assert_eq!(store.claim_looks(terms(10, NOW + SECOND * 59)).await.unwrap(), []);
    let [taken] = &store.claim_looks(terms(10, NOW + SECOND * 61)).await.unwrap()[..] else {
        panic!("it is due again")
    };
    store.finish_look(lost.clone(), answered(ProviderAnswer::Paid, None), NOW + SECOND * 62).await.unwrap();
    let says = "SELECT count(*) FROM provider_looks WHERE said IS NOT NULL";
    assert_eq!(world.count(says).await, 0, "its answer does not count any more");
    let again = Looked::Failed { next_at: Some(NOW + SECOND * 100) };
    store.finish_look(taken.clone(), again, NOW + SECOND * 63).await.unwrap();
    let [third] = &store.claim_looks(terms(10, NOW + SECOND * 100)).await.unwrap()[..] else { panic!("due once more") };
    assert_eq!(third.failures, 1);

    // The time between questions to a provider that is away grows. If a buyer waits, the provider is asked soon.
    let id = third.order.unwrap().id;
    let in_an_hour = Looked::Failed { next_at: Some(NOW + SECOND * 3_600) };
    store.finish_look(third.clone(), in_an_hour, NOW + SECOND * 101).await.unwrap();
    assert_eq!(store.claim_looks(terms(10, NOW + SECOND * 200)).await.unwrap(), []);
    for _ in 0..3 {
        assert_eq!(store.want_look(id, NOW + SECOND * 102).await.unwrap(), Some(Wanted::Due));
    }
    assert_eq!(store.claim_looks(terms(10, NOW + SECOND * 105)).await.unwrap(), [], "not at once");
    assert_eq!(names(&store.claim_looks(terms(10, NOW + SECOND * 106)).await.unwrap()), ["pi_1"]);
}

#[tokio::test]
async fn a_hint_leads_to_the_order_by_any_id_and_else_stands_for_itself() {
    let world = World::new().await;
    let store = world.store();
    let id = order(&store, "pi_1").await;
    world.execute("UPDATE provider_looks SET due_at = NULL").await;
    world
        .execute(&format!("INSERT INTO payments (provider, payment_id, order_id, registered_at) VALUES ('stripe', 'ch_1', '{id}', now())"))
        .await;
    let hints = vec![hint("re_1", &["ch_1"]), hint("pi_unknown", &[]), hint("pi_unknown", &[])];
    store.want_looks(hints.clone(), NOW).await.unwrap();
    store.want_looks(hints, NOW).await.unwrap();
    let due = store.claim_looks(terms(10, NOW)).await.unwrap();
    assert_eq!(names(&due).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from(["pi_1", "pi_unknown"]));
    for look in due {
        assert_eq!(look.order.map(|order| order.id), (look.payment_id.as_str() == "pi_1").then_some(id));
        store.finish_look(look, answered(ProviderAnswer::Paid, None), NOW).await.unwrap();
    }
    assert_eq!(world.count("SELECT count(*) FROM provider_looks").await, 1, "a payment without an order is forgotten");

    // A hint that comes before its order.
    store.want_looks(vec![hint("pi_2", &[])], NOW).await.unwrap();
    let id = order(&store, "pi_2").await;
    let [look] = &store.claim_looks(terms(10, NOW)).await.unwrap()[..] else { panic!("one is due") };
    assert_eq!(look.order.unwrap().id, id);
}

#[tokio::test]
async fn an_order_that_nobody_can_be_asked_about_says_so() {
    let world = World::new().await;
    let store = world.store();
    let by_adyen = NewOrder { provider: Provider::new("adyen").unwrap(), ..order_for("psp_1") };
    let adyens = by_adyen.id;
    assert!(matches!(store.attach_order(key("a"), by_adyen).await.unwrap(), Attach::Created(_)));
    assert_eq!(store.want_look(adyens, NOW).await.unwrap(), Some(Wanted::CannotBeAsked));
    let unmade = NewOrder { payment_id: None, ..order_for("none") };
    let without = unmade.id;
    assert!(matches!(store.attach_order(key("b"), unmade).await.unwrap(), Attach::Created(_)));
    assert_eq!(store.want_look(without, NOW).await.unwrap(), Some(Wanted::NoPayment));
    assert_eq!(store.want_look(OrderId(uuid::Uuid::now_v7()), NOW).await.unwrap(), None);
    assert_eq!(world.count("SELECT count(*) FROM provider_looks").await, 0);
}

#[tokio::test]
async fn payments_of_two_accounts_that_share_an_id_are_two() {
    let world = World::new().await;
    let store = world.store();
    let account = || Some(ProviderAccount::new("acct_1").unwrap());
    let ours = order(&store, "pi_1").await;
    let new = NewOrder { now: NOW, first_look_at: NOW, provider_account: account(), ..order_for("pi_1") };
    let theirs = new.id;
    assert!(matches!(store.attach_order(key("theirs"), new).await.unwrap(), Attach::Created(_)));
    let unknown = Hint { provider_account: account(), ..hint("pi_2", &[]) };
    store.want_looks(vec![Hint { provider_account: account(), ..hint("pi_1", &[]) }, unknown], NOW).await.unwrap();
    let due = store.claim_looks(terms(10, NOW)).await.unwrap();
    let mut seen: Vec<_> = due
        .iter()
        .map(|look| {
            let account = look.provider_account.as_ref().map_or("", |account| account.as_str());
            (look.payment_id.as_str(), account, look.order.map(|order| order.id))
        })
        .collect();
    seen.sort_unstable();
    assert_eq!(seen, [("pi_1", "", Some(ours)), ("pi_1", "acct_1", Some(theirs)), ("pi_2", "acct_1", None)]);
    for look in due {
        store.finish_look(look, answered(ProviderAnswer::Unpaid, None), NOW).await.unwrap();
    }
    assert_eq!(world.count("SELECT count(*) FROM provider_looks WHERE due_at IS NULL AND claimed_at IS NULL").await, 2);
}

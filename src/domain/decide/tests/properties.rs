//! Convergence: the same events lead to the same facts, status and credits, if they arrive in another sequence, twice or together.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// An order after all postings, and the entries that the ledger wrote.
#[derive(Debug, Clone, PartialEq)]
struct Ledger {
    order: Order,
    grants: Vec<i64>,
    adjustments: Vec<i64>,
}

impl Ledger {
    fn new(order: Order) -> Self {
        Self { order, grants: vec![], adjustments: vec![] }
    }

    fn net(&self) -> i64 {
        self.grants.iter().chain(&self.adjustments).sum()
    }

    /// Applies a batch as the worker does: assess each event against the locked order, join, settle once, post.
    fn apply(&mut self, batch: &[PaymentEvent], policy: DisputePolicy) {
        let accepted: Vec<_> = batch.iter().filter(|event| assess(&self.order, event).is_ok()).collect();
        for event in accepted {
            self.order.join(event);
        }
        let posting = settle(&self.order, policy).unwrap();
        if posting.grant {
            self.grants.push(self.order.credits);
            self.order.is_granted = true;
        }
        if posting.adjustment != 0 {
            assert!(self.order.is_granted, "an adjustment before the grant");
            self.order.revision += 1;
            self.adjustments.push(posting.adjustment);
        }
        self.order.status = posting.status;
        self.order.credits_posted = posting.credits_net;

        assert_eq!(self.net(), posting.credits_net, "the ledger sums to the net credits after every batch");
        assert!((0..=self.order.credits).contains(&posting.credits_net), "net credits lie between 0 and the grant");
        assert!(self.grants.len() <= 1, "a second grant");
        let again = settle(&self.order, policy).unwrap();
        assert_eq!((again.grant, again.adjustment), (false, 0), "a posted result is not posted again");
    }

    /// The results that must not depend on the arrival of the facts.
    fn outcome(&self) -> (&PaymentFacts, OrderStatus, i64) {
        (&self.order.facts, self.order.status, self.net())
    }
}

/// Applies a history. A batch ends after each marked event.
fn arrive(order: &Order, policy: DisputePolicy, history: impl IntoIterator<Item = (PaymentEvent, bool)>) -> Ledger {
    let mut ledger = Ledger::new(order.clone());
    let mut batch = vec![];
    for (event, is_last) in history {
        batch.push(event);
        if is_last {
            ledger.apply(&std::mem::take(&mut batch), policy);
        }
    }
    ledger.apply(&batch, policy);
    ledger
}

/// Amounts that equal the price, miss it by one, or are a part of it.
fn amount() -> impl Strategy<Value = Money> {
    select(vec![0, 1, PRICE / 3, PRICE / 2, PRICE - 1, PRICE, PRICE + 1, PRICE * 2]).prop_map(usd)
}

fn id(kind: &'static str) -> impl Strategy<Value = FactId> {
    (0..2_u8).prop_map(move |n| fact_id(&format!("{kind}{n}")))
}

/// Parts of a total: none, parts that leave the price, and others.
fn breakdown(money: Money) -> impl Strategy<Value = Option<Breakdown>> {
    let parts = prop_oneof![
        3 => Just((money.amount_minor() - PRICE).max(0)).prop_map(move |tax| (tax, (PRICE - money.amount_minor()).max(0))),
        1 => (0..=money.amount_minor(), select(vec![0, 1, PRICE / 2, PRICE])),
    ];
    proptest::option::of(parts)
        .prop_map(move |parts| parts.map(|(tax, discount)| Breakdown::new(money, tax, discount).unwrap()))
}

fn status() -> impl Strategy<Value = PaymentStatus> {
    let capture_state = || select(vec![C::Succeeded, C::Succeeded, C::Failed]);
    let disputed = prop_oneof![4 => amount(), 1 => Just(money(7, "EUR"))];
    prop_oneof![
        1 => Just(PaymentStatus::Pending),
        1 => Just(PaymentStatus::Canceled),
        1 => Just(PaymentStatus::PartsCanceled),
        1 => id("c").prop_map(|capture_id| PaymentStatus::CaptureCanceled { capture_id }),
        1 => select(vec!["declined", "no funds"]).prop_map(failed),
        // Mostly events that an order accepts. The others must be refused at any position.
        4 => (capture_state(), proptest::option::of(id("c")), prop_oneof![2 => Just(usd(PRICE)), 1 => amount()])
            .prop_flat_map(|(state, capture_id, money)| {
                breakdown(money).prop_map(move |breakdown| {
                    PaymentStatus::Captured { money, capture_id: capture_id.clone(), state, breakdown }
                })
            }),
        3 => (capture_state(), id("c"), amount())
            .prop_map(|(state, id, money)| {
                PaymentStatus::Captured { money, capture_id: Some(id), state, breakdown: None }
            }),
        3 => (id("r"), select(vec![R::Pending, R::Succeeded, R::Failed]), amount())
            .prop_map(|(refund_id, state, money)| PaymentStatus::Refund { refund_id, state, money }),
        1 => amount().prop_map(|money| PaymentStatus::RefundedTotal { money }),
        3 => (id("d"), select(vec![D::Inquiry, D::Open, D::Won, D::Lost]), 1..4_u32, disputed)
            .prop_map(|(dispute_id, state, round, money)| PaymentStatus::Dispute { dispute_id, state, round, money }),
    ]
}

/// The ids by which an event names its payment: one id, or several ids of two payments. Some events join ids of both. Some have
/// only the id of a dispute or refund.
fn named() -> impl Strategy<Value = (PaymentId, Vec<PaymentId>)> {
    let ids = vec![
        vec!["pi_1"],
        vec!["pi_1", "ch_1"],
        vec!["ch_1"],
        vec!["pi_2"],
        vec!["pi_2", "ch_2"],
        vec!["ch_2", "cs_2"],
        vec!["cs_2"],
        vec!["d0"],
        vec!["r1"],
        vec!["cs_2", "pi_1"],
    ];
    (0..18_usize).prop_map(move |at| {
        let ids = ids.get(at).unwrap_or(&ids[0]).iter().map(|id| PaymentId::new(*id).unwrap());
        let mut ids: Vec<_> = ids.collect();
        (ids.remove(0), ids)
    })
}

/// Events of one order. Some happen in the same second, have the same message id, or describe a later time.
fn history(length: std::ops::Range<usize>) -> impl Strategy<Value = Vec<PaymentEvent>> {
    let one = (status(), named(), 0..4_i64, proptest::option::weighted(0.2, 0..6_i64), 0..6_i64);
    vec(one, length).prop_map(|said| {
        said.into_iter()
            .map(|(status, (payment_id, related_ids), at, as_of, message)| PaymentEvent {
                message_id: MessageId::new(format!("stripe::evt_{message}")).unwrap(),
                payment_id,
                related_ids,
                as_of: as_of.map(|at| event_at(at, PaymentStatus::Pending).occurred_at),
                ..event_at(at, status)
            })
            .collect()
    })
}

fn any_order() -> impl Strategy<Value = Order> {
    let terms = vec![
        PriceTerms::Total,
        PriceTerms::BeforeTax,
        PriceTerms::BeforeTaxAndDiscount { discount_max_minor: PRICE / 2 },
        PriceTerms::BeforeTaxAndDiscount { discount_max_minor: PRICE },
    ];
    (select(vec![1, 3, 100, PRICE, 7_777, CREDITS_MAX]), select(terms)).prop_map(|(credits, price_terms)| Order {
        credits,
        price_terms,
        ..order()
    })
}

fn any_policy() -> impl Strategy<Value = DisputePolicy> {
    select(vec![Hold, Lost])
}

fn joined(history: &[PaymentEvent]) -> PaymentFacts {
    let mut facts = PaymentFacts::default();
    for event in history {
        facts.join(event, usd(PRICE).currency(), PriceTerms::BeforeTax);
    }
    facts
}

fn permutations<T: Clone>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![vec![]];
    }
    let mut all = vec![];
    for at in 0..items.len() {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        all.extend(permutations(&rest).into_iter().map(|mut tail| {
            tail.insert(0, first.clone());
            tail
        }));
    }
    all
}

proptest! {
    #[test]
    fn any_arrival_of_the_same_events_ends_alike(
        order in any_order(),
        policy in any_policy(),
        (history, shuffled) in history(1..12).prop_flat_map(|history| {
            let shuffled = Just(history.clone()).prop_shuffle();
            (Just(history), shuffled)
        }),
        copies in vec((any::<Index>(), any::<Index>()), 0..6),
        ends in vec(any::<bool>(), 24),
    ) {
        let one_by_one = arrive(&order, policy, history.iter().cloned().map(|event| (event, true)));

        let mut arrival = shuffled;
        for (which, place) in copies {
            let copy = history[which.index(history.len())].clone();
            arrival.insert(place.index(arrival.len() + 1), copy);
        }
        let other = arrive(&order, policy, arrival.into_iter().zip(ends));
        prop_assert_eq!(one_by_one.outcome(), other.outcome());
    }

    #[test]
    fn joining_is_commutative_associative_and_idempotent(
        history in history(0..6), a in history(1..2), b in history(1..2), c in history(1..2),
    ) {
        let join = |parts: &[&[PaymentEvent]]| joined(&parts.concat());
        prop_assert_eq!(join(&[&history, &a, &b]), join(&[&history, &b, &a]), "commutative");
        prop_assert_eq!(join(&[&history, &a, &a]), join(&[&history, &a]), "idempotent");
        prop_assert_eq!(join(&[&a, &history, &a]), join(&[&a, &history]), "a late copy changes nothing");
        // An event is joined to a state, never to another event. So associativity means: any three events in any sequence.
        for order in permutations(&[&a, &b, &c]) {
            prop_assert_eq!(join(&[&history, order[0], order[1], order[2]]), join(&[&history, &a, &b, &c]));
        }
    }

    #[test]
    fn facts_survive_being_kept(history in history(0..20)) {
        let facts = joined(&history);
        let text = serde_json::to_string(&facts).unwrap();
        prop_assert_eq!(&serde_json::from_str::<PaymentFacts>(&text).unwrap(), &facts);
        // Postgres' jsonb keeps the keys in its own order.
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(serde_json::from_value::<PaymentFacts>(value).unwrap(), facts);
    }
}

proptest! {
    // Few cases, and each with every one of its 24 sequences in every one of its 8 batchings.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_order_of_arrival_in_every_batching_ends_alike(
        order in any_order(), policy in any_policy(), history in history(4..5),
    ) {
        let first = arrive(&order, policy, history.iter().cloned().map(|event| (event, true)));
        for arrival in permutations(&history) {
            for batching in 0..8_u8 {
                let ends = (0..).map(|at: u32| batching & (1 << at.min(7)) != 0);
                let other = arrive(&order, policy, arrival.iter().cloned().zip(ends));
                prop_assert_eq!(first.outcome(), other.outcome(), "{:?} in batches {:#b}", arrival, batching);
            }
        }
    }
}

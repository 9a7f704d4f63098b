//! An impossible state is an error that rolls the batch back. Nothing is granted or acknowledged by a default value.

use super::*;
use crate::domain::{
    AccountId, CaptureState, DisputePolicy, MessageId, Money, OrderStatus, PaymentFacts, PaymentId, PaymentStatus,
    PriceTerms, Provider,
};
use crate::store::error::Class;
use time::OffsetDateTime;

const ID: OrderId = OrderId(uuid::Uuid::from_u128(1));

const TERMS: BatchTerms = BatchTerms { dispute_policy: DisputePolicy::Hold, now: OffsetDateTime::UNIX_EPOCH };

fn dollars(minor: i64) -> Money {
    Money::new(minor, "USD".parse().unwrap()).unwrap()
}

fn readable<const N: usize>(orders: [(OrderId, ReadOrder); N]) -> Orders {
    Orders { read: orders.into(), ..Orders::default() }
}

fn paid() -> PaymentEvent {
    let money = dollars(1999);
    PaymentEvent {
        provider: Provider::STRIPE,
        message_id: MessageId::new("stripe::evt_1").unwrap(),
        payment_id: PaymentId::new("pi_1").unwrap(),
        related_ids: vec![],
        provider_account: None,
        order_id: Some(ID),
        status: PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown: None },
        occurred_at: OffsetDateTime::UNIX_EPOCH,
        as_of: None,
        livemode: true,
    }
}

fn order() -> Order {
    Order {
        id: ID,
        account_id: AccountId::new("acc").unwrap(),
        credits: 100,
        price: dollars(1999),
        price_terms: PriceTerms::Total,
        provider: Provider::STRIPE,
        provider_account: None,
        status: OrderStatus::AwaitingPayment,
        is_granted: false,
        credits_posted: 0,
        revision: 0,
        facts: PaymentFacts::default(),
    }
}

fn plan<'a>(event: &'a PaymentEvent, order: Order) -> Plan<'a> {
    let orders = readable([(ID, ReadOrder { order, at: ReadAt::default() })]);
    let message = Message { at: 0, event, digest: [0; 16] };
    Plan::assess(&[message], &HashMap::new(), Owners::new(), orders).unwrap()
}

/// The error of a batch that must not happen.
fn fault<T>(result: Result<T, StoreError>) -> String {
    let error = result.err().unwrap();
    assert_eq!(error.class(), Class::Bug, "{error}");
    error.to_string()
}

#[test]
fn a_message_that_is_neither_admitted_nor_known_is_no_duplicate() {
    let event = paid();
    let mut plan = plan(&event, order());
    let said = fault(plan.decide(&HashMap::new(), &HashSet::new(), TERMS).map(drop));
    assert!(said.contains("neither admitted nor known"), "{said}");
}

#[test]
fn a_message_that_is_known_is_one() {
    let event = paid();
    let mut plan = plan(&event, order());
    plan.decide(&HashMap::new(), &HashSet::from([0]), TERMS).unwrap();
    assert_eq!(plan.into_outcomes().unwrap(), [Outcome::Duplicate]);
}

#[test]
fn a_message_that_was_not_decided_about_has_no_outcome() {
    let event = paid();
    let said = fault(plan(&event, order()).into_outcomes());
    assert!(said.contains("was not decided about"), "{said}");
}

#[test]
fn an_order_that_was_decided_about_and_not_read_is_none_that_can_be_passed_over() {
    let event = paid();
    let mut plan = plan(&event, order());
    plan.orders.read.clear();
    for said in [
        fault(plan.candidates().map(drop)),
        fault(
            plan.decide(&HashMap::from([(0, Admitted::for_tests("stripe::evt_1"))]), &HashSet::new(), TERMS).map(drop),
        ),
    ] {
        assert!(said.contains("was decided about and not read"), "{said}");
    }
}

#[test]
fn an_order_out_of_range_is_neither_granted_nor_adjusted() {
    let event = paid();
    let admitted = || HashMap::from([(0, Admitted::for_tests("stripe::evt_1"))]);
    let granted = Order { is_granted: true, credits_posted: 0, ..order() };
    for (order, says) in [
        (Order { is_granted: true, credits_posted: i64::MIN, ..order() }, "out of range"),
        (Order { revision: i32::MAX, ..granted }, "no revision left"),
        (Order { is_granted: false, credits_posted: 7, credits: 0, ..order() }, "not above zero"),
    ] {
        let said = fault(plan(&event, order).decide(&admitted(), &HashSet::new(), TERMS).map(drop));
        assert!(said.contains(says), "{said}");
    }
}

#[test]
fn an_order_id_that_is_none_of_ours_says_nothing_and_one_of_another_order_contradicts() {
    let foreign = PaymentEvent { order_id: Some(OrderId(uuid::Uuid::from_u128(9))), ..paid() };
    let read = |id| (id, ReadOrder { order: Order { id, ..order() }, at: ReadAt::default() });
    let owners: Owners<'_> = payment_keys(&foreign).map(|key| (key, ID)).collect();
    assert_eq!(find_order(&foreign, &owners, &readable([read(ID)])), Ok(Some(ID)));
    assert_eq!(find_order(&foreign, &Owners::new(), &readable([read(ID)])), Ok(None));
    let both = readable([read(ID), read(OrderId(uuid::Uuid::from_u128(9)))]);
    assert_eq!(find_order(&foreign, &owners, &both).map_err(|refusal| refusal.reason), Err(Reason::PaymentConflict));
}

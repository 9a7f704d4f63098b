//! The result of events, in tables. `assess` tests which events an order accepts, and `amend` tests at which other prices it is
//! accepted. `properties` tries what no table contains.

mod amend;
mod assess;
mod payments;
mod properties;
mod terms;

use super::*;
use crate::domain::{
    AccountId, Breakdown, CREDITS_MAX, CaptureState, Currency, DisputeState, FactId, MessageId, OrderId, PaymentFacts,
    PaymentId, PriceTerms, Provider, ProviderAccount, RefundState,
};
use CaptureState as C;
use DisputePolicy::{Hold, Lost};
use DisputeState as D;
use OrderStatus::{AwaitingPayment, Canceled, Disputed, Fulfilled, PartiallyRefunded, Processing, Refunded};
use RefundState as R;
use time::OffsetDateTime;

/// The price of the order in these tests.
const PRICE: i64 = 1_000;

fn money(amount_minor: i64, currency: &str) -> Money {
    Money::new(amount_minor, Currency::new(currency).unwrap()).unwrap()
}

fn usd(amount_minor: i64) -> Money {
    money(amount_minor, "USD")
}

fn fact_id(id: &str) -> FactId {
    FactId::new(id).unwrap()
}

/// 100 credits for 10.00 USD, paid at Stripe to our own account.
fn order() -> Order {
    Order {
        id: OrderId(uuid::Uuid::from_u128(1)),
        account_id: AccountId::new("buyer").unwrap(),
        credits: 100,
        price: usd(PRICE),
        price_terms: PriceTerms::Total,
        provider: Provider::STRIPE,
        provider_account: None,
        status: AwaitingPayment,
        is_granted: false,
        credits_posted: 0,
        revision: 0,
        facts: PaymentFacts::default(),
    }
}

/// An event of second `at`, in a message with that number.
fn event_at(at: i64, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent {
        provider: Provider::STRIPE,
        message_id: MessageId::new(format!("stripe::evt_{at}")).unwrap(),
        payment_id: PaymentId::new("pi_1").unwrap(),
        related_ids: vec![],
        provider_account: None,
        order_id: None,
        status,
        occurred_at: OffsetDateTime::from_unix_timestamp(1_767_000_000 + at).unwrap(),
        as_of: None,
        livemode: true,
    }
}

fn event(status: PaymentStatus) -> PaymentEvent {
    event_at(0, status)
}

/// The total of all captures so far.
fn total(amount_minor: i64) -> PaymentStatus {
    PaymentStatus::Captured { money: usd(amount_minor), capture_id: None, state: C::Succeeded, breakdown: None }
}

/// One capture of an order.
fn part(id: &str, state: C, amount_minor: i64) -> PaymentStatus {
    PaymentStatus::Captured { money: usd(amount_minor), capture_id: Some(fact_id(id)), state, breakdown: None }
}

fn refund(id: &str, state: R, amount_minor: i64) -> PaymentStatus {
    PaymentStatus::Refund { refund_id: fact_id(id), state, money: usd(amount_minor) }
}

/// The total of all refunds so far.
fn back(amount_minor: i64) -> PaymentStatus {
    PaymentStatus::RefundedTotal { money: usd(amount_minor) }
}

fn dispute(id: &str, round: u32, state: D, money: Money) -> PaymentStatus {
    PaymentStatus::Dispute { dispute_id: fact_id(id), state, round, money }
}

fn failed(reason: &str) -> PaymentStatus {
    PaymentStatus::failed(reason)
}

/// The order after these events, in the sequence of their arrival. It must accept each of them.
fn arrived(mut order: Order, arrival: impl IntoIterator<Item = PaymentEvent>) -> Order {
    for event in arrival {
        assert_eq!(assess(&order, &event), Ok(()), "{:?}", event.status);
        order.join(&event);
    }
    order
}

/// Events that happen one second after the other.
fn happened(history: &[PaymentStatus]) -> impl DoubleEndedIterator<Item = PaymentEvent> {
    (0..).zip(history.to_vec()).map(|(at, status)| event_at(at, status)).collect::<Vec<_>>().into_iter()
}

/// The order after these events, which arrive in the sequence in which they happen.
fn after(order: Order, history: &[PaymentStatus]) -> Order {
    arrived(order, happened(history))
}

type Row<'a> = (&'a str, &'a [PaymentStatus], OrderStatus, i64);

/// Each history must lead to this status and these net credits, if it arrives as it happened and in the opposite sequence.
fn check(policy: DisputePolicy, rows: &[Row<'_>]) {
    for (what, history, status, credits_net) in rows {
        let orders = [after(order(), history), arrived(order(), happened(history).rev())];
        for (arrival, order) in ["as it happened", "the other way round"].into_iter().zip(orders) {
            let posting = settle(&order, policy).unwrap();
            assert_eq!((posting.status, posting.credits_net), (*status, *credits_net), "{what}, {arrival}");
            assert_eq!(posting.grant, *credits_net > 0, "{what}: a grant is written if there are credits to grant");
        }
    }
}

#[test]
fn money_makes_the_status() {
    let pending = || PaymentStatus::Pending;
    let canceled = || PaymentStatus::Canceled;
    check(
        Hold,
        &[
            ("nothing heard", &[], AwaitingPayment, 0),
            ("under way", &[pending()], Processing, 0),
            ("paid", &[total(PRICE)], Fulfilled, 100),
            ("paid twice over is paid", &[total(PRICE), total(PRICE)], Fulfilled, 100),
            ("one failed attempt", &[failed("declined")], AwaitingPayment, 0),
            ("failed after it was under way", &[pending(), failed("declined")], AwaitingPayment, 0),
            ("failed, then another card", &[failed("declined"), pending()], Processing, 0),
            ("failed, then paid", &[failed("declined"), total(PRICE)], Fulfilled, 100),
            ("paid, and then a late word of an earlier failure", &[total(PRICE), failed("declined")], Fulfilled, 100),
            ("canceled", &[canceled()], Canceled, 0),
            ("canceled while under way", &[pending(), canceled()], Canceled, 0),
            ("canceled, then paid all the same", &[canceled(), total(PRICE)], Fulfilled, 100),
            (
                "a total that failed is a failed attempt",
                &[PaymentStatus::Captured { money: usd(PRICE), capture_id: None, state: C::Failed, breakdown: None }],
                AwaitingPayment,
                0,
            ),
        ],
    );
}

#[test]
fn captures_by_id_add_up() {
    let half = |id| part(id, C::Succeeded, PRICE / 2);
    check(
        Hold,
        &[
            ("a part waits", &[part("a", C::Succeeded, PRICE - 1)], Processing, 0),
            ("the same part again is no more", &[half("a"), half("a")], Processing, 0),
            ("two parts make the whole", &[half("a"), half("b")], Fulfilled, 100),
            ("a total and its parts are the same money", &[half("a"), half("b"), total(PRICE)], Fulfilled, 100),
            ("a total with one part of it", &[half("a"), total(PRICE)], Fulfilled, 100),
            ("a part of a canceled payment", &[half("a"), PaymentStatus::Canceled], Canceled, 0),
            (
                "a part that fails waits for another",
                &[half("a"), half("b"), part("b", C::Failed, PRICE / 2)],
                Processing,
                0,
            ),
            (
                "the whole capture fails later",
                &[part("a", C::Succeeded, PRICE), part("a", C::Failed, PRICE)],
                AwaitingPayment,
                0,
            ),
            (
                "a second capture takes a failed one's place",
                &[part("a", C::Succeeded, PRICE), part("a", C::Failed, PRICE), part("b", C::Succeeded, PRICE)],
                Fulfilled,
                100,
            ),
            ("overpaid is paid", &[part("a", C::Succeeded, PRICE), half("b")], Fulfilled, 100),
            (
                "overpaid, and the excess given back",
                &[part("a", C::Succeeded, PRICE), half("b"), refund("r", R::Succeeded, PRICE / 2)],
                Fulfilled,
                100,
            ),
            (
                "overpaid, and more than the excess given back",
                &[part("a", C::Succeeded, PRICE), half("b"), refund("r", R::Succeeded, PRICE)],
                PartiallyRefunded,
                50,
            ),
        ],
    );
}

#[test]
fn refunds_take_credits_back() {
    let paid = || total(PRICE);
    check(
        Hold,
        &[
            ("a pending one counts as taken", &[paid(), refund("r", R::Pending, 300)], PartiallyRefunded, 70),
            ("all of it", &[paid(), refund("r", R::Succeeded, PRICE)], Refunded, 0),
            ("before the capture is heard of", &[refund("r", R::Succeeded, 300), paid()], PartiallyRefunded, 70),
            ("all of it, before the capture is heard of", &[refund("r", R::Succeeded, PRICE), paid()], Refunded, 0),
            ("of a payment that never was paid", &[refund("r", R::Succeeded, PRICE)], AwaitingPayment, 0),
            ("more than there was", &[paid(), refund("r", R::Succeeded, PRICE * 2)], Refunded, 0),
            (
                "pending, then succeeded: once",
                &[paid(), refund("r", R::Pending, 300), refund("r", R::Succeeded, 300)],
                PartiallyRefunded,
                70,
            ),
            (
                "failed after it had succeeded",
                &[paid(), refund("r", R::Succeeded, 300), refund("r", R::Failed, 300)],
                Fulfilled,
                100,
            ),
            ("two", &[paid(), refund("r", R::Succeeded, 300), refund("s", R::Pending, 200)], PartiallyRefunded, 50),
            ("a sum", &[paid(), back(300)], PartiallyRefunded, 70),
            ("a growing sum", &[paid(), back(300), back(450)], PartiallyRefunded, 55),
            (
                "a sum and its parts are the same money",
                &[paid(), back(300), refund("r", R::Succeeded, 300)],
                PartiallyRefunded,
                70,
            ),
            ("a sum that knows more", &[paid(), back(500), refund("r", R::Succeeded, 300)], PartiallyRefunded, 50),
            (
                "parts that know more",
                &[paid(), back(300), refund("r", R::Succeeded, 300), refund("s", R::Pending, 200)],
                PartiallyRefunded,
                50,
            ),
            (
                "a sum that counted a refund which failed",
                &[paid(), back(300), refund("r", R::Failed, 300)],
                Fulfilled,
                100,
            ),
            (
                "a sum of two, of which one failed",
                &[paid(), back(500), refund("r", R::Failed, 300), refund("s", R::Succeeded, 200)],
                PartiallyRefunded,
                80,
            ),
            ("a failed one that no sum counted gives nothing", &[paid(), refund("r", R::Failed, 300)], Fulfilled, 100),
        ],
    );
}

#[test]
fn disputes_hold_or_take_by_policy() {
    let paid = || total(PRICE);
    let of_all = |round, state| dispute("d", round, state, usd(PRICE));
    let both: &[Row<'_>] = &[
        ("an inquiry takes nothing", &[paid(), of_all(1, D::Inquiry)], Fulfilled, 100),
        ("won gives it back", &[paid(), of_all(1, D::Open), of_all(1, D::Won)], Fulfilled, 100),
        ("lost takes it", &[paid(), of_all(1, D::Open), of_all(1, D::Lost)], Disputed, 0),
        ("a part is lost", &[paid(), dispute("d", 1, D::Lost, usd(250))], Disputed, 75),
        ("won after it was lost gives it back", &[paid(), of_all(1, D::Lost), of_all(1, D::Won)], Fulfilled, 100),
        ("lost after it was won takes it", &[paid(), of_all(1, D::Won), of_all(1, D::Lost)], Disputed, 0),
        ("round 2 is lost after round 1 was won", &[paid(), of_all(1, D::Won), of_all(2, D::Lost)], Disputed, 0),
        (
            "round 3 is won after round 2 was lost",
            &[paid(), of_all(1, D::Won), of_all(2, D::Lost), of_all(3, D::Won)],
            Fulfilled,
            100,
        ),
        ("of a payment that never was paid", &[of_all(1, D::Lost)], AwaitingPayment, 0),
        (
            "two, of a part each",
            &[paid(), dispute("d", 1, D::Lost, usd(300)), dispute("e", 1, D::Lost, usd(200))],
            Disputed,
            50,
        ),
        ("lost in another currency takes all", &[paid(), dispute("d", 1, D::Lost, money(1, "EUR"))], Disputed, 0),
        (
            "lost in another currency takes all, of a payment above the price too",
            &[
                part("a", C::Succeeded, PRICE),
                part("b", C::Succeeded, PRICE),
                dispute("d", 1, D::Lost, money(1, "EUR")),
            ],
            Disputed,
            0,
        ),
        ("won in another currency", &[paid(), dispute("d", 1, D::Won, money(1, "EUR"))], Fulfilled, 100),
        (
            "the same money refunded and lost is gone once, not twice",
            &[paid(), refund("r", R::Succeeded, PRICE), of_all(1, D::Lost)],
            Disputed,
            0,
        ),
        (
            "refunded, and the dispute won",
            &[paid(), refund("r", R::Succeeded, 300), of_all(1, D::Won)],
            PartiallyRefunded,
            70,
        ),
    ];
    check(Hold, both);
    check(Lost, both);

    let open: &[Row<'_>] = &[("open", &[paid(), of_all(1, D::Open)], Disputed, 0)];
    check(Hold, open);
    check(
        Hold,
        &[
            ("open for a part", &[paid(), dispute("d", 1, D::Open, usd(250))], Disputed, 75),
            ("open again in round 2", &[paid(), of_all(1, D::Won), of_all(2, D::Open)], Disputed, 0),
            ("open in another currency", &[paid(), dispute("d", 1, D::Open, money(1, "EUR"))], Disputed, 0),
            ("an inquiry that became a dispute", &[paid(), of_all(1, D::Inquiry), of_all(1, D::Open)], Disputed, 0),
        ],
    );
    check(
        Lost,
        &[
            ("open", &[paid(), of_all(1, D::Open)], Disputed, 100),
            (
                "open again in round 2 after round 1 was lost",
                &[paid(), of_all(1, D::Lost), of_all(2, D::Open)],
                Disputed,
                100,
            ),
            (
                "open for what is left of a refund",
                &[paid(), refund("r", R::Succeeded, 300), of_all(1, D::Open)],
                Disputed,
                70,
            ),
        ],
    );
}

#[test]
fn the_share_is_rounded_down() {
    for (credits, price, refunded, net) in [
        (100, 1_000, 1, 99),
        (100, 1_000, 10, 99),
        (100, 1_000, 11, 98),
        (3, 1_000, 1, 2),
        (3, 1_000, 333, 2),
        (3, 1_000, 334, 1),
        (1, 1_000, 1, 0),
        (1_000, 3, 1, 666),
        (7, 7, 6, 1),
        (CREDITS_MAX, 3, 1, 666_666_666_666_666),
        (CREDITS_MAX, crate::domain::AMOUNT_MINOR_MAX, 1, CREDITS_MAX - 1),
    ] {
        let order = Order { credits, price: usd(price), ..order() };
        let posting = settle(&after(order, &[total(price), back(refunded)]), Hold).unwrap();
        assert_eq!(posting.credits_net, net, "{credits} credits for {price}, {refunded} refunded");
        assert_eq!(posting.grant, net > 0);
        assert_eq!(posting.status, PartiallyRefunded);
    }
}

#[test]
fn sums_at_every_bound_stay_in_range() {
    let price = crate::domain::AMOUNT_MINOR_MAX;
    let dear = Order { credits: CREDITS_MAX, price: usd(price), ..order() };
    let captures = (0..FACTS_MAX).map(|n| part(&n.to_string(), C::Succeeded, price));
    let paid = after(dear, &captures.collect::<Vec<_>>());
    assert_eq!(settle(&paid, Hold).unwrap().credits_net, CREDITS_MAX);
    let disputes = (0..FACTS_MAX).map(|n| dispute(&n.to_string(), u32::MAX, D::Lost, money(price, "EUR")));
    let lost = after(paid, &disputes.collect::<Vec<_>>());
    assert_eq!(settle(&lost, Hold).unwrap().credits_net, 0);
}

#[test]
fn the_ledger_gets_the_grant_once_and_then_differences() {
    let paid = after(order(), &[total(PRICE)]);
    let posting =
        |grant, adjustment, credits_net, status| Posting { status, grant, adjustment, credits_net, overpaid_minor: 0 };
    assert_eq!(settle(&paid, Hold).unwrap(), posting(true, 0, 100, Fulfilled));

    let granted = Order { is_granted: true, credits_posted: 100, ..paid };
    assert_eq!(
        settle(&granted, Hold).unwrap(),
        posting(false, 0, 100, Fulfilled),
        "without a new fact, nothing is written"
    );

    let refunded = after(granted, &[back(300)]);
    assert_eq!(settle(&refunded, Hold).unwrap(), posting(false, -30, 70, PartiallyRefunded));

    let at_once = after(order(), &[total(PRICE), back(300)]);
    assert_eq!(
        settle(&at_once, Hold).unwrap(),
        posting(true, -30, 70, PartiallyRefunded),
        "one transaction, the same ledger"
    );

    let all_back =
        Order { is_granted: true, credits_posted: 0, ..after(refunded, &[refund("r", R::Succeeded, PRICE)]) };
    let returned = after(all_back, &[refund("r", R::Failed, PRICE)]);
    assert_eq!(settle(&returned, Hold).unwrap(), posting(false, 100, 100, Fulfilled), "never a second grant");
}

#[test]
fn the_last_failure_is_the_one_that_happened_last() {
    let both = [event_at(5, failed("stolen card")), event_at(9, failed("no funds"))];
    for order_of_arrival in [[0, 1], [1, 0]] {
        let mut order = order();
        for at in order_of_arrival {
            order.join(&both[at]);
        }
        assert_eq!(order.facts.last_failure(), Some("no funds"));
    }
}

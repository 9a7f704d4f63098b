//! Several payments of one order, refunds before the payment, and rows of earlier releases.

use super::*;

/// An event of one of the order's payments, at second `at`.
fn of(payment: &str, at: i64, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent { payment_id: PaymentId::new(payment).unwrap(), ..event_at(at, status) }
}

/// An event with a further id of the payment.
fn linked(payment: &str, other: &str, at: i64, status: PaymentStatus) -> PaymentEvent {
    PaymentEvent { related_ids: vec![PaymentId::new(other).unwrap()], ..of(payment, at, status) }
}

fn canceled_capture(id: &str) -> PaymentStatus {
    PaymentStatus::CaptureCanceled { capture_id: fact_id(id) }
}

/// Every sequence in which the events can arrive.
fn arrivals(events: &[PaymentEvent]) -> Vec<Vec<PaymentEvent>> {
    let Some((last, rest)) = events.split_last() else { return vec![vec![]] };
    let shorter = arrivals(rest);
    let with_last = |shorter: &Vec<PaymentEvent>, at| {
        let mut longer = shorter.clone();
        longer.insert(at, last.clone());
        longer
    };
    shorter.iter().flat_map(|shorter| (0..events.len()).map(|at| with_last(shorter, at))).collect()
}

/// Checks the result of the events for every sequence of arrival.
fn come_to(what: &str, events: &[PaymentEvent], status: OrderStatus, credits_net: i64, overpaid_minor: i64) {
    for arrival in arrivals(events) {
        let posting = settle(&arrived(order(), arrival), Hold).unwrap();
        assert_eq!(
            (posting.status, posting.credits_net, posting.overpaid_minor),
            (status, credits_net, overpaid_minor),
            "{what}"
        );
    }
}

#[test]
fn what_happens_to_one_payment_takes_nothing_of_another() {
    let whole = || total(PRICE);
    let lost = || dispute("d", 1, D::Lost, usd(PRICE));
    come_to(
        "a hold that was released, and reported as refunded, before another payment",
        &[
            of("pi_1", 0, PaymentStatus::Pending),
            of("pi_1", 1, PaymentStatus::Canceled),
            of("pi_1", 2, back(PRICE)),
            of("pi_2", 3, whole()),
        ],
        Fulfilled,
        100,
        0,
    );
    come_to("paid twice", &[of("pi_1", 0, whole()), of("pi_2", 1, whole())], Fulfilled, 100, PRICE);
    come_to(
        "paid twice, the second refunded",
        &[
            of("pi_1", 0, whole()),
            of("pi_2", 1, whole()),
            of("pi_2", 2, back(PRICE)),
            of("pi_2", 2, refund("r", R::Succeeded, PRICE)),
        ],
        Fulfilled,
        100,
        0,
    );
    come_to(
        "paid twice, the second lost to a dispute",
        &[of("pi_1", 0, whole()), of("pi_2", 1, whole()), of("pi_2", 2, lost())],
        Fulfilled,
        100,
        0,
    );
    come_to(
        "paid twice, one refunded and the other lost",
        &[of("pi_1", 0, whole()), of("pi_2", 1, whole()), of("pi_2", 2, lost()), of("pi_1", 3, back(PRICE))],
        Disputed,
        0,
        0,
    );
    come_to(
        "paid twice, a part of each refunded",
        &[of("pi_1", 0, whole()), of("pi_2", 1, whole()), of("pi_1", 2, back(300)), of("pi_2", 3, back(300))],
        Fulfilled,
        100,
        400,
    );
    come_to(
        "paid twice, more than half of each refunded",
        &[of("pi_1", 0, whole()), of("pi_2", 1, whole()), of("pi_1", 2, back(600)), of("pi_2", 3, back(700))],
        PartiallyRefunded,
        70,
        0,
    );
    come_to(
        "one payment fails, the other is open",
        &[of("pi_1", 0, failed("no")), of("pi_2", 1, PaymentStatus::Canceled)],
        AwaitingPayment,
        0,
        0,
    );
    come_to(
        "one is given up, the other under way",
        &[of("pi_1", 0, PaymentStatus::Canceled), of("pi_2", 1, PaymentStatus::Pending)],
        Processing,
        0,
        0,
    );
    come_to(
        "all are given up",
        &[of("pi_1", 0, PaymentStatus::Canceled), of("pi_2", 1, PaymentStatus::Canceled)],
        Canceled,
        0,
        0,
    );
}

#[test]
fn ids_that_are_said_to_be_one_payments_make_one_of_them() {
    come_to(
        "the charge's refund and the intent's capture",
        &[of("ch_1", 2, back(PRICE)), of("pi_1", 1, total(PRICE)), linked("pi_1", "ch_1", 0, PaymentStatus::Pending)],
        Refunded,
        0,
        0,
    );
    come_to(
        "a dispute that names its payment now and then",
        &[
            of("psp_1", 0, part("psp_1", C::Succeeded, PRICE)),
            of("psp_1", 1, dispute("dp_1", 1, D::Lost, usd(PRICE))),
            of("dp_1", 2, dispute("dp_1", 2, D::Won, usd(PRICE))),
        ],
        Fulfilled,
        100,
        0,
    );
    come_to(
        "a dispute that never names its payment counts against the order",
        &[of("psp_1", 0, part("psp_1", C::Succeeded, PRICE)), of("dp_1", 1, dispute("dp_1", 1, D::Lost, usd(PRICE)))],
        Disputed,
        0,
        0,
    );
    come_to(
        "and so does a refund",
        &[of("psp_1", 0, part("psp_1", C::Succeeded, PRICE)), of("rf_1", 1, refund("rf_1", R::Succeeded, 300))],
        PartiallyRefunded,
        70,
        0,
    );
}

#[test]
fn money_that_was_announced_and_does_not_come_counts_no_more() {
    come_to(
        "canceled before its capture",
        &[of("psp_1", 0, part("psp_1", C::Succeeded, PRICE)), of("psp_1", 1, canceled_capture("psp_1"))],
        Canceled,
        0,
        0,
    );
    come_to(
        "the capture takes place after all",
        &[
            of("psp_1", 0, part("psp_1", C::Succeeded, PRICE)),
            of("psp_1", 1, canceled_capture("psp_1")),
            of("psp_1", 2, part("psp_1", C::Succeeded, PRICE)),
        ],
        Fulfilled,
        100,
        0,
    );
    let gift = || of("gift", 0, part("gift", C::Succeeded, 800));
    let closed = |at| of("order", at, PaymentStatus::PartsCanceled);
    come_to("parts", &[gift(), of("card", 1, part("card", C::Succeeded, 200))], Fulfilled, 100, 0);
    come_to("a part given back", &[gift(), closed(1)], Canceled, 0, 0);
    come_to(
        "and a part of another try",
        &[gift(), closed(1), of("card", 2, part("card", C::Succeeded, 200))],
        Processing,
        0,
        0,
    );
    come_to(
        "and the whole price",
        &[gift(), closed(1), of("card", 2, part("card", C::Succeeded, PRICE))],
        Fulfilled,
        100,
        0,
    );
    come_to(
        "the whole price at the same second",
        &[gift(), closed(0), of("card", 0, part("card", C::Succeeded, PRICE))],
        Fulfilled,
        100,
        0,
    );
    come_to("parts above the price", &[gift(), of("card", 1, part("card", C::Succeeded, 300))], Fulfilled, 100, 100);
}

#[test]
fn what_was_said_as_of_a_later_time_overrules() {
    let asked = |at, as_of, status| PaymentEvent {
        as_of: Some(event_at(as_of, PaymentStatus::Pending).occurred_at),
        ..of("pi_1", at, status)
    };
    let all = |state| dispute("d", 1, state, usd(PRICE));
    come_to(
        "the answer to a question overrules what was reported until then",
        &[
            of("pi_1", 0, total(PRICE)),
            of("pi_1", 3, refund("r", R::Succeeded, PRICE)),
            asked(1, 5, refund("r", R::Failed, PRICE)),
        ],
        Fulfilled,
        100,
        0,
    );
    come_to(
        "and is overruled by what is reported after it",
        &[of("pi_1", 0, total(PRICE)), asked(1, 5, all(D::Lost)), of("pi_1", 6, all(D::Won))],
        Fulfilled,
        100,
        0,
    );
    come_to(
        "but by nothing that was reported before it",
        &[of("pi_1", 0, total(PRICE)), asked(1, 5, all(D::Lost)), of("pi_1", 4, all(D::Won))],
        Disputed,
        0,
        0,
    );
}

/// The facts of a paid, refunded and disputed order, as the last release without facts by payment reads and writes them.
const EARLIER: &str = r#"{"captured_total_minor":1000,"refunded_total_minor":300,
    "refunds":{"r":{"state":"succeeded","amount_minor":300}},
    "disputes":{"d":{"round":1,"state":"won","amount_minor":700}},
    "pending_at_unix_us":1767000000000000}"#;

#[test]
fn facts_of_an_earlier_release_come_to_the_same_and_belong_to_the_payment_that_was_known() {
    let mut order =
        Order { facts: serde_json::from_str(EARLIER).unwrap(), is_granted: true, credits_posted: 70, ..order() };
    let unchanged = settle(&order, Hold).unwrap();
    assert_eq!((unchanged.status, unchanged.adjustment), (PartiallyRefunded, 0));
    let written = serde_json::to_value(&order.facts).unwrap();
    assert_eq!(written, serde_json::from_str::<serde_json::Value>(EARLIER).unwrap(), "nothing is added without need");

    // A payment that was not known counts as another payment.
    let mut twice = order.clone();
    twice.join(&of("pi_2", 9, total(PRICE)));
    assert_eq!(settle(&twice, Hold).unwrap().overpaid_minor, 700);
    twice.join(&of("pi_2", 10, back(PRICE)));
    assert_eq!(settle(&twice, Hold).unwrap().credits_net, 70);

    // The old facts belong to the payment that was registered.
    let known = of("pi_1", 9, back(PRICE));
    order.facts.name_the_nameless(known.payment_ids());
    order.join(&known);
    assert_eq!(settle(&order, Hold).unwrap().credits_net, 0);
}

/// An earlier release reads a row in this way. It ignores unknown fields.
#[derive(serde::Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Earlier {
    captured_total_minor: i64,
    captures: std::collections::BTreeMap<String, EarlierCapture>,
    refunded_total_minor: i64,
}

#[derive(serde::Deserialize)]
struct EarlierCapture {
    state: C,
    amount_minor: i64,
}

#[test]
fn an_earlier_release_reads_the_payment_with_the_money_and_no_canceled_capture() {
    let read = |order: &Order| serde_json::from_value::<Earlier>(serde_json::to_value(&order.facts).unwrap()).unwrap();
    let events = [of("pi_1", 0, PaymentStatus::Canceled), of("pi_1", 1, back(PRICE)), of("pi_2", 2, total(PRICE))];
    for arrival in arrivals(&events) {
        let earlier = read(&arrived(order(), arrival));
        assert_eq!((earlier.captured_total_minor, earlier.refunded_total_minor), (PRICE, 0));
    }
    let events = [of("psp_1", 0, part("psp_1", C::Succeeded, PRICE)), of("psp_1", 1, canceled_capture("psp_1"))];
    let earlier = read(&arrived(order(), events));
    let capture = &earlier.captures["psp_1"];
    assert_eq!((capture.state, capture.amount_minor), (C::Failed, 0));
}

#[test]
fn an_order_that_cannot_be_is_an_error_and_no_posting() {
    let paid = after(order(), &[total(PRICE)]);
    for (what, impossible) in [
        ("a price of nothing", Order { price: usd(0), ..paid.clone() }),
        ("no credits", Order { credits: 0, ..paid.clone() }),
        ("negative credits", Order { credits: -1, ..paid.clone() }),
        ("posted credits out of range", Order { is_granted: true, credits_posted: i64::MIN, ..paid.clone() }),
    ] {
        assert!(settle(&impossible, Hold).is_err(), "{what}");
    }
}

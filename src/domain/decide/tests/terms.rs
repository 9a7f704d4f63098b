//! Orders whose price is not the whole amount that the buyer pays: tax on top, or a discount.

use super::*;
use crate::domain::{Breakdown, PriceUntold, Reason, price_paid, reprice};

/// The same order with other terms and another price.
fn by(price_terms: PriceTerms, price: i64) -> Order {
    Order { price: usd(price), price_terms, ..order() }
}

fn discounted(discount_max_minor: i64) -> PriceTerms {
    PriceTerms::BeforeTaxAndDiscount { discount_max_minor }
}

/// The total of all captures so far, with its parts.
fn parted(amount_minor: i64, tax_minor: i64, discount_minor: i64) -> PaymentStatus {
    let money = usd(amount_minor);
    let breakdown = Some(Breakdown::new(money, tax_minor, discount_minor).unwrap());
    PaymentStatus::Captured { money, capture_id: None, state: C::Succeeded, breakdown }
}

/// One capture with its parts.
fn parted_capture(id: &str, state: C, amount_minor: i64, tax_minor: i64) -> PaymentStatus {
    let money = usd(amount_minor);
    let breakdown = Some(Breakdown::new(money, tax_minor, 0).unwrap());
    PaymentStatus::Captured { money, capture_id: Some(fact_id(id)), state, breakdown }
}

fn of(payment: &str, mut event: PaymentEvent) -> PaymentEvent {
    event.payment_id = PaymentId::new(payment).unwrap();
    event
}

type Wanted = (OrderStatus, i64, i64);

/// Every sequence of arrival must lead to the status, the net credits and the overpaid amount. Each event also arrives twice.
fn comes_to(what: &str, order: &Order, events: &[PaymentEvent], (status, credits_net, overpaid_minor): Wanted) {
    let mut arrivals = vec![vec![]];
    for event in events {
        arrivals = arrivals
            .into_iter()
            .flat_map(|arrival: Vec<PaymentEvent>| {
                (0..=arrival.len()).map(move |at| {
                    let mut longer = arrival.clone();
                    longer.insert(at, event.clone());
                    longer
                })
            })
            .collect();
    }
    for arrival in arrivals {
        for twice in [false, true] {
            let copies = arrival.iter().rev().filter(|_| twice).cloned();
            let after = arrived(order.clone(), arrival.iter().cloned().chain(copies));
            let posting = settle(&after, Hold).unwrap();
            let got = (posting.status, posting.credits_net, posting.overpaid_minor);
            assert_eq!(got, (status, credits_net, overpaid_minor), "{what}: {arrival:?}");
            assert_eq!(posting.grant, credits_net > 0, "{what}");
        }
    }
}

#[test]
fn money_waits_for_its_parts_and_credits_follow_what_was_paid() {
    let tax = || by(PriceTerms::BeforeTax, PRICE);
    let off = |max| by(discounted(max), 2500);
    let rows: &[(&str, Order, &[PaymentStatus], Wanted)] = &[
        ("an intent without parts waits", tax(), &[total(1200)], (Processing, 0, 0)),
        (
            "an intent that was given up, and paid all the same",
            tax(),
            &[PaymentStatus::Canceled, total(1200)],
            (Processing, 0, 0),
        ),
        ("a session that nobody paid", tax(), &[PaymentStatus::Canceled], (Canceled, 0, 0)),
        ("a session with parts grants", tax(), &[parted(1200, 200, 0)], (Fulfilled, 100, 0)),
        ("both, in any order", tax(), &[total(1200), parted(1200, 200, 0)], (Fulfilled, 100, 0)),
        (
            "tax that the price contains is no tax on top",
            tax(),
            &[total(PRICE), parted(PRICE, 0, 0)],
            (Fulfilled, 100, 0),
        ),
        ("one capture, with its parts", tax(), &[parted_capture("c", C::Succeeded, 1200, 200)], (Fulfilled, 100, 0)),
        (
            "a capture with its parts that failed later",
            tax(),
            &[parted_capture("c", C::Succeeded, 1200, 200), parted_capture("c", C::Failed, 1200, 200)],
            (AwaitingPayment, 0, 0),
        ),
        ("half went back", tax(), &[parted(1200, 200, 0), refund("r", R::Succeeded, 600)], (PartiallyRefunded, 50, 0)),
        ("the same as a sum", tax(), &[total(1200), parted(1200, 200, 0), back(600)], (PartiallyRefunded, 50, 0)),
        ("one cent is left", tax(), &[parted(1200, 200, 0), back(1199)], (PartiallyRefunded, 0, 0)),
        ("one cent went back", tax(), &[parted(1200, 200, 0), back(1)], (PartiallyRefunded, 99, 0)),
        ("all went back", tax(), &[parted(1200, 200, 0), back(1200)], (Refunded, 0, 0)),
        ("a dispute holds all", tax(), &[parted(1200, 200, 0), dispute("d", 1, D::Open, usd(1200))], (Disputed, 0, 0)),
        (
            "a dispute that was won",
            tax(),
            &[parted(1200, 200, 0), dispute("d", 1, D::Open, usd(1200)), dispute("d", 2, D::Won, usd(1200))],
            (Fulfilled, 100, 0),
        ),
        ("a discount within the limit", off(1000), &[parted(2000, 0, 500)], (Fulfilled, 100, 0)),
        ("a discount at the limit", off(500), &[parted(2000, 0, 500)], (Fulfilled, 100, 0)),
        ("no discount at all", off(500), &[parted(2500, 0, 0)], (Fulfilled, 100, 0)),
        ("a discount and tax", off(500), &[parted(2400, 400, 500)], (Fulfilled, 100, 0)),
        ("half of what was paid went back", off(500), &[parted(2000, 0, 500), back(1000)], (PartiallyRefunded, 50, 0)),
        ("all was discounted", off(2500), &[parted(0, 0, 2500)], (Fulfilled, 100, 0)),
        ("all was discounted, and an intent of 0", off(2500), &[total(0), parted(0, 0, 2500)], (Fulfilled, 100, 0)),
        // Money beyond the priced total is not part of it. It is refunded first, and its refund takes no credits.
        (
            "captured beyond the priced total",
            tax(),
            &[parted_capture("c", C::Succeeded, 1200, 200), part("c2", C::Succeeded, 300)],
            (Fulfilled, 100, 300),
        ),
        (
            "and that went back",
            tax(),
            &[parted_capture("c", C::Succeeded, 1200, 200), part("c2", C::Succeeded, 300), back(300)],
            (Fulfilled, 100, 0),
        ),
    ];
    for (what, order, history, wanted) in rows {
        let events: Vec<_> = happened(history).collect();
        comes_to(what, order, &events, *wanted);
    }
}

#[test]
fn several_payments_of_one_order_are_told_apart() {
    let tax = by(PriceTerms::BeforeTax, PRICE);
    let paid = |payment: &str, at| of(payment, event_at(at, parted(1200, 200, 0)));
    let rows: &[(&str, &[PaymentEvent], Wanted)] = &[
        ("paid twice", &[paid("pi_1", 1), paid("pi_2", 2)], (Fulfilled, 100, 1200)),
        (
            "and once given back",
            &[paid("pi_1", 1), paid("pi_2", 2), of("pi_2", event_at(3, back(1200)))],
            (Fulfilled, 100, 0),
        ),
        (
            "a third of one and two thirds of the other went back",
            &[paid("pi_1", 1), paid("pi_2", 2), of("pi_1", event_at(3, back(400))), of("pi_2", event_at(4, back(800)))],
            (Fulfilled, 100, 400),
        ),
        (
            "another payment without parts is too much, however much it is",
            &[paid("pi_1", 1), of("pi_2", event_at(2, total(5000)))],
            (Fulfilled, 100, 5000),
        ),
        (
            "the one with parts went back, the other one waits",
            &[paid("pi_1", 1), of("pi_2", event_at(2, total(1200))), of("pi_1", event_at(3, back(1200)))],
            (Refunded, 0, 0),
        ),
        // The provider named no payment. The refund has only its own id.
        (
            "half went back of a payment that nobody named",
            &[paid("pi_1", 1), of("re_1", event_at(2, refund("re_1", R::Succeeded, 600)))],
            (PartiallyRefunded, 50, 0),
        ),
        (
            "all but a cent went back of a payment that nobody named",
            &[paid("pi_1", 1), of("re_1", event_at(2, refund("re_1", R::Succeeded, 1199)))],
            (PartiallyRefunded, 0, 0),
        ),
        (
            "a dispute of a payment that nobody named",
            &[paid("pi_1", 1), of("dp_1", event_at(2, dispute("dp_1", 1, D::Lost, usd(600))))],
            (Disputed, 50, 0),
        ),
    ];
    for (what, events, wanted) in rows {
        comes_to(what, &tax, events, *wanted);
    }
    let beyond = [
        of("pi_1", event_at(1, parted_capture("c", C::Succeeded, 1200, 200))),
        of("pi_1", event_at(2, part("c2", C::Succeeded, 300))),
        of("re_1", event_at(3, refund("re_1", R::Succeeded, 300))),
    ];
    comes_to("what is beyond the price went back, of a payment that nobody named", &tax, &beyond, (Fulfilled, 100, 0));
    let free = [of("cs_1", event_at(1, parted(0, 0, 2500))), of("pi_2", event_at(2, total(500)))];
    comes_to("a free order that is paid all the same", &by(discounted(2500), 2500), &free, (Fulfilled, 100, 500));
    let one = of("re_1", event_at(2, refund("re_1", R::Succeeded, 1)));
    comes_to("a cent went back that nobody named", &tax, &[paid("pi_1", 1), one], (PartiallyRefunded, 99, 0));
}

#[test]
fn a_whole_capture_with_a_discount_is_no_part_that_is_given_back() {
    let order = by(discounted(500), 2500);
    let money = usd(2000);
    let breakdown = Some(Breakdown::new(money, 0, 500).unwrap());
    let whole = PaymentStatus::Captured { money, capture_id: Some(fact_id("c")), state: C::Succeeded, breakdown };
    let events: Vec<_> = happened(&[whole, PaymentStatus::PartsCanceled]).collect();
    comes_to("whole", &order, &events, (Fulfilled, 100, 0));
}

#[test]
fn parts_that_do_not_leave_the_price_are_refused() {
    let off = |max| by(discounted(max), 2500);
    for (what, order, status, says) in [
        ("a discount above the limit", off(499), parted(2000, 0, 500), "above the order's discount_max_minor"),
        ("a discount above the limit of 0", off(0), parted(2499, 0, 1), "above the order's discount_max_minor"),
        (
            "a discount where none is told of",
            by(PriceTerms::BeforeTax, 2500),
            parted(2000, 0, 500),
            "must be the order's price",
        ),
        ("not enough", off(500), parted(1999, 0, 500), "must be the order's price"),
        ("too much", off(500), parted(2001, 0, 500), "must be the order's price"),
        ("tax in the price", by(PriceTerms::BeforeTax, PRICE), parted(PRICE, 100, 0), "must be the order's price"),
        (
            "tax on top by the terms total",
            by(PriceTerms::Total, PRICE),
            parted(1200, 200, 0),
            "must be the order's price",
        ),
    ] {
        let refusal = assess(&order, &event(status)).expect_err(what);
        assert_eq!(refusal.reason, Reason::AmountMismatch, "{what}");
        assert!(refusal.detail.contains(says), "{what}: {}", refusal.detail);
    }
    // An amount in another currency has no parts of this price.
    let euros =
        PaymentStatus::Captured { money: money(1200, "EUR"), capture_id: None, state: C::Succeeded, breakdown: None };
    let refusal = assess(&by(PriceTerms::BeforeTax, PRICE), &event(euros)).unwrap_err();
    assert_eq!(refusal.reason, Reason::CurrencyMismatch);
}

#[test]
fn parts_are_not_negative_and_tax_is_a_part_of_the_total() {
    for (tax, discount) in [(-1, 0), (0, -1), (1001, 0)] {
        assert!(Breakdown::new(usd(PRICE), tax, discount).is_err(), "{tax} {discount}");
    }
}

#[test]
fn a_refused_total_tells_the_price_that_it_would_pay() {
    let off = |max| by(discounted(max), 2500);
    let tax = || by(PriceTerms::BeforeTax, PRICE);
    let euros =
        || PaymentStatus::Captured { money: money(9, "EUR"), capture_id: None, state: C::Succeeded, breakdown: None };
    let currency = |code| Currency::new(code).unwrap();
    let rows: &[(&str, Order, PaymentStatus, Result<i64, PriceUntold>)] = &[
        ("all of it", by(PriceTerms::Total, PRICE), total(750), Ok(750)),
        ("all of it, tax included", by(PriceTerms::Total, PRICE), parted(1200, 200, 0), Ok(1200)),
        ("one capture", by(PriceTerms::Total, PRICE), part("c", C::Succeeded, 1200), Ok(1200)),
        ("without tax", tax(), parted(960, 160, 0), Ok(800)),
        ("before the discount", off(500), parted(2160, 160, 300), Ok(2300)),
        ("no parts", tax(), total(960), Err(PriceUntold::NoBreakdown { terms: "before_tax" })),
        (
            "too much of a discount",
            off(500),
            parted(1900, 0, 600),
            Err(PriceUntold::Discount { discount_minor: 600, max_minor: 500 }),
        ),
        ("nothing", by(PriceTerms::Total, PRICE), total(0), Err(PriceUntold::Nothing)),
        ("nothing but tax", tax(), parted(100, 100, 0), Err(PriceUntold::Nothing)),
        ("a capture that failed", tax(), part("c", C::Failed, 5), Err(PriceUntold::NotCaptured)),
        ("a refund", tax(), back(5), Err(PriceUntold::NotCaptured)),
        (
            "another currency",
            by(PriceTerms::Total, PRICE),
            euros(),
            Err(PriceUntold::Currency { reported: currency("EUR"), order: currency("USD") }),
        ),
    ];
    for (what, order, status, wanted) in rows {
        let event = event(status.clone());
        let told = price_paid(order, &event);
        assert_eq!(told.clone().map(|price| price.amount_minor()), *wanted, "{what}");
        // At that price the order accepts the event, and grants.
        let Ok(price) = told else { continue };
        let amended = Order { price, ..order.clone() };
        assert!(reprice(order, price, Hold).is_ok(), "{what}");
        let paid = arrived(amended, [event]);
        assert_eq!(settle(&paid, Hold).unwrap().credits_net, 100, "{what}");
    }
}

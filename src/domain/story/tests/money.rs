//! The text about an order's money, and the dead letters that concern it.

use super::*;

/// The sentences about the missing parts.
fn sentences(records: &Records) -> Vec<String> {
    told(records).summary.missing.into_iter().map(|missing| missing.text).collect()
}

#[test]
fn nothing_is_said_to_be_unpaid_while_something_says_otherwise() {
    let no_letter = |records| with(records, |_| {});
    let with_letter = |change: &dyn Fn(LetterRecord) -> LetterRecord| {
        with(unpaid(), |records| records.letters.push(change(letter("amount_mismatch", "captured succeeded", "open"))))
    };
    let id = Uuid::from_u128(7);
    let archived = |letter| LetterRecord { state: "archived".to_owned(), state_by: Some("ada".to_owned()), ..letter };
    for (what, records, sentence) in [
        (
            "an open letter",
            with_letter(&|letter| letter),
            format!("a payment of 19.99 USD is reported and not applied: dead letter {id}"),
        ),
        (
            "an archived letter",
            with_letter(&archived),
            format!("a payment of 19.99 USD was reported and not applied: dead letter {id} is archived by ada"),
        ),
        (
            "a letter that nobody has read",
            with_letter(&|letter| LetterRecord { said_type: None, said_state: None, is_read: false, ..letter }),
            format!("the paid amount is unknown: dead letter {id} was not read"),
        ),
        (
            "a part of two, of which the other was given up",
            joined(unpaid(), OrderStatus::AwaitingPayment, captured(500, Some("c"))),
            "5.00 USD are captured".to_owned(),
        ),
        (
            "nothing",
            no_letter(unpaid()),
            "no payment is known yet, and no further question to the provider is planned".to_owned(),
        ),
    ] {
        assert_eq!(sentences(&records).last(), Some(&sentence), "{what}");
        let says_nothing = sentences(&records).iter().any(|text| text.contains("no payment is known"));
        assert_eq!(says_nothing, what == "nothing", "{what}");
    }
}

#[test]
fn a_letter_concerns_the_orders_that_it_names_and_those_of_its_payment() {
    let concerns = |letter: LetterRecord| !missing(&with(paid(), |records| records.letters.push(letter))).is_empty();
    let open = || letter("payment_conflict", "captured succeeded", "open");
    let foreign = Some(Uuid::from_u128(0xf0));
    let other = || LetterRecord { payment_id: Some("x".to_owned()), payment_ids: vec!["x".to_owned()], ..open() };
    assert!(concerns(LetterRecord { order_id: foreign, order_ids: foreign.into_iter().collect(), ..open() }));
    assert!(concerns(LetterRecord { payment_ids: vec!["x".to_owned(), "pi_1".to_owned()], ..other() }));
    assert!(concerns(LetterRecord { order_id: Some(ORDER.0), ..other() }));
    assert!(concerns(LetterRecord { order_ids: vec![ORDER.0], ..other() }));
    assert!(!concerns(other()));
    assert!(!concerns(LetterRecord { provider: "paypal".to_owned(), ..open() }));
    assert!(!concerns(LetterRecord { provider_account: "acct_1".to_owned(), ..open() }));
    let unread = LetterRecord { is_read: false, payment_ids: vec![], ..open() };
    assert!(concerns(LetterRecord { provider_account: "acct_1".to_owned(), ..unread }));
}

#[test]
fn a_surplus_is_told_by_how_often_the_price_is_paid() {
    assert_eq!(sentences(&paid_by(&["pi_2"])), ["paid twice: 19.99 USD too much"]);
    assert_eq!(sentences(&paid_by(&["pi_2", "pi_3"])), ["paid 3 times: 39.98 USD too much"]);
    let rest = with(paid(), |records| {
        let payment_id = PaymentId::new("pi_2").unwrap();
        records.orders[0].order.join(&PaymentEvent { payment_id, ..event(captured(400, Some("c"))) });
    });
    assert_eq!(sentences(&rest), ["overpaid by 4.00 USD"]);
    let refunded = with(paid_by(&["pi_2"]), |records| {
        let refund = PaymentStatus::RefundedTotal { money: usd(1999) };
        let payment_id = PaymentId::new("pi_2").unwrap();
        records.orders[0].order.join(&PaymentEvent { payment_id, ..event(refund) });
    });
    assert_eq!(sentences(&refunded), [""; 0]);
}

#[test]
fn a_captured_amount_without_its_parts_says_what_it_waits_for() {
    let records = joined(before_tax(), OrderStatus::Processing, captured(2379, None));
    let missing = &told(&records).summary.missing[0];
    assert!(missing.text.starts_with("23.79 USD are captured; the order waits for the breakdown"), "{}", missing.text);
    let next = missing.next.as_deref().unwrap();
    assert!(next.contains(&format!("POST /v1/orders/{ORDER}/check")), "{next}");
}

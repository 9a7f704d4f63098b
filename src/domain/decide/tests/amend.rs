//! Other prices of an order that still match all its known facts.

use super::*;
use crate::domain::{AmendmentRefusal, Repriced, reprice};

/// The order after this history. Its credits are posted.
fn posted(history: &[PaymentStatus], policy: DisputePolicy) -> Order {
    let mut order = after(order(), history);
    let posting = settle(&order, policy).unwrap();
    order.is_granted = posting.grant;
    order.credits_posted = posting.credits_net;
    order.status = posting.status;
    order
}

#[test]
fn an_order_is_repriced_by_what_is_known_of_it() {
    let half = |id| part(id, C::Succeeded, PRICE / 2);
    let becomes = |status, is_grant_due| Ok(Some(Repriced { status, is_grant_due }));
    let euro = |amount| money(amount, "EUR");
    type Wanted = Result<Option<Repriced>, AmendmentRefusal>;
    let rows: &[(&str, &[PaymentStatus], Money, Wanted)] = &[
        ("nothing heard", &[], usd(750), becomes(AwaitingPayment, false)),
        ("nothing heard, another currency", &[], euro(750), becomes(AwaitingPayment, false)),
        ("the same price", &[half("a")], usd(PRICE), Ok(None)),
        ("the same price of what is granted", &[total(PRICE)], usd(PRICE), Ok(None)),
        ("granted", &[total(PRICE)], usd(750), Err(AmendmentRefusal::Granted)),
        (
            "a capture that failed",
            &[part("a", C::Succeeded, PRICE), part("a", C::Failed, PRICE)],
            usd(PRICE * 2),
            becomes(AwaitingPayment, false),
        ),
        ("a part that waits", &[half("a")], usd(750), becomes(Processing, false)),
        ("a part that waits, at a higher price", &[half("a")], usd(PRICE * 2), becomes(Processing, false)),
        ("a part that is the new price", &[half("a")], usd(PRICE / 2), becomes(Processing, true)),
        ("parts that reach it", &[half("a"), part("b", C::Succeeded, 250)], usd(750), becomes(Processing, true)),
        ("parts that miss it by one", &[half("a"), part("b", C::Succeeded, 250)], usd(751), becomes(Processing, false)),
        (
            "parts that reach it, less what went back",
            &[half("a"), part("b", C::Succeeded, 250), refund("r", R::Succeeded, 750)],
            usd(750),
            becomes(Refunded, false),
        ),
        (
            "parts that reach it, and a dispute that takes all",
            &[half("a"), dispute("d", 1, D::Open, money(7, "EUR"))],
            usd(PRICE / 2),
            becomes(Disputed, false),
        ),
        (
            "paid and taken back before it was granted, and dearer now",
            &[refund("r", R::Succeeded, PRICE), half("a"), half("b")],
            usd(PRICE * 2),
            becomes(Processing, false),
        ),
        (
            "a capture above the price would be refused when it fails",
            &[half("a")],
            usd(PRICE / 2 - 1),
            Err(AmendmentRefusal::BelowCapture { captured_minor: PRICE / 2 }),
        ),
        (
            "a total that is known must be the price",
            &[refund("r", R::Succeeded, PRICE), total(PRICE)],
            usd(750),
            Err(AmendmentRefusal::TotalKnown { captured_minor: PRICE }),
        ),
        ("canceled", &[PaymentStatus::Canceled], usd(750), becomes(Canceled, false)),
        ("failed, in another currency", &[failed("declined")], euro(750), becomes(AwaitingPayment, false)),
        (
            "a dispute in another currency, which is the order's now",
            &[dispute("d", 1, D::Open, euro(7))],
            euro(750),
            becomes(AwaitingPayment, false),
        ),
    ];
    for (what, history, price, wanted) in rows {
        assert_eq!(reprice(&posted(history, Hold), *price, Hold), *wanted, "{what}");
    }
    // Every known amount fixes the currency.
    for known in
        [half("a"), part("a", C::Failed, 1), refund("r", R::Failed, 1), back(1), dispute("d", 1, D::Inquiry, usd(1))]
    {
        let order = posted(std::slice::from_ref(&known), Hold);
        let refused = Err(AmendmentRefusal::CurrencyKnown(order.price.currency()));
        assert_eq!(reprice(&order, euro(PRICE), Hold), refused, "{known:?}");
    }
}

#[test]
fn the_policy_decides_whether_a_grant_is_due() {
    let history = [part("a", C::Succeeded, 500), dispute("d", 1, D::Open, usd(500))];
    for (policy, wanted) in [(Hold, (Disputed, false)), (Lost, (Processing, true))] {
        let repriced = reprice(&posted(&history, policy), usd(500), policy).unwrap().unwrap();
        assert_eq!((repriced.status, repriced.is_grant_due), wanted, "{policy:?}");
    }
}

/// A price must not contradict a joined fact: an event that was accepted once must be accepted again, also if it reports a failure
/// later.
#[test]
fn what_was_accepted_is_accepted_at_every_price_that_is_let_through() {
    let histories = [
        vec![part("a", C::Succeeded, 400), part("b", C::Succeeded, 350)],
        vec![part("a", C::Succeeded, 1), part("b", C::Failed, 999)],
        vec![refund("r", R::Succeeded, PRICE), total(PRICE)],
        vec![back(300), dispute("d", 2, D::Lost, usd(20))],
        vec![PaymentStatus::Pending, failed("declined"), PaymentStatus::Canceled],
    ];
    let mut let_through = 0;
    for history in histories {
        let order = posted(&history, Hold);
        for price in (1..=PRICE * 2).step_by(7).flat_map(|minor| [usd(minor), money(minor, "EUR")]) {
            if reprice(&order, price, Hold).is_ok_and(|repriced| repriced.is_some()) {
                let_through += 1;
                let amended = Order { price, ..order.clone() };
                for status in &history {
                    assert_eq!(assess(&amended, &event(status.clone())), Ok(()), "{status:?} at {price}");
                }
            }
        }
    }
    assert!(let_through > 500, "{let_through}");
}

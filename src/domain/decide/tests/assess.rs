//! Which events an order accepts.

use super::*;

#[test]
fn an_order_refuses_what_does_not_belong_to_it() {
    let acct = |id: &str| Some(ProviderAccount::new(id).unwrap());
    let ours = || event(total(PRICE));
    let connected = || Order { provider_account: acct("acct_1"), ..order() };
    let euro = |status: fn(Money) -> PaymentStatus| event(status(money(PRICE, "EUR")));
    let rows: [(&str, Order, PaymentEvent, Reason, &str); 13] = [
        (
            "another provider",
            order(),
            PaymentEvent { provider: Provider::STANDARD, ..ours() },
            Reason::PaymentConflict,
            "is paid at stripe, the message comes from standard",
        ),
        (
            "paid to somebody else",
            order(),
            PaymentEvent { provider_account: acct("acct_2"), ..ours() },
            Reason::AccountMismatch,
            "is paid to our own account, the payment belongs to account acct_2",
        ),
        ("paid to us instead", connected(), ours(), Reason::AccountMismatch, "is paid to account acct_1"),
        (
            "another account, of a message that carries no money",
            connected(),
            event(PaymentStatus::Pending),
            Reason::AccountMismatch,
            "the payment belongs to our own account",
        ),
        (
            "total in another currency",
            order(),
            euro(|money| PaymentStatus::Captured { money, capture_id: None, state: C::Succeeded, breakdown: None }),
            Reason::CurrencyMismatch,
            "is in USD, the provider says 1000 EUR",
        ),
        (
            "capture in another currency",
            order(),
            euro(|money| PaymentStatus::Captured {
                money,
                capture_id: Some(fact_id("c")),
                state: C::Failed,
                breakdown: None,
            }),
            Reason::CurrencyMismatch,
            "EUR",
        ),
        (
            "refund in another currency",
            order(),
            euro(|money| PaymentStatus::Refund { refund_id: fact_id("r"), state: R::Succeeded, money }),
            Reason::CurrencyMismatch,
            "EUR",
        ),
        (
            "refunded total in another currency",
            order(),
            euro(|money| PaymentStatus::RefundedTotal { money }),
            Reason::CurrencyMismatch,
            "EUR",
        ),
        ("total too low", order(), event(total(PRICE - 1)), Reason::AmountMismatch, "total must be the order's price"),
        ("total too high", order(), event(total(PRICE + 1)), Reason::AmountMismatch, "total must be the order's price"),
        ("nothing captured", order(), event(total(0)), Reason::AmountMismatch, "total must be the order's price"),
        (
            "one capture above the price",
            order(),
            event(part("c", C::Succeeded, PRICE + 1)),
            Reason::AmountMismatch,
            "must not be above the order's price",
        ),
        (
            "a wrong currency counts before a wrong amount",
            order(),
            event(PaymentStatus::Captured {
                money: money(1, "EUR"),
                capture_id: None,
                state: C::Succeeded,
                breakdown: None,
            }),
            Reason::CurrencyMismatch,
            "EUR",
        ),
    ];
    for (what, order, event, reason, part) in rows {
        let refusal = assess(&order, &event).expect_err(what);
        assert_eq!(refusal.reason, reason, "{what}");
        assert!(refusal.detail.contains(part), "{what}: {}", refusal.detail);
        assert!(refusal.detail.contains(&order.id.to_string()), "{what}: the detail names the order");
    }
}

#[test]
fn an_order_accepts_what_does() {
    let acct = Some(ProviderAccount::new("acct_1").unwrap());
    let connected = Order { provider_account: acct.clone(), ..order() };
    assert_eq!(assess(&connected, &PaymentEvent { provider_account: acct, ..event(total(PRICE)) }), Ok(()));
    for status in [
        total(PRICE),
        part("c", C::Succeeded, PRICE),
        part("c", C::Succeeded, 0),
        part("c", C::Failed, 1),
        PaymentStatus::Pending,
        failed("card declined"),
        PaymentStatus::Canceled,
        // A refund may be above the price, because more may have been captured.
        refund("r", R::Succeeded, PRICE * 3),
        back(PRICE * 3),
        dispute("d", 1, D::Open, usd(PRICE * 3)),
        dispute("d", 1, D::Open, money(1, "EUR")),
    ] {
        assert_eq!(assess(&order(), &event(status.clone())), Ok(()), "{status:?}");
    }
}

#[test]
fn what_was_there_before_changes_no_answer() {
    let past = [
        total(PRICE),
        part("c", C::Failed, PRICE),
        refund("r", R::Succeeded, PRICE),
        dispute("d", 3, D::Lost, usd(PRICE)),
        PaymentStatus::Canceled,
    ];
    let posted = Order { is_granted: true, credits_posted: 40, revision: 7, status: Disputed, ..after(order(), &past) };
    for status in [total(PRICE), total(PRICE - 1), part("c", C::Succeeded, PRICE + 1), back(PRICE), failed("x")] {
        assert_eq!(assess(&posted, &event(status.clone())), assess(&order(), &event(status)));
    }
}

#[test]
fn facts_of_each_kind_have_a_bound() {
    type Make = fn(&str) -> PaymentStatus;
    let kinds: [Make; 3] =
        [|id| part(id, C::Succeeded, PRICE), |id| refund(id, R::Succeeded, 1), |id| dispute(id, 1, D::Inquiry, usd(1))];
    for (full, make) in kinds.iter().enumerate() {
        let history: Vec<_> = (0..FACTS_MAX).map(|n| make(&n.to_string())).collect();
        let order = after(order(), &history);
        let refusal = assess(&order, &event(make("one more"))).unwrap_err();
        assert_eq!(refusal.reason, Reason::TooManyFacts);
        assert!(refusal.detail.contains("1000 facts"), "{}", refusal.detail);
        assert_eq!(assess(&order, &event(make("0"))), Ok(()), "a known fact may still change");
        for (other, make) in kinds.iter().enumerate().filter(|(other, _)| *other != full) {
            assert_eq!(assess(&order, &event(make("new"))), Ok(()), "kind {other} has its own limit");
        }
        for without_id in [total(PRICE), back(1), failed("x"), PaymentStatus::Canceled, PaymentStatus::Pending] {
            assert_eq!(assess(&order, &event(without_id)), Ok(()));
        }
    }
}

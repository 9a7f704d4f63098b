//! The missing parts of an order, and how a story is built.

mod money;

use super::records::OrderRecord;
use super::*;
use crate::domain::{
    CaptureState, DisputePolicy, MessageId, Money, Order, PaymentEvent, PaymentFacts, PaymentId, PaymentStatus,
    PriceTerms, Provider,
};
use time::Duration;
use time::macros::datetime;
use uuid::Uuid;

const NOON: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);
const ORDER: OrderId = OrderId(Uuid::nil());
const TERMS: Terms =
    Terms { now: datetime!(2026-01-05 13:00 UTC), dispute_policy: DisputePolicy::Hold, entries_max: 100 };

fn usd(minor: i64) -> Money {
    Money::new(minor, "USD".parse().unwrap()).unwrap()
}

fn event(status: PaymentStatus) -> PaymentEvent {
    PaymentEvent {
        provider: Provider::STRIPE,
        message_id: MessageId::new("stripe::evt_1").unwrap(),
        payment_id: PaymentId::new("pi_1").unwrap(),
        related_ids: vec![],
        provider_account: None,
        order_id: None,
        status,
        occurred_at: NOON,
        as_of: None,
        livemode: true,
    }
}

fn captured(minor: i64, capture: Option<&str>) -> PaymentStatus {
    let capture_id = capture.map(|id| crate::domain::FactId::new(id).unwrap());
    PaymentStatus::Captured { money: usd(minor), capture_id, state: CaptureState::Succeeded, breakdown: None }
}

/// An order over 19.99 US dollars for 100 credits. Its payment is registered, and no event has arrived.
fn unpaid() -> Records {
    let order = Order {
        id: ORDER,
        account_id: AccountId::new("acc").unwrap(),
        credits: 100,
        price: usd(1999),
        price_terms: PriceTerms::Total,
        provider: Provider::STRIPE,
        provider_account: None,
        status: OrderStatus::AwaitingPayment,
        is_granted: false,
        credits_posted: 0,
        revision: 0,
        facts: PaymentFacts::default(),
    };
    let payment = PaymentRecord {
        order_id: ORDER.0,
        provider: "stripe".to_owned(),
        provider_account: String::new(),
        payment_id: "pi_1".to_owned(),
        registered_at: NOON,
    };
    Records {
        orders: vec![OrderRecord { order, created_at: NOON, updated_at: NOON }],
        payments: vec![payment],
        ..Records::default()
    }
}

/// The same order, paid and granted.
fn paid() -> Records {
    let mut records = unpaid();
    let order = &mut records.orders[0].order;
    order.join(&event(captured(1999, None)));
    (order.status, order.is_granted, order.credits_posted) = (OrderStatus::Fulfilled, true, 100);
    let (account_id, message_id) = ("acc".to_owned(), "stripe::evt_1".to_owned());
    records.grants = vec![GrantRecord { order_id: ORDER.0, account_id, credits: 100, message_id, at: NOON }];
    records
}

/// The same order, also paid by these payments.
fn paid_by(others: &[&str]) -> Records {
    with(paid(), |records| {
        for payment in others {
            let payment_id = PaymentId::new(*payment).unwrap();
            records.orders[0].order.join(&PaymentEvent { payment_id, ..event(captured(1999, None)) });
        }
    })
}

/// An order whose price does not include the tax.
fn before_tax() -> Records {
    with(unpaid(), |records| records.orders[0].order.price_terms = PriceTerms::BeforeTax)
}

fn with(mut records: Records, change: impl FnOnce(&mut Records)) -> Records {
    change(&mut records);
    records
}

fn joined(records: Records, status: OrderStatus, said: PaymentStatus) -> Records {
    with(records, |records| {
        let order = &mut records.orders[0].order;
        order.join(&event(said));
        order.status = status;
    })
}

fn look(due_at: Option<OffsetDateTime>, failures: i32) -> LookRecord {
    LookRecord {
        provider: "stripe".to_owned(),
        payment_id: "pi_1".to_owned(),
        order_id: Some(ORDER.0),
        created_at: NOON,
        due_at,
        wanted: 0,
        asked_at: None,
        said: None,
        failures,
    }
}

/// A dead letter about `pi_1`. `said` is one name of the contract, or two: `captured succeeded`.
fn letter(reason: &str, said: &str, state: &str) -> LetterRecord {
    let (said_type, said_state) = said.split_once(' ').map_or((said, None), |(kind, state)| (kind, Some(state)));
    LetterRecord {
        id: Uuid::from_u128(7),
        message_id: "stripe::evt_7".to_owned(),
        reason: reason.to_owned(),
        detail: "the detail".to_owned(),
        origin: "worker".to_owned(),
        attempts: 1,
        provider: "stripe".to_owned(),
        provider_account: String::new(),
        payment_id: Some("pi_1".to_owned()),
        payment_ids: vec!["pi_1".to_owned()],
        order_id: None,
        order_ids: vec![],
        said: Some("prose that nothing is decided by".to_owned()),
        is_read: true,
        said_type: Some(said_type.to_owned()).filter(|said| !said.is_empty()),
        said_state: said_state.map(str::to_owned),
        amount_minor: Some(1999),
        currency: Some("USD".to_owned()),
        state: state.to_owned(),
        state_at: NOON,
        state_by: None,
        state_reason: None,
        first_seen_at: NOON,
        last_seen_at: NOON,
        seen: 1,
        replays: 0,
        verdict: None,
        verdict_detail: None,
    }
}

fn note(put_offs: i64, last_noted_at: OffsetDateTime, is_admitted: bool) -> NoteRecord {
    NoteRecord {
        message_id: "stripe::evt_7".to_owned(),
        provider: "stripe".to_owned(),
        payment_id: "pi_1".to_owned(),
        order_id: None,
        said: "captured".to_owned(),
        copies: 0,
        put_offs,
        waits_for: None,
        first_noted_at: NOON,
        last_noted_at,
        is_admitted,
    }
}

fn attempt(payment: Option<&str>) -> AttemptRecord {
    AttemptRecord {
        order_id: ORDER.0,
        number: 1,
        first_sent_at: NOON,
        last_sent_at: NOON,
        is_burnt: false,
        payment_id: payment.map(str::to_owned),
    }
}

/// The missing parts, and whether each needs attention.
type Expected = Vec<(MissingCode, bool)>;

fn told(records: &Records) -> Story {
    tell(Subject { kind: SubjectKind::Order, id: ORDER.to_string() }, records, TERMS)
}

fn missing(records: &Records) -> Expected {
    told(records).summary.missing.iter().map(|missing| (missing.code, missing.needs_attention)).collect()
}

#[test]
fn what_is_missing_of_an_order_is_named() {
    use MissingCode::*;
    let later = TERMS.now + Duration::hours(1);
    let no_payment = || with(unpaid(), |records| records.payments.clear());
    let refund = PaymentStatus::RefundedTotal { money: usd(1999) };
    let rows: Vec<(&str, Records, Expected)> = vec![
        ("paid and granted", paid(), vec![]),
        ("nothing made yet", no_payment(), vec![(NoPayment, false)]),
        (
            "an attempt that came to nothing",
            with(no_payment(), |records| records.attempts.push(attempt(None))),
            vec![(PaymentNotCreated, false)],
        ),
        ("not paid yet", with(unpaid(), |r| r.looks.push(look(Some(later), 0))), vec![(AwaitingPayment, false)]),
        (
            "nobody asks",
            with(unpaid(), |r| r.looks.push(look(Some(TERMS.now - Duration::minutes(16)), 0))),
            vec![(LookOverdue, true), (AwaitingPayment, false)],
        ),
        (
            "about to be asked",
            with(unpaid(), |r| r.looks.push(look(Some(TERMS.now - Duration::minutes(14)), 2))),
            vec![(AwaitingPayment, false)],
        ),
        ("no answers", with(paid(), |r| r.looks.push(look(Some(later), 3))), vec![(ProviderNotAnswering, true)]),
        (
            "a refund that nobody tells",
            with(paid(), |r| {
                r.looks.push(LookRecord { said: Some("refund_untold".to_owned()), ..look(Some(later), 0) });
            }),
            vec![(RefundUntold, true)],
        ),
        (
            "a part of the money",
            joined(unpaid(), OrderStatus::Processing, captured(500, Some("c"))),
            vec![(PartlyPaid, false), (AwaitingPayment, false)],
        ),
        (
            "paid, and nothing that grants",
            joined(unpaid(), OrderStatus::AwaitingPayment, captured(1999, None)),
            vec![(GrantDue, true), (AwaitingPayment, false)],
        ),
        (
            "a letter that reports money",
            with(unpaid(), |r| r.letters.push(letter("amount_mismatch", "captured succeeded", "open"))),
            vec![(LetterOpen, true), (PaymentNotApplied, true)],
        ),
        (
            "a letter that reports money, on its way",
            with(unpaid(), |r| r.letters.push(letter("amount_mismatch", "captured succeeded", "replaying"))),
            vec![(LetterReplaying, false), (PaymentNotApplied, false)],
        ),
        (
            "a letter that reports no money",
            with(unpaid(), |r| r.letters.push(letter("amount_mismatch", "captured failed", "open"))),
            vec![(LetterOpen, true), (AwaitingPayment, false)],
        ),
        (
            "a letter that reports money of an order that was given up",
            joined(
                with(unpaid(), |r| r.letters.push(letter("amount_mismatch", "captured succeeded", "open"))),
                OrderStatus::Canceled,
                PaymentStatus::Canceled,
            ),
            vec![(LetterOpen, true), (PaymentNotApplied, true)],
        ),
        (
            "the provider says paid",
            with(unpaid(), |r| {
                r.looks.push(LookRecord {
                    said: Some("paid".to_owned()),
                    asked_at: Some(NOON),
                    ..look(Some(later), 0)
                });
            }),
            vec![(PaymentNotApplied, true)],
        ),
        (
            "the provider said paid just now",
            with(unpaid(), |r| {
                let asked_at = Some(TERMS.now - Duration::minutes(4));
                r.looks.push(LookRecord { said: Some("paid".to_owned()), asked_at, ..look(Some(later), 0) });
            }),
            vec![(PaymentNotApplied, false)],
        ),
        (
            "a message about money that waits",
            with(unpaid(), |r| r.notes.push(note(2, NOON, false))),
            vec![(MessageWaiting, false), (PaymentNotApplied, false)],
        ),
        (
            "no breakdown yet",
            with(joined(before_tax(), OrderStatus::Processing, captured(2379, None)), |r| {
                r.orders[0].updated_at = TERMS.now - Duration::minutes(14);
            }),
            vec![(BreakdownMissing, false), (AwaitingPayment, false)],
        ),
        (
            "no breakdown for long",
            joined(before_tax(), OrderStatus::Processing, captured(2379, None)),
            vec![(BreakdownMissing, true), (AwaitingPayment, false)],
        ),
        ("paid twice", paid_by(&["pi_2"]), vec![(Overpaid, true)]),
        ("refunded, not taken", joined(paid(), OrderStatus::Fulfilled, refund), vec![(CreditsDue, true)]),
        ("no such grant", with(paid(), |records| records.grants.clear()), vec![(LedgerDiffers, true)]),
        ("canceled", joined(unpaid(), OrderStatus::Canceled, PaymentStatus::Canceled), vec![]),
        (
            "a letter",
            with(paid(), |r| r.letters.push(letter("id_reused", "pending", "open"))),
            vec![(LetterOpen, true)],
        ),
        (
            "a letter on its way",
            with(paid(), |r| r.letters.push(letter("id_reused", "pending", "replaying"))),
            vec![(LetterReplaying, false)],
        ),
        ("an old letter", with(paid(), |r| r.letters.push(letter("malformed", "", "archived"))), vec![]),
        (
            "somebody else's letter",
            with(paid(), |r| {
                let (order_id, payment_ids) = (Some(Uuid::from_u128(1)), vec!["pi_2".to_owned()]);
                let payment_id = payment_ids.first().cloned();
                r.letters.push(LetterRecord { order_id, payment_id, payment_ids, ..letter("malformed", "", "open") });
            }),
            vec![],
        ),
        ("a message that waits", with(paid(), |r| r.notes.push(note(2, NOON, false))), vec![(MessageWaiting, false)]),
        ("a message that waited", with(paid(), |r| r.notes.push(note(2, NOON, true))), vec![]),
        ("copies", with(paid(), |r| r.notes.push(note(0, NOON, false))), vec![]),
        (
            "a message that nobody heard of for long",
            with(paid(), |r| r.notes.push(note(2, NOON - Duration::days(1), false))),
            vec![],
        ),
        (
            "a message that was given up",
            with(paid(), |r| {
                r.notes.push(note(2, NOON, false));
                r.letters.push(letter("unknown_payment", "", "open"));
            }),
            vec![(LetterOpen, true)],
        ),
    ];
    for (what, records, expected) in rows {
        assert_eq!(missing(&records), expected, "{what}");
        let story = told(&records);
        assert_eq!(story.summary.needs_attention, expected.iter().any(|(_, attention)| *attention), "{what}");
        assert_eq!(story.orders[0].missing, story.summary.missing, "{what}");
    }
}

#[test]
fn a_letter_is_told_of_with_what_to_do() {
    for (records, reason, said, text, next) in [
        (
            unpaid(),
            "amount_mismatch",
            "captured succeeded",
            "paid, but the message is a dead letter: amount_mismatch",
            "amend",
        ),
        (unpaid(), "untranslatable", "captured succeeded", "paid, but the message", "dlq show"),
        (unpaid(), "currency_mismatch", "refund pending", "a message is a dead letter", "amend"),
        (paid(), "id_reused", "captured succeeded", "the message is a dead letter", "dlq show"),
        (unpaid(), "unknown_payment", "captured succeeded", "paid, but", "its order exists now"),
        (
            Records::default(),
            "unknown_payment",
            "captured succeeded",
            "the message is a dead letter",
            "create the order",
        ),
    ] {
        let records = with(records, |records| records.letters.push(letter(reason, said, "open")));
        let story = told(&records);
        let missing = &story.summary.missing[0];
        let id = Uuid::from_u128(7);
        assert!(missing.text.starts_with(text), "{reason}: {}", missing.text);
        let told_next = missing.next.as_deref().unwrap();
        assert!(told_next.contains(next) && told_next.contains(&id.to_string()), "{reason}: {told_next}");
        assert_eq!(missing.letter_id, Some(id));
    }
    let verdict =
        LetterRecord { verdict_detail: Some("grants 100 credits".to_owned()), ..letter("malformed", "", "open") };
    let story = told(&with(paid(), |records| records.letters.push(verdict)));
    assert!(story.summary.missing[0].text.ends_with("a replay now: grants 100 credits"));
}

#[test]
fn entries_come_oldest_first_and_what_has_one_time_in_its_order() {
    let records = with(paid(), |records| {
        records.admitted.push(AdmittedRecord {
            message_id: "stripe::evt_1".to_owned(),
            order_id: ORDER.0,
            said: Some("captured".to_owned()),
            admitted_at: NOON,
        });
        records.attempts.push(attempt(Some("pi_1")));
        records.notes.push(note(1, NOON, true));
        records.looks.push(look(None, 0));
        records.letters.push(letter("malformed", "", "resolved"));
        records.letters[0].first_seen_at = NOON - Duration::seconds(1);
    });
    let story = told(&records);
    let kinds: Vec<_> = story.entries.iter().map(|entry| entry.what.kind()).collect();
    let expected = [
        "letter_received",
        "order_created",
        "payment_attempted",
        "payment_registered",
        "message_put_off",
        "message_admitted",
        "credits_granted",
        "letter_changed",
        "provider_asked",
    ];
    assert_eq!(kinds, expected);
    for entry in &story.entries {
        let json = serde_json::to_value(entry).unwrap();
        assert_eq!(json["kind"], entry.what.kind(), "the name in JSON is the name");
        assert!(!entry.text.is_empty());
    }
    let few = Terms { entries_max: 2, ..TERMS };
    let story = tell(Subject { kind: SubjectKind::Order, id: ORDER.to_string() }, &records, few);
    assert_eq!((story.entries.len(), story.entries_left_out), (2, 7));
    assert_eq!(story.entries[1].what.kind(), "provider_asked", "the newest are kept");
}

#[test]
fn what_is_not_kept_or_not_read_is_said() {
    assert_eq!(told(&paid()).gaps, Vec::<String>::new());
    let since = |day| with(paid(), |records| records.inbox_since = Some(day));
    assert_eq!(told(&since(NOON.date())).gaps.len(), 0);
    assert!(told(&since(NOON.date() + Duration::DAY)).gaps[0].contains("before 2026-01-06"));
    let cut = with(paid(), |records| records.cut.push("inbox"));
    let story = told(&cut);
    assert!(story.gaps[0].contains("inbox has more rows"));
    let pruned = |story: &Story| {
        let is_grant = |entry: &&Entry| entry.what.kind() == "credits_granted";
        story
            .entries
            .iter()
            .find(is_grant)
            .map(|entry| serde_json::to_value(entry).unwrap()["is_message_pruned"].clone())
    };
    assert_eq!(pruned(&story), Some(false.into()), "an entry that was not read may be there");
    assert_eq!(pruned(&told(&paid())), Some(true.into()));
}

#[test]
fn a_summary_says_how_the_subject_stands() {
    let subject = |kind| Subject { kind, id: "pi_1".to_owned() };
    let text = |kind, records: &Records| tell(subject(kind), records, TERMS).summary.text;
    assert_eq!(told(&paid()).summary.text, "fulfilled: 100 of 100 credits are with acc");
    assert!(text(SubjectKind::Payment, &paid()).contains("is fulfilled: 100 of 100"));
    assert!(text(SubjectKind::Account, &paid()).contains("orders shown: 1"));
    assert_eq!(text(SubjectKind::Payment, &Records::default()), "no order has this payment");
    assert_eq!(told(&Records::default()).summary.text, "the order does not exist, or not yet; messages name it");
    let failed = joined(unpaid(), OrderStatus::AwaitingPayment, PaymentStatus::failed("card declined"));
    assert!(told(&failed).summary.text.ends_with("the last attempt failed: card declined"));
}

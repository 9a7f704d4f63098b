//! How an order stands, or a payment without an order: what its dead letters say was paid, what the order costs, and the next step.

use super::prospects::{Terms, events};
use crate::domain::{
    CaptureState, Currency, LetterId, LetterState, Money, Order, PaymentEvent, PaymentFacts, PaymentStatus, PriceTerms,
    Reason, can_be_asked,
};
use crate::store::{JudgedOrders, LetterFilter, LetterRow, OrderLetters, Store, StoreError};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use time::OffsetDateTime;

/// Letters that are read at once; a page of the store has as many.
const CHUNK: usize = 500;
const CHUNK_ROWS: u32 = 500;

/// What is known of the order that letters are about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum KnownOrder {
    /// The letters name no order, and none of their payments has one.
    None,
    /// The letters name an order that does not exist.
    Missing,
    /// The order's row cannot be read.
    Unreadable(String),
    /// The order as it is now.
    Read(Box<Order>),
}

impl KnownOrder {
    /// The order, if it could be read.
    pub(super) fn order(&self) -> Option<&Order> {
        match self {
            Self::Read(order) => Some(order),
            Self::None | Self::Missing | Self::Unreadable(_) => None,
        }
    }
}

/// What mends an order, or leads on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum NextStep {
    /// Replay the letters: what refused them is gone.
    Replay,
    /// A replay is under way.
    Wait,
    /// Make the order cost what was paid, or give the money back.
    AmendPrice,
    /// The currency is another one: an operator sets price and currency.
    AmendByHand,
    /// The site has to make the order.
    MakeOrder,
    /// Ask the provider how the payment stands.
    CheckAtProvider,
    /// The order's row has to be mended in the database.
    MendRow,
    /// Read the letter: its reason has its own advice.
    ReadLetter,
    /// No letter is open.
    None,
}

/// The money of an order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Paid {
    /// What the buyer paid, by currency: facts that were applied and facts that the letters report.
    pub(super) amounts: Vec<Money>,
    /// Whether a letter could not be read for it, or there are more letters than were read: then it may be more.
    pub(super) is_at_least: bool,
}

impl Paid {
    /// Paid less expected, in minor units of the order's currency. None: something else was paid in, or the order's terms leave
    /// a part out, or it is not known how much was paid.
    pub(super) fn difference_minor(&self, order: &Order) -> Option<i64> {
        if order.price_terms != PriceTerms::Total {
            return None;
        }
        match self.amounts.as_slice() {
            [paid] if paid.currency() == order.price.currency() => {
                Some(paid.amount_minor() - order.price.amount_minor())
            }
            _ => None,
        }
    }
}

/// An order, or a payment without an order, with its dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Standing {
    /// Which letters, and how many.
    pub(super) about: OrderLetters,
    /// The newest letters of the order.
    pub(super) letters: Vec<LetterRow>,
    /// The order with its price.
    pub(super) order: KnownOrder,
    /// The money that was paid for it.
    pub(super) paid: Paid,
    /// The step that helps the order.
    pub(super) next: NextStep,
}

/// Reads how orders stand. Changes nothing.
pub(super) async fn stand(
    store: &Store,
    terms: &Terms,
    all: Vec<OrderLetters>,
    now: OffsetDateTime,
) -> Result<Vec<Standing>, StoreError> {
    let orders: BTreeSet<_> = all.iter().filter_map(|about| about.order_id).collect();
    let orders = store.orders_to_judge(orders).await?;
    let ids: Vec<LetterId> = all.iter().flat_map(|about| about.ids.iter().copied()).collect();
    let (mut rows, mut told) = (BTreeMap::new(), BTreeMap::new());
    for chunk in ids.chunks(CHUNK) {
        let page = store.letters(LetterFilter::of_ids(chunk.iter().copied()), None, CHUNK_ROWS).await?;
        rows.extend(page.letters.into_iter().map(|row| (row.id, row)));
        for letter in store.letters_to_read_again(chunk.to_vec()).await? {
            told.insert(letter.id, letter.is_whole.then(|| events(&letter, terms, now)));
        }
    }
    let standings = all.into_iter().map(|about| {
        // A letter that was deleted since is left out.
        let letters: Vec<LetterRow> = about.ids.iter().filter_map(|id| rows.remove(id)).collect();
        let events: Vec<&PaymentEvent> = about.ids.iter().filter_map(|id| told.get(id)).flatten().flatten().collect();
        let unread = about.ids.iter().any(|id| !matches!(told.get(id), Some(Some(_))));
        let order = known(&about, &orders);
        let mut paid = paid(order.order(), &events);
        paid.is_at_least = unread || i64::try_from(about.ids.len()).is_ok_and(|named| named < about.letters);
        let next = next_step(&order, &letters, about.helpful);
        Standing { letters, order, paid, next, about }
    });
    Ok(standings.collect())
}

fn known(about: &OrderLetters, orders: &JudgedOrders) -> KnownOrder {
    let Some(id) = about.order_id else { return KnownOrder::None };
    match (orders.read.get(&id), orders.unreadable.get(&id)) {
        (Some(order), _) => KnownOrder::Read(Box::new(order.clone())),
        (None, Some(cause)) => KnownOrder::Unreadable(cause.clone()),
        (None, None) => KnownOrder::Missing,
    }
}

/// What was paid: what the order knows, joined with what the letters report. Each currency by itself.
fn paid(order: Option<&Order>, events: &[&PaymentEvent]) -> Paid {
    let mut by_currency: BTreeMap<&str, (Currency, Vec<&PaymentEvent>)> = BTreeMap::new();
    let own = order.map(|order| order.price.currency());
    if let Some(currency) = own {
        by_currency.insert(currency.as_str(), (currency, vec![]));
    }
    for event in events {
        if let PaymentStatus::Captured { money, state: CaptureState::Succeeded, .. } = &event.status {
            let currency = money.currency();
            by_currency.entry(currency.as_str()).or_insert_with(|| (currency, vec![])).1.push(event);
        }
    }
    let nothing = PaymentFacts::default();
    let mut amounts = vec![];
    for (currency, events) in by_currency.into_values() {
        let (facts, price_minor) = match order.filter(|_| own == Some(currency)) {
            Some(order) => (&order.facts, order.price.amount_minor()),
            None => (&nothing, 0),
        };
        let captured = facts.captured_with(events.into_iter(), currency, price_minor);
        amounts.extend(i64::try_from(captured).ok().and_then(|minor| Money::new(minor, currency).ok()));
    }
    // Nothing in the order's currency is said only where nothing else was paid.
    if amounts.iter().any(|money| money.amount_minor() > 0) {
        amounts.retain(|money| money.amount_minor() > 0);
    }
    Paid { amounts, is_at_least: false }
}

/// What to do next. Verdicts and reasons decide, never a sentence.
fn next_step(order: &KnownOrder, letters: &[LetterRow], helpful: i64) -> NextStep {
    let open: Vec<&LetterRow> = letters.iter().filter(|letter| letter.state == LetterState::Open).collect();
    let is_for = |reason: Reason| open.iter().any(|letter| letter.reason == reason.name());
    let is_unreadable = |letter: &&LetterRow| letter.verdict.as_deref() == Some("order_unreadable");
    let can_amend = order.order().is_some_and(|order| !order.is_granted);
    if letters.iter().any(|letter| letter.state == LetterState::Replaying) {
        NextStep::Wait
    } else if open.is_empty() {
        NextStep::None
    } else if helpful > 0 {
        NextStep::Replay
    } else if matches!(order, KnownOrder::Unreadable(_)) || open.iter().any(is_unreadable) {
        NextStep::MendRow
    } else if can_amend && is_for(Reason::AmountMismatch) {
        NextStep::AmendPrice
    } else if can_amend && is_for(Reason::CurrencyMismatch) {
        NextStep::AmendByHand
    } else if is_for(Reason::UnknownPayment) && order.order().is_none() {
        NextStep::MakeOrder
    } else if open.iter().any(|letter| can_be_asked(&letter.provider) && letter.payment_id.is_some()) {
        NextStep::CheckAtProvider
    } else {
        NextStep::ReadLetter
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AccountId, FactId, MessageId, OrderId, OrderStatus, PaymentId, Provider};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);

    fn money(amount_minor: i64, currency: &str) -> Money {
        Money::new(amount_minor, currency.parse().unwrap()).unwrap()
    }

    fn order() -> Order {
        Order {
            id: OrderId(uuid::Uuid::from_u128(7)),
            account_id: AccountId::new("acc").unwrap(),
            credits: 100,
            price: money(2499, "USD"),
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

    fn captured(payment: &str, capture: Option<&str>, paid: Money) -> PaymentEvent {
        PaymentEvent {
            provider: Provider::STRIPE,
            message_id: MessageId::new(format!("stripe::{payment}")).unwrap(),
            payment_id: PaymentId::new(payment).unwrap(),
            related_ids: vec![],
            order_id: None,
            provider_account: None,
            status: PaymentStatus::Captured {
                money: paid,
                capture_id: capture.map(|id| FactId::new(id).unwrap()),
                state: CaptureState::Succeeded,
                breakdown: None,
            },
            occurred_at: NOW,
            as_of: None,
            livemode: false,
        }
    }

    #[test]
    fn what_was_paid_counts_each_payment_once() {
        let order = order();
        for (events, amounts, difference) in [
            (vec![], vec![money(0, "USD")], Some(-2499)),
            // One payment, told three times: by its intent, its charge and its checkout session.
            (vec![captured("pi_1", None, money(1999, "USD")); 3], vec![money(1999, "USD")], Some(-500)),
            (
                vec![captured("pi_1", None, money(2499, "USD")), captured("pi_2", None, money(2499, "USD"))],
                vec![money(4998, "USD")],
                Some(2499),
            ),
            // Two captures of one payment.
            (
                vec![captured("pi_1", Some("a"), money(1000, "USD")), captured("pi_1", Some("b"), money(1499, "USD"))],
                vec![money(2499, "USD")],
                Some(0),
            ),
            (vec![captured("pi_1", None, money(2299, "EUR"))], vec![money(2299, "EUR")], None),
            (
                vec![captured("pi_1", None, money(2299, "EUR")), captured("pi_2", None, money(1, "USD"))],
                vec![money(2299, "EUR"), money(1, "USD")],
                None,
            ),
        ] {
            let paid = paid(Some(&order), &events.iter().collect::<Vec<_>>());
            assert_eq!((&paid.amounts, paid.difference_minor(&order)), (&amounts, difference), "{events:?}");
        }
        let alone = captured("pi_1", None, money(700, "EUR"));
        assert_eq!(paid(None, &[&alone]).amounts, [money(700, "EUR")]);
        let terms = Order { price_terms: PriceTerms::BeforeTax, ..order };
        assert_eq!(paid(Some(&terms), &[&captured("pi_1", None, money(2499, "USD"))]).difference_minor(&terms), None);
    }

    fn letter(reason: &str, state: LetterState, provider: &str, verdict: &str) -> LetterRow {
        LetterRow {
            id: LetterId(uuid::Uuid::nil()),
            message_id: String::new(),
            kind: String::new(),
            reason: reason.to_owned(),
            cause: String::new(),
            detail: String::new(),
            origin: "worker".to_owned(),
            attempts: 1,
            provider: provider.to_owned(),
            provider_account: String::new(),
            payment_id: Some("pi_1".to_owned()),
            payment_ids: vec![],
            order_id: None,
            order_ids: vec![],
            account_id: None,
            said: None,
            said_type: None,
            said_state: None,
            amount_minor: None,
            currency: None,
            state,
            state_at: NOW,
            state_by: None,
            state_reason: None,
            first_seen_at: NOW,
            last_seen_at: NOW,
            seen: 1,
            replays: 0,
            verdict: Some(verdict.to_owned()),
            verdict_detail: None,
        }
    }

    #[test]
    fn the_next_step_is_the_one_that_mends_the_order() {
        let known = || KnownOrder::Read(Box::new(order()));
        let granted = || KnownOrder::Read(Box::new(Order { is_granted: true, ..order() }));
        let open = |reason| letter(reason, LetterState::Open, "stripe", "would_be_refused");
        let unreadable = letter("delivery_limit", LetterState::Open, "stripe", "order_unreadable");
        let replaying = letter("amount_mismatch", LetterState::Replaying, "stripe", "would_grant");
        let archived = letter("amount_mismatch", LetterState::Archived, "stripe", "would_be_refused");
        let relay = letter("malformed", LetterState::Open, "acme", "would_be_refused");
        for (order, letters, helpful, step) in [
            (known(), vec![open("amount_mismatch")], 0, NextStep::AmendPrice),
            (known(), vec![open("amount_mismatch")], 1, NextStep::Replay),
            (known(), vec![open("malformed"), open("amount_mismatch")], 0, NextStep::AmendPrice),
            (granted(), vec![open("amount_mismatch")], 0, NextStep::CheckAtProvider),
            (known(), vec![open("currency_mismatch")], 0, NextStep::AmendByHand),
            (KnownOrder::None, vec![open("unknown_payment")], 0, NextStep::MakeOrder),
            (KnownOrder::Missing, vec![open("unknown_payment")], 0, NextStep::MakeOrder),
            (known(), vec![open("malformed")], 0, NextStep::CheckAtProvider),
            (KnownOrder::None, vec![relay], 0, NextStep::ReadLetter),
            (KnownOrder::Unreadable(String::new()), vec![open("amount_mismatch")], 0, NextStep::MendRow),
            (known(), vec![unreadable], 0, NextStep::MendRow),
            (known(), vec![open("amount_mismatch"), replaying], 1, NextStep::Wait),
            (known(), vec![archived], 0, NextStep::None),
            (known(), vec![], 0, NextStep::None),
        ] {
            assert_eq!(next_step(&order, &letters, helpful), step, "{order:?} {letters:?} {helpful}");
        }
    }
}

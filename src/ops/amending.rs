//! Amending many orders at once to what their dead letters say was paid: first what each would cost, then the new prices.
//!
//! A letter's amount is read from its message, as the worker reads it, and never from a sentence.

use super::prospects::Terms;
use crate::domain::{
    AmendmentRefusal, DisputePolicy, LetterId, Money, Order, OrderId, PaymentEvent, PriceUntold, Reason, Verdict,
    assess, price_paid, reprice,
};
use crate::message::{Envelope, Judgement};
use crate::store::{Actor, Amended, Amendment, LetterFilter, LetterToWeigh, Store, StoreError, WEIGHED_MAX, Weighed};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;
use time::OffsetDateTime;

/// Letters that are looked at in one go.
const CHUNK: u16 = 500;

/// Most letters of one look: the oldest come first, the others have their turn when those are done.
pub const LETTERS_MAX: usize = 2_000;

/// Why an order keeps its price.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stays {
    /// The letter holds no message that could be read.
    #[error("the letter cannot be read: {0}")]
    Unreadable(String),
    /// No order is known by what the message says.
    #[error("no order is known by this message")]
    OrderUnknown,
    /// The message would not be refused for its amount any more.
    #[error("its message is not refused for its amount now ({0})")]
    NotMismatched(Verdict),
    /// The message does not tell a price.
    #[error(transparent)]
    Untold(#[from] PriceUntold),
    /// The order's letters tell different prices.
    #[error("its letters tell different prices, {} and {}: find out which one is owed, and amend it by hand", one.written(), other.written())]
    LettersDiffer {
        /// One of the two prices.
        one: Money,
        /// The other one of the two prices.
        other: Money,
    },
    /// The order must keep its price.
    #[error(transparent)]
    Refused(#[from] AmendmentRefusal),
    /// At that price the message would be refused all the same.
    #[error("at {} its message would still not be applied ({then})", price.written())]
    NoHelp {
        /// The price that was tried.
        price: Money,
        /// What a replay would come to at that price.
        then: Verdict,
    },
}

impl Stays {
    /// The public name of the variant.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Unreadable(_) => "unreadable",
            Self::OrderUnknown => "order_unknown",
            Self::NotMismatched(_) => "not_mismatched",
            Self::Untold(untold) => untold.name(),
            Self::LettersDiffer { .. } => "letters_differ",
            Self::Refused(refusal) => refusal.name(),
            Self::NoHelp { .. } => "no_help",
        }
    }
}

/// A new price, and what follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What the order is to cost.
    pub price: Money,
    /// What a replay of the letter would come to then.
    pub then: Verdict,
}

/// One order, or a letter without one, and what its price becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The order and what it costs now, where the letter leads to one.
    pub order: Option<(OrderId, Money)>,
    /// Its letters, the oldest first.
    pub letters: Vec<LetterId>,
    /// What becomes of its price.
    pub outcome: Result<Change, Stays>,
}

/// What amending a selection would come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Proposals {
    /// By order, in the order of their oldest letters.
    pub all: Vec<Proposal>,
    /// Whether there are more letters than one look takes.
    pub is_cut: bool,
}

impl Proposals {
    /// How many orders would get another price.
    pub fn changes(&self) -> usize {
        self.all.iter().filter(|proposal| proposal.outcome.is_ok()).count()
    }

    /// Tells whether somebody still means what they have seen: which orders, from which price to which.
    pub fn digest(&self) -> String {
        let changes: Vec<_> = self
            .all
            .iter()
            .filter_map(|proposal| {
                let (order, before) = proposal.order?;
                let change = proposal.outcome.as_ref().ok()?;
                Some(json!([order, amount(before), amount(change.price)]))
            })
            .collect();
        hex::encode(Sha256::digest(json!(["grantonce amendments v1", changes]).to_string()))
    }
}

/// An amount as JSON has it.
pub fn amount(money: Money) -> Value {
    json!({ "amount_minor": money.amount_minor(), "currency": money.currency() })
}

/// An order's line in JSON, of a look or of what was done.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    order_id: Option<OrderId>,
    letters: Vec<LetterId>,
    before: Option<Value>,
    after: Option<Value>,
    /// `would_amend`, `stays`; `amended`, `unchanged`, `refused`.
    outcome: &'static str,
    /// Why it stays; none where it does not.
    reason: Option<&'static str>,
    /// In a sentence: what a replay would come to, or why the price stays.
    detail: String,
}

impl From<&Proposal> for Line {
    fn from(proposal: &Proposal) -> Self {
        let (order_id, before) = proposal.order.unzip();
        let (outcome, reason, detail) = match &proposal.outcome {
            Ok(change) => ("would_amend", None, format!("a replay {}", change.then)),
            Err(stays) => ("stays", Some(stays.name()), stays.to_string()),
        };
        Self {
            order_id,
            letters: proposal.letters.clone(),
            before: before.map(amount),
            after: proposal.outcome.as_ref().ok().map(|change| amount(change.price)),
            outcome,
            reason,
            detail,
        }
    }
}

/// What a look at one letter came to, before the letters of one order are put together.
struct Read {
    letter: LetterId,
    event: Result<PaymentEvent, Stays>,
}

fn read(letter: &LetterToWeigh, is_live: bool, now: OffsetDateTime) -> Read {
    let unreadable = |why: &str| Err(Stays::Unreadable(why.to_owned()));
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let event = match letter.body.as_deref() {
        None => unreadable("its body was emptied by `grantonce forget`"),
        Some(_) if !letter.is_whole => unreadable("its body is longer than what is kept of one"),
        Some(body) => {
            let (kind, message_id) = (text(&letter.kind), text(&letter.message_id));
            let envelope = Envelope {
                kind: kind.as_deref(),
                message_id: message_id.as_deref(),
                routing_key: &letter.routing_key,
                body,
            };
            match envelope.judge(is_live, now) {
                Judgement::Event(event) => Ok(*event),
                Judgement::TestEvent => unreadable("it is a test event, and this deployment is live"),
                Judgement::Refused(refusal) => unreadable(&refusal.to_string()),
            }
        }
    };
    Read { letter: letter.id, event }
}

/// What becomes of an order's price by one message about it.
fn change(order: &Order, event: &PaymentEvent, verdict: &Verdict, policy: DisputePolicy) -> Result<Change, Stays> {
    match verdict {
        Verdict::WouldBeRefused(refusal) if refusal.reason == Reason::AmountMismatch => {}
        Verdict::WouldBeRefused(_)
        | Verdict::WouldGrant { .. }
        | Verdict::WouldAdjust { .. }
        | Verdict::WouldChange { .. }
        | Verdict::WouldAsk { .. }
        | Verdict::OrderUnknown { .. }
        | Verdict::OrderUnreadable { .. }
        | Verdict::AlreadyApplied { .. }
        | Verdict::NothingToDo { .. } => return Err(Stays::NotMismatched(verdict.clone())),
    }
    let price = price_paid(order, event)?;
    // None: it costs that already, and then its message would not be refused for its amount.
    if reprice(order, price, policy)?.is_none() {
        return Err(Stays::NotMismatched(verdict.clone()));
    }
    let amended = Order { price, ..order.clone() };
    let then = match assess(&amended, event) {
        Ok(()) => Verdict::of_accepted(&amended, event, policy, true).map_err(AmendmentRefusal::from)?,
        Err(refusal) => Verdict::WouldBeRefused(refusal),
    };
    if then.kind().is_helpful() { Ok(Change { price, then }) } else { Err(Stays::NoHelp { price, then }) }
}

/// Puts together what the letters of one order say.
fn put_together(known: &mut Proposal, letter: LetterId, outcome: Result<Change, Stays>) {
    known.letters.push(letter);
    known.outcome = match (std::mem::replace(&mut known.outcome, Err(Stays::OrderUnknown)), outcome) {
        (Ok(one), Ok(other)) if one.price != other.price => {
            Err(Stays::LettersDiffer { one: one.price, other: other.price })
        }
        (Ok(one), Ok(_)) => Ok(one),
        // A capture that failed tells no price, and contradicts none.
        (Ok(change), Err(Stays::Untold(PriceUntold::NotCaptured)))
        | (Err(Stays::Untold(PriceUntold::NotCaptured)), Ok(change)) => Ok(change),
        // One that is in doubt keeps the order as it is.
        (Ok(_), Err(stays)) | (Err(stays), Ok(_)) => Err(stays),
        (Err(stays), Err(_)) => Err(stays),
    };
}

/// Looks at the open letters of reason `amount_mismatch` in a selection, and says for each of their orders what it would cost
/// if it cost what was paid. Changes nothing.
pub async fn look(
    store: &Store,
    terms: &Terms,
    filter: LetterFilter,
    now: OffsetDateTime,
) -> Result<Proposals, StoreError> {
    let filter = LetterFilter { reason: Some(Reason::AmountMismatch.name().to_owned()), ..filter };
    let mut proposals = Proposals::default();
    let mut places: BTreeMap<OrderId, usize> = BTreeMap::new();
    let (mut after, mut seen) = (None, 0);
    loop {
        let page = store.letters_to_replay(filter.clone(), after, CHUNK).await?;
        let Some((at, last)) = page.last() else { break };
        after = Some((*at, last.id));
        if seen + page.len() > LETTERS_MAX {
            proposals.is_cut = true;
            break;
        }
        seen += page.len();
        let read: Vec<Read> = page.iter().map(|(_, letter)| read(letter, terms.webhook.livemode, now)).collect();
        let weighed = weigh(store, &read, terms.dispute_policy).await?;
        for (read, weighed) in read.into_iter().zip(weighed) {
            let (order, outcome) = match (read.event, weighed) {
                (Ok(event), Some(Weighed { order: Some(order), verdict })) => {
                    let outcome = change(&order, &event, &verdict, terms.dispute_policy);
                    (Some((order.id, order.price)), outcome)
                }
                (Ok(_), _) => (None, Err(Stays::OrderUnknown)),
                (Err(stays), _) => (None, Err(stays)),
            };
            match order.and_then(|(id, _)| places.get(&id)).and_then(|place| proposals.all.get_mut(*place)) {
                Some(known) => put_together(known, read.letter, outcome),
                None => {
                    if let Some((id, _)) = order {
                        places.insert(id, proposals.all.len());
                    }
                    proposals.all.push(Proposal { order, letters: vec![read.letter], outcome });
                }
            }
        }
    }
    Ok(proposals)
}

/// What each message that could be read would come to; none where it could not.
async fn weigh(store: &Store, read: &[Read], policy: DisputePolicy) -> Result<Vec<Option<Weighed>>, StoreError> {
    let mut weighed = vec![];
    for chunk in read.chunks(WEIGHED_MAX) {
        let events: Arc<[PaymentEvent]> = chunk.iter().filter_map(|read| read.event.as_ref().ok().cloned()).collect();
        let mut answers = store.weigh(events, policy).await?.into_iter();
        weighed.extend(chunk.iter().map(|read| read.event.as_ref().ok().and_then(|_| answers.next())));
    }
    Ok(weighed)
}

/// What came of amending one order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// The order that is amended.
    pub order_id: OrderId,
    /// Its letters, the oldest first.
    pub letters: Vec<LetterId>,
    /// The price that was asked for.
    pub price: Money,
    /// What came of it.
    pub amended: Amended,
}

impl Done {
    /// Whether the order costs now what was asked for.
    pub fn is_done(&self) -> bool {
        match self.amended {
            Amended::Written { .. } | Amended::Unchanged => true,
            Amended::OrderUnknown | Amended::Refused(_) => false,
        }
    }

    /// The result in a sentence.
    pub fn in_words(&self) -> String {
        match &self.amended {
            Amended::Written { before, .. } => {
                format!("costs {} now, before {}", self.price.written(), before.written())
            }
            Amended::Unchanged => format!("costs {} already; nothing was changed", self.price.written()),
            Amended::OrderUnknown => "nothing was changed: there is no such order".to_owned(),
            Amended::Refused(refusal) => format!("nothing was changed: {refusal}"),
        }
    }
}

impl From<&Done> for Line {
    fn from(done: &Done) -> Self {
        let (outcome, reason) = match &done.amended {
            Amended::Written { .. } => ("amended", None),
            Amended::Unchanged => ("unchanged", None),
            Amended::OrderUnknown => ("refused", Some("order_unknown")),
            Amended::Refused(refusal) => ("refused", Some(refusal.name())),
        };
        let before = match &done.amended {
            Amended::Written { before, .. } => Some(amount(*before)),
            Amended::Unchanged | Amended::OrderUnknown | Amended::Refused(_) => None,
        };
        Self {
            order_id: Some(done.order_id),
            letters: done.letters.clone(),
            before,
            after: done.is_done().then(|| amount(done.price)),
            outcome,
            reason,
            detail: done.in_words(),
        }
    }
}

/// Who amends, and why.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The operator who amends.
    pub by: Actor,
    /// Why, for the audit log.
    pub reason: String,
    /// Whether open disputes take credits.
    pub dispute_policy: DisputePolicy,
    /// The time that is written to rows.
    pub now: OffsetDateTime,
}

/// Amends every order of which a look has told the price, one after the other: each in a transaction with its own line in
/// the audit log. After an error those that came before it are amended; the same again goes on with the others.
pub async fn amend(store: &Store, proposals: &Proposals, wish: &Wish) -> Result<Vec<Done>, StoreError> {
    let mut done = vec![];
    for proposal in &proposals.all {
        let (Some((order_id, _)), Ok(Change { price, .. })) = (proposal.order, &proposal.outcome) else { continue };
        let amendment = Amendment {
            order_id,
            price: *price,
            dispute_policy: wish.dispute_policy,
            by: wish.by.clone(),
            reason: wish.reason.clone(),
            now: wish.now,
        };
        let amended = store.amend_order(amendment).await?;
        done.push(Done { order_id, letters: proposal.letters.clone(), price: *price, amended });
    }
    Ok(done)
}

//! What a dead letter would come to if it went back to work: what it holds is read as receiver and worker read it, and weighed
//! against the orders as they stand.

use crate::domain::{
    DisputePolicy, LetterId, MessageId, OrderId, Outlook, PaymentEvent, Reason, Refusal, Verdict, VerdictKind,
};
use crate::message::{self, Envelope, HINT_TYPE, Judgement, WEBHOOK_TYPE_PREFIX, decode_hint, routing_key};
use crate::store::{LetterFilter, LetterToWeigh, REPLAY_LETTERS_MAX, Store, StoreError, WEIGHED_MAX, Weight};
use crate::webhook::{self, Endpoint, Translation, Verified};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use time::OffsetDateTime;

/// Letters that are looked at in one go.
const CHUNK: u16 = 500;

/// Examples in a preview.
const EXAMPLES_MAX: usize = 20;

/// What letters are judged by: the settings of those who will take their messages.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The terms by which the receiver translates webhooks.
    pub webhook: webhook::Terms,
    /// The terms by which the worker settles disputes.
    pub dispute_policy: DisputePolicy,
}

/// What a replay of a selection would come to, looked at now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preview {
    /// Every open letter of the selection, the oldest first.
    pub all: Vec<LetterId>,
    /// Those that a replay would help.
    pub helpful: Vec<LetterId>,
    /// How many there are of each verdict; [`VerdictKind::NAMES`] has the names.
    pub by_verdict: BTreeMap<&'static str, usize>,
    /// Credits that would be granted, and given back, less those that would be taken back. An order is granted once, whatever
    /// number of its letters would bring the grant.
    pub credits: i64,
    granted: BTreeSet<OrderId>,
    /// Some of each, with their sentences.
    pub examples: Vec<(LetterId, Outlook)>,
    /// Whether there are more than one replay takes.
    pub is_cut: bool,
}

/// Something that a letter holds.
enum Part {
    /// An event that is compared with its order.
    Event(Box<PaymentEvent>),
    /// What it comes to is known without the database.
    Known(Verdict),
}

fn refused(reason: Reason, detail: impl Into<String>) -> Part {
    Part::Known(Verdict::WouldBeRefused(Refusal::new(reason, detail)))
}

const TEST_EVENT: Verdict = Verdict::NothingToDo { why: "a test event, and this deployment is live" };

/// What a message would be to a worker.
fn of_message(envelope: Envelope<'_>, is_live: bool, now: OffsetDateTime) -> Part {
    match envelope.judge(is_live, now) {
        Judgement::Event(event) => Part::Event(event),
        Judgement::TestEvent => Part::Known(TEST_EVENT),
        Judgement::Refused(refusal) => Part::Known(Verdict::WouldBeRefused(refusal)),
    }
}

/// What a kept webhook says by what this program understands today. `None`: it is none. Only the receiver publishes one under
/// the key of its endpoint, after it has looked at the signature; a relay can only have used its own key.
pub(super) fn translate(
    kind: &str,
    message_id: &str,
    key: &str,
    body: &[u8],
    terms: webhook::Terms,
    now: OffsetDateTime,
) -> Option<Vec<Translation>> {
    let endpoint = Endpoint::from_path(kind.strip_prefix(WEBHOOK_TYPE_PREFIX)?)?;
    if key != routing_key(endpoint.provider()) {
        return None;
    }
    let message_id = MessageId::new(message_id).ok()?;
    Some(Verified::kept(endpoint, &message_id, body, now, terms).translate())
}

fn of_translation(translation: Translation, terms: &Terms, now: OffsetDateTime) -> Vec<Part> {
    let is_live = terms.webhook.livemode;
    match translation {
        Translation::Events(events) => events
            .iter()
            .map(|event| {
                let body = match message::encode(event) {
                    Ok(body) => body,
                    Err(error) => return refused(Reason::Malformed, error.to_string()),
                };
                let envelope = Envelope {
                    kind: Some(message::TYPE),
                    message_id: Some(event.message_id.as_str()),
                    routing_key: &routing_key(&event.provider),
                    body: &body,
                };
                of_message(envelope, is_live, now)
            })
            .collect(),
        Translation::Hint(hint) if is_live && !hint.livemode => vec![Part::Known(TEST_EVENT)],
        Translation::Hint(hint) => vec![Part::Known(Verdict::WouldAsk { payment_id: hint.payment_id })],
        Translation::Ignored { .. } => {
            vec![Part::Known(Verdict::NothingToDo { why: "it says nothing of a payment that could be paid" })]
        }
        Translation::Untranslatable { detail, .. } => vec![refused(Reason::Untranslatable, detail)],
    }
}

fn parts(letter: &LetterToWeigh, terms: &Terms, now: OffsetDateTime) -> Vec<Part> {
    let Some(body) = letter.body.as_deref() else {
        return vec![refused(Reason::Malformed, "its body was emptied by `grantonce forget`")];
    };
    if !letter.is_whole {
        return vec![refused(Reason::Malformed, "its body is longer than what is kept of one")];
    }
    if letter.kind == HINT_TYPE {
        return match decode_hint(body) {
            Ok(hint) => vec![Part::Known(Verdict::WouldAsk { payment_id: hint.payment_id })],
            Err(error) => vec![refused(Reason::Malformed, error.to_string())],
        };
    }
    if let Some(translations) =
        translate(&letter.kind, &letter.message_id, &letter.routing_key, body, terms.webhook, now)
    {
        return translations.into_iter().flat_map(|translation| of_translation(translation, terms, now)).collect();
    }
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (kind, message_id) = (text(&letter.kind), text(&letter.message_id));
    let envelope =
        Envelope { kind: kind.as_deref(), message_id: message_id.as_deref(), routing_key: &letter.routing_key, body };
    vec![of_message(envelope, terms.webhook.livemode, now)]
}

/// The payment events that a letter holds, as a worker would take them.
pub(super) fn events(letter: &LetterToWeigh, terms: &Terms, now: OffsetDateTime) -> Vec<PaymentEvent> {
    let events = parts(letter, terms, now).into_iter().filter_map(|part| match part {
        Part::Event(event) => Some(*event),
        Part::Known(_) => None,
    });
    events.collect()
}

/// Weighs letters against the orders as they stand.
pub(super) async fn weigh(
    store: &Store,
    terms: &Terms,
    letters: &[LetterToWeigh],
    now: OffsetDateTime,
) -> Result<Vec<Weight>, StoreError> {
    let read: Vec<Vec<Part>> = letters.iter().map(|letter| parts(letter, terms, now)).collect();
    let events = read.iter().flatten().filter_map(|part| match part {
        Part::Event(event) => Some((**event).clone()),
        Part::Known(_) => None,
    });
    let events: Vec<PaymentEvent> = events.collect();
    let mut weighed = Vec::with_capacity(events.len());
    for chunk in events.chunks(WEIGHED_MAX) {
        weighed.extend(store.weigh(Arc::from(chunk), terms.dispute_policy).await?);
    }
    let mut weighed = weighed.into_iter();
    let weights = letters.iter().zip(read).map(|(letter, parts)| {
        let mut about: Option<(OrderId, String)> = None;
        let verdicts = parts.into_iter().filter_map(|part| match part {
            Part::Known(verdict) => Some(verdict),
            Part::Event(_) => {
                let weighed = weighed.next()?;
                about = weighed.order.map(|order| (order.id, order.account_id.into_string())).or(about.take());
                Some(weighed.verdict)
            }
        });
        let outlook = Outlook::new(verdicts.collect());
        Weight { id: letter.id, outlook, order: about }
    });
    Ok(weights.collect())
}

/// Looks at every open letter of a selection, writes down what each would come to, and sums it up. Those that have nothing left
/// to do are resolved by it.
pub async fn preview(
    store: &Store,
    terms: &Terms,
    filter: LetterFilter,
    now: OffsetDateTime,
) -> Result<Preview, StoreError> {
    let mut preview = Preview::default();
    let mut after = None;
    loop {
        let page = store.letters_to_replay(filter.clone(), after, CHUNK).await?;
        let Some((at, last)) = page.last() else { break };
        after = Some((*at, last.id));
        if preview.all.len() + page.len() > REPLAY_LETTERS_MAX {
            preview.is_cut = true;
            break;
        }
        let letters: Vec<LetterToWeigh> = page.into_iter().map(|(_, letter)| letter).collect();
        let weights = weigh(store, terms, &letters, now).await?;
        for weight in &weights {
            preview.add(weight);
        }
        store.note_weights(weights, now).await?;
    }
    Ok(preview)
}

impl Preview {
    fn add(&mut self, weight: &Weight) {
        let seen = self.by_verdict.entry(weight.outlook.name()).or_default();
        *seen += 1;
        if *seen <= EXAMPLES_MAX / VerdictKind::NAMES.len() + 1 && self.examples.len() < EXAMPLES_MAX {
            self.examples.push((weight.id, weight.outlook.clone()));
        }
        // What is resolved by this look is not open any more.
        if weight.outlook.is_done() {
            return;
        }
        self.all.push(weight.id);
        if weight.outlook.is_helpful() {
            self.helpful.push(weight.id);
        }
        for part in weight.outlook.parts() {
            let credits = match part {
                Verdict::WouldGrant { order_id, credits, .. } if self.granted.insert(*order_id) => *credits,
                Verdict::WouldAdjust { credits, .. } => *credits,
                Verdict::WouldGrant { .. }
                | Verdict::WouldChange { .. }
                | Verdict::WouldAsk { .. }
                | Verdict::OrderUnknown { .. }
                | Verdict::OrderUnreadable { .. }
                | Verdict::WouldBeRefused(_)
                | Verdict::AlreadyApplied { .. }
                | Verdict::NothingToDo { .. } => 0,
            };
            self.credits = self.credits.saturating_add(credits);
        }
    }
}

//! Temporary: to be replaced by main's.
use crate::domain::{DisputePolicy, LetterId, Outlook, Reason, Refusal, Verdict};
use crate::message::{Envelope, Judgement};
use crate::store::{LetterFilter, Store, StoreError, Weight};
use crate::webhook;
use std::collections::BTreeMap;
use time::OffsetDateTime;

/// What replays and verdicts are judged by.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    pub webhook: webhook::Terms,
    pub dispute_policy: DisputePolicy,
}
pub struct Preview {
    pub letters: usize,
    pub helpful: Vec<LetterId>,
    pub by_verdict: Vec<(&'static str, usize)>,
    pub credits: i64,
    pub examples: Vec<(LetterId, Outlook)>,
    pub is_cut: bool,
    pub all: Vec<LetterId>,
}
pub async fn preview(
    store: &Store,
    terms: &Terms,
    filter: LetterFilter,
    now: OffsetDateTime,
) -> Result<Preview, StoreError> {
    let letters = store.letters_to_replay(filter, None, 1000).await?;
    let mut weights = vec![];
    let mut p = Preview {
        letters: letters.len(),
        helpful: vec![],
        by_verdict: vec![],
        credits: 0,
        examples: vec![],
        is_cut: false,
        all: vec![],
    };
    let mut by: BTreeMap<&'static str, usize> = BTreeMap::new();
    for (_, l) in letters {
        let body = l.body.unwrap_or_default();
        let (verdict, order) = match (Envelope {
            kind: Some(&l.kind),
            message_id: Some(&l.message_id),
            routing_key: &l.routing_key,
            body: &body,
        })
        .judge(terms.webhook.livemode, now)
        {
            Judgement::Event(event) => match store.weigh(vec![event].into(), terms.dispute_policy).await?.pop() {
                Some(w) => (w.verdict, w.order.map(|o| (o.id, o.account_id.to_string()))),
                None => (Verdict::NothingToDo { why: "?" }, None),
            },
            Judgement::TestEvent => (Verdict::NothingToDo { why: "a test event" }, None),
            Judgement::Refused(r) => (Verdict::WouldBeRefused(Refusal::new(Reason::Malformed, r.detail)), None),
        };
        let outlook = Outlook::new(vec![verdict]);
        for part in outlook.parts() {
            if let Verdict::WouldGrant { credits, .. } | Verdict::WouldAdjust { credits, .. } = part {
                p.credits += credits;
            }
        }
        *by.entry(outlook.name()).or_default() += 1;
        p.all.push(l.id);
        if outlook.is_helpful() {
            p.helpful.push(l.id);
        }
        if p.examples.len() < 20 {
            p.examples.push((l.id, outlook.clone()));
        }
        weights.push(Weight { id: l.id, outlook, order });
    }
    store.note_weights(weights, now).await?;
    p.by_verdict = by.into_iter().collect();
    Ok(p)
}

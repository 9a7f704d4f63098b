//! Moves dead letters from the broker, where they can only wait, to Postgres, where people can look at them. Commit, then
//! acknowledge; a copy of a letter finds the row of the first.

use super::letter_content::read_content;
use crate::address::AmqpAddress;
use crate::broker::{
    BatchResult, DEAD_EXCHANGE, DEAD_QUEUE, DELIVERY_LIMIT, Delivery, Durable, HINTS_QUEUE, Intake, WORK_QUEUE, Window,
};
use crate::clock::Clock;
use crate::domain::{LetterContent, LetterId, Reason, Refusal, cause_of, tidy};
use crate::followed::Followed;
use crate::http::NeedFlag;
use crate::message::{
    ATTEMPT_HEADER, BODY_BYTES_MAX, DETAIL_HEADER, DROPPED_HEADERS_HEADER, DecodeError, HEADER_PREFIX, ORIGIN_HEADER,
    REASON_HEADER, REPLAY_HEADER, ROUTING_KEY_HEADER, WEBHOOK_TYPE_PREFIX, provider_of, routing_key,
};
use crate::store::{Class, Committed, NewLetter, Store, StoreError};
use crate::telemetry::{Metrics, ReplayOutcome};
use crate::webhook::{self, Endpoint};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Letters in one transaction.
const BATCH_MAX: usize = 100;

/// Deliveries handed out ahead.
const WINDOW: Window = Window { deliveries_max: 200, bytes_max: 32 * 1024 * 1024 };

/// As many letters in a row, at the beginning of a batch, are taken for locked one by one.
const POSTPONED_AT_FIRST: usize = 3;

/// What is kept of a detail, in bytes.
const DETAIL_BYTES_MAX: usize = 1_000;

/// Everything that collecting dead letters needs.
pub(super) struct Collector {
    pub(super) amqp_url: Followed<AmqpAddress>,
    pub(super) store: Store,
    /// By which a kept webhook is read.
    pub(super) terms: webhook::Terms,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) consumer: NeedFlag,
}

/// Proof that every letter of a batch is kept, except the postponed ones.
struct Kept {
    _committed: Vec<Committed>,
}

impl Durable for Kept {}

impl Collector {
    /// Collects until `stop`, for as long as the database is there.
    pub(super) async fn run(self, is_database_up: watch::Receiver<bool>, stop: CancellationToken) {
        let intake = Intake {
            url: self.amqp_url.clone(),
            name: "ops dead letters",
            queue: DEAD_QUEUE,
            batch_max: BATCH_MAX,
            window: WINDOW,
        };
        let told = |held| self.consumer.set(held);
        intake.run(|deliveries| self.keep(deliveries), is_database_up, told, |_| {}, &stop).await;
    }

    async fn keep(&self, deliveries: Vec<Delivery>) -> Result<BatchResult<Kept>, StoreError> {
        let now = self.clock.now();
        let letters: Vec<NewLetter> =
            deliveries.iter().map(|delivery| read(delivery.clone(), self.terms, now)).collect();
        let count = letters.len();
        let taken = match self.store.keep_letters(letters.clone(), now).await {
            Ok((committed, came_back)) => {
                self.metrics.replays(ReplayOutcome::DeadAgain, came_back);
                BatchResult { proof: Kept { _committed: vec![committed] }, postponed: vec![] }
            }
            // Something in one of them that Postgres does not take, or a row of one of them that another session has
            // locked: each by itself, so that the others are kept.
            Err(error) if matches!(error.class(), Class::Data | Class::Contended) => {
                self.keep_singly(deliveries.into_iter().zip(letters).collect(), now).await?
            }
            Err(error) => return Err(error),
        };
        self.metrics.letters_collected(u64::try_from(count - taken.postponed.len()).unwrap_or(u64::MAX));
        Ok(taken)
    }

    async fn keep_singly(
        &self,
        letters: Vec<(Delivery, NewLetter)>,
        now: OffsetDateTime,
    ) -> Result<BatchResult<Kept>, StoreError> {
        let (mut kept, mut postponed) = (vec![], vec![]);
        for (delivery, letter) in letters {
            let bare = bare(&letter);
            let result = match self.store.keep_letters(vec![letter], now).await {
                Err(error) if error.class() == Class::Data => {
                    tracing::error!(event = "letter_kept_bare", letter = %bare.id, cause = %error,
                        "Postgres cannot store all of this dead letter: body, id and reason are kept");
                    self.store.keep_letters(vec![bare], now).await
                }
                // Not where it looks as if nothing can be kept: then it is the table that is locked.
                Err(error)
                    if error.class() == Class::Contended
                        && (!kept.is_empty() || postponed.len() < POSTPONED_AT_FIRST) =>
                {
                    tracing::warn!(event = "letter_left", letter = %bare.id, cause = %error,
                        "another session has locked this dead letter's row: it is retried later, without the others");
                    postponed.push(delivery);
                    continue;
                }
                result => result,
            };
            let (committed, came_back) = result?;
            self.metrics.replays(ReplayOutcome::DeadAgain, came_back);
            kept.push(committed);
        }
        Ok(BatchResult { proof: Kept { _committed: kept }, postponed })
    }
}

/// What of a letter Postgres takes in any case.
fn bare(letter: &NewLetter) -> NewLetter {
    NewLetter {
        headers: serde_json::Value::Object(serde_json::Map::new()),
        content: LetterContent::default(),
        ..letter.clone()
    }
}

/// Who gave a message up, and why.
struct Cause {
    origin: &'static str,
    reason: Reason,
    detail: String,
    attempts: u32,
}

/// Why a consumer of ours has left it to the broker to move the message here as it is.
fn too_much_for_us(delivery: &Delivery) -> Option<Refusal> {
    let too_long = || DecodeError::TooLong { bytes: delivery.body.len() };
    let is_too_long = delivery.body.len() > BODY_BYTES_MAX;
    delivery.refusal().or_else(|| is_too_long.then(|| Refusal::new(Reason::Malformed, too_long().to_string())))
}

fn cause(delivery: &Delivery) -> Cause {
    let attempts = delivery.headers.integer(ATTEMPT_HEADER).and_then(|n| u32::try_from(n).ok());
    // What the broker says comes first: our own headers may be a relay's then.
    if let Some(death) = &delivery.death {
        let is_ours = [WORK_QUEUE, HINTS_QUEUE].contains(&death.queue.as_str());
        let refused = (is_ours && death.reason == "rejected").then(|| too_much_for_us(delivery)).flatten();
        return if let Some(refusal) = refused {
            let origin = if death.queue == HINTS_QUEUE { "reconciler" } else { "worker" };
            Cause { origin, reason: refusal.reason, detail: refusal.detail, attempts: attempts.unwrap_or(0) }
        } else if is_ours && death.reason == "delivery_limit" {
            Cause {
                origin: "broker",
                reason: Reason::DeliveryLimit,
                detail: format!(
                    "it came back to {} more than {DELIVERY_LIMIT} times: whoever took it died, or gave it back",
                    death.queue
                ),
                attempts: u32::try_from(DELIVERY_LIMIT).unwrap_or(u32::MAX),
            }
        } else {
            Cause {
                origin: "broker",
                reason: Reason::Unexplained,
                detail: format!("the broker moved it here from {:?} ({:?})", death.queue, death.reason),
                attempts: attempts.unwrap_or(0),
            }
        };
    }
    let origin = delivery.headers.text(ORIGIN_HEADER);
    let origin = ["receiver", "worker", "reconciler"].into_iter().find(|role| origin == Some(role));
    let reason = delivery.headers.text(REASON_HEADER);
    match origin.zip(reason.and_then(Reason::from_name)) {
        Some((origin, reason)) => {
            let detail = delivery.headers.text(DETAIL_HEADER).unwrap_or_default().to_owned();
            Cause { origin, reason, detail, attempts: attempts.unwrap_or(0) }
        }
        None => Cause {
            origin: "publisher",
            reason: Reason::Unexplained,
            detail: match reason {
                Some(reason) => format!("somebody published it to the dead letters, for the reason {reason:?}"),
                None => "somebody published it to the dead letters, without a reason".to_owned(),
            },
            attempts: 0,
        },
    }
}

/// Whether somebody moved it here, by the management pages or a shovel: what comes by itself comes through our exchange.
fn is_moved(delivery: &Delivery) -> bool {
    delivery.exchange != DEAD_EXCHANGE
}

/// The key under which it was published first. Of a letter that was moved by hand nobody knows it, and its headers may be a
/// relay's: it has the key that its content claims, and a replay vouches for it.
fn first_routing_key(delivery: &Delivery) -> Cow<'_, str> {
    let kept = delivery.headers.text(ROUTING_KEY_HEADER).unwrap_or(&delivery.routing_key);
    if is_moved(delivery) {
        let kind = delivery.kind.as_deref().and_then(|kind| kind.strip_prefix(WEBHOOK_TYPE_PREFIX));
        let of_webhook = kind.and_then(Endpoint::from_path).map(|endpoint| endpoint.provider().clone());
        let claimed = of_webhook.or_else(|| provider_of(&delivery.body));
        return claimed.map_or_else(|| delivery.routing_key.as_str().into(), |claimed| routing_key(&claimed).into());
    }
    match &delivery.death {
        // Out of one of our own retry queues: only then is our own header believed. The key is the broker's own word: what
        // it wrote of a death may be a relay's in part, before 4.0.
        Some(death) if death.was_put_off && delivery.routing_key == WORK_QUEUE => kept.into(),
        Some(_) => delivery.routing_key.as_str().into(),
        None => kept.into(),
    }
}

/// A digest of what a letter holds and where it was published: every copy has the same, and nobody who may not publish under
/// its key can make another of the same. Of a body that was cut it takes the part that is there, and the length of the whole.
fn identity(message_id: &str, kind: &str, routing_key: &str, body: &[u8], body_bytes: u64) -> LetterId {
    let mut digest = Sha256::new();
    let length = |part: &[u8]| u64::try_from(part.len()).unwrap_or(u64::MAX);
    let texts = [message_id, kind, routing_key].map(str::as_bytes).map(|text| (text, length(text)));
    for (part, length) in texts.into_iter().chain([(body, body_bytes)]) {
        digest.update(length.to_be_bytes());
        digest.update(part);
    }
    let digest: [u8; 32] = digest.finalize().into();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
    LetterId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// Reads a dead letter. Whatever it is, it becomes a row.
fn read(delivery: Delivery, terms: webhook::Terms, now: OffsetDateTime) -> NewLetter {
    let Cause { origin, reason, mut detail, attempts } = cause(&delivery);
    if is_moved(&delivery) {
        detail =
            format!("moved here by hand, so its headers prove nothing and a replay vouches for it; they say: {detail}");
    }
    let faults = delivery.unreadable.as_ref().map_or("", |unreadable| unreadable.faults.as_str());
    if !detail.contains(faults) {
        detail = format!("{detail}; it cannot be read: {faults}");
    }
    let routing_key = first_routing_key(&delivery).into_owned();
    let replay = delivery.headers.integer(REPLAY_HEADER).and_then(|n| u32::try_from(n).ok()).unwrap_or(0);
    let copied = delivery.headers.to_copy();
    let detail = match copied.text(DROPPED_HEADERS_HEADER) {
        Some(dropped) if !detail.contains(dropped) => format!("{detail}; dropped headers: {dropped}"),
        Some(_) | None => detail,
    };
    let headers = copied.without_prefix(HEADER_PREFIX).to_json();
    let Delivery { message_id, kind, body, unreadable, .. } = delivery;
    let (message_id, kind) = (message_id.unwrap_or_default(), kind.unwrap_or_default());
    let body_bytes = unreadable.map_or(body.len(), |it| usize::try_from(it.body_bytes).unwrap_or(usize::MAX));
    let id = identity(&message_id, &kind, &routing_key, &body, u64::try_from(body_bytes).unwrap_or(u64::MAX));
    let content = read_content(&kind, &message_id, &routing_key, &body, terms, now);
    let detail = tidy(&detail, DETAIL_BYTES_MAX);
    NewLetter {
        id,
        message_id,
        kind,
        routing_key,
        headers,
        body: body.to_vec(),
        body_bytes,
        reason,
        cause: cause_of(&detail),
        detail,
        origin,
        attempts,
        replay,
        content,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Death, Headers, LETTER_BODY_BYTES_MAX, Unreadable};
    use crate::domain::{PaymentId, Provider};
    use time::macros::datetime;

    const NOW: OffsetDateTime = datetime!(2026-01-05 12:00 UTC);
    const TERMS: webhook::Terms = webhook::Terms { livemode: false, is_adyen_captured_by_hand: false };
    const BODY: &str = r#"{"provider":"stripe","message_id":"stripe::evt_1","payment_id":"pi_1",
        "status":{"type":"captured","amount_minor":1999,"currency":"USD"},
        "occurred_at":"2026-01-05T11:00:00Z","livemode":false}"#;

    fn delivery() -> Delivery {
        Delivery {
            tag: 1,
            exchange: "payments.dead".to_owned(),
            routing_key: "payment.stripe".to_owned(),
            message_id: Some("stripe::evt_1".to_owned()),
            kind: Some("payment-status.v1".to_owned()),
            headers: Headers::default(),
            death: None,
            published_at: None,
            body: BODY.as_bytes().into(),
            unreadable: None,
        }
    }

    fn with_headers(texts: &[(&str, &str)], numbers: &[(&str, i64)]) -> Delivery {
        let mut delivery = delivery();
        texts.iter().for_each(|(name, text)| delivery.headers.set_text(name, text));
        numbers.iter().for_each(|(name, number)| delivery.headers.set_integer(name, *number));
        delivery
    }

    #[test]
    fn a_roles_letter_says_why() {
        let texts = [
            (ORIGIN_HEADER, "worker"),
            (REASON_HEADER, "amount_mismatch"),
            (DETAIL_HEADER, "order 1 costs 5 USD"),
            (ROUTING_KEY_HEADER, "payment.acme"),
            ("traceparent", "00-1-2-01"),
        ];
        let letter = read(with_headers(&texts, &[(ATTEMPT_HEADER, 3), (REPLAY_HEADER, 2)]), TERMS, NOW);
        assert_eq!((letter.origin, letter.reason), ("worker", Reason::AmountMismatch));
        assert_eq!((letter.attempts, letter.replay), (3, 2));
        assert_eq!(letter.routing_key, "payment.acme");
        assert_eq!(letter.cause, "order … costs … USD");
        assert_eq!(letter.headers, serde_json::json!({ "traceparent": "00-1-2-01" }));
        assert_eq!(letter.content.payment_ids.iter().map(PaymentId::as_str).collect::<Vec<_>>(), ["pi_1"]);
        assert_eq!(letter.content.words.as_deref(), Some("captured 19.99 USD"));
    }

    #[test]
    fn what_the_broker_gave_up_is_told_by_the_broker_whatever_its_sender_wrote() {
        let mut given_up = with_headers(
            &[(ORIGIN_HEADER, "worker"), (REASON_HEADER, "malformed"), (ROUTING_KEY_HEADER, "payment.x")],
            &[],
        );
        let death = |reason: &str, exchange: &str| {
            let (reason, exchange) = (reason.to_owned(), exchange.to_owned());
            let (queue, routing_key) = (WORK_QUEUE.to_owned(), String::new());
            Some(Death { reason, queue, was_put_off: exchange.is_empty(), exchange, routing_key })
        };
        given_up.death = death("delivery_limit", "payments");
        let letter = read(given_up, TERMS, NOW);
        assert_eq!((letter.origin, letter.reason), ("broker", Reason::DeliveryLimit));
        assert_eq!(letter.routing_key, "payment.stripe", "its sender's own header is not believed");

        let mut retried = with_headers(&[(ROUTING_KEY_HEADER, "payment.stripe")], &[]);
        retried.routing_key = "fulfilment".to_owned();
        retried.death = death("delivery_limit", "");
        assert_eq!(read(retried, TERMS, NOW).routing_key, "payment.stripe", "out of our own retry queue it is");

        let mut rejected = delivery();
        rejected.death = death("rejected", "payments");
        assert_eq!(read(rejected, TERMS, NOW).reason, Reason::Unexplained);
    }

    #[test]
    fn what_a_stranger_put_there_is_kept_as_it_is() {
        for (texts, detail) in [
            (vec![], "without a reason"),
            (vec![(REASON_HEADER, "bored"), (ORIGIN_HEADER, "worker")], "\"bored\""),
            (vec![(REASON_HEADER, "malformed"), (ORIGIN_HEADER, "me")], "\"malformed\""),
        ] {
            let letter = read(with_headers(&texts, &[]), TERMS, NOW);
            assert_eq!((letter.origin, letter.reason), ("publisher", Reason::Unexplained), "{texts:?}");
            assert!(letter.detail.contains(detail), "{}", letter.detail);
        }
        let mut odd = delivery();
        (odd.message_id, odd.kind, odd.body) = (None, None, vec![0, 159, 146, 150].into());
        let letter = read(odd, TERMS, NOW);
        assert_eq!((letter.message_id.as_str(), letter.kind.as_str()), ("", ""));
        assert_eq!(letter.content.provider.as_ref().map(Provider::as_str), Some("stripe"), "by its key");
        assert!(letter.content.payment_ids.is_empty() && letter.content.words.is_none());
    }

    #[test]
    fn copies_are_one_letter_and_others_are_not() {
        let id = |change: &dyn Fn(&mut Delivery)| {
            let mut delivery = delivery();
            change(&mut delivery);
            read(delivery, TERMS, NOW).id
        };
        let first = id(&|_| {});
        assert_eq!(id(&|d| d.headers.set_integer(REPLAY_HEADER, 4)), first);
        assert_eq!(id(&|d| d.headers.set_text(REASON_HEADER, "malformed")), first);
        assert_ne!(id(&|d| d.message_id = Some("stripe::evt_2".to_owned())), first);
        assert_ne!(id(&|d| d.body = format!("{BODY} ").into()), first);
        assert_ne!(id(&|d| d.routing_key = "payment.acme".to_owned()), first, "one relay's is not another's");
    }

    #[test]
    fn a_body_is_cut_and_its_length_remembered() {
        let mut long = delivery();
        long.body = vec![b'x'; LETTER_BODY_BYTES_MAX].into();
        let whole = LETTER_BODY_BYTES_MAX + 1;
        long.unreadable = Some(Unreadable { faults: String::new(), body_bytes: u64::try_from(whole).unwrap() });
        let letter = read(long, TERMS, NOW);
        assert_eq!((letter.body.len(), letter.body_bytes), (LETTER_BODY_BYTES_MAX, whole));
    }

    #[test]
    fn what_a_consumer_refused_says_why_and_what_it_was() {
        let refused = |queue: &str, faults: &str, body: Vec<u8>| {
            let mut refused = delivery();
            let (queue, exchange) = (queue.to_owned(), "payments".to_owned());
            let routing_key = "payment.stripe".to_owned();
            refused.death =
                Some(Death { reason: "rejected".to_owned(), queue, exchange, routing_key, was_put_off: false });
            refused.unreadable = (!faults.is_empty())
                .then(|| Unreadable { faults: faults.to_owned(), body_bytes: u64::try_from(body.len()).unwrap() });
            refused.body = body.into();
            let letter = read(refused, TERMS, NOW);
            (letter.origin, letter.reason, letter.detail)
        };
        let faults = r#"app_id is not UTF-8: "\xff""#;
        assert_eq!(refused(WORK_QUEUE, faults, vec![]), ("worker", Reason::Malformed, faults.to_owned()));
        assert_eq!(refused(HINTS_QUEUE, faults, vec![]), ("reconciler", Reason::Malformed, faults.to_owned()));
        let (origin, reason, detail) = refused(WORK_QUEUE, "", vec![b'x'; BODY_BYTES_MAX + 1]);
        assert_eq!((origin, reason), ("worker", Reason::Malformed));
        assert_eq!(detail, "the body is 262145 bytes long; at most 262144 are allowed");
        let (origin, reason, detail) = refused("somebody's", faults, vec![]);
        assert_eq!((origin, reason), ("broker", Reason::Unexplained));
        assert!(detail.ends_with(faults), "{detail}");
    }
}

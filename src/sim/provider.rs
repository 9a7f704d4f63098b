//! The simulated payment provider. Buyers pay here, and from then on it reports what happened by webhooks: several
//! times, out of order, by two different events, and again until somebody answers 2xx. See [`http`] for its HTTP API.

pub(super) mod http;
mod stripe;

use super::courier::{Counts, Courier, Webhook};
use super::lock;
use super::payment::{Event, Outcome, Payment, Said, Seller};
use super::plan::{Report, mix, reports};
use crate::domain::{Money, OrderId};
use fastrand::Rng;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How many payments are kept.
const PAYMENTS_MAX: usize = 1_000_000;

/// How many events one payment may have: a buyer who tries one card after the other comes to an end.
const EVENTS_MAX: usize = 200;

/// How many times one replay may send a webhook.
const REPLAYS_MAX: u32 = 1000;

/// Why the provider would not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProviderError {
    #[error("there is no payment {0}")]
    Unknown(String),
    #[error("payment {0} is paid already")]
    PaidAlready(String),
    #[error("payment {0} has no webhook to replay yet: let the buyer pay first")]
    NothingToReplay(String),
    #[error("times must be 1 to {REPLAYS_MAX}")]
    BadTimes,
    #[error("the simulated provider is full: no more than {PAYMENTS_MAX} payments, {EVENTS_MAX} events each")]
    Full,
}

/// A payment as the provider's API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct PaymentView {
    /// First of all: shell users look for the first `"id"`.
    pub(super) id: String,
    pub(super) provider: Seller,
    pub(super) status: &'static str,
    pub(super) amount_minor: i64,
    pub(super) currency: String,
    pub(super) metadata: Metadata,
    pub(super) webhooks: WebhookCounts,
    #[serde(skip)]
    pub(super) created_at: OffsetDateTime,
}

/// What the site attached to a payment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(super) struct Metadata {
    pub(super) order_id: Option<OrderId>,
}

/// What was delivered of one payment's webhooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct WebhookCounts {
    pub(super) sent: u64,
    pub(super) accepted: u64,
    /// When the first webhook that says "paid" went out.
    #[serde(skip)]
    pub(super) paid_sent_at: Option<Instant>,
}

/// How a replay ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Replayed {
    pub(super) sent: u32,
    pub(super) accepted: u32,
}

/// What decides how the provider behaves.
#[derive(Debug)]
pub(super) struct Settings {
    /// Decides what is left to chance.
    pub(super) seed: u64,
    /// How often each webhook is sent.
    pub(super) copies: u32,
    /// Part of every id: what an earlier run left behind anywhere is never taken for this run's.
    pub(super) run: String,
}

/// The provider. Clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Provider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    courier: Courier,
    book: Mutex<Book>,
    /// Webhooks that are planned or on their way.
    under_way: watch::Sender<usize>,
    shutdown: CancellationToken,
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<String, Entry>,
    /// In the order of their creation.
    ids: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    payment: Payment,
    seed: u64,
    status: &'static str,
    order_id: Option<OrderId>,
    attempts: u64,
    events: Vec<Event>,
    webhooks: Arc<watch::Sender<WebhookCounts>>,
}

impl Entry {
    fn view(&self) -> PaymentView {
        PaymentView {
            id: self.payment.id.clone(),
            provider: self.payment.seller,
            status: self.status,
            amount_minor: self.payment.money.amount_minor(),
            currency: self.payment.money.currency().to_string(),
            metadata: Metadata { order_id: self.order_id },
            webhooks: *self.webhooks.borrow(),
            created_at: self.payment.created_at,
        }
    }

    fn add_event(&mut self, said: Said) -> Result<Event, ProviderError> {
        if self.events.len() >= EVENTS_MAX {
            return Err(ProviderError::Full);
        }
        let number = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        let event = self.payment.event(number, said, self.order_id, OffsetDateTime::now_utc());
        self.events.push(event.clone());
        Ok(event)
    }

    fn webhook(&self, event: &Event, is_duplicate: bool) -> Webhook {
        Webhook { seller: self.payment.seller, id: event.id.clone(), body: self.payment.body(event), is_duplicate }
    }
}

impl Book {
    fn entry(&mut self, id: &str) -> Result<&mut Entry, ProviderError> {
        self.entries.get_mut(id).ok_or_else(|| ProviderError::Unknown(id.to_owned()))
    }
}

impl Provider {
    /// A provider whose webhooks `courier` delivers until `shutdown`.
    pub(super) fn new(settings: Settings, courier: Courier, shutdown: CancellationToken) -> Self {
        let under_way = watch::Sender::new(0);
        Self(Arc::new(Inner { settings, courier, book: Mutex::default(), under_way, shutdown }))
    }

    /// Makes a payment that waits for its buyer. `seed` decides what will be reported of it and when.
    pub(super) fn create(
        &self,
        seller: Seller,
        money: Money,
        order_id: Option<OrderId>,
        seed: Option<u64>,
    ) -> Result<PaymentView, ProviderError> {
        let mut book = lock(&self.0.book);
        let number = book.ids.len();
        if number >= PAYMENTS_MAX {
            return Err(ProviderError::Full);
        }
        let tag = format!("{}{number:07}", self.0.settings.run);
        let entry = Entry {
            payment: Payment::new(seller, tag, money, OffsetDateTime::now_utc()),
            seed: seed.unwrap_or_else(|| mix(self.0.settings.seed, u64::try_from(number).unwrap_or_default())),
            status: "awaiting_payment",
            order_id,
            attempts: 0,
            events: Vec::new(),
            webhooks: Arc::default(),
        };
        let view = entry.view();
        book.ids.push(view.id.clone());
        book.entries.insert(view.id.clone(), entry);
        Ok(view)
    }

    /// Attaches the site's order to a payment. Events from now on carry it.
    pub(super) fn attach(&self, id: &str, metadata: Metadata) -> Result<PaymentView, ProviderError> {
        let mut book = lock(&self.0.book);
        let entry = book.entry(id)?;
        entry.order_id = metadata.order_id;
        Ok(entry.view())
    }

    /// A payment as it stands.
    pub(super) fn payment(&self, id: &str) -> Result<PaymentView, ProviderError> {
        Ok(lock(&self.0.book).entry(id)?.view())
    }

    /// The last payments, newest first.
    pub(super) fn newest(&self, count: usize) -> Vec<PaymentView> {
        let book = lock(&self.0.book);
        book.ids.iter().rev().take(count).filter_map(|id| book.entries.get(id)).map(Entry::view).collect()
    }

    /// The buyer acts: from now on webhooks are sent. A payment that failed or was given up may be tried again.
    pub(super) fn pay(&self, id: &str, outcome: Outcome) -> Result<PaymentView, ProviderError> {
        let mut book = lock(&self.0.book);
        let entry = book.entry(id)?;
        if entry.status == "succeeded" {
            return Err(ProviderError::PaidAlready(id.to_owned()));
        }
        let mut rng = Rng::with_seed(mix(entry.seed, entry.attempts));
        for Report { said, copies } in reports(&mut rng, entry.payment.seller, outcome, self.0.settings.copies) {
            let event = entry.add_event(said)?;
            for (n, delay) in copies.into_iter().enumerate() {
                self.send_later(entry, &event, n > 0, delay, Rng::with_seed(rng.u64(..)));
            }
        }
        entry.attempts += 1;
        entry.status = match outcome {
            Outcome::Succeeded => "succeeded",
            Outcome::Failed => "failed",
            Outcome::Canceled => "canceled",
        };
        Ok(entry.view())
    }

    fn send_later(&self, entry: &Entry, event: &Event, is_duplicate: bool, delay: Duration, rng: Rng) {
        let webhook = entry.webhook(event, is_duplicate);
        let (is_paid, counts) = (event.said.is_paid(), Arc::clone(&entry.webhooks));
        let inner = Arc::clone(&self.0);
        let under_way = UnderWay::new(&self.0);
        tokio::spawn(async move {
            let delivery = async {
                sleep(delay).await;
                inner.deliver(&webhook, rng, is_paid, &counts).await;
            };
            inner.shutdown.run_until_cancelled(delivery).await;
            drop(under_way);
        });
    }

    /// Sends the payment's weightiest webhook again, `times` times: all at once, or one after the other.
    pub(super) async fn replay(&self, id: &str, times: u32, is_parallel: bool) -> Result<Replayed, ProviderError> {
        if !(1..=REPLAYS_MAX).contains(&times) {
            return Err(ProviderError::BadTimes);
        }
        let (webhook, counts) = {
            let mut book = lock(&self.0.book);
            let entry = book.entry(id)?;
            let paid = entry.events.iter().find(|event| event.said.is_paid());
            let event = paid.or(entry.events.last()).ok_or_else(|| ProviderError::NothingToReplay(id.to_owned()))?;
            (entry.webhook(event, true), Arc::clone(&entry.webhooks))
        };
        let inner = &self.0;
        let _under_way = UnderWay::new(inner);
        let deliveries = (0..times).map(|n| {
            let rng = Rng::with_seed(mix(inner.settings.seed, u64::from(n)));
            let (webhook, counts) = (&webhook, &counts);
            async move { inner.deliver(webhook, rng, false, counts).await }
        });
        let accepted = if is_parallel {
            futures_util::future::join_all(deliveries).await
        } else {
            let mut accepted = Vec::new();
            for delivery in deliveries {
                accepted.push(delivery.await);
            }
            accepted
        };
        let accepted = accepted.into_iter().filter(|is_accepted| *is_accepted).count();
        Ok(Replayed { sent: times, accepted: u32::try_from(accepted).unwrap_or(u32::MAX) })
    }

    /// Reports one harmless thing more of a payment, waits until that is accepted, and gives the event's id.
    pub(super) async fn report_once_more(&self, id: &str) -> Result<Option<String>, ProviderError> {
        let (webhook, counts, event_id) = {
            let mut book = lock(&self.0.book);
            let entry = book.entry(id)?;
            let event = entry.add_event(Said::Processing)?;
            (entry.webhook(&event, false), Arc::clone(&entry.webhooks), event.id)
        };
        let is_accepted = self.0.deliver(&webhook, Rng::with_seed(self.0.settings.seed), false, &counts).await;
        Ok(is_accepted.then_some(event_id))
    }

    /// Waits until a webhook of the payment was accepted; false when it takes longer than `deadline`.
    pub(super) async fn is_heard(&self, id: &str, deadline: Duration) -> Result<bool, ProviderError> {
        let mut counts = lock(&self.0.book).entry(id)?.webhooks.subscribe();
        let heard = timeout(deadline, counts.wait_for(|counts| counts.accepted > 0)).await;
        Ok(matches!(heard, Ok(Ok(_))))
    }

    /// Waits until no webhook is planned or on its way any more; false when it takes longer than `deadline`.
    pub(super) async fn is_idle(&self, deadline: Duration) -> bool {
        let mut under_way = self.0.under_way.subscribe();
        matches!(timeout(deadline, under_way.wait_for(|count| *count == 0)).await, Ok(Ok(_)))
    }

    /// What was delivered so far, of all payments.
    pub(super) fn counts(&self) -> Counts {
        self.0.courier.counts()
    }

    /// How many payments there are, and how many are paid.
    pub(super) fn payments(&self) -> (usize, usize) {
        let book = lock(&self.0.book);
        (book.ids.len(), book.entries.values().filter(|entry| entry.status == "succeeded").count())
    }

    /// What the receiver said last when it did not accept a webhook.
    pub(super) fn last_trouble(&self) -> Option<String> {
        self.0.courier.last_trouble()
    }
}

impl Inner {
    async fn deliver(&self, webhook: &Webhook, rng: Rng, is_paid: bool, counts: &watch::Sender<WebhookCounts>) -> bool {
        let on_sent = || {
            counts.send_modify(|counts| {
                counts.sent += 1;
                if is_paid {
                    counts.paid_sent_at.get_or_insert_with(Instant::now);
                }
            });
        };
        let is_accepted = self.courier.deliver(webhook, rng, on_sent).await;
        if is_accepted {
            counts.send_modify(|counts| counts.accepted += 1);
        }
        is_accepted
    }
}

/// Counts one webhook as under way for as long as it lives.
struct UnderWay(Arc<Inner>);

impl UnderWay {
    fn new(inner: &Arc<Inner>) -> Self {
        inner.under_way.send_modify(|count| *count += 1);
        Self(Arc::clone(inner))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests;

//! The webhooks of a payment: when they are sent, and their results.

use super::{EVENTS_MAX, Entry, Inner, Provider, ProviderError, REPLAYS_MAX};
use crate::lock;
use crate::provider::courier::Webhook;
use crate::provider::payment::{Event, Said, Seller};
use crate::provider::plan::{self, mix};
use fastrand::Rng;
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// The counts of one payment's webhooks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WebhookCounts {
    /// Webhooks that were sent.
    pub sent: u64,
    /// Webhooks that were answered with 2xx.
    pub accepted: u64,
    /// The time when the first webhook that reports the payment as paid was sent.
    #[serde(skip)]
    pub paid_sent_at: Option<Instant>,
}

/// The result of a replay.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Copies that were sent.
    pub sent: u32,
    /// Copies that were answered with 2xx.
    pub accepted: u32,
}

/// One event, and the counts of its webhook's copies.
#[derive(Debug, Clone)]
pub(super) struct Report {
    event: Event,
    /// The webhook is never sent.
    is_dropped: bool,
    copies: Arc<Copies>,
}

#[derive(Debug, Default)]
struct Copies {
    sent: AtomicU32,
    accepted: AtomicU32,
}

/// One reported event, for display.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The id of the event.
    pub id: String,
    /// The provider's name of the event's type.
    pub kind: &'static str,
    /// The content of the event.
    pub said: Said,
    /// The time of the event.
    pub at: OffsetDateTime,
    /// The webhook of the event is never sent.
    pub is_dropped: bool,
    /// Copies that were sent.
    pub sent: u32,
    /// Copies that were answered with 2xx.
    pub accepted: u32,
}

/// One copy of a webhook, and the counters of its result.
struct Letter {
    webhook: Webhook,
    /// This is the payment's first report as paid, so the time of sending is noted.
    is_timed: bool,
    copies: Arc<Copies>,
    counts: Arc<watch::Sender<WebhookCounts>>,
}

impl Entry {
    fn letter(&self, report: &Report, is_duplicate: bool) -> Letter {
        let payment = &self.known.payment;
        let (id, body) = (report.event.id.clone(), payment.body(&report.event));
        Letter {
            webhook: Webhook { seller: payment.seller, id, body, is_duplicate },
            is_timed: report.event.said.is_paid(),
            copies: Arc::clone(&report.copies),
            counts: Arc::clone(&self.webhooks),
        }
    }

    fn tell(&mut self, said: Said, is_dropped: bool) -> Result<Report, ProviderError> {
        if self.told.len() >= EVENTS_MAX {
            return Err(ProviderError::Full);
        }
        let known = &self.known;
        let event = known.payment.event(self.told.len(), said, known.order_id, OffsetDateTime::now_utc());
        let report = Report { event, is_dropped, copies: Arc::default() };
        self.told.push(report.clone());
        Ok(report)
    }
}

impl Provider {
    /// Sends the webhooks of an action.
    pub(super) fn report(&self, entry: &mut Entry, reports: Vec<plan::Report>, rng: &mut Rng) {
        let is_lost = std::mem::take(&mut entry.drops_next) || entry.is_silent;
        for plan::Report { said, copies } in reports {
            let is_dropped = is_lost || entry.known.payment.seller == Seller::Paypal;
            // The caller has checked the room before the action.
            let Ok(report) = entry.tell(said, is_dropped) else { return };
            if is_lost {
                self.0.courier.drop_webhooks(copies.len());
            }
            if is_dropped {
                continue;
            }
            for (n, delay) in copies.into_iter().enumerate() {
                self.send_later(entry.letter(&report, n > 0), delay, Rng::with_seed(rng.u64(..)));
            }
        }
    }

    fn send_later(&self, letter: Letter, delay: Duration, rng: Rng) {
        let inner = Arc::clone(&self.0);
        let under_way = UnderWay::new(&self.0);
        tokio::spawn(async move {
            let delivery = async {
                sleep(delay).await;
                inner.deliver(&letter, rng).await;
            };
            inner.shutdown.run_until_cancelled(delivery).await;
            drop(under_way);
        });
    }

    /// Sends the payment's most important webhook again `times` times: all at once, or one after the other.
    pub async fn replay(&self, id: &str, times: u32, is_parallel: bool) -> Result<Replayed, ProviderError> {
        if !(1..=REPLAYS_MAX).contains(&times) {
            return Err(ProviderError::BadTimes);
        }
        let letter = {
            let mut book = lock(&self.0.book);
            let entry = book.entry(id)?;
            let mut sent = entry.told.iter().filter(|report| !report.is_dropped);
            let paid = sent.clone().find(|report| report.event.said.is_paid());
            let report =
                paid.or_else(|| sent.next_back()).ok_or_else(|| ProviderError::NothingToReplay(id.to_owned()))?;
            Letter { is_timed: false, ..entry.letter(report, true) }
        };
        let inner = &self.0;
        let _under_way = UnderWay::new(inner);
        let deliveries = (0..times).map(|n| {
            let rng = Rng::with_seed(mix(inner.settings.seed, u64::from(n)));
            let letter = &letter;
            async move { inner.deliver(letter, rng).await }
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

    /// Sends one more harmless report of a payment, and waits until it is accepted. Returns the id of the event.
    pub async fn report_once_more(&self, id: &str) -> Result<Option<String>, ProviderError> {
        let (letter, event_id) = {
            let mut book = lock(&self.0.book);
            let entry = book.entry(id)?;
            let report = entry.tell(Said::Processing, false)?;
            (entry.letter(&report, false), report.event.id)
        };
        let is_accepted = self.0.deliver(&letter, Rng::with_seed(self.0.settings.seed)).await;
        Ok(is_accepted.then_some(event_id))
    }

    /// The reported events of a payment, oldest first.
    pub fn told(&self, id: &str) -> Result<Vec<Told>, ProviderError> {
        let mut book = lock(&self.0.book);
        let entry = book.entry(id)?;
        let told = |report: &Report| Told {
            id: report.event.id.clone(),
            kind: entry.known.payment.kind(report.event.said),
            said: report.event.said,
            at: report.event.at,
            is_dropped: report.is_dropped,
            sent: report.copies.sent.load(Ordering::Relaxed),
            accepted: report.copies.accepted.load(Ordering::Relaxed),
        };
        Ok(entry.told.iter().map(told).collect())
    }
}

impl Inner {
    async fn deliver(&self, letter: &Letter, rng: Rng) -> bool {
        let Letter { webhook, is_timed, copies, counts } = letter;
        let on_sent = || {
            copies.sent.fetch_add(1, Ordering::Relaxed);
            counts.send_modify(|counts| {
                counts.sent += 1;
                if *is_timed {
                    counts.paid_sent_at.get_or_insert_with(Instant::now);
                }
            });
        };
        let is_accepted = self.courier.deliver(webhook, rng, on_sent).await;
        if is_accepted {
            copies.accepted.fetch_add(1, Ordering::Relaxed);
            counts.send_modify(|counts| counts.accepted += 1);
        }
        is_accepted
    }
}

/// Counts one webhook as being sent, until it is dropped.
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

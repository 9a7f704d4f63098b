//! The simulated payment provider. Buyers pay here, and the provider reports every event by webhooks: several times, out of order,
//! by two different events, and again until the receiver answers 2xx. It sends nothing if it was told to be silent. A client that
//! asks gets the real state of the payment, regardless of the reports.
//!
//! | file | content |
//! |---|---|
//! | `actions` | the actions of buyers, sellers and banks on a payment |
//! | `deliveries` | the webhooks that are sent, and their results |
//! | `http` | the HTTP interface that controls the provider |
//! | `stripe`, `paypal` | the APIs that clients call |
//! | `faults` | the faults of a call to these APIs |

mod actions;
pub mod courier;
mod deliveries;
mod faults;
pub mod http;
pub mod payment;
mod paypal;
pub mod plan;
pub mod standin;
mod stripe;

pub use deliveries::{Replayed, Told, WebhookCounts};

use crate::OrderId;
use crate::lock;
use crate::money::Money;
use courier::{Counts, Courier};
use deliveries::Report;
use payment::{Payment, Seller, State, Status};
use plan::mix;
use serde::Serialize;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// The most payments that are stored.
const PAYMENTS_MAX: usize = 1_000_000;

/// The most events of one payment. A buyer who tries one card after the other is stopped here.
const EVENTS_MAX: usize = 200;

/// The most webhooks of one replay.
const REPLAYS_MAX: u32 = 1000;

/// Why the provider refused an action.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No payment has this id.
    #[error("there is no payment {0}")]
    Unknown(String),
    /// The payment is already paid.
    #[error("payment {0} is paid already")]
    PaidAlready(String),
    /// The payment was abandoned.
    #[error("payment {0} was given up")]
    Over(String),
    /// All of the money has already been returned.
    #[error("of payment {0} there is no money left that could go back")]
    NothingLeft(String),
    /// The amount is zero, or more than the rest.
    #[error("the amount must be 1 to what is left of payment {0}")]
    BadAmount(String),
    /// The payment has no refund that can fail.
    #[error("payment {0} has no refund that could fail")]
    NoRefund(String),
    /// The payment has no open dispute.
    #[error("payment {0} has no open dispute")]
    NoDispute(String),
    /// The buyer has not agreed to the payment.
    #[error("the buyer has not agreed to payment {0}")]
    NotApproved(String),
    /// No webhook of the payment was sent yet.
    #[error("payment {0} has no webhook to replay yet: let the buyer pay first")]
    NothingToReplay(String),
    /// The number of replays is out of range.
    #[error("times must be 1 to {REPLAYS_MAX}")]
    BadTimes,
    /// The provider accepts no more payments or events.
    #[error("the simulated provider is full: no more than {PAYMENTS_MAX} payments, {EVENTS_MAX} events each")]
    Full,
}

/// A payment as the provider's control shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PaymentView {
    /// The id is the first field, because shell users look for the first `"id"`.
    pub id: String,
    /// The provider of the payment.
    pub provider: Seller,
    /// The status of the payment.
    pub status: &'static str,
    /// The price in minor units.
    pub amount_minor: i64,
    /// The currency of the price.
    pub currency: String,
    /// The metadata that the site attached.
    pub metadata: Metadata,
    /// The counts of the payment's webhooks.
    pub webhooks: WebhookCounts,
    /// The paid amount without refunds and disputes.
    pub kept_minor: i64,
}

/// Everything that the provider knows about a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// The part that does not change.
    pub payment: Payment,
    /// The part that changes.
    pub state: State,
    /// The order that the payment belongs to.
    pub order_id: Option<OrderId>,
    /// PayPal: the address that the buyer is sent to after agreeing or not. With one, the order is for a wallet.
    pub return_url: Option<String>,
}

/// The metadata that the site attached to a payment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Metadata {
    /// The order that the payment belongs to.
    pub order_id: Option<OrderId>,
}

/// The settings of the provider.
#[derive(Debug)]
pub struct Settings {
    /// The seed of all random choices.
    pub seed: u64,
    /// How often each webhook is sent.
    pub copies: u32,
    /// Part of every id, so ids of an earlier run never match this run.
    pub run: String,
    /// Calls that create a payment fail at random.
    pub is_faulty: bool,
}

/// The provider. All clones share one state.
#[derive(Debug, Clone)]
pub struct Provider(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    courier: Courier,
    book: Mutex<Book>,
    /// The number of webhooks that are planned or being sent.
    under_way: watch::Sender<usize>,
    shutdown: CancellationToken,
}

#[derive(Debug, Default)]
struct Book {
    entries: HashMap<String, Entry>,
    /// The ids in the order of their creation.
    ids: Vec<String>,
}

#[derive(Debug)]
struct Entry {
    known: Known,
    seed: u64,
    /// The number of actions so far. It is part of the random seed.
    actions: u64,
    told: Vec<Report>,
    /// No webhook of the payment is ever sent.
    is_silent: bool,
    /// The webhooks of the next action are never sent.
    drops_next: bool,
    webhooks: Arc<watch::Sender<WebhookCounts>>,
}

impl Entry {
    fn view(&self) -> PaymentView {
        let Known { payment, state, order_id, .. } = &self.known;
        PaymentView {
            id: payment.id.clone(),
            provider: payment.seller,
            status: state.status.name(),
            amount_minor: payment.money.amount_minor(),
            currency: payment.money.currency().to_string(),
            metadata: Metadata { order_id: *order_id },
            webhooks: *self.webhooks.borrow(),
            kept_minor: payment.kept_minor(state),
        }
    }
}

impl Book {
    fn entry(&mut self, id: &str) -> Result<&mut Entry, ProviderError> {
        self.entries.get_mut(id).ok_or_else(|| ProviderError::Unknown(id.to_owned()))
    }
}

impl Provider {
    /// A provider whose webhooks `courier` delivers until `shutdown`.
    pub fn new(settings: Settings, courier: Courier, shutdown: CancellationToken) -> Self {
        let under_way = watch::Sender::new(0);
        Self(Arc::new(Inner { settings, courier, book: Mutex::default(), under_way, shutdown }))
    }

    /// Creates a payment that waits for its buyer. `seed` decides the reports and their times.
    pub fn create(
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
        let (tag, now) = (format!("{}{number:07}", self.0.settings.run), OffsetDateTime::now_utc());
        let payment = Payment::new(seller, tag, money, now);
        let entry = Entry {
            known: Known { payment, state: State::new(now), order_id, return_url: None },
            seed: seed.unwrap_or_else(|| mix(self.0.settings.seed, u64::try_from(number).unwrap_or_default())),
            actions: 0,
            told: Vec::new(),
            is_silent: false,
            drops_next: false,
            webhooks: Arc::default(),
        };
        let view = entry.view();
        book.ids.push(view.id.clone());
        book.entries.insert(view.id.clone(), entry);
        Ok(view)
    }

    /// The seed of the random faults. `None` if the provider has no faults.
    fn chance(&self) -> Option<u64> {
        self.0.settings.is_faulty.then_some(self.0.settings.seed)
    }

    /// Changes the settings of a payment: its metadata, and whether webhooks are sent.
    fn change(&self, id: &str, change: impl FnOnce(&mut Entry)) -> Result<PaymentView, ProviderError> {
        let mut book = lock(&self.0.book);
        let entry = book.entry(id)?;
        change(entry);
        Ok(entry.view())
    }

    /// Attaches the site's order to a payment. Later events carry it.
    pub fn attach(&self, id: &str, metadata: Metadata) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.known.order_id = metadata.order_id)
    }

    /// Sets the address that the buyer is sent to.
    fn send_back_to(&self, id: &str, return_url: Option<String>) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.known.return_url = return_url)
    }

    /// Changes the seed of an existing payment. From now on it decides the reports and their times.
    pub fn reseed(&self, id: &str, seed: u64) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.seed = seed)
    }

    /// From now on, no webhook of the payment is ever sent.
    pub fn silence(&self, id: &str) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.is_silent = true)
    }

    /// The webhooks of the next action on the payment are never sent.
    pub fn drop_next(&self, id: &str) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.drops_next = true)
    }

    /// A payment as the control shows it.
    pub fn payment(&self, id: &str) -> Result<PaymentView, ProviderError> {
        Ok(lock(&self.0.book).entry(id)?.view())
    }

    /// The current state of a payment.
    pub fn known(&self, id: &str) -> Result<Known, ProviderError> {
        Ok(lock(&self.0.book).entry(id)?.known.clone())
    }

    /// The last payments, newest first.
    pub fn newest(&self, count: usize) -> Vec<PaymentView> {
        let book = lock(&self.0.book);
        book.ids.iter().rev().take(count).filter_map(|id| book.entries.get(id)).map(Entry::view).collect()
    }

    /// The payments of one seller, newest first. Stops at the first payment that `is_wanted` rejects.
    fn list(&self, seller: Seller, is_wanted: impl Fn(&Known) -> bool) -> Vec<Known> {
        let book = lock(&self.0.book);
        let all = book.ids.iter().rev().filter_map(|id| book.entries.get(id)).map(|entry| &entry.known);
        all.filter(|known| known.payment.seller == seller).take_while(|known| is_wanted(known)).cloned().collect()
    }

    /// Waits until a webhook of the payment was accepted. Returns false if it takes longer than `deadline`.
    pub async fn is_heard(&self, id: &str, deadline: Duration) -> Result<bool, ProviderError> {
        let mut counts = lock(&self.0.book).entry(id)?.webhooks.subscribe();
        let heard = timeout(deadline, counts.wait_for(|counts| counts.accepted > 0)).await;
        Ok(matches!(heard, Ok(Ok(_))))
    }

    /// Waits until no webhook is planned or being sent. Returns false if it takes longer than `deadline`.
    pub async fn is_idle(&self, deadline: Duration) -> bool {
        let mut under_way = self.0.under_way.subscribe();
        matches!(timeout(deadline, under_way.wait_for(|count| *count == 0)).await, Ok(Ok(_)))
    }

    /// The counts of all webhooks so far.
    pub fn counts(&self) -> Counts {
        self.0.courier.counts()
    }

    /// The number of payments, and the number of paid ones.
    pub fn payments(&self) -> (usize, usize) {
        let book = lock(&self.0.book);
        let is_paid = |entry: &&Entry| entry.known.state.status == Status::Succeeded;
        (book.ids.len(), book.entries.values().filter(is_paid).count())
    }

    /// The receiver's last answer that did not accept a webhook.
    pub fn last_trouble(&self) -> Option<String> {
        self.0.courier.last_trouble()
    }
}

#[cfg(test)]
mod tests;

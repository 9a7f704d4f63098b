//! The simulated payment provider. Buyers pay here, and from then on it reports what happened by webhooks: several
//! times, out of order, by two different events, and again until somebody answers 2xx; or never, where it was told to be
//! silent. Whoever asks is told how the payment stands, whatever was reported.
//!
//! | file | what |
//! |---|---|
//! | `actions` | what buyers, sellers and banks do to a payment |
//! | `deliveries` | which webhooks go out, and what became of them |
//! | `http` | how it is told what to do |
//! | `stripe`, `paypal` | the APIs that are asked |
//! | `faults` | what goes wrong with a call to them |

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

/// How many payments are kept.
const PAYMENTS_MAX: usize = 1_000_000;

/// How many events one payment may have: a buyer who tries one card after the other comes to an end.
const EVENTS_MAX: usize = 200;

/// How many times one replay may send a webhook.
const REPLAYS_MAX: u32 = 1000;

/// Why the provider would not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No payment has this id.
    #[error("there is no payment {0}")]
    Unknown(String),
    /// The payment is paid already.
    #[error("payment {0} is paid already")]
    PaidAlready(String),
    /// The payment was given up.
    #[error("payment {0} was given up")]
    Over(String),
    /// All of the money went back already.
    #[error("of payment {0} there is no money left that could go back")]
    NothingLeft(String),
    /// The amount is zero, or more than what is left.
    #[error("the amount must be 1 to what is left of payment {0}")]
    BadAmount(String),
    /// The payment has no refund that could fail.
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
    /// The provider takes no more.
    #[error("the simulated provider is full: no more than {PAYMENTS_MAX} payments, {EVENTS_MAX} events each")]
    Full,
}

/// A payment as the provider's control shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PaymentView {
    /// First of all: shell users look for the first `"id"`.
    pub id: String,
    /// The provider of the payment.
    pub provider: Seller,
    /// How the payment stands.
    pub status: &'static str,
    /// The price in minor units.
    pub amount_minor: i64,
    /// The currency of the price.
    pub currency: String,
    /// What the site attached.
    pub metadata: Metadata,
    /// What was delivered of its webhooks.
    pub webhooks: WebhookCounts,
    /// What the seller has of it: paid, and neither given back nor disputed.
    pub kept_minor: i64,
}

/// All that the provider knows of a payment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What does not change.
    pub payment: Payment,
    /// What happened to it.
    pub state: State,
    /// The order that the payment belongs to.
    pub order_id: Option<OrderId>,
    /// PayPal: where the buyer goes once he has agreed, or not. With one the order is for a wallet.
    pub return_url: Option<String>,
}

/// What the site attached to a payment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Metadata {
    /// The order that the payment belongs to.
    pub order_id: Option<OrderId>,
}

/// What decides how the provider behaves.
#[derive(Debug)]
pub struct Settings {
    /// Decides what is left to chance.
    pub seed: u64,
    /// How often each webhook is sent.
    pub copies: u32,
    /// Part of every id: what an earlier run left behind anywhere is never taken for this run's.
    pub run: String,
    /// Calls that create a payment go wrong by chance.
    pub is_faulty: bool,
}

/// The provider. Clones are the same one.
#[derive(Debug, Clone)]
pub struct Provider(Arc<Inner>);

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
    known: Known,
    seed: u64,
    /// How often something was done to it, for chance.
    actions: u64,
    told: Vec<Report>,
    /// No webhook of it is ever sent.
    is_silent: bool,
    /// The webhooks of the next thing that is done to it are never sent.
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

    /// Makes a payment that waits for its buyer. `seed` decides what will be reported of it and when.
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

    /// The seed of what goes wrong by chance, where something does.
    fn chance(&self) -> Option<u64> {
        self.0.settings.is_faulty.then_some(self.0.settings.seed)
    }

    /// Changes a payment as such: what is attached to it, and whether it is told of.
    fn change(&self, id: &str, change: impl FnOnce(&mut Entry)) -> Result<PaymentView, ProviderError> {
        let mut book = lock(&self.0.book);
        let entry = book.entry(id)?;
        change(entry);
        Ok(entry.view())
    }

    /// Attaches the site's order to a payment. Events from now on carry it.
    pub fn attach(&self, id: &str, metadata: Metadata) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.known.order_id = metadata.order_id)
    }

    /// Where the buyer goes from here.
    fn send_back_to(&self, id: &str, return_url: Option<String>) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.known.return_url = return_url)
    }

    /// Of a payment that somebody else had made: from now on `seed` decides what will be reported of it and when.
    pub fn reseed(&self, id: &str, seed: u64) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.seed = seed)
    }

    /// From now on no webhook of the payment is sent, ever.
    pub fn silence(&self, id: &str) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.is_silent = true)
    }

    /// The webhooks of the next thing that is done to the payment are never sent.
    pub fn drop_next(&self, id: &str) -> Result<PaymentView, ProviderError> {
        self.change(id, |entry| entry.drops_next = true)
    }

    /// A payment as the control shows it.
    pub fn payment(&self, id: &str) -> Result<PaymentView, ProviderError> {
        Ok(lock(&self.0.book).entry(id)?.view())
    }

    /// A payment as it stands.
    pub fn known(&self, id: &str) -> Result<Known, ProviderError> {
        Ok(lock(&self.0.book).entry(id)?.known.clone())
    }

    /// The last payments, newest first.
    pub fn newest(&self, count: usize) -> Vec<PaymentView> {
        let book = lock(&self.0.book);
        book.ids.iter().rev().take(count).filter_map(|id| book.entries.get(id)).map(Entry::view).collect()
    }

    /// The payments of one seller, newest first, as long as `is_wanted` says so.
    fn list(&self, seller: Seller, is_wanted: impl Fn(&Known) -> bool) -> Vec<Known> {
        let book = lock(&self.0.book);
        let all = book.ids.iter().rev().filter_map(|id| book.entries.get(id)).map(|entry| &entry.known);
        all.filter(|known| known.payment.seller == seller).take_while(|known| is_wanted(known)).cloned().collect()
    }

    /// Waits until a webhook of the payment was accepted; false when it takes longer than `deadline`.
    pub async fn is_heard(&self, id: &str, deadline: Duration) -> Result<bool, ProviderError> {
        let mut counts = lock(&self.0.book).entry(id)?.webhooks.subscribe();
        let heard = timeout(deadline, counts.wait_for(|counts| counts.accepted > 0)).await;
        Ok(matches!(heard, Ok(Ok(_))))
    }

    /// Waits until no webhook is planned or on its way any more; false when it takes longer than `deadline`.
    pub async fn is_idle(&self, deadline: Duration) -> bool {
        let mut under_way = self.0.under_way.subscribe();
        matches!(timeout(deadline, under_way.wait_for(|count| *count == 0)).await, Ok(Ok(_)))
    }

    /// What was delivered so far, of all payments.
    pub fn counts(&self) -> Counts {
        self.0.courier.counts()
    }

    /// How many payments there are, and how many are paid.
    pub fn payments(&self) -> (usize, usize) {
        let book = lock(&self.0.book);
        let is_paid = |entry: &&Entry| entry.known.state.status == Status::Succeeded;
        (book.ids.len(), book.entries.values().filter(is_paid).count())
    }

    /// What the receiver said last when it did not accept a webhook.
    pub fn last_trouble(&self) -> Option<String> {
        self.0.courier.last_trouble()
    }
}

#[cfg(test)]
mod tests;

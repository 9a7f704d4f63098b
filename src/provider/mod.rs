//! Outgoing calls to providers: create a payment, ask what became of it, capture it; fetch the certificate of a webhook.
//!
//! A provider is one file (what to ask), and one file below it that reads the answers and asks nobody. Whatever goes
//! wrong is a [`CallError`], which says what is known of the outcome.
//!
//! Bounds: an answer has 10 s and 1 MiB, a connection 3 s. What is transient is tried three times at most, and no try
//! begins later than 8 s after the first. Asking twice for a payment under one key makes one payment.

pub mod certificates;
mod client;
mod error;
mod paypal;
mod persist;
mod stripe;

pub use error::{BuildError, CallError};

use crate::config::ProvidersConfig;
use crate::domain::{Money, OrderId, PaymentId, PaymentStatus, Provider, ProviderAccount};
use crate::followed::Followed;
use crate::retry;
use client::Deadlines;
use paypal::Paypal;
use persist::Patience;
use secrecy::SecretString;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use stripe::Stripe;
use time::OffsetDateTime;

/// How to reach Stripe.
#[derive(Debug, Clone)]
pub struct StripeSettings {
    /// Secret or restricted key.
    pub key: Followed<SecretString>,
    /// `https://api.stripe.com`, or another address.
    pub base: String,
}

/// How to reach PayPal.
#[derive(Debug, Clone)]
pub struct PaypalSettings {
    /// Public half of the credentials.
    pub client_id: String,
    /// Secret half.
    pub client_secret: Followed<SecretString>,
    /// `https://api-m.paypal.com`, or another address. Real money moves at PayPal's own alone, without `sandbox` in it.
    pub base: String,
}

/// Whether a call is tried again when the provider does not answer, or not now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The first failure is the answer.
    Never,
    /// For some seconds, with growing pauses.
    Backoff,
}

/// A payment to be made for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayment {
    /// Where.
    pub provider: Provider,
    /// At which account there, if it is not our own (Stripe Connect: a direct charge).
    pub account: Option<ProviderAccount>,
    /// What it pays for; carried at the provider, where a buyer cannot change it.
    pub order_id: OrderId,
    /// What it costs.
    pub price: Money,
    /// Where PayPal sends the buyer back to, whether he agreed or not. Stripe is told by the page, when it confirms.
    pub return_url: Option<String>,
}

/// A payment that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Created {
    /// The provider's id (Stripe: `pi_…`; PayPal: the order's).
    pub payment_id: PaymentId,
    /// For the buyer's browser and nobody else (Stripe).
    pub client_secret: Option<String>,
    /// Where the buyer agrees to pay (PayPal).
    pub approve_url: Option<String>,
    /// Whether an earlier call under the same key had made it.
    pub is_replay: bool,
}

/// What a provider says of a payment.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    /// The id under which the provider's messages name it; may be another than was asked for.
    pub payment_id: PaymentId,
    /// Further ids of the same payment, at most `RELATED_IDS_MAX`.
    pub related_ids: Vec<PaymentId>,
    /// Our order, where the payment carries its id.
    pub order_id: Option<OrderId>,
    /// Every fact that the provider tells, in the ids and meanings of its webhooks.
    pub statuses: Vec<PaymentStatus>,
    /// What can still become of it.
    pub state: PaymentState,
    /// When the latest of it happened, by the provider's clock: the same for as long as nothing new happens.
    pub occurred_at: OffsetDateTime,
    /// When the provider said so, by its clock: what it says then outranks what it reported until then. `None` where its answer
    /// has no readable `Date`.
    pub as_of: Option<OffsetDateTime>,
    /// Whether it is about real money.
    pub livemode: bool,
    /// What kept the provider from telling all of it: what is told is right, and there may be more. PayPal's disputes, which
    /// are asked for apart, must not keep a payment from being granted.
    pub incomplete: Option<CallError>,
    /// Whether money went back, by what the provider says of a capture, of which it tells no refund.
    pub is_refund_untold: bool,
    /// See [`Created::client_secret`].
    pub client_secret: Option<String>,
    /// See [`Created::approve_url`].
    pub approve_url: Option<String>,
}

/// What the asker needs to know of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// What has happened to it.
    Facts,
    /// That, and the tax and discount in its total, where the provider can tell them.
    Breakdown,
}

/// What can still become of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaymentState {
    /// The buyer can pay it.
    Payable,
    /// PayPal: the buyer has agreed; it is to be captured.
    Approved,
    /// Under way: it waits for a bank, or for somebody to capture it.
    Pending,
    /// Money came in. Some or all of it may have gone back: the statuses tell.
    Paid,
    /// It can no longer be paid.
    Over,
}

/// The providers that are set up.
#[derive(Clone)]
pub struct Providers {
    stripe: Option<Arc<Stripe>>,
    paypal: Option<Arc<Paypal>>,
}

/// How far calls go.
#[derive(Debug, Clone, Copy)]
struct Limits {
    deadlines: Deadlines,
    patience: Patience,
}

impl Limits {
    const USUAL: Self = Self {
        deadlines: Deadlines { whole: Duration::from_secs(10), connect: Duration::from_secs(3) },
        patience: Patience {
            tries_max: 3,
            last_try_after: Duration::from_secs(8),
            pauses: retry::Limits {
                initial: Duration::from_millis(250),
                max: Duration::from_secs(2),
                give_up_after: None,
            },
        },
    };
}

enum ProviderApi<'a> {
    Stripe(&'a Stripe),
    Paypal(&'a Paypal),
}

impl Providers {
    /// Sets up those that have settings. Asks nobody.
    pub fn new(stripe: Option<StripeSettings>, paypal: Option<PaypalSettings>) -> Result<Self, BuildError> {
        Self::with_limits(stripe, paypal, Limits::USUAL)
    }

    /// Sets up those that are configured.
    pub fn configured(config: ProvidersConfig) -> Result<Self, BuildError> {
        let ProvidersConfig { stripe, paypal } = config;
        let stripe = stripe.map(|stripe| StripeSettings { key: stripe.key, base: stripe.base });
        let paypal = paypal.map(|paypal| PaypalSettings {
            client_id: paypal.client_id,
            client_secret: paypal.client_secret,
            base: paypal.base,
        });
        Self::new(stripe, paypal)
    }

    fn with_limits(
        stripe: Option<StripeSettings>,
        paypal: Option<PaypalSettings>,
        limits: Limits,
    ) -> Result<Self, BuildError> {
        Ok(Self {
            stripe: stripe.map(|settings| Stripe::new(settings, limits)).transpose()?.map(Arc::new),
            paypal: paypal.map(|settings| Paypal::new(settings, limits)).transpose()?.map(Arc::new),
        })
    }

    /// Whether payments can be created there.
    pub fn can_create(&self, provider: &Provider) -> bool {
        self.api(provider).is_ok()
    }

    /// Those that can be asked.
    pub fn set_up(&self) -> impl Iterator<Item = Provider> {
        let stripe = self.stripe.as_ref().map(|_| Provider::STRIPE);
        stripe.into_iter().chain(self.paypal.as_ref().map(|_| Provider::PAYPAL))
    }

    /// Creates the payment of an order under an attempt's key. The same key again is the question what became of the
    /// first call, for as long as the provider remembers it (Stripe: 24 hours at least; PayPal: 6).
    pub async fn create(&self, payment: &NewPayment, key: &str, retry: Retry) -> Result<Created, CallError> {
        match self.api(&payment.provider)? {
            ProviderApi::Stripe(stripe) => stripe.at(payment.account.as_ref())?.create(payment, key, retry).await,
            ProviderApi::Paypal(paypal) => paypal.at(payment.account.as_ref())?.create(payment, key, retry).await,
        }
    }

    /// What the provider says of a payment now; none where it knows no such payment. Stripe's checkout sessions, charges,
    /// refunds and disputes, and PayPal's captures and refunds, lead to the payment that they belong to. All of it, or an error;
    /// but without PayPal's disputes, and a warning in the log, where our credentials have no right to see them.
    pub async fn fetch(
        &self,
        provider: &Provider,
        account: Option<&ProviderAccount>,
        payment_id: &PaymentId,
    ) -> Result<Option<Found>, CallError> {
        self.fetch_with(provider, account, payment_id, Needs::Facts).await
    }

    /// The same, and as much of it as is needed: more costs more calls.
    pub async fn fetch_with(
        &self,
        provider: &Provider,
        account: Option<&ProviderAccount>,
        payment_id: &PaymentId,
        needs: Needs,
    ) -> Result<Option<Found>, CallError> {
        match self.api(provider)? {
            ProviderApi::Stripe(stripe) => stripe.at(account)?.fetch(payment_id, needs).await,
            ProviderApi::Paypal(paypal) => paypal.at(account)?.fetch(payment_id).await,
        }
    }

    /// Payments that carry this order's id and were made since then, give or take the clocks. All of them, or an error.
    /// Not at PayPal, which has no such list.
    pub async fn list_of_order(
        &self,
        provider: &Provider,
        account: Option<&ProviderAccount>,
        order_id: OrderId,
        since: OffsetDateTime,
    ) -> Result<Vec<Found>, CallError> {
        match self.api(provider)? {
            ProviderApi::Stripe(stripe) => stripe.at(account)?.list_of_order(order_id, since).await,
            ProviderApi::Paypal(_) => Err(CallError::Unsupported),
        }
    }

    /// PayPal only: captures a payment that the buyer has agreed to. Of all payments of one order at most one is captured for
    /// as long as PayPal remembers the first (six hours at least); for another it is [`CallError::KeyReused`]. Not to be asked
    /// for an order that is known to be paid.
    pub async fn capture(
        &self,
        provider: &Provider,
        payment_id: &PaymentId,
        order_id: OrderId,
    ) -> Result<Found, CallError> {
        match self.api(provider)? {
            ProviderApi::Stripe(_) => Err(CallError::Unsupported),
            ProviderApi::Paypal(paypal) => paypal.capture(payment_id, order_id).await,
        }
    }

    fn api(&self, provider: &Provider) -> Result<ProviderApi<'_>, CallError> {
        let stripe = self.stripe.as_deref().filter(|_| *provider == Provider::STRIPE).map(ProviderApi::Stripe);
        let paypal = self.paypal.as_deref().filter(|_| *provider == Provider::PAYPAL).map(ProviderApi::Paypal);
        stripe.or(paypal).ok_or(CallError::Unsupported)
    }
}

impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (stripe, paypal) = (self.stripe.is_some(), self.paypal.is_some());
        f.debug_struct("Providers").field("stripe", &stripe).field("paypal", &paypal).finish()
    }
}

/// Shows that there is something, and not what: with it a payment can be looked at and confirmed.
fn hidden(secret: Option<&String>) -> Option<&'static str> {
    secret.map(|_| "***")
}

impl fmt::Debug for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { payment_id, client_secret, approve_url, is_replay } = self;
        f.debug_struct("Created")
            .field("payment_id", payment_id)
            .field("client_secret", &hidden(client_secret.as_ref()))
            .field("approve_url", &hidden(approve_url.as_ref()))
            .field("is_replay", is_replay)
            .finish()
    }
}

impl fmt::Debug for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Found")
            .field("payment_id", &self.payment_id)
            .field("related_ids", &self.related_ids)
            .field("order_id", &self.order_id)
            .field("statuses", &self.statuses)
            .field("state", &self.state)
            .field("occurred_at", &self.occurred_at)
            .field("as_of", &self.as_of)
            .field("livemode", &self.livemode)
            .field("incomplete", &self.incomplete)
            .field("is_refund_untold", &self.is_refund_untold)
            .field("client_secret", &hidden(self.client_secret.as_ref()))
            .field("approve_url", &hidden(self.approve_url.as_ref()))
            .finish()
    }
}

/// Feeds every parser of what providers answer; for fuzzing.
#[cfg(fuzzing)]
pub fn parse_anything(data: &[u8]) {
    if let Ok(answer) = serde_json::from_slice(data) {
        stripe::parse_anything(&answer);
        paypal::parse_anything(&answer);
    }
}

#[cfg(test)]
mod tests;

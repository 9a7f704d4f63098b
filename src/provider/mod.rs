//! Calls to providers: create a payment, ask about its state, capture it, and fetch the certificate of a webhook.
//!
//! Each provider has one file that makes calls, and one file below it that reads the answers and makes no calls. Every
//! failure is a [`CallError`], which says what is known about the outcome.
//!
//! Limits: an answer may take 10 s and have 1 MiB, and a connection may take 3 s. After a transient failure there are at
//! most three tries, and none begins later than 8 s after the first. Two calls for a payment with the same key make one
//! payment.

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

/// The settings for Stripe.
#[derive(Debug, Clone)]
pub struct StripeSettings {
    /// The secret key or a restricted key.
    pub key: Followed<SecretString>,
    /// The address: `https://api.stripe.com` or another one.
    pub base: String,
}

/// The settings for PayPal.
#[derive(Debug, Clone)]
pub struct PaypalSettings {
    /// The public part of the credentials.
    pub client_id: String,
    /// The secret part of the credentials.
    pub client_secret: Followed<SecretString>,
    /// The address: `https://api-m.paypal.com` or another one. Real money moves only at PayPal's own address without
    /// `sandbox` in it.
    pub base: String,
}

/// Whether a call is tried again if the provider does not answer, or asks us to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The first failure is returned.
    Never,
    /// The call is tried again for some seconds, with growing pauses.
    Backoff,
}

/// The payment that is to be made for an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPayment {
    /// The provider that takes the money.
    pub provider: Provider,
    /// The account at the provider. `None` is our own (Stripe Connect: a direct charge).
    pub account: Option<ProviderAccount>,
    /// The order that is paid. The provider stores it with the payment, where a buyer cannot change it.
    pub order_id: OrderId,
    /// The price of the order.
    pub price: Money,
    /// The page to which PayPal sends the buyer back, with or without their approval. Stripe gets this address from the page
    /// that confirms the payment.
    pub return_url: Option<String>,
}

/// A payment that was made.
#[derive(Clone, PartialEq, Eq)]
pub struct Created {
    /// The provider's id (Stripe: `pi_…`; PayPal: the id of the order).
    pub payment_id: PaymentId,
    /// The secret for the buyer's browser and nobody else (Stripe).
    pub client_secret: Option<String>,
    /// The page where the buyer approves the payment (PayPal).
    pub approve_url: Option<String>,
    /// Whether an earlier call with the same key has made the payment.
    pub is_replay: bool,
}

/// What a provider says about a payment.
#[derive(Clone, PartialEq, Eq)]
pub struct Found {
    /// The id by which the provider's messages name the payment. It may differ from the id that was asked for.
    pub payment_id: PaymentId,
    /// Further ids of the same payment, at most `RELATED_IDS_MAX`.
    pub related_ids: Vec<PaymentId>,
    /// Our order, if the payment contains its id.
    pub order_id: Option<OrderId>,
    /// Every fact that the provider tells, with the ids and meanings of its webhooks.
    pub statuses: Vec<PaymentStatus>,
    /// What can still happen to the payment.
    pub state: PaymentState,
    /// The time of the latest fact, by the provider's clock. It stays the same until something new happens.
    pub occurred_at: OffsetDateTime,
    /// The time of the answer, by the provider's clock. The answer outranks everything that the provider reported before.
    /// `None` if the answer has no readable `Date`.
    pub as_of: Option<OffsetDateTime>,
    /// Whether the payment is about real money.
    pub livemode: bool,
    /// The reason why the answer is incomplete. What it says is correct, and there may be more. PayPal's disputes need calls
    /// of their own, and these must not prevent a grant.
    pub incomplete: Option<CallError>,
    /// Whether money was returned according to the state of a capture, although the provider tells of no refund.
    pub is_refund_untold: bool,
    /// The same as [`Created::client_secret`].
    pub client_secret: Option<String>,
    /// The same as [`Created::approve_url`].
    pub approve_url: Option<String>,
}

/// What the caller needs to know about a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// The facts of the payment.
    Facts,
    /// The facts, and the tax and the discount in the total, if the provider can tell them.
    Breakdown,
}

/// What can still happen to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PaymentState {
    /// The buyer can pay it.
    Payable,
    /// The buyer has approved it, and it can be captured (PayPal).
    Approved,
    /// It is being processed, or waits for somebody to capture it.
    Pending,
    /// Money was received. Some or all of it may have been returned: the statuses tell.
    Paid,
    /// It can no longer be paid.
    Over,
}

/// The providers that are configured.
#[derive(Clone)]
pub struct Providers {
    stripe: Option<Arc<Stripe>>,
    paypal: Option<Arc<Paypal>>,
}

/// The limits of a call.
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
    /// Sets up the providers that have settings. It makes no call.
    pub fn new(stripe: Option<StripeSettings>, paypal: Option<PaypalSettings>) -> Result<Self, BuildError> {
        Self::with_limits(stripe, paypal, Limits::USUAL)
    }

    /// Sets up the providers that are configured.
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

    /// Whether payments can be created at this provider.
    pub fn can_create(&self, provider: &Provider) -> bool {
        self.api(provider).is_ok()
    }

    /// The providers that can be asked.
    pub fn set_up(&self) -> impl Iterator<Item = Provider> {
        let stripe = self.stripe.as_ref().map(|_| Provider::STRIPE);
        stripe.into_iter().chain(self.paypal.as_ref().map(|_| Provider::PAYPAL))
    }

    /// Creates the payment of an order with the key of an attempt. A call with the same key returns the outcome of the first
    /// call, for as long as the provider remembers it (Stripe: at least 24 hours; PayPal: 6 hours).
    pub async fn create(&self, payment: &NewPayment, key: &str, retry: Retry) -> Result<Created, CallError> {
        match self.api(&payment.provider)? {
            ProviderApi::Stripe(stripe) => stripe.at(payment.account.as_ref())?.create(payment, key, retry).await,
            ProviderApi::Paypal(paypal) => paypal.at(payment.account.as_ref())?.create(payment, key, retry).await,
        }
    }

    /// Returns what the provider says about a payment now, or `None` if it knows no such payment. Stripe's checkout
    /// sessions, charges, refunds and disputes, and PayPal's captures and refunds, lead to their payment. The answer is
    /// complete or an error, with one exception: if our credentials may not read PayPal's disputes, these are left out and a
    /// warning is logged.
    pub async fn fetch(
        &self,
        provider: &Provider,
        account: Option<&ProviderAccount>,
        payment_id: &PaymentId,
    ) -> Result<Option<Found>, CallError> {
        self.fetch_with(provider, account, payment_id, Needs::Facts).await
    }

    /// The same, with only as much as is needed, because more takes more calls.
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

    /// Returns the payments that contain this order's id and were made since then, with a margin for differences of the
    /// clocks. The answer is complete or an error. PayPal has no such list.
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

    /// Captures a payment that the buyer has approved (only PayPal). Of all payments of one order at most one is captured
    /// for as long as PayPal remembers the first (at least six hours). For another payment it returns
    /// [`CallError::KeyReused`]. It must not be called for an order that is known to be paid.
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

/// Shows that a secret is there, without the secret: with it a payment can be read and confirmed.
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

/// Feeds every parser of providers' answers, for fuzzing.
#[cfg(fuzzing)]
pub fn parse_anything(data: &[u8]) {
    if let Ok(answer) = serde_json::from_slice(data) {
        stripe::parse_anything(&answer);
        paypal::parse_anything(&answer);
    }
}

#[cfg(test)]
mod tests;

//! Webhooks: from what a request brought to what it says of a payment.
//!
//! [`Unverified`] → [`Keys::verify`] → [`Verified`] → [`Verified::translate`] → [`Translation`]s. The raw bytes are
//! verified before anything is parsed, and only a verified request can be translated. Nothing here waits, reads a clock
//! or talks to anything: the time to judge by comes in with the request.
//!
//! A provider is one file, and one line in the table below.

mod adyen;
mod keys;
mod paypal;
mod rejection;
pub mod sign;
mod signature;
mod standard;
mod stripe;
mod table;
mod trust;

pub use keys::{KeyError, KeyFault, Keys};
pub use rejection::{Rejection, TOLERANCE_SECONDS};
pub use table::{Listed, listed, page};
pub use trust::{CertificateUrl, Trust};

use crate::domain::{
    Hint, IgnoredWhy, MessageId, OrderId, PaymentEvent, PaymentId, PaymentStatus, Provider, ProviderAccount, tidy,
};
use sha2::{Digest, Sha256};
use signature::Mac;
use time::OffsetDateTime;

/// Longest [`Translation::Untranslatable`] detail, in bytes: it becomes a header of the dead letter.
const DETAIL_BYTES_MAX: usize = 500;

/// Longest [`Translation::Ignored`] kind, in bytes: it stands in a log line.
const KIND_BYTES_MAX: usize = 80;

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident => $door:path,)+) => {
        /// The endpoints of `POST /webhooks/{path}`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Endpoint {
            $($(#[$doc])* $name,)+
        }

        impl Endpoint {
            /// Every endpoint.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            fn adapter(self) -> &'static Adapter {
                match self {
                    $(Self::$name => &$door,)+
                }
            }
        }
    };
}

endpoints! {
    /// Stripe's events.
    Stripe => stripe::ADAPTER,
    /// PayPal's webhooks, which are hints.
    Paypal => paypal::ADAPTER,
    /// Adyen's standard webhooks.
    Adyen => adyen::ADAPTER,
    /// Standard Webhooks 1.0 whose body is our own `payment-status.v1`.
    Standard => standard::ADAPTER,
}

impl Endpoint {
    /// The endpoint of a path segment, if there is one.
    pub fn from_path(path: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|endpoint| endpoint.path() == path)
    }

    /// The path segment; message ids begin with it.
    pub fn path(self) -> &'static str {
        self.provider().as_str()
    }

    /// The provider that a key of this endpoint speaks for, and no other.
    pub fn provider(self) -> &'static Provider {
        &self.adapter().provider
    }
}

/// What a provider's file has to offer.
struct Adapter {
    /// Its name, which is also the path segment.
    provider: Provider,
    /// How its requests prove who sent them.
    proof: Proof,
    /// Says what a verified body means: one translation for each thing that it tells.
    translate: fn(&Verified<'_>) -> Vec<Translation>,
    /// Its table of event types; none where a body is our own contract.
    events: Option<fn() -> table::Page>,
}

/// How requests prove who sent them.
enum Proof {
    /// By a secret that the sender and we share.
    Secret(SecretProof),
    /// By a certificate of the sender's, and by the id of our subscription in what it signed.
    Certificate(CertificateProof),
}

struct SecretProof {
    /// Takes one configured secret.
    key: fn(&str) -> Result<Mac, KeyFault>,
    /// Checks the signature and its time; gives the delivery's id where a header carries it. `'a` is the request's.
    verify: for<'a> fn(&[Mac], &Unverified<'a>) -> Result<Option<&'a str>, Rejection>,
}

struct CertificateProof {
    /// Takes one configured id.
    id: fn(&str, Terms) -> Result<String, KeyFault>,
    /// Where the certificate lies that a request names, if the request is worth asking for it.
    url: fn(&Trust, &Unverified<'_>) -> Result<CertificateUrl, Rejection>,
    /// Checks certificate and signature. The certificates are PEM, as they were fetched.
    verify: fn(&Subscriptions, &Unverified<'_>, &[u8]) -> Result<(), Rejection>,
}

/// What is held of an endpoint that is proven by a certificate.
struct Subscriptions {
    ids: Vec<String>,
    trust: Trust,
    terms: Terms,
}

/// What the deployment decides, because a body does not say it, or cannot be believed in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whether real money moves where the keys come from. Counts for providers whose signature does not cover it.
    pub livemode: bool,
    /// Whether an Adyen payment is paid only when the merchant has captured it, instead of with its authorisation.
    pub is_adyen_captured_by_hand: bool,
}

/// What a request brought, as it came. Nobody knows yet who sent it.
#[derive(Clone, Copy)]
pub struct Unverified<'a> {
    /// Its headers.
    pub headers: &'a http::HeaderMap,
    /// Its body, byte for byte. The caller has bounded its length.
    pub body: &'a [u8],
    /// The time it is judged at.
    pub now: OffsetDateTime,
}

/// A request whose signature was found good. Made by [`Keys::verify`] and [`Keys::verify_with`].
pub struct Verified<'a> {
    endpoint: Endpoint,
    body: &'a [u8],
    delivery_id: Option<&'a str>,
    now: OffsetDateTime,
    terms: Terms,
}

/// What a verified request says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Translation {
    /// Publish these.
    Events(Vec<PaymentEvent>),
    /// Something happened that the body does not tell, or cannot be believed to tell: the provider is to be asked.
    Hint(Hint),
    /// Genuine, and changes nothing. To be acknowledged and counted.
    Ignored {
        /// Its type; printable ASCII, at most 80 bytes. As many values as the provider has event types.
        kind: String,
        /// Why it changes nothing.
        why: IgnoredWhy,
    },
    /// Genuine, but we cannot tell what it says. Becomes a dead letter with its raw body.
    Untranslatable {
        /// Formed like any other where the event's own id can be used, else from a digest of the body.
        message_id: MessageId,
        /// Whether real money moved, where the body says so.
        livemode: Option<bool>,
        /// The cause in a sentence that names the field, for an operator; at most 500 bytes.
        detail: String,
        /// What can be read of it all the same.
        concerns: Concerns,
    },
}

/// What a webhook that cannot be applied is about, so that its dead letter is found by the orders that it concerns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concerns {
    /// The order that it names, which need not be one of ours.
    pub order_id: Option<OrderId>,
    /// The account at the provider; none is our own.
    pub provider_account: Option<ProviderAccount>,
    /// The payment, by every id that it names.
    pub payment_ids: Vec<PaymentId>,
    /// What it would say, where that much can be read.
    pub status: Option<PaymentStatus>,
}

impl Translation {
    fn ignored(kind: &str, why: IgnoredWhy) -> Self {
        let fits = kind.len() <= KIND_BYTES_MAX && kind.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        Self::Ignored { kind: if fits { kind } else { "other" }.to_owned(), why }
    }

    /// With what it is about, where it cannot be applied.
    fn concerning(mut self, about: Concerns) -> Self {
        if let Self::Untranslatable { concerns, .. } = &mut self {
            *concerns = about;
        }
        self
    }
}

impl<'a> Verified<'a> {
    /// A body that was verified when it came in and was kept since, as the dead letter with this `message_id`: it is
    /// translated anew, for instance by a newer version of this room. The caller vouches for it; a request from outside
    /// must never come this way.
    pub fn kept(
        endpoint: Endpoint,
        message_id: &'a MessageId,
        body: &'a [u8],
        now: OffsetDateTime,
        terms: Terms,
    ) -> Self {
        let delivery_id =
            message_id.as_str().strip_prefix(endpoint.path()).and_then(|without_path| without_path.strip_prefix("::"));
        Self { endpoint, body, delivery_id, now, terms }
    }

    /// The endpoint that it came to.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// What it says, one translation for each thing that it tells; at least one. Never fails: what is genuine is never
    /// lost.
    pub fn translate(&self) -> Vec<Translation> {
        (self.endpoint.adapter().translate)(self)
    }

    /// `<path>:<account>:<event>`, or why that is no id that can be kept. The account, empty where it is our own, must
    /// hold no colon.
    fn message_id(&self, account: &str, event: &str) -> Result<MessageId, String> {
        if event.is_empty() {
            return Err("must not be empty".to_owned());
        }
        MessageId::new(format!("{}:{account}:{event}", self.endpoint.path()))
            .map_err(|fault| format!("the message id formed from it {fault}"))
    }

    fn untranslatable(&self, message_id: Option<MessageId>, livemode: Option<bool>, detail: &str) -> Translation {
        let from_digest = || MessageId::from_digest(self.endpoint.provider(), Sha256::digest(self.body).into());
        Translation::Untranslatable {
            message_id: message_id.unwrap_or_else(from_digest),
            livemode,
            detail: tidy(detail, DETAIL_BYTES_MAX),
            concerns: Concerns::default(),
        }
    }
}

#[cfg(test)]
mod tests;

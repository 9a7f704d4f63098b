//! Webhooks: from a request to the facts that it reports about a payment.
//!
//! [`Unverified`] → [`Keys::verify`] → [`Verified`] → [`Verified::translate`] → [`Translation`]s. The raw bytes are verified before
//! anything is parsed, and only a verified request can be translated. This room does not wait, reads no clock and talks to nothing:
//! the request carries the time to judge by.
//!
//! A provider is one file and one line in the table below.

mod adyen;
mod keys;
mod paypal;
mod rejection;
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

/// Longest [`Translation::Untranslatable`] detail, in bytes. It becomes a header of the dead letter.
const DETAIL_BYTES_MAX: usize = 500;

/// Longest [`Translation::Ignored`] kind, in bytes. It is part of a log line.
const KIND_BYTES_MAX: usize = 80;

macro_rules! endpoints {
    ($($(#[$doc:meta])* $name:ident => $adapter:path,)+) => {
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
                    $(Self::$name => &$adapter,)+
                }
            }
        }
    };
}

endpoints! {
    /// The events of Stripe.
    Stripe => stripe::ADAPTER,
    /// PayPal's webhooks, which are hints.
    Paypal => paypal::ADAPTER,
    /// The standard webhooks of Adyen.
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

    /// The provider for which a key of this endpoint may speak. There is no other.
    pub fn provider(self) -> &'static Provider {
        &self.adapter().provider
    }
}

/// The parts that a provider's file supplies.
struct Adapter {
    /// The provider's name, which is also the path segment.
    provider: Provider,
    /// How its requests are verified.
    proof: Proof,
    /// Translates a verified body: one translation for each fact.
    translate: fn(&Verified<'_>) -> Vec<Translation>,
    /// The table of its event types. `None` if a body is our own contract.
    events: Option<fn() -> table::Page>,
}

/// How requests are verified.
enum Proof {
    /// By a secret that the sender shares with us.
    Secret(SecretProof),
    /// By the sender's certificate, and by the id of our subscription in the signed text.
    Certificate(CertificateProof),
}

struct SecretProof {
    /// Parses one configured secret.
    key: fn(&str) -> Result<Mac, KeyFault>,
    /// Checks the signature and its time. Returns the delivery's id if a header carries it. `'a` is the request's.
    verify: for<'a> fn(&[Mac], &Unverified<'a>) -> Result<Option<&'a str>, Rejection>,
}

struct CertificateProof {
    /// Parses one configured id.
    id: fn(&str, Terms) -> Result<String, KeyFault>,
    /// The address of the certificate that a request names, if the request is worth a call.
    url: fn(&Trust, &Unverified<'_>) -> Result<CertificateUrl, Rejection>,
    /// Checks the certificate and the signature. The certificates are PEM, as fetched.
    verify: fn(&Subscriptions, &Unverified<'_>, &[u8]) -> Result<(), Rejection>,
}

/// The settings of an endpoint that is verified by a certificate.
struct Subscriptions {
    ids: Vec<String>,
    trust: Trust,
    terms: Terms,
}

/// Settings for facts that a body does not contain, or for which it cannot be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Whether the keys belong to an environment with real money. It is used for providers whose signature does not cover this.
    pub livemode: bool,
    /// Whether an Adyen payment is paid only after a manual capture, and not with its authorisation.
    pub is_adyen_captured_by_hand: bool,
}

/// A request as it was received. Its sender is not known yet.
#[derive(Clone, Copy)]
pub struct Unverified<'a> {
    /// The headers of the request.
    pub headers: &'a http::HeaderMap,
    /// Its body, byte for byte. The caller has limited its length.
    pub body: &'a [u8],
    /// The time at which it is judged.
    pub now: OffsetDateTime,
}

/// A request with a valid signature. Made by [`Keys::verify`] and [`Keys::verify_with`].
pub struct Verified<'a> {
    endpoint: Endpoint,
    body: &'a [u8],
    delivery_id: Option<&'a str>,
    now: OffsetDateTime,
    terms: Terms,
}

/// The meaning of a verified request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Translation {
    /// These events are to be published.
    Events(Vec<PaymentEvent>),
    /// Something happened that the body does not contain, or for which it cannot be trusted. The provider must be asked.
    Hint(Hint),
    /// The request is genuine and changes nothing. It is acknowledged and counted.
    Ignored {
        /// Its type: printable ASCII, at most 80 bytes. There are as many values as the provider has event types.
        kind: String,
        /// Why it changes nothing.
        why: IgnoredWhy,
    },
    /// The request is genuine but cannot be translated. It becomes a dead letter with its raw body.
    Untranslatable {
        /// Formed like any other id if the event's own id can be used, else from a digest of the body.
        message_id: MessageId,
        /// Whether real money moved, if the body says so.
        livemode: Option<bool>,
        /// The cause for an operator, in a sentence that names the field; at most 500 bytes.
        detail: String,
        /// The parts that can be read.
        concerns: Concerns,
    },
}

/// The subject of a webhook that cannot be applied. Its dead letter is found by the orders that it concerns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Concerns {
    /// The order that it names. It may not be one of ours.
    pub order_id: Option<OrderId>,
    /// The account at the provider. `None`: our own.
    pub provider_account: Option<ProviderAccount>,
    /// The payment, under every id in the webhook.
    pub payment_ids: Vec<PaymentId>,
    /// The fact that it would report, if that much can be read.
    pub status: Option<PaymentStatus>,
}

impl Translation {
    fn ignored(kind: &str, why: IgnoredWhy) -> Self {
        let fits = kind.len() <= KIND_BYTES_MAX && kind.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        Self::Ignored { kind: if fits { kind } else { "other" }.to_owned(), why }
    }

    /// Adds the subject to a translation that cannot be applied.
    fn concerning(mut self, about: Concerns) -> Self {
        if let Self::Untranslatable { concerns, .. } = &mut self {
            *concerns = about;
        }
        self
    }
}

impl<'a> Verified<'a> {
    /// A body that was verified when it came in and was kept as the dead letter with this `message_id`. It is translated again, for
    /// example by a later version of this room. The caller vouches for it. A request from outside must never come this way.
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

    /// The endpoint that received it.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Translates the body: one translation for each fact, at least one. It never fails, because a genuine webhook must not get
    /// lost.
    pub fn translate(&self) -> Vec<Translation> {
        (self.endpoint.adapter().translate)(self)
    }

    /// `<path>:<account>:<event>`, or why this id cannot be used. The account is empty for our own, and must not contain a colon.
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

//! The keys that an endpoint verifies with.

use super::signature::Mac;
use super::trust::{CertificateUrl, Trust};
use super::{CertificateProof, Endpoint, Proof, Rejection, SecretProof, Subscriptions, Terms, Unverified, Verified};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;

/// The keys of one endpoint. Any of them may have signed, so that a secret can be rolled without a gap.
pub struct Keys {
    endpoint: Endpoint,
    held: Held,
    terms: Terms,
}

/// What the configured secrets were made into.
enum Held {
    Macs { proof: &'static SecretProof, macs: Vec<Mac> },
    Ids { proof: &'static CertificateProof, subscriptions: Subscriptions },
}

/// What is wrong with a configured secret. Says nothing of the secret itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// An empty secret is one that everybody has.
    #[error("is empty")]
    Empty,
    /// A blank or line break, as left behind by a file or by copying.
    #[error("has a character other than printable ASCII without blanks; look for a line break or a quotation mark")]
    BadCharacter,
    /// Standard Webhooks serialises a symmetric secret as `whsec_` and base64.
    #[error("must begin with whsec_")]
    NoPrefix,
    /// What follows the prefix cannot be decoded.
    #[error("is not base64 after whsec_")]
    NotBase64,
    /// Adyen shows its keys as hexadecimal digits.
    #[error("is not made of pairs of hexadecimal digits")]
    NotHex,
    /// An Adyen key that is only part of one.
    #[error("is too short: at least {min_digits} hexadecimal digits")]
    TooFewDigits {
        /// The least that is taken.
        min_digits: usize,
    },
    /// Something else than the id of a webhook subscription.
    #[error("is no id of a PayPal webhook, which is 1 to 50 letters and digits")]
    NotWebhookId,
    /// Anybody can have events signed under this one, by PayPal's own certificate.
    #[error("is the webhook simulator's, whose events must not count where GRANTONCE_LIVEMODE is true")]
    Simulator,
    /// Standard Webhooks asks for 24 bytes.
    #[error("is too short: at least {min_bytes} bytes, as base64 after whsec_")]
    TooShort {
        /// The least that is taken.
        min_bytes: usize,
    },
}

/// Why a list of secrets makes no keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An endpoint without a secret can verify nothing.
    #[error("no webhook secret of {} is configured", endpoint.path())]
    NoSecret {
        /// Which endpoint.
        endpoint: Endpoint,
    },
    /// One of the secrets cannot be used.
    #[error("webhook secret {position} of {} {fault}", endpoint.path())]
    Secret {
        /// Which endpoint.
        endpoint: Endpoint,
        /// Which of the list, counted from 1.
        position: usize,
        /// What is wrong with it.
        fault: KeyFault,
    },
}

impl Keys {
    /// Takes the secrets that are configured for an endpoint: at least one, each well-formed.
    pub fn new(endpoint: Endpoint, secrets: &[SecretString], terms: Terms) -> Result<Self, KeyError> {
        if secrets.is_empty() {
            return Err(KeyError::NoSecret { endpoint });
        }
        let held = match &endpoint.door().proof {
            Proof::Secret(proof) => Held::Macs { proof, macs: each(endpoint, secrets, proof.key)? },
            Proof::Certificate(proof) => {
                let ids = each(endpoint, secrets, |id| (proof.id)(id, terms))?;
                Held::Ids { proof, subscriptions: Subscriptions { ids, trust: Trust::default(), terms } }
            }
        };
        Ok(Self { endpoint, held, terms })
    }

    /// Says whom to believe where a certificate proves who signed; without it, nobody. Means nothing to other endpoints.
    pub fn trusting(mut self, trusted: Trust) -> Self {
        match &mut self.held {
            Held::Ids { subscriptions, .. } => subscriptions.trust = trusted,
            Held::Macs { .. } => {}
        }
        self
    }

    /// The endpoint whose requests they verify.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Where the certificate lies that [`Keys::verify_with`] needs for this request; none where a shared secret proves who
    /// signed.
    pub fn certificate_url(&self, request: &Unverified<'_>) -> Result<Option<CertificateUrl>, Rejection> {
        match &self.held {
            Held::Macs { .. } => Ok(None),
            Held::Ids { proof, subscriptions } => (proof.url)(&subscriptions.trust, request).map(Some),
        }
    }

    /// Checks the raw bytes against the signature that came with them, and the signed time against `request.now`.
    pub fn verify<'a>(&self, request: Unverified<'a>) -> Result<Verified<'a>, Rejection> {
        self.verify_with(request, &[])
    }

    /// As [`Keys::verify`], with what lies at the [`certificate_url`](Self::certificate_url): certificates as PEM, which
    /// are judged at `request.now`.
    pub fn verify_with<'a>(&self, request: Unverified<'a>, certificates: &[u8]) -> Result<Verified<'a>, Rejection> {
        let delivery_id = match &self.held {
            Held::Macs { proof, macs } => (proof.verify)(macs, &request)?,
            Held::Ids { proof, subscriptions } => {
                (proof.verify)(subscriptions, &request, certificates)?;
                None
            }
        };
        Ok(Verified { endpoint: self.endpoint, body: request.body, delivery_id, now: request.now, terms: self.terms })
    }
}

fn each<T>(
    endpoint: Endpoint,
    secrets: &[SecretString],
    take: impl Fn(&str) -> Result<T, KeyFault>,
) -> Result<Vec<T>, KeyError> {
    let one = |(n, secret): (usize, &SecretString)| {
        take(secret.expose_secret()).map_err(|fault| KeyError::Secret { endpoint, position: n + 1, fault })
    };
    secrets.iter().enumerate().map(one).collect()
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = match &self.held {
            Held::Macs { macs, .. } => macs.len(),
            Held::Ids { subscriptions, .. } => subscriptions.ids.len(),
        };
        f.debug_struct("Keys").field("endpoint", &self.endpoint).field("count", &count).finish_non_exhaustive()
    }
}

//! The keys of an endpoint.

use super::signature::Mac;
use super::trust::{CertificateUrl, Trust};
use super::{CertificateProof, Endpoint, Proof, Rejection, SecretProof, Subscriptions, Terms, Unverified, Verified};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;

/// The keys of one endpoint. A request may be signed with any of them, so a secret can be replaced without a gap.
pub struct Keys {
    endpoint: Endpoint,
    held: Held,
    terms: Terms,
}

/// The secrets after parsing.
enum Held {
    Macs { proof: &'static SecretProof, macs: Vec<Mac> },
    Ids { proof: &'static CertificateProof, subscriptions: Subscriptions },
}

/// What is wrong with a configured secret. The text never contains the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyFault {
    /// The secret is empty, so everybody knows it.
    #[error("is empty")]
    Empty,
    /// The secret contains a blank or a line break, as files and copying leave behind.
    #[error("has a character other than printable ASCII without blanks; look for a line break or a quotation mark")]
    BadCharacter,
    /// Standard Webhooks writes a symmetric secret as `whsec_` and base64.
    #[error("must begin with whsec_")]
    NoPrefix,
    /// The text after the prefix cannot be decoded.
    #[error("is not base64 after whsec_")]
    NotBase64,
    /// Adyen shows its keys as hexadecimal digits.
    #[error("is not made of pairs of hexadecimal digits")]
    NotHex,
    /// The Adyen key is incomplete.
    #[error("is too short: at least {min_digits} hexadecimal digits")]
    TooFewDigits {
        /// The shortest accepted length.
        min_digits: usize,
    },
    /// The text is not the id of a webhook subscription.
    #[error("is no id of a PayPal webhook, which is 1 to 50 letters and digits")]
    NotWebhookId,
    /// With this id, anybody can get events signed by PayPal's own certificate.
    #[error("is the webhook simulator's, whose events must not count where GRANTONCE_LIVEMODE is true")]
    Simulator,
    /// Standard Webhooks requires 24 bytes.
    #[error("is too short: at least {min_bytes} bytes, as base64 after whsec_")]
    TooShort {
        /// The shortest accepted length.
        min_bytes: usize,
    },
}

/// Why a list of secrets is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// An endpoint without a secret cannot verify anything.
    #[error("no webhook secret of {} is configured", endpoint.path())]
    NoSecret {
        /// The endpoint with the wrong secret.
        endpoint: Endpoint,
    },
    /// One of the secrets cannot be used.
    #[error("webhook secret {position} of {} {fault}", endpoint.path())]
    Secret {
        /// The endpoint with the wrong secret.
        endpoint: Endpoint,
        /// The position in the list, from 1.
        position: usize,
        /// What is wrong with the secret.
        fault: KeyFault,
    },
}

impl Keys {
    /// Takes the configured secrets of an endpoint: at least one, and all valid.
    pub fn new(endpoint: Endpoint, secrets: &[SecretString], terms: Terms) -> Result<Self, KeyError> {
        if secrets.is_empty() {
            return Err(KeyError::NoSecret { endpoint });
        }
        let held = match &endpoint.adapter().proof {
            Proof::Secret(proof) => Held::Macs { proof, macs: each(endpoint, secrets, proof.key)? },
            Proof::Certificate(proof) => {
                let ids = each(endpoint, secrets, |id| (proof.id)(id, terms))?;
                Held::Ids { proof, subscriptions: Subscriptions { ids, trust: Trust::default(), terms } }
            }
        };
        Ok(Self { endpoint, held, terms })
    }

    /// Sets whom to trust, for an endpoint whose signatures are proven by a certificate. Without it, nobody is trusted. Other
    /// endpoints ignore it.
    pub fn trusting(mut self, trusted: Trust) -> Self {
        match &mut self.held {
            Held::Ids { subscriptions, .. } => subscriptions.trust = trusted,
            Held::Macs { .. } => {}
        }
        self
    }

    /// The endpoint of these keys.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// The address of the certificate that [`Keys::verify_with`] needs for this request. `None` if the endpoint uses shared
    /// secrets.
    pub fn certificate_url(&self, request: &Unverified<'_>) -> Result<Option<CertificateUrl>, Rejection> {
        match &self.held {
            Held::Macs { .. } => Ok(None),
            Held::Ids { proof, subscriptions } => (proof.url)(&subscriptions.trust, request).map(Some),
        }
    }

    /// Checks the signature of the raw bytes, and compares the signed time with `request.now`.
    pub fn verify<'a>(&self, request: Unverified<'a>) -> Result<Verified<'a>, Rejection> {
        self.verify_with(request, &[])
    }

    /// Like [`Keys::verify`], with the content of [`certificate_url`](Self::certificate_url): PEM certificates, which are judged at
    /// `request.now`.
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

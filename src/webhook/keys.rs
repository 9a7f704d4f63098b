//! The keys that an endpoint verifies with.

use super::signature::Mac;
use super::{Endpoint, Rejection, Terms, Unverified, Verified};
use secrecy::{ExposeSecret, SecretString};
use std::fmt;

/// The keys of one endpoint. Any of them may have signed, so that a secret can be rolled without a gap.
pub struct Keys {
    endpoint: Endpoint,
    macs: Vec<Mac>,
    terms: Terms,
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
        let key = |(n, secret): (usize, &SecretString)| {
            (endpoint.door().key)(secret.expose_secret()).map_err(|fault| KeyError::Secret {
                endpoint,
                position: n + 1,
                fault,
            })
        };
        Ok(Self { endpoint, macs: secrets.iter().enumerate().map(key).collect::<Result<_, _>>()?, terms })
    }

    /// The endpoint whose requests they verify.
    pub fn endpoint(&self) -> Endpoint {
        self.endpoint
    }

    /// Checks the raw bytes against the signature that came with them, and the signed time against `request.now`.
    pub fn verify<'a>(&self, request: Unverified<'a>) -> Result<Verified<'a>, Rejection> {
        let delivery_id = (self.endpoint.door().verify)(&self.macs, &request)?;
        Ok(Verified { endpoint: self.endpoint, body: request.body, delivery_id, now: request.now, terms: self.terms })
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys")
            .field("endpoint", &self.endpoint)
            .field("count", &self.macs.len())
            .finish_non_exhaustive()
    }
}

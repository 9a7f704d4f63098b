//! What can go wrong with a call, and what that means for who called.

use crate::domain::dialect::Odd;
use crate::domain::tidy;
use std::time::Duration;

/// Longest detail of an error, in bytes.
const DETAIL_BYTES_MAX: usize = 500;

/// Why a call came to nothing. The details are tidied, at most 500 bytes, and hold no secret that we sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The provider said no, for good: nothing was made. 401 and 403 are about our own credentials.
    #[error("refused with {status}: {detail}")]
    Refused {
        /// The HTTP status, 4xx.
        status: u16,
        /// The provider's words.
        detail: String,
    },
    /// The provider failed when this key was used first, and will say so again for as long as it remembers the key.
    /// Whether anything was made is unknown: look for it, then go on under another key.
    #[error("the key is burnt: {detail}")]
    Burnt {
        /// The provider's words.
        detail: String,
    },
    /// The key was used before for something else. This call made nothing.
    #[error("the key was used before with other parameters")]
    KeyReused,
    /// No answer, or one that says to come again. What was asked for may have been done all the same.
    #[error("out of reach: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
        /// How long the provider wants to be left alone, where it says so.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent: the provider is not set up or does not offer this, or has no words for the price or the key.
    #[error("the provider is not set up for this, or has no words for it")]
    Unsupported,
    /// An answer that we cannot read. What was asked for may have been done all the same.
    #[error("an odd answer: {detail}")]
    Odd {
        /// What is odd about it; names the field, and no value of it.
        detail: String,
    },
}

impl CallError {
    /// Whether the same call may succeed in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Refused { .. } | Self::Burnt { .. } | Self::KeyReused | Self::Unsupported | Self::Odd { .. } => false,
        }
    }

    pub(super) fn refused(status: u16, detail: &str) -> Self {
        Self::Refused { status, detail: tidy(detail, DETAIL_BYTES_MAX) }
    }

    pub(super) fn burnt(detail: &str) -> Self {
        Self::Burnt { detail: tidy(detail, DETAIL_BYTES_MAX) }
    }

    pub(super) fn unavailable(detail: &str, retry_after: Option<Duration>) -> Self {
        Self::Unavailable { detail: tidy(detail, DETAIL_BYTES_MAX), retry_after }
    }

    pub(super) fn odd(detail: &str) -> Self {
        Self::Odd { detail: tidy(detail, DETAIL_BYTES_MAX) }
    }
}

impl From<Odd> for CallError {
    fn from(odd: Odd) -> Self {
        Self::odd(&odd.to_string())
    }
}

/// Why providers could not be set up. A fault of the configuration, for whoever runs this.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address is of no use.
    #[error("the address of {provider}'s API {fault}")]
    BadBase {
        /// Whose.
        provider: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The key, or client id or secret, cannot stand in a header.
    #[error("the credentials of {provider} must be printable ASCII without blanks, and not empty")]
    BadCredentials {
        /// Whose.
        provider: &'static str,
    },
    /// The client could not be made.
    #[error("no HTTP client can be made")]
    Client(#[source] reqwest::Error),
    /// The system trusts nobody.
    #[error("no root certificate was found: install the system's CA certificates, or set SSL_CERT_FILE")]
    NoRoots,
}

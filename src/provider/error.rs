//! The errors of a call, and what each means for the caller.

use crate::domain::dialect::Odd;
use crate::domain::tidy;
use std::time::Duration;

/// The longest detail of an error, in bytes.
const DETAIL_BYTES_MAX: usize = 500;

/// The reason why a call failed. Details have at most 500 bytes, without control characters and without the secrets that we
/// sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The provider has refused for good, and nothing was made. The statuses 401 and 403 are about our own credentials.
    #[error("refused with {status}: {detail}")]
    Refused {
        /// The HTTP status, 4xx.
        status: u16,
        /// The error in the words of the provider.
        detail: String,
    },
    /// The provider failed when this key was first used, and it repeats that failure for as long as it remembers the key. It
    /// is unknown whether anything was made: search for it, then continue with another key.
    #[error("the idempotency key cannot be used again: {detail}")]
    Burnt {
        /// The error in the words of the provider.
        detail: String,
    },
    /// The key was used before with other parameters. This call made nothing.
    #[error("the idempotency key was used before with other parameters")]
    KeyReused,
    /// There was no answer, or the answer asks us to try again. The call may have been executed.
    #[error("the provider is not available: {detail}")]
    Unavailable {
        /// The cause of the failure.
        detail: String,
        /// How long the provider asks us to wait, if it says so.
        retry_after: Option<Duration>,
    },
    /// Nothing was sent. The provider is not configured, does not offer this, or cannot express the price or the key.
    #[error("the provider is not configured for this, or cannot express the price or the key")]
    Unsupported,
    /// The answer cannot be read. The call may have been executed.
    #[error("the answer cannot be read: {detail}")]
    Odd {
        /// The problem with the answer. It names the field and never contains a value.
        detail: String,
    },
}

impl CallError {
    /// Whether the same call may succeed soon.
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

/// The reason why the providers could not be set up: a mistake in the configuration.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The address cannot be used.
    #[error("the address of {provider}'s API {fault}")]
    BadBase {
        /// The provider that the address belongs to.
        provider: &'static str,
        /// The problem with the address.
        fault: &'static str,
    },
    /// The key, or the client id or secret, cannot be put into a header.
    #[error("the credentials of {provider} must be printable ASCII without spaces, and not empty")]
    BadCredentials {
        /// The provider that the credentials belong to.
        provider: &'static str,
    },
    /// The HTTP client could not be made.
    #[error("the HTTP client cannot be made")]
    Client(#[source] reqwest::Error),
    /// The system has no root certificates.
    #[error("no root certificate was found: install the system's CA certificates, or set SSL_CERT_FILE")]
    NoRoots,
}

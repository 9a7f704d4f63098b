//! Why a request was refused.

use http::StatusCode;

/// How far the signed time may differ from ours, in either direction, in seconds. This is the default of Stripe and Standard
/// Webhooks.
pub const TOLERANCE_SECONDS: i64 = 300;

/// Why a request was refused before its body was read. The texts contain nothing from the request, so no signature and no forged
/// line can get into a log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// The signature header is missing or empty.
    #[error("the request is not signed: send it with the signature header of the webhook's provider")]
    SignatureMissing,
    /// A required header is missing, occurs twice, or is malformed.
    #[error("the header {header} {fault}")]
    SignatureMalformed {
        /// The name of the header.
        header: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// None of our keys made any of the signatures for this body.
    #[error(
        "no signature matches: compare the endpoint's secret with the configured ones, and see that nothing between \
         changes the body"
    )]
    SignatureWrong,
    /// The certificate of the signature is at an address that is not trusted.
    #[error("the signing certificate is not at a host that is allowed: compare GRANTONCE_PAYPAL_CERT_HOSTS")]
    CertificateElsewhere,
    /// The certificate was fetched and is not trusted.
    #[error("the signing certificate {fault}")]
    CertificateRefused {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The signature is valid but too old: the request was replayed, or a clock is wrong.
    #[error("signed {age_seconds} s ago, at most {TOLERANCE_SECONDS} s are allowed: sign anew, and check both clocks")]
    TooOld {
        /// The age of the signature.
        age_seconds: i64,
    },
    /// The signature is valid, but its time is in the future.
    #[error(
        "signed {ahead_seconds} s ahead of our clock, at most {TOLERANCE_SECONDS} s are allowed: check both clocks"
    )]
    TooNew {
        /// How far it is in the future.
        ahead_seconds: i64,
    },
    /// The signature is inside the body, and the body cannot be read. This happens only with providers that sign this way.
    #[error("the body is malformed: {fault}")]
    Malformed {
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl Rejection {
    /// The HTTP status of the answer: 400 for [`Rejection::Malformed`], else 401.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } => StatusCode::BAD_REQUEST,
            Self::SignatureMissing
            | Self::SignatureMalformed { .. }
            | Self::SignatureWrong
            | Self::CertificateElsewhere
            | Self::CertificateRefused { .. }
            | Self::TooOld { .. }
            | Self::TooNew { .. } => StatusCode::UNAUTHORIZED,
        }
    }

    /// Whether the answer is 401.
    pub fn is_unauthorized(&self) -> bool {
        self.status() == StatusCode::UNAUTHORIZED
    }

    /// The label for metrics and logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SignatureMissing => "signature_missing",
            Self::SignatureMalformed { .. } => "signature_malformed",
            Self::SignatureWrong => "signature_wrong",
            Self::CertificateElsewhere => "certificate_elsewhere",
            Self::CertificateRefused { .. } => "certificate_refused",
            Self::TooOld { .. } => "too_old",
            Self::TooNew { .. } => "too_new",
            Self::Malformed { .. } => "malformed",
        }
    }
}

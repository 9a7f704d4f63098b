//! Why a request was turned away.

use http::StatusCode;

/// How far the signed time may lie from ours, either way, in seconds. Stripe's and Standard Webhooks' own default.
pub const TOLERANCE_SECONDS: i64 = 300;

/// Why a request was turned away before anybody read its body. The texts hold nothing that the request brought, so that
/// no signature and no forged line can reach a log through them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Rejection {
    /// No signature header at all, or an empty one.
    #[error("the request is not signed: send it with the signature header of the webhook's provider")]
    SignatureMissing,
    /// A header that the signature needs is missing, duplicated or not of its form.
    #[error("the header {header} {fault}")]
    SignatureMalformed {
        /// Which header.
        header: &'static str,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// No key of ours made any of the signatures for this body.
    #[error(
        "no signature matches: compare the endpoint's secret with the configured ones, and see that nothing between \
         changes the body"
    )]
    SignatureWrong,
    /// The certificate that is to prove the signature lies where none of ours does.
    #[error("the signing certificate is not at a host that is allowed: compare GRANTONCE_PAYPAL_CERT_HOSTS")]
    CertificateElsewhere,
    /// The certificate is there, and is not to be believed.
    #[error("the signing certificate {fault}")]
    CertificateRefused {
        /// What is wrong with it.
        fault: &'static str,
    },
    /// The signature is good, but was made too long ago: a replay, or a clock that is wrong.
    #[error("signed {age_seconds} s ago, at most {TOLERANCE_SECONDS} s are allowed: sign anew, and check both clocks")]
    TooOld {
        /// How long ago.
        age_seconds: i64,
    },
    /// The signature is good, but was made in the future.
    #[error(
        "signed {ahead_seconds} s ahead of our clock, at most {TOLERANCE_SECONDS} s are allowed: check both clocks"
    )]
    TooNew {
        /// How far ahead.
        ahead_seconds: i64,
    },
    /// The signature cannot be looked for, because it lies in a body that cannot be read. Only from providers who sign
    /// that way.
    #[error("the body is malformed: {fault}")]
    Malformed {
        /// What is wrong with it.
        fault: &'static str,
    },
}

impl Rejection {
    /// The HTTP status to answer with: 400 for [`Rejection::Malformed`], else 401.
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

    /// Whether it is answered 401.
    pub fn is_unauthorized(&self) -> bool {
        self.status() == StatusCode::UNAUTHORIZED
    }

    /// A metric's label.
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

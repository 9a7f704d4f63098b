//! Certificates of webhooks: from where they may come, when they are trusted, and what they sign.

use super::Rejection;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use std::fmt;
use std::time::Duration;
use time::OffsetDateTime;
use webpki::{ALL_VERIFICATION_ALGS, EndEntityCert, Error, KeyUsage};

/// Most certificates that are read at once: the one that signs, and those between it and a root.
const CERTIFICATES_MAX: usize = 8;

/// Longest address of a certificate. PayPal's addresses have 80 bytes.
const URL_BYTES_MAX: usize = 300;

/// Whom an endpoint with certificates trusts. The default is nobody.
#[derive(Clone, Default)]
pub struct Trust {
    /// Hosts from which a certificate may be fetched, as they are written in an address: in lower case, with a port only if it is
    /// not that of https.
    pub hosts: Vec<String>,
    /// The roots at which a chain of certificates may end.
    pub anchors: Vec<TrustAnchor<'static>>,
}

/// The address of a certificate: over https, at a trusted host, in characters that every program reads alike. Made by
/// [`Keys::certificate_url`](super::Keys::certificate_url).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CertificateUrl(String);

impl CertificateUrl {
    /// The text of the address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A signature, and what it has to prove.
pub(super) struct Signed<'a> {
    /// PEM certificates, the one that signs first.
    pub(super) certificates: &'a [u8],
    /// Possible intermediates. They are trusted no more than those in the request.
    pub(super) between: &'a [u8],
    /// The signer must have one of these names.
    pub(super) names: &'a [&'a str],
    /// The signed text must be one of these.
    pub(super) texts: &'a [String],
    /// RSA with SHA-256, PKCS #1 v1.5.
    pub(super) signature: &'a [u8],
}

impl Trust {
    /// Takes an address from a request. Refuses every address that could lead elsewhere than it seems. The host is compared
    /// character by character up to the first slash, so there can be no user and no other port. The rest contains no character that
    /// is escaped, cut off or normalised on the way.
    pub(super) fn certificate_url(&self, header: &'static str, url: &str) -> Result<CertificateUrl, Rejection> {
        let malformed = |fault| Rejection::SignatureMalformed { header, fault };
        if url.len() > URL_BYTES_MAX {
            return Err(malformed("is longer than 300 bytes"));
        }
        let rest = url.strip_prefix("https://").ok_or(malformed("must begin with https://"))?;
        let (host, path) = rest.split_once('/').ok_or(malformed("must name a certificate"))?;
        if !self.hosts.iter().any(|trusted| trusted == host) {
            return Err(Rejection::CertificateElsewhere);
        }
        let is_plain = |part: &str| {
            let is_step = part.bytes().all(|b| b == b'.');
            !is_step && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if path.split('/').all(is_plain) {
            Ok(CertificateUrl(url.to_owned()))
        } else {
            Err(malformed("must have a path of letters, digits, hyphens, underscores and full stops"))
        }
    }

    /// Checks that a certificate that is trusted at this time made the signature.
    pub(super) fn check(&self, signed: &Signed<'_>, now: OffsetDateTime) -> Result<(), Rejection> {
        let certificates = certificates(signed.certificates)?;
        let Some((first, others)) = certificates.split_first() else {
            return Err(refused("is none: there is no certificate in what was fetched"));
        };
        let between: Vec<_> = others.iter().cloned().chain(self::certificates(signed.between)?).collect();
        let signer = EndEntityCert::try_from(first).map_err(|error| refusal(&error))?;
        let at = UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(now.unix_timestamp()).unwrap_or(0)));
        signer
            .verify_for_usage(ALL_VERIFICATION_ALGS, &self.anchors, &between, at, KeyUsage::server_auth(), None, None)
            .map_err(|error| refusal(&error))?;
        // The whole name must match. A certificate with a star would also belong to others.
        if !signer.valid_dns_names().any(|name| signed.names.contains(&name)) {
            return Err(refused("is made out to another name"));
        }
        let is_of = |text: &String| {
            signer.verify_signature(webpki::ring::RSA_PKCS1_2048_8192_SHA256, text.as_bytes(), signed.signature).is_ok()
        };
        if signed.texts.iter().any(is_of) { Ok(()) } else { Err(Rejection::SignatureWrong) }
    }
}

/// It tells how many roots there are, not which: a system trusts more than a hundred.
impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("hosts", &self.hosts).field("anchors", &self.anchors.len()).finish()
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Rejection> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).take(CERTIFICATES_MAX + 1).collect();
    let all = all.map_err(|_| refused("is not PEM"))?;
    if all.len() > CERTIFICATES_MAX { Err(refused("comes with more than seven others")) } else { Ok(all) }
}

fn refused(fault: &'static str) -> Rejection {
    Rejection::CertificateRefused { fault }
}

fn refusal(error: &Error) -> Rejection {
    refused(if matches!(error, Error::CertExpired { .. }) {
        "has expired, or one that vouches for it has"
    } else if matches!(error, Error::CertNotValidYet { .. }) {
        "is not valid yet: see that our clock is right"
    } else if matches!(error, Error::UnknownIssuer | Error::InvalidSignatureForPublicKey) {
        // The second has the name of a trusted root, but not its key.
        "leads to none that this system trusts: install the system's CA certificates, or name a file that has the \
         missing one in SSL_CERT_FILE"
    } else {
        "is not one to sign with"
    })
}

//! What all HMAC-signed webhooks share: a header that stands once, a tag compared in constant time, a time within
//! tolerance.

use super::rejection::{Rejection, TOLERANCE_SECONDS};
use super::{KeyFault, Unverified};
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use time::OffsetDateTime;

/// An HMAC-SHA256 tag.
pub(super) type Tag = [u8; 32];

/// HMAC-SHA256 with its key taken in.
#[derive(Clone)]
pub(super) struct Mac(Hmac<Sha256>);

impl Mac {
    pub(super) fn new(key: &[u8]) -> Result<Self, KeyFault> {
        if key.is_empty() {
            return Err(KeyFault::Empty);
        }
        // HMAC takes keys of any length above that, so this error does not occur.
        Hmac::new_from_slice(key).map(Self).map_err(|_| KeyFault::Empty)
    }

    /// The tag over `parts` with a full stop between them.
    pub(super) fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut mac = self.0.clone();
        for (n, part) in parts.iter().enumerate() {
            if n > 0 {
                mac.update(b".");
            }
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }
}

/// Checks that any of the keys made any of the tags over `parts`. How long it takes says nothing of which, or how much
/// of one, was right.
pub(super) fn check(macs: &[Mac], parts: &[&[u8]], tags: &[Tag]) -> Result<(), Rejection> {
    let mut is_good = Choice::from(0);
    for mac in macs {
        let ours = mac.tag(parts);
        for theirs in tags {
            is_good |= ours.ct_eq(theirs);
        }
    }
    if bool::from(is_good) { Ok(()) } else { Err(Rejection::SignatureWrong) }
}

/// A header's text; none where it is missing or empty. A second header of the name is refused: whoever is on the way might
/// look at the other one.
pub(super) fn single<'a>(request: &Unverified<'a>, header: &'static str) -> Result<Option<&'a str>, Rejection> {
    let malformed = |fault| Rejection::SignatureMalformed { header, fault };
    let mut values = request.headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("stands there more than once"));
    }
    let text = value.to_str().map_err(|_| malformed("has characters other than printable ASCII"))?;
    Ok(Some(text).filter(|text| !text.is_empty()))
}

/// Seconds since 1970, in digits only: a sign or a blank would be signed along and still mean the same time.
pub(super) fn unix_seconds(text: &str) -> Option<i64> {
    // Eleven digits reach the year 5138.
    let is_number = (1..=11).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Checks that a signature's time lies within the tolerance. To be asked after [`check`], so that only who has a key
/// learns anything of our clock.
pub(super) fn check_time(signed_at: i64, now: OffsetDateTime) -> Result<(), Rejection> {
    let age_seconds = now.unix_timestamp().saturating_sub(signed_at);
    if age_seconds > TOLERANCE_SECONDS {
        Err(Rejection::TooOld { age_seconds })
    } else if age_seconds < -TOLERANCE_SECONDS {
        Err(Rejection::TooNew { ahead_seconds: age_seconds.saturating_neg() })
    } else {
        Ok(())
    }
}

//! Common parts of HMAC-signed webhooks: a header that occurs once, a comparison in constant time, and a tolerance for the signed
//! time.

use super::rejection::{Rejection, TOLERANCE_SECONDS};
use super::{KeyFault, Unverified};
use hmac::{Hmac, KeyInit, Mac as _};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};
use time::OffsetDateTime;

/// The tag of HMAC-SHA256.
pub(super) type Tag = [u8; 32];

/// HMAC-SHA256 that has read its key.
#[derive(Clone)]
pub(super) struct Mac(Hmac<Sha256>);

impl Mac {
    pub(super) fn new(key: &[u8]) -> Result<Self, KeyFault> {
        if key.is_empty() {
            return Err(KeyFault::Empty);
        }
        // HMAC takes keys of any greater length, so this error does not occur.
        Hmac::new_from_slice(key).map(Self).map_err(|_| KeyFault::Empty)
    }

    /// The tag over `parts`, separated by full stops.
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

/// Checks whether any of the keys made any of the tags over `parts`. The time that it takes does not reveal which tag, or how much
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

/// The text of a header. `None` if it is missing or empty. A repeated header is refused, because another program on the way might
/// have read the other one.
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

/// Seconds since 1970, digits only. A sign or a blank would be part of the signed text but not change the time.
pub(super) fn unix_seconds(text: &str) -> Option<i64> {
    // Eleven digits reach the year 5138.
    let is_number = (1..=11).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

/// Checks that the signed time is within the tolerance. Call it after [`check`], so only the owner of a key learns anything about
/// our clock.
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

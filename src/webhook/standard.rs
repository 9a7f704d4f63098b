//! Standard Webhooks 1.0 (<https://www.standardwebhooks.com>), whose body is our own `payment-status.v1`.
//!
//! This small implementation is our own. The crate `standardwebhooks` (1.0.1, of 2024) reads the system's clock, takes the first of
//! repeated headers, does not know the `svix-` names, and refuses bodies that are not UTF-8.

use super::signature::{Mac, Tag, check, check_time, single, unix_seconds};
use super::{Adapter, KeyFault, Proof, Rejection, SecretProof, Translation, Unverified, Verified};
use crate::domain::Provider;
use crate::message;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

pub(super) static ADAPTER: Adapter = Adapter {
    provider: Provider::STANDARD,
    proof: Proof::Secret(SecretProof { key, verify }),
    translate,
    events: None,
};

/// The shortest symmetric secret that the specification allows.
const KEY_BYTES_MIN: usize = 24;

/// Secrets are copied by hand, and their padding gets lost.
const BASE64_SECRET: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The header names of one family.
struct Names {
    id: &'static str,
    timestamp: &'static str,
    signature: &'static str,
}

/// The names in the specification.
const WEBHOOK: Names = Names { id: "webhook-id", timestamp: "webhook-timestamp", signature: "webhook-signature" };
/// The names that Svix sends. Its scheme became the specification.
const SVIX: Names = Names { id: "svix-id", timestamp: "svix-timestamp", signature: "svix-signature" };

/// The headers of one family in a request.
#[derive(PartialEq, Eq)]
struct Signed<'a> {
    id: &'a str,
    timestamp: &'a str,
    signatures: &'a str,
}

pub(super) fn key(secret: &str) -> Result<Mac, KeyFault> {
    if secret.is_empty() {
        return Err(KeyFault::Empty);
    }
    if !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(KeyFault::BadCharacter);
    }
    let encoded = secret.strip_prefix("whsec_").ok_or(KeyFault::NoPrefix)?;
    let key = BASE64_SECRET.decode(encoded).map_err(|_| KeyFault::NotBase64)?;
    if key.len() < KEY_BYTES_MIN {
        return Err(KeyFault::TooShort { min_bytes: KEY_BYTES_MIN });
    }
    Mac::new(&key)
}

fn verify<'a>(macs: &[Mac], request: &Unverified<'a>) -> Result<Option<&'a str>, Rejection> {
    // A sender may write both families, but then they must be equal. A family that is incomplete is never completed from the other
    // one. So no request can be read with two different ids or times.
    let signed = match (family(request, &WEBHOOK)?, family(request, &SVIX)?) {
        (Some(webhook), Some(svix)) if webhook == svix => webhook,
        (Some(_), Some(_)) => return Err(malformed(SVIX.id, "and its like say something else than the webhook- ones")),
        (Some(signed), None) | (None, Some(signed)) => signed,
        (None, None) => return Err(Rejection::SignatureMissing),
    };
    let timestamp = unix_seconds(signed.timestamp)
        .ok_or(malformed(WEBHOOK.timestamp, "must be whole seconds since 1970, in digits only"))?;
    // `v1a` is Ed25519, for which there is no key here. A signature that cannot be decoded matches nothing.
    let tags: Vec<Tag> = signed
        .signatures
        .split(' ')
        .filter_map(|signature| signature.strip_prefix("v1,"))
        .filter_map(|encoded| BASE64_STANDARD.decode(encoded).ok()?.try_into().ok())
        .collect();
    check(macs, &[signed.id.as_bytes(), signed.timestamp.as_bytes(), request.body], &tags)?;
    check_time(timestamp, request.now)?;
    Ok(Some(signed.id))
}

/// The headers of one family: all three, or none.
fn family<'a>(request: &Unverified<'a>, names: &Names) -> Result<Option<Signed<'a>>, Rejection> {
    let id = single(request, names.id)?;
    let timestamp = single(request, names.timestamp)?;
    let signatures = single(request, names.signature)?;
    let (id, timestamp, signatures) = match (id, timestamp, signatures) {
        (None, None, None) => return Ok(None),
        (Some(id), Some(timestamp), Some(signatures)) => (id, timestamp, signatures),
        (_, _, None) => return Err(Rejection::SignatureMissing),
        (None, _, Some(_)) => return Err(malformed(names.id, "is missing")),
        (Some(_), None, Some(_)) => return Err(malformed(names.timestamp, "is missing")),
    };
    // "It's important that both the message id and the timestamp … not be allowed to include any `.`" (specification 1.0). The full
    // stop separates them from the body, and a signature must fit one way to split it only.
    if !id.bytes().all(|b| b.is_ascii_graphic() && b != b'.') {
        return Err(malformed(names.id, "must be printable ASCII without blanks and full stops"));
    }
    Ok(Some(Signed { id, timestamp, signatures }))
}

fn malformed(header: &'static str, fault: &'static str) -> Rejection {
    Rejection::SignatureMalformed { header, fault }
}

fn translate(verified: &Verified<'_>) -> Vec<Translation> {
    vec![translated(verified)]
}

fn translated(verified: &Verified<'_>) -> Translation {
    let livemode = || serde_json::from_slice::<Value>(verified.body).ok()?.get("livemode")?.as_bool();
    // The id is the same in all attempts of one delivery. The id in the body is not used.
    let message_id = match verified.message_id("", verified.delivery_id.unwrap_or_default()) {
        Ok(message_id) => message_id,
        Err(fault) => return verified.untranslatable(None, livemode(), &format!("{}: {fault}", WEBHOOK.id)),
    };
    match message::decode_as(verified.body, verified.now, &ADAPTER.provider, message_id.clone()) {
        Ok(event) => Translation::Events(vec![event]),
        Err(error) => verified.untranslatable(Some(message_id), livemode(), &error.to_string()),
    }
}

#[cfg(test)]
mod tests;

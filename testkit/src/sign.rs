//! Signatures of webhooks, as the documentation of each provider describes them.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;

/// Why a webhook could not be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The secret does not have the format of this provider's secrets.
    #[error("the secret for {0} has not the form of one")]
    BadSecret(&'static str),
}

/// The value of `Stripe-Signature` for a body, signed at `timestamp` (seconds since 1970).
/// <https://docs.stripe.com/webhooks#verify-manually>
pub fn stripe_signature(secret: &str, timestamp: i64, body: &[u8]) -> Result<String, SignError> {
    let tag = tag(secret.as_bytes(), &[timestamp.to_string().as_bytes(), b".", body])
        .ok_or(SignError::BadSecret("Stripe"))?;
    Ok(format!("t={timestamp},v1={}", hex::encode(tag)))
}

/// The value of `webhook-signature` for a body under a `webhook-id`, signed at `timestamp` (seconds since 1970).
/// <https://www.standardwebhooks.com>
pub fn standard_signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Result<String, SignError> {
    let bad = SignError::BadSecret("Standard Webhooks");
    let key = secret.strip_prefix("whsec_").and_then(|encoded| BASE64_STANDARD.decode(encoded).ok());
    let parts = [id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body].concat();
    let tag = key.and_then(|key| tag(&key, &[&parts])).ok_or(bad)?;
    Ok(format!("v1,{}", BASE64_STANDARD.encode(tag)))
}

/// The value of `additionalData.hmacSignature` for a `NotificationRequestItem`. `None` for an item that Adyen would not send.
/// <https://docs.adyen.com/development-resources/webhooks/secure-webhooks/verify-hmac-signatures>
pub fn adyen_signature(key_hex: &str, item: &Value) -> Result<Option<String>, SignError> {
    let bad = SignError::BadSecret("Adyen");
    let key = hex::decode(key_hex).map_err(|_| bad.clone())?;
    let fields = [
        "/pspReference",
        "/originalReference",
        "/merchantAccountCode",
        "/merchantReference",
        "/amount/value",
        "/amount/currency",
        "/eventCode",
        "/success",
    ];
    let mut signed = Vec::new();
    for field in fields {
        signed.push(match item.pointer(field) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(_) | Value::Object(_)) => return Ok(None),
            Some(other @ (Value::Bool(_) | Value::Number(_))) => other.to_string(),
        });
    }
    let tag = tag(&key, &[signed.join(":").as_bytes()]).ok_or(bad)?;
    Ok(Some(BASE64_STANDARD.encode(tag)))
}

fn tag(key: &[u8], parts: &[&[u8]]) -> Option<[u8; 32]> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).ok()?;
    for part in parts {
        mac.update(part);
    }
    Some(mac.finalize().into_bytes().into())
}

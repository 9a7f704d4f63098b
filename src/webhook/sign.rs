//! The other side: signing as a provider does, for the simulated provider and for tests.

use super::signature::Mac;
use super::{Endpoint, KeyError, KeyFault, adyen, standard, stripe};
use base64::prelude::{BASE64_STANDARD, Engine as _};

/// The value of `Stripe-Signature` for a body, signed at `timestamp` (seconds since 1970).
pub fn stripe_signature(secret: &str, timestamp: i64, body: &[u8]) -> Result<String, KeyError> {
    let mac = key(Endpoint::Stripe, stripe::key, secret)?;
    let timestamp = timestamp.to_string();
    Ok(format!("t={timestamp},v1={}", hex::encode(mac.tag(&[timestamp.as_bytes(), body]))))
}

/// The value of `webhook-signature` for a body under a `webhook-id`, signed at `timestamp` (seconds since 1970).
pub fn standard_signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Result<String, KeyError> {
    let mac = key(Endpoint::Standard, standard::key, secret)?;
    let tag = mac.tag(&[id.as_bytes(), timestamp.to_string().as_bytes(), body]);
    Ok(format!("v1,{}", BASE64_STANDARD.encode(tag)))
}

/// The value of `additionalData.hmacSignature` for a `NotificationRequestItem`; none for one that Adyen would not send.
pub fn adyen_signature(key_hex: &str, item: &serde_json::Value) -> Result<Option<String>, KeyError> {
    Ok(adyen::sign(&key(Endpoint::Adyen, adyen::key, key_hex)?, item))
}

fn key(endpoint: Endpoint, take: fn(&str) -> Result<Mac, KeyFault>, secret: &str) -> Result<Mac, KeyError> {
    take(secret).map_err(|fault| KeyError::Secret { endpoint, position: 1, fault })
}

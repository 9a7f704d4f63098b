//! How providers sign their webhooks.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// A secret that nothing can be signed with.
#[derive(Debug, thiserror::Error)]
#[error("the webhook secret is no whsec_ and base64")]
pub(super) struct KeyError;

/// The value of `Stripe-Signature`; the key is the whole secret, `whsec_` included.
pub(super) fn stripe_signature(secret: &str, timestamp: i64, body: &[u8]) -> Result<String, KeyError> {
    let v1 = hmac_sha256(secret.as_bytes(), &[timestamp.to_string().as_bytes(), b".", body])?;
    Ok(format!("t={timestamp},v1={}", hex::encode(v1)))
}

/// The value of `webhook-signature` (Standard Webhooks 1.0); the key is the base64 after `whsec_`.
pub(super) fn standard_signature(secret: &str, id: &str, timestamp: i64, body: &[u8]) -> Result<String, KeyError> {
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap_or(secret)).map_err(|_| KeyError)?;
    let v1 = hmac_sha256(&key, &[id.as_bytes(), b".", timestamp.to_string().as_bytes(), b".", body])?;
    Ok(format!("v1,{}", STANDARD.encode(v1)))
}

fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> Result<Vec<u8>, KeyError> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| KeyError)?;
    for part in parts {
        mac.update(part);
    }
    Ok(mac.finalize().into_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stripes_own_vectors() {
        let body = include_bytes!("../../tests/vectors/stripe_dotnet_signature_vector_body.json");
        assert_eq!(
            stripe_signature("webhook_secret", 1533204620, body).unwrap(),
            "t=1533204620,v1=2220f87ef101a04665f11cdf770523143f875572008577fa0f20882ddb9cc3c7"
        );
        let body = include_bytes!("../../tests/vectors/stripe_async_stripe_signature_vector_body.json");
        assert_eq!(
            stripe_signature("secret", 1533204620, body).unwrap(),
            "t=1533204620,v1=d7373bc68f4bd320b253cd7461f87af6e1cdf1b4d7db1614d8d1d746972d2d0a"
        );
    }

    #[test]
    fn standard_webhooks_own_vectors() {
        assert_eq!(
            standard_signature(
                "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1614265330,
                br#"{"test": 2432232314}"#
            )
            .unwrap(),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
        assert_eq!(
            standard_signature(
                "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD",
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1649367553,
                br#"{"email":"test@example.com","username":"test_user"}"#
            )
            .unwrap(),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
    }
}

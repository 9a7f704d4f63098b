//! Bearer tokens, compared in constant time, and signatures with them.

use super::problem::Problem;
use crate::followed::Followed;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use hmac::{Hmac, KeyInit as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// The tokens that a listener accepts. It keeps digests only. They have one length, so a comparison reveals nothing,
/// and memory shows no token. Its `Debug` shows names only.
#[derive(Clone)]
pub struct BearerTokens(Arc<[(String, [u8; 32])]>);

impl BearerTokens {
    /// Accepts these pairs of a name and a token.
    pub fn new<T: Into<(String, SecretString)>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let digests = tokens.into_iter().map(|named| {
            let (name, token) = named.into();
            (name, digest(token.expose_secret().as_bytes()))
        });
        Self(digests.collect())
    }

    /// The present tokens, made again whenever they change.
    pub fn following<T: Clone + Into<(String, SecretString)> + Send + Sync + 'static>(
        tokens: &Followed<Vec<T>>,
    ) -> Followed<Self> {
        let made = tokens.map(|tokens| Ok::<_, Infallible>(Self::new(tokens.iter().cloned())));
        match made {
            Ok(made) => made,
        }
    }

    /// The name of the sender of the request, or 401. All tokens are compared, whichever fits.
    pub fn check(&self, headers: &HeaderMap) -> Result<&str, Problem> {
        let refused = || Problem::unauthorized("a valid bearer token is required").with_challenge();
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(refused());
        };
        let (scheme, token) = value.as_bytes().split_at_checked(7).ok_or_else(refused)?;
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(refused());
        }
        self.holder(token.trim_ascii()).ok_or_else(refused)
    }

    /// The name of the holder of this token. All tokens are compared, whichever fits.
    pub fn holder(&self, token: &[u8]) -> Option<&str> {
        let given = digest(token);
        let mut holder = None;
        for (name, known) in self.0.iter() {
            if bool::from(given.ct_eq(known)) {
                holder = Some(name.as_str());
            }
        }
        holder
    }

    /// Signs in the name of a token's holder. Its signatures are void when the token is no longer one of ours.
    pub fn signer(&self, name: &str) -> Option<Hmac<Sha256>> {
        let (_, digest) = self.0.iter().find(|(known, _)| known == name)?;
        Some(keyed(digest))
    }
}

/// HMAC with this key. The key is brought to the length of a block here, as HMAC defines it, because that cannot fail:
/// no error can lead to a signature that anybody could make.
pub fn keyed(key: &[u8]) -> Hmac<Sha256> {
    let mut block = [0_u8; 64];
    if key.len() <= block.len() {
        block.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
    } else {
        block.iter_mut().zip(Sha256::digest(key)).for_each(|(to, from)| *to = from);
    }
    Hmac::new(&block.into())
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hmac::Mac as _;

    #[test]
    fn keys_of_every_length_are_hmac_s_own() {
        for length in [1, 32, 63, 64, 65, 200] {
            let key = "k".repeat(length);
            let ours = keyed(key.as_bytes()).chain_update("text").finalize().into_bytes();
            let theirs = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap().chain_update("text");
            assert_eq!(ours, theirs.finalize().into_bytes(), "{length}");
        }
    }

    #[test]
    fn each_holder_signs_with_his_own_token() {
        let token = |name: &str, token: &str| (name.to_owned(), SecretString::from(token));
        let tokens = BearerTokens::new([token("ada", "a"), token("bob", "b")]);
        let sign = |name: &str| Some(tokens.signer(name)?.chain_update("text").finalize().into_bytes());
        assert_eq!((tokens.holder(b"a"), tokens.holder(b"b"), tokens.holder(b"c")), (Some("ada"), Some("bob"), None));
        assert!(sign("ada").is_some() && sign("ada") != sign("bob") && sign("eve").is_none());
        let renewed = BearerTokens::new([token("ada", "another")]);
        let again = renewed.signer("ada").unwrap().chain_update("text").finalize().into_bytes();
        assert_ne!(sign("ada"), Some(again));
    }
}

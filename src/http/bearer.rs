//! Bearer tokens, compared in constant time.

use super::problem::Problem;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// The tokens that a listener takes. Keeps digests only: of one length, so that a comparison tells nothing, and of
/// no use to who reads the memory. Its `Debug` shows names only.
#[derive(Clone)]
pub struct BearerTokens(Arc<[(String, [u8; 32])]>);

impl BearerTokens {
    /// Takes pairs of a name and a token.
    pub fn new<T: Into<(String, SecretString)>>(tokens: impl IntoIterator<Item = T>) -> Self {
        let digests = tokens.into_iter().map(|named| {
            let (name, token) = named.into();
            (name, digest(token.expose_secret().as_bytes()))
        });
        Self(digests.collect())
    }

    /// The name of whoever sent the request; else 401. All tokens are compared, whichever fits.
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
        let given = digest(token.trim_ascii());
        let mut holder = None;
        for (name, known) in self.0.iter() {
            if bool::from(given.ct_eq(known)) {
                holder = Some(name.as_str());
            }
        }
        holder.ok_or_else(refused)
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl fmt::Debug for BearerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

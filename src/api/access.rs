//! Access rights: a site has a bearer token, a buyer has the status token of one order.

use crate::config::ApiConfig;
use crate::domain::OrderId;
use crate::followed::Followed;
use crate::http::{BearerTokens, Problem, keyed};
use axum::http::HeaderMap;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hmac::Mac as _;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// Comes before the order id in the authenticated text, so that no other use of the key can make a token.
const PURPOSE: &str = "grantonce status token v1:";

/// Proof that the request has the bearer token of a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    /// The name of the site. Idempotency keys belong to it.
    pub(super) name: String,
}

/// Proof that the request may read one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// By a bearer token. It sees everything.
    Site,
    /// By the status token of the order. It sees the status, but not the notes of the site.
    Buyer,
}

/// The keys of this process.
#[derive(Clone)]
pub(super) struct Access {
    bearers: Followed<BearerTokens>,
    status_key: Followed<SecretString>,
}

impl Access {
    pub(super) fn new(config: &ApiConfig) -> Self {
        Self { bearers: BearerTokens::following(&config.tokens), status_key: config.status_token_key.clone() }
    }

    /// Accepts a site, or answers 401.
    pub(super) fn site(&self, headers: &HeaderMap) -> Result<Site, Problem> {
        Ok(Site { name: self.bearers.current().check(headers)?.to_owned() })
    }

    /// Accepts a reader of one order by either token, or answers 401. The answer does not depend on whether the order
    /// exists, so a request without a token learns nothing.
    pub(super) fn reader(&self, headers: &HeaderMap, id: &str, token: Option<&str>) -> Result<Reader, Problem> {
        if self.bearers.current().check(headers).is_ok() {
            return Ok(Reader::Site);
        }
        let is_buyer = match (token, id.parse::<OrderId>()) {
            (Some(token), Ok(id)) => bool::from(self.status_token(id).as_bytes().ct_eq(token.as_bytes())),
            (Some(_) | None, Ok(_) | Err(_)) => false,
        };
        if is_buyer {
            return Ok(Reader::Buyer);
        }
        Err(Problem::unauthorized("a valid bearer token, or the order's own status token, is required")
            .with_challenge())
    }

    /// The token by which the buyer's browser reads this order. It stays the same as long as the key does.
    pub(super) fn status_token(&self, id: OrderId) -> String {
        let key = keyed(self.status_key.current().expose_secret().as_bytes());
        let mac = key.chain_update(PURPOSE).chain_update(id.to_string());
        BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

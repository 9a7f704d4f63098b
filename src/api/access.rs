//! Who may do what: a site by its bearer token, a buyer by the status token of one order.

use crate::config::ApiConfig;
use crate::domain::OrderId;
use crate::followed::Followed;
use crate::http::{BearerTokens, Problem, keyed};
use axum::http::HeaderMap;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hmac::Mac as _;
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// Stands before the order's id in what is authenticated: the key makes nothing else that could pass for a token.
const PURPOSE: &str = "grantonce status token v1:";

/// Proof that a site's bearer token came with the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Site {
    /// Whose; scopes idempotency keys.
    pub(super) name: String,
}

/// Proof that the request may read one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// By a bearer token: sees everything.
    Site,
    /// By the order's status token: sees how it stands, not what the site noted down.
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

    /// Lets a site in; else 401.
    pub(super) fn site(&self, headers: &HeaderMap) -> Result<Site, Problem> {
        Ok(Site { name: self.bearers.current().check(headers)?.to_owned() })
    }

    /// Lets a reader of one order in, by either token; else 401. Whether there is such an order plays no part: who has
    /// neither token learns nothing of it.
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

    /// The token by which a buyer's browser reads this order. The same for ever, as long as the key is.
    pub(super) fn status_token(&self, id: OrderId) -> String {
        let key = keyed(self.status_key.current().expose_secret().as_bytes());
        let mac = key.chain_update(PURPOSE).chain_update(id.to_string());
        BASE64_URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    }
}

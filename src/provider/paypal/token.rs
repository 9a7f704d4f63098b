//! The token that PayPal gives for the client's credentials. It is kept until shortly before it expires, and only one task
//! asks for it at a time.

use super::judge;
use crate::domain::dialect::Object;
use crate::followed::Followed;
use crate::provider::CallError;
use crate::provider::client::{Auth, Call, Http, is_credential};
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

/// How long before its end a token is no longer used. This is longer than a call takes.
const MARGIN: Duration = Duration::from_secs(60);

/// The longest time for which a token is used, even if PayPal allows more.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(super) struct Tokens {
    client_id: String,
    client_secret: Followed<SecretString>,
    current: Mutex<Option<Arc<Token>>>,
}

#[derive(Debug)]
pub(super) struct Token {
    pub(super) secret: SecretString,
    usable_until: Instant,
}

impl Tokens {
    pub(super) fn new(client_id: String, client_secret: Followed<SecretString>) -> Self {
        Self { client_id, client_secret, current: Mutex::new(None) }
    }

    /// Returns the token in use, or a new one.
    pub(super) async fn current(&self, http: &Http) -> Result<Arc<Token>, CallError> {
        self.other_than(None, http).await
    }

    /// Returns another token than the one that was refused. Another task may have asked for it already.
    pub(super) async fn after(&self, refused: &Arc<Token>, http: &Http) -> Result<Arc<Token>, CallError> {
        self.other_than(Some(refused), http).await
    }

    /// A task that waits for the call of another task waits no longer than for its own call.
    async fn other_than(&self, refused: Option<&Arc<Token>>, http: &Http) -> Result<Arc<Token>, CallError> {
        let whole = http.deadlines().whole;
        let late = || CallError::unavailable(&format!("no token within {} ms", whole.as_millis()), None);
        timeout(whole, self.in_turn(refused, http)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn in_turn(&self, refused: Option<&Arc<Token>>, http: &Http) -> Result<Arc<Token>, CallError> {
        let mut current = self.current.lock().await;
        let is_good = |token: &&Arc<Token>| {
            Instant::now() < token.usable_until && refused.is_none_or(|refused| !Arc::ptr_eq(refused, token))
        };
        if let Some(token) = current.as_ref().filter(is_good) {
            return Ok(Arc::clone(token));
        }
        let token = Arc::new(self.ask(http).await?);
        *current = Some(Arc::clone(&token));
        Ok(token)
    }

    async fn ask(&self, http: &Http) -> Result<Token, CallError> {
        let form = "application/x-www-form-urlencoded";
        let call = Call::post("/v1/oauth2/token".to_owned(), form, "grant_type=client_credentials".to_owned());
        let auth = Auth::Basic { user: &self.client_id, password: &self.client_secret.current() };
        let asked_at = Instant::now();
        let answer = http.send(&call, auth).await?;
        let body = judge(&answer)?.json()?;
        let body = Object::root(&body).ok_or_else(|| CallError::odd("the token's body is not a JSON object"))?;
        let secret = body.text("access_token")?;
        if !is_credential(secret) {
            return Err(body.odd("access_token", "must be printable ASCII").into());
        }
        let seconds = body.integer("expires_in")?;
        let life = u64::try_from(seconds).map_err(|_| body.odd("expires_in", "must not be negative"))?;
        let life = Duration::from_secs(life).min(LIFE_MAX);
        // A token that lives for a moment only is used for this moment.
        let usable = life.saturating_sub(MARGIN).max(life / 2);
        Ok(Token { secret: secret.to_owned().into(), usable_until: asked_at + usable })
    }
}

//! One HTTPS request and its answer. Both are limited in time and size, and they go only to the address that was configured.
//!
//! Redirects are not followed: the question must reach the configured server, and no other server may see the key.

use super::{BuildError, CallError};
use crate::domain::dialect::mended;
use crate::http::{client, plain_client, system_roots};
use crate::telemetry::causes;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use bytes::{Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, DATE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use reqwest::{Client, ClientBuilder, Request, Response, Url, redirect};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::net::IpAddr;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// The longest answer that is read.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// How long an idle connection is kept. This is shorter than providers keep theirs, so a call rarely uses a connection that
/// was just closed.
const IDLE_MAX: Duration = Duration::from_secs(20);

/// The longest idempotency key of a call. PayPal accepts no longer one.
const KEY_BYTES_MAX: usize = 108;

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// The time from the first byte sent, or from the wait for a connection, to the last byte read.
    pub(super) whole: Duration,
    /// The time until the connection is open, before TLS.
    pub(super) connect: Duration,
}

/// The HTTP client of one provider's API.
#[derive(Debug)]
pub(super) struct Http {
    client: Client,
    base: String,
    host: String,
    deadlines: Deadlines,
}

/// A request without its credentials.
#[derive(Debug)]
pub(super) struct Call {
    method: Method,
    /// The path after the base address, with the query.
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
}

/// The credentials of a call.
#[derive(Debug, Clone, Copy)]
pub(super) enum Auth<'a> {
    Bearer(&'a SecretString),
    Basic { user: &'a str, password: &'a SecretString },
}

/// A whole answer. If it is no success, our secret is removed from its body.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Bytes,
}

impl Http {
    /// `base` is `https://host[:port][/path]`. Plain `http` is allowed on loopback only.
    pub(super) fn new(provider: &'static str, base: &str, deadlines: Deadlines) -> Result<Self, BuildError> {
        let bad = |fault| BuildError::BadBase { provider, fault };
        let base = base.trim_end_matches('/');
        let uri: Uri = base.parse().map_err(|_| bad("is no address"))?;
        let authority = uri.authority().ok_or(bad("names no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("must not have a user or password in it"));
        }
        if uri.query().is_some() {
            return Err(bad("must not have a query"));
        }
        let is_https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") if is_loopback(authority.host()) => false,
            Some("http") => return Err(bad("must begin with https://; http:// will do for loopback only")),
            _ => return Err(bad("must begin with https://")),
        };
        let begun = if is_https {
            let roots = system_roots();
            if roots.is_empty() {
                return Err(BuildError::NoRoots);
            }
            client(roots).https_only(true)
        } else {
            plain_client()
        };
        let client = bounded(begun, deadlines).build().map_err(BuildError::Client)?;
        Ok(Self { client, base: base.to_owned(), host: authority.host().to_ascii_lowercase(), deadlines })
    }

    /// The host of the API, in lower case.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    /// The deadlines of a call.
    pub(super) fn deadlines(&self) -> Deadlines {
        self.deadlines
    }

    /// Sends the call once. An answer with any status except a redirect is returned as an answer.
    pub(super) async fn send(&self, call: &Call, auth: Auth<'_>) -> Result<Answer, CallError> {
        let mut answer = self.exchange(self.request(call, auth)?).await?;
        if answer.status.is_redirection() {
            let detail = format!("{}: a redirect is not followed; see that the base address is right", answer.status);
            return Err(CallError::odd(&detail));
        }
        if !answer.status.is_success() {
            answer.body = auth.without_secret(&answer.body);
        }
        Ok(answer)
    }

    fn request(&self, call: &Call, auth: Auth<'_>) -> Result<Request, CallError> {
        // Every part of the path was checked before.
        let url: Url = format!("{}{}", self.base, call.path).parse().map_err(|_| CallError::Unsupported)?;
        let mut request = Request::new(call.method.clone(), url);
        let headers = request.headers_mut();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(AUTHORIZATION, auth.header()?);
        for (name, value) in &call.headers {
            headers.insert(name, value.clone());
        }
        *request.body_mut() = Some(call.body.clone().into());
        Ok(request)
    }

    async fn exchange(&self, request: Request) -> Result<Answer, CallError> {
        let unavailable =
            |what: &str, error: reqwest::Error| CallError::unavailable(&self.deadlines.trouble(what, error), None);
        let mut answer = self.client.execute(request).await.map_err(|error| unavailable("no answer", error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let body =
            read(&mut answer, ANSWER_BYTES_MAX).await.map_err(|error| unavailable("the answer broke off", error))?;
        let body = body.ok_or_else(|| CallError::odd(&format!("{status}: longer than {ANSWER_BYTES_MAX} bytes")))?;
        Ok(Answer { status, headers, body })
    }
}

impl Deadlines {
    /// Describes the failure of a call in words.
    pub(super) fn trouble(&self, what: &str, error: reqwest::Error) -> String {
        match (error.is_timeout(), error.is_connect()) {
            (true, true) => format!("no connection within {} ms", self.connect.as_millis()),
            (true, false) => format!("no answer within {} ms", self.whole.as_millis()),
            // The address is left out. It may be long, and the settings contain it.
            (false, _) => format!("{what}: {}", causes(&error.without_url())),
        }
    }
}

/// The limits of every call to a provider.
pub(super) fn bounded(begun: ClientBuilder, deadlines: Deadlines) -> ClientBuilder {
    begun
        .user_agent(concat!("grantonce/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        // Proxies of the environment are ignored, because no other program needs to see the call.
        .no_proxy()
        .connect_timeout(deadlines.connect)
        .timeout(deadlines.whole)
        .pool_idle_timeout(IDLE_MAX)
        .tcp_nodelay(true)
        .http1_only()
}

/// Reads the body of an answer. Returns `None` if it is longer than `bytes_max`.
pub(super) async fn read(answer: &mut Response, bytes_max: usize) -> Result<Option<Bytes>, reqwest::Error> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > bytes_max {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body.freeze()))
}

impl Call {
    /// `path` begins with a slash. Every part of it is written in this program or has passed [`is_plain`].
    pub(super) fn get(path: String) -> Self {
        Self { method: Method::GET, path, headers: Vec::new(), body: Bytes::new() }
    }

    /// The path has the same rule as in [`Call::get`].
    pub(super) fn post(path: String, media_type: &'static str, body: String) -> Self {
        let headers = vec![(http::header::CONTENT_TYPE, HeaderValue::from_static(media_type))];
        Self { method: Method::POST, path, headers, body: body.into() }
    }

    /// Adds one header to the call.
    pub(super) fn with(mut self, name: &'static str, value: HeaderValue) -> Self {
        self.headers.push((HeaderName::from_static(name), value));
        self
    }

    /// Adds an idempotency key. The provider executes calls with the same key only once.
    pub(super) fn under(self, header: &'static str, key: &str) -> Result<Self, CallError> {
        let is_good = (1..=KEY_BYTES_MAX).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
        let value = HeaderValue::from_str(key).ok().filter(|_| is_good).ok_or(CallError::Unsupported)?;
        Ok(self.with(header, value))
    }
}

/// Whether a provider's id can be put into a path or a query unchanged. The ids of real providers can.
pub(super) fn is_plain(id: &str) -> bool {
    !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'))
}

impl Auth<'_> {
    fn header(&self) -> Result<HeaderValue, CallError> {
        let text = match self {
            Self::Bearer(token) => format!("Bearer {}", token.expose_secret()),
            Self::Basic { .. } => format!("Basic {}", self.encoded()),
        };
        let mut value = HeaderValue::try_from(text).map_err(|_| CallError::Unsupported)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The secret as it is sent.
    fn encoded(&self) -> String {
        match self {
            Self::Bearer(token) => token.expose_secret().to_owned(),
            Self::Basic { user, password } => BASE64_STANDARD.encode(format!("{user}:{}", password.expose_secret())),
        }
    }

    /// Removes our secret from an answer, because the body of an answer can get into the text of an error.
    fn without_secret(&self, body: &Bytes) -> Bytes {
        let mut text = String::from_utf8_lossy(body).into_owned();
        let plain = match self {
            Self::Bearer(token) => token.expose_secret(),
            Self::Basic { password, .. } => password.expose_secret(),
        };
        for secret in [plain, &self.encoded()] {
            if !secret.is_empty() {
                text = text.replace(secret, "***");
            }
        }
        text.into()
    }
}

impl Answer {
    /// The body, which must be JSON.
    pub(super) fn json(&self) -> Result<Value, CallError> {
        let mended = |_error| mended(&self.body).and_then(|body| serde_json::from_slice(&body).ok());
        let json = serde_json::from_slice(&self.body).map(Some).unwrap_or_else(mended);
        json.ok_or_else(|| CallError::odd(&format!("{}: not JSON", self.status)))
    }

    /// The time of the answer by the provider's clock. `None` if the header is missing or has another format.
    pub(super) fn date(&self) -> Option<OffsetDateTime> {
        OffsetDateTime::parse(self.headers.get(DATE)?.to_str().ok()?, &Rfc2822).ok()
    }

    /// Whether the header has the value `true`.
    pub(super) fn has_flag(&self, header: &str) -> bool {
        self.headers.get(header).is_some_and(|value| value == "true")
    }

    /// The error for an answer that is no success, if the provider has no error of its own for it.
    pub(super) fn fault(&self, words: &str) -> CallError {
        let detail = format!("{}{}{words}", self.status, if words.is_empty() { "" } else { ": " });
        match self.status {
            // These are: the call took too long, another call with the same key is running, and too many calls.
            StatusCode::REQUEST_TIMEOUT
            | StatusCode::CONFLICT
            | StatusCode::TOO_EARLY
            | StatusCode::TOO_MANY_REQUESTS => CallError::unavailable(&detail, self.retry_after()),
            status if status.is_server_error() => CallError::unavailable(&detail, self.retry_after()),
            status if status.is_client_error() => CallError::refused(status.as_u16(), &detail),
            _ => CallError::odd(&detail),
        }
    }

    /// Only seconds are read. A date would need a clock, and providers send none.
    fn retry_after(&self) -> Option<Duration> {
        let seconds: u32 = self.headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
        Some(Duration::from_secs(seconds.into()))
    }
}

fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether a credential can be put into a header.
pub(super) fn is_credential(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic())
}

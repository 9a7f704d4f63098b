//! Who sees the console: people log in with their token and get a session, programs bring it with every call.
//!
//! A session is a signed text in a cookie, and nothing else: it is signed with what its operator's own token makes, so
//! that it ends with the token, outlives a restart, and counts in every process that knows the token. A form can be
//! sent only by a page of ours: the browser says whose page it was, and the form holds a text that only its session
//! could have been given.

use super::App;
use super::layout::{Sorry, sorry_page};
use crate::http::{Html, Parameters, Problem, html, read_body, see};
use crate::store::Actor;
use axum::extract::{Extension, Request, State};
use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hmac::Mac as _;
use std::sync::Arc;
use std::time::Duration;
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// How long a session lasts: a shift.
const SESSION: Duration = Duration::from_secs(12 * 60 * 60);

/// Stand before what is signed: neither can pass for the other, nor for anything else that the token signs.
const SESSION_PURPOSE: &str = "grantonce console session v1:";
const FORM_PURPOSE: &str = "grantonce console form v1:";

/// The cookie's name where the browser came by https: it takes one of this name only from there, and from no other
/// host.
const COOKIE_SECURE: &str = "__Host-grantonce-ops";

/// The cookie's name where it came by plain http, on loopback or within a private network.
const COOKIE_PLAIN: &str = "grantonce-ops";

/// How long the answer to a wrong token takes.
const WRONG_TOKEN_WAIT: Duration = Duration::from_secs(1);

/// How many wrong tokens are answered at the same time; more are refused at once. The right one never waits, so that
/// nobody can be kept out by somebody who guesses; and tokens are too long to be guessed.
const WRONG_TOKENS_MAX: usize = 8;

/// Longest form, in bytes.
const FORM_BYTES_MAX: usize = 128 * 1024;

/// How long a form may take to come.
const FORM_DEADLINE: Duration = Duration::from_secs(10);

/// Turns for answering wrong tokens.
#[derive(Debug, Clone)]
pub(super) struct Logins(Arc<Semaphore>);

impl Default for Logins {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(WRONG_TOKENS_MAX)))
    }
}

/// Proof that the request came from an operator.
#[derive(Debug, Clone)]
pub(super) struct Operator {
    name: String,
    /// What every form of this session holds; empty for programs, which send none.
    form_token: String,
}

impl Operator {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// For the audit log.
    pub(super) fn actor(&self) -> Actor {
        Actor { name: self.name.clone(), is_self_declared: false }
    }

    /// What makes a form one of this session.
    pub(super) fn form_token(&self) -> Html {
        html!["<input type=\"hidden\" name=\"form_token\" value=\"" {self.form_token} "\">"]
    }

    /// Reads a form, if it is one of this session. There is no other way to read one.
    pub(super) async fn read_form(&self, request: Request) -> Result<Parameters, Problem> {
        let form = read_any_form(request).await?;
        let is_ours = form
            .get("form_token")
            .is_some_and(|given| !given.is_empty() && bool::from(given.as_bytes().ct_eq(self.form_token.as_bytes())));
        if is_ours {
            return Ok(form);
        }
        let detail = "this form is not of your session, or of an earlier one: nothing was done. Open the page anew";
        Err(Problem::new(StatusCode::FORBIDDEN, detail))
    }
}

async fn read_any_form(request: Request) -> Result<Parameters, Problem> {
    Parameters::of_form(read_body(request, FORM_BYTES_MAX, FORM_DEADLINE).await?).await
}

/// Lets operators through to the pages; everybody else comes to the page where one logs in, and then to where he wanted
/// to go.
pub(super) async fn guard_pages(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let Some(operator) = session(&app, request.headers()) else {
        let wanted = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
        // What was to be done cannot be done again by going there.
        let wanted = if request.method() == Method::GET { wanted } else { "/" };
        return see(&format!("/login?next={}", super::selection::encoded(wanted)));
    };
    let (path, is_get) = (request.uri().clone(), request.method() == Method::GET);
    let response = if is_reading(request.method()) || is_own_page(request.headers()) {
        request.extensions_mut().insert(operator.clone());
        next.run(request).await
    } else {
        Sorry::from(strange_form()).into_response()
    };
    sorry_page(&app, &operator, &path, is_get, response)
}

/// Lets programs through to the calls, by bearer token alone: a cookie would let other sites' pages call in its owner's
/// name.
pub(super) async fn guard_calls(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let name = match app.console.tokens.current().check(request.headers()) {
        Ok(name) => name.to_owned(),
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(Operator { name, form_token: String::new() });
    next.run(request).await
}

fn is_reading(method: &Method) -> bool {
    [Method::GET, Method::HEAD].contains(method)
}

fn strange_form() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "this form was sent by another site's page: nothing was done")
}

/// Whether the browser says that a page of ours sent this. A browser that came by https, or to this machine, says so in
/// `Sec-Fetch-Site`, whatever a proxy between did to the host's name; others name the page's site, which must be this
/// host.
fn is_own_page(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let Some((_, host)) = text(ORIGIN.as_str()).and_then(|origin| origin.split_once("://")) else { return false };
    [HOST.as_str(), "x-forwarded-host"].iter().any(|name| text(name).is_some_and(|own| own.eq_ignore_ascii_case(host)))
}

/// The operator whose session the request's cookie holds.
fn session(app: &App, headers: &HeaderMap) -> Option<Operator> {
    let cookies: Vec<(&str, &str)> = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|all| all.split(';'))
        .filter_map(|cookie| cookie.trim().split_once('='))
        .collect();
    let named = |wanted: &'static str| cookies.iter().filter(move |(name, _)| *name == wanted).map(|(_, value)| *value);
    named(COOKIE_SECURE).chain(named(COOKIE_PLAIN)).find_map(|value| operator_of(app, value, app.now()))
}

/// Reads `name.expires.nonce.signature`.
fn operator_of(app: &App, session: &str, now: OffsetDateTime) -> Option<Operator> {
    let (signed, signature) = session.rsplit_once('.')?;
    let mut parts = signed.split('.');
    let (name, expires, _nonce, None) = (parts.next()?, parts.next()?, parts.next()?, parts.next()) else {
        return None;
    };
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    let signer = app.console.tokens.current().signer(name)?;
    signer.clone().chain_update(SESSION_PURPOSE).chain_update(signed).verify_slice(&signature).ok()?;
    let is_over = expires.parse::<i64>().ok()? <= now.unix_timestamp();
    let form_token = signer.chain_update(FORM_PURPOSE).chain_update(session).finalize().into_bytes();
    let form_token = BASE64_URL_SAFE_NO_PAD.encode(form_token);
    (!is_over).then(|| Operator { name: name.to_owned(), form_token })
}

fn new_session(app: &App, name: &str) -> Option<String> {
    let expires = app.now() + SESSION;
    let signed = format!("{name}.{}.{}", expires.unix_timestamp(), Uuid::now_v7().simple());
    let signer = app.console.tokens.current().signer(name)?;
    let signature = signer.chain_update(SESSION_PURPOSE).chain_update(&signed).finalize().into_bytes();
    Some(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature)))
}

/// The cookie, as secure as the way by which the browser says that it came.
fn cookie(headers: &HeaderMap, session: &str, seconds: u64) -> Option<HeaderValue> {
    let is_https = headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let (name, secure) = if is_https { (COOKIE_SECURE, "; Secure") } else { (COOKIE_PLAIN, "") };
    let text = format!("{name}={session}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}");
    HeaderValue::try_from(text).ok()
}

/// `GET /login`.
pub(super) async fn show(uri: Uri) -> Response {
    let query = Parameters::of(&uri);
    login_page(StatusCode::OK, query.get("next").unwrap_or("/"), None)
}

/// `POST /login`.
pub(super) async fn log_in(State(app): State<App>, request: Request) -> Response {
    let headers = request.headers().clone();
    if !is_own_page(&headers) {
        return login_page(StatusCode::FORBIDDEN, "/", Some("This form was sent by another site's page."));
    }
    let form = match read_any_form(request).await {
        Ok(form) => form,
        Err(problem) => return login_page(problem.status(), "/", Some(problem.detail())),
    };
    let next = form.get("next").unwrap_or("/");
    let given = form.get("token").unwrap_or_default().trim();
    let tokens = app.console.tokens.current();
    let Some(name) = tokens.holder(given.as_bytes()) else {
        return refuse_token(&app, next).await;
    };
    let session = new_session(&app, name).and_then(|session| cookie(&headers, &session, SESSION.as_secs()));
    let Some(cookie) = session else { return Problem::internal().into_response() };
    tracing::info!(event = "operator_logged_in", operator = name, "logged in to the console");
    let mut response = see(own_path(next));
    response.headers_mut().insert(SET_COOKIE, cookie);
    response
}

async fn refuse_token(app: &App, next: &str) -> Response {
    let Ok(_turn) = app.logins.0.try_acquire() else {
        let many = "Too many wrong tokens are being tried. A right one is taken at any time.";
        return login_page(StatusCode::TOO_MANY_REQUESTS, next, Some(many));
    };
    tracing::warn!(event = "login_refused", "a login to the console had a wrong token");
    // Whoever guesses is to be slow about it.
    tokio::time::sleep(WRONG_TOKEN_WAIT).await;
    login_page(StatusCode::UNAUTHORIZED, next, Some("No operator has this token."))
}

/// `POST /logout`. The session's text would still be good until it expires: only the browser forgets it.
pub(super) async fn log_out(Extension(operator): Extension<Operator>, request: Request) -> Result<Response, Sorry> {
    let headers = request.headers().clone();
    operator.read_form(request).await?.check(&["form_token"])?;
    let mut response = see("/login");
    if let Some(cookie) = cookie(&headers, "", 0) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Ok(response)
}

/// A path of our own, and nothing that a browser could take for another site's address.
fn own_path(next: &str) -> &str {
    let is_own = next.starts_with('/')
        && !next.starts_with("//")
        && next.bytes().all(|b| b.is_ascii_graphic() && b != b'\\')
        && next.parse::<PathAndQuery>().is_ok();
    if is_own { next } else { "/" }
}

fn login_page(status: StatusCode, next: &str, fault: Option<&str>) -> Response {
    let fault =
        fault.map(|fault| html!["<p class=\"note bad\" role=\"alert\"><b aria-hidden=\"true\">✕</b> " (fault) "</p>"]);
    let main = html![
        "<main id=\"main\" class=\"login\"><section class=\"card\"><h1>Log in</h1>" [fault.unwrap_or_default()]
        "<form method=\"post\" action=\"/login\"><input type=\"hidden\" name=\"next\" value=\"" {own_path(next)} "\">"
        "<p><label for=\"token\">Your token</label> <input id=\"token\" name=\"token\" type=\"password\" required "
        "autofocus "
        "autocomplete=\"current-password\" maxlength=\"1000\"></p><p><button>Log in</button></p></form>"
        "<p class=\"dim\"><code>GRANTONCE_OPS_TOKENS</code> has your name and your token. The audit log keeps what you do under "
        "that name.</p></section></main>"
    ];
    super::layout::bare_page(status, "Log in", &main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_comes_to_own_paths_alone() {
        for path in ["/", "/dead-letters?reason=malformed&cause=a%20b", "/replays/7", "/explain/pi_1//x"] {
            assert_eq!(own_path(path), path);
        }
        for path in [
            "",
            "//evil.example",
            "/\\evil.example",
            "\\\\evil.example",
            "https://evil.example",
            "evil",
            "/\t/evil.example",
            "/\n/evil.example",
            "javascript:alert(1)",
            "/ä",
            " /x",
        ] {
            assert_eq!(own_path(path), "/", "{path:?}");
        }
    }

    #[test]
    fn a_form_is_sent_by_a_page_of_ours() {
        let of = |headers: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.insert(*name, HeaderValue::from_static(value));
            }
            is_own_page(&map)
        };
        assert!(of(&[("sec-fetch-site", "same-origin")]));
        assert!(of(&[("sec-fetch-site", "same-origin"), ("origin", "https://ops.example"), ("host", "10.0.0.1:8082")]));
        assert!(of(&[("origin", "http://127.0.0.1:8082"), ("host", "127.0.0.1:8082")]));
        assert!(of(&[("origin", "https://ops.example"), ("host", "inner"), ("x-forwarded-host", "ops.example")]));
        assert!(!of(&[]));
        assert!(!of(&[("host", "127.0.0.1:8082")]));
        assert!(!of(&[("origin", "null"), ("host", "127.0.0.1:8082")]));
        assert!(!of(&[("origin", "https://evil.example"), ("host", "127.0.0.1:8082")]));
        for site in ["cross-site", "same-site", "none"] {
            let own = ("origin", "http://127.0.0.1:8082");
            assert!(!of(&[("sec-fetch-site", site), own, ("host", "127.0.0.1:8082")]), "{site}");
        }
    }
}

//! From a variable's text to its value. An error says what the text must be, and never repeats it: it may be a secret.

use crate::address::{AddressError, AmqpAddress, DatabaseAddress, decoded};
use crate::named::NoSuchName;
use reqwest::Url;
use secrecy::SecretString;
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

/// What a value must be.
pub(super) type Demand = String;

/// Shortest bearer token, in characters.
const TOKEN_CHARS_MIN: usize = 16;

/// Longest name of a bearer token, in characters.
const TOKEN_NAME_CHARS_MAX: usize = 64;

/// Shortest key of status tokens, in characters.
const KEY_CHARS_MIN: usize = 32;

/// Shortest webhook secret, in characters.
const WEBHOOK_SECRET_CHARS_MIN: usize = 16;

/// Most delays of `RETRY_DELAYS`: each is a queue.
const RETRY_DELAYS_MAX: usize = 10;

/// Bounds of one retry delay.
const RETRY_DELAY: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(24 * 3600);

/// What PayPal's webhook simulator signs with: everybody can.
pub(super) const PAYPAL_SIMULATOR_ID: &str = "WEBHOOK_ID";

/// A bearer token and the name of who holds it.
#[derive(Debug, Clone)]
pub struct NamedToken {
    /// Goes to the audit log, and scopes idempotency keys.
    pub name: String,
    /// The token.
    pub token: SecretString,
}

impl From<NamedToken> for (String, SecretString) {
    fn from(named: NamedToken) -> Self {
        (named.name, named.token)
    }
}

/// One delay of the retry queues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryDelay {
    /// As it was written; names the queue `fulfilment.retry.<label>`.
    pub label: String,
    /// How long a message waits there.
    pub delay: Duration,
}

pub(super) fn boolean(text: &str) -> Result<bool, Demand> {
    match text {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// One name of a closed set.
pub(super) fn named<T: FromStr<Err = NoSuchName>>(text: &str) -> Result<T, Demand> {
    text.parse().map_err(|error: NoSuchName| error.to_string())
}

/// A whole number within bounds.
pub(super) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, Demand>
where
    T: FromStr + PartialOrd + fmt::Display,
{
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
    }
}

/// A duration within bounds.
pub(super) fn duration(range: RangeInclusive<Duration>) -> impl Fn(&str) -> Result<Duration, Demand> {
    move |text| {
        let bounds = || format!("must be a duration such as 200ms, 5s, 1m, 2h or 90d, from {}", span(&range));
        one_duration(text).filter(|duration| range.contains(duration)).ok_or_else(bounds)
    }
}

fn span(range: &RangeInclusive<Duration>) -> String {
    format!("{} to {}", label(*range.start()), label(*range.end()))
}

/// A duration as it would be written in a variable.
fn label(duration: Duration) -> String {
    let ms = duration.as_millis();
    for (unit, unit_ms) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)] {
        // An hour and more than a day are told in hours and days only where that is exact.
        if ms >= unit_ms && ms.is_multiple_of(unit_ms) {
            return format!("{}{unit}", ms / unit_ms);
        }
    }
    format!("{ms}ms")
}

/// Digits and a unit: one spelling only, because the text becomes a queue's name.
fn one_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, unit) = text.split_at_checked(unit_at)?;
    if digits.len() > 1 && digits.starts_with('0') {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    count.checked_mul(unit_ms).map(Duration::from_millis)
}

pub(super) fn retry_delays(text: &str) -> Result<Vec<RetryDelay>, Demand> {
    let demand = || {
        format!(
            "must be 1 to {RETRY_DELAYS_MAX} durations such as 200ms, 5s, 1m or 2h by commas, ascending, each {}",
            span(&RETRY_DELAY)
        )
    };
    let delays: Vec<_> = text
        .split(',')
        .map(|part| {
            let label = part.trim();
            let delay = one_duration(label).filter(|delay| RETRY_DELAY.contains(delay))?;
            Some(RetryDelay { label: label.to_owned(), delay })
        })
        .collect::<Option<_>>()
        .ok_or_else(demand)?;
    if delays.len() > RETRY_DELAYS_MAX || !delays.is_sorted_by(|a, b| a.delay < b.delay) {
        return Err(demand());
    }
    Ok(delays)
}

pub(super) fn address(text: &str) -> Result<SocketAddr, Demand> {
    let address: SocketAddr = text.parse().map_err(|_| "must be an IP address and a port".to_owned())?;
    let ip = address.ip();
    if ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Err("must be an address that a program can listen on".to_owned());
    }
    Ok(address)
}

/// The entries of a list by commas, blanks around them cut off; none may be empty.
fn entries(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.split(',').map(str::trim).enumerate().map(|(index, entry)| (index + 1, entry))
}

fn list<'t, T>(text: &'t str, one: impl Fn(&'t str) -> Result<T, Demand>) -> Result<Vec<T>, Demand> {
    entries(text).map(|(n, entry)| one(entry).map_err(|demand| format!("entry {n} {demand}"))).collect()
}

/// Hosts as they stand in an address, with a port only where it is not the usual one.
pub(super) fn hosts(text: &str) -> Result<Vec<String>, Demand> {
    list(text, |entry| {
        let url = Url::parse(&format!("https://{entry}/")).ok();
        let host = url.and_then(|url| url.origin().ascii_serialization().strip_prefix("https://").map(str::to_owned));
        match host {
            Some(host) if host == entry => Ok(host),
            Some(_) | None => Err("must be a host in small letters, without https:// and path".to_owned()),
        }
    })
}

/// At least so many visible ASCII characters.
fn visible(text: &str, chars_min: usize) -> Result<&str, Demand> {
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has a blank or another character that is not visible ASCII".to_owned());
    }
    if text.len() < chars_min {
        return Err(format!("must be {chars_min} characters or longer"));
    }
    Ok(text)
}

pub(super) fn secret(text: &str) -> Result<SecretString, Demand> {
    visible(text, 1).map(SecretString::from)
}

pub(super) fn status_token_key(text: &str) -> Result<SecretString, Demand> {
    visible(text, KEY_CHARS_MIN).map(SecretString::from)
}

pub(super) fn webhook_secrets(text: &str) -> Result<Vec<SecretString>, Demand> {
    list(text, |entry| visible(entry, WEBHOOK_SECRET_CHARS_MIN).map(SecretString::from))
}

pub(super) fn standard_webhook_secrets(text: &str) -> Result<Vec<SecretString>, Demand> {
    use base64::Engine as _;
    list(text, |entry| {
        // A key of fewer than 24 bytes is refused by the Standard Webhooks specification.
        let key = base64::engine::general_purpose::STANDARD.decode(entry.strip_prefix("whsec_").unwrap_or_default());
        match key {
            Ok(key) if (24..=64).contains(&key.len()) => Ok(SecretString::from(entry)),
            Ok(_) | Err(_) => Err("must be whsec_ and 24 to 64 bytes in base64".to_owned()),
        }
    })
}

pub(super) fn hmac_keys(text: &str) -> Result<Vec<SecretString>, Demand> {
    list(text, |entry| match hex::decode(entry) {
        Ok(key) if key.len() >= 16 => Ok(SecretString::from(entry)),
        Ok(_) | Err(_) => Err("must be 32 or more hexadecimal digits".to_owned()),
    })
}

pub(super) fn tokens(text: &str) -> Result<Vec<NamedToken>, Demand> {
    let mut names = BTreeSet::new();
    let mut values = BTreeSet::new();
    list(text, |entry| {
        let (name, token) = entry.split_once(':').ok_or("must be name:token")?;
        let name_ok = (1..=TOKEN_NAME_CHARS_MAX).contains(&name.len())
            && name.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-'));
        if !name_ok {
            return Err(format!("has a name that is not 1 to {TOKEN_NAME_CHARS_MAX} of a-z, 0-9, _ and -"));
        }
        visible(token, TOKEN_CHARS_MIN).map_err(|demand| format!("has a token that {demand}"))?;
        Ok((name, token))
    })?
    .into_iter()
    .map(|(name, token)| {
        if !names.insert(name) {
            return Err(format!("has the name {name} twice"));
        }
        if !values.insert(token) {
            return Err(format!("has one token under two names, the second is {name}"));
        }
        Ok(NamedToken { name: name.to_owned(), token: SecretString::from(token) })
    })
    .collect()
}

/// Longest id of a PayPal webhook, in characters.
const WEBHOOK_ID_CHARS_MAX: usize = 50;

/// Ids of PayPal's webhooks, or the word that its simulator signs with.
pub(super) fn webhook_ids(text: &str) -> Result<Vec<String>, Demand> {
    list(text, |entry| {
        let is_id = entry == PAYPAL_SIMULATOR_ID || entry.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if is_id && (1..=WEBHOOK_ID_CHARS_MAX).contains(&entry.len()) {
            return Ok(entry.to_owned());
        }
        Err("must be the id of a PayPal webhook, letters and digits".to_owned())
    })
}

/// PayPal's client id: it stands before a colon where it is sent.
pub(super) fn client_id(text: &str) -> Result<String, Demand> {
    match visible(text, 1)? {
        id if id.contains(':') => Err("must not have a colon".to_owned()),
        id => Ok(id.to_owned()),
    }
}

/// A URL of one of the schemes, with a host, and with user and password only where they may be.
fn url(text: &str, schemes: &[&str], may_have_user: bool) -> Result<Url, Demand> {
    let demand = || format!("must be a URL that begins with {}://", schemes.join(":// or "));
    if text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
        return Err("must not have blanks, control characters or backslashes".to_owned());
    }
    // The parser takes `http:host`, too, and looks for a host behind further slashes.
    let (scheme, rest) = text.split_once("://").ok_or_else(demand)?;
    if !schemes.contains(&scheme.to_ascii_lowercase().as_str()) {
        return Err(demand());
    }
    if rest.is_empty() || rest.starts_with('/') {
        return Err("must name a host".to_owned());
    }
    let url = Url::parse(text).map_err(|error| format!("must be a URL ({error})"))?;
    if url.port() == Some(0) {
        return Err("must have a port from 1 to 65535".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("must not have a ? or a #; write %3F or %23 in a user or a password".to_owned());
    }
    if url.path().contains('@') {
        // A slash in a password would put another host in the place of the right one.
        return Err("must not have an @ after the host; write / ? # @ in a password as %2F %3F %23 %40".to_owned());
    }
    let credentials = [url.username(), url.password().unwrap_or_default()];
    if !may_have_user && credentials.iter().any(|part| !part.is_empty()) {
        return Err("must not have a user or a password in it".to_owned());
    }
    for part in credentials {
        decoded("user or password", part).map_err(|error| error.to_string())?;
    }
    Ok(url)
}

/// What the address leaves out comes from libpq's own variables, for which `variable` is asked.
pub(super) fn database_url(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<DatabaseAddress, Demand> {
    let address = DatabaseAddress::parse(text, variable).map_err(|error| error.to_string())?;
    let cert = address.client_cert.iter().flat_map(|(cert, key)| [("sslcert", cert), ("sslkey", key)]);
    for (name, path) in address.root_cert.iter().map(|file| ("sslrootcert", file)).chain(cert) {
        // Not the path: it may be a piece of a password.
        std::fs::File::open(path)
            .and_then(|file| file.metadata())
            .map_err(|error| error.to_string())
            .and_then(|found| if found.is_file() { Ok(()) } else { Err("it is no file".to_owned()) })
            .map_err(|problem| format!("has a parameter {name} that names a file that cannot be read ({problem})"))?;
    }
    Ok(address)
}

pub(super) fn amqp_url(text: &str) -> Result<AmqpAddress, Demand> {
    text.parse().map_err(|error: AddressError| error.to_string())
}

pub(super) fn management_url(text: &str) -> Result<SecretString, Demand> {
    url(text, &["https", "http"], true).map(|_| SecretString::from(text))
}

/// A web address without a slash at the end.
pub(super) fn web_url(text: &str) -> Result<String, Demand> {
    url(text, &["https", "http"], false).map(|_| text.trim_end_matches('/').to_owned())
}

/// The base of a provider's API: secrets go there, by `https` or within this machine.
pub(super) fn api_base(text: &str) -> Result<String, Demand> {
    let base = url(text, &["https", "http"], false)?;
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    let is_near = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    if base.scheme() == "https" || is_near {
        return Ok(text.trim_end_matches('/').to_owned());
    }
    Err("must begin with https://; http:// will do for loopback only".to_owned())
}

/// Origins as browsers send them: scheme, host, port unless it is the scheme's own, and nothing else.
pub(super) fn origins(text: &str) -> Result<Vec<String>, Demand> {
    list(text, |entry| {
        let origin = url(entry, &["https", "http"], false)?.origin().ascii_serialization();
        if origin == entry { Ok(origin) } else { Err(format!("must be an origin and nothing more: {origin}")) }
    })
}

/// Stripe's secret or restricted key, of the mode in which payments are taken.
pub(super) fn stripe_key(text: &str, livemode: Option<bool>) -> Result<SecretString, Demand> {
    let key = secret(text)?;
    let is_key = |mode: &str| ["sk", "rk"].iter().any(|kind| text.starts_with(&format!("{kind}_{mode}_")));
    match livemode {
        Some(true) if is_key("test") => Err("is a test key, but GRANTONCE_LIVEMODE is true".to_owned()),
        Some(false) if is_key("live") => Err("is a live key, but GRANTONCE_LIVEMODE is false".to_owned()),
        Some(_) | None => Ok(key),
    }
}

//! What the two kinds of address have in common: `scheme://user:password@host:port,host:port/path?name=value&…`.

use super::AddressError;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU16;

/// Most hosts of one address: each of them may cost the time of an attempt.
const HOSTS_MAX: usize = 16;

/// Longest name that DNS knows, in characters.
const HOST_CHARS_MAX: usize = 253;

/// An address in pieces. Only the hosts and the path are still percent-encoded.
pub(super) struct Parts<'t> {
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    /// `host:port` by commas; empty where there is none.
    pub(super) hosts: &'t str,
    /// What follows the slash after the hosts.
    pub(super) path: &'t str,
    /// What follows the `?`, raw, in order.
    pub(super) parameters: Vec<(&'t str, &'t str)>,
}

/// Splits what follows the scheme.
pub(super) fn parts(rest: &str) -> Result<Parts<'_>, AddressError> {
    if rest.chars().any(char::is_control) {
        return Err(AddressError::ControlCharacter);
    }
    if rest.contains('#') {
        return Err(AddressError::Stray { found: "a #" });
    }
    let (place, query) = match rest.split_once('?') {
        Some((place, query)) => (place, Some(query)),
        None => (rest, None),
    };
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let (credentials, hosts) = match authority.split_once('@') {
        Some((credentials, hosts)) => (Some(credentials), hosts),
        None => (None, authority),
    };
    // A password with an @, a / or a ? in it would put another host in the place of the right one.
    if hosts.contains('@') || path.contains('@') || query.is_some_and(|query| query.contains('@')) {
        return Err(AddressError::Stray { found: "an @" });
    }
    let (user, password) = match credentials.map(|text| text.split_once(':').unwrap_or((text, ""))) {
        Some((user, password)) => (present(decoded("user", user)?), present(decoded("password", password)?)),
        None => (None, None),
    };
    let parameters = query.unwrap_or_default().split('&').filter(|parameter| !parameter.is_empty());
    let parameters = parameters.map(|parameter| parameter.split_once('=').unwrap_or((parameter, ""))).collect();
    Ok(Parts { user, password, hosts, path, parameters })
}

fn present(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// What follows `<scheme>://`, for the first scheme that fits, and that scheme.
pub(super) fn after_scheme<'t>(
    text: &'t str,
    schemes: &[&'static str],
    expected: &'static str,
) -> Result<(&'static str, &'t str), AddressError> {
    let wrong = AddressError::Scheme { expected };
    let (found, rest) = text.split_once("://").ok_or(wrong.clone())?;
    let scheme = schemes.iter().find(|scheme| scheme.eq_ignore_ascii_case(found)).ok_or(wrong)?;
    Ok((scheme, rest))
}

/// Undoes percent-encoding. `part` is named where it cannot be undone.
pub fn decoded(part: &str, text: &str) -> Result<String, AddressError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let code = tail.get(..2).and_then(|code| hex::decode(code).ok());
        bytes.extend(code.ok_or_else(|| AddressError::Percent { part: part.to_owned() })?);
        rest = tail.get(2..).unwrap_or_default();
    }
    let text = String::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
    text.ok_or_else(|| AddressError::NotText { part: part.to_owned() })
}

/// Percent-encodes everything that could mean something in a URL.
pub fn encoded(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            safe.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

/// The value of a parameter that is known.
pub(super) fn value(name: &'static str, raw: &str) -> Result<String, AddressError> {
    if raw.contains('+') {
        return Err(AddressError::Plus { name });
    }
    decoded(&format!("parameter {name}"), raw)
}

/// One entry of a list of hosts: the host as it was written, without brackets, and its port.
pub(super) fn host_and_port(number: usize, entry: &str) -> Result<(&str, Option<u16>), AddressError> {
    let broken = |problem| AddressError::Host { number, problem };
    let (host, port) = if let Some(inside) = entry.strip_prefix('[') {
        let (host, after) = inside.split_once(']').ok_or(broken("has no closing bracket"))?;
        host.parse::<Ipv6Addr>().map_err(|_| broken("has brackets and is no IPv6 address"))?;
        let port = match after {
            "" => None,
            after => Some(after.strip_prefix(':').ok_or(broken("has something between ] and the port"))?),
        };
        (host, port)
    } else {
        let (host, port) = match entry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (entry, None),
        };
        if port.is_some_and(|port| port.contains(':')) {
            return Err(broken("has several colons; an IPv6 address stands in brackets, as in [2001:db8::1]:5432"));
        }
        (host, port)
    };
    Ok((host, port.map(|port| self::port(number, port)).transpose()?))
}

/// A port that a server can have.
pub(super) fn port(number: usize, text: &str) -> Result<u16, AddressError> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let port = digits.then(|| text.parse::<NonZeroU16>().ok()).flatten();
    port.map(NonZeroU16::get).ok_or(AddressError::Port { number })
}

/// A name of DNS, or an IP address in its usual form.
pub(super) fn checked_host(number: usize, host: &str) -> Result<String, AddressError> {
    let broken = |problem| Err(AddressError::Host { number, problem });
    if number > HOSTS_MAX {
        return broken("is one too many: at most 16");
    }
    if host.is_empty() {
        return broken("is empty");
    }
    if host.parse::<Ipv6Addr>().is_ok() || host.parse::<Ipv4Addr>().is_ok() {
        return Ok(host.to_owned());
    }
    let visible = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if !visible || host.len() > HOST_CHARS_MAX {
        return broken("is neither a name nor an IP address");
    }
    // The resolver takes `127.1`, `2130706433` and `0x7f000001` for addresses.
    let last = host.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    if last.is_empty() || last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") {
        return broken("looks like an IP address and is none");
    }
    Ok(host.to_owned())
}

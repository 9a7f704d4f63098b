//! What stands after the `?` of a database's address: libpq's parameters, by their names there.

use super::{AddressError, DatabaseTls, SessionAttributes};
use crate::address::text::value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Most prepared statements kept for one connection.
const STATEMENTS_MAX: usize = 10_000;

/// Longest time to reach one host, in seconds.
const CONNECT_S_MAX: u64 = 600;

named! {
    /// A parameter that is understood.
    #[derive(PartialOrd, Ord)]
    pub(super) enum Parameter {
        Host = "host",
        Hostaddr = "hostaddr",
        Port = "port",
        Dbname = "dbname",
        User = "user",
        Password = "password",
        Sslmode = "sslmode",
        Sslrootcert = "sslrootcert",
        Sslcert = "sslcert",
        Sslkey = "sslkey",
        TargetSessionAttrs = "target_session_attrs",
        ConnectTimeout = "connect_timeout",
        ApplicationName = "application_name",
        StatementCacheCapacity = "statement-cache-capacity",
        Options = "options",
    }
}

use Parameter as P;

impl Parameter {
    /// The parameter of that name, or of another spelling that the client has always taken.
    fn from_spelling(name: &str) -> Option<Self> {
        Self::from_name(name).or(match name {
            "ssl-mode" => Some(P::Sslmode),
            "ssl-root-cert" | "ssl-ca" => Some(P::Sslrootcert),
            "ssl-cert" => Some(P::Sslcert),
            "ssl-key" => Some(P::Sslkey),
            _ => None,
        })
    }

    /// libpq's variable that stands for the parameter. The client reads `PGOPTIONS` by itself.
    fn variable(self) -> Option<&'static str> {
        Some(match self {
            P::Host => "PGHOST",
            P::Hostaddr => "PGHOSTADDR",
            P::Port => "PGPORT",
            P::Dbname => "PGDATABASE",
            P::User => "PGUSER",
            P::Password => "PGPASSWORD",
            P::Sslmode => "PGSSLMODE",
            P::Sslrootcert => "PGSSLROOTCERT",
            P::Sslcert => "PGSSLCERT",
            P::Sslkey => "PGSSLKEY",
            P::TargetSessionAttrs => "PGTARGETSESSIONATTRS",
            P::ConnectTimeout => "PGCONNECT_TIMEOUT",
            P::ApplicationName => "PGAPPNAME",
            P::StatementCacheCapacity | P::Options => return None,
        })
    }
}

/// Parameters of libpq's that ask for what is done anyway, with the values that do.
const FULFILLED: [(&str, &[&str]); 9] = [
    ("channel_binding", &["disable", "prefer"]),
    ("client_encoding", &["UTF8", "utf8", "UTF-8"]),
    ("gssencmode", &["disable", "prefer"]),
    ("load_balance_hosts", &["disable"]),
    ("replication", &["false", "off", "no", "0"]),
    ("ssl_min_protocol_version", &["TLSv1", "TLSv1.1", "TLSv1.2"]),
    ("sslcompression", &["0"]),
    ("sslnegotiation", &["postgres"]),
    ("sslsni", &["1"]),
];

/// Parameters of libpq's that there is nothing for.
const UNSUPPORTED: [(&str, &str); 26] = [
    ("sslpassword", "use a key file without a password, readable by this program alone"),
    ("passfile", "put the whole address into a file and name it in DATABASE_URL_FILE"),
    ("service", "write the address out"),
    ("servicefile", "write the address out"),
    ("sslcrl", LEAVE_OUT),
    ("sslcrldir", LEAVE_OUT),
    ("sslcertmode", LEAVE_OUT),
    ("ssl_max_protocol_version", LEAVE_OUT),
    ("min_protocol_version", LEAVE_OUT),
    ("max_protocol_version", LEAVE_OUT),
    ("requirepeer", LEAVE_OUT),
    ("requiressl", "use sslmode=require"),
    ("require_auth", LEAVE_OUT),
    ("krbsrvname", LEAVE_OUT),
    ("gsslib", LEAVE_OUT),
    ("gssdelegation", LEAVE_OUT),
    ("fallback_application_name", "use application_name"),
    ("keepalives", BOUNDED),
    ("keepalives_idle", BOUNDED),
    ("keepalives_interval", BOUNDED),
    ("keepalives_count", BOUNDED),
    ("tcp_user_timeout", BOUNDED),
    ("scram_client_key", LEAVE_OUT),
    ("scram_server_key", LEAVE_OUT),
    ("oauth_issuer", LEAVE_OUT),
    ("oauth_client_secret", LEAVE_OUT),
];

const LEAVE_OUT: &str = "leave it out";
const BOUNDED: &str = "leave it out: every statement has a deadline, and a connection that misses it is given up";

/// The parameters of one address, each with the name under which it was found.
pub(super) struct Given {
    values: BTreeMap<Parameter, (&'static str, String)>,
    options: Vec<(String, String)>,
}

impl Given {
    pub(super) fn read(raw: &[(&str, &str)]) -> Result<Self, AddressError> {
        let mut given = Self { values: BTreeMap::new(), options: vec![] };
        for (number, (name, text)) in (1..).zip(raw) {
            if let Some((name, values)) = FULFILLED.iter().find(|(fulfilled, _)| fulfilled == name) {
                if !values.contains(text) {
                    let demand = format!("is not {}; nothing else is supported", values.join(" or "));
                    return Err(AddressError::Value { name, demand });
                }
                continue;
            }
            if let Some((name, instead)) = UNSUPPORTED.iter().find(|(unsupported, _)| unsupported == name) {
                return Err(AddressError::Unsupported { name, instead });
            }
            // The client's own way to set one setting.
            if let Some(setting) = name.strip_prefix("options[").and_then(|name| name.strip_suffix(']')) {
                given.options.push((setting_name("options", setting)?, value("options", text)?));
                continue;
            }
            let unknown = || AddressError::Unknown { number, known: P::NAMES.join(", ") };
            let parameter = P::from_spelling(name).ok_or_else(unknown)?;
            let name = parameter.name();
            if given.values.insert(parameter, (name, value(name, text)?)).is_some() {
                return Err(AddressError::Twice { name });
            }
        }
        // An empty one is one that is not set, as in libpq.
        given.values.retain(|_, (_, value)| !value.is_empty());
        given.must_lack_both(P::Host, P::Hostaddr)?;
        Ok(given)
    }

    fn must_lack_both(&self, one: Parameter, other: Parameter) -> Result<(), AddressError> {
        if self.values.contains_key(&one) && self.values.contains_key(&other) {
            let instead = "name the hosts in one place";
            return Err(AddressError::Unsupported { name: other.name(), instead });
        }
        Ok(())
    }

    /// Refuses parameters that say again what the address has said before.
    pub(super) fn must_lack(&self, parameters: &[Parameter]) -> Result<(), AddressError> {
        match parameters.iter().find(|parameter| self.values.contains_key(parameter)) {
            Some(parameter) => Err(AddressError::Twice { name: parameter.name() }),
            None => Ok(()),
        }
    }

    /// What the address itself names, which a parameter must not name again; else the parameter.
    pub(super) fn unless_named(
        &mut self,
        parameter: Parameter,
        named: Option<String>,
    ) -> Result<Option<String>, AddressError> {
        if named.is_some() {
            self.must_lack(&[parameter])?;
            return Ok(named);
        }
        Ok(self.take(parameter))
    }

    /// Takes what is left out from libpq's variables.
    pub(super) fn fill(&mut self, variable: impl Fn(&str) -> Option<String>) -> Result<(), AddressError> {
        let has_host = self.values.contains_key(&P::Host) || self.values.contains_key(&P::Hostaddr);
        for parameter in P::ALL {
            let Some(name) = parameter.variable().filter(|_| !self.values.contains_key(&parameter)) else { continue };
            if matches!(parameter, P::Host | P::Hostaddr) && has_host {
                continue;
            }
            let Some(text) = variable(name) else { continue };
            if text.chars().any(|c| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
                let demand = "must be UTF-8 text without control characters".to_owned();
                return Err(AddressError::Value { name, demand });
            }
            self.values.insert(parameter, (name, text));
        }
        Ok(())
    }

    pub(super) fn take(&mut self, parameter: Parameter) -> Option<String> {
        self.values.remove(&parameter).map(|(_, value)| value)
    }

    fn one_of<T: Copy>(&mut self, parameter: Parameter, words: &[(&str, T)]) -> Result<Option<T>, AddressError> {
        let Some((name, text)) = self.values.remove(&parameter) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| text.eq_ignore_ascii_case(word));
        let words: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let demand = || AddressError::Value { name, demand: format!("must be {}", words.join(", ")) };
        found.map(|(_, value)| Some(*value)).ok_or_else(demand)
    }

    fn number(&mut self, parameter: Parameter, max: u64, unit: &str) -> Result<Option<u64>, AddressError> {
        let Some((name, text)) = self.values.remove(&parameter) else { return Ok(None) };
        let demand =
            || AddressError::Value { name, demand: format!("must be a whole number from 0 to {max}, in {unit}") };
        text.parse().ok().filter(|number| *number <= max).map(Some).ok_or_else(demand)
    }

    /// `sslmode` and `sslrootcert`, which mean each other's meaning: whoever names the issuers wants them checked.
    pub(super) fn tls(&mut self) -> Result<(DatabaseTls, Option<PathBuf>), AddressError> {
        // `allow` is for servers that would rather not: where they offer TLS it is spoken.
        let words = DatabaseTls::ALL.map(|tls| (tls.name(), tls)).into_iter().chain([("allow", DatabaseTls::Prefer)]);
        let mode = self.one_of(P::Sslmode, &words.collect::<Vec<_>>())?;
        let Some((name, file)) = self.values.remove(&P::Sslrootcert) else {
            return Ok((mode.unwrap_or_default(), None));
        };
        if file == "system" {
            return match mode {
                None | Some(DatabaseTls::VerifyFull) => Ok((DatabaseTls::VerifyFull, None)),
                Some(_) => {
                    Err(AddressError::Value { name, demand: "is system, which needs sslmode=verify-full".to_owned() })
                }
            };
        }
        let mode = match mode.unwrap_or_default() {
            DatabaseTls::Require => DatabaseTls::VerifyCa,
            mode @ (DatabaseTls::Disable | DatabaseTls::Prefer | DatabaseTls::VerifyCa | DatabaseTls::VerifyFull) => {
                mode
            }
        };
        Ok((mode, Some(file.into())))
    }

    pub(super) fn client_cert(&mut self) -> Result<Option<(PathBuf, PathBuf)>, AddressError> {
        match (self.take(P::Sslcert), self.take(P::Sslkey)) {
            (Some(cert), Some(key)) => Ok(Some((cert.into(), key.into()))),
            (None, None) => Ok(None),
            (Some(_), None) => Err(AddressError::Credentials { named: "sslcert", missing: "sslkey" }),
            (None, Some(_)) => Err(AddressError::Credentials { named: "sslkey", missing: "sslcert" }),
        }
    }

    pub(super) fn session(&mut self) -> Result<SessionAttributes, AddressError> {
        let words = SessionAttributes::ALL.map(|attributes| (attributes.name(), attributes));
        Ok(self.one_of(P::TargetSessionAttrs, &words)?.unwrap_or_default())
    }

    /// 0 is libpq's word for no limit of its own.
    pub(super) fn connect_timeout(&mut self) -> Result<Option<Duration>, AddressError> {
        let seconds = self.number(P::ConnectTimeout, CONNECT_S_MAX, "seconds")?;
        Ok(seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs))
    }

    pub(super) fn statement_cache_capacity(&mut self) -> Result<Option<usize>, AddressError> {
        let max = u64::try_from(STATEMENTS_MAX).unwrap_or(u64::MAX);
        let count = self.number(P::StatementCacheCapacity, max, "statements")?;
        Ok(count.and_then(|count| usize::try_from(count).ok()))
    }

    /// `-c name=value` and `--name=value` by blanks; a backslash keeps the blank or backslash after it.
    pub(super) fn options(&mut self) -> Result<Vec<(String, String)>, AddressError> {
        let mut settings = std::mem::take(&mut self.options);
        let Some((name, text)) = self.values.remove(&P::Options) else { return Ok(settings) };
        let demand = || AddressError::Value { name, demand: "must be -c name=value, several by blanks".to_owned() };
        let mut words = words(&text).into_iter();
        while let Some(word) = words.next() {
            let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
                (Some(setting), _) => setting.to_owned(),
                (None, Some("")) => words.next().ok_or_else(demand)?,
                (None, Some(setting)) => setting.to_owned(),
                (None, None) => return Err(demand()),
            };
            let (key, value) = setting.split_once('=').ok_or_else(demand)?;
            settings.push((setting_name(name, key)?, value.to_owned()));
        }
        Ok(settings)
    }
}

/// A setting's name in Postgres: `search_path`, `my.setting`.
fn setting_name(name: &'static str, key: &str) -> Result<String, AddressError> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    if !key.is_empty() && key.bytes().all(fits) {
        return Ok(key.replace('-', "_"));
    }
    Err(AddressError::Value { name, demand: "must name a setting by letters, digits, _ and .".to_owned() })
}

fn words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut is_escaped) = (vec![], String::new(), false);
    for c in text.chars() {
        match c {
            _ if is_escaped => {
                word.push(c);
                is_escaped = false;
            }
            '\\' => is_escaped = true,
            ' ' => words.push(std::mem::take(&mut word)),
            c => word.push(c),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}

/// The way back from [`Given::options`].
pub(super) fn options_text(options: &[(String, String)]) -> String {
    let escaped = |text: &str| text.replace('\\', "\\\\").replace(' ', "\\ ");
    let one = |(name, value): &(String, String)| format!("-c {name}={}", escaped(value));
    options.iter().map(one).collect::<Vec<_>>().join(" ")
}

//! The address of Postgres.

mod parameters;

use super::text::{after_scheme, checked_host, decoded, encoded, host_and_port, parts, port};
use super::{AddressError, HostPort};
use parameters::{Given, Parameter};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// Port where none is named.
const PORT: u16 = 5432;

/// How to reach Postgres: `postgres://user:password@host1:5432,[2001:db8::1]:5432/database?sslmode=verify-full`. Its `Debug`
/// shows hosts only.
#[derive(Clone)]
pub struct DatabaseAddress {
    /// The servers, to be tried in this order. At least one.
    pub hosts: Vec<DatabaseHost>,
    /// Who connects; where nobody is named, the user of the operating system.
    pub user: Option<String>,
    /// The password of the user, if there is one.
    pub password: Option<SecretString>,
    /// The database; where none is named, the one called as the user.
    pub database: Option<String>,
    /// Whether TLS is spoken, and what of the server's certificate is checked.
    pub tls: DatabaseTls,
    /// Certificates that the server's must come from; without, the machine's own.
    pub root_cert: Option<PathBuf>,
    /// The client's certificate and its key.
    pub client_cert: Option<(PathBuf, PathBuf)>,
    /// Which of several servers will do.
    pub session: SessionAttributes,
    /// How long reaching one host may take.
    pub connect_timeout: Option<Duration>,
    /// What the session is called in Postgres.
    pub application_name: Option<String>,
    /// Prepared statements kept for each connection.
    pub statement_cache_capacity: Option<usize>,
    /// Settings of the session (`options=-c name=value`), in order.
    pub options: Vec<(String, String)>,
}

/// One place where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseHost {
    /// Over the network, to a host and port.
    Tcp(HostPort),
    /// The folder of a Unix socket.
    Socket {
        /// The absolute path of the folder.
        folder: PathBuf,
        /// Part of the socket's name.
        port: u16,
    },
}

impl fmt::Display for DatabaseHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => host.fmt(f),
            Self::Socket { folder, port } => write!(f, "{}/.s.PGSQL.{port}", folder.display()),
        }
    }
}

named! {
    /// The values of the parameter `sslmode`.
    pub enum DatabaseTls {
        /// TLS is never used.
        Disable = "disable",
        /// Where the server offers it. No certificate is checked.
        Prefer = "prefer",
        /// Always. No certificate is checked.
        Require = "require",
        /// Always, with a certificate from somebody who is trusted.
        VerifyCa = "verify-ca",
        /// Always, with such a certificate for this very host.
        VerifyFull = "verify-full",
    }
}

#[expect(clippy::derivable_impls, reason = "variants of named! have documentation and no attributes")]
impl Default for DatabaseTls {
    fn default() -> Self {
        Self::Prefer
    }
}

named! {
    /// The values of the parameter `target_session_attrs`.
    pub enum SessionAttributes {
        /// The first server that takes the connection.
        Any = "any",
        /// The first server that accepts writes.
        ReadWrite = "read-write",
    }
}

#[expect(clippy::derivable_impls, reason = "variants of named! have documentation and no attributes")]
impl Default for SessionAttributes {
    fn default() -> Self {
        Self::Any
    }
}

impl DatabaseAddress {
    /// The same server and user, another database.
    #[must_use]
    pub fn with_database(&self, database: &str) -> Self {
        Self { database: Some(database.to_owned()), ..self.clone() }
    }

    /// As a text that reads back as the same address.
    pub fn url(&self) -> SecretString {
        let host = |host: &DatabaseHost| match host {
            DatabaseHost::Tcp(host) => host.to_string(),
            DatabaseHost::Socket { folder, port } => format!("{}:{port}", encoded(&folder.to_string_lossy())),
        };
        let hosts: Vec<_> = self.hosts.iter().map(host).collect();
        let password = self.password.as_ref().map(|password| format!(":{}", encoded(password.expose_secret())));
        let credentials = self.user.as_ref().map(|user| format!("{}{}@", encoded(user), password.unwrap_or_default()));
        let mut parameters = vec![(Parameter::Sslmode, self.tls.name().to_owned())];
        let path = |path: &PathBuf| path.to_string_lossy().into_owned();
        parameters.extend(self.root_cert.as_ref().map(|file| (Parameter::Sslrootcert, path(file))));
        if let Some((cert, key)) = &self.client_cert {
            parameters.extend([(Parameter::Sslcert, path(cert)), (Parameter::Sslkey, path(key))]);
        }
        if self.session == SessionAttributes::ReadWrite {
            parameters.push((Parameter::TargetSessionAttrs, "read-write".to_owned()));
        }
        let seconds = |wait: Duration| (Parameter::ConnectTimeout, wait.as_secs().to_string());
        parameters.extend(self.connect_timeout.map(seconds));
        parameters.extend(self.application_name.clone().map(|name| (Parameter::ApplicationName, name)));
        let capacity = |count: usize| (Parameter::StatementCacheCapacity, count.to_string());
        parameters.extend(self.statement_cache_capacity.map(capacity));
        if !self.options.is_empty() {
            parameters.push((Parameter::Options, parameters::options_text(&self.options)));
        }
        let parameters: Vec<_> =
            parameters.into_iter().map(|(name, value)| format!("{}={}", name.name(), encoded(&value))).collect();
        let database = self.database.as_deref().map(encoded).unwrap_or_default();
        let (credentials, hosts, parameters) = (credentials.unwrap_or_default(), hosts.join(","), parameters.join("&"));
        format!("postgres://{credentials}{hosts}/{database}?{parameters}").into()
    }

    /// Reads an address. What it leaves out is taken from libpq's environment variables (`PGHOST`, `PGSSLMODE`, …), for
    /// which `variable` is asked.
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, AddressError> {
        let schemes = ["postgres", "postgresql"];
        let (_, rest) = after_scheme(text, &schemes, "postgres:// or postgresql://")?;
        let parts = parts(rest)?;
        let mut given = Given::read(&parts.parameters)?;
        let database = match decoded("database", parts.path)? {
            none if none.is_empty() => None,
            database => Some(database),
        };
        let user = given.unless_named(Parameter::User, parts.user)?;
        let password = given.unless_named(Parameter::Password, parts.password)?;
        let database = given.unless_named(Parameter::Dbname, database)?;
        let hosts = hosts_of_authority(parts.hosts)?;
        if !hosts.is_empty() {
            given.must_lack(&[Parameter::Host, Parameter::Hostaddr])?;
        }
        if hosts.iter().any(|(_, port)| port.is_some()) {
            given.must_lack(&[Parameter::Port])?;
        }
        given.fill(variable)?;
        let hosts = with_ports(if hosts.is_empty() { hosts_of_parameters(&mut given)? } else { hosts }, &mut given)?;
        let (tls, root_cert) = given.tls()?;
        let address = Self {
            hosts,
            user: user.or_else(|| given.take(Parameter::User)),
            password: password.or_else(|| given.take(Parameter::Password)).map(SecretString::from),
            database: database.or_else(|| given.take(Parameter::Dbname)),
            tls,
            root_cert,
            client_cert: given.client_cert()?,
            session: given.session()?,
            connect_timeout: given.connect_timeout()?,
            application_name: given.take(Parameter::ApplicationName),
            statement_cache_capacity: given.statement_cache_capacity()?,
            options: given.options()?,
        };
        match (&address.user, &address.password) {
            (None, Some(_)) => Err(AddressError::Credentials { named: "password", missing: "user" }),
            (Some(_) | None, _) => Ok(address),
        }
    }
}

/// A host as it was written, and its own port.
type Written = (String, Option<u16>);

fn hosts_of_authority(authority: &str) -> Result<Vec<Written>, AddressError> {
    let one = |(number, entry): (usize, &str)| {
        let (host, port) = host_and_port(number, entry)?;
        // A socket's folder is percent-encoded there; nothing else may be.
        let host = if host.starts_with("%2") { decoded("host", host)? } else { host.to_owned() };
        Ok((host, port))
    };
    let entries = authority.split(',').filter(|_| !authority.is_empty());
    (1..).zip(entries).map(one).collect()
}

/// The hosts of `host` or `hostaddr`, or of the variables that stand for them.
fn hosts_of_parameters(given: &mut Given) -> Result<Vec<Written>, AddressError> {
    if let Some(hosts) = given.take(Parameter::Host) {
        let bare =
            |host: &str| host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host).to_owned();
        return Ok(hosts.split(',').map(|host| (bare(host), None)).collect());
    }
    let addresses = given.take(Parameter::Hostaddr).ok_or(AddressError::NoHost)?;
    let one = |(number, address): (usize, &str)| {
        let problem = "is given as hostaddr and is no IP address";
        address.parse::<IpAddr>().map_err(|_| AddressError::Host { number, problem })?;
        Ok((address.to_owned(), None))
    };
    (1..).zip(addresses.split(',')).map(one).collect()
}

/// Gives each host its own port, or the one of `port`: one for all, or one for each.
fn with_ports(hosts: Vec<Written>, given: &mut Given) -> Result<Vec<DatabaseHost>, AddressError> {
    let ports = given.take(Parameter::Port).unwrap_or_else(|| PORT.to_string());
    let ports: Vec<_> = ports.split(',').collect();
    if ports.len() > 1 && ports.len() != hosts.len() {
        return Err(AddressError::PortCount);
    }
    let ports = (1..).zip(ports.into_iter().cycle());
    let host = |((host, own_port), (number, default)): (Written, (usize, &str))| {
        let port = own_port.map_or_else(|| port(number, default), Ok)?;
        if host.starts_with('/') {
            return Ok(DatabaseHost::Socket { folder: host.into(), port });
        }
        Ok(DatabaseHost::Tcp(HostPort { host: checked_host(number, &host)?, port }))
    };
    hosts.into_iter().zip(ports).map(host).collect()
}

impl fmt::Debug for DatabaseAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseAddress").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// Without libpq's environment variables.
impl FromStr for DatabaseAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Self::parse(text, |_| None)
    }
}

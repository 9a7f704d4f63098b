//! Translates the address of a server into options of the Postgres client. The client gets values, never a text to parse.

use crate::address::{DatabaseAddress, DatabaseHost, DatabaseTls};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// The options for one host of an address. They do not contain the session settings of the address, because a pooler would
/// not pass these on as startup parameters.
pub(super) fn options_for(address: &DatabaseAddress, host: &DatabaseHost) -> PgConnectOptions {
    let mut options = PgConnectOptions::new_without_pgpass().ssl_mode(match address.tls {
        DatabaseTls::Disable => PgSslMode::Disable,
        DatabaseTls::Prefer => PgSslMode::Prefer,
        DatabaseTls::Require => PgSslMode::Require,
        DatabaseTls::VerifyCa => PgSslMode::VerifyCa,
        DatabaseTls::VerifyFull => PgSslMode::VerifyFull,
    });
    options = match host {
        DatabaseHost::Tcp(host) => options.host(&host.host).port(host.port),
        DatabaseHost::Socket { folder, port } => options.socket(folder).port(*port),
    };
    if let Some(user) = &address.user {
        options = options.username(user);
    }
    if let Some(password) = &address.password {
        options = options.password(secrecy::ExposeSecret::expose_secret(password));
    }
    if let Some(database) = &address.database {
        options = options.database(database);
    }
    if let Some(file) = &address.root_cert {
        options = options.ssl_root_cert(file);
    }
    if let Some((cert, key)) = &address.client_cert {
        options = options.ssl_client_cert(cert).ssl_client_key(key);
    }
    if let Some(name) = &address.application_name {
        options = options.application_name(name);
    }
    if let Some(count) = address.statement_cache_capacity {
        options = options.statement_cache_capacity(count);
    }
    options
}

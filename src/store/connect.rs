//! From the address of a server to what the client is told. It is told values, never a text that it would have to read.

use crate::address::{DatabaseAddress, DatabaseHost, DatabaseTls};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// How to connect to one of an address's hosts. Without the address's settings of a session: as startup parameters they
/// would not pass a pooler.
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

//! Databases of Postgres.

use super::with_path;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use std::time::Duration;

/// The longest time of one statement on the server, with its connection. `CREATE DATABASE` copies a template.
const DEADLINE: Duration = Duration::from_secs(30);

/// The schemes of a Postgres URL.
const SCHEMES: [&str; 2] = ["postgres", "postgresql"];

/// The longest name that Postgres does not cut, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Why a database could not be created or dropped.
#[derive(Debug, thiserror::Error)]
pub enum ScratchError {
    /// The name would need quoting.
    #[error("{0:?} is no name for a database: 1 to 63 of a-z, 0-9 and _, beginning with a letter")]
    BadName(String),
    /// The URL does not name a database.
    #[error("the database URL is not of the form postgres://user:password@host:5432/database")]
    BadUrl,
    /// The server does not answer.
    #[error("Postgres is out of reach: {0}")]
    Unreachable(#[source] sqlx::Error),
    /// The server does not answer in time.
    #[error("Postgres did not answer within {} s", DEADLINE.as_secs())]
    TimedOut,
    /// The server refused the statement.
    #[error("Postgres refused: {0}")]
    Refused(#[source] sqlx::Error),
}

impl ScratchError {
    /// True if the server is not reachable, so nothing is wrong with the request itself.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::TimedOut => true,
            Self::BadName(_) | Self::BadUrl | Self::Refused(_) => false,
        }
    }
}

/// Creates the database `name` on the server of `url`. Returns its URL.
pub async fn create_database(url: &str, name: &str) -> Result<String, ScratchError> {
    check(name)?;
    let own_url = with_path(url, &SCHEMES, name).ok_or(ScratchError::BadUrl)?;
    // No session is ever connected to template0, so runs that start at the same time do not block each other.
    execute(url, format!("CREATE DATABASE {name} TEMPLATE template0")).await?;
    Ok(own_url.into())
}

/// Drops the database `name` on the server of `url`, and ends its connections. Succeeds if there is none.
pub async fn drop_database(url: &str, name: &str) -> Result<(), ScratchError> {
    check(name)?;
    execute(url, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await
}

async fn execute(url: &str, statement: String) -> Result<(), ScratchError> {
    in_time(async {
        // To copy a template or drop a database takes long. sqlx would log a warning.
        let options: PgConnectOptions = url.parse().map_err(|_| ScratchError::BadUrl)?;
        let options = options.disable_statement_logging();
        let mut connection = options.connect().await.map_err(classify)?;
        // This is safe: the only text from outside is a name that `check` accepted.
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&mut connection).await.map_err(classify)?;
        // The work is done, even if the connection does not close cleanly.
        let _ = connection.close().await;
        Ok(())
    })
    .await
}

async fn in_time<T>(work: impl Future<Output = Result<T, ScratchError>>) -> Result<T, ScratchError> {
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(ScratchError::TimedOut))
}

fn classify(error: sqlx::Error) -> ScratchError {
    if matches!(error, sqlx::Error::Io(_) | sqlx::Error::Tls(_)) {
        ScratchError::Unreachable(error)
    } else {
        ScratchError::Refused(error)
    }
}

fn check(name: &str) -> Result<(), ScratchError> {
    let bytes = name.as_bytes();
    let ok = bytes.first().is_some_and(u8::is_ascii_lowercase)
        && bytes.len() <= NAME_BYTES_MAX
        && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if ok { Ok(()) } else { Err(ScratchError::BadName(name.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_quoting() {
        assert!(check("grantonce_demo_01ab").is_ok());
        for bad in ["", "1a", "_a", "a-b", "a b", "A", "a;drop", "a\"", &"a".repeat(64)] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_out_of_reach() {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = nobody.local_addr().unwrap().port();
        drop(nobody);
        let error = create_database(&format!("postgres://u@127.0.0.1:{port}/x"), "y").await.unwrap_err();
        assert!(error.is_unreachable(), "{error}");
    }
}

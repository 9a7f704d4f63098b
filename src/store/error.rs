//! Errors of the database, classified by what to do about them. SQLSTATE decides, never the text of an error.

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The database cannot serve now: wait and try again. Nothing was written, or the outcome is unknown.
    Transient,
    /// Other transactions were in the way: try again at once.
    Contended,
    /// The data of this statement causes the error: the same try would fail again.
    Data,
    /// The program or its set-up causes the error: the schema, the rights, or a statement that does not fit. It is logged as
    /// an error, and no message is given up.
    Bug,
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres, or the connection to it, failed.
    #[error("{what}: {source}")]
    Sql {
        /// The operation that failed.
        what: &'static str,
        /// The error of the client library.
        source: sqlx::Error,
    },
    /// The deadline passed. It is unknown whether the data was written.
    #[error("{what}: no answer from Postgres within {} s; whether it was written is unknown", after.as_secs_f32())]
    Deadline {
        /// The operation that failed.
        what: &'static str,
        /// How long the caller has waited.
        after: Duration,
    },
    /// A server did not answer a new connection.
    #[error("{what}: no answer within {} s", after.as_secs_f32())]
    Unanswered {
        /// The operation that failed.
        what: &'static str,
        /// How long the caller has waited.
        after: Duration,
    },
    /// Postgres has no room for another connection. Nothing was begun.
    #[error(
        "too many connections: Postgres refuses another one; raise its max_connections (or the limit of the user or of \
         the database), or run fewer processes: this one may have up to {connections_max}: {source}"
    )]
    TooManyConnections {
        /// The largest number of connections of the part of this process that was refused.
        connections_max: u32,
        /// The error that Postgres returned.
        source: sqlx::Error,
    },
    /// No connection of this process is free. Nothing was begun.
    #[error("{what}: {why}")]
    NoConnection {
        /// The operation that failed.
        what: &'static str,
        /// The reason why no connection is free.
        why: NoneFree,
    },
    /// The server accepts no writes. Nothing was written.
    #[error("Postgres is read-only: a standby, or default_transaction_read_only is on")]
    ReadOnly,
    /// Clients share the sessions. The settings and prepared statements of one client would be lost, or would reach another
    /// client.
    #[error(
        "DATABASE_URL leads to a connection pooler that shares sessions among clients; set pool_mode = session for this \
         database in PgBouncer, or connect to Postgres directly"
    )]
    SharedSession,
    /// The task ended without an answer, because the runtime is shutting down.
    #[error("{what}: the task ended without an answer")]
    Lost {
        /// The operation that failed.
        what: &'static str,
    },
    /// A row contains a value that this program never writes.
    #[error("{what}: {detail}; was the table changed by hand?")]
    Corrupt {
        /// The row that contains the value.
        what: String,
        /// The reason why the value is wrong.
        detail: String,
    },
    /// A state that cannot occur: a fault of this program. Nothing was written.
    #[error("{what}: {fault}; this is a fault of grantonce, please report it")]
    Impossible {
        /// The operation that failed.
        what: &'static str,
        /// The state that cannot occur.
        fault: String,
    },
    /// Other transactions disturbed the same batch again and again.
    #[error(
        "gave up after {tries} tries: other transactions kept registering the same payments or changing the same orders"
    )]
    Disturbed {
        /// The number of tries.
        tries: u32,
    },
}

/// The reason why no connection is free.
#[derive(Debug, Clone)]
pub struct NoneFree {
    /// The largest number of connections.
    pub connections_max: u32,
    /// The number of connections that were given up. They count until the server has ended their sessions.
    pub given_up: usize,
    /// How many of these wait for a commit.
    pub committing: usize,
    /// The reason why the server cannot be asked about them, if it cannot.
    pub blind: Option<Arc<StoreError>>,
}

impl fmt::Display for NoneFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections_max, given_up, committing, blind } = self;
        let away = "waiting for a commit that does not end; is a synchronous standby away?";
        if let Some(cause) = blind {
            write!(
                f,
                "{given_up} of {connections_max} connections to Postgres were given up, and Postgres is out of reach: {cause}"
            )
        } else if u32::try_from(*committing).is_ok_and(|committing| committing >= *connections_max) {
            write!(f, "all {connections_max} connections to Postgres are {away}")
        } else if *committing > 0 {
            write!(f, "all {connections_max} connections to Postgres are in use, {committing} of them {away}")
        } else if *given_up > 0 {
            write!(f, "all {connections_max} connections to Postgres are in use, {given_up} of them were given up")
        } else {
            write!(f, "all {connections_max} connections to Postgres are in use")
        }
    }
}

impl StoreError {
    pub(super) fn sql(what: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql { what, source }
    }

    pub(super) fn impossible(what: &'static str, fault: impl ToString) -> Self {
        Self::Impossible { what, fault: fault.to_string() }
    }

    /// Says what to do about the error.
    pub fn class(&self) -> Class {
        match self {
            Self::Deadline { .. }
            | Self::Unanswered { .. }
            | Self::Lost { .. }
            | Self::TooManyConnections { .. }
            | Self::NoConnection { .. }
            | Self::ReadOnly => Class::Transient,
            Self::Disturbed { .. } => Class::Contended,
            Self::Corrupt { .. } | Self::Impossible { .. } | Self::SharedSession => Class::Bug,
            Self::Sql { source: sqlx::Error::Database(error), .. } => {
                error.code().as_deref().map_or(Class::Transient, class_of_sqlstate)
            }
            Self::Sql { source, .. } => class_of_client_error(source),
        }
    }

    /// Whether another session held a lock longer than the statement waited: `lock_not_available`.
    pub fn is_lock_timeout(&self) -> bool {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else { return false };
        error.code().as_deref() == Some("55P03")
    }

    /// Whether the server accepts no writes at present.
    pub(super) fn is_read_only(&self) -> bool {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else {
            return matches!(self, Self::ReadOnly);
        };
        error.code().as_deref() == Some(READ_ONLY)
    }

    /// Whether the connection cannot be used again: it is lost, or it leads to a server that accepts no writes.
    pub(super) fn ends_session(&self) -> bool {
        match self {
            Self::Sql { source: sqlx::Error::Database(error), .. } => {
                let severity = error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
                matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic))
                    || error.code().as_deref() == Some(READ_ONLY)
            }
            Self::Sql { source: sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_), .. }
            | Self::ReadOnly => true,
            Self::Sql { .. }
            | Self::Deadline { .. }
            | Self::Unanswered { .. }
            | Self::TooManyConnections { .. }
            | Self::NoConnection { .. }
            | Self::SharedSession
            | Self::Lost { .. }
            | Self::Corrupt { .. }
            | Self::Impossible { .. }
            | Self::Disturbed { .. } => false,
        }
    }

    /// Whether the server returned this error itself.
    pub(super) fn is_from_server(&self) -> bool {
        matches!(
            self,
            Self::Sql { source: sqlx::Error::Database(_), .. }
                | Self::TooManyConnections { .. }
                | Self::ReadOnly
                | Self::SharedSession
        )
    }

    /// The SQLSTATE and the violated constraint, for an operator. The text contains no data.
    pub fn code(&self) -> Option<String> {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else { return None };
        let code = error.code()?;
        Some(match error.constraint() {
            Some(constraint) => format!("SQLSTATE {code}, constraint {constraint}"),
            None => format!("SQLSTATE {code}"),
        })
    }
}

/// The SQLSTATE of `read_only_sql_transaction`.
const READ_ONLY: &str = "25006";

/// The classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn class_of_sqlstate(code: &str) -> Class {
    match code {
        // These are serialization_failure, deadlock_detected and lock_not_available.
        "40001" | "40P01" | "55P03" => Class::Contended,
        // A read-only server is a standby after a failover. The primary will be back.
        READ_ONLY => Class::Transient,
        // This is program_limit_exceeded: a row is too large for an index, so the data causes it.
        "54000" => Class::Data,
        _ => match code.get(..2) {
            // These are data exceptions, integrity violations, and errors that an operator's trigger raises.
            Some("22" | "23" | "P0") => Class::Data,
            // These are errors of syntax, access, features, transaction states and names. The program or its set-up causes
            // them.
            Some("42" | "0A" | "25" | "26" | "2F" | "3B") => Class::Bug,
            // These are connections, resources, operator intervention, system errors, authentication, and unknown databases.
            Some(_) | None => Class::Transient,
        },
    }
}

fn class_of_client_error(error: &sqlx::Error) -> Class {
    use sqlx::Error;
    #[expect(clippy::wildcard_enum_match_arm, reason = "sqlx::Error is non-exhaustive")]
    match error {
        Error::ColumnDecode { .. }
        | Error::Decode(_)
        | Error::Encode(_)
        | Error::ColumnNotFound(_)
        | Error::ColumnIndexOutOfBounds { .. }
        | Error::TypeNotFound { .. }
        | Error::RowNotFound
        | Error::Configuration(_) => Class::Bug,
        Error::Migrate(error) => match error.as_ref() {
            // The error belongs to one migration or to the work around it.
            MigrateError::Execute(Error::Database(error))
            | MigrateError::ExecuteMigration(Error::Database(error), _) => {
                error.code().as_deref().map_or(Class::Transient, class_of_sqlstate)
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => class_of_client_error(error),
            // The schema is not the one that the migrations expect.
            _ => Class::Bug,
        },
        _ => Class::Transient,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_sqlstate_has_its_consequence() {
        for (code, class) in [
            ("40001", Class::Contended),
            ("40P01", Class::Contended),
            ("55P03", Class::Contended),
            ("22021", Class::Data),
            ("23505", Class::Data),
            ("P0001", Class::Data),
            ("54000", Class::Data),
            ("42P01", Class::Bug),
            ("42501", Class::Bug),
            ("25P02", Class::Bug),
            ("25006", Class::Transient),
            ("57P01", Class::Transient),
            ("57014", Class::Transient),
            ("08006", Class::Transient),
            ("53300", Class::Transient),
            ("28P01", Class::Transient),
            ("3D000", Class::Transient),
            ("XX000", Class::Transient),
        ] {
            assert_eq!(class_of_sqlstate(code), class, "{code}");
        }
    }
}

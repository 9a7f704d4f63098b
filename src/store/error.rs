//! What can go wrong with the database, classified by whose fault it is. Decided by SQLSTATE, never by a text.

use sqlx::migrate::MigrateError;
use sqlx::postgres::{PgDatabaseError, PgSeverity};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// What to do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The database's fault, now: wait and try again. Nothing was written, or what was written is not known.
    Transient,
    /// Others were in the way: try again at once.
    Contended,
    /// The fault lies in the data of this one statement: trying again as it is will fail again.
    Data,
    /// Ours or the operator's: schema, rights, a statement that does not fit. Loud, and nothing is given up.
    Bug,
}

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Postgres, or the way to it, failed.
    #[error("{what}: {source}")]
    Sql {
        /// What was being done.
        what: &'static str,
        /// What came of it.
        source: sqlx::Error,
    },
    /// The waiter's deadline passed. Whether it was written is unknown.
    #[error("{what}: no answer from Postgres within {} s; whether it was written is unknown", after.as_secs_f32())]
    Deadline {
        /// What was being done.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// A server did not answer a new connection.
    #[error("{what}: no answer within {} s", after.as_secs_f32())]
    Unanswered {
        /// What was being done.
        what: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// Postgres has no room for another connection. Nothing was begun.
    #[error(
        "too many connections: Postgres refuses another one; raise its max_connections (or the limit of the user or of \
         the database), or run fewer processes: this one may have up to {connections_max}: {source}"
    )]
    TooManyConnections {
        /// How many the refused part of this process may have.
        connections_max: u32,
        /// In Postgres' words.
        source: sqlx::Error,
    },
    /// None of this process's own connections is free. Nothing was begun.
    #[error("{what}: {why}")]
    NoConnection {
        /// What was being done.
        what: &'static str,
        /// What they are busy with.
        why: NoneFree,
    },
    /// The server takes no writes. Nothing was written.
    #[error("Postgres is read-only: a standby, or default_transaction_read_only is on")]
    ReadOnly,
    /// What is set in a session, or prepared in it, would be lost or meet others.
    #[error(
        "DATABASE_URL leads to a connection pooler that shares sessions among clients; set pool_mode = session for this \
         database in PgBouncer, or connect past it"
    )]
    SharedSession,
    /// The task that did it ended without an answer: the runtime is closing.
    #[error("{what}: the task ended without an answer")]
    Lost {
        /// What was being done.
        what: &'static str,
    },
    /// A row holds what this program never writes.
    #[error("{what}: {detail}; was the table changed by hand?")]
    Corrupt {
        /// Which row.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Something that cannot be: a fault of this program. Nothing was written.
    #[error("{what}: {fault}; this is a fault of grantonce, please report it")]
    Impossible {
        /// What was being done.
        what: &'static str,
        /// What cannot be.
        fault: String,
    },
    /// The same batch was disturbed by others again and again.
    #[error(
        "gave up after {tries} tries: other transactions kept registering the same payments or changing the same orders"
    )]
    Disturbed {
        /// How often it was tried.
        tries: u32,
    },
}

/// Why no connection is free.
#[derive(Debug, Clone)]
pub struct NoneFree {
    /// How many there may be.
    pub connections_max: u32,
    /// How many were given up and count until the server has ended their sessions.
    pub given_up: usize,
    /// How many of these wait for a commit.
    pub committing: usize,
    /// Why the server cannot be asked for them, where it cannot.
    pub blind: Option<Arc<StoreError>>,
}

impl fmt::Display for NoneFree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { connections_max, given_up, committing, blind } = self;
        let away = "waiting for a commit that does not end; is a synchronous standby away?";
        if let Some(cause) = blind {
            write!(
                f,
                "{given_up} of {connections_max} connections to Postgres were given up, and it is out of reach: {cause}"
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

    /// What to do about it.
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

    /// Whether another session held a lock for longer than was waited for it: `lock_not_available`.
    pub fn is_lock_timeout(&self) -> bool {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else { return false };
        error.code().as_deref() == Some("55P03")
    }

    /// Whether the server takes no writes at the moment.
    pub(super) fn is_read_only(&self) -> bool {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else {
            return matches!(self, Self::ReadOnly);
        };
        error.code().as_deref() == Some(READ_ONLY)
    }

    /// Whether the connection it happened on is of no more use: it is lost, or leads to a server that takes no writes.
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

    /// Whether a server said so, and not the way to it.
    pub(super) fn is_from_server(&self) -> bool {
        matches!(
            self,
            Self::Sql { source: sqlx::Error::Database(_), .. }
                | Self::TooManyConnections { .. }
                | Self::ReadOnly
                | Self::SharedSession
        )
    }

    /// The SQLSTATE, and the constraint where one was violated, for an operator. Holds no data.
    pub fn code(&self) -> Option<String> {
        let Self::Sql { source: sqlx::Error::Database(error), .. } = self else { return None };
        let code = error.code()?;
        Some(match error.constraint() {
            Some(constraint) => format!("SQLSTATE {code}, constraint {constraint}"),
            None => format!("SQLSTATE {code}"),
        })
    }
}

/// read_only_sql_transaction
const READ_ONLY: &str = "25006";

/// Classes of <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
fn class_of_sqlstate(code: &str) -> Class {
    match code {
        // serialization_failure, deadlock_detected, lock_not_available
        "40001" | "40P01" | "55P03" => Class::Contended,
        // A read-only server is a standby after a failover: the primary will be back.
        READ_ONLY => Class::Transient,
        // program_limit_exceeded (a row too large for an index) lies in the data.
        "54000" => Class::Data,
        _ => match code.get(..2) {
            // Data exceptions, integrity violations, and what a trigger of the operator's raises.
            Some("22" | "23" | "P0") => Class::Data,
            // Syntax or access rules, features, invalid transaction states, names: the program or its set-up.
            Some("42" | "0A" | "25" | "26" | "2F" | "3B") => Class::Bug,
            // Connections, resources, operator intervention, system errors, authentication, unknown database …
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
            // Of one migration, or of what is around it.
            MigrateError::Execute(Error::Database(error))
            | MigrateError::ExecuteMigration(Error::Database(error), _) => {
                error.code().as_deref().map_or(Class::Transient, class_of_sqlstate)
            }
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => class_of_client_error(error),
            // The schema is not what the migrations begin with.
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

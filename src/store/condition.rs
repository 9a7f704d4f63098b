//! The condition of the server: whether it accepts writes, commits, and keeps what it commits, and which settings a
//! connection has.

use super::error::StoreError;
use super::pool::Store;
use crate::code::Code;
use crate::findings::Findings;
use sqlx::{PgConnection, Row};
use std::pin::pin;
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::oneshot;

/// If the server has fewer connections left than this, that is a fault, because a role opens at least as many.
const CONNECTIONS_LEFT_MIN: i64 = 4;

/// How long a commit may take during the check.
const COMMIT_DEADLINE: Duration = Duration::from_secs(4);

impl Store {
    /// How far the server's clock is ahead of ours. The error is at most half a round trip.
    pub async fn clock_ahead(
        &self,
        now: impl Fn() -> OffsetDateTime + Send + 'static,
    ) -> Result<time::Duration, StoreError> {
        const WHAT: &str = "asking for the time";
        self.run(WHAT, move |pool| async move {
            // The connection is opened first, so that this is not part of the measured round trip.
            let mut connection = pool.connection().await?;
            let before = now();
            let asked = sqlx::query_scalar::<_, OffsetDateTime>("SELECT clock_timestamp()");
            let theirs = asked.fetch_one(&mut *connection).await.map_err(StoreError::sql(WHAT))?;
            let after = now();
            Ok(theirs - (before + (after - before) / 2))
        })
        .await
    }

    /// Checks the settings of the server, the settings of one of our connections, and the number of connections.
    pub async fn condition(&self) -> Result<Findings, StoreError> {
        const WHAT: &str = "looking at the server's settings";
        let deadline = self.deadline();
        self.run(WHAT, move |pool| async move {
            let mut connection = pool.connection().await?;
            let mut findings = Findings::default();
            settings(&mut connection, deadline, &mut findings).await.map_err(StoreError::sql(WHAT))?;
            connections(&mut connection, &mut findings).await.map_err(StoreError::sql(WHAT))?;
            findings.note("not seen, because Postgres does not tell it: free disk space");
            Ok(findings)
        })
        .await
    }

    /// Checks whether a transaction that writes can commit. It writes only into the server's log. If the commit hangs, a
    /// second connection is needed.
    pub async fn commits(&self) -> Result<Findings, StoreError> {
        const WHAT: &str = "trying to commit";
        let (tell, told) = oneshot::channel::<i32>();
        let mut commit = pin!(self.run(WHAT, move |pool| async move {
            let mut connection = pool.connection().await?;
            let row = sqlx::query(
                "SELECT pg_backend_pid() AS pid,
                        pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS is_read_only",
            )
            .fetch_one(&mut *connection)
            .await
            .map_err(StoreError::sql(WHAT))?;
            if row.try_get("is_read_only").map_err(StoreError::sql(WHAT))? {
                return Ok(false);
            }
            // If nobody waits any more, nobody needs the answer.
            let _unheard = tell.send(row.try_get("pid").map_err(StoreError::sql(WHAT))?);
            // A commit waits for the disk and for standbys only if the transaction has written to the log.
            sqlx::query("SELECT pg_logical_emit_message(true, 'grantonce', 'check')")
                .execute(&mut *connection)
                .await
                .map_err(StoreError::sql(WHAT))?;
            Ok(true)
        }));
        let hangs = async {
            let Ok(pid) = told.await else { return std::future::pending().await };
            // Nothing announces that a commit hangs, so there is a deadline.
            tokio::time::sleep(COMMIT_DEADLINE).await;
            pid
        };
        let mut findings = Findings::default();
        tokio::select! {
            written = &mut commit => {
                if !written? {
                    findings.fault(Code::PostgresReadOnly,
                        "Postgres is read-only here: a standby, or default_transaction_read_only is on",
                        "name the primary in DATABASE_URL, or reset default_transaction_read_only by `ALTER SYSTEM`, \
                         `ALTER DATABASE` or `ALTER ROLE`",
                    );
                }
            }
            pid = hangs => {
                findings.fault(Code::PostgresCommit,
                    format!("a commit does not end within {} s", COMMIT_DEADLINE.as_secs()),
                    "look at pg_stat_replication and `SHOW synchronous_standby_names`: a synchronous standby may be gone",
                );
                // This ends the wait for the standby, so that no connection is left behind.
                self.run(WHAT, move |pool| async move {
                    let ended = sqlx::query("SELECT pg_cancel_backend($1)").bind(pid);
                    ended.execute(&mut *pool.connection().await?).await.map_err(StoreError::sql(WHAT))?;
                    Ok(())
                })
                .await?;
                commit.await?;
            }
        }
        Ok(findings)
    }
}

/// The values that these settings must not have. They are safe by default.
const KEEP_WHAT_IS_COMMITTED: [(&str, &str); 3] = [
    ("fsync", "a crash of the machine can destroy the database"),
    ("full_page_writes", "a crash of the machine can destroy pages of the database"),
    ("synchronous_commit", "a crash of the server loses grants whose messages are acknowledged"),
];

/// The timeouts that grantonce sets on each connection. The value 0 means no timeout.
const TIMEOUTS: [&str; 3] = ["statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"];

async fn settings(
    connection: &mut PgConnection,
    deadline: Duration,
    findings: &mut Findings,
) -> Result<(), sqlx::Error> {
    let names: Vec<&str> =
        KEEP_WHAT_IS_COMMITTED.iter().map(|(name, _)| *name).chain(TIMEOUTS).chain(["server_version"]).collect();
    let rows = sqlx::query("SELECT name, setting FROM pg_settings WHERE name = ANY($1) ORDER BY name")
        .bind(&names)
        .fetch_all(connection)
        .await?;
    for row in rows {
        let (name, setting): (String, String) = (row.try_get("name")?, row.try_get("setting")?);
        if name == "server_version" {
            findings.note(format!("version {setting}"));
        } else if TIMEOUTS.contains(&name.as_str()) {
            let ms: u128 = setting.parse().unwrap_or(0);
            if ms == 0 || ms > deadline.as_millis() {
                findings.fault(
                    Code::PostgresSetting,
                    format!(
                        "{name} is {setting} ms on this connection, and grantonce asked for at most {} ms",
                        deadline.as_millis()
                    ),
                    "connect to Postgres directly, or let the pooler keep the settings of sessions",
                );
            }
        } else if setting == "off" {
            let why = KEEP_WHAT_IS_COMMITTED.iter().find(|(setting, _)| *setting == name).map_or("", |(_, why)| why);
            findings.fault(
                Code::PostgresSetting,
                format!("{name} is off: {why}"),
                format!(
                    "`ALTER SYSTEM SET {name} = on` and `SELECT pg_reload_conf()`, or reset it for database and role"
                ),
            );
        }
    }
    Ok(())
}

async fn connections(connection: &mut PgConnection, findings: &mut Findings) -> Result<(), sqlx::Error> {
    let row = sqlx::query(
        "SELECT current_setting('max_connections')::bigint
                    - current_setting('superuser_reserved_connections')::bigint
                    - coalesce(current_setting('reserved_connections', true), '0')::bigint AS of_server,
                (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' OR backend_type IS NULL) AS used,
                d.datconnlimit::bigint AS of_database, r.rolconnlimit::bigint AS of_role,
                (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid) AS used_database,
                (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid) AS used_role
         FROM pg_database d, pg_roles r WHERE d.datname = current_database() AND r.rolname = current_user",
    )
    .fetch_one(connection)
    .await?;
    for (whose, max, used) in [
        ("the server", "of_server", "used"),
        ("this database", "of_database", "used_database"),
        ("this role", "of_role", "used_role"),
    ] {
        let (max, used): (i64, i64) = (row.try_get(max)?, row.try_get(used)?);
        // The value -1 means no limit.
        if max < 0 {
            continue;
        }
        findings.note(format!("{used} of {max} connections of {whose} are in use"));
        if max - used < CONNECTIONS_LEFT_MIN {
            findings.fault(
                Code::PostgresConnections,
                format!("too many connections: {used} of the {max} of {whose} are in use"),
                "raise max_connections or the CONNECTION LIMIT, or end what holds them (pg_stat_activity)",
            );
        }
    }
    Ok(())
}

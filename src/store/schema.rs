//! Brings the schema up to date, and finds out which tables and rights a role lacks.

use super::error::StoreError;
use super::pool::{self, Store};
use crate::address::DatabaseAddress;
use crate::code::Code;
use crate::findings::{Fault, Findings};
use crate::followed::Followed;
use crate::role::Role;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use std::collections::BTreeSet;
use std::time::Duration;

static MIGRATOR: Migrator = sqlx::migrate!("./migrations");

/// How long one statement of a migration may take. It may read a whole table.
const MIGRATION_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Applies the missing migrations and returns their number. If two processes migrate at once, one waits for the other.
pub async fn migrate(url: &Followed<DatabaseAddress>) -> Result<usize, StoreError> {
    const WHAT: &str = "migrating the schema";
    let failed = |error: sqlx::migrate::MigrateError| StoreError::Sql { what: WHAT, source: error.into() };
    let mut connection = pool::connect(url, MIGRATION_DEADLINE).await?;
    let before = applied(&mut connection).await?.len();
    MIGRATOR.run(&mut connection).await.map_err(failed)?;
    let after = applied(&mut connection).await?.len();
    connection.close().await.map_err(StoreError::sql(WHAT))?;
    Ok(after.saturating_sub(before))
}

async fn applied(connection: &mut PgConnection) -> Result<Vec<i64>, StoreError> {
    let there = sqlx::query_scalar::<_, bool>("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(StoreError::sql("looking for the table of migrations"))?;
    if !there {
        return Ok(vec![]);
    }
    sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success ORDER BY version")
        .fetch_all(connection)
        .await
        .map_err(StoreError::sql("reading the applied migrations"))
}

/// The tables and rights of each role. `deploy/postgres-roles.sql` grants them. `all` has the rights of the roles that it runs.
pub(super) fn rights(role: Role) -> &'static [(&'static str, &'static [&'static str])] {
    match role {
        Role::Worker => &[
            ("orders", &["SELECT", "UPDATE"]),
            ("payments", &["SELECT", "INSERT"]),
            ("inbox", &["SELECT", "INSERT"]),
            ("credit_grants", &["INSERT"]),
            ("credit_adjustments", &["INSERT"]),
            ("overpaid_orders", &["SELECT", "INSERT", "UPDATE"]),
            ("message_notes", &["SELECT", "INSERT", "UPDATE"]),
            ("activity", &["SELECT", "INSERT", "UPDATE"]),
        ],
        Role::Api => &[
            ("orders", &["SELECT", "INSERT"]),
            ("payments", &["SELECT", "INSERT"]),
            ("idempotency_keys", &["SELECT", "INSERT"]),
            ("payment_attempts", &["SELECT", "INSERT", "UPDATE"]),
            ("provider_looks", &["SELECT", "INSERT", "UPDATE"]),
            ("account_balances", &["SELECT"]),
            ("credit_grants", &["SELECT"]),
            ("credit_adjustments", &["SELECT"]),
        ],
        Role::Reconciler => &[
            ("payments", &["SELECT"]),
            ("provider_looks", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
            ("provider_pace", &["SELECT", "INSERT", "UPDATE"]),
        ],
        Role::Ops | Role::Dlq => &[
            ("dead_letters", &["SELECT", "INSERT", "UPDATE", "DELETE"]),
            ("replays", &["SELECT", "INSERT", "UPDATE"]),
            ("replay_letters", &["SELECT", "INSERT", "UPDATE"]),
            ("payments", &["SELECT"]),
            ("inbox", &["SELECT"]),
            ("provider_looks", &["SELECT"]),
            ("audit_log", &["SELECT", "INSERT"]),
            ("credit_grants", &["SELECT"]),
            ("credit_adjustments", &["SELECT"]),
            ("message_notes", &["SELECT"]),
            ("activity", &["SELECT"]),
            ("overpaid_orders", &["SELECT"]),
        ],
        Role::Orders => &[("audit_log", &["INSERT"])],
        Role::Verify | Role::Check | Role::Migrate => &[
            ("payments", &["SELECT"]),
            ("credit_grants", &["SELECT"]),
            ("credit_adjustments", &["SELECT"]),
            ("inbox", &["SELECT"]),
            ("message_notes", &["SELECT"]),
            ("provider_looks", &["SELECT"]),
            ("audit_log", &["SELECT"]),
            ("overpaid_orders", &["SELECT"]),
        ],
        Role::Receiver | Role::All => &[],
    }
}

/// The columns of an order that decisions are based on: all except the site's notes about the buyer.
const ORDER_WITHOUT_METADATA: &[&str] = &[
    "id",
    "account_id",
    "credits",
    "amount_minor",
    "currency",
    "price_terms",
    "discount_max_minor",
    "provider",
    "provider_account",
    "status",
    "version",
    "is_granted",
    "credits_granted",
    "revision",
    "facts",
];

/// The columns of a payment attempt without the data that allows a payment.
const ATTEMPT_WITHOUT_SECRETS: &[&str] =
    &["order_id", "number", "first_sent_at", "last_sent_at", "is_burnt", "payment_id"];

/// The columns that an amendment of an order's price writes.
const ORDER_PRICE: &[&str] = &["amount_minor", "currency", "status", "version", "updated_at"];

/// The tables, rights and columns of roles that have a right to some columns only.
pub(super) fn column_rights(role: Role) -> &'static [(&'static str, &'static str, &'static [&'static str])] {
    match role {
        Role::Orders => &[("orders", "SELECT", ORDER_WITHOUT_METADATA), ("orders", "UPDATE", ORDER_PRICE)],
        Role::Ops | Role::Dlq => &[
            ("orders", "UPDATE", ORDER_PRICE),
            ("orders", "SELECT", ORDER_WITHOUT_METADATA),
            // The outcome of a letter is predicted with the worker's own statements. These read the position of a row.
            ("orders", "SELECT", &["ctid", "created_at", "updated_at"]),
            ("payment_attempts", "SELECT", ATTEMPT_WITHOUT_SECRETS),
        ],
        Role::Reconciler => &[("orders", "SELECT", &["id", "status", "created_at"])],
        Role::Verify | Role::Check | Role::Migrate => &[
            ("orders", "SELECT", ORDER_WITHOUT_METADATA),
            ("orders", "SELECT", &["created_at", "updated_at"]),
            ("payment_attempts", "SELECT", ATTEMPT_WITHOUT_SECRETS),
            (
                "dead_letters",
                "SELECT",
                &[
                    "id",
                    "message_id",
                    "reason",
                    "detail",
                    "origin",
                    "attempts",
                    "provider",
                    "provider_account",
                    "payment_id",
                    "payment_ids",
                    "order_id",
                    "order_ids",
                    "said",
                    "is_read",
                    "said_type",
                    "said_state",
                    "amount_minor",
                    "currency",
                    "state",
                    "state_at",
                    "state_by",
                    "state_reason",
                    "first_seen_at",
                    "last_seen_at",
                    "seen",
                    "replays",
                    "verdict",
                    "verdict_detail",
                ],
            ),
            ("replays", "SELECT", &["id", "created_at", "actor", "is_self_declared", "reason"]),
            (
                "replay_letters",
                "SELECT",
                &["replay_id", "position", "letter_id", "number", "state", "sent_at", "ended_at"],
            ),
        ],
        Role::Receiver | Role::Worker | Role::Api | Role::All => &[],
    }
}

/// The functions that a role calls: each with its arguments, and by its name.
pub(super) fn functions(role: Role) -> &'static [(&'static str, &'static str)] {
    match role {
        Role::Worker => &[
            ("inbox_maintain(date, integer)", "inbox_maintain"),
            ("notes_maintain(timestamptz, integer)", "notes_maintain"),
        ],
        Role::Orders => &[("forget_account(text, uuid, integer, boolean, timestamptz)", "forget_account")],
        Role::Ops | Role::Dlq | Role::Verify | Role::Check | Role::Migrate => {
            &[("letters_about(uuid[])", "letters_about"), ("orders_of_letters(uuid[])", "orders_of_letters")]
        }
        Role::Receiver | Role::Api | Role::Reconciler | Role::All => &[],
    }
}

impl Store {
    /// Compares the schema and the rights of this user with the needs of the role.
    pub async fn check(&self, role: Role) -> Result<Findings, StoreError> {
        const WHAT: &str = "checking schema and rights";
        self.run(WHAT, move |pool| async move {
            let mut connection = pool.connection().await?;
            let version: i32 = sqlx::query_scalar("SELECT current_setting('server_version_num')::int")
                .fetch_one(&mut *connection)
                .await
                .map_err(StoreError::sql(WHAT))?;
            let mut findings = Findings::default();
            let faults = &mut findings.faults;
            if version < 150_000 {
                faults.push(Fault {
                    code: Code::PostgresVersion,
                    what: format!("this is Postgres {}", version / 10_000),
                    remedy: "upgrade to 15 or newer".to_owned(),
                });
            }
            let applied = applied(&mut connection).await?;
            for migration in MIGRATOR.iter() {
                if !applied.contains(&migration.version) {
                    faults.push(Fault {
                        code: Code::PostgresSchema,
                        what: format!("migration {} ({}) is not applied", migration.version, migration.description),
                        remedy: "run `grantonce migrate` with a user that owns the schema".to_owned(),
                    });
                }
            }
            if let Some(newest) = MIGRATOR.iter().map(|m| m.version).max()
                && let Some(newer) = applied.iter().find(|version| **version > newest)
            {
                faults.push(Fault {
                    code: Code::PostgresSchema,
                    what: format!("the schema has migration {newer}, which this program does not know"),
                    remedy: "deploy the newer program".to_owned(),
                });
            }
            if !faults.is_empty() {
                return Ok(findings);
            }
            let columns = column_rights(role).iter().map(|(table, _, _)| *table);
            let tables: BTreeSet<&str> = rights(role).iter().map(|(table, _)| *table).chain(columns).collect();
            let tables: Vec<&str> = tables.into_iter().collect();
            let lost: Vec<String> =
                sqlx::query_scalar("SELECT name FROM unnest($1) AS wanted (name) WHERE to_regclass(name) IS NULL")
                    .bind(&tables)
                    .fetch_all(&mut *connection)
                    .await
                    .map_err(StoreError::sql(WHAT))?;
            for table in &lost {
                faults.push(Fault {
                    code: Code::PostgresSchema,
                    what: format!("table {table} is missing, although its migration was applied"),
                    remedy: "somebody dropped or renamed it: restore it from a backup".to_owned(),
                });
            }
            if !lost.is_empty() {
                return Ok(findings);
            }
            for (table, wanted) in rights(role) {
                for right in *wanted {
                    let has = sqlx::query_scalar!("SELECT has_table_privilege($1, $2)", *table, *right)
                        .fetch_one(&mut *connection)
                        .await
                        .map_err(StoreError::sql(WHAT))?;
                    if has != Some(true) {
                        faults.push(Fault {
                            code: Code::PostgresRights,
                            what: format!("this database user lacks {right} on {table}"),
                            remedy: format!("GRANT {right} ON {table} TO it, see deploy/postgres-roles.sql"),
                        });
                    }
                }
            }
            for (table, right, columns) in column_rights(role) {
                for column in *columns {
                    let has = sqlx::query_scalar!("SELECT has_column_privilege($1, $2, $3)", *table, *column, *right)
                        .fetch_one(&mut *connection)
                        .await
                        .map_err(StoreError::sql(WHAT))?;
                    if has != Some(true) {
                        faults.push(Fault {
                            code: Code::PostgresRights,
                            what: format!("this database user lacks {right} on {table}.{column}"),
                            remedy: format!("GRANT {right} ({column}) ON {table} TO it, see deploy/postgres-roles.sql"),
                        });
                    }
                }
            }
            for (function, name) in functions(role) {
                let has = sqlx::query_scalar!("SELECT has_function_privilege($1, 'EXECUTE')", *function)
                    .fetch_one(&mut *connection)
                    .await
                    .map_err(StoreError::sql(WHAT))?;
                if has != Some(true) {
                    faults.push(Fault {
                        code: Code::PostgresRights,
                        what: format!("this database user lacks EXECUTE on {name}"),
                        remedy: format!("GRANT EXECUTE ON FUNCTION {name} TO it, see deploy/postgres-roles.sql"),
                    });
                }
            }
            let is_made = sqlx::query_scalar::<_, bool>(
                "SELECT to_regclass('inbox_' || to_char((now() AT TIME ZONE 'UTC')::date + 1, 'YYYYMMDD')) IS NOT NULL",
            )
            .fetch_one(&mut *connection)
            .await
            .map_err(StoreError::sql(WHAT))?;
            if !is_made {
                findings.note(
                    "the inbox has no partition for tomorrow: a worker makes it when it starts and once an hour, and \
                     nothing is lost without it",
                );
            }
            findings.note("schema and rights compared");
            Ok(findings)
        })
        .await
    }
}

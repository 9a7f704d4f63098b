//! A short check of the database for readiness: whether it answers and commits, and whether everything is there that a role
//! needs.

use super::error::{Class, StoreError};
use super::pool::Store;
use super::schema::{column_rights, functions, rights};
use super::tx::Tx;
use crate::role::Role;
use time::OffsetDateTime;

const WHAT: &str = "looking whether Postgres commits";

/// The result of the check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// The tables and rights that the role lacks, for example `INSERT on orders`.
    pub lacks: Vec<String>,
    /// The time of the server's clock.
    pub server_time: OffsetDateTime,
}

impl Store {
    /// Commits a few bytes, and compares the tables and rights with the needs of the role. It reads and writes no rows. If
    /// the server accepts no writes, the connection is not used again. A new connection may lead to a server that does, or
    /// this server may accept them again.
    pub async fn probe(&self, role: Role) -> Result<Probed, StoreError> {
        self.run(WHAT, move |pool| async move {
            let mut tx = Tx::begin(&pool).await?;
            let probed = tx.probe(role).await?;
            tx.commit().await?;
            Ok(probed)
        })
        .await
    }
}

impl Tx {
    async fn probe(&mut self, role: Role) -> Result<Probed, StoreError> {
        // A transaction that has written nothing commits without waiting for the disk or a standby, even if it has a
        // transaction id.
        let (server_time, written): (OffsetDateTime, Option<String>) = sqlx::query_as(
            "SELECT clock_timestamp(),
                 CASE WHEN current_setting('transaction_read_only') = 'off'
                     THEN pg_logical_emit_message(true, 'grantonce', 'probe')::text END",
        )
        .fetch_one(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))?;
        if written.is_none() {
            return Err(StoreError::ReadOnly);
        }
        Ok(Probed { lacks: self.lacks(role).await?, server_time })
    }

    async fn lacks(&mut self, role: Role) -> Result<Vec<String>, StoreError> {
        let (mut tables, mut columns, mut wanted) = (vec![], vec![], vec![]);
        for (table, rights) in rights(role) {
            for right in *rights {
                tables.push(*table);
                columns.push("");
                wanted.push(*right);
            }
        }
        for (table, right, of) in column_rights(role) {
            for column in *of {
                tables.push(*table);
                columns.push(*column);
                wanted.push(*right);
            }
        }
        let (signatures, names): (Vec<&str>, Vec<&str>) = functions(role).iter().copied().unzip();
        // If a table does not exist, there is no right to it either.
        sqlx::query_scalar(
            "SELECT format('%s on %s', wanted.\"right\", concat_ws('.', wanted.relation, nullif(wanted.col, '')))
             FROM unnest($1::text[], $2::text[], $3::text[]) AS wanted(relation, col, \"right\")
             WHERE NOT coalesce(CASE wanted.col
                 WHEN '' THEN has_table_privilege(to_regclass(wanted.relation), wanted.\"right\")
                 ELSE has_column_privilege(to_regclass(wanted.relation), wanted.col, wanted.\"right\") END, false)
             UNION ALL
             SELECT format('EXECUTE on %s', wanted.name)
             FROM unnest($4::text[], $5::text[]) AS wanted(signature, name)
             WHERE NOT coalesce(has_function_privilege(to_regprocedure(wanted.signature), 'EXECUTE'), false)",
        )
        .bind(&tables)
        .bind(&columns)
        .bind(&wanted)
        .bind(&signatures)
        .bind(&names)
        .fetch_all(self.connection())
        .await
        .map_err(StoreError::sql(WHAT))
    }
}

impl StoreError {
    /// A short description of the error without data. It may be shown to anybody.
    pub fn in_short(&self) -> String {
        match (self, self.code()) {
            (Self::Deadline { after, .. }, _) => {
                format!("Postgres did not answer, or not commit, within {} s", after.as_secs_f32())
            }
            (Self::Unanswered { after, .. }, _) => {
                format!("Postgres did not answer a new connection within {} s", after.as_secs_f32())
            }
            (Self::TooManyConnections { .. }, _) => "too many connections: Postgres refuses another one".to_owned(),
            (Self::NoConnection { why, .. }, _) if why.committing > 0 => {
                "connections to Postgres wait for a commit that does not end".to_owned()
            }
            (Self::NoConnection { .. }, _) => "all connections to Postgres are in use".to_owned(),
            (Self::ReadOnly, _) => "Postgres is read-only".to_owned(),
            (Self::Sql { .. }, Some(_)) if self.is_read_only() => "Postgres is read-only".to_owned(),
            (Self::SharedSession, _) => "DATABASE_URL leads to a pooler that shares sessions".to_owned(),
            (Self::Sql { .. }, Some(code)) => format!("Postgres refuses ({code})"),
            (Self::Sql { .. }, None) if self.class() == Class::Transient => "Postgres is out of reach".to_owned(),
            (Self::Lost { .. }, _) => "the check of Postgres ended without an answer".to_owned(),
            (Self::Sql { .. } | Self::Corrupt { .. } | Self::Impossible { .. } | Self::Disturbed { .. }, _) => {
                "Postgres returned an answer that grantonce cannot use".to_owned()
            }
        }
    }
}

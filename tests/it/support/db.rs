//! A database for one test.

use grantonce::store::{Profile, Settings, Store, migrate};
use secrecy::SecretString;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::time::Duration;

/// How long one transaction may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// A migrated database of its own, dropped at the end.
pub(crate) struct TestDb {
    /// `postgres://…`
    pub(crate) url: SecretString,
    name: String,
    server: String,
}

impl TestDb {
    /// Makes one on the server of `DATABASE_URL`. Nothing is written to the database that is named there.
    pub(crate) async fn create() -> Self {
        let server = std::env::var("DATABASE_URL").expect(
            "DATABASE_URL is not set: these tests need a Postgres on which databases may be created, such as \
             postgres://postgres@127.0.0.1:5432/postgres",
        );
        let name = format!("grantonce_test_{}", uuid::Uuid::now_v7().simple());
        execute(&server, format!("CREATE DATABASE {name}")).await.expect("DATABASE_URL: creating a database");
        let mut url = reqwest::Url::parse(&server).expect("DATABASE_URL is an URL");
        url.set_path(&name);
        // Made before the migration, so that a failure drops the database all the same.
        let db = Self { url: String::from(url).into(), name, server };
        migrate(&db.url).await.expect("migrating");
        db
    }

    /// Connections for a role.
    pub(crate) fn store(&self, profile: Profile) -> Store {
        Store::new(&Settings { url: self.url.clone(), connections_max: 8, deadline: DEADLINE, profile }).unwrap()
    }

    /// Runs a statement, past every rule of the program.
    pub(crate) async fn execute(&self, sql: impl Into<String>) {
        use secrecy::ExposeSecret as _;
        execute(self.url.expose_secret(), sql.into()).await.unwrap();
    }

    /// Reads one number.
    pub(crate) async fn number(&self, sql: impl Into<String>) -> i64 {
        use secrecy::ExposeSecret as _;
        let mut connection = PgConnection::connect(self.url.expose_secret()).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql.into())).fetch_one(&mut connection).await.unwrap()
    }
}

impl Drop for TestDb {
    fn drop(&mut self) {
        let (server, sql) = (self.server.clone(), format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name));
        // A thread of its own: the test's runtime may be of one thread, and that one is here.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(execute(&server, sql))
        });
        let is_dropped = matches!(dropped.join(), Ok(Ok(())));
        // A test that fails already has more to say.
        assert!(is_dropped || std::thread::panicking(), "the database {} could not be dropped", self.name);
    }
}

async fn execute(url: &str, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

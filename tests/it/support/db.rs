//! A database for one test.

use grantonce::address::DatabaseAddress;
use grantonce::followed::Followed;
use grantonce::store::{Profile, Settings, Store, migrate};
use grantonce_testkit::scratch::{self, unique_name};
use secrecy::SecretString;
use sqlx::migrate::Migrator;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::time::Duration;

/// The deadline of one transaction.
const DEADLINE: Duration = Duration::from_secs(10);

/// The test's own migrated database. It is dropped at the end.
pub(crate) struct TestDb {
    /// The URL of the database, with its password.
    pub(crate) url: SecretString,
    name: String,
    server: String,
}

impl TestDb {
    /// Creates a database on the server of `DATABASE_URL`. Nothing is written to the database in that URL.
    pub(crate) async fn create() -> Self {
        let server = std::env::var("DATABASE_URL")
            .expect("DATABASE_URL is not set: run ./dev test, or ./dev up and then eval \"$(./dev env)\"");
        Self::create_on(&server).await
    }

    /// Creates a database on another server.
    pub(crate) async fn create_on(server: &str) -> Self {
        let db = Self::create_empty_on(server).await;
        db.migrate().await;
        db
    }

    /// Creates a database as a former release left it. `migration` is the last migration of that release.
    pub(crate) async fn create_as_of(migration: &str) -> Self {
        use secrecy::ExposeSecret as _;
        let db = Self::create_empty_on(&std::env::var("DATABASE_URL").expect("DATABASE_URL is not set")).await;
        let folder = tempfile::tempdir().unwrap();
        let all = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        for file in std::fs::read_dir(all).unwrap().map(|entry| entry.unwrap().path()) {
            let name = file.file_name().unwrap();
            if name.to_str().unwrap() <= migration {
                std::fs::copy(&file, folder.path().join(name)).unwrap();
            }
        }
        let mut connection = PgConnection::connect(db.url.expose_secret()).await.unwrap();
        Migrator::new(folder.path()).await.unwrap().run(&mut connection).await.unwrap();
        db
    }

    async fn create_empty_on(server: &str) -> Self {
        let name = unique_name("grantonce_test");
        let url = scratch::create_database(server, &name).await.expect("creating a database");
        // The value exists before the migration, so the database is dropped even if the migration fails.
        Self { url: url.into(), name, server: server.to_owned() }
    }

    /// The address, as settings contain it.
    pub(crate) fn address(&self) -> Followed<DatabaseAddress> {
        use secrecy::ExposeSecret as _;
        self.url.expose_secret().parse().unwrap()
    }

    /// Applies the migrations that are missing.
    pub(crate) async fn migrate(&self) {
        migrate(&self.address()).await.expect("migrating");
    }

    /// A store with the connections of a role.
    pub(crate) fn store(&self, profile: Profile) -> Store {
        Store::new(&Settings { url: self.address(), connections_max: 8, deadline: DEADLINE, profile }).unwrap()
    }

    /// Runs a statement without any check of the program.
    pub(crate) async fn execute(&self, sql: impl Into<String>) {
        use secrecy::ExposeSecret as _;
        execute(self.url.expose_secret(), sql.into()).await.unwrap();
    }

    /// Reads one text.
    pub(crate) async fn text(&self, sql: impl Into<String>) -> String {
        use secrecy::ExposeSecret as _;
        let mut connection = PgConnection::connect(self.url.expose_secret()).await.unwrap();
        sqlx::query_scalar(AssertSqlSafe(sql.into())).fetch_one(&mut connection).await.unwrap()
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
        let (server, name) = (self.server.clone(), self.name.clone());
        at_the_end(async move { scratch::drop_database(&server, &name).await.map_err(|error| error.to_string()) });
    }
}

/// Cleans up in its own thread, because the test's runtime may have only one thread, which is in use here. If the clean-up fails on
/// a busy machine, this prints a message and the test still passes.
pub(crate) fn at_the_end(work: impl Future<Output = Result<(), String>> + Send + 'static) {
    let done = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(work)
    });
    match done.join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("left behind: {error}"),
        Err(_panicked) => eprintln!("left behind: the clean-up panicked"),
    }
}

async fn execute(url: &str, sql: String) -> Result<(), sqlx::Error> {
    let mut connection = PgConnection::connect(url).await?;
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await?;
    connection.close().await
}

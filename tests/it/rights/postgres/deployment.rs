//! The test's own database, with the roles of `deploy/postgres-roles.sql`.

use crate::rights::{server, unique, with_cleanup};
use grantonce::store::{Profile, Settings, Store, migrate};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection};
use std::str::FromStr;
use std::time::Duration;

pub const ROLES: [&str; 8] = [
    "grantonce_migrate",
    "grantonce_worker",
    "grantonce_api",
    "grantonce_reconciler",
    "grantonce_ops",
    "grantonce_operator",
    "grantonce_verify",
    "grantonce_reporting",
];

/// The connection, the script and the passwords of the deployment's administrator.
pub struct Deployment {
    administrator: PgConnectOptions,
    script: String,
    /// The suffix of the roles and of the database.
    pub ending: String,
    password: String,
}

impl Deployment {
    pub fn new() -> Self {
        let ending = unique();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/postgres-roles.sql");
        let script = ROLES.iter().fold(std::fs::read_to_string(path).unwrap(), |script, role| {
            script.replace(role, &format!("{role}_{ending}"))
        });
        let administrator = PgConnectOptions::from_str(&server("DATABASE_URL")).unwrap().disable_statement_logging();
        Self { administrator, script, password: unique(), ending }
    }

    pub fn database(&self) -> String {
        format!("grantonce_rights_{}", self.ending)
    }

    pub async fn on_the_server(&self, statement: &str) {
        let mut connection = self.administrator.connect().await.unwrap();
        run(&mut connection, statement).await.unwrap();
    }

    pub async fn as_administrator(&self) -> PgConnection {
        self.administrator.clone().database(&self.database()).connect().await.unwrap()
    }

    pub async fn run_script(&self) {
        run(&mut self.as_administrator().await, &self.script).await.unwrap();
    }

    pub fn options_of(&self, role: &str) -> PgConnectOptions {
        let user = format!("{role}_{}", self.ending);
        self.administrator.clone().database(&self.database()).username(&user).password(&self.password)
    }

    pub fn store(&self, role: &str, profile: Profile) -> Store {
        Store::new(&Settings {
            url: self.url(role).parse().unwrap(),
            connections_max: 2,
            deadline: Duration::from_secs(20),
            profile,
        })
        .unwrap()
    }

    pub fn url(&self, role: &str) -> String {
        self.options_of(role).to_url_lossy().to_string()
    }

    pub async fn set_up(&self) {
        self.on_the_server(&format!("CREATE DATABASE {} TEMPLATE template0", self.database())).await;
        self.run_script().await;
        for role in ROLES {
            self.on_the_server(&format!("ALTER ROLE {role}_{} PASSWORD '{}'", self.ending, self.password)).await;
        }
        migrate(&self.url("grantonce_migrate").parse().unwrap()).await.unwrap();
        self.run_script().await;
    }

    pub async fn remove(&self) {
        self.on_the_server(&format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.database())).await;
        for role in ROLES {
            self.on_the_server(&format!("DROP ROLE IF EXISTS {role}_{}", self.ending)).await;
        }
    }
}

pub async fn run(connection: &mut PgConnection, statements: &str) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(connection).await.map(drop)
}

/// The SQLSTATE of the error that a statement causes.
pub async fn refusal(connection: &mut PgConnection, statement: &str) -> Option<String> {
    match run(connection, statement).await {
        Ok(()) => None,
        Err(sqlx::Error::Database(error)) => error.code().map(|code| code.into_owned()),
        Err(other) => panic!("{statement}: {other}"),
    }
}

pub async fn on_a_deployment(test: impl AsyncFnOnce(&Deployment)) {
    let deployment = Deployment::new();
    let steps = async {
        deployment.set_up().await;
        test(&deployment).await;
    };
    with_cleanup(steps, deployment.remove()).await;
}

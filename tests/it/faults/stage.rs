//! The whole deployment of one run: every role as the real program, and the servers.

use super::buyers::{Buyers, GENUINE, TOKEN};
use crate::support::{PrivateServers, Server, World, eventually, eventually_within, world::STRIPE_SECRET};
use grantonce::broker::{DEAD_QUEUE, WORK_QUEUE};
use grantonce_testkit::children::{Child, Children};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::Instant;

pub const START: Duration = Duration::from_secs(60);

/// A buyer is held up if the wait is longer than this.
const HELD_UP: Duration = Duration::from_secs(3);

pub struct Stage {
    pub world: World,
    pub buyers: Buyers,
    pub children: Children,
    pub workers: [Child; 2],
    pub receivers: [Child; 2],
    pub is_long: bool,
    secrets: PathBuf,
    /// The address of the server's own database. It is used while the world's database takes no writes.
    admin_url: String,
    servers: Option<[PrivateServers; 2]>,
    api: Child,
    ops: Child,
    _folder: tempfile::TempDir,
}

/// A free address, so that a restarted role has the same address.
fn free() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

impl Stage {
    pub async fn on_shared_servers() -> Self {
        let url = std::env::var("DATABASE_URL").unwrap();
        Self::start(World::new().await, url, None).await
    }

    pub async fn on_own_servers() -> Self {
        let postgres = PrivateServers::start(Server::Postgres).await;
        let rabbitmq = PrivateServers::start(Server::Rabbitmq).await;
        let (database, broker) = (postgres.env().await, rabbitmq.env().await);
        let url = &database["DATABASE_URL"];
        let world = World::on_servers(url, &broker["AMQP_URL"], &broker["GRANTONCE_MANAGEMENT_URL"]).await;
        Self::start(world, url.clone(), Some([postgres, rabbitmq])).await
    }

    async fn start(world: World, admin_url: String, servers: Option<[PrivateServers; 2]>) -> Self {
        let (folder, api, receivers) = (tempfile::tempdir().unwrap(), free(), [free(), free()]);
        let secrets = folder.path().join("stripe");
        std::fs::write(&secrets, STRIPE_SECRET).unwrap();
        let children = world
            .children()
            // Waiting must not use up attempts. Else a payment whose order is locked for a minute would run out of them.
            .env("GRANTONCE_RETRY_DELAYS", "200ms,500ms")
            .env("GRANTONCE_MAX_ATTEMPTS", "4")
            .env("GRANTONCE_STRIPE_WEBHOOK_SECRETS", "")
            .env("GRANTONCE_STRIPE_WEBHOOK_SECRETS_FILE", &secrets)
            .env("GRANTONCE_API_ADDR", api.to_string())
            .env("GRANTONCE_API_TOKENS", format!("shop:{TOKEN}"))
            .env("GRANTONCE_STATUS_TOKEN_KEY", "a-key-for-the-tests-only-a-key-for-the-tests")
            .env("GRANTONCE_OPS_ADDR", "127.0.0.1:0")
            .env("GRANTONCE_OPS_TOKENS", "ada:a-token-of-ada-for-the-tests");
        let receiver = |n: usize| children.clone().env("GRANTONCE_RECEIVER_ADDR", receivers[n].to_string());
        let mut stage = Self {
            workers: [
                children.start("worker-0", &["worker"]).await.unwrap(),
                children.start("worker-1", &["worker"]).await.unwrap(),
            ],
            receivers: [
                receiver(0).start("receiver-0", &["receiver"]).await.unwrap(),
                receiver(1).start("receiver-1", &["receiver"]).await.unwrap(),
            ],
            api: children.start("api", &["api"]).await.unwrap(),
            ops: children.start("ops", &["ops"]).await.unwrap(),
            buyers: Buyers::new(api, receivers, world.sql.clone(), STRIPE_SECRET),
            children,
            is_long: servers.is_some(),
            world,
            secrets,
            admin_url,
            servers,
            _folder: folder,
        };
        for worker in &mut stage.workers {
            worker.consuming(START).await.unwrap();
        }
        stage
    }

    pub fn postgres(&self) -> &PrivateServers {
        &self.servers.as_ref().expect("a long run has servers of its own")[0]
    }

    pub fn rabbitmq(&self) -> &PrivateServers {
        &self.servers.as_ref().expect("a long run has servers of its own")[1]
    }

    /// The duration of a fault.
    pub fn while_it_lasts(&self) -> Duration {
        Duration::from_secs(if self.is_long { 12 } else { 5 })
    }

    /// Runs each statement in the server's own database.
    pub async fn administer(&self, statements: &[&str]) {
        let mut connection = PgConnection::connect(&self.admin_url).await.unwrap();
        for statement in statements {
            sqlx::raw_sql(AssertSqlSafe((*statement).to_owned())).execute(&mut connection).await.unwrap();
        }
    }

    /// The name of the world's database.
    pub fn database(&self) -> String {
        let url: reqwest::Url = self.world.database_url.parse().unwrap();
        url.path().trim_start_matches('/').to_owned()
    }

    /// Declares exchanges, queues and bindings again.
    pub async fn migrate(&self) {
        self.children.run("migrate", &["migrate"], START).await.unwrap();
    }

    /// Replaces the secrets of the receivers.
    pub fn set_secrets(&self, secrets: &str) {
        let new = self.secrets.with_extension("new");
        std::fs::write(&new, secrets).unwrap();
        std::fs::rename(&new, &self.secrets).unwrap();
    }

    /// Waits until a buyer who pays after this call has credits.
    pub async fn goes_on(&self, within: Duration) {
        let now = Instant::now();
        eventually_within(within, "buyers have credits", async || self.buyers.goes_on_since(now)).await;
    }

    /// Waits until no buyer is held up any more.
    pub async fn nobody_waits_for_long(&self, within: Duration) {
        let nobody = async || self.buyers.nobody_waits_longer_than(HELD_UP);
        eventually_within(within, "no buyer is held up", nobody).await;
    }

    /// Checks the end: every buyer has paid one order and has its credits once, and no genuine message is a dead letter.
    pub async fn end(mut self, buyers: i64) {
        for queue in [WORK_QUEUE, DEAD_QUEUE] {
            eventually(&format!("{queue} is empty"), async || self.world.ready(queue).await == 0).await;
        }
        let world = &self.world;
        for (what, query, wanted) in [
            ("orders", format!("SELECT count(*) FROM orders WHERE account_id LIKE '{GENUINE}%'"), buyers),
            ("grants", format!("SELECT count(*) FROM credit_grants WHERE account_id LIKE '{GENUINE}%'"), buyers),
            (
                "accounts with other credits than 100",
                format!("SELECT count(*) FROM account_balances WHERE account_id LIKE '{GENUINE}%' AND credits <> 100"),
                0,
            ),
        ] {
            assert_eq!(world.count(&query).await, wanted, "{what}");
        }
        let letters = format!(
            "SELECT message_id || ': ' || reason || ': ' || detail FROM dead_letters WHERE payment_id LIKE '{GENUINE}%'"
        );
        let letters: Vec<String> = sqlx::query_scalar(AssertSqlSafe(letters)).fetch_all(&world.sql).await.unwrap();
        assert!(letters.is_empty(), "genuine messages are dead letters: {letters:#?}");
        world.verify().await;
        for child in self.receivers.iter_mut().chain(&mut self.workers).chain([&mut self.api, &mut self.ops]) {
            let status = child.terminate(START).await.unwrap();
            assert!(status.success(), "{status}: {}", child.tail());
        }
    }
}

//! The roles of a run: each is a process of the program `grantonce`, on a database and a virtual host of the run's own.

use crate::run::{Failed, Servers};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::future::join_all;
use grantonce_testkit::children::{Child, Children};
use grantonce_testkit::provider::courier::Secrets;
use grantonce_testkit::scratch::{Management, ScratchError, create_database, drop_database, secret, unique_name};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// How long the schema may take.
const MIGRATE_DEADLINE: Duration = Duration::from_secs(120);

/// How long a role may take until it says that it is ready.
const READY_DEADLINE: Duration = Duration::from_secs(60);

/// How long a role may take to finish what it has begun.
const END_DEADLINE: Duration = Duration::from_secs(15);

/// Waits before a message is tried again whose order is not there yet, and the longest of them.
const RETRY_DELAYS: &str = "200ms,1s,5s";
pub(crate) const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// Attempts of such a message. Orders come soon after their webhooks here: nothing may be given up before.
const MAX_ATTEMPTS: &str = "30";

/// When an order is first asked about whose webhooks did not come. Soon, for nobody wants to look at a demo for minutes.
const RECONCILE_AFTER: (&str, &str) = ("GRANTONCE_RECONCILE_AFTER", "1s");

/// The command that asks providers.
const RECONCILER: &str = "reconciler";

/// The command that collects dead letters and shows the console, and the name of its listener.
const OPS: &str = "ops";

/// What has to be in the roles' logs, whatever else is wanted there: where they listen, and that they consume.
const HEARD: &str = "grantonce::http=info,grantonce::worker=info,grantonce::reconciler=info";

/// Queue of the dead letters.
const DEAD_LETTERS: &str = "fulfilment.dead";

/// Everything that a run starts, and ends again.
pub(crate) struct Roles {
    env: Servers,
    program: PathBuf,
    /// Name of the database and, where it has its own, the virtual host.
    name: String,
    log_dir: PathBuf,
    management: Option<Management>,
    token: String,
    secrets: Secrets,
    /// Where the simulated provider's APIs are.
    provider: SocketAddr,
    places: Option<Places>,
    has_database: bool,
    has_vhost: bool,
    receiver: Option<Child>,
    api: Option<Child>,
    workers: Vec<Child>,
    reconciler: Option<Child>,
    ops: Option<Child>,
}

/// Which roles a run has beside receiver and API.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cast {
    pub(crate) workers: u32,
    pub(crate) has_reconciler: bool,
    pub(crate) has_ops: bool,
}

/// Where the roles work.
#[derive(Clone)]
struct Places {
    database_url: String,
    amqp_url: String,
}

/// Where the roles listen.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    pub(crate) receiver: SocketAddr,
    pub(crate) api: SocketAddr,
    /// Where the operators' console is.
    pub(crate) console: Option<SocketAddr>,
    /// Role and address.
    pub(crate) metrics: Vec<(String, SocketAddr)>,
}

impl Roles {
    /// Prepares a run, around a provider at that address; nothing is started yet but the folder for the logs.
    pub(crate) async fn new(env: Servers, program: PathBuf, provider: SocketAddr) -> Result<Self, Failed> {
        let management = env.management_url.as_deref().map(Management::new).transpose()?;
        let name = unique_name("grantonce_demo");
        let log_dir = std::env::temp_dir().join(&name);
        tokio::fs::create_dir(&log_dir).await.map_err(|source| Failed::LogFolder { path: log_dir.clone(), source })?;
        let secrets =
            Secrets { stripe: format!("whsec_{}", secret()), standard: format!("whsec_{}", STANDARD.encode(secret())) };
        Ok(Self {
            env,
            program,
            name,
            log_dir,
            management,
            token: secret(),
            secrets,
            provider,
            places: None,
            has_database: false,
            has_vhost: false,
            receiver: None,
            api: None,
            workers: Vec::new(),
            reconciler: None,
            ops: None,
        })
    }

    /// Makes the database and the virtual host. Not to be dropped half-way: what the servers have begun they finish.
    pub(crate) async fn make_places(&mut self) -> Result<(), Failed> {
        let made = create_database(&self.env.database_url, &self.name).await;
        // A server that did not answer in time may have made it all the same.
        self.has_database = matches!(made, Ok(_) | Err(ScratchError::TimedOut));
        let database_url = made?;
        let amqp_url = match &self.management {
            Some(management) => {
                let made = management.create_vhost(&self.env.amqp_url, &self.name).await;
                self.has_vhost = made.is_ok();
                if made.is_err() {
                    // It may be half-made. Where that cannot be undone either, the first error says why.
                    let _ = management.delete_vhost(&self.name).await;
                }
                made?
            }
            None => self.env.amqp_url.clone(),
        };
        self.places = Some(Places { database_url, amqp_url });
        Ok(())
    }

    /// Starts the roles and waits until each is ready.
    pub(crate) async fn start(&mut self, cast: Cast) -> Result<Addresses, Failed> {
        let children = self.children();
        children.run("migrate", &["migrate"], MIGRATE_DEADLINE).await?;
        let receiver = self.receiver.insert(children.start("receiver", &["receiver"]).await?);
        let api = self.api.insert(children.start("api", &["api"]).await?);
        for n in 1..=cast.workers {
            self.workers.push(children.start(&format!("worker-{n}"), &["worker"]).await?);
        }
        if cast.has_reconciler {
            self.reconciler = Some(children.start(RECONCILER, &[RECONCILER]).await?);
        }
        if cast.has_ops {
            self.ops = Some(children.start(OPS, &[OPS]).await?);
        }
        let mut addresses = Addresses {
            receiver: receiver.listening("receiver", READY_DEADLINE).await?,
            api: api.listening("api", READY_DEADLINE).await?,
            console: match &mut self.ops {
                Some(ops) => Some(ops.listening(OPS, READY_DEADLINE).await?),
                None => None,
            },
            metrics: Vec::new(),
        };
        for worker in &mut self.workers {
            worker.consuming(READY_DEADLINE).await?;
        }
        for child in self.all() {
            let address = child.listening("metrics", READY_DEADLINE).await?;
            addresses.metrics.push((child.name().to_owned(), address));
        }
        Ok(addresses)
    }

    fn children(&self) -> Children {
        let (database_url, amqp_url) = match &self.places {
            Some(places) => (&places.database_url, &places.amqp_url),
            None => (&self.env.database_url, &self.env.amqp_url),
        };
        let provider = format!("http://{}", self.provider);
        let log = match std::env::var("RUST_LOG") {
            Ok(wanted) if !wanted.is_empty() => format!("{wanted},{HEARD}"),
            Ok(_) | Err(_) => "info".to_owned(),
        };
        let anywhere = "127.0.0.1:0";
        [
            ("DATABASE_URL", database_url.as_str()),
            ("AMQP_URL", amqp_url),
            ("RUST_LOG", &log),
            ("GRANTONCE_LIVEMODE", "false"),
            ("GRANTONCE_RECEIVER_ADDR", anywhere),
            ("GRANTONCE_API_ADDR", anywhere),
            ("GRANTONCE_OPS_ADDR", anywhere),
            ("GRANTONCE_METRICS_ADDR", anywhere),
            // No load balancer has to notice that they stop.
            ("GRANTONCE_SHUTDOWN_DELAY", "0s"),
            ("GRANTONCE_OPS_TOKENS", &format!("operator:{}", self.token)),
            ("GRANTONCE_API_TOKENS", &format!("demo:{}", self.token)),
            ("GRANTONCE_STATUS_TOKEN_KEY", &secret()),
            ("GRANTONCE_STRIPE_WEBHOOK_SECRETS", &self.secrets.stripe),
            ("GRANTONCE_STANDARD_WEBHOOK_SECRETS", &self.secrets.standard),
            ("GRANTONCE_RETRY_DELAYS", RETRY_DELAYS),
            ("GRANTONCE_MAX_ATTEMPTS", MAX_ATTEMPTS),
            ("GRANTONCE_STRIPE_API_KEY", "sk_test_simulated"),
            ("GRANTONCE_STRIPE_API_BASE", &provider),
            ("GRANTONCE_PAYPAL_CLIENT_ID", "simulated"),
            ("GRANTONCE_PAYPAL_CLIENT_SECRET", "simulated"),
            ("GRANTONCE_PAYPAL_API_BASE", &provider),
            ("GRANTONCE_LOG_FORMAT", "json"),
            RECONCILE_AFTER,
        ]
        .into_iter()
        .fold(Children::new(&self.program, &self.log_dir), |children, (name, value)| children.env(name, value))
    }

    /// Every role that was started.
    fn all(&mut self) -> impl Iterator<Item = &mut Child> {
        self.receiver
            .iter_mut()
            .chain(&mut self.api)
            .chain(&mut self.workers)
            .chain(&mut self.reconciler)
            .chain(&mut self.ops)
    }

    /// The site's token for the API.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// What webhooks are signed with.
    pub(crate) fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    /// The run's own database.
    pub(crate) fn database_url(&self) -> &str {
        self.places.as_ref().map_or(&self.env.database_url, |places| &places.database_url)
    }

    /// The name of the run's database and virtual host.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where the roles' logs are.
    pub(crate) fn log_dir(&self) -> &std::path::Path {
        &self.log_dir
    }

    /// Whether the virtual host is the run's own.
    pub(crate) fn has_own_vhost(&self) -> bool {
        self.management.is_some()
    }

    /// The workers, for somebody who looks after them.
    pub(crate) fn workers(&mut self) -> &mut Vec<Child> {
        &mut self.workers
    }

    /// How many dead letters there are; none where nobody can be asked, or knows.
    pub(crate) async fn dead_letters(&self) -> Option<u64> {
        let management = self.management.as_ref()?;
        management.message_count(&self.name, DEAD_LETTERS).await.ok().flatten()
    }

    /// Says of each role that has ended though nobody asked it to.
    pub(crate) fn deserters(&mut self) -> Vec<String> {
        self.all()
            .filter_map(|child| {
                let status = child.try_ended().ok().flatten()?;
                Some(format!("{} has ended with {status}\n{}", child.name(), child.tail()))
            })
            .collect()
    }

    /// Ends the roles, and removes the database and the virtual host. Says what could not be removed, and keeps the
    /// logs then, or where `keep_logs` is set.
    pub(crate) async fn end(mut self, keep_logs: bool) -> Vec<String> {
        let mut left_over = Vec::new();
        // All at once, and without a word where one had to be killed: nothing of it is kept.
        for ended in join_all(self.all().map(|child| child.terminate(END_DEADLINE))).await {
            left_over.extend(ended.err().map(|error| error.to_string()));
        }
        if self.has_database
            && let Err(error) = drop_database(&self.env.database_url, &self.name).await
        {
            left_over.push(format!("the database {} is left over: {error}", self.name));
        }
        if let Some(management) = self.management.as_ref().filter(|_| self.has_vhost)
            && let Err(error) = management.delete_vhost(&self.name).await
        {
            left_over.push(format!("the virtual host {} is left over: {error}", self.name));
        }
        // A folder that stays is no harm. This one removes only an empty one: nobody ever wrote a log.
        let _ = tokio::fs::remove_dir(&self.log_dir).await;
        if left_over.is_empty() && !keep_logs {
            let _ = tokio::fs::remove_dir_all(&self.log_dir).await;
        }
        left_over
    }
}

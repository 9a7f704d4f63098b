//! From a command to the role that does it. The only place that knows every role.

mod actor;
mod check;
mod dlq;
mod explain;
mod forget;
mod orders;
mod roles;

use crate::broker::{self, BrokerError};
use crate::cli::{Command, VerifyArgs};
use crate::config::{Config, MigrateConfig, ProcessConfig, Role, RoleConfig, VerifyConfig};
use crate::shutdown::Shutdown;
use crate::store::{self, Class, Profile, Store, StoreError};
use roles::Roles;
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

/// How long `verify` may read.
const VERIFY_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: did what it was told.
    Done,
    /// 1: ran and found a fault.
    Fault,
    /// 2: bad usage or configuration.
    Usage,
    /// 3: a dependency is out of reach.
    Unreachable,
    /// 141: the reader of standard output went away before everything was written, as in `grantonce dlq list | head`.
    /// What a shell shows of other programs then, too.
    ReaderGone,
}

impl Exit {
    /// The number of the exit code.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Fault => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
            Self::ReaderGone => 141,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Why a command ended before it was done: what it was about, how the process ends, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct RunError {
    what: String,
    exit: Exit,
    source: Option<Box<dyn Error + Send + Sync>>,
}

impl RunError {
    /// It ran and found a fault, or hit a mistake of ours.
    pub fn fault(what: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), exit: Exit::Fault, source: Some(cause.into()) }
    }

    /// The configuration is wrong in a way that shows only when it is used, such as an address that is taken.
    pub fn configuration(what: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), exit: Exit::Usage, source: Some(cause.into()) }
    }

    /// A dependency is out of reach.
    pub fn unreachable(what: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), exit: Exit::Unreachable, source: Some(cause.into()) }
    }

    fn of_store(what: &str, error: StoreError) -> Self {
        if matches!(error, StoreError::SharedSession) {
            return Self::configuration(what, error);
        }
        match error.class() {
            Class::Transient | Class::Contended => Self::unreachable(what, error),
            Class::Data | Class::Bug => Self::fault(what, error),
        }
    }

    fn of_broker(what: &str, error: BrokerError) -> Self {
        match error {
            BrokerError::Amqp { .. } | BrokerError::Deadline { .. } | BrokerError::StreamEnded => {
                Self::unreachable(what, error)
            }
            BrokerError::NoHost => Self::configuration(what, error),
            BrokerError::Different { .. } => Self::fault(what, error),
        }
    }

    /// Standard output took not everything: the command's result is not where it should be.
    pub fn output(error: std::io::Error) -> Self {
        let exit = if error.kind() == std::io::ErrorKind::BrokenPipe { Exit::ReaderGone } else { Exit::Fault };
        Self { what: "cannot write to standard output".to_owned(), exit, source: Some(error.into()) }
    }

    fn not_served(role: Role) -> Self {
        Self { what: format!("{role} does not serve anything"), exit: Exit::Fault, source: None }
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// Runs one command to its end.
pub async fn run(command: Command, config: Config) -> Result<Exit, RunError> {
    let Config { process, role } = config;
    let shutdown =
        Shutdown::on_signals(process.shutdown).map_err(|error| RunError::fault("cannot listen for signals", error))?;
    match (command, role) {
        (Command::Check(args), role) => check::check(&args, role).await,
        (Command::Verify(args), RoleConfig::Verify(config)) => verify(args, config).await,
        (Command::Explain(args), RoleConfig::Verify(config)) => explain::run(args, config).await,
        (Command::Forget(args), RoleConfig::Orders(config)) => forget::run(args, config).await,
        (Command::Orders(command), RoleConfig::Orders(config)) => orders::run(command, config).await,
        (Command::Dlq(command), RoleConfig::Dlq(config)) => dlq::run(*command, config, shutdown.token()).await,
        (command, role) => serve(command.role(), process, role, shutdown).await,
    }
}

async fn serve(name: Role, process: ProcessConfig, config: RoleConfig, shutdown: Shutdown) -> Result<Exit, RunError> {
    match config {
        RoleConfig::Migrate(config) => migrate(config).await,
        RoleConfig::Receiver(config) => roles::serve(process, shutdown, Roles::Receiver(config)).await,
        RoleConfig::Worker(config) => roles::serve(process, shutdown, Roles::Worker(config)).await,
        RoleConfig::Api(config) => roles::serve(process, shutdown, Roles::Api(config)).await,
        RoleConfig::Reconciler(config) => roles::serve(process, shutdown, Roles::Reconciler(config)).await,
        RoleConfig::Ops(config) => roles::serve(process, shutdown, Roles::Ops(config)).await,
        RoleConfig::All(config) => roles::serve(process, shutdown, Roles::All(config)).await,
        // No command leads here.
        RoleConfig::Dlq(_) | RoleConfig::Orders(_) | RoleConfig::Check(_) | RoleConfig::Verify(_) => {
            Err(RunError::not_served(name))
        }
    }
}

async fn migrate(config: MigrateConfig) -> Result<Exit, RunError> {
    let applied = store::migrate(&config.database.url)
        .await
        .map_err(|error| RunError::of_store("cannot migrate the schema", error))?;
    broker::declare(&config.broker.url, &config.retry_delays)
        .await
        .map_err(|error| RunError::of_broker("cannot declare exchanges and queues", error))?;
    tracing::info!(event = "migrated", migrations_applied = applied, "schema and topology are up to date");
    Ok(Exit::Done)
}

async fn verify(args: VerifyArgs, config: VerifyConfig) -> Result<Exit, RunError> {
    let failed = |error| RunError::of_store("cannot verify the ledger", error);
    let store = Store::new(&check::settings(config.database.url, Profile::Audit, VERIFY_DEADLINE)).map_err(failed)?;
    let broken = store.verify(config.dispute_policy).await.map_err(failed)?;
    let mut out = String::new();
    if args.json {
        out.push_str(&serde_json::json!({ "ok": broken.is_empty(), "broken": broken }).to_string());
        out.push('\n');
    } else if broken.is_empty() {
        out.push_str("the ledger is as it must be\n");
    } else {
        for row in &broken {
            out.push_str(&format!("order {}: {}\n  found: {}\n", row.order_id, row.invariant, row.found));
        }
    }
    print(&out)?;
    Ok(if broken.is_empty() { Exit::Done } else { Exit::Fault })
}

/// Writes a command's result to standard output.
pub fn print(text: &str) -> Result<(), RunError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(RunError::output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_public() {
        let codes = [Exit::Done, Exit::Fault, Exit::Usage, Exit::Unreachable, Exit::ReaderGone].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3, 141]);
    }

    #[test]
    fn an_error_tells_its_cause_and_its_exit() {
        let error = RunError::unreachable("cannot reach Postgres", std::io::Error::other("refused"));
        assert_eq!(error.exit(), Exit::Unreachable);
        assert_eq!(crate::telemetry::causes(&error), "cannot reach Postgres: refused");
    }
}

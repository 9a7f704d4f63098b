//! From a command to the role that does it. The only place that knows every role.

mod actor;
mod check;
mod dlq;
mod explain;
mod forget;
mod orders;
mod roles;

use crate::broker::{self, BrokerError};
use crate::cli::{CheckArgs, Command, DlqCommand, ExplainArgs, ForgetArgs, OrdersCommand, VerifyArgs};
use crate::code::{Code, Exit};
use crate::config::{
    AllConfig, Config, ConfigFaults, DlqConfig, Environment, MigrateConfig, OrdersConfig, ProcessConfig, RoleConfig,
    VerifyConfig,
};
use crate::shutdown::Shutdown;
use crate::store::{self, Class, Profile, Store, StoreError};
use roles::Roles;
use std::error::Error;
use std::io::Write as _;
use std::time::Duration;

/// How long `verify` may read.
const VERIFY_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// Why a command ended before it was done: what it was about, its code, and the cause.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct RunError {
    what: String,
    code: Code,
    source: Box<dyn Error + Send + Sync>,
}

impl RunError {
    /// An error with its code, which tells how the process ends.
    pub fn new(code: Code, what: impl Into<String>, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { what: what.into(), code, source: cause.into() }
    }

    fn of_store(what: &str, error: StoreError) -> Self {
        let code = match (&error, error.class()) {
            (StoreError::SharedSession, _) => Code::PostgresPooler,
            (_, Class::Transient | Class::Contended) => Code::PostgresUnreachable,
            (_, Class::Data | Class::Bug) => Code::PostgresRefused,
        };
        Self::new(code, what, error)
    }

    fn of_broker(what: &str, error: BrokerError) -> Self {
        let code = match error {
            BrokerError::Amqp { .. } | BrokerError::Deadline { .. } | BrokerError::StreamEnded => {
                Code::RabbitmqUnreachable
            }
            BrokerError::NoHost => Code::ConfigInvalid,
            BrokerError::Different { .. } => Code::RabbitmqDifferent,
        };
        Self::new(code, what, error)
    }

    /// Standard output did not take everything: the command's result is not where it should be.
    pub fn output(error: std::io::Error) -> Self {
        Self::new(Code::OutputFailed, "cannot write to standard output", error)
    }

    /// The code that leads to `docs/errors.md`.
    pub fn code(&self) -> Code {
        self.code
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        let is_reader_gone = self
            .source
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe);
        if is_reader_gone && self.code == Code::OutputFailed { Exit::ReaderGone } else { self.code.exit() }
    }
}

/// A command together with the configuration that it needs.
#[derive(Debug)]
pub struct Job {
    /// What every process has.
    pub process: ProcessConfig,
    task: Task,
}

#[derive(Debug)]
enum Task {
    Migrate(MigrateConfig),
    Serve(Box<Roles>),
    Dlq(Box<DlqCommand>, DlqConfig),
    Check(CheckArgs, check::Needs),
    Verify(VerifyArgs, VerifyConfig),
    Orders(OrdersCommand, OrdersConfig),
    Explain(ExplainArgs, VerifyConfig),
    Forget(ForgetArgs, OrdersConfig),
}

impl Job {
    /// Reads the configuration that the command needs.
    pub fn read(command: Command, environment: &Environment) -> Result<Self, ConfigFaults> {
        let serve = |roles| Task::Serve(Box::new(roles));
        let env = environment;
        match command {
            Command::Migrate => job(env, Task::Migrate),
            Command::Receiver => job(env, |config| serve(Roles { receiver: Some(config), ..Roles::default() })),
            Command::Worker => job(env, |config| serve(Roles { worker: Some(config), ..Roles::default() })),
            Command::Api => job(env, |config| serve(Roles { api: Some(config), ..Roles::default() })),
            Command::Reconciler => job(env, |config| serve(Roles { reconciler: Some(config), ..Roles::default() })),
            Command::Ops => job(env, |config| serve(Roles { ops: Some(config), ..Roles::default() })),
            Command::All => job(env, |AllConfig { receiver, worker, api, reconciler, ops }| {
                let (receiver, worker, api, ops) = (Some(receiver), Some(worker), Some(api), Some(ops));
                serve(Roles { receiver, worker, api, reconciler, ops })
            }),
            Command::Dlq(command) => job(env, |config| Task::Dlq(command, config)),
            Command::Check(args) => {
                let (process, needs) = check::Needs::read(args.role, env)?;
                Ok(Self { process, task: Task::Check(args, needs) })
            }
            Command::Verify(args) => job(env, |config| Task::Verify(args, config)),
            Command::Orders(command) => job(env, |config| Task::Orders(command, config)),
            Command::Explain(args) => job(env, |config| Task::Explain(args, config)),
            Command::Forget(args) => job(env, |config| Task::Forget(args, config)),
        }
    }
}

fn job<R: RoleConfig>(environment: &Environment, task: impl FnOnce(R) -> Task) -> Result<Job, ConfigFaults> {
    Config::from_env(environment).map(|Config { process, role }| Job { process, task: task(role) })
}

/// Runs one command to its end.
pub async fn run(job: Job) -> Result<Exit, RunError> {
    let Job { process, task } = job;
    let shutdown = Shutdown::on_signals(process.shutdown)
        .map_err(|error| RunError::new(Code::ProcessFailed, "cannot listen for signals", error))?;
    match task {
        Task::Migrate(config) => migrate(config).await,
        Task::Serve(roles) => roles::serve(process, shutdown, *roles).await,
        Task::Dlq(command, config) => dlq::run(*command, config, shutdown.token()).await,
        Task::Check(args, needs) => check::check(&args, needs).await,
        Task::Verify(args, config) => verify(args, config).await,
        Task::Orders(command, config) => orders::run(command, config).await,
        Task::Explain(args, config) => explain::run(args, config).await,
        Task::Forget(args, config) => forget::run(args, config).await,
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
    let code = if broken.is_empty() { None } else { Some(Code::LedgerBroken) };
    let mut out = String::new();
    if args.json {
        out.push_str(&serde_json::json!({ "ok": broken.is_empty(), "code": code, "broken": broken }).to_string());
        out.push('\n');
    } else if broken.is_empty() {
        out.push_str("the ledger is as it must be\n");
    } else {
        for row in &broken {
            out.push_str(&format!("order {}: {}\n  found: {}\n", row.order_id, row.invariant, row.found));
        }
        out.push_str(&format!("(code: {}; see docs/errors.md)\n", Code::LedgerBroken));
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
    use crate::cli::Cli;
    use crate::role::Role;
    use clap::Parser as _;

    #[test]
    fn each_command_reads_the_configuration_of_its_role() {
        const ORDER: &str = "019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f";
        for (line, role) in [
            ("migrate", Role::Migrate),
            ("receiver", Role::Receiver),
            ("worker", Role::Worker),
            ("api", Role::Api),
            ("reconciler", Role::Reconciler),
            ("ops", Role::Ops),
            ("all", Role::All),
            ("dlq list --groups", Role::Dlq),
            ("check", Role::Check),
            ("verify --json", Role::Verify),
            (&format!("orders amend {ORDER} --amount-minor 1 --currency USD --reason x"), Role::Orders),
            (&format!("explain {ORDER}"), Role::Verify),
            ("forget customer-4711 --reason x", Role::Orders),
        ] {
            assert_eq!(role_of(line), role.name(), "{line}");
        }
        for role in Role::ALL {
            assert_eq!(role_of(&format!("check --role {role}")), role.name());
        }
    }

    /// The role whose configuration is told to be at fault, if nothing but a wrong variable is set.
    fn role_of(line: &str) -> String {
        let line = ["grantonce"].into_iter().chain(line.split(' '));
        let command = Cli::try_parse_from(line).unwrap().command.unwrap();
        let nothing = Environment::default().with("GRANTONCE_WORKERS", "many");
        let faults = Job::read(command, &nothing).unwrap_err().to_string();
        let (_, rest) = faults.split_once("in the configuration of ").unwrap();
        rest.split(' ').next().unwrap().to_owned()
    }

    #[test]
    fn an_error_tells_its_cause_and_its_exit() {
        let error = RunError::new(Code::PostgresUnreachable, "cannot reach Postgres", std::io::Error::other("refused"));
        assert_eq!(error.exit(), Exit::Unreachable);
        assert_eq!(crate::telemetry::causes(&error), "cannot reach Postgres: refused");
    }
}

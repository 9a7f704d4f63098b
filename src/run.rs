//! From a command to the role that does it. The only place that knows every role.

use crate::cli::{CheckArgs, Command, DemoArgs, VerifyArgs};
use crate::config::{Config, DemoConfig, Environment, ProcessConfig, Role, RoleConfig, VerifyConfig};
use crate::shutdown::Shutdown;
use std::error::Error;
use std::process::ExitCode;

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
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Fault => 1,
            Self::Usage => 2,
            Self::Unreachable => 3,
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

    fn not_built(role: Role) -> Self {
        Self { what: format!("{role} is not built yet"), exit: Exit::Fault, source: None }
    }

    /// How the process ends.
    pub fn exit(&self) -> Exit {
        self.exit
    }
}

/// Runs one command to its end. `environment` is for the demo, which derives its roles' configuration from it.
pub async fn run(command: Command, config: Config, environment: Environment) -> Result<Exit, RunError> {
    let shutdown = Shutdown::on_signals().map_err(|error| RunError::fault("cannot listen for signals", error))?;
    let Config { process, role } = config;
    match (command, role) {
        (Command::Check(args), role) => check(args, role).await,
        (Command::Verify(args), RoleConfig::Verify(config)) => verify(args, config).await,
        (Command::Demo(args), RoleConfig::Demo(config)) => demo(args, config, environment, shutdown).await,
        (command, role) => serve(command.role(), process, role, shutdown).await,
    }
}

async fn serve(name: Role, _process: ProcessConfig, config: RoleConfig, _shutdown: Shutdown) -> Result<Exit, RunError> {
    match config {
        RoleConfig::Migrate(_config) => Err(RunError::not_built(name)),
        RoleConfig::Receiver(_config) => Err(RunError::not_built(name)),
        RoleConfig::Worker(_config) => Err(RunError::not_built(name)),
        RoleConfig::Api(_config) => Err(RunError::not_built(name)),
        RoleConfig::All(_config) => Err(RunError::not_built(name)),
        // No command leads here.
        RoleConfig::Reconciler(_)
        | RoleConfig::Ops(_)
        | RoleConfig::Check(_)
        | RoleConfig::Verify(_)
        | RoleConfig::Demo(_) => Err(RunError::not_built(name)),
    }
}

async fn check(args: CheckArgs, _config: RoleConfig) -> Result<Exit, RunError> {
    Err(RunError::not_built(args.role.unwrap_or(Role::Check)))
}

async fn verify(_args: VerifyArgs, _config: VerifyConfig) -> Result<Exit, RunError> {
    Err(RunError::not_built(Role::Verify))
}

async fn demo(
    _args: DemoArgs,
    _config: DemoConfig,
    _environment: Environment,
    _shutdown: Shutdown,
) -> Result<Exit, RunError> {
    Err(RunError::not_built(Role::Demo))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_codes_are_public() {
        let codes = [Exit::Done, Exit::Fault, Exit::Usage, Exit::Unreachable].map(Exit::code);
        assert_eq!(codes, [0, 1, 2, 3]);
    }

    #[test]
    fn an_error_tells_its_cause_and_its_exit() {
        let error = RunError::unreachable("cannot reach Postgres", std::io::Error::other("refused"));
        assert_eq!(error.exit(), Exit::Unreachable);
        assert_eq!(crate::telemetry::causes(&error), "cannot reach Postgres: refused");
    }
}

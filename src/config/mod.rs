//! Configuration, read from the environment once, at the start. Each role is given a value that holds what it needs
//! and nothing else. What there is to set is told in one table, `VARIABLES`.

mod files;
mod names;
mod parse;
mod read;
mod roles;
mod values;
mod variables;

pub use files::FollowedFiles;
pub use parse::{NamedToken, RetryDelay};
pub use read::{ConfigFaults, Environment, Fault};
pub use roles::{
    AdyenCapture, AllConfig, ApiConfig, BatchConfig, BrokerConfig, CheckConfig, Config, DatabaseConfig, DlqConfig,
    MigrateConfig, OpsConfig, OpsTerms, OrdersConfig, PaypalApi, ProcessConfig, ProvidersConfig, ReceiverConfig,
    ReconcilerConfig, RetryConfig, RoleConfig, StripeApi, UnknownPayments, VerifyConfig, WebhookSecrets, WorkerConfig,
};
pub use variables::{DefaultValue, VARIABLES, Variable, help};

use std::fmt;
use std::str::FromStr;

/// What a process is started as. Decides which variables are read and required.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Sets up schema and topology.
    Migrate,
    /// Takes webhooks in.
    Receiver,
    /// Applies messages.
    Worker,
    /// Orders, status, balances.
    Api,
    /// Asks providers.
    Reconciler,
    /// Console and dead letters.
    Ops,
    /// Every role in one process.
    All,
    /// Works on dead letters by hand.
    Dlq,
    /// Works on single orders by hand.
    Orders,
    /// Looks whether things are as a role needs them.
    Check,
    /// Looks whether the ledger is right.
    Verify,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 11] = [
        Self::Migrate,
        Self::Receiver,
        Self::Worker,
        Self::Api,
        Self::Reconciler,
        Self::Ops,
        Self::All,
        Self::Dlq,
        Self::Orders,
        Self::Check,
        Self::Verify,
    ];

    /// The name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Migrate => "migrate",
            Self::Receiver => "receiver",
            Self::Worker => "worker",
            Self::Api => "api",
            Self::Reconciler => "reconciler",
            Self::Ops => "ops",
            Self::All => "all",
            Self::Dlq => "dlq",
            Self::Orders => "orders",
            Self::Check => "check",
            Self::Verify => "verify",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Not a role's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such role")]
pub struct NoSuchRole;

impl FromStr for Role {
    type Err = NoSuchRole;
    fn from_str(name: &str) -> Result<Self, NoSuchRole> {
        Self::ALL.into_iter().find(|role| role.name() == name).ok_or(NoSuchRole)
    }
}

#[cfg(test)]
mod tests;

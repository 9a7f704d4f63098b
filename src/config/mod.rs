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

#[cfg(test)]
mod tests;

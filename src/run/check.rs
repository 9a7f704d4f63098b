//! `check`: connects, compares, and says what to do.

use super::{Exit, RunError, print};
use crate::address::DatabaseAddress;
use crate::broker::{self, Management};
use crate::config::{BrokerConfig, DatabaseConfig, RetryDelay, RoleConfig};
use crate::followed::Followed;
use crate::store::{self, Profile, Role, Store};
use secrecy::SecretString;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

/// How one command's few statements reach the database.
pub(super) fn settings(url: Followed<DatabaseAddress>, profile: Profile, deadline: Duration) -> store::Settings {
    store::Settings { url, connections_max: 1, deadline, profile }
}

/// What a role needs of the two servers.
struct Needs {
    database: Option<(DatabaseConfig, Vec<Role>)>,
    broker: Option<(BrokerConfig, Vec<RetryDelay>)>,
    management_url: Option<SecretString>,
}

fn needs(role: RoleConfig) -> Needs {
    match role {
        RoleConfig::Receiver(config) => {
            Needs { database: None, broker: Some((config.broker, vec![])), management_url: None }
        }
        RoleConfig::Worker(config) => Needs {
            database: Some((config.database, vec![Role::Worker])),
            broker: Some((config.broker, config.retry.delays)),
            management_url: None,
        },
        RoleConfig::Api(config) => {
            Needs { database: Some((config.database, vec![Role::Api])), broker: None, management_url: None }
        }
        RoleConfig::Reconciler(config) => Needs {
            database: Some((config.database, vec![Role::Reconciler])),
            broker: Some((config.broker, vec![])),
            management_url: None,
        },
        RoleConfig::All(config) => {
            let reconciler = config.reconciler.map(|_| Role::Reconciler);
            Needs {
                database: Some((
                    config.worker.database,
                    [Role::Worker, Role::Api, Role::Ops].into_iter().chain(reconciler).collect(),
                )),
                broker: Some((config.worker.broker, config.worker.retry.delays)),
                management_url: None,
            }
        }
        RoleConfig::Migrate(config) => Needs {
            database: Some((config.database, vec![Role::Verify])),
            broker: Some((config.broker, config.retry_delays)),
            management_url: None,
        },
        RoleConfig::Check(config) => Needs {
            database: Some((config.database, vec![Role::Verify])),
            broker: Some((config.broker, config.retry_delays)),
            management_url: config.management_url,
        },
        RoleConfig::Orders(config) => {
            Needs { database: Some((config.database, vec![Role::Operator])), broker: None, management_url: None }
        }
        RoleConfig::Ops(config) => Needs {
            database: Some((config.database, vec![Role::Ops])),
            broker: Some((config.broker, vec![])),
            management_url: config.management_url,
        },
        RoleConfig::Dlq(config) => Needs {
            database: Some((config.database, vec![Role::Ops])),
            broker: Some((config.broker, vec![])),
            management_url: None,
        },
        RoleConfig::Verify(_) | RoleConfig::Demo(_) => Needs { database: None, broker: None, management_url: None },
    }
}

/// Prints what is missing and what to do about it; exit 1 where anything is.
pub(super) async fn check(role: RoleConfig) -> Result<Exit, RunError> {
    let needs = needs(role);
    let mut faults: Vec<String> = vec![];
    let mut notes: Vec<String> = vec![];
    if let Some((database, roles)) = needs.database {
        let failed = |error| RunError::of_store("cannot check the database: is DATABASE_URL right?", error);
        let store = Store::new(&settings(database.url, Profile::Operations, DEADLINE)).map_err(failed)?;
        for role in roles {
            for fault in store.check(role).await.map_err(failed)? {
                faults.push(format!("Postgres: {fault}"));
            }
        }
        notes.push("Postgres: reached; schema and rights compared".to_owned());
    }
    if let Some((config, delays)) = needs.broker {
        let failed = |error| RunError::of_broker("cannot check the broker: is AMQP_URL right?", error);
        for fault in broker::inspect(&config.url, &delays).await.map_err(failed)? {
            faults.push(format!("RabbitMQ: {fault}"));
        }
        notes.push("RabbitMQ: reached; exchanges and queues are looked for by name".to_owned());
        match needs.management_url {
            Some(url) => {
                let failed = |error| RunError::unreachable("cannot ask GRANTONCE_MANAGEMENT_URL", error);
                let management = Management::new(url, &config.url.current().vhost).map_err(failed)?;
                for fault in management.inspect(&delays).await.map_err(failed)? {
                    faults.push(format!("RabbitMQ: {fault}"));
                }
                notes.push("RabbitMQ: the queues' arguments compared".to_owned());
            }
            None => notes.push(
                "RabbitMQ: not compared, because AMQP does not show them: the queues' arguments; \
                 set GRANTONCE_MANAGEMENT_URL and run `grantonce check` without --role"
                    .to_owned(),
            ),
        }
    }
    let mut out = String::new();
    for note in &notes {
        out.push_str(&format!("  {note}\n"));
    }
    for fault in &faults {
        out.push_str(&format!("! {fault}\n"));
    }
    out.push_str(if faults.is_empty() { "all is as it must be\n" } else { "not ready\n" });
    print(&out);
    Ok(if faults.is_empty() { Exit::Done } else { Exit::Fault })
}

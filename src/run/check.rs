//! `check`: connects, compares, and says what to do.

use super::{RunError, print};
use crate::address::{AmqpAddress, DatabaseAddress};
use crate::broker::{self, BrokerError, Compared, Management, Tried, User};
use crate::cli::CheckArgs;
use crate::clock::Clock;
use crate::code::{Code, Exit};
use crate::config::{
    AllConfig, ApiConfig, BrokerConfig, CheckConfig, Config, ConfigFaults, DatabaseConfig, DlqConfig, Environment,
    MigrateConfig, OpsConfig, OrdersConfig, ProcessConfig, ProvidersConfig, ReceiverConfig, ReconcilerConfig,
    RetryDelay, RoleConfig, VerifyConfig, WebhookSecrets, WorkerConfig,
};
use crate::domain::Provider;
use crate::findings::{Fault, Findings};
use crate::followed::Followed;
use crate::role::Role;
use crate::store::{self, Class, Profile, Store, StoreError};
use crate::telemetry::causes;
use crate::webhook::Endpoint;
use secrecy::SecretString;
use serde_json::json;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(10);

/// A clock that is further off makes wrong decisions: signatures have 300 s, and people compare times.
const CLOCK_OFF_MAX: time::Duration = time::Duration::seconds(30);

/// A clock that is further off is worth a note.
const CLOCK_OFF_NOTED: time::Duration = time::Duration::seconds(2);

/// How one command's few statements reach the database.
pub(super) fn settings(url: Followed<DatabaseAddress>, profile: Profile, deadline: Duration) -> store::Settings {
    store::Settings { url, connections_max: 2, deadline, profile }
}

/// What a role needs of the two servers.
#[derive(Debug, Default)]
pub(super) struct Needs {
    database: Option<(DatabaseConfig, Vec<Role>)>,
    broker: Option<(BrokerConfig, Vec<RetryDelay>)>,
    users: Vec<User>,
    /// One of the users' rights is enough: nobody said whose address it is.
    any_user: bool,
    management_url: Option<SecretString>,
}

fn receiver(secrets: &WebhookSecrets) -> User {
    let WebhookSecrets { stripe, standard, adyen_hmac_keys, paypal_webhook_ids, paypal_cert_hosts: _ } = secrets;
    let endpoints = [
        (Endpoint::Stripe, stripe.current().is_empty()),
        (Endpoint::Standard, standard.current().is_empty()),
        (Endpoint::Adyen, adyen_hmac_keys.current().is_empty()),
        (Endpoint::Paypal, paypal_webhook_ids.is_empty()),
    ];
    User::Receiver(endpoints.iter().filter(|(_, is_off)| !is_off).map(|(e, _)| e.provider().clone()).collect())
}

fn reconciler(providers: &ProvidersConfig) -> User {
    let asked = [(Endpoint::Stripe, providers.stripe.is_some()), (Endpoint::Paypal, providers.paypal.is_some())];
    User::Reconciler(asked.iter().filter(|(_, is_asked)| *is_asked).map(|(e, _)| e.provider().clone()).collect())
}

/// Every user that a deployment has.
fn everybody(delays: &[RetryDelay]) -> Vec<User> {
    let providers: Vec<Provider> = Endpoint::ALL.iter().map(|endpoint| endpoint.provider().clone()).collect();
    let asked = [Endpoint::Stripe, Endpoint::Paypal].map(|endpoint| endpoint.provider().clone()).to_vec();
    vec![
        User::Migrate(delays.to_vec()),
        User::Receiver(providers),
        User::Worker(delays.to_vec()),
        User::Reconciler(asked),
        User::Ops,
    ]
}

impl Needs {
    /// Reads the configuration of the role, else that of `check` itself, and tells what it needs.
    pub(super) fn read(role: Option<Role>, environment: &Environment) -> Result<(ProcessConfig, Self), ConfigFaults> {
        match role.unwrap_or(Role::Check) {
            Role::Migrate => of(environment, |config: MigrateConfig| Self {
                database: Some((config.database, vec![Role::Migrate])),
                users: vec![User::Migrate(config.retry_delays.clone())],
                broker: Some((config.broker, config.retry_delays)),
                ..Self::default()
            }),
            Role::Receiver => of(environment, |config: ReceiverConfig| Self {
                users: vec![receiver(&config.secrets)],
                broker: Some((config.broker, vec![])),
                ..Self::default()
            }),
            Role::Worker => of(environment, |config: WorkerConfig| Self {
                database: Some((config.database, vec![Role::Worker])),
                users: vec![User::Worker(config.retry.delays.clone())],
                broker: Some((config.broker, config.retry.delays)),
                ..Self::default()
            }),
            Role::Api => of(environment, |config: ApiConfig| Self {
                database: Some((config.database, vec![Role::Api])),
                ..Self::default()
            }),
            Role::Reconciler => of(environment, |config: ReconcilerConfig| Self {
                database: Some((config.database, vec![Role::Reconciler])),
                users: vec![reconciler(&config.providers)],
                broker: Some((config.broker, vec![])),
                ..Self::default()
            }),
            Role::Ops => of(environment, |config: OpsConfig| Self {
                database: Some((config.database, vec![Role::Ops])),
                users: vec![User::Ops],
                broker: Some((config.broker, vec![])),
                management_url: config.management_url,
                ..Self::default()
            }),
            Role::All => of(environment, |config: AllConfig| {
                let mut roles = vec![Role::Worker, Role::Api, Role::Ops];
                let delays = config.worker.retry.delays;
                let mut users = vec![receiver(&config.receiver.secrets), User::Worker(delays.clone()), User::Ops];
                if let Some(config) = &config.reconciler {
                    roles.push(Role::Reconciler);
                    users.push(reconciler(&config.providers));
                }
                Self {
                    database: Some((config.worker.database, roles)),
                    broker: Some((config.worker.broker, delays)),
                    users,
                    management_url: config.ops.management_url,
                    ..Self::default()
                }
            }),
            Role::Dlq => of(environment, |config: DlqConfig| Self {
                database: Some((config.database, vec![Role::Dlq])),
                users: vec![User::Ops],
                broker: Some((config.broker, vec![])),
                management_url: config.management_url,
                ..Self::default()
            }),
            Role::Orders => of(environment, |config: OrdersConfig| Self {
                database: Some((config.database, vec![Role::Orders])),
                ..Self::default()
            }),
            Role::Check => of(environment, |config: CheckConfig| Self {
                database: Some((config.database, vec![Role::Check])),
                users: everybody(&config.retry_delays),
                any_user: true,
                broker: Some((config.broker, config.retry_delays)),
                management_url: config.management_url,
            }),
            Role::Verify => of(environment, |config: VerifyConfig| Self {
                database: Some((config.database, vec![Role::Verify])),
                ..Self::default()
            }),
        }
    }
}

fn of<R: RoleConfig>(
    environment: &Environment,
    needs: impl FnOnce(R) -> Needs,
) -> Result<(ProcessConfig, Needs), ConfigFaults> {
    Config::from_env(environment).map(|Config { process, role }| (process, needs(role)))
}

/// What was found, and what could not be looked at.
#[derive(Default)]
struct Report {
    found: Vec<(&'static str, Findings)>,
    /// The first of them ends the command.
    unreached: Vec<(&'static str, RunError)>,
    /// Whether something could not be compared, so that a fault of it would not show.
    is_partial: bool,
}

impl Report {
    fn add(&mut self, server: &'static str, findings: Findings) {
        self.found.push((server, findings));
    }

    /// Each fault once: two ways of looking may find the same.
    fn faults(&self) -> Vec<(&'static str, &Fault)> {
        let mut faults: Vec<(&'static str, &Fault)> = vec![];
        for (server, findings) in &self.found {
            for fault in &findings.faults {
                if !faults.contains(&(*server, fault)) {
                    faults.push((server, fault));
                }
            }
        }
        faults
    }

    fn notes(&self) -> impl Iterator<Item = (&'static str, &String)> {
        self.found.iter().flat_map(|(server, findings)| findings.notes.iter().map(|note| (*server, note)))
    }

    fn is_good(&self) -> bool {
        self.faults().is_empty() && self.unreached.is_empty()
    }

    fn to_text(&self) -> String {
        let mut text = String::new();
        for (server, note) in self.notes() {
            text.push_str(&format!("  {server}: {note}\n"));
        }
        for (server, fault) in self.faults() {
            text.push_str(&format!("! {server}: {fault}\n"));
        }
        for (server, error) in &self.unreached {
            text.push_str(&format!("! {server}: {} (code: {})\n", causes(error), error.code()));
        }
        text.push_str(match (self.is_good(), self.is_partial) {
            (true, false) => "all is as it must be\n",
            (true, true) => "what was compared is as it must be\n",
            (false, _) => "not ready; docs/errors.md explains the codes\n",
        });
        text
    }

    fn to_json(&self) -> String {
        let faults = self.faults();
        let faults = faults.iter().map(
            |(server, fault)| json!({"server": server, "code": fault.code, "what": fault.what, "remedy": fault.remedy}),
        );
        let notes = self.notes().map(|(server, note)| json!({"server": server, "note": note}));
        let unreached = self
            .unreached
            .iter()
            .map(|(server, error)| json!({"server": server, "code": error.code(), "cause": causes(error)}));
        let object = json!({
            "ok": self.is_good(),
            "complete": !self.is_partial,
            "faults": faults.collect::<Vec<_>>(),
            "notes": notes.collect::<Vec<_>>(),
            "unreached": unreached.collect::<Vec<_>>(),
        });
        format!("{object}\n")
    }
}

const POSTGRES: &str = "Postgres";
const RABBITMQ: &str = "RabbitMQ";

/// Prints what is missing and what to do about it; exit 1 where anything is. What cannot be reached hides nothing else.
pub(super) async fn check(args: &CheckArgs, needs: Needs) -> Result<Exit, RunError> {
    let (clock, mut report) = (Clock::system(), Report::default());
    if let Some((database, roles)) = needs.database
        && let Err(error) = check_database(database.url, &roles, &clock, &mut report).await
    {
        let error = RunError::of_store("cannot check the database: is DATABASE_URL right?", error);
        report.unreached.push((POSTGRES, error));
    }
    if let Some((config, delays)) = needs.broker {
        let is_compared = match needs.management_url {
            Some(url) => compare(url, &config.url, &delays, &clock, &mut report).await,
            None => {
                let mut findings = Findings::default();
                findings.note(
                    "not compared, because AMQP does not show them: bindings, policies, alarms, and, but for the user of \
                     migrate, arguments; set GRANTONCE_MANAGEMENT_URL and run `grantonce check` without --role",
                );
                report.add(RABBITMQ, findings);
                report.is_partial = true;
                false
            }
        };
        let checked = check_broker(&config.url, &delays, &needs.users, needs.any_user, is_compared, &mut report).await;
        if let Err(error) = checked {
            let error = RunError::of_broker("cannot check the broker: is AMQP_URL right?", error);
            report.unreached.push((RABBITMQ, error));
        }
    }
    print(&if args.json { report.to_json() } else { report.to_text() })?;
    let is_good = report.is_good();
    match report.unreached.into_iter().next() {
        Some((_, error)) => Err(error),
        None if is_good => Ok(Exit::Done),
        None => Ok(Exit::Fault),
    }
}

async fn check_database(
    url: Followed<DatabaseAddress>,
    roles: &[Role],
    clock: &Clock,
    report: &mut Report,
) -> Result<(), StoreError> {
    let store = Store::new(&settings(url, Profile::Operations, DEADLINE))?;
    let mut failed = None;
    let mut add = |found: Result<Findings, StoreError>| {
        match found {
            Ok(findings) => report.add(POSTGRES, findings),
            // The others may still be answered.
            Err(error) if error.class() != Class::Transient => failed = failed.take().or(Some(error)),
            Err(error) => return Err(error),
        }
        Ok(())
    };
    for role in roles {
        add(store.check(*role).await)?;
    }
    add(store.condition().await)?;
    add(store.commits().await)?;
    let theirs = clock.clone();
    add(store.clock_ahead(move || theirs.now()).await.map(|ahead| clock_off(POSTGRES, ahead)))?;
    failed.map_or(Ok(()), Err)
}

/// What a difference between clocks means.
fn clock_off(server: &str, ahead: time::Duration) -> Findings {
    let mut findings = Findings::default();
    let off = ahead.abs();
    let which = if ahead.is_negative() { "ahead of" } else { "behind" };
    let text = format!("this machine's clock is {:.1} s {which} {server}'s", off.as_seconds_f64());
    if off > CLOCK_OFF_MAX {
        findings.fault(Code::ClockDiffers, text, "set both by NTP: `timedatectl set-ntp true`");
    } else if off > CLOCK_OFF_NOTED {
        findings.note(text);
    }
    findings
}

/// Compares by the HTTP API; whether it did.
async fn compare(
    url: SecretString,
    amqp_url: &Followed<AmqpAddress>,
    delays: &[RetryDelay],
    clock: &Clock,
    report: &mut Report,
) -> bool {
    let compared = match Management::new(url, &amqp_url.current().vhost) {
        Ok(management) => management.compare(delays, clock).await,
        Err(error) => Err(error),
    };
    match compared {
        Ok(Compared { findings, clock_ahead }) => {
            report.add(RABBITMQ, findings);
            report.add(RABBITMQ, clock_ahead.map(|ahead| clock_off(RABBITMQ, ahead)).unwrap_or_default());
            true
        }
        Err(error) => {
            let error = RunError::new(Code::ManagementUnreachable, "cannot ask GRANTONCE_MANAGEMENT_URL", error);
            report.unreached.push((RABBITMQ, error));
            false
        }
    }
}

async fn check_broker(
    url: &Followed<AmqpAddress>,
    delays: &[RetryDelay],
    users: &[User],
    any_user: bool,
    is_compared: bool,
    report: &mut Report,
) -> Result<(), BrokerError> {
    let faults = broker::inspect(url, delays).await?;
    let is_complete = faults.is_empty();
    report.add(RABBITMQ, Findings { faults, notes: vec!["exchanges and queues are looked for by name".to_owned()] });
    let mut findings = Findings::default();
    let (mut lacking_all, mut able, mut unable) = (vec![], vec![], vec![]);
    for user in users {
        // It would make what is missing.
        if matches!(user, User::Migrate(_)) && !is_complete {
            continue;
        }
        let Tried { lacking, different, blocked } = broker::try_rights(url, user).await?;
        if !is_compared {
            findings.faults.extend(different);
        }
        if let Some(blocked) = blocked {
            findings.faults.push(blocked);
            break;
        }
        if lacking.is_empty() {
            able.push(user.role().name())
        } else {
            unable.push(user.role().name())
        }
        lacking_all.extend(lacking);
    }
    if !able.is_empty() {
        findings.note(format!("this user has the rights of: {}", able.join(", ")));
    }
    if !any_user {
        findings.faults.extend(lacking_all);
    } else if able.is_empty() && !unable.is_empty() {
        findings.notes.extend(lacking_all.into_iter().map(|fault: Fault| fault.what));
        findings.fault(Code::RabbitmqRights,
            "this broker user does not have all rights of any role",
            "set its permissions as deploy/rabbitmq-permissions.sh does; `grantonce check --role` tells what a role lacks",
        );
    } else if !unable.is_empty() {
        findings.note(format!("this user lacks rights of: {}; check these with --role", unable.join(", ")));
    }
    report.add(RABBITMQ, findings);
    Ok(())
}

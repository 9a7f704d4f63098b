//! The roles that run until they are told to stop, alone or all in one process.

use super::RunError;
use crate::api::{self, ApiError};
use crate::clock::Clock;
use crate::code::{Code, Exit};
use crate::config::{
    ApiConfig, DatabaseConfig, OpsConfig, ProcessConfig, ReceiverConfig, ReconcilerConfig, WorkerConfig,
};
use crate::http::{Limits, Readiness, bind, metrics_router, serve as serve_http};
use crate::ops::{self, OpsError};
use crate::receiver::{self, ReceiverError};
use crate::reconciler::{self, ReconcilerError};
use crate::role::Role;
use crate::shutdown::Shutdown;
use crate::store::{self, StoreError};
use crate::telemetry::{Metrics, OPEN_METRICS_CONTENT_TYPE, Traces};
use crate::worker;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long looking at the way to Postgres may take, and how long until it is looked at again when nobody answers.
const POOLER_DEADLINE: Duration = Duration::from_secs(10);
const POOLER_AGAIN: Duration = Duration::from_secs(1);

/// The roles that one process runs, each with its configuration.
#[derive(Debug, Default)]
pub(super) struct Roles {
    pub(super) receiver: Option<ReceiverConfig>,
    pub(super) worker: Option<WorkerConfig>,
    pub(super) api: Option<ApiConfig>,
    pub(super) reconciler: Option<ReconcilerConfig>,
    pub(super) ops: Option<OpsConfig>,
}

impl Roles {
    fn names(&self) -> Vec<Role> {
        let Self { receiver, worker, api, reconciler, ops } = self;
        let roles = [
            receiver.as_ref().map(|_| Role::Receiver),
            worker.as_ref().map(|_| Role::Worker),
            api.as_ref().map(|_| Role::Api),
            reconciler.as_ref().map(|_| Role::Reconciler),
            ops.as_ref().map(|_| Role::Ops),
        ];
        roles.into_iter().flatten().collect()
    }

    /// The process's own role: that of its one role, else `all`.
    fn role(&self) -> Role {
        match self.names()[..] {
            [role] => role,
            _ => Role::All,
        }
    }

    /// The database, which all roles of a process share.
    fn database(&self) -> Option<DatabaseConfig> {
        let Self { receiver: _, worker, api, reconciler, ops } = self;
        let databases = [
            worker.as_ref().map(|config| &config.database),
            api.as_ref().map(|config| &config.database),
            reconciler.as_ref().map(|config| &config.database),
            ops.as_ref().map(|config| &config.database),
        ];
        databases.into_iter().flatten().next().cloned()
    }
}

/// What every role of a process shares.
#[derive(Clone)]
struct Shared {
    clock: Clock,
    metrics: Metrics,
    traces: Traces,
    readiness: Readiness,
    shutdown: Shutdown,
}

/// Runs the roles, with the metrics listener beside them, until shutdown is requested or one of them cannot go on.
pub(super) async fn serve(process: ProcessConfig, shutdown: Shutdown, roles: Roles) -> Result<Exit, RunError> {
    let traces = process.otlp_endpoint.map_or_else(|| Ok(Traces::off()), |to| Traces::export(&to, roles.role().name()));
    let traces = traces.map_err(|error| RunError::new(Code::ConfigInvalid, "cannot export traces", error))?;
    let shared = Shared {
        clock: Clock::system(),
        metrics: Metrics::new(),
        traces: traces.clone(),
        readiness: Readiness::new(),
        shutdown: shutdown.clone(),
    };
    let (accepting, draining) = (shared.readiness.clone(), shutdown.draining());
    tokio::spawn(async move {
        draining.cancelled().await;
        accepting.end();
    });
    // Before anybody can ask: a role that has not looked yet is not ready.
    for name in roles.names() {
        shared.readiness.of(name, &shared.metrics);
    }
    let listener = bind("metrics", process.metrics_addr).await.map_err(|error| {
        RunError::new(Code::ConfigAddress, "cannot serve metrics: change GRANTONCE_METRICS_ADDR", error)
    })?;
    let rendered = shared.metrics.clone();
    let router = metrics_router(shared.readiness.clone(), OPEN_METRICS_CONTENT_TYPE, move || rendered.render());
    // Ends last: a drain can be watched.
    let metrics_shutdown = Shutdown::manual();
    // Scrapes come again: nobody waits for an idle connection of theirs.
    let limits = Limits { linger: Duration::ZERO, ..Limits::default() };
    let serving = serve_http(listener, router, limits, metrics_shutdown.clone());
    let following =
        tokio::spawn(process.secret_files.follow(shared.clock.clone(), shared.metrics.clone(), shutdown.token()));
    let looking = roles.database().map(|database| tokio::spawn(look_at_pooler(database, shared.shutdown.token())));
    let Roles { receiver, worker, api, reconciler, ops } = roles;
    let (receiver, worker, api, reconciler, ops) = tokio::join!(
        run(receiver, run_receiver, &shared),
        run(worker, run_worker, &shared),
        run(api, run_api, &shared),
        run(reconciler, run_reconciler, &shared),
        run(ops, run_ops, &shared),
    );
    let done = receiver.and(worker).and(api).and(reconciler).and(ops);
    traces.shutdown().await;
    metrics_shutdown.token().cancel();
    following.abort();
    // Its only failure would be a panic, which has been reported.
    drop(serving.await);
    done?;
    match looking {
        Some(looking) => looking.await.unwrap_or(Ok(())).map(|()| Exit::Done),
        None => Ok(Exit::Done),
    }
}

/// Ends the process if its database is reached through a pooler that shares sessions. Waits for the database to be in reach.
async fn look_at_pooler(database: DatabaseConfig, stop: CancellationToken) -> Result<(), RunError> {
    loop {
        let asking = store::is_session_shared(&database.url, POOLER_DEADLINE);
        match stop.run_until_cancelled(asking).await {
            None | Some(Ok(false)) => return Ok(()),
            Some(Ok(true)) => {
                stop.cancel();
                let what = "Postgres cannot be used like this";
                return Err(RunError::of_store(what, StoreError::SharedSession));
            }
            // The roles themselves say what is wrong.
            Some(Err(_not_known)) => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(POOLER_AGAIN)).await.is_none() {
            return Ok(());
        }
    }
}

/// Runs a role if the process has it. A role that cannot go on stops the others in order.
async fn run<C, F: Future<Output = Result<(), RunError>>>(
    config: Option<C>,
    role: impl FnOnce(C, Shared) -> F,
    shared: &Shared,
) -> Result<(), RunError> {
    let Some(config) = config else { return Ok(()) };
    let done = role(config, shared.clone()).await;
    if done.is_err() {
        shared.shutdown.token().cancel();
    }
    done
}

async fn run_receiver(config: ReceiverConfig, shared: Shared) -> Result<(), RunError> {
    receiver::run(config, shared.clock, shared.metrics, shared.traces, shared.readiness, shared.shutdown).await.map_err(
        |error| match error {
            ReceiverError::Bind(_) => RunError::new(Code::ConfigAddress, "the receiver cannot start", error),
            ReceiverError::Key { .. } | ReceiverError::Certificates(_) => {
                RunError::new(Code::ConfigProvider, "the receiver cannot start", error)
            }
            ReceiverError::ListenerLost => RunError::new(Code::RoleStopped, "the receiver cannot go on", error),
        },
    )
}

async fn run_worker(config: WorkerConfig, shared: Shared) -> Result<(), RunError> {
    worker::run(config, shared.clock, shared.metrics, shared.traces, shared.readiness, shared.shutdown)
        .await
        .map_err(|error| RunError::of_store("the worker cannot start", error))
}

async fn run_api(config: ApiConfig, shared: Shared) -> Result<(), RunError> {
    api::run(config, shared.clock, shared.metrics, shared.readiness, shared.shutdown).await.map_err(|error| match error
    {
        ApiError::Store(error) => RunError::of_store("the API cannot start", error),
        ApiError::Bind(_) => RunError::new(Code::ConfigAddress, "the API cannot start", error),
        ApiError::Provider(_) => RunError::new(Code::ConfigProvider, "the API cannot start", error),
        ApiError::ListenerLost => RunError::new(Code::RoleStopped, "the API cannot go on", error),
    })
}

async fn run_reconciler(config: ReconcilerConfig, shared: Shared) -> Result<(), RunError> {
    reconciler::run(config, shared.clock, shared.metrics, shared.traces, shared.readiness, shared.shutdown)
        .await
        .map_err(|error| match error {
            ReconcilerError::Store(error) => RunError::of_store("the reconciler cannot start", error),
            ReconcilerError::Provider(_) | ReconcilerError::NobodyToAsk => {
                RunError::new(Code::ConfigProvider, "the reconciler cannot start", error)
            }
        })
}

async fn run_ops(config: OpsConfig, shared: Shared) -> Result<(), RunError> {
    ops::run(config, shared.clock, shared.metrics, shared.readiness, shared.shutdown).await.map_err(|error| match error
    {
        OpsError::Store(error) => RunError::of_store("ops cannot start", error),
        OpsError::Bind(_) => RunError::new(Code::ConfigAddress, "ops cannot start: change GRANTONCE_OPS_ADDR", error),
        OpsError::ListenerLost => RunError::new(Code::RoleStopped, "ops cannot go on", error),
    })
}

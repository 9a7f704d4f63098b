//! The roles that run until they are told to stop, alone or all in one process.

use super::RunError;
use crate::api::{self, ApiError};
use crate::clock::Clock;
use crate::config::{
    AllConfig, ApiConfig, DatabaseConfig, OpsConfig, ProcessConfig, ReceiverConfig, ReconcilerConfig, WorkerConfig,
};
use crate::http::{Limits, Readiness, bind, metrics_router, serve as serve_http};
use crate::ops::{self, OpsError};
use crate::receiver::{self, ReceiverError};
use crate::reconciler::{self, ReconcilerError};
use crate::run::Exit;
use crate::shutdown::Shutdown;
use crate::store::{self, StoreError};
use crate::telemetry::{Metrics, OPEN_METRICS_CONTENT_TYPE, RoleName, Traces};
use crate::worker;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long looking at the way to Postgres may take, and how long until it is looked at again when nobody answers.
const POOLER_DEADLINE: Duration = Duration::from_secs(10);
const POOLER_AGAIN: Duration = Duration::from_secs(1);

/// Which roles a process runs.
pub(super) enum Roles {
    Receiver(ReceiverConfig),
    Worker(WorkerConfig),
    Api(ApiConfig),
    Reconciler(ReconcilerConfig),
    Ops(OpsConfig),
    All(Box<AllConfig>),
}

impl Roles {
    /// As on the command line.
    fn name(&self) -> &'static str {
        match self {
            Self::Receiver(_) => "receiver",
            Self::Worker(_) => "worker",
            Self::Api(_) => "api",
            Self::Reconciler(_) => "reconciler",
            Self::Ops(_) => "ops",
            Self::All(_) => "all",
        }
    }

    /// Where its database is.
    fn database(&self) -> Option<&DatabaseConfig> {
        match self {
            Self::Receiver(_) => None,
            Self::Worker(config) => Some(&config.database),
            Self::Api(config) => Some(&config.database),
            Self::Reconciler(config) => Some(&config.database),
            Self::Ops(config) => Some(&config.database),
            Self::All(config) => Some(&config.worker.database),
        }
    }

    /// Those that run in this process.
    fn names(&self) -> Vec<RoleName> {
        match self {
            Self::Receiver(_) => vec![RoleName::Receiver],
            Self::Worker(_) => vec![RoleName::Worker],
            Self::Api(_) => vec![RoleName::Api],
            Self::Reconciler(_) => vec![RoleName::Reconciler],
            Self::Ops(_) => vec![RoleName::Ops],
            Self::All(config) => {
                let is_running = |name: &RoleName| *name != RoleName::Reconciler || config.reconciler.is_some();
                RoleName::ALL.iter().copied().filter(is_running).collect()
            }
        }
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
    let traces = process.otlp_endpoint.map_or_else(|| Ok(Traces::off()), |to| Traces::export(&to, roles.name()));
    let traces = traces.map_err(|error| RunError::configuration("cannot export traces", error))?;
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
    let listener = bind("metrics", process.metrics_addr)
        .await
        .map_err(|error| RunError::configuration("cannot serve metrics: change GRANTONCE_METRICS_ADDR", error))?;
    let rendered = shared.metrics.clone();
    let router = metrics_router(shared.readiness.clone(), OPEN_METRICS_CONTENT_TYPE, move || rendered.render());
    // Ends last: a drain can be watched.
    let metrics_shutdown = Shutdown::manual();
    // Scrapes come again: nobody waits for an idle connection of theirs.
    let limits = Limits { linger: Duration::ZERO, ..Limits::default() };
    let serving = serve_http(listener, router, limits, metrics_shutdown.clone());
    let following =
        tokio::spawn(process.secret_files.follow(shared.clock.clone(), shared.metrics.clone(), shutdown.token()));
    let looking =
        roles.database().cloned().map(|database| tokio::spawn(look_at_pooler(database, shared.shutdown.token())));
    let done = match roles {
        Roles::Receiver(config) => receiver(config, shared).await,
        Roles::Worker(config) => worker(config, shared).await,
        Roles::Api(config) => api(config, shared).await,
        Roles::Reconciler(config) => reconciler(config, shared).await,
        Roles::Ops(config) => ops(config, shared).await,
        Roles::All(config) => all(*config, shared).await,
    };
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
                return Err(RunError::configuration(what, StoreError::SharedSession));
            }
            // The roles themselves say what is wrong.
            Some(Err(_not_known)) => {}
        }
        if stop.run_until_cancelled(tokio::time::sleep(POOLER_AGAIN)).await.is_none() {
            return Ok(());
        }
    }
}

async fn all(config: AllConfig, shared: Shared) -> Result<(), RunError> {
    let AllConfig {
        receiver: receiver_config,
        worker: worker_config,
        api: api_config,
        reconciler: reconciler_config,
        ops: ops_config,
    } = config;
    let stop = shared.shutdown.token();
    // One that cannot go on ends the others in order.
    let ends_all = |done: Result<(), RunError>, stop: &CancellationToken| {
        if done.is_err() {
            stop.cancel();
        }
        done
    };
    let reconciling = async {
        match reconciler_config {
            Some(config) => reconciler(config, shared.clone()).await,
            None => Ok(()),
        }
    };
    let (receiver, worker, api, reconciler, ops) = tokio::join!(
        async { ends_all(receiver(receiver_config, shared.clone()).await, &stop) },
        async { ends_all(worker(worker_config, shared.clone()).await, &stop) },
        async { ends_all(api(api_config, shared.clone()).await, &stop) },
        async { ends_all(reconciling.await, &stop) },
        async { ends_all(ops(ops_config, shared.clone()).await, &stop) },
    );
    receiver.and(worker).and(api).and(reconciler).and(ops)
}

async fn receiver(config: ReceiverConfig, shared: Shared) -> Result<(), RunError> {
    receiver::run(config, shared.clock, shared.metrics, shared.traces, shared.readiness, shared.shutdown).await.map_err(
        |error| match error {
            ReceiverError::Bind(_) | ReceiverError::Key { .. } | ReceiverError::Certificates(_) => {
                RunError::configuration("the receiver cannot start", error)
            }
            ReceiverError::ListenerLost => RunError::fault("the receiver cannot go on", error),
        },
    )
}

async fn worker(config: WorkerConfig, shared: Shared) -> Result<(), RunError> {
    worker::run(config, shared.clock, shared.metrics, shared.traces, shared.readiness, shared.shutdown)
        .await
        .map_err(|error| RunError::of_store("the worker cannot start", error))
}

async fn api(config: ApiConfig, shared: Shared) -> Result<(), RunError> {
    api::run(config, shared.clock, shared.metrics, shared.readiness, shared.shutdown).await.map_err(|error| match error
    {
        ApiError::Store(error) => RunError::of_store("the API cannot start", error),
        ApiError::Bind(_) | ApiError::Provider(_) => RunError::configuration("the API cannot start", error),
        ApiError::ListenerLost => RunError::fault("the API cannot go on", error),
    })
}

async fn reconciler(config: ReconcilerConfig, shared: Shared) -> Result<(), RunError> {
    reconciler::run(config, shared.clock, shared.metrics, shared.traces, shared.readiness, shared.shutdown)
        .await
        .map_err(|error| match error {
            ReconcilerError::Store(error) => RunError::of_store("the reconciler cannot start", error),
            ReconcilerError::Provider(_) | ReconcilerError::NobodyToAsk => {
                RunError::configuration("the reconciler cannot start", error)
            }
        })
}

async fn ops(config: OpsConfig, shared: Shared) -> Result<(), RunError> {
    ops::run(config, shared.clock, shared.metrics, shared.readiness, shared.shutdown).await.map_err(|error| match error
    {
        OpsError::Store(error) => RunError::of_store("ops cannot start", error),
        OpsError::Bind(_) => RunError::configuration("ops cannot start: change GRANTONCE_OPS_ADDR", error),
        OpsError::ListenerLost => RunError::fault("ops cannot go on", error),
    })
}

//! `/healthz` (the process runs), `/readyz` (every role has what it needs) and `/metrics`.

use crate::clock::Clock;
use crate::domain::tidy;
use crate::role::Role;
use crate::telemetry::{Dependency, Metrics, Need};
use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

/// How much of a cause is kept, in bytes.
const CAUSE_BYTES_MAX: usize = 200;

/// The needs of the roles of this process, and which are missing. It is cheap to clone, and all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    states: Mutex<Vec<State>>,
    is_ending: AtomicBool,
}

/// One need of one role.
#[derive(Debug)]
struct State {
    role: Role,
    need: Need,
    missing: Option<Since>,
}

/// Since when a need is missing, and why.
#[derive(Debug, Clone)]
struct Since {
    at: OffsetDateTime,
    began: Instant,
    about: Dependency,
    cause: String,
}

/// A missing need, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// The role that has the need.
    pub role: &'static str,
    /// The name of the need.
    pub need: &'static str,
    /// Since when it is missing, RFC 3339.
    pub since: String,
    /// How long it has been missing, in whole seconds.
    pub for_s: u64,
    /// The cause in a few words. It contains no secret and no address.
    pub cause: String,
}

/// The needs of one role, with one flag each. No other role writes them.
#[derive(Debug)]
pub struct Needs {
    readiness: Readiness,
    role: Role,
    metrics: Metrics,
}

/// Reports whether one need of one role is met.
#[derive(Debug)]
pub struct NeedFlag {
    readiness: Readiness,
    role: Role,
    need: Need,
    metrics: Metrics,
}

impl Readiness {
    /// A process without needs.
    pub fn new() -> Self {
        Self::default()
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The needs of a role. Each is missing until its flag says otherwise. A role may be announced before it runs.
    pub fn of(&self, role: Role, metrics: &Metrics) -> Needs {
        let needs = Needs { readiness: self.clone(), role, metrics: metrics.clone() };
        for &need in role.needs() {
            let is_known = self.states().iter().any(|state| (state.role, state.need) == (role, need));
            if !is_known {
                let at = Clock::system().now();
                let (began, about) = (Instant::now(), need.dependency());
                let missing = Some(Since { at, began, about, cause: "not looked at yet".to_owned() });
                self.states().push(State { role, need, missing });
                metrics.need(role, need, false, at);
            }
        }
        self.sum_up(role, metrics);
        needs
    }

    /// The missing needs, in the order of roles and needs. Empty means ready.
    pub fn details(&self) -> Vec<Missing> {
        let details = |state: &State| {
            let since = state.missing.as_ref()?;
            Some(Missing {
                role: state.role.name(),
                need: state.need.name(),
                since: since.at.replace_nanosecond(0).unwrap_or(since.at).format(&Rfc3339).unwrap_or_default(),
                for_s: since.began.elapsed().as_secs(),
                cause: since.cause.clone(),
            })
        };
        self.states().iter().filter_map(details).collect()
    }

    /// The process was told to stop, and must get no more requests.
    pub fn end(&self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
    }

    /// The servers behind the missing needs, each once, and `accepting` when the process ends. Empty means ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let states = self.states();
        let is_missing = |dependency: &&Dependency| states.iter().any(|state| state.lacks(**dependency));
        let missing = Dependency::ALL.iter().filter(is_missing).map(|dependency| dependency.name());
        missing.chain(self.0.is_ending.load(Ordering::Relaxed).then_some("accepting")).collect()
    }

    /// Sets the metrics for the needs of a role, and of all roles.
    fn sum_up(&self, role: Role, metrics: &Metrics) {
        let states = self.states();
        let is_ready = states.iter().filter(|state| state.role == role).all(|state| state.missing.is_none());
        metrics.role_ready(role, is_ready);
        for dependency in Dependency::ALL {
            if states.iter().any(|state| state.need.dependency() == dependency) {
                metrics.dependency(dependency, !states.iter().any(|state| state.lacks(dependency)));
            }
        }
    }
}

impl State {
    fn lacks(&self, dependency: Dependency) -> bool {
        self.missing.as_ref().is_some_and(|since| since.about == dependency)
    }
}

impl Needs {
    /// The role that has these needs.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The flag of a need. It should have one owner.
    pub fn flag(&self, need: Need) -> NeedFlag {
        NeedFlag { readiness: self.readiness.clone(), role: self.role, need, metrics: self.metrics.clone() }
    }
}

impl NeedFlag {
    /// Sets the need to met, or to missing with a cause.
    pub fn set(&self, found: Result<(), String>) {
        match found {
            Ok(()) => self.met(),
            Err(cause) => self.missing(cause),
        }
    }

    /// Sets the need to met.
    pub fn met(&self) {
        self.change(None);
    }

    /// Sets the need to missing, with a cause.
    pub fn missing(&self, cause: impl AsRef<str>) {
        self.missing_for_want_of(self.need.dependency(), cause);
    }

    /// Sets the need to missing, because another server is missing.
    pub fn missing_for_want_of(&self, dependency: Dependency, cause: impl AsRef<str>) {
        self.change(Some((dependency, presentable(cause.as_ref()))));
    }

    /// Each change is logged once. A need that stays missing keeps its beginning, and may get another cause.
    fn change(&self, lost: Option<(Dependency, String)>) {
        let at = Clock::system().now();
        let mut states = self.readiness.states();
        let of_this = |state: &&mut State| (state.role, state.need) == (self.role, self.need);
        let Some(state) = states.iter_mut().find(of_this) else { return };
        let (role, need, is_met) = (self.role.name(), self.need.name(), lost.is_none());
        match (lost, &mut state.missing) {
            (None, None) => return,
            (None, missing @ Some(_)) => {
                let missed_s = missing.take().map_or(0, |since| since.began.elapsed().as_secs());
                tracing::info!(event = "need_met", role, need, missed_s);
            }
            (Some((about, cause)), Some(since)) if (since.about, &since.cause) == (about, &cause) => return,
            (Some((about, cause)), missing) => {
                tracing::warn!(event = "need_missing", role, need, cause, "this role cannot do all of its work");
                let since = missing.take();
                let (at, began) = since.map_or_else(|| (at, Instant::now()), |since| (since.at, since.began));
                *missing = Some(Since { at, began, about, cause });
            }
        }
        let since = state.missing.as_ref().map_or(at, |since| since.at);
        drop(states);
        self.metrics.need(self.role, self.need, is_met, since);
        self.readiness.sum_up(self.role, &self.metrics);
    }
}

/// A cause that anybody may see: short, and without anything that looks like an address.
fn presentable(cause: &str) -> String {
    let words = cause.split_whitespace().map(|word| if word.contains("://") { "…" } else { word });
    tidy(&words.collect::<Vec<_>>().join(" "), CAUSE_BYTES_MAX)
}

/// A duration in its largest unit, for a sentence.
fn roughly(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        _ => (seconds / 3_600, "h"),
    };
    format!("{count} {unit}")
}

impl Missing {
    /// A sentence for people: `worker: publishing is blocked by RabbitMQ (memory alarm), for 20 s`.
    pub fn sentence(&self) -> String {
        format!("{}: {}, for {}", self.role, self.cause, roughly(self.for_s))
    }
}

#[derive(Serialize)]
struct Ready {
    status: &'static str,
    missing: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    details: Vec<Missing>,
}

/// Serves `/healthz` and `/readyz`.
pub fn health_router(readiness: Readiness) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(async move || readyz(&readiness)))
}

/// Serves `/metrics`, as `render` writes it, with `/healthz` and `/readyz`.
pub fn metrics_router<F>(readiness: Readiness, content_type: &'static str, render: F) -> Router
where
    F: Fn() -> String + Clone + Send + Sync + 'static,
{
    let metrics = get(async move || ([(CONTENT_TYPE, content_type)], render()));
    health_router(readiness).route("/metrics", metrics)
}

async fn healthz() -> Response {
    ([(CACHE_CONTROL, "no-store")], "ok\n").into_response()
}

fn readyz(readiness: &Readiness) -> Response {
    let (missing, details) = (readiness.missing(), readiness.details());
    let (code, status) =
        if missing.is_empty() { (StatusCode::OK, "ready") } else { (StatusCode::SERVICE_UNAVAILABLE, "not_ready") };
    (code, [(CACHE_CONTROL, "no-store")], axum::Json(Ready { status, missing, details })).into_response()
}

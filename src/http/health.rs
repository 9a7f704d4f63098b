//! `/healthz` (the process runs), `/readyz` (every role has all that it needs) and `/metrics`.

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

/// What is kept of a cause, in bytes.
const CAUSE_BYTES_MAX: usize = 200;

/// What the roles of this process need, and what of it is missing. Cheap to clone; all clones are one.
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

/// A need that is missing, for people and monitoring.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// Whose.
    pub role: &'static str,
    /// What.
    pub need: &'static str,
    /// Since when, RFC 3339.
    pub since: String,
    /// How long that is, in whole seconds.
    pub for_s: u64,
    /// Why, in a few words. Holds no secret and no address.
    pub cause: String,
}

/// The needs of one role, and their flags: one for each, which no other role writes.
#[derive(Debug)]
pub struct Needs {
    readiness: Readiness,
    role: Role,
    metrics: Metrics,
}

/// Says whether one need of one role is met.
#[derive(Debug)]
pub struct NeedFlag {
    readiness: Readiness,
    role: Role,
    need: Need,
    metrics: Metrics,
}

impl Readiness {
    /// Nothing is needed yet.
    pub fn new() -> Self {
        Self::default()
    }

    fn states(&self) -> MutexGuard<'_, Vec<State>> {
        self.0.states.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The needs of a role; each is missing until its flag says otherwise. A role may be announced before it runs.
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

    /// What is missing, in the order of roles and needs; nothing is ready.
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

    /// The process was told to stop: nobody is to send it anything any more.
    pub fn end(&self) {
        self.0.is_ending.store(true, Ordering::Relaxed);
    }

    /// The servers that the missing needs are about, each once, and `accepting` once the process ends; none is ready.
    pub fn missing(&self) -> Vec<&'static str> {
        let states = self.states();
        let is_missing = |dependency: &&Dependency| states.iter().any(|state| state.lacks(**dependency));
        let missing = Dependency::ALL.iter().filter(is_missing).map(|dependency| dependency.name());
        missing.chain(self.0.is_ending.load(Ordering::Relaxed).then_some("accepting")).collect()
    }

    /// Tells the metrics what the needs of a role, and of all roles, come to.
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
    /// Whose needs they are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The flag of a need. Let one owner have it.
    pub fn flag(&self, need: Need) -> NeedFlag {
        NeedFlag { readiness: self.readiness.clone(), role: self.role, need, metrics: self.metrics.clone() }
    }
}

impl NeedFlag {
    /// Met, or missing for this cause.
    pub fn set(&self, found: Result<(), String>) {
        match found {
            Ok(()) => self.met(),
            Err(cause) => self.missing(cause),
        }
    }

    /// It is met.
    pub fn met(&self) {
        self.change(None);
    }

    /// It is missing.
    pub fn missing(&self, cause: impl AsRef<str>) {
        self.missing_for_want_of(self.need.dependency(), cause);
    }

    /// It is missing because another server is.
    pub fn missing_for_want_of(&self, dependency: Dependency, cause: impl AsRef<str>) {
        self.change(Some((dependency, presentable(cause.as_ref()))));
    }

    /// Logged once for each change. A need that stays missing keeps its beginning, and may have another cause.
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

/// A cause as it may be shown to anybody: short, and without anything that looks like an address.
fn presentable(cause: &str) -> String {
    let words = cause.split_whitespace().map(|word| if word.contains("://") { "…" } else { word });
    tidy(&words.collect::<Vec<_>>().join(" "), CAUSE_BYTES_MAX)
}

/// A duration in the largest unit that fits, for a sentence.
fn roughly(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "s"),
        120..7_200 => (seconds / 60, "min"),
        _ => (seconds / 3_600, "h"),
    };
    format!("{count} {unit}")
}

impl Missing {
    /// For people: `worker: publishing is blocked by RabbitMQ (memory alarm), for 20 s`.
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

/// `/healthz` and `/readyz`.
pub fn health_router(readiness: Readiness) -> Router {
    Router::new().route("/healthz", get(healthz)).route("/readyz", get(async move || readyz(&readiness)))
}

/// `/metrics`, as `render` writes it, with `/healthz` and `/readyz`.
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

//! The operators' console: pages for an operator who is on call, and the same as JSON.
//!
//! The unit of work is an order. A page says first what is wrong, then what an action would change now, then offers the action.
//! Every page has an address that stays, so that it can be sent to a colleague. The server makes whole pages; `live.js` only
//! keeps parts of them up to date.
//!
//! | file | what it has |
//! |---|---|
//! | `access` | who may use it: tokens, sessions, forms that no other site can send |
//! | `selection` | which letters: the same words in addresses, forms and JSON |
//! | `layout`, `words`, `advice` | what all pages share; how states are named; what to do about each reason |
//! | `orders`, `order` | the list of orders with dead letters, and the page of one order |
//! | `letters`, `letter`, `home`, `audit`, `explain`, `queue` | pages that show |
//! | `replays`, `settle`, `amend`, `price`, `check`, `forget` | pages that show a consequence, and act |
//! | `v1`, `v1_orders` | the same as JSON |

mod access;
mod advice;
mod amend;
mod audit;
mod body;
mod charts;
mod check;
mod explain;
mod forget;
mod home;
mod layout;
mod letter;
mod letters;
mod order;
mod orders;
mod price;
mod queue;
mod replays;
mod selection;
mod settle;
mod v1;
mod v1_orders;
mod words;

use super::prospects::Terms;
use super::queues::QueueDepths;
use crate::address::AmqpAddress;
use crate::broker::Publisher;
use crate::clock::Clock;
use crate::followed::Followed;
use crate::http::{BearerTokens, Problem, Readiness, asset};
use crate::store::{Actor, Store, StoreError};
use crate::telemetry::{Metrics, ReplayOutcome};
use access::Logins;
use axum::Router;
use axum::middleware;
use axum::routing::{MethodRouter, any, get, post};
use secrecy::SecretString;
use std::sync::Arc;
use time::OffsetDateTime;
use tokio::sync::watch;

/// What the console works with.
#[derive(Clone)]
pub(super) struct Console {
    pub(super) store: Store,
    /// What verdicts are judged by.
    pub(super) terms: Terms,
    /// Who may use it.
    pub(super) tokens: Followed<BearerTokens>,
    /// Publishes hints: a provider is to be asked.
    pub(super) publisher: Publisher,
    /// Where RabbitMQ is, to look into its queue.
    pub(super) amqp_url: Followed<AmqpAddress>,
    /// RabbitMQ's HTTP API, with its credentials.
    pub(super) management_url: Option<SecretString>,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    /// None: not known yet, or not any more.
    pub(super) queues: watch::Receiver<Option<QueueDepths>>,
    /// What this process lacks.
    pub(super) readiness: Readiness,
}

/// What the handlers share.
#[derive(Clone)]
struct App {
    console: Arc<Console>,
    logins: Logins,
}

impl App {
    fn store(&self) -> &Store {
        &self.console.store
    }

    /// Ends a replay. `false`: it had ended before.
    async fn cancel(&self, id: i64, by: Actor, reason: String) -> Result<bool, StoreError> {
        let left = self.store().cancel_replay(id, by, reason, self.now()).await?;
        self.console.metrics.replays(ReplayOutcome::Canceled, left.unwrap_or(0));
        Ok(left.is_some())
    }

    /// To the microsecond, as Postgres keeps it: what is written now can be found by its time.
    fn now(&self) -> OffsetDateTime {
        let now = self.console.clock.now().to_offset(time::UtcOffset::UTC);
        now.replace_microsecond(now.microsecond()).unwrap_or(now)
    }
}

/// Everything that the console answers to. Whatever is not named here is a page that helps to go on.
pub(super) fn router(console: Console) -> Router {
    let app = App { console: Arc::new(console), logins: Logins::default() };
    let open = Router::new()
        .route("/login", get(access::show).post(access::log_in))
        .route("/style.css", get(async || asset("text/css; charset=utf-8", include_str!("console/style.css"))))
        .route("/live.js", get(async || asset("text/javascript; charset=utf-8", include_str!("console/live.js"))))
        .route("/icon.svg", get(async || asset("image/svg+xml", include_str!("console/icon.svg"))));
    let mut pages = Router::new();
    for (path, methods) in pages_of_ours() {
        pages = pages.route(path, methods.fallback(layout::wrong_method));
    }
    pages = pages.route("/{*rest}", any(layout::nothing_here));
    let mut calls = Router::new();
    for (path, methods) in v1::routes() {
        calls = calls.route(path, methods.fallback(async || Problem::method_not_allowed()));
    }
    calls = calls.route("/v1/{*rest}", any(async || Problem::not_found("there is nothing at this path")));
    let pages = pages.layer(middleware::from_fn_with_state(app.clone(), access::guard_pages));
    let calls = calls.layer(middleware::from_fn_with_state(app.clone(), access::guard_calls));
    open.merge(pages).merge(calls).with_state(app)
}

fn pages_of_ours() -> [(&'static str, MethodRouter<App>); 21] {
    [
        ("/", get(home::show)),
        ("/logout", post(access::log_out)),
        ("/dead-letters", get(letters::show)),
        ("/dead-letters/{id}", get(letter::show)),
        ("/dead-letters/{id}/body", get(letter::body)),
        ("/replay", get(replays::preview).post(replays::begin)),
        ("/replays", get(replays::list)),
        ("/replays/{id}", get(replays::show)),
        ("/replays/{id}/cancel", post(replays::cancel)),
        ("/archive", get(settle::ask_to_archive).post(settle::archive)),
        ("/restore", get(settle::ask_to_restore).post(settle::restore)),
        ("/amend", get(amend::ask).post(amend::amend)),
        ("/orders/{id}", get(order::show)),
        ("/orders/{id}/amend", get(price::show).post(price::amend)),
        ("/check", get(check::show).post(check::check)),
        ("/forget", get(forget::show).post(forget::forget)),
        ("/queue", get(queue::ask).post(queue::look)),
        ("/audit", get(audit::list)),
        ("/audit/{id}", get(audit::show)),
        ("/explain", get(explain::search)),
        ("/explain/{*id}", get(explain::show)),
    ]
}

//! The demo of grantonce: simulated providers, buyers and a site around the real program. The roles run as processes of the
//! program `grantonce` that lies beside this one, on a real broker and a real database. Each run has its own place on both.
//!
//! A headless run sells many orders. Each webhook is sent several times, early, late and out of order, or never. At the end
//! the run counts the credits. An interactive run opens a shop, prints its addresses, and waits for you to try it.
//!
//! | module | what it has |
//! |---|---|
//! | `args`, `run` | the command line, and one run from start to end |
//! | `plan` | what happens in a run, decided by its seed |
//! | `roles`, `killer` | the real roles, on a database and a virtual host of the run's own |
//! | `api`, `headless` | the site and its buyers |
//! | `audit`, `witness`, `summary` | who has which credits, and who should have them |
//! | `interactive`, `storefront`, `page`, `web`, `html` | for people: what is printed, the shop, and the page where buyers pay |

mod api;
mod args;
mod audit;
mod headless;
mod html;
mod interactive;
mod killer;
mod page;
mod plan;
mod roles;
mod run;
mod storefront;
mod summary;
mod web;
mod witness;

use args::Args;
use clap::Parser as _;
use run::{BAD_CONFIGURATION, Servers};
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    let servers = match Servers::from_env(|name| std::env::var(name).ok()) {
        Ok(servers) => servers,
        Err(missing) => return fail(BAD_CONFIGURATION, &missing),
    };
    let shutdown = CancellationToken::new();
    if let Err(error) = cancel_on_signals(&shutdown) {
        return fail(1, &error);
    }
    match run::run(args, servers, shutdown).await {
        Ok(ended) => ended.exit_code().into(),
        Err(error) => fail(error.exit_code(), &error),
    }
}

/// Ends the run at the first Ctrl-C or SIGTERM. The run then removes what it made.
fn cancel_on_signals(shutdown: &CancellationToken) -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        shutdown.cancel();
    });
    Ok(())
}

fn fail(code: u8, error: &dyn Error) -> ExitCode {
    // A reader of stderr that is gone changes nothing about the exit code.
    let _ = writeln!(std::io::stderr(), "grantonce-demo: {}", grantonce_testkit::causes(error));
    code.into()
}

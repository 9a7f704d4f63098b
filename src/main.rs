//! The program: command line, configuration, logging, and then the library.

use clap::Parser as _;
use grantonce::cli::{Cli, Command};
use grantonce::config::{self, Config, Environment};
use grantonce::sim::children::die_with_parent;
use grantonce::telemetry::{causes, flush_log, init_logging, say};
use grantonce::{Exit, run};
use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;

/// Waits for the last log lines when `main` ends, also by a panic.
struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        flush_log();
    }
}

fn main() -> ExitCode {
    let _flush = Flush;
    // Before any thread is started; does nothing but for the demo's and the tests' own children.
    die_with_parent();
    // Bad usage ends here, with code 2.
    let Cli { help_config, command } = Cli::parse();
    match command {
        Some(command) => start(command).into(),
        None if help_config => {
            // A reader that goes away early, such as `head`, is no fault.
            let _ = std::io::stdout().write_all(config::help().as_bytes());
            Exit::Done.into()
        }
        None => Exit::Usage.into(),
    }
}

fn start(command: Command) -> Exit {
    let environment = Environment::of_process();
    let config = match Config::from_env(command.role(), &environment) {
        Ok(config) => config,
        Err(faults) => return fail(Exit::Usage, &faults),
    };
    if let Err(error) = init_logging(config.process.log_format, &config.process.log_filter) {
        return fail(Exit::Fault, &error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Exit::Fault, &error),
    };
    match runtime.block_on(run(command, config)) {
        Ok(exit) => exit,
        Err(error) => fail(error.exit(), &error),
    }
}

fn fail(exit: Exit, error: &(dyn Error + 'static)) -> Exit {
    let cause = causes(error);
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(event = "failed", exit_code = exit.code(), cause, "ended by a failure");
    } else {
        // Logging is not set up yet, or set to show nothing: whoever started the process must hear it all the same.
        say(&format!("grantonce: {cause}"));
    }
    exit
}

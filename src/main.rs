//! The program: command line, configuration, logging, and then the library.

use clap::Parser as _;
use grantonce::cli::{Cli, Command};
use grantonce::config::{self, Environment};
use grantonce::telemetry::{causes, flush_log, init_logging, say};
use grantonce::{Code, Exit, Job, RunError, print, run};
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
    match Cli::try_parse() {
        Ok(Cli { command: Some(command), .. }) => start(command).into(),
        Ok(Cli { help_config: true, .. }) => printed(print(&config::help())).into(),
        Ok(_) => Exit::Usage.into(),
        // Bad usage ends here, with code 2.
        Err(usage) if usage.use_stderr() => usage.exit(),
        // A help or the version.
        Err(asked) => {
            let written = asked.print().and_then(|()| std::io::stdout().flush());
            printed(written.map_err(RunError::output)).into()
        }
    }
}

fn printed(written: Result<(), RunError>) -> Exit {
    match written {
        Ok(()) => Exit::Done,
        Err(error) => fail(error.code(), error.exit(), &error),
    }
}

fn start(command: Command) -> Exit {
    let job = match Job::read(command, &Environment::of_process()) {
        Ok(job) => job,
        Err(faults) => return fail(faults.code(), Exit::Usage, &faults),
    };
    if let Err(error) = init_logging(job.process.log_format, &job.process.log_filter) {
        return fail(Code::ProcessFailed, Exit::Fault, &error);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(Code::ProcessFailed, Exit::Fault, &error),
    };
    match runtime.block_on(run(job)) {
        Ok(exit) => exit,
        Err(error) => fail(error.code(), error.exit(), &error),
    }
}

fn fail(code: Code, exit: Exit, error: &(dyn Error + 'static)) -> Exit {
    if exit == Exit::ReaderGone {
        // The reader wants no more, as `head`.
        return exit;
    }
    let cause = causes(error);
    if tracing::enabled!(tracing::Level::ERROR) {
        tracing::error!(
            event = "failed",
            code = code.name(),
            exit_code = exit.code(),
            cause,
            "ended by a failure; see docs/errors.md"
        );
    } else {
        // Logging is not set up yet, or shows nothing. The error must be seen all the same.
        say(&format!("grantonce: {cause}\n(code: {code}; see docs/errors.md)"));
    }
    exit
}

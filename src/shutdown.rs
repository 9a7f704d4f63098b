//! The end of the process. First it drains: it is not ready, but serves everything. Then it stops: it takes nothing new
//! and finishes what is under way. The first SIGTERM or SIGINT begins this; a second signal ends the process at once.

use crate::code::Exit;
use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long work under way may take in a process without configuration, which only tests have.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);

/// How long the steps of the end take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShutdownTimes {
    /// How long requests are served after SIGTERM, while load balancers notice that the process is not ready. SIGINT, a
    /// developer's Ctrl-C, does not wait.
    pub delay: Duration,
    /// How long work under way may take after that.
    pub drain_deadline: Duration,
}

/// The only source of the shutdown request. Everything that runs is given it or its token; there is no global.
#[derive(Debug, Clone)]
pub struct Shutdown {
    stop: CancellationToken,
    /// A child of `stop`: a process that stops also drains.
    draining: CancellationToken,
    drain_deadline: Duration,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT from now on. It must be called inside a tokio runtime.
    ///
    /// The first signal begins the end; the second one ends the process at once with code 130.
    pub fn on_signals(times: ShutdownTimes) -> io::Result<Self> {
        // Registered here and not in the task, so that a signal right after this call is not lost.
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let shutdown = Self::within(times.drain_deadline);
        tokio::spawn(shutdown.clone().heed(terminate, interrupt, times.delay));
        Ok(shutdown)
    }

    /// A shutdown that no signal triggers: cancel its token. For tests, and for roles that run inside another process.
    pub fn manual() -> Self {
        Self::within(DRAIN_DEADLINE)
    }

    /// The same, with a deadline for work under way.
    pub fn within(drain_deadline: Duration) -> Self {
        let stop = CancellationToken::new();
        Self { draining: stop.child_token(), stop, drain_deadline }
    }

    /// The token that is cancelled when nothing new may be taken.
    pub fn token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// The token that is cancelled when the process begins to end. From then on it is not ready, and it serves requests
    /// until it stops.
    pub fn draining(&self) -> CancellationToken {
        self.draining.clone()
    }

    /// How long work under way may take after the process was told to stop.
    pub fn drain_deadline(&self) -> Duration {
        self.drain_deadline
    }

    async fn heed(self, mut terminate: Signal, mut interrupt: Signal, delay: Duration) {
        let (name, delay) = tokio::select! {
            _ = terminate.recv() => ("SIGTERM", delay),
            _ = interrupt.recv() => ("SIGINT", Duration::ZERO),
        };
        tracing::info!(
            event = "shutdown_requested",
            signal = name,
            delay_s = delay.as_secs_f64(),
            drain_deadline_s = self.drain_deadline.as_secs_f64(),
            "not ready from now on, stopping after the delay; a second signal stops at once"
        );
        self.draining.cancel();
        let stopping = async {
            // Load balancers look at /readyz now and then. No event tells when all of them have looked.
            tokio::time::sleep(delay).await;
            self.stop.cancel();
            std::future::pending().await
        };
        let name = tokio::select! {
            name = stopping => name,
            _ = terminate.recv() => "SIGTERM",
            _ = interrupt.recv() => "SIGINT",
        };
        force(name)
    }
}

fn force(name: &str) -> ! {
    tracing::warn!(event = "shutdown_forced", signal = name, "second signal: stopping at once");
    crate::telemetry::flush_log();
    std::process::exit(Exit::StoppedAtOnce.code().into());
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::Stdio;
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    use tokio::process::Command;

    /// Longer than any process takes to start on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// Set in the process that the test below starts: this test binary once more, running [`child`] alone.
    const CHILD: &str = "SHUTDOWN_TEST_CHILD";

    /// Set where the delay is longer than the test.
    const DELAY: &str = "SHUTDOWN_TEST_DELAY";

    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let delay = if std::env::var_os(DELAY).is_some() { PATIENCE } else { Duration::ZERO };
            let shutdown = Shutdown::on_signals(ShutdownTimes { delay, drain_deadline: DRAIN_DEADLINE }).unwrap();
            say("\nready");
            shutdown.draining().cancelled().await;
            say("\ndraining");
            shutdown.token().cancelled().await;
            say("\nstopping");
            std::future::pending::<()>().await;
        });
    }

    fn say(line: &str) {
        // Written directly, past the capture of libtest.
        writeln!(std::io::stdout().lock(), "{line}").unwrap();
    }

    /// Sends the first signal, waits for `line`, and sends the second one.
    async fn signalled(first: &str, line: &str, second: &str, is_delayed: bool) {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "shutdown::tests::child", "--nocapture"]).env(CHILD, "1");
        if is_delayed {
            child.env(DELAY, "1");
        }
        let mut child = child.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let pid = child.id().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let signalled = async {
            while lines.next_line().await.unwrap().expect("ready") != "ready" {}
            send(first, pid);
            loop {
                let said = lines.next_line().await.unwrap().expect(line);
                assert!(!is_delayed || said != "stopping", "{first} waits");
                if said == line {
                    break;
                }
            }
            assert!(child.try_wait().unwrap().is_none(), "one signal does not end it");
            send(second, pid);
            child.wait().await.unwrap()
        };
        let status = tokio::time::timeout(PATIENCE, signalled).await.expect("the process ends");
        assert_eq!(status.code(), Some(130));
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_one_ends_the_process() {
        for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
            signalled(first, "stopping", second, false).await;
        }
        // During the delay, too.
        signalled("TERM", "draining", "TERM", true).await;
    }

    #[tokio::test]
    async fn ctrl_c_does_not_wait_for_load_balancers() {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "shutdown::tests::child", "--nocapture"]).env(CHILD, "1").env(DELAY, "1");
        let mut child = child.stdout(Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let stops = async {
            while lines.next_line().await.unwrap().expect("ready") != "ready" {}
            send("INT", child.id().unwrap());
            while lines.next_line().await.unwrap().expect("stopping") != "stopping" {}
        };
        tokio::time::timeout(PATIENCE / 2, stops).await.expect("it stops at once");
    }

    fn send(signal: &str, pid: u32) {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if signal == "INT" { Signal::INT } else { Signal::TERM };
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    }

    #[test]
    fn a_process_that_stops_drains_and_one_that_drains_does_not_stop_yet() {
        let shutdown = Shutdown::manual();
        shutdown.draining().cancel();
        assert!(!shutdown.token().is_cancelled());
        let shutdown = Shutdown::manual();
        shutdown.token().cancel();
        assert!(shutdown.draining().is_cancelled());
    }
}

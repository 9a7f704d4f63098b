//! The end of the process: the first SIGTERM or SIGINT asks for it, the second one does not wait.

use std::io;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// How long a role may take to finish what is under way, in seconds. Below the 30 s that Kubernetes grants.
pub const DRAIN_DEADLINE_SECONDS: u64 = 10;

/// [`DRAIN_DEADLINE_SECONDS`] as a duration.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(DRAIN_DEADLINE_SECONDS);

/// Exit code of a process that was told twice to stop.
const EXIT_CODE_AT_ONCE: i32 = 130;

/// The one source of the shutdown request. Everything that runs is given its token; nothing asks a global.
#[derive(Debug, Clone)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Listens for SIGTERM and SIGINT from now on. Must be called inside a tokio runtime.
    ///
    /// The first signal cancels the token; the second one ends the process at once with code 130.
    pub fn on_signals() -> io::Result<Self> {
        // Registered here and not in the task: a signal that comes right after this call must not be lost.
        let (terminate, interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let token = CancellationToken::new();
        tokio::spawn(heed(terminate, interrupt, token.clone()));
        Ok(Self { token })
    }

    /// A shutdown that no signal triggers: cancel its token. For tests, and for roles run inside another process.
    pub fn manual() -> Self {
        Self { token: CancellationToken::new() }
    }

    /// The token that is cancelled when shutdown is requested.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits for the request.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }
}

async fn heed(mut terminate: Signal, mut interrupt: Signal, token: CancellationToken) {
    let name = next(&mut terminate, &mut interrupt).await;
    tracing::info!(
        event = "shutdown_requested",
        signal = name,
        drain_deadline_s = DRAIN_DEADLINE_SECONDS,
        "finishing what is under way; a second signal stops at once"
    );
    token.cancel();
    let name = next(&mut terminate, &mut interrupt).await;
    tracing::warn!(event = "shutdown_forced", signal = name, "second signal: stopping at once");
    std::process::exit(EXIT_CODE_AT_ONCE);
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
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

    #[test]
    fn child() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let shutdown = Shutdown::on_signals().unwrap();
            say("\nready");
            shutdown.requested().await;
            say("\nrequested");
            std::future::pending::<()>().await;
        });
    }

    fn say(line: &str) {
        // Past libtest's capture.
        writeln!(std::io::stdout().lock(), "{line}").unwrap();
    }

    #[tokio::test]
    async fn the_first_signal_asks_and_the_second_one_ends_the_process() {
        for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "shutdown::tests::child", "--nocapture"])
                .env(CHILD, "1")
                .stdout(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .unwrap();
            let pid = child.id().unwrap();
            let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
            let signalled = async {
                while lines.next_line().await.unwrap().expect("ready") != "ready" {}
                send(first, pid);
                while lines.next_line().await.unwrap().expect("requested") != "requested" {}
                assert!(child.try_wait().unwrap().is_none(), "one signal does not end it");
                send(second, pid);
                child.wait().await.unwrap()
            };
            let status = tokio::time::timeout(PATIENCE, signalled).await.expect("the process ends");
            assert_eq!(status.code(), Some(130));
        }
    }

    fn send(signal: &str, pid: u32) {
        use rustix::process::{Pid, Signal, kill_process};
        let signal = if signal == "INT" { Signal::INT } else { Signal::TERM };
        kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
    }

    #[tokio::test]
    async fn a_manual_shutdown_is_requested_by_its_token() {
        let shutdown = Shutdown::manual();
        assert!(!shutdown.token().is_cancelled());
        shutdown.token().cancel();
        shutdown.requested().await;
    }
}

//! Roles as child processes: start them, wait until they report that they are ready, stop them, and start them again.
//!
//! No child outlives its parent. It is killed when its [`Child`] is dropped. On Linux it is also killed when the parent is
//! killed: `setpriv` of util-linux asks the kernel for that, and then becomes the child.

mod log;

pub use log::LogLine;

use log::Log;
use rustix::process::{Pid, Signal};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio::process::{Child as Process, Command};
use tokio::time::timeout;

/// Variables with this prefix come from [`Children`] only, never from the parent's environment.
const OWN_PREFIX: &str = "GRANTONCE_";

/// The longest time until a killed process is gone. Only a process that hangs in the kernel takes longer.
const KILL_DEADLINE: Duration = Duration::from_secs(10);

/// A command that starts `program`. On Linux the child is killed when this process ends. On other systems it continues if this
/// process is killed.
///
/// On Linux a child dies with the *thread* that started it.
pub fn dying_with_parent(program: &Path) -> std::io::Result<std::process::Command> {
    // Else `setpriv` would start first, and only then find no program.
    std::fs::metadata(program)?;
    if cfg!(target_os = "linux") {
        let mut command = std::process::Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(program);
        Ok(command)
    } else {
        Ok(std::process::Command::new(program))
    }
}

/// The error of a child. Each shows the end of the child's log and names the file with the whole log.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// The child could not be started.
    #[error("{name} could not be started: {source}")]
    Start {
        /// The name of the child.
        name: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The child ended too early, or with a failure.
    #[error("{name} ended with {status} {while_}\n{log}")]
    Ended {
        /// The name of the child.
        name: String,
        /// The exit status of the child.
        status: ExitStatus,
        /// The step that the parent waited for.
        while_: String,
        /// The end of the child's log.
        log: String,
    },
    /// The child missed a deadline.
    #[error("{name} took longer than {} s {while_}\n{log}", deadline.as_secs())]
    TooLate {
        /// The name of the child.
        name: String,
        /// The step that the parent waited for.
        while_: String,
        /// The deadline of that step.
        deadline: Duration,
        /// The end of the child's log.
        log: String,
    },
    /// The operating system did not report the child's end, or refused a signal to it.
    #[error("{name} is out of hand: {source}")]
    System {
        /// The name of the child.
        name: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
}

impl ChildError {
    /// The exit code, if the child ended by itself.
    pub fn exit_code(&self) -> Option<i32> {
        match self {
            Self::Ended { status, .. } => status.code(),
            Self::Start { .. } | Self::TooLate { .. } | Self::System { .. } => None,
        }
    }
}

/// The settings that all children of one run share: the program, the environment, and the folder of the logs.
#[derive(Debug, Clone)]
pub struct Children {
    program: PathBuf,
    log_dir: PathBuf,
    env: Vec<(OsString, OsString)>,
}

impl Children {
    /// Children of `program`. Each writes its log to `<log_dir>/<name>.log`. The folder must exist.
    pub fn new(program: impl Into<PathBuf>, log_dir: impl Into<PathBuf>) -> Self {
        Self { program: program.into(), log_dir: log_dir.into(), env: Vec::new() }
    }

    /// Adds a variable to the environment of every child that is started later.
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// The folder of the logs.
    pub fn log_dir(&self) -> &Path {
        &self.log_dir
    }

    /// Starts a child. On Linux a child dies with the *thread* that started it. So call this on a thread that stays, such as the
    /// runtime's own, and not within `spawn_blocking`.
    pub async fn start(&self, name: &str, args: &[&str]) -> Result<Child, ChildError> {
        let path = self.log_dir.join(format!("{name}.log"));
        let spec = Spec { shared: self.clone(), args: args.iter().map(OsString::from).collect() };
        let (process, log) = spec.start(name, &path).await?;
        Ok(Child { name: name.to_owned(), spec, process, log, path })
    }

    /// Starts a child and waits until it has ended with success.
    pub async fn run(&self, name: &str, args: &[&str], deadline: Duration) -> Result<(), ChildError> {
        let mut child = self.start(name, args).await?;
        let status = child.ended(deadline).await?;
        if status.success() { Ok(()) } else { Err(child.has_ended(status, "instead of doing its work").await) }
    }
}

/// The settings to start a child, and to start it again.
#[derive(Debug)]
struct Spec {
    shared: Children,
    args: Vec<OsString>,
}

impl Spec {
    async fn start(&self, name: &str, path: &Path) -> Result<(Process, Arc<Log>), ChildError> {
        let failed = |source| ChildError::Start { name: name.to_owned(), source };
        let mut command = Command::from(dying_with_parent(&self.shared.program).map_err(failed)?);
        command.args(&self.args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true);
        // Ctrl-C on the terminal reaches whole process groups. A child has its own group, so only its parent ends it, in the order
        // and at the time that the parent chooses.
        #[cfg(unix)]
        command.process_group(0);
        for (variable, _) in std::env::vars_os() {
            if variable.as_encoded_bytes().starts_with(OWN_PREFIX.as_bytes()) {
                command.env_remove(variable);
            }
        }
        command.envs(self.shared.env.iter().map(|(name, value)| (name, value)));
        let file = tokio::fs::OpenOptions::new().create(true).append(true).open(path).await.map_err(failed)?;
        let mut process = command.spawn().map_err(failed)?;
        let log = Log::follow(process.stderr.take(), file);
        Ok((process, log))
    }
}

/// One child process. Dropping it kills the process.
#[derive(Debug)]
pub struct Child {
    name: String,
    spec: Spec,
    process: Process,
    log: Arc<Log>,
    path: PathBuf,
}

impl Child {
    /// The name of the child.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id. `None` after the end of the child was noticed.
    pub fn pid(&self) -> Option<u32> {
        self.process.id()
    }

    /// The file with the child's whole log.
    pub fn log_path(&self) -> &Path {
        &self.path
    }

    /// Waits for a line of the log, among the last thousand lines or the next ones. `what` is for the error: "before it said
    /// hello".
    pub async fn wait_for_line(
        &mut self,
        what: &str,
        deadline: Duration,
        is_it: impl Fn(&LogLine) -> bool,
    ) -> Result<LogLine, ChildError> {
        self.wait_for(what, deadline, |line| is_it(line).then(|| line.clone())).await
    }

    /// Waits until the child listens as `receiver`, `api`, `ops` or `metrics`. Returns the address.
    pub async fn listening(&mut self, listener: &str, deadline: Duration) -> Result<SocketAddr, ChildError> {
        let address = |line: &LogLine| {
            let it = line.field("event")? == "listening" && line.field("listener")? == listener;
            if it { line.field("address")?.parse().ok() } else { None }
        };
        self.wait_for(&format!("before its {listener} listened"), deadline, address).await
    }

    /// Waits until the child consumes from the broker.
    pub async fn consuming(&mut self, deadline: Duration) -> Result<(), ChildError> {
        let is_it = |line: &LogLine| line.field("event").is_some_and(|event| event == "consuming");
        self.wait_for_line("before it took deliveries", deadline, is_it).await.map(|_| ())
    }

    async fn wait_for<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        pick: impl Fn(&LogLine) -> Option<T>,
    ) -> Result<T, ChildError> {
        let log = Arc::clone(&self.log);
        match timeout(deadline, log.find(pick)).await {
            Ok(Some(found)) => Ok(found),
            // The log has ended, so the child has ended, or ends at once.
            Ok(None) => {
                let status = self.ended(KILL_DEADLINE).await?;
                Err(self.has_ended(status, what).await)
            }
            Err(_) => Err(self.is_late(deadline, what)),
        }
    }

    /// The exit status, if the child has ended.
    pub fn try_ended(&mut self) -> Result<Option<ExitStatus>, ChildError> {
        self.process.try_wait().map_err(|source| ChildError::System { name: self.name.clone(), source })
    }

    /// Waits until the child has ended by itself.
    pub async fn ended(&mut self, deadline: Duration) -> Result<ExitStatus, ChildError> {
        match timeout(deadline, self.process.wait()).await {
            Ok(status) => status.map_err(|source| ChildError::System { name: self.name.clone(), source }),
            Err(_) => Err(self.is_late(deadline, "before it ended")),
        }
    }

    /// Sends the child a signal. Does nothing if the child has ended.
    pub fn signal(&self, signal: Signal) -> Result<(), ChildError> {
        // The id of a process cannot belong to another process before its parent has waited for it.
        let pid = self.pid().and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        match pid.map_or(Ok(()), |pid| rustix::process::kill_process(pid, signal)) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(errno) => Err(ChildError::System { name: self.name.clone(), source: errno.into() }),
        }
    }

    /// Asks the child to end (SIGTERM). Kills it if it takes longer than `deadline`: then the status has signal 9.
    pub async fn terminate(&mut self, deadline: Duration) -> Result<ExitStatus, ChildError> {
        self.signal(Signal::TERM)?;
        match self.ended(deadline).await {
            Err(ChildError::TooLate { .. }) => self.kill().await,
            ended => ended,
        }
    }

    /// Kills the child with SIGKILL. It cannot clean up.
    pub async fn kill(&mut self) -> Result<ExitStatus, ChildError> {
        self.signal(Signal::KILL)?;
        self.ended(KILL_DEADLINE).await
    }

    /// Starts the child again, and kills it first if it still runs. The log continues in the same file.
    pub async fn restart(&mut self) -> Result<(), ChildError> {
        self.kill().await?;
        (self.process, self.log) = self.spec.start(&self.name, &self.path).await?;
        Ok(())
    }

    /// The last lines of the child's log, for an error message, and the file with the whole log.
    pub fn tail(&self) -> String {
        const LINES: usize = 12;
        format!("{}  (all of it: {})", self.log.tail(LINES), self.path.display())
    }

    async fn has_ended(&self, status: ExitStatus, what: &str) -> ChildError {
        // The last lines may still be on their way. A grandchild that holds the pipe open must not block us.
        let _ = timeout(Duration::from_secs(1), self.log.find(|_| None::<()>)).await;
        ChildError::Ended { name: self.name.clone(), status, while_: what.to_owned(), log: self.tail() }
    }

    fn is_late(&self, deadline: Duration, what: &str) -> ChildError {
        ChildError::TooLate { name: self.name.clone(), while_: what.to_owned(), deadline, log: self.tail() }
    }
}

#[cfg(test)]
mod tests;

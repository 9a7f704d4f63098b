//! The test's own servers, which it may stop and kill: `./dev` in another folder.

use std::collections::HashMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;
use tokio::time::timeout;

const DEV: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/dev");

/// The longest time of one `./dev` call on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until its stdin is closed, then removes the servers and their folder.
const KEEPER: &str = r#"cat >/dev/null; DEV_DIR=$1 "$0" reset && rm -rf "$1""#;

/// The server to start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Server {
    Postgres,
    Rabbitmq,
}

impl Server {
    fn name(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Rabbitmq => "rabbitmq",
        }
    }
}

/// A private Postgres or RabbitMQ. It ends and its data is removed when this is dropped, and also when the test's process is
/// killed.
pub struct PrivateServers {
    dir: PathBuf,
    /// A separate process that Ctrl-C does not reach. It ends the servers when our end of its pipe closes.
    keeper: Child,
}

impl PrivateServers {
    /// Starts a private server.
    pub async fn start(server: Server) -> Self {
        let dir = tempfile::Builder::new()
            .prefix("grantonce-servers-")
            // If root runs the tests, the servers run as another user.
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap()
            .keep();
        let mut keeper = std::process::Command::new("sh");
        keeper.args(["-c", KEEPER, DEV]).arg(&dir).process_group(0);
        let keeper = keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let servers = Self { dir, keeper };
        servers.up(server).await;
        servers
    }

    /// Starts the server again, with the same port and data. Returns when it answers.
    pub async fn up(&self, server: Server) {
        self.dev(&["up", server.name()]).await;
    }

    /// Stops the server in the regular way. Returns when it has ended.
    pub async fn down(&self, server: Server) {
        self.dev(&["down", server.name()]).await;
    }

    /// Crashes the server. Returns when it has ended.
    pub async fn crash(&self, server: Server) {
        self.dev(&["down", "--hard", server.name()]).await;
    }

    /// The environment variables of the servers, as `./dev env` prints them.
    pub async fn env(&self) -> HashMap<String, String> {
        let printed = self.dev(&["env"]).await;
        let pairs = printed.lines().filter_map(|line| line.strip_prefix("export ")?.split_once('='));
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    /// Runs a command on the private RabbitMQ. Returns its output.
    pub async fn rabbitmqctl(&self, args: &[&str]) -> String {
        self.dev(&[&["rabbitmqctl", "--quiet"], args].concat()).await
    }

    /// Raises RabbitMQ's memory alarm, which blocks all publishers, or ends it.
    pub async fn memory_alarm(&self, is_raised: bool) {
        let mark = if is_raised { "1kB" } else { "2GB" };
        self.rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", mark]).await;
    }

    async fn dev(&self, args: &[&str]) -> String {
        let mut command = tokio::process::Command::new(DEV);
        command.args(args).env("DEV_DIR", &self.dir).stdin(Stdio::null());
        let done = timeout(DEADLINE, command.output()).await.expect("./dev takes too long").unwrap();
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "./dev {args:?} ended with {}\n{said}", done.status);
        String::from_utf8(done.stdout).unwrap()
    }
}

impl Drop for PrivateServers {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        if !self.keeper.wait().is_ok_and(|status| status.success()) {
            eprintln!("servers are left behind: DEV_DIR={} ./dev reset", self.dir.display());
        }
    }
}

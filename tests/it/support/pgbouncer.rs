//! The test's own real PgBouncer.

use grantonce_testkit::wait::eventually;
use reqwest::Url;
use std::fs::Permissions;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;
use tokio::net::TcpStream;

/// Runs PgBouncer until stdin is closed.
const KEEPER: &str = r#""$@" >/dev/null 2>&1 & cat >/dev/null; kill $!; wait"#;

/// A PgBouncer in front of one server. It ends when this is dropped, and also when the test's process is killed.
pub struct PgBouncer {
    keeper: Child,
    _folder: TempDir,
    /// The URL of the server through PgBouncer.
    pub url: String,
}

impl PgBouncer {
    /// Starts a PgBouncer for the server of a URL. Except for the mode, it has the default configuration of its package.
    pub async fn before(url: &str, pool_mode: &str) -> Self {
        let mut url = Url::parse(url).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir().unwrap();
        let file = folder.path().join("pgbouncer.ini");
        let server = format!(
            "host={} port={} user={} password={}",
            url.host_str().unwrap(),
            url.port().unwrap(),
            url.username(),
            url.password().unwrap()
        );
        let config = format!(
            "[databases]\n* = {server}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
             unix_socket_dir =\nauth_type = any\npool_mode = {pool_mode}\ndefault_pool_size = 60\n"
        );
        std::fs::write(&file, config).unwrap();
        std::fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let program = ["/usr/bin/pgbouncer", "/usr/sbin/pgbouncer", "/opt/homebrew/bin/pgbouncer"];
        let program = program.into_iter().find(|program| Path::new(program).exists());
        let program = program.expect("pgbouncer is missing (package pgbouncer): ./dev test installs it");
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper", program]).arg(&file);
        // PgBouncer refuses to run as root.
        if std::fs::metadata("/proc/self").is_ok_and(|process| std::os::unix::fs::MetadataExt::uid(&process) == 0) {
            keeper.args(["-u", "nobody"]);
        }
        let keeper = keeper.stdin(Stdio::piped()).spawn().unwrap();
        let is_up = async || TcpStream::connect(("127.0.0.1", port)).await.is_ok();
        eventually("PgBouncer listens", is_up).await;
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(port)).unwrap();
        Self { keeper, _folder: folder, url: url.into() }
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

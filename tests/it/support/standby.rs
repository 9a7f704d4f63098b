//! A real standby of a private Postgres. It follows the primary until it is promoted.

use grantonce_testkit::wait::eventually;
use reqwest::Url;
use sqlx::{Connection as _, PgConnection};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

/// Copies the primary, and runs the copy until stdin is closed. It runs as the primary's own user, because Postgres refuses to run
/// as root.
const KEEPER: &str = r#"
set -eu
primary=$1 port=$2 bin=$3 data=$4
folder=$(mktemp -d /var/tmp/grantonce-standby-XXXXXX)
as() { exec "$@"; }
if [ "$(id -u)" -eq 0 ]; then
    user=$(stat -c %U "$data")
    chown "$user" "$folder"
    as() { exec setpriv --reuid="$user" --regid="$(id -g "$user")" --init-groups "$@"; }
fi
cd /
(as "$bin/pg_basebackup" -D "$folder/data" -d "$primary" -R -X stream -c fast)
(as "$bin/postgres" -D "$folder/data" -p "$port" -k "" -h 127.0.0.1,::1) >"$folder.log" 2>&1 &
server=$!
cat >/dev/null
kill -QUIT "$server"
wait "$server" || :
rm -rf "$folder" "$folder.log"
"#;

/// A standby. It ends when this is dropped, and also when the test's process is killed.
pub struct Standby {
    keeper: Child,
    /// The URL of the standby.
    pub url: String,
    /// Host and port, with IPv6 if this machine has it.
    pub host: String,
}

impl Standby {
    /// Starts a standby that follows the server of `primary`, with the primary's settings.
    pub async fn of(primary: &str) -> Self {
        let mut sql = PgConnection::connect(primary).await.unwrap();
        let place = "SELECT (SELECT setting FROM pg_config WHERE name = 'BINDIR'), current_setting('data_directory')";
        let (bin, data): (String, String) = sqlx::query_as(place).fetch_one(&mut sql).await.unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "keeper", primary, &port.to_string(), &bin, &data]);
        let keeper = keeper.stdin(Stdio::piped()).spawn().unwrap();
        let mut url = Url::parse(primary).unwrap();
        url.set_port(Some(port)).unwrap();
        let host = if TcpListener::bind("[::1]:0").is_ok() { "[::1]" } else { "127.0.0.1" };
        let standby = Self { keeper, url: url.into(), host: format!("{host}:{port}") };
        let follows = async || {
            let count = sqlx::query_scalar("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'");
            let is_open = PgConnection::connect(&standby.url).await.is_ok();
            is_open && count.fetch_one(&mut sql).await.is_ok_and(|count: i64| count == 1)
        };
        eventually("the standby follows", follows).await;
        standby
    }

    /// Makes the standby the primary. Returns when it accepts writes.
    pub async fn promote(&self) {
        let mut sql = PgConnection::connect(&self.url).await.unwrap();
        let promoted: bool = sqlx::query_scalar("SELECT pg_promote()").fetch_one(&mut sql).await.unwrap();
        assert!(promoted);
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ended = self.keeper.wait();
    }
}

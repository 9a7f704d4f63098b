//! Addresses of the two servers, given to the real program.

use crate::support::World;
use std::net::SocketAddr;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};

/// Runs `check` on two addresses, in a thread of its own, because this runtime may play the server.
async fn check(database: String, amqp: String) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_grantonce"));
    command.arg("check").env_clear().env("DATABASE_URL", database).env("AMQP_URL", amqp).env("RUST_LOG", "trace");
    command.env("GRANTONCE_RETRY_DELAYS", "200ms,500ms").stdin(Stdio::null());
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

/// Forwards from `[::1]` to a server, and counts connections.
async fn on_ipv6(server: SocketAddr) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let (port, count) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut server = TcpStream::connect(server).await.unwrap();
                drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
            });
        }
    });
    (port, count)
}

/// The server of a URL, and a function that makes the URL with other hosts.
fn with_hosts(url: &str, hosts: impl Fn(u16) -> String, port: u16) -> String {
    let (before, rest) = url.split_once('@').unwrap();
    let (_, after) = rest.split_once('/').unwrap();
    format!("{before}@{}/{after}", hosts(port))
}

fn server(url: &str) -> SocketAddr {
    let url = reqwest::Url::parse(url).unwrap();
    format!("{}:{}", url.host_str().unwrap().replace("localhost", "127.0.0.1"), url.port().unwrap()).parse().unwrap()
}

#[tokio::test]
async fn o08_ipv6_leads_to_the_server_that_was_named() {
    let world = World::new().await;
    let (postgres, to_postgres) = on_ipv6(server(&world.database_url)).await;
    let (rabbitmq, to_rabbitmq) = on_ipv6(server(&world.amqp_url)).await;
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let database = with_hosts(&world.database_url, |port| format!("[::1]:{port}"), postgres);
    // Several are tried in order.
    let amqp = with_hosts(&world.amqp_url, |port| format!("127.0.0.1:{nobody},[::1]:{port}"), rabbitmq);
    let output = check(database.clone(), amqp).await;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(to_postgres.load(Ordering::SeqCst) > 0 && to_rabbitmq.load(Ordering::SeqCst) > 0, "{said}");
    let password = world.amqp_url.split_once('@').unwrap().0.rsplit_once(':').unwrap().1;
    assert!(password.len() < 8 || !said.contains(password), "RUST_LOG=trace shows a password: {said}");

    // No server is there. It must never connect to another one.
    let amqp = with_hosts(&world.amqp_url, |port| format!("[::1]:{port}"), nobody);
    assert_eq!(check(database, amqp).await.status.code(), Some(3));
}

#[tokio::test]
async fn o15_an_address_that_cannot_work_ends_with_2_and_one_line() {
    const DATABASE: &str = "postgres://u:p@127.0.0.1:1/x";
    const AMQP: &str = "amqp://u:p@127.0.0.1:1/x";
    for (database, amqp, part) in [
        ("postgres://u:p@127.0.0.1:1/x?sslpassword=hunter2", AMQP, "DATABASE_URL has the parameter sslpassword"),
        ("postgres://u:p@127.0.0.1:1/x?sslmode=hunter2", AMQP, "DATABASE_URL has a parameter sslmode that must be"),
        ("postgres://u:p@127.0.0.1:1/x?hunter2=1", AMQP, "DATABASE_URL has a parameter, number 1"),
        ("postgres://u:hunter2@::1/x", AMQP, "DATABASE_URL has a host, number 1, that has several colons"),
        ("postgres://u:hunter2@/x", AMQP, "DATABASE_URL must name a host"),
        (DATABASE, "amqp://u:p@127.0.0.1:1/x?heartbeat=hunter2", "AMQP_URL has a parameter heartbeat that must be"),
        (DATABASE, "amqp://hunter2:%ff@127.0.0.1:1/x", "AMQP_URL has a password that is not UTF-8"),
        (DATABASE, "amqp://u:hunter2@127.0.0.1:0/x", "AMQP_URL has a port"),
    ] {
        let output = check(database.to_owned(), amqp.to_owned()).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{database} {amqp}: {told}");
        // The first line counts the faults, and the last one leads to the documentation.
        assert_eq!(told.lines().count(), 3, "{told}");
        assert!(told.contains(part) && told.contains("1 fault") && !told.contains("hunter2"), "{told}");
    }
}

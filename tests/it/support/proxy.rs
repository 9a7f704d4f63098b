//! A network that fails silently: a TCP proxy that stops forwarding and closes nothing.

use reqwest::Url;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// The state of the network. A connection forwards until the state changes after the connection was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    generation: u64,
    is_silent: bool,
}

struct Shared {
    network: watch::Sender<Network>,
    /// When a client has sent these bytes, the proxy goes silent.
    trap: Mutex<Option<&'static [u8]>>,
    /// How often Postgres was ready for the next statement.
    ready_for_query: AtomicUsize,
}

/// How Postgres says that it is ready for the next statement: the type and the length of the message.
const READY_FOR_QUERY: &[u8] = b"Z\0\0\0\x05";

/// A proxy in front of one server. Its connections close when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy for the server of a URL. Returns the URL that leads through the proxy.
    pub async fn before(url: &str) -> (Self, Url) {
        let mut url = Url::parse(url).unwrap();
        let server = format!("{}:{}", url.host_str().unwrap(), url.port().expect("a URL with a port"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = watch::Sender::new(Network { generation: 0, is_silent: false });
        let shared = Arc::new(Shared { network, trap: Mutex::new(None), ready_for_query: AtomicUsize::new(0) });
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&shared)));
        url.set_host(Some("127.0.0.1")).unwrap();
        url.set_port(Some(address.port())).unwrap();
        (Self { address, shared, accepting }, url)
    }

    /// Stops forwarding. Connections stay open. New connections are accepted and get no answer.
    pub fn go_silent(&self) {
        self.shared.go_silent();
    }

    /// Goes silent when a client has sent `trap`. These bytes still reach the server, and the answer does not return.
    pub fn go_silent_behind(&self, trap: &'static [u8]) {
        *self.shared.trap.lock().unwrap() = Some(trap);
    }

    /// How often the server behind this proxy, a Postgres, was ready for the next statement. Each round trip ends like that.
    pub fn round_trips(&self) -> usize {
        self.shared.ready_for_query.load(Ordering::SeqCst)
    }

    /// Returns whether the proxy is silent.
    pub fn is_silent(&self) -> bool {
        self.shared.network.borrow().is_silent
    }

    /// From now on new connections work. Connections that fell silent stay silent.
    pub fn let_new_ones_through(&self) {
        self.shared.network.send_modify(|network| {
            *network = Network { generation: network.generation + 1, is_silent: false };
        });
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "proxy at {}", self.address)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl Shared {
    fn go_silent(&self) {
        self.network.send_modify(|network| network.is_silent = true);
    }

    /// Returns whether the bytes contain the trap. The trap works once.
    fn is_caught(&self, bytes: &[u8]) -> bool {
        let mut trap = self.trap.lock().unwrap();
        let is_caught = trap.is_some_and(|trap| bytes.windows(trap.len()).any(|window| window == trap));
        if is_caught {
            *trap = None;
        }
        is_caught
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        connections.spawn(forward(client, server.clone(), Arc::clone(&shared)));
    }
}

async fn forward(mut client: TcpStream, server: String, shared: Arc<Shared>) {
    let mut network = shared.network.subscribe();
    let own = *network.borrow_and_update();
    if own.is_silent {
        std::future::pending::<()>().await;
    }
    let Ok(mut server) = TcpStream::connect(server).await else { return };
    let (mut from_client, mut to_client) = client.split();
    let (mut from_server, mut to_server) = server.split();
    let is_alive = || *shared.network.borrow() == own;
    tokio::select! {
        _ = network.wait_for(|now| *now != own) => {}
        () = pump(&mut from_client, &mut to_server, |bytes| {
            let passes = is_alive();
            if passes && shared.is_caught(bytes) {
                shared.go_silent();
            }
            passes
        }) => return,
        () = pump(&mut from_server, &mut to_client, |bytes| {
            let ready = bytes.windows(READY_FOR_QUERY.len()).filter(|window| *window == READY_FOR_QUERY).count();
            shared.ready_for_query.fetch_add(ready, Ordering::SeqCst);
            is_alive()
        }) => return,
    }
    // Both sockets stay open, and nothing reads them any more.
    std::future::pending::<()>().await;
}

/// Forwards allowed bytes, until either end closes.
async fn pump(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    may_pass: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        // Each write is small, so a last message gets through, although nothing may pass after it.
        if !may_pass(&buffer[..count]) {
            std::future::pending::<()>().await;
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

//! A load balancer as in Kubernetes: it distributes connections, and notices late that an instance is not ready. And a client that
//! keeps its connection and never repeats a failed request.

use grantonce::http::plain_client;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// The time between two readiness checks of the instances.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// An instance still gets connections for this time after it is no longer ready.
pub const LAG: Duration = Duration::from_millis(1_500);

/// Longest response time, including a long poll.
const ANSWER: Duration = Duration::from_secs(20);

struct Instance {
    address: SocketAddr,
    is_served: bool,
    unready_since: Option<Instant>,
}

/// A load balancer for the instances of one role.
pub struct Balancer {
    pub address: SocketAddr,
    instances: Arc<Mutex<Vec<Instance>>>,
    _tasks: JoinSet<()>,
}

impl Balancer {
    pub async fn start(instances: &[SocketAddr]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let new = |address: &SocketAddr| Instance { address: *address, is_served: false, unready_since: None };
        let instances: Arc<Mutex<Vec<_>>> = Arc::new(Mutex::new(instances.iter().map(new).collect()));
        let mut tasks = JoinSet::new();
        tasks.spawn(look(Arc::clone(&instances)));
        tasks.spawn(accept(listener, Arc::clone(&instances)));
        Self { address, instances, _tasks: tasks }
    }

    /// Replaces the n-th instance by a new one.
    pub fn replace(&self, n: usize, address: SocketAddr) {
        self.instances.lock().unwrap()[n] = Instance { address, is_served: false, unready_since: None };
    }

    /// Returns whether all instances get connections.
    pub fn is_whole(&self) -> bool {
        self.instances.lock().unwrap().iter().all(|instance| instance.is_served)
    }
}

async fn look(instances: Arc<Mutex<Vec<Instance>>>) {
    let http = plain_client().timeout(Duration::from_secs(2)).build().unwrap();
    loop {
        let addresses: Vec<_> = instances.lock().unwrap().iter().map(|instance| instance.address).collect();
        for address in addresses {
            let answer = http.get(format!("http://{address}/readyz")).send().await;
            let is_ready = answer.is_ok_and(|answer| answer.status() == 200);
            let mut instances = instances.lock().unwrap();
            let Some(instance) = instances.iter_mut().find(|instance| instance.address == address) else { continue };
            if is_ready {
                (instance.is_served, instance.unready_since) = (true, None);
            } else if instance.unready_since.get_or_insert_with(Instant::now).elapsed() >= LAG {
                instance.is_served = false;
            }
        }
        sleep(LOOK_EVERY).await;
    }
}

async fn accept(listener: TcpListener, instances: Arc<Mutex<Vec<Instance>>>) {
    let mut connections = JoinSet::new();
    for turn in 0.. {
        let (mut client, _) = listener.accept().await.unwrap();
        let chosen = {
            let instances = instances.lock().unwrap();
            let served: Vec<_> = instances.iter().filter(|instance| instance.is_served).collect();
            served.get(turn % served.len().max(1)).map(|instance| instance.address)
        };
        connections.spawn(async move {
            // Without an instance, or if the instance refuses, the client's connection closes without an answer.
            let Some(chosen) = chosen else { return };
            let Ok(mut server) = TcpStream::connect(chosen).await else { return };
            let _ = copy_bidirectional(&mut client, &mut server).await;
        });
    }
}

/// A client with one connection. It keeps the connection as long as the server does.
pub struct Client {
    to: SocketAddr,
    stream: Option<TcpStream>,
}

impl Client {
    pub fn new(to: SocketAddr) -> Self {
        Self { to, stream: None }
    }

    /// Sends one request once. Returns status and body, or the error.
    pub async fn ask(&mut self, head: &str, body: &[u8]) -> Result<(u16, String), String> {
        timeout(ANSWER, self.ask_on(head, body)).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    async fn ask_on(&mut self, head: &str, body: &[u8]) -> Result<(u16, String), String> {
        let mut stream = match self.stream.take().filter(is_open) {
            Some(stream) => stream,
            None => TcpStream::connect(self.to).await.map_err(|error| format!("connecting: {error}"))?,
        };
        let mut request = format!("{head}host: test\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend_from_slice(body);
        stream.write_all(&request).await.map_err(|error| format!("sending: {error}"))?;
        let (mut answer, mut some) = (Vec::new(), [0; 4096]);
        let body_at = loop {
            if let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut some).await {
                Ok(0) => return Err("closed without an answer".to_owned()),
                Ok(count) => answer.extend_from_slice(&some[..count]),
                Err(error) => return Err(format!("reading: {error}")),
            }
        };
        let head = String::from_utf8(answer[..body_at].to_vec()).unwrap().to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap_or("0");
        let mut body = answer.split_off(body_at);
        let (had, length) = (body.len(), length.parse().unwrap());
        body.resize(length, 0);
        stream.read_exact(&mut body[had..]).await.map_err(|error| format!("reading: {error}"))?;
        if !head.contains("\r\nconnection: close\r\n") {
            self.stream = Some(stream);
        }
        Ok((head.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap()))
    }
}

/// Returns whether the server has not closed the connection. Every client checks this before it reuses a connection.
fn is_open(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

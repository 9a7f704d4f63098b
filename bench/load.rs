//! Sends webhooks as a provider does, over connections that stay open. The client shares the cores with the program that it
//! loads, so it is a small one of our own: a general HTTP client would use as much processor time as the receiver.

use crate::places::payment_id;
use grantonce_testkit::sign::stripe_signature;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The secret that signs the webhooks.
pub(crate) const SECRET: &str = "whsec_dGhlIGJlbmNobWFyaydzIG93biBzZWNyZXQ";

/// The longest answer that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// One open connection.
pub(crate) struct Http {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Http {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, read: Vec::with_capacity(4_096) }
    }

    /// Sends one request and reads the whole answer. Returns its status and its body.
    pub(crate) async fn send(&mut self, request: &[u8]) -> (u16, &[u8]) {
        self.stream.write_all(request).await.unwrap();
        self.read.clear();
        loop {
            if let Some((status, head, length)) = head(&self.read)
                && self.read.len() >= head + length
            {
                return (status, &self.read[head..head + length]);
            }
            assert!(self.read.len() < ANSWER_BYTES_MAX, "an answer of more than {ANSWER_BYTES_MAX} bytes");
            let more = self.stream.read_buf(&mut self.read).await.unwrap();
            assert!(more > 0, "the connection was closed instead of an answer");
        }
    }
}

/// The status, the length of the head, and the length of the body. `None` until the whole head was read.
fn head(read: &[u8]) -> Option<(u16, usize, usize)> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&read[..end]).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
    let length = text.lines().filter_map(|line| line.split_once(':')).find_map(|(name, value)| {
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse().ok()).flatten()
    });
    Some((status, end, length.unwrap_or(0)))
}

/// The bytes of a signed webhook request for the payment of the nth order.
pub(crate) fn webhook(n: u32, now: i64) -> Vec<u8> {
    let payment = payment_id(n);
    let body = format!(
        r#"{{"id":"evt_{n:024}","object":"event","api_version":"2025-09-30.clover","created":{now},"data":{{"object":{{"id":"{payment}","object":"payment_intent","amount":1999,"amount_capturable":0,"amount_received":1999,"canceled_at":null,"capture_method":"automatic_async","client_secret":"{payment}_secret_bench","confirmation_method":"automatic","created":{now},"currency":"usd","customer":null,"description":null,"last_payment_error":null,"latest_charge":"ch_{n:024}","livemode":false,"metadata":{{}},"next_action":null,"on_behalf_of":null,"payment_method":"pm_{n:024}","payment_method_types":["card"],"receipt_email":null,"setup_future_usage":null,"shipping":null,"statement_descriptor":null,"status":"succeeded","transfer_data":null,"transfer_group":null}}}},"livemode":false,"pending_webhooks":1,"request":{{"id":null,"idempotency_key":null}},"type":"payment_intent.succeeded"}}"#
    );
    let signature = stripe_signature(SECRET, now, body.as_bytes()).unwrap();
    format!(
        "POST /webhooks/stripe HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nstripe-signature: {signature}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

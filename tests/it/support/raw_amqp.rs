//! A publisher that can send bytes that no client library sends, for instance invalid UTF-8 in AMQP's texts.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

/// A message, byte by byte.
#[derive(Debug, Clone, Default)]
pub struct RawMessage {
    pub exchange: &'static str,
    pub routing_key: Vec<u8>,
    /// The text properties, by name.
    pub texts: Vec<(&'static str, Vec<u8>)>,
    /// The table of headers, without its length.
    pub headers: Option<Vec<u8>>,
    pub body: Vec<u8>,
}

/// Properties with a text, in AMQP's order, and the bit of each.
const TEXTS: [(u16, &str); 9] = [
    (15, "content_type"),
    (14, "content_encoding"),
    (10, "correlation_id"),
    (9, "reply_to"),
    (8, "expiration"),
    (7, "message_id"),
    (5, "type"),
    (4, "user_id"),
    (3, "app_id"),
];

pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).unwrap()], text].concat()
}

pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Encodes one header.
pub fn header(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name), &[kind][..], value].concat()
}

impl RawMessage {
    /// Sets one text property.
    pub fn with(mut self, name: &'static str, text: &[u8]) -> Self {
        self.texts.retain(|(other, _)| *other != name);
        self.texts.push((name, text.to_vec()));
        self
    }

    pub fn with_headers(self, headers: Vec<u8>) -> Self {
        Self { headers: Some(headers), ..self }
    }

    fn properties(&self) -> Vec<u8> {
        let (mut flags, mut bytes) = (0_u16, vec![]);
        for (bit, name) in TEXTS {
            if bit == 10 {
                if let Some(headers) = &self.headers {
                    flags |= 1 << 13;
                    bytes.extend(long(headers));
                }
                flags |= 1 << 12;
                bytes.push(2);
            }
            if let Some((_, text)) = self.texts.iter().find(|(other, _)| *other == name) {
                flags |= 1 << bit;
                bytes.extend(short(text));
            }
        }
        [&flags.to_be_bytes()[..], &bytes].concat()
    }
}

/// A connection with one channel in confirm mode.
pub struct RawAmqp {
    socket: TcpStream,
}

impl RawAmqp {
    pub fn connect(amqp_url: &str) -> Self {
        let url: reqwest::Url = amqp_url.parse().unwrap();
        let decoded = |text: &str| percent_decoded(text);
        let socket = TcpStream::connect((url.host_str().unwrap(), url.port().unwrap_or(5672))).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut this = Self { socket };
        this.socket.write_all(b"AMQP\0\0\x09\x01").unwrap();
        this.wait_for((10, 10));
        let login = format!("\0{}\0{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
        let start = [long(b""), short(b"PLAIN"), long(login.as_bytes()), short(b"en_US")].concat();
        this.method(0, (10, 11), &start);
        let tune = this.wait_for((10, 30));
        this.method(0, (10, 31), &[&tune[..6], &[0, 0]].concat());
        let vhost = decoded(url.path().trim_start_matches('/'));
        this.method(0, (10, 40), &[short(vhost.as_bytes()), vec![0, 0]].concat());
        this.wait_for((10, 41));
        this.method(1, (20, 10), &[0]);
        this.wait_for((20, 11));
        this.method(1, (85, 10), &[0]);
        this.wait_for((85, 11));
        this
    }

    /// Publishes a message, and waits until the broker confirms it.
    pub fn publish(&mut self, message: &RawMessage) {
        let method = [vec![0, 0], short(message.exchange.as_bytes()), short(&message.routing_key), vec![0]].concat();
        self.method(1, (60, 40), &method);
        let size = u64::try_from(message.body.len()).unwrap().to_be_bytes();
        self.frame(2, 1, &[&[0, 60, 0, 0][..], &size, &message.properties()].concat());
        for part in message.body.chunks(100_000) {
            self.frame(3, 1, part);
        }
        self.wait_for((60, 80));
    }

    fn method(&mut self, channel: u16, (class, method): (u16, u16), arguments: &[u8]) {
        self.frame(1, channel, &[&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat());
    }

    fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let begin = [&[kind][..], &channel.to_be_bytes(), &long(payload), &[0xCE]].concat();
        self.socket.write_all(&begin).unwrap();
    }

    /// Waits for a method, and returns its arguments. Any other method fails the test.
    fn wait_for(&mut self, id: (u16, u16)) -> Vec<u8> {
        loop {
            let mut begin = [0; 7];
            self.socket.read_exact(&mut begin).unwrap();
            let size = u32::from_be_bytes([begin[3], begin[4], begin[5], begin[6]]);
            let mut rest = vec![0; usize::try_from(size).unwrap() + 1];
            self.socket.read_exact(&mut rest).unwrap();
            if begin[0] == 1 {
                let found = (u16::from_be_bytes([rest[0], rest[1]]), u16::from_be_bytes([rest[2], rest[3]]));
                assert_eq!(found, id, "the broker says {}", rest.escape_ascii());
                rest.truncate(rest.len() - 1);
                return rest.split_off(4);
            }
        }
    }
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first == b'%' {
            bytes.push(u8::from_str_radix(std::str::from_utf8(&rest[..2]).unwrap(), 16).unwrap());
            rest = &rest[2..];
        } else {
            bytes.push(first);
        }
    }
    String::from_utf8(bytes).unwrap()
}

//! PayPal's webhooks at a real receiver. The receiver fetches the certificate over real TLS, from a server that the test's own root
//! certifies.

use crate::support::{World, eventually};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use grantonce::broker::{DEAD_QUEUE, HINTS_QUEUE, WORK_QUEUE};
use grantonce::domain::Hint;
use grantonce::http::plain_client;
use grantonce::message::{HINT_TYPE, decode_hint};
use grantonce_testkit::children::Child;
use lapin::options::BasicGetOptions;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use reqwest::{Client, StatusCode};
use ring::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

#[path = "../../src/webhook/paypal/tests/forge.rs"]
mod forge;

const START: Duration = Duration::from_secs(30);
const WEBHOOK_ID: &str = "1JE4291016473214C";
/// The private key of the certificates in these tests.
const KEY: &str = include_str!("../../src/webhook/paypal/tests/key.pem");
const CRC: crc::Crc<u32> = crc::Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

struct Authority(Issuer<'static, KeyPair>, String);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self(Issuer::new(params, key), pem)
    }

    fn certify(&self, name: &str, key: &KeyPair) -> rcgen::Certificate {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.signed_by(key, &self.0).unwrap()
    }
}

/// A host that serves one certificate at `/CERT-1`, and nothing at any other path.
struct Host {
    port: u16,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Host {
    async fn start(authority: &Authority, pem: String) -> Self {
        let key = KeyPair::generate().unwrap();
        let own = authority.certify("localhost", &key).der().clone();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own], PrivateKeyDer::try_from(key.serialize_der()).unwrap())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let serving = tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let Ok(mut stream) = acceptor.accept(socket).await else { continue };
                let mut request = vec![0; 4096];
                let read = stream.read(&mut request).await.unwrap();
                let is_there = request[..read].starts_with(b"GET /CERT-1 ");
                let (status, body) = if is_there { ("200 OK", pem.as_str()) } else { ("404 Not Found", "") };
                let length = body.len();
                let answer =
                    format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}");
                stream.write_all(answer.as_bytes()).await.unwrap();
                let _ = stream.shutdown().await;
            }
        });
        Self { port, asked, serving }
    }

    fn url(&self, path: &str) -> String {
        format!("https://localhost:{}/{path}", self.port)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

fn sign(text: &str) -> String {
    let key = PrivatePkcs8KeyDer::from_pem_slice(KEY.as_bytes()).unwrap();
    let key = RsaKeyPair::from_pkcs8(key.secret_pkcs8_der()).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(&RSA_PKCS1_SHA256, &ring::rand::SystemRandom::new(), text.as_bytes(), &mut signature).unwrap();
    BASE64_STANDARD.encode(signature)
}

struct Receiver {
    _process: Child,
    url: String,
    http: Client,
}

impl Receiver {
    async fn post(&self, certificate: &str, signed: &[u8], body: &[u8]) -> reqwest::Response {
        let crc = CRC.checksum(signed);
        let signature = sign(&format!("T-1|2026-01-05T12:00:00Z|{WEBHOOK_ID}|{crc}"));
        let request = self.http.post(&self.url).header("paypal-transmission-id", "T-1");
        let request = request.header("paypal-transmission-time", "2026-01-05T12:00:00Z");
        let request = request.header("paypal-transmission-sig", signature).header("paypal-cert-url", certificate);
        request.header("paypal-auth-algo", "SHA256withRSA").body(body.to_vec()).send().await.unwrap()
    }

    async fn status(&self, certificate: &str, signed: &[u8], body: &[u8]) -> StatusCode {
        self.post(certificate, signed, body).await.status()
    }
}

/// Takes all hints out of their queue.
async fn hints(world: &World) -> Vec<Hint> {
    let (connection, channel) = world.channel().await;
    let mut hints = vec![];
    while let Some(got) = channel.basic_get(HINTS_QUEUE.into(), BasicGetOptions { no_ack: true }).await.unwrap() {
        let delivery = got.delivery;
        assert_eq!(delivery.properties.kind().as_ref().unwrap().as_str(), HINT_TYPE);
        let hint = decode_hint(&delivery.data).unwrap();
        assert_eq!(delivery.properties.message_id().as_ref().unwrap().as_str(), hint.message_id.as_str());
        hints.push(hint);
    }
    connection.close(200, "done".into()).await.unwrap();
    hints
}

fn named(hint: &Hint) -> (&str, &str, &str, Vec<&str>) {
    let related = hint.related_ids.iter().map(|id| id.as_str()).collect();
    (hint.provider.as_str(), hint.message_id.as_str(), hint.payment_id.as_str(), related)
}

#[tokio::test]
async fn a_paypal_webhook_is_verified_by_a_certificate_that_is_fetched_once() {
    let world = World::new().await;
    let authority = Authority::new();
    let key = KeyPair::from_pem(KEY).unwrap();
    let pem = authority.certify("messageverificationcerts.sandbox.paypal.com", &key).pem();
    let host = Host::start(&authority, pem).await;
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, &authority.1).unwrap();
    let hosts = format!("localhost:{}", host.port);
    let children = world.children().env("SSL_CERT_FILE", roots.to_str().unwrap());
    let children = children.env("GRANTONCE_PAYPAL_WEBHOOK_IDS", WEBHOOK_ID).env("GRANTONCE_PAYPAL_CERT_HOSTS", hosts);
    let mut process = children.start("receiver", &["receiver"]).await.unwrap();
    let address = process.listening("receiver", START).await.unwrap();
    let http = plain_client().no_proxy().build().unwrap();
    let ready = format!("http://{address}/readyz");
    eventually("the receiver is ready", async || http.get(&ready).send().await.unwrap().status() == StatusCode::OK)
        .await;
    let receiver = Receiver { _process: process, url: format!("http://{address}/webhooks/paypal"), http };

    let good = host.url("CERT-1");
    let body = br#"{"id":"WH-1","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"C1"}}"#;
    let other = br#"{"id":"WH-2","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"C2"}}"#;
    let all = futures_util::future::join_all((0..20).map(|_| receiver.status(&good, body, body))).await;
    assert_eq!(all, [StatusCode::OK; 20]);
    assert_eq!(host.asked(), 1, "twenty webhooks at once fetch it once");
    let said = hints(&world).await;
    assert_eq!(said.len(), 20, "each is in the queue before its answer");
    for hint in &said {
        assert_eq!(named(hint), ("paypal", "paypal::WH-1:PAYMENT.CAPTURE.COMPLETED", "C1", vec![]));
    }
    // The forged body has the same CRC-32, so the signature fits. The receiver uses its payment id and nothing else.
    let forged = forge::forged(
        r#"{"id":"WH-3","event_type":"PAYMENT.CAPTURE.COMPLETED","resource":{"id":"C9","status":"COMPLETED",
        "amount":{"currency_code":"USD","value":"1000000.00"},"note":""#,
        r#"","supplementary_data":{"related_ids":{"order_id":"O9"}}}}"#,
        CRC.checksum(body),
    );
    assert_ne!(forged, body);
    assert_eq!(receiver.status(&good, body, &forged).await, StatusCode::OK);
    let said = hints(&world).await;
    assert_eq!(
        said.iter().map(named).collect::<Vec<_>>(),
        [("paypal", "paypal::WH-3:PAYMENT.CAPTURE.COMPLETED", "O9", vec!["C9"])]
    );
    assert_eq!((world.ready(WORK_QUEUE).await, world.ready(DEAD_QUEUE).await), (0, 0), "it reports no money");
    assert_eq!(receiver.status(&good, body, other).await, StatusCode::UNAUTHORIZED, "another body");
    assert_eq!(host.asked(), 1);
    // No certificate is there. The receiver remembers this answer.
    for _ in 0..2 {
        assert_eq!(receiver.status(&host.url("CERT-2"), body, body).await, StatusCode::UNAUTHORIZED);
    }
    assert_eq!(host.asked(), 2);
    // The host is not allowed, so the receiver does not ask it.
    let elsewhere = format!("https://127.0.0.1:{}/CERT-1", host.port);
    assert_eq!(receiver.status(&elsewhere, body, body).await, StatusCode::UNAUTHORIZED);
    assert_eq!(host.asked(), 2);
    // The host is not reachable, so PayPal must send the webhook again. Known certificates still work.
    host.serving.abort();
    eventually("the host is gone", async || tokio::net::TcpStream::connect(("127.0.0.1", host.port)).await.is_err())
        .await;
    let away = receiver.post(&host.url("CERT-3"), body, body).await;
    assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(away.headers().contains_key("retry-after"));
    assert_eq!(hints(&world).await, [], "a refused webhook makes no hint");
    assert_eq!(receiver.status(&good, body, body).await, StatusCode::OK);
    assert_eq!(hints(&world).await.len(), 1);
    // The webhook reports money, but no message that can grant is published.
    assert_eq!((world.ready(WORK_QUEUE).await, world.ready(DEAD_QUEUE).await), (0, 0));
}

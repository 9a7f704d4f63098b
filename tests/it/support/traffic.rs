//! Providers that send webhooks all the time.

use super::stripe_webhook;
use super::world::STRIPE_SECRET;
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// The time between two attempts of one sender.
const AGAIN: Duration = Duration::from_millis(50);

/// Several senders. Each sends one thing after the other, and repeats it until it is accepted.
pub struct Traffic {
    stop: CancellationToken,
    taken: Arc<AtomicUsize>,
    senders: JoinSet<()>,
}

impl Traffic {
    /// `send` tries to send a thing and returns whether it was accepted. If not, it is sent again.
    pub fn start<T, F, Sending>(senders: usize, pause: Duration, thing: fn(usize) -> T, send: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(Arc<T>) -> Sending + Clone + Send + 'static,
        Sending: Future<Output = bool> + Send,
    {
        let (stop, taken, next) =
            (CancellationToken::new(), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut all = JoinSet::new();
        for _ in 0..senders {
            let (stop, taken, next, send) = (stop.clone(), Arc::clone(&taken), Arc::clone(&next), send.clone());
            all.spawn(async move {
                while !stop.is_cancelled() {
                    // The thing is made once, so every copy of an event is the same.
                    let thing = Arc::new(thing(next.fetch_add(1, Ordering::Relaxed)));
                    while !send(Arc::clone(&thing)).await {
                        tokio::time::sleep(AGAIN).await;
                    }
                    taken.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { stop, taken, senders: all }
    }

    /// The number of accepted things so far.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Stops sending new things. Returns the number of accepted things after all running attempts have ended.
    pub async fn stop(self) -> i64 {
        self.stop.cancel();
        let taken = Arc::clone(&self.taken);
        self.senders.join_all().await;
        i64::try_from(taken.load(Ordering::Relaxed)).unwrap()
    }
}

/// A webhook of Stripe's: body and signature.
pub type Webhook = (Vec<u8>, String);

/// A webhook that reports the n-th payment as paid.
pub fn paid(n: usize) -> Webhook {
    stripe_webhook(STRIPE_SECRET, &format!("evt_{n}"), &format!("pi_{n}"), 1999, None)
}

/// A provider that posts webhooks to a receiver.
#[derive(Clone)]
pub struct Poster {
    http: reqwest::Client,
    url: String,
}

/// The answer to a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A status 2xx.
    Taken,
    /// Status 503 with `Retry-After`.
    ComeAgain,
    /// The receiver does not accept the connection, or closes it.
    NoConnection,
}

impl Poster {
    pub fn new(receiver: SocketAddr) -> Self {
        // The most impatient provider waits for so long.
        let http = grantonce::http::plain_client().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
        Self { http, url: format!("http://{receiver}/webhooks/stripe") }
    }

    /// Posts one webhook. Panics if the receiver gives an answer that it must never give.
    pub async fn post(&self, (body, signature): &Webhook) -> Answer {
        let request = self.http.post(&self.url).header("Stripe-Signature", signature).body(body.clone());
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => panic!("the receiver did not answer in time: {error}"),
            Err(_) => return Answer::NoConnection,
        };
        match answer.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.headers().contains_key(RETRY_AFTER), "a 503 says when to try again");
                Answer::ComeAgain
            }
            status if status.is_success() => Answer::Taken,
            status => panic!("the receiver answered {status}: {}", answer.text().await.unwrap()),
        }
    }
}

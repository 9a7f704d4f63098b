//! Providers that keep on sending.

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

/// Between two tries of one sender.
const AGAIN: Duration = Duration::from_millis(50);

/// Several senders that send one thing after the other, each as often as it takes.
pub struct Traffic {
    stop: CancellationToken,
    taken: Arc<AtomicUsize>,
    senders: JoinSet<()>,
}

impl Traffic {
    /// `send` tries to send the n-th thing and says whether it was taken; if not, it is sent again.
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
                    // Made once: every copy of an event is the same.
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

    /// How many were taken so far.
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Begins no more; returns how many were taken when all that were begun are.
    pub async fn stop(self) -> i64 {
        self.stop.cancel();
        let taken = Arc::clone(&self.taken);
        self.senders.join_all().await;
        i64::try_from(taken.load(Ordering::Relaxed)).unwrap()
    }
}

/// A webhook of Stripe's: body and signature.
pub type Webhook = (Vec<u8>, String);

/// Says that the n-th payment is paid.
pub fn paid(n: usize) -> Webhook {
    stripe_webhook(STRIPE_SECRET, &format!("evt_{n}"), &format!("pi_{n}"), 1999, None)
}

/// A provider in front of a receiver.
#[derive(Clone)]
pub struct Poster {
    http: reqwest::Client,
    url: String,
}

/// How a webhook was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 2xx.
    Taken,
    /// 503 with `Retry-After`.
    ComeAgain,
    /// The receiver is not there.
    NoConnection,
}

impl Poster {
    pub fn new(receiver: SocketAddr) -> Self {
        // As long as the most impatient provider waits.
        let http = grantonce::http::plain_client().timeout(Duration::from_secs(10)).no_proxy().build().unwrap();
        Self { http, url: format!("http://{receiver}/webhooks/stripe") }
    }

    /// Posts one; panics over any answer that a receiver must not give.
    pub async fn post(&self, (body, signature): &Webhook) -> Answer {
        let request = self.http.post(&self.url).header("Stripe-Signature", signature).body(body.clone());
        let answer = match request.send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => panic!("the receiver did not answer in time: {error}"),
            Err(_) => return Answer::NoConnection,
        };
        match answer.status() {
            StatusCode::SERVICE_UNAVAILABLE => {
                assert!(answer.headers().contains_key(RETRY_AFTER), "a 503 says when to come again");
                Answer::ComeAgain
            }
            status if status.is_success() => Answer::Taken,
            status => panic!("the receiver answered {status}: {}", answer.text().await.unwrap()),
        }
    }
}

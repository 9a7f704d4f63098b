//! Delivers a provider's webhooks. Each attempt is signed anew, and repeated until the receiver answers 2xx.

use super::payment::Seller;
use crate::lock;
use crate::sign::{standard_signature, stripe_signature};
use bytes::Bytes;
use fastrand::Rng;
use serde::Serialize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use time::OffsetDateTime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

/// The most webhooks that are sent at the same time. Real providers have such a limit, too, and a larger one.
const IN_FLIGHT_MAX: usize = 128;

/// The longest time that a receiver may take to answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// The first wait between two attempts. It doubles each time, up to the second value. A random part of up to a half is added.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_LONGEST: Duration = Duration::from_secs(5);

/// One copy of a webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The provider that sends it.
    pub seller: Seller,
    /// The id of the event.
    pub id: String,
    /// The body, the same in every copy.
    pub body: Bytes,
    /// True if an earlier copy was sent.
    pub is_duplicate: bool,
}

/// The counts of all webhooks so far. A webhook is one copy of one event, even if it is sent several times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Webhooks that were sent.
    pub sent: u64,
    /// Webhooks that were answered with 2xx.
    pub accepted: u64,
    /// Webhooks with an earlier copy.
    pub duplicates: u64,
    /// Attempts after the first one.
    pub retries: u64,
    /// Webhooks that were never accepted.
    pub given_up: u64,
    /// Webhooks that were never sent.
    pub dropped: u64,
}

/// Delivers webhooks to one receiver.
#[derive(Debug)]
pub struct Courier {
    http: reqwest::Client,
    receiver: String,
    secrets: Secrets,
    /// How long one webhook is tried.
    patience: Duration,
    slots: Semaphore,
    sent: AtomicU64,
    accepted: AtomicU64,
    duplicates: AtomicU64,
    retries: AtomicU64,
    given_up: AtomicU64,
    dropped: AtomicU64,
    last_trouble: Mutex<Option<String>>,
}

/// The secrets that sign webhooks. `Debug` does not show them.
#[derive(Clone)]
pub struct Secrets {
    /// The secret of Stripe's endpoint.
    pub stripe: String,
    /// The secret of the Standard Webhooks endpoint.
    pub standard: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Courier {
    /// A courier to `receiver` (`http://host:port`). It tries each webhook for `patience`.
    pub fn new(receiver: String, secrets: Secrets, patience: Duration) -> Result<Self, reqwest::Error> {
        // A redirect does not count as accepted, and is not followed.
        let http = crate::http::plain_client()
            .timeout(ANSWER_DEADLINE)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent("grantonce-demo-provider")
            .build()?;
        Ok(Self {
            http,
            receiver,
            secrets,
            patience,
            slots: Semaphore::new(IN_FLIGHT_MAX),
            sent: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            retries: AtomicU64::new(0),
            given_up: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            last_trouble: Mutex::new(None),
        })
    }

    /// The counts of all webhooks so far.
    pub fn counts(&self) -> Counts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Counts {
            sent: read(&self.sent),
            accepted: read(&self.accepted),
            duplicates: read(&self.duplicates),
            retries: read(&self.retries),
            given_up: read(&self.given_up),
            dropped: read(&self.dropped),
        }
    }

    /// Counts webhooks that are lost before they are sent.
    pub fn drop_webhooks(&self, count: usize) {
        self.dropped.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The receiver's last answer that did not accept a webhook.
    pub fn last_trouble(&self) -> Option<String> {
        lock(&self.last_trouble).clone()
    }

    /// Delivers one webhook, and returns whether it was accepted in the end. Calls `on_sent` before the first attempt.
    pub async fn deliver(&self, webhook: &Webhook, mut rng: Rng, on_sent: impl FnOnce()) -> bool {
        let mut on_sent = Some(on_sent);
        let deadline = Instant::now() + self.patience;
        let mut pause = RETRY_FIRST;
        loop {
            // The semaphore is never closed, so a slot becomes free in the end.
            let slot = self.slots.acquire().await;
            match on_sent.take() {
                Some(on_sent) => {
                    self.sent.fetch_add(1, Ordering::Relaxed);
                    self.duplicates.fetch_add(u64::from(webhook.is_duplicate), Ordering::Relaxed);
                    on_sent();
                }
                None => {
                    self.retries.fetch_add(1, Ordering::Relaxed);
                }
            }
            let answer = self.send(webhook).await;
            drop(slot);
            match answer {
                Ok(()) => {
                    self.accepted.fetch_add(1, Ordering::Relaxed);
                    return true;
                }
                Err(trouble) => *lock(&self.last_trouble) = Some(trouble),
            }
            let wait = pause + pause.mul_f64(rng.f64() / 2.0);
            if Instant::now() + wait > deadline {
                self.given_up.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            sleep(wait).await;
            pause = (pause * 2).min(RETRY_LONGEST);
        }
    }

    async fn send(&self, webhook: &Webhook) -> Result<(), String> {
        let url = format!("{}/webhooks/{}", self.receiver, webhook.seller.name());
        let request = self.http.post(url).header("content-type", "application/json");
        // Every attempt is signed anew, because a retry may come after the tolerance of an old signature.
        let timestamp = OffsetDateTime::now_utc().unix_timestamp();
        let signed = match webhook.seller {
            Seller::Stripe => stripe_signature(&self.secrets.stripe, timestamp, &webhook.body)
                .map(|signature| request.header("stripe-signature", signature)),
            Seller::Paypal => return Err("PayPal's webhooks are not sent".to_owned()),
            Seller::Standard => {
                standard_signature(&self.secrets.standard, &webhook.id, timestamp, &webhook.body).map(|signature| {
                    request
                        .header("webhook-id", &webhook.id)
                        .header("webhook-timestamp", timestamp.to_string())
                        .header("webhook-signature", signature)
                })
            }
        };
        let request = signed.map_err(|error| error.to_string())?;
        match request.body(webhook.body.clone()).send().await {
            Ok(answer) if answer.status().is_success() => Ok(()),
            Ok(answer) => Err(format!("the receiver answered {} to {}", answer.status(), webhook.id)),
            Err(error) => Err(format!("no answer from the receiver to {}: {}", webhook.id, crate::causes(&error))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::extract::State;
    use axum::http::{HeaderMap, StatusCode};
    use axum::routing::post;
    use std::sync::Arc;

    fn secrets() -> Secrets {
        Secrets { stripe: "whsec_x".to_owned(), standard: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned() }
    }

    fn webhook(seller: Seller) -> Webhook {
        Webhook { seller, id: "evt_1".to_owned(), body: Bytes::from_static(b"{}"), is_duplicate: false }
    }

    #[tokio::test]
    async fn a_webhook_is_tried_until_it_is_accepted() {
        let answers = Arc::new(Mutex::new(vec![StatusCode::NO_CONTENT, StatusCode::FOUND, StatusCode::BAD_GATEWAY]));
        let router = axum::Router::new()
            .route(
                "/webhooks/stripe",
                post(
                    |State(answers): State<Arc<Mutex<Vec<StatusCode>>>>, headers: HeaderMap, body: Bytes| async move {
                        let given = headers["stripe-signature"].to_str().unwrap();
                        let timestamp = given.split(['=', ',']).nth(1).unwrap().parse().unwrap();
                        assert_eq!(given, stripe_signature("whsec_x", timestamp, &body).unwrap());
                        answers.lock().unwrap().pop().unwrap()
                    },
                ),
            )
            .with_state(Arc::clone(&answers));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await });
        let courier = Courier::new(receiver, secrets(), Duration::from_secs(30)).unwrap();
        let mut sent = 0;
        assert!(courier.deliver(&webhook(Seller::Stripe), Rng::with_seed(1), || sent += 1).await);
        assert_eq!(sent, 1);
        assert_eq!(courier.counts(), Counts { sent: 1, accepted: 1, retries: 2, ..Counts::default() });
        assert_eq!(courier.last_trouble().unwrap(), "the receiver answered 302 Found to evt_1");
    }

    #[tokio::test]
    async fn patience_has_an_end() {
        let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = format!("http://{}", nobody.local_addr().unwrap());
        drop(nobody);
        let courier = Courier::new(receiver, secrets(), Duration::from_millis(200)).unwrap();
        assert!(!courier.deliver(&webhook(Seller::Standard), Rng::with_seed(1), || ()).await);
        let counts = courier.counts();
        assert_eq!((counts.sent, counts.accepted, counts.given_up), (1, 0, 1));
        assert!(courier.last_trouble().unwrap().contains("refused"), "{:?}", courier.last_trouble());
    }
}

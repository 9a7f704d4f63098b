//! The certificates that PayPal signs its webhooks with: fetched over HTTPS, and remembered.
//!
//! Which one is needed stands in a request, and anybody can send one. So a fetch is bounded in time and size, no redirect is
//! followed, what came to nothing is remembered as well, an address is asked for by one at a time, and there are so many
//! fetches a minute. None of that touches the certificates that are known already. Whether one is to be believed is judged by
//! who uses it, each time.

use super::BuildError;
use super::client::{Deadlines, bounded, read};
use crate::http::client;
use bytes::Bytes;
use http::StatusCode;
use reqwest::{Client, Response};
use rustls::RootCertStore;
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Longest answer that is read. A chain has some 5 KB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Most certificates that are kept. PayPal uses a handful; the one that was not used for longest gives way.
const KEPT_MAX: usize = 64;

/// Most addresses that are remembered because nothing was to be had there.
const FAILED_MAX: usize = 256;

/// What [`Limits::fetches_max`] counts.
const MINUTE: Duration = Duration::from_secs(60);

/// What a certificate begins with, in what PayPal serves.
const BEGINNING: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not now: whoever needs it is to come again.
    #[error("the certificate cannot be fetched now: {detail}")]
    Unavailable {
        /// What happened.
        detail: String,
    },
    /// There is none at that address.
    #[error("the certificate {fault}")]
    Refused {
        /// What is there instead.
        fault: &'static str,
    },
}

/// How far it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) deadlines: Deadlines,
    /// How long a certificate is used before it is asked for again.
    pub(super) fresh: Duration,
    /// How long an address is not asked again after it was refused.
    pub(super) refused: Duration,
    /// How long an address is not asked again after nothing came.
    pub(super) unavailable: Duration,
    /// Most fetches in a minute.
    pub(super) fetches_max: usize,
}

impl Limits {
    /// The whole of it fits into the time in which a provider waits for an answer, together with what comes after.
    const USUAL: Self = Self {
        deadlines: Deadlines { whole: Duration::from_secs(5), connect: Duration::from_secs(3) },
        fresh: Duration::from_secs(6 * 3600),
        refused: MINUTE,
        unavailable: Duration::from_secs(5),
        fetches_max: 20,
    };
}

/// Fetches certificates and keeps them.
#[derive(Debug)]
pub struct Certificates {
    client: Client,
    limits: Limits,
    shelf: Mutex<Shelf>,
}

/// What is known of addresses.
#[derive(Debug, Default)]
struct Shelf {
    kept: HashMap<String, Kept>,
    failed: HashMap<String, Failed>,
    /// Whoever fetches holds the gate of the address; those who wait for it keep it alive.
    gates: HashMap<String, Weak<tokio::sync::Mutex<()>>>,
    /// When the fetches of the last minute began.
    began: VecDeque<Instant>,
}

#[derive(Debug)]
struct Kept {
    pem: Bytes,
    fresh_until: Instant,
    used_at: Instant,
}

#[derive(Debug)]
struct Failed {
    error: CertificateError,
    until: Instant,
}

impl Certificates {
    /// Fetches from whom these certificates vouch for. Asks nobody yet.
    pub fn new(roots: RootCertStore) -> Result<Self, BuildError> {
        if roots.is_empty() {
            return Err(BuildError::NoRoots);
        }
        let begun = bounded(client(roots).https_only(true), Limits::USUAL.deadlines);
        Ok(Self::of(begun.build().map_err(BuildError::Client)?, Limits::USUAL))
    }

    pub(super) fn of(client: Client, limits: Limits) -> Self {
        Self { client, limits, shelf: Mutex::default() }
    }

    /// What lies at an address, which is PEM; nobody has looked at what is certified. The caller has checked that the
    /// address may be asked at all.
    pub async fn get(&self, url: &str) -> Result<Bytes, CertificateError> {
        if let Some(known) = self.shelf().known(url, Instant::now()) {
            return known;
        }
        let gate = self.shelf().gate(url);
        let whole = self.limits.deadlines.whole;
        let late = || unavailable(format!("no turn within {} ms", whole.as_millis()));
        let _turn = timeout(whole, gate.lock()).await.map_err(|_| late())?;
        // Whoever went first has brought it, or found that there is none.
        if let Some(known) = self.shelf().known(url, Instant::now()) {
            return known;
        }
        if !self.shelf().may_begin(Instant::now(), self.limits.fetches_max) {
            let busy = unavailable("too many were asked for in the last minute".to_owned());
            return self.shelf().stale(url).ok_or(busy);
        }
        let fetched = self.fetch(url).await;
        self.shelf().keep(url, fetched, Instant::now(), &self.limits)
    }

    async fn fetch(&self, url: &str) -> Result<Bytes, CertificateError> {
        let trouble = |what, error| unavailable(self.limits.deadlines.trouble(what, error));
        let mut answer = self.client.get(url).send().await.map_err(|error| trouble("no answer", error))?;
        judge(&answer)?;
        let body = read(&mut answer, ANSWER_BYTES_MAX).await.map_err(|error| trouble("the answer broke off", error))?;
        let body = body.ok_or(CertificateError::Refused { fault: "is longer than 65536 bytes" })?;
        if body.windows(BEGINNING.len()).any(|part| part == BEGINNING) {
            Ok(body)
        } else {
            Err(CertificateError::Refused { fault: "is none: something else lies at its address" })
        }
    }

    /// What is known is one value after another: a panic elsewhere cannot leave it half changed.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether an answer is one.
fn judge(answer: &Response) -> Result<(), CertificateError> {
    match answer.status() {
        StatusCode::OK => Ok(()),
        status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS) => {
            Err(unavailable(status.to_string()))
        }
        status if status.is_server_error() => Err(unavailable(status.to_string())),
        // Among them redirects: the host that was asked is the one that was allowed.
        _ => Err(CertificateError::Refused { fault: "does not lie at its address" }),
    }
}

fn unavailable(detail: String) -> CertificateError {
    CertificateError::Unavailable { detail }
}

impl Shelf {
    /// What need not be asked for.
    fn known(&mut self, url: &str, now: Instant) -> Option<Result<Bytes, CertificateError>> {
        if let Some(kept) = self.kept.get_mut(url) {
            kept.used_at = now;
            if now < kept.fresh_until {
                return Some(Ok(kept.pem.clone()));
            }
        }
        let failed = self.failed.get(url).filter(|failed| now < failed.until)?;
        let error = failed.error.clone();
        Some(self.stale(url).ok_or(error))
    }

    /// A certificate whose time to be asked for again has come. It is not worse for that: its own dates are judged each
    /// time it is used.
    fn stale(&self, url: &str) -> Option<Bytes> {
        self.kept.get(url).map(|kept| kept.pem.clone())
    }

    fn gate(&mut self, url: &str) -> Arc<tokio::sync::Mutex<()>> {
        self.gates.retain(|_, gate| gate.strong_count() > 0);
        if let Some(gate) = self.gates.get(url).and_then(Weak::upgrade) {
            return gate;
        }
        let gate = Arc::default();
        self.gates.insert(url.to_owned(), Arc::downgrade(&gate));
        gate
    }

    /// Counts a fetch, unless there were too many.
    fn may_begin(&mut self, now: Instant, fetches_max: usize) -> bool {
        while self.began.front().is_some_and(|began| now.duration_since(*began) >= MINUTE) {
            self.began.pop_front();
        }
        let may = self.began.len() < fetches_max;
        if may {
            self.began.push_back(now);
        }
        may
    }

    fn keep(
        &mut self,
        url: &str,
        fetched: Result<Bytes, CertificateError>,
        now: Instant,
        limits: &Limits,
    ) -> Result<Bytes, CertificateError> {
        match fetched {
            Ok(pem) => {
                make_room(&mut self.kept, url, KEPT_MAX, |kept| kept.used_at);
                let kept = Kept { pem: pem.clone(), fresh_until: now + limits.fresh, used_at: now };
                self.kept.insert(url.to_owned(), kept);
                self.failed.remove(url);
                Ok(pem)
            }
            Err(error) => {
                let pause = match &error {
                    CertificateError::Unavailable { .. } => limits.unavailable,
                    // PayPal has taken it back: it is not used for any longer.
                    CertificateError::Refused { .. } => {
                        self.kept.remove(url);
                        limits.refused
                    }
                };
                make_room(&mut self.failed, url, FAILED_MAX, |failed| failed.until);
                self.failed.insert(url.to_owned(), Failed { error: error.clone(), until: now + pause });
                self.stale(url).ok_or(error)
            }
        }
    }
}

/// Drops the oldest, where one more would be too many.
fn make_room<T>(map: &mut HashMap<String, T>, url: &str, max: usize, age: impl Fn(&T) -> Instant) {
    if map.len() < max || map.contains_key(url) {
        return;
    }
    if let Some(oldest) = map.iter().min_by_key(|(_, value)| age(value)).map(|(url, _)| url.clone()) {
        map.remove(&oldest);
    }
}

//! The certificates with which PayPal signs its webhooks. They are fetched over HTTPS and kept in memory.
//!
//! A request names the certificate that it needs, and anybody can send a request. So a fetch has limits: its time and its
//! size, no redirects, one fetch for an address at a time, and a number of fetches a minute. A failure is remembered, too.
//! None of this affects the certificates that are already known. The code that uses a certificate decides each time whether
//! to trust it.

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

/// The longest answer that is read. A chain has about 5 KB.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The largest number of certificates that are kept. PayPal uses a few. The one that was not used for the longest time is
/// dropped.
const KEPT_MAX: usize = 64;

/// The largest number of failed addresses that are remembered.
const FAILED_MAX: usize = 256;

/// The time in which [`Limits::fetches_max`] are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// The first bytes of a certificate as PayPal sends it.
const BEGINNING: &[u8] = b"-----BEGIN CERTIFICATE-----";

/// The reason why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be fetched now. The caller must try again later.
    #[error("the certificate cannot be fetched now: {detail}")]
    Unavailable {
        /// The cause of the failure.
        detail: String,
    },
    /// There is no certificate at that address.
    #[error("the certificate {fault}")]
    Refused {
        /// What was found there instead.
        fault: &'static str,
    },
}

/// The limits of fetching.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) deadlines: Deadlines,
    /// How long a certificate is used before it is fetched again.
    pub(super) fresh: Duration,
    /// How long an address is not asked again after it had no certificate.
    pub(super) refused: Duration,
    /// How long an address is not asked again after it gave no answer.
    pub(super) unavailable: Duration,
    /// The largest number of fetches in a minute.
    pub(super) fetches_max: usize,
}

impl Limits {
    /// All of it, with the work that follows, fits into the time that a provider waits for an answer.
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

/// The certificates and failures that are remembered.
#[derive(Debug, Default)]
struct Shelf {
    kept: HashMap<String, Kept>,
    failed: HashMap<String, Failed>,
    /// A task that fetches holds the lock of its address. Tasks that wait for it keep the lock alive.
    gates: HashMap<String, Weak<tokio::sync::Mutex<()>>>,
    /// The start times of the fetches in the last minute.
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
    /// Trusts servers that these roots have certified. It makes no request yet.
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

    /// Returns the PEM text at an address. Nobody has checked what it certifies. The caller has checked that the address may
    /// be asked.
    pub async fn get(&self, url: &str) -> Result<Bytes, CertificateError> {
        if let Some(known) = self.shelf().known(url, Instant::now()) {
            return known;
        }
        let gate = self.shelf().gate(url);
        let whole = self.limits.deadlines.whole;
        let late = || unavailable(format!("no turn within {} ms", whole.as_millis()));
        let _turn = timeout(whole, gate.lock()).await.map_err(|_| late())?;
        // The task that held the lock before has fetched it, or found that there is none.
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
            Err(CertificateError::Refused { fault: "was not found: its address has other content" })
        }
    }

    /// All values are independent of each other, so a panic elsewhere cannot leave them half changed.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Checks whether an answer contains a certificate.
fn judge(answer: &Response) -> Result<(), CertificateError> {
    match answer.status() {
        StatusCode::OK => Ok(()),
        status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS) => {
            Err(unavailable(status.to_string()))
        }
        status if status.is_server_error() => Err(unavailable(status.to_string())),
        // This includes redirects: only the host that was asked is allowed.
        _ => Err(CertificateError::Refused { fault: "was not found at its address" }),
    }
}

fn unavailable(detail: String) -> CertificateError {
    CertificateError::Unavailable { detail }
}

impl Shelf {
    /// The result that is still valid, so that the address need not be asked.
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

    /// A certificate that is due to be fetched again. It can still be used, because its own dates are checked each time.
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

    /// Counts a fetch, unless there were too many in the last minute.
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
                    // PayPal has withdrawn the certificate, so it is not used any more.
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

/// Drops the oldest entry if there is no room for one more.
fn make_room<T>(map: &mut HashMap<String, T>, url: &str, max: usize, age: impl Fn(&T) -> Instant) {
    if map.len() < max || map.contains_key(url) {
        return;
    }
    if let Some(oldest) = map.iter().min_by_key(|(_, value)| age(value)).map(|(url, _)| url.clone()) {
        map.remove(&oldest);
    }
}

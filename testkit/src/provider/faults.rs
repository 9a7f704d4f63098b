//! The faults of calls to the provider's APIs, and the rules of idempotency keys.
//!
//! | hop | fault | control |
//! |---|---|---|
//! | our call | the request is lost; the call is done and the answer is lost; the payment's webhooks come before the answer | [`Fault`], by the seed or `POST /faults` |
//! | our call | the call fails, done or not, and the key keeps that answer; the key is forgotten | [`Fault`], by `POST /faults` |
//! | a listing | new objects are not listed yet | `POST /faults/listing-lag` |
//! | a webhook | late, twice, out of order | `plan`, by the seed |
//! | a webhook | never sent | `--drop-webhooks`, by the seed; `POST /payments/{id}/silence`, `/drop-next` |
//! | a webhook | refused, and sent again | `courier` |
//! | a webhook | before its order | `plan`, by the seed |

use crate::lock;
use crate::provider::plan::mix;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use fastrand::Rng;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The most keys that are remembered. No demo uses so many.
const KEYS_MAX: usize = 1_000_000;

/// The fault of a call with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// The call works.
    None,
    /// The request never arrives.
    LoseRequest,
    /// The call is done, and the answer is lost.
    LoseAnswer,
    /// The call fails with a 500 before anything is created, and the key keeps this answer.
    Fail,
    /// The call is done and still answered with a 500, and the key keeps this answer.
    DoAndFail,
    /// The key is forgotten, and counts as new.
    ForgetKey,
    /// Stripe: the payment is created and paid at once. Its webhooks come before the answer.
    Overtake,
}

/// Random faults, with the number of such calls in a thousand. All of them are resolved within seconds. A failure that a key keeps
/// takes an hour, and a forgotten key creates a second payment unless a day has passed, so both are not random.
const BY_CHANCE: [(Fault, u16); 3] = [(Fault::LoseRequest, 50), (Fault::LoseAnswer, 50), (Fault::Overtake, 50)];

/// Gives the faults other random numbers than the rest of the same seed.
const DRAW: u64 = 0xFA_17;

/// The answer to a call.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) body: Value,
}

impl Answer {
    pub(super) fn ok(body: Value) -> Self {
        Self { status: StatusCode::OK, body }
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

/// The result of a call with a key.
#[derive(Debug)]
pub(super) enum Done {
    /// The caller gets no answer.
    Lost,
    /// The call was done now.
    Now(Answer),
    /// The call was done before, and gets the same answer as then.
    Before(Answer),
    /// The key belongs to another request.
    OtherRequest,
}

/// The memory of an API about its calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    answers: HashMap<String, ([u8; 32], Answer)>,
    planned: VecDeque<Fault>,
    /// The seed of the random faults.
    chance: Option<u64>,
    /// The keys of all calls so far.
    called: HashSet<String>,
    /// The age of an object before lists contain it.
    listing_lag: Duration,
}

/// The rules of one provider's keys.
pub(super) struct KeyRules {
    /// The answer of a failure on the provider's side.
    pub(super) failure: fn() -> Answer,
    /// True if the key keeps the answer of such a failure.
    pub(super) keeps_failures: bool,
    /// True if the key repeats the first answer even for another request. Else that request is refused.
    pub(super) takes_other_requests: bool,
}

/// A call with a key.
pub(super) struct Call<'a> {
    pub(super) key: &'a str,
    /// The digest of the request.
    pub(super) request: [u8; 32],
    /// The part of the request that is the same in every run. Random faults depend on it.
    pub(super) lot: u64,
}

/// Performs a call with a key once, with any fault. Also returns the fault.
pub(super) fn under_key(
    calls: &Mutex<Calls>,
    rules: &KeyRules,
    call: &Call<'_>,
    work: impl FnOnce() -> Answer,
) -> (Done, Fault) {
    let Call { key, request, lot } = *call;
    let mut calls = lock(calls);
    let fault = calls.next_fault(key, lot);
    match fault {
        Fault::LoseRequest => return (Done::Lost, fault),
        Fault::ForgetKey => drop(calls.answers.remove(key)),
        Fault::None | Fault::LoseAnswer | Fault::Fail | Fault::DoAndFail | Fault::Overtake => {}
    }
    if let Some((first, answer)) = calls.answers.get(key) {
        let done = match fault {
            _ if *first != request && !rules.takes_other_requests => Done::OtherRequest,
            Fault::LoseAnswer => Done::Lost,
            Fault::None | Fault::LoseRequest | Fault::Fail | Fault::DoAndFail | Fault::ForgetKey | Fault::Overtake => {
                Done::Before(answer.clone())
            }
        };
        return (done, fault);
    }
    let answer = if fault == Fault::Fail { (rules.failure)() } else { work() };
    let is_failure = fault == Fault::DoAndFail && answer.status.is_success();
    let answer = if is_failure { (rules.failure)() } else { answer };
    // A request that is refused for its parameters leaves its key unused.
    let is_kept = answer.status.is_success() || rules.keeps_failures && answer.status.is_server_error();
    if is_kept && calls.answers.len() < KEYS_MAX {
        calls.answers.insert(key.to_owned(), (request, answer.clone()));
    }
    (if fault == Fault::LoseAnswer { Done::Lost } else { Done::Now(answer) }, fault)
}

impl Calls {
    /// With random faults, the seed and the lots of the calls decide which calls fail.
    pub(super) fn new(chance: Option<u64>) -> Self {
        Self { chance: chance.map(|seed| mix(seed, DRAW)), ..Self::default() }
    }

    /// The next planned fault. If there is none, the first call with a key may have a random fault, and the next one works.
    fn next_fault(&mut self, key: &str, lot: u64) -> Fault {
        if let Some(planned) = self.planned.pop_front() {
            return planned;
        }
        let Some(seed) = self.chance.filter(|_| self.called.len() < KEYS_MAX) else { return Fault::None };
        if !self.called.insert(key.to_owned()) {
            return Fault::None;
        }
        let mut draw = Rng::with_seed(mix(seed, lot)).u16(0..1000);
        for (fault, share) in BY_CHANCE {
            match draw.checked_sub(share) {
                Some(rest) => draw = rest,
                None => return fault,
            }
        }
        Fault::None
    }

    /// The age of an object before lists contain it.
    pub(super) fn listing_lag(&self) -> Duration {
        self.listing_lag
    }

    pub(super) fn set_listing_lag(&mut self, lag: Duration) {
        self.listing_lag = lag;
    }
}

/// The control of the faults: `POST path` plans them, `POST path/forget-keys` forgets all keys.
pub(super) fn control(path: &str, calls: Arc<Mutex<Calls>>) -> Router {
    Router::new()
        .route(path, post(plan_faults))
        .route(&format!("{path}/forget-keys"), post(forget_keys))
        .with_state(calls)
}

async fn plan_faults(State(calls): State<Arc<Mutex<Calls>>>, Json(faults): Json<VecDeque<Fault>>) -> StatusCode {
    lock(&calls).planned = faults;
    StatusCode::NO_CONTENT
}

/// Forgets all keys, as the provider does after some time.
async fn forget_keys(State(calls): State<Arc<Mutex<Calls>>>) -> StatusCode {
    lock(&calls).answers.clear();
    StatusCode::NO_CONTENT
}

/// The answer of a connection that breaks.
pub(super) fn lost() -> Response {
    let broken = futures_util::stream::once(async { Err::<Bytes, _>(std::io::Error::other("lost on the way")) });
    Body::from_stream(broken).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_planned_comes_first_and_the_rest_is_chance() {
        let faults = |seed| {
            let mut calls = Calls::new(seed);
            calls.planned = VecDeque::from([Fault::DoAndFail, Fault::ForgetKey]);
            (0..1002).map(|n| calls.next_fault(&n.to_string(), n)).collect::<Vec<_>>()
        };
        assert_eq!(faults(None)[2..], vec![Fault::None; 1000]);
        let by_seed = faults(Some(3));
        assert_eq!((by_seed[..2].to_vec(), &by_seed), (vec![Fault::DoAndFail, Fault::ForgetKey], &faults(Some(3))));
        assert_ne!(by_seed, faults(Some(4)));
        for (fault, share) in BY_CHANCE {
            let count = by_seed.iter().filter(|found| **found == fault).count();
            assert!((usize::from(share) / 2..usize::from(share) * 2).contains(&count), "{fault:?}: {count}");
        }
        let mut calls = Calls::new(Some(3));
        let again = (0..1000).filter(|n| {
            calls.next_fault(&n.to_string(), *n);
            calls.next_fault(&n.to_string(), *n) != Fault::None
        });
        assert_eq!(again.count(), 0, "the second call under a key gets through");
        assert!(by_seed[2..].iter().all(|fault| !matches!(fault, Fault::Fail | Fault::DoAndFail | Fault::ForgetKey)));
    }
}

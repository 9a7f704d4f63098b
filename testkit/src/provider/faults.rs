//! What goes wrong with a call to one of the provider's APIs, and what a key does about it.
//!
//! | hop | fault | where |
//! |---|---|---|
//! | our call | the request is lost; it is done and the answer is lost; the payment's webhooks come before the answer | [`Fault`], by the seed or `POST /faults` |
//! | our call | it fails, done or not, and the key stands for that; the key is forgotten | [`Fault`], by `POST /faults` |
//! | a listing | what is new is not listed yet | `POST /faults/listing-lag` |
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

/// Keys that are remembered. More than any demo uses.
const KEYS_MAX: usize = 1_000_000;

/// What goes wrong with a call that is made under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// It never arrives.
    LoseRequest,
    /// It is done, and the answer is lost.
    LoseAnswer,
    /// It fails with a 500 before anything is made, and the key stands for that from then on.
    Fail,
    /// It is done, and answered with a 500 all the same; the key stands for that from then on.
    DoAndFail,
    /// The key is as new, whatever was done under it before.
    ForgetKey,
    /// Stripe: the payment is made, and paid at once; its webhooks come before the answer does.
    Overtake,
}

/// What goes wrong by itself, where chance has a say, and with how many of a thousand calls. Only what is cleared up within
/// seconds: a key that stands for a failure takes an hour, and one that is forgotten makes a second payment, unless a day has
/// passed.
const BY_CHANCE: [(Fault, u16); 3] = [(Fault::LoseRequest, 50), (Fault::LoseAnswer, 50), (Fault::Overtake, 50)];

/// Sets the draw of the faults apart from the others of the same seed.
const DRAW: u64 = 0xFA_17;

/// How a call is answered.
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

/// What became of a call under a key.
#[derive(Debug)]
pub(super) enum Done {
    /// The caller hears nothing.
    Lost,
    /// It was done now.
    Now(Answer),
    /// It was done before, and is answered as it was then.
    Before(Answer),
    /// The key stands for another request.
    OtherRequest,
}

/// What an API remembers of its calls.
#[derive(Debug, Default)]
pub(super) struct Calls {
    answers: HashMap<String, ([u8; 32], Answer)>,
    planned: VecDeque<Fault>,
    /// The seed of what goes wrong by chance.
    chance: Option<u64>,
    /// Keys that were called under.
    called: HashSet<String>,
    /// How old an object is before a list has it.
    listing_lag: Duration,
}

/// The rules of one provider's keys.
pub(super) struct KeyRules {
    /// What a failure of the provider's own looks like.
    pub(super) failure: fn() -> Answer,
    /// Whether the key stands for such a failure from then on.
    pub(super) keeps_failures: bool,
    /// Whether the key stands for the first request whatever a later one asks for, instead of refusing that.
    pub(super) takes_other_requests: bool,
}

/// A call under a key.
pub(super) struct Call<'a> {
    pub(super) key: &'a str,
    /// What tells the request from others.
    pub(super) request: [u8; 32],
    /// What of the request is the same in another run: chance goes by that.
    pub(super) lot: u64,
}

/// Does a call under a key: once, whatever goes wrong with it. Also says what did.
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
    // A request that was refused for its parameters leaves its key unused.
    let is_kept = answer.status.is_success() || rules.keeps_failures && answer.status.is_server_error();
    if is_kept && calls.answers.len() < KEYS_MAX {
        calls.answers.insert(key.to_owned(), (request, answer.clone()));
    }
    (if fault == Fault::LoseAnswer { Done::Lost } else { Done::Now(answer) }, fault)
}

impl Calls {
    /// Where some calls go wrong by chance, the seed and the calls' lots decide which.
    pub(super) fn new(chance: Option<u64>) -> Self {
        Self { chance: chance.map(|seed| mix(seed, DRAW)), ..Self::default() }
    }

    /// What was planned; else what chance says of the first call under a key. The next one gets through.
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

    /// How old an object must be before a list has it.
    pub(super) fn listing_lag(&self) -> Duration {
        self.listing_lag
    }

    pub(super) fn set_listing_lag(&mut self, lag: Duration) {
        self.listing_lag = lag;
    }
}

/// The control of what goes wrong: `POST path` plans it, `POST path/forget-keys` makes all keys new.
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

/// As after a day.
async fn forget_keys(State(calls): State<Arc<Mutex<Calls>>>) -> StatusCode {
    lock(&calls).answers.clear();
    StatusCode::NO_CONTENT
}

/// What a client sees whose connection breaks.
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

//! What the demo and the tests of grantonce share.
//!
//! Nothing here comes from grantonce itself. The simulated providers know the providers' documentation and the public
//! contract alone, so that a mistake of grantonce's is not repeated here and hidden by it.
//!
//! | module | what it has |
//! |---|---|
//! | [`provider`] | the one simulation of Stripe, PayPal and a Standard Webhooks sender: APIs, webhooks, faults |
//! | [`sign`] | signatures of webhooks, as the providers make them |
//! | [`scratch`] | a database and a virtual host for one run or one test |
//! | [`children`] | processes that end with the process that started them |
//! | `browser`, `wait` | Chromium without a window, and waiting for a condition |
//! | `fake` | a receiver and an API in memory, right and wrong ones, to test the demo with |

#[cfg(any(test, feature = "tests"))]
pub mod browser;
pub mod children;
#[cfg(any(test, feature = "tests"))]
pub mod fake;
pub mod http;
pub mod money;
pub mod provider;
pub mod scratch;
pub mod sign;
#[cfg(any(test, feature = "tests"))]
pub mod wait;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The id of an order, as the API gives it.
pub type OrderId = uuid::Uuid;

/// Locks a mutex. A panic elsewhere leaves nothing half-done in the data that this crate and the demo lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with all its causes. The text of reqwest's own errors alone does not tell a refused connection from a timeout.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

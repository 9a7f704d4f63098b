//! Code that the demo and the tests of grantonce share.
//!
//! Nothing here comes from grantonce itself. The simulated providers follow only the providers' documentation and the public
//! contract. So a mistake in grantonce is not repeated here and stays visible.
//!
//! | module | content |
//! |---|---|
//! | [`provider`] | the one simulation of Stripe, PayPal and a Standard Webhooks sender: APIs, webhooks, faults |
//! | [`sign`] | signatures of webhooks, as the providers create them |
//! | [`scratch`] | a database and a virtual host for one run or one test |
//! | [`children`] | processes that end with the process that started them |
//! | `browser`, `wait` | Chromium without a window, and waits for a condition |
//! | `fake` | a receiver and an API in memory, correct and faulty ones, to test the demo |

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

/// The id of an order, as the API returns it.
pub type OrderId = uuid::Uuid;

/// Locks a mutex. A panic in another thread leaves no half-written data in the values that this crate and the demo lock.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error with all its causes. The text of a reqwest error alone does not tell a refused connection from a timeout.
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

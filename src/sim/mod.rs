//! The demo.

pub mod children;
pub mod scratch;
mod sign;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks; a panic elsewhere while the lock was held leaves nothing half-done in what we keep behind one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! Places where a process can be told to kill itself with SIGKILL, for the crash tests.
//!
//! Only with the feature `failpoints`, which no release build has. `FAILPOINT=before_commit` kills at the first hit of
//! that place, `FAILPOINT=before_commit:3` at the third.

named! {
    /// The places. Each stands between two steps whose order keeps a promise.
    pub enum Failpoint {
        /// The receiver's publish is confirmed, the webhook not yet answered.
        AfterConfirm = "after_confirm",
        /// The worker has read what it decides about, and has written nothing.
        AfterBegin = "after_begin",
        /// The worker has decided, and the call that writes and commits is not made yet.
        BeforeCommit = "before_commit",
        /// Committed, not acknowledged.
        AfterCommit = "after_commit",
        /// The order is committed, its payment not yet asked for.
        AfterOrder = "after_order",
        /// The attempt is committed, its call not yet made.
        BeforePaymentCall = "before_payment_call",
        /// The provider has answered with a payment, which is written down nowhere.
        AfterPaymentCall = "after_payment_call",
        /// The retry copy is confirmed, the original not acknowledged.
        AfterRetryPublish = "after_retry_publish",
    }
}

/// Dies here if told to.
#[cfg(feature = "failpoints")]
pub fn hit(place: Failpoint) {
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static TOLD: LazyLock<Option<(String, u32)>> = LazyLock::new(|| {
        let told = std::env::var("FAILPOINT").ok()?;
        let (name, nth) = told.split_once(':').unwrap_or((&told, "1"));
        Some((name.to_owned(), nth.parse().ok()?))
    });
    static HITS: AtomicU32 = AtomicU32::new(0);

    if let Some((name, nth)) = TOLD.as_ref()
        && name == place.name()
        && HITS.fetch_add(1, Ordering::SeqCst) + 1 == *nth
        && rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).is_ok()
    {
        // The signal is on its way; nothing after this point may happen.
        loop {
            std::thread::park();
        }
    }
}

/// Nothing, in every build without the feature.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_place: Failpoint) {}

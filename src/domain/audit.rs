//! What the audit log can say was done. The names are public: they stand in the table, in stories and in the console.

named! {
    /// An action in the audit log, as `<noun>.<verb>`.
    pub enum AuditAction {
        /// Somebody changed what an order costs.
        OrderAmend = "order.amend",
        /// Somebody wants the provider asked about an order.
        OrderCheck = "order.check",
        /// Somebody wants the provider asked about a payment without an order.
        PaymentCheck = "payment.check",
        /// Somebody set open dead letters aside.
        LettersArchive = "letters.archive",
        /// Somebody opened archived dead letters again.
        LettersRestore = "letters.restore",
        /// `ops` deleted settled dead letters after their retention.
        LettersExpire = "letters.expire",
        /// Somebody sent dead letters back to work.
        ReplayBegin = "replay.begin",
        /// Somebody ended a replay before it was done.
        ReplayCancel = "replay.cancel",
        /// Somebody emptied what is kept of an account's buyers.
        AccountForget = "account.forget",
    }
}

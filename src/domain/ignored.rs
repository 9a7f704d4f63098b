//! Why a genuine webhook changes nothing. The names are public: they stand in a metric's label and in the pages about events.

named! {
    /// Why a genuine webhook changes nothing. A bounded set, so that it can be a metric's label.
    #[derive(PartialOrd, Ord)]
    pub enum IgnoredWhy {
        /// It reports no money of a payment.
        NoMoney = "no_money",
        /// Another event reports the same money.
        SaidByAnotherEvent = "said_by_another_event",
        /// It reports the release of money that was never taken.
        ReleasedHold = "released_hold",
        /// It reports that a request was refused, which changes nothing.
        RequestFailed = "request_failed",
        /// It reports money that belongs to no payment.
        NoPayment = "no_payment",
        /// It reports money, and names no order of ours that it could be for.
        NotOurs = "not_ours",
        /// This release does not know the type.
        UnknownType = "unknown_type",
    }
}

//! Why a message waits through no fault of its own. The names are public: they stand in a metric's label and in stories.

named! {
    /// Why a delivery was separated from its batch: it could not be settled then, and the fault was not its own.
    pub enum Separated {
        /// Another session of Postgres holds a row that it needs.
        Locked = "locked",
        /// Its order's row cannot be read.
        UnreadableOrder = "unreadable_order",
        /// The database, or this program, fails at this message alone.
        Fault = "fault",
        /// RabbitMQ has not confirmed its copy for the retry queues or the dead letters.
        CopyNotConfirmed = "copy_not_confirmed",
    }
}

impl Separated {
    /// What is the matter, for people.
    pub fn words(self) -> &'static str {
        match self {
            Self::Locked => "another session of Postgres has locked a row that it needs",
            Self::UnreadableOrder => "its order's row cannot be read",
            Self::Fault => "Postgres or grantonce fails at this message alone: the worker's log says how",
            Self::CopyNotConfirmed => "RabbitMQ does not confirm its copy: the worker's log says why",
        }
    }
}

//! Why a message waits through no fault of its own. The names are public: they stand in a metric's label and in stories.

macro_rules! separated {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $words:literal;)+) => {
        /// Why a delivery was separated from its batch: it could not be settled then, and the fault was not its own.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Separated {
            $($(#[$doc])* $variant,)+
        }

        impl Separated {
            /// Every cause, for metrics and documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The public name.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The other way round.
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|cause| cause.name() == name)
            }

            /// What is the matter, for people.
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$variant => $words,)+
                }
            }
        }
    };
}

separated! {
    /// Another session of Postgres holds a row that it needs.
    Locked = "locked", "another session of Postgres has locked a row that it needs";
    /// Its order's row cannot be read.
    UnreadableOrder = "unreadable_order", "its order's row cannot be read";
    /// The database, or this program, fails at this message alone.
    Fault = "fault", "Postgres or grantonce fails at this message alone: the worker's log says how";
    /// RabbitMQ has not confirmed its copy for the retry queues or the dead letters.
    CopyNotConfirmed = "copy_not_confirmed", "RabbitMQ does not confirm its copy: the worker's log says why";
}

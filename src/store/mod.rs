//! The only module that uses Postgres. SQL is in methods of `tx::Tx`, so nothing is written outside a transaction.

mod amend;
mod audit;
mod batch;
mod condition;
mod connect;
mod creation;
mod error;
mod explain;
mod forget;
mod inbox;
mod letters;
mod looks;
mod notes;
mod order_row;
mod orders;
mod overpaid;
mod payment_key;
mod pool;
mod probe;
mod reader;
mod schema;
mod tx;
mod verify;
mod watch;

pub use amend::{Amended, Amendment};
pub use audit::{Actor, AuditFilter, AuditLine};
pub use batch::{Applied, ApplyOptions, BatchTerms, JudgedOrders, LOCK_WAIT, Outcome, WEIGHED_MAX, Weighed};
pub use creation::{Creation, HandedOut, Kept};
pub use error::{Class, NoneFree, StoreError};
pub use explain::{Asked, ExplainTerms};
pub use forget::{Forgetting, Forgotten};
pub use inbox::Maintained;
pub use letters::{
    Begun, Claimed, LETTERS_GROUPED_MAX, LETTERS_NAMED_MAX, Letter, LetterCursor, LetterFilter, LetterGroup,
    LetterReplay, LetterRow, LetterToWeigh, LettersPage, NewLetter, NewReplay, OpenLetters, OrderLetters, OrdersPage,
    REPLAY_LETTERS_MAX, Replay, ReplayCounts, ReplayMember, ReplayPace, ReplayState, Sent, Weight,
};
pub use looks::{Askable, AskedAbout, ClaimTerms, DueLook, LookState, Looked, LookedAt, ProviderAnswer, Wanted};
pub use notes::{Activity, ActivityMinute, MessageNote, NoteBuffer, Noted};
pub use orders::{Attach, Balance, Created, ENTRIES_PAGE_MAX, Entry, EntryKind, IdempotencyKey, NewOrder, OrderView};
pub use overpaid::OverpaidOrder;
pub use pool::{Profile, Settings, Store, is_session_shared};
pub use probe::Probed;
pub use reader::{OrderRead, OrderReader};
pub use schema::migrate;
pub use tx::Committed;
pub use verify::BrokenInvariant;
pub use watch::{ChangedOrders, Changes, Watch};

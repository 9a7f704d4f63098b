//! The command lines of `dlq`.

use super::{actor, exit_codes, reason, with_examples};
use crate::domain::{LetterId, LetterState, OrderId, Reason, VerdictKind};
use crate::named::NoSuchName;
use clap::{Args, Subcommand};
use std::str::FromStr;

/// The most dead letters that a replay sends in a second.
const PER_SECOND_MAX: u16 = 1_000;

/// The commands of `dlq`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, newest first, or groups of them
    ///
    /// Lists open dead letters and those under replay, unless you set --state. With --json each dead letter is one line,
    /// printed as soon as it is read, so the list can have any length.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq list --groups\n  grantonce dlq list --reason-is amount_mismatch --older-than 1h\n  \
         grantonce dlq list --verdict would_grant --json | jq -r .id"
    ))]
    List(ListArgs),

    /// Show one dead letter: its cause, the likely result of a replay, its history and its body
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq show 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f"
    ))]
    Show(ShowArgs),

    /// Replay dead letters; without --yes, print what a replay would do
    ///
    /// Without --yes it sends nothing and prints the number of dead letters for each verdict. It skips dead letters that
    /// would be refused again, or whose order is still unknown, unless you set --also-hopeless. It sends one dead letter
    /// first, and the others when that one has been applied. Ctrl-C ends the replay: dead letters that were not sent are
    /// open again. A replay never grants twice.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq replay --reason-is amount_mismatch\n  \
         grantonce dlq replay 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f --yes --reason 'order created, ticket 4711'\n  \
         grantonce dlq replay --all --yes --reason 'prices amended' --per-second 200"
    ))]
    Replay(ReplayArgs),

    /// Set the price of orders to what was paid, for dead letters of reason amount_mismatch
    ///
    /// Without --yes it changes nothing and prints the old and the new price of each order. The order's price_terms decide
    /// the new price: the whole captured amount, the amount without tax, or the amount before the discount. An order keeps
    /// its price if its dead letters name different prices, if it is granted, or if a new price would not help. The command
    /// grants nothing: replay the dead letters afterwards. One run takes at most 2,000 dead letters, oldest first; run it
    /// again for the rest.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq amend --to-what-was-paid --all\n  \
         grantonce dlq amend --to-what-was-paid --provider stripe --newer-than 1d --yes --reason 'tax was switched on, ticket 4711'\n  \
         grantonce dlq replay --reason-is amount_mismatch --yes --reason 'prices amended, ticket 4711'"
    ))]
    Amend(AmendToPaidArgs),

    /// Archive dead letters that need no more work
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq archive 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f --reason 'refunded by hand, ticket 4711'"
    ))]
    Archive(MoveArgs),

    /// Open archived dead letters again
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq restore 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f --reason 'not refunded after all'"
    ))]
    Restore(MoveArgs),

    /// Count dead letters by state and reason, running replays, and messages in the broker's dead-letter queue
    #[command(after_help = exit_codes(), after_long_help = with_examples("  grantonce dlq stats --json"))]
    Stats(JsonArgs),

    /// Show dead letters in the broker's queue without removing them, for when Postgres is down
    ///
    /// Refuses if reading could destroy messages: the queue's delivery limit is low, or cannot be read.
    #[command(after_help = exit_codes(), after_long_help = with_examples("  grantonce dlq peek --count 5"))]
    Peek(PeekArgs),
}

/// Filters that select dead letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Which {
    /// Ids of dead letters
    #[arg(value_name = "LETTER")]
    pub ids: Vec<LetterId>,

    /// Only dead letters with this reason
    #[arg(long = "reason-is", visible_alias = "with-reason", value_name = "REASON", value_parser = name_of::<Reason>)]
    pub reason_is: Option<String>,

    /// Only dead letters of this provider
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<String>,

    /// Only dead letters with this cause, as `dlq list --groups` shows it
    #[arg(long, value_name = "TEXT")]
    pub cause: Option<String>,

    /// Only dead letters whose last verdict is this one
    #[arg(long, value_name = "VERDICT", value_parser = name_of::<VerdictKind>)]
    pub verdict: Option<String>,

    /// Only dead letters of this order
    #[arg(long, value_name = "ORDER")]
    pub order: Option<OrderId>,

    /// Only dead letters of this payment
    #[arg(long, value_name = "PAYMENT")]
    pub payment: Option<String>,

    /// Only dead letters of this account's orders
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,

    /// Only dead letters of this message
    #[arg(long, value_name = "MESSAGE")]
    pub message: Option<String>,

    /// Only dead letters with this text in the detail or in an id
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,

    /// Only dead letters first seen longer ago than this: 90s, 15m, 6h, 2d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<time::Duration>,

    /// Only dead letters first seen within this time
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub newer_than: Option<time::Duration>,
}

impl Which {
    /// Whether no filter is set.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// `dlq list`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// Filters that select dead letters.
    #[command(flatten)]
    pub which: Which,

    /// Only these states, separated by commas: open, replaying, resolved, archived
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = name_of::<LetterState>)]
    pub state: Vec<String>,

    /// List groups with the same reason, provider and cause, instead of dead letters
    #[arg(long)]
    pub groups: bool,

    /// The most dead letters to list; with --json the default is all
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,

    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// `dlq show`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowArgs {
    /// The id of the dead letter
    #[arg(value_name = "LETTER")]
    pub id: LetterId,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq replay`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ReplayArgs {
    /// Filters that select dead letters.
    #[command(flatten)]
    pub which: Which,

    /// Select all open dead letters
    #[arg(long)]
    pub all: bool,

    /// Send them. Without this, it only prints what a replay would do
    #[arg(long)]
    pub yes: bool,

    /// The reason for the audit log; at most 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason, required_if_eq("yes", "true"))]
    pub reason: Option<String>,

    /// The most dead letters to send in a second, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=i64::from(PER_SECOND_MAX)))]
    pub per_second: u16,

    /// Do not send one dead letter first and wait for its result
    #[arg(long)]
    pub no_canary: bool,

    /// Also replay dead letters that would be refused again, or whose order is unknown
    #[arg(long)]
    pub also_hopeless: bool,

    /// Do not wait for the result: `grantonce ops` sends them
    #[arg(long)]
    pub no_wait: bool,

    /// Your name for the audit log, marked there as self-declared; the default is your user name on this system
    #[arg(long = "as", value_name = "NAME", value_parser = actor)]
    pub by: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq amend`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct AmendToPaidArgs {
    /// Filters among the dead letters of reason amount_mismatch.
    #[command(flatten)]
    pub which: Which,

    /// Take the new price from what the dead letter's message says was paid
    #[arg(long, required = true)]
    pub to_what_was_paid: bool,

    /// Select all open dead letters of reason amount_mismatch
    #[arg(long)]
    pub all: bool,

    /// Write the new prices. Without this, it only prints them
    #[arg(long)]
    pub yes: bool,

    /// The reason for the audit log; at most 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason, required_if_eq("yes", "true"))]
    pub reason: Option<String>,

    /// Your name for the audit log, marked there as self-declared; the default is your user name on this system
    #[arg(long = "as", value_name = "NAME", value_parser = actor)]
    pub by: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq archive`, `dlq restore`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MoveArgs {
    /// Filters that select dead letters.
    #[command(flatten)]
    pub which: Which,

    /// Select all dead letters
    #[arg(long)]
    pub all: bool,

    /// The reason for the audit log; at most 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,

    /// Your name for the audit log, marked there as self-declared; the default is your user name on this system
    #[arg(long = "as", value_name = "NAME", value_parser = actor)]
    pub by: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `dlq stats`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct JsonArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq peek`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PeekArgs {
    /// The most dead letters to show, 1 to 100
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub count: u16,

    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// The name of a value of the closed set `T`.
fn name_of<T: FromStr<Err = NoSuchName> + ToString>(name: &str) -> Result<String, NoSuchName> {
    name.parse::<T>().map(|value| value.to_string())
}

/// A whole number and a unit.
fn age(text: &str) -> Result<time::Duration, String> {
    const FORM: &str = "must be a whole number and s, m, h or d, such as 15m";
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or(FORM)?;
    let number: u32 = number.parse().map_err(|_| FORM)?;
    let number = i64::from(number);
    let seconds = match unit {
        "s" => number,
        "m" => number * 60,
        "h" => number * 3_600,
        "d" if number <= 36_500 => number * 86_400,
        _ => return Err(FORM.to_owned()),
    };
    Ok(time::Duration::seconds(seconds.min(36_500 * 86_400)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_a_number_and_a_unit() {
        for (text, seconds) in [("90s", 90), ("15m", 900), ("6h", 21_600), ("2d", 172_800), ("0s", 0)] {
            assert_eq!(age(text), Ok(time::Duration::seconds(seconds)), "{text}");
        }
        for bad in ["", "15", "m", "-1h", "1.5h", "1w", "99999999d", "1ü"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_checked_against_what_there_is() {
        assert!(name_of::<Reason>("amount_mismatch").is_ok() && name_of::<VerdictKind>("would_grant").is_ok());
        assert!(name_of::<LetterState>("open").is_ok());
        for error in [name_of::<Reason>("amount"), name_of::<VerdictKind>("x"), name_of::<LetterState>("closed")] {
            assert!(error.unwrap_err().to_string().starts_with("must be one of "));
        }
    }
}

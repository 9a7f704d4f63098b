//! `dlq`: what is done about dead letters.

use super::{actor, exit_codes, reason, with_examples};
use crate::domain::{LetterId, LetterState, OrderId, Reason, VerdictKind};
use crate::named::NoSuchName;
use clap::{Args, Subcommand};
use std::str::FromStr;

/// Most letters a second that a replay sends.
const PER_SECOND_MAX: u16 = 1_000;

/// What is done about dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum DlqCommand {
    /// List dead letters, the newest first, or groups of them
    ///
    /// Lists what is open or under replay, unless --state says otherwise. With --json every letter is a line of its own, as it
    /// is read: no matter how many there are.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq list --groups\n  grantonce dlq list --reason-is amount_mismatch --older-than 1h\n  \
         grantonce dlq list --verdict would_grant --json | jq -r .id"
    ))]
    List(ListArgs),

    /// Show one letter: its cause, what a replay would come to now, its history and its body
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq show 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f"
    ))]
    Show(ShowArgs),

    /// Send letters back to work, after a look at what that would come to
    ///
    /// Without --yes it only looks, and says for each verdict how many letters have it. Letters that would be refused again,
    /// or whose order is still unknown, stay where they are unless --also-hopeless. One letter goes first; the others follow
    /// when it was applied. Ctrl-C ends the replay: what was not sent is open again. A replay never grants twice.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq replay --reason-is amount_mismatch\n  \
         grantonce dlq replay 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f --yes --reason 'order created, ticket 4711'\n  \
         grantonce dlq replay --all --yes --reason 'prices amended' --per-second 200"
    ))]
    Replay(ReplayArgs),

    /// Make orders cost what was paid: those of letters of reason amount_mismatch, before their grant
    ///
    /// Without --yes it only looks, and says for each order what it costs and what it would cost. By an order's price_terms that is
    /// all that was captured, or without the tax, or as it was before the discount. An order stays as it is where its letters tell
    /// different prices, where it is granted, or where a new price would not help. Nothing is granted by it: replay the letters
    /// then. It takes 2,000 letters at most, the oldest first: the same again goes on.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq amend --to-what-was-paid --all\n  \
         grantonce dlq amend --to-what-was-paid --provider stripe --newer-than 1d --yes --reason 'tax was switched on, ticket 4711'\n  \
         grantonce dlq replay --reason-is amount_mismatch --yes --reason 'prices amended, ticket 4711'"
    ))]
    Amend(AmendToPaidArgs),

    /// Set letters aside: nothing is to be done about them
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq archive 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f --reason 'refunded by hand, ticket 4711'"
    ))]
    Archive(MoveArgs),

    /// Open archived letters again
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq restore 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f --reason 'not refunded after all'"
    ))]
    Restore(MoveArgs),

    /// Count: letters by state and reason, replays under way, what the broker still holds
    #[command(after_help = exit_codes(), after_long_help = with_examples("  grantonce dlq stats --json"))]
    Stats(JsonArgs),

    /// Look at letters in the broker's own queue, without taking them: for when Postgres is down
    ///
    /// Refuses where looking could destroy messages, because the queue has a low delivery limit or none that can be seen.
    #[command(after_help = exit_codes(), after_long_help = with_examples("  grantonce dlq peek --count 5"))]
    Peek(PeekArgs),
}

/// Which letters.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Which {
    /// These letters
    #[arg(value_name = "LETTER")]
    pub ids: Vec<LetterId>,

    /// With this reason
    #[arg(long = "reason-is", visible_alias = "with-reason", value_name = "REASON", value_parser = name_of::<Reason>)]
    pub reason_is: Option<String>,

    /// Of this provider
    #[arg(long, value_name = "PROVIDER")]
    pub provider: Option<String>,

    /// With this cause, as `dlq list --groups` shows it
    #[arg(long, value_name = "TEXT")]
    pub cause: Option<String>,

    /// With this verdict, as it was found last
    #[arg(long, value_name = "VERDICT", value_parser = name_of::<VerdictKind>)]
    pub verdict: Option<String>,

    /// About this order
    #[arg(long, value_name = "ORDER")]
    pub order: Option<OrderId>,

    /// About this payment
    #[arg(long, value_name = "PAYMENT")]
    pub payment: Option<String>,

    /// About an order of this account
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,

    /// Of this message
    #[arg(long, value_name = "MESSAGE")]
    pub message: Option<String>,

    /// With this text in the detail or an id
    #[arg(long, value_name = "TEXT")]
    pub text: Option<String>,

    /// First seen longer ago than this: 90s, 15m, 6h, 2d
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<time::Duration>,

    /// First seen within this time
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub newer_than: Option<time::Duration>,
}

impl Which {
    /// Whether nothing narrows it down.
    pub fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

/// `dlq list`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ListArgs {
    /// Which letters
    #[command(flatten)]
    pub which: Which,

    /// In these states, by commas: open, replaying, resolved, archived
    #[arg(long, value_name = "STATES", value_delimiter = ',', value_parser = name_of::<LetterState>)]
    pub state: Vec<String>,

    /// Groups instead of letters: those with one reason, provider and cause
    #[arg(long)]
    pub groups: bool,

    /// At most so many letters; all of them with --json
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,

    /// Print JSON, one object a line
    #[arg(long)]
    pub json: bool,
}

/// `dlq show`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowArgs {
    /// The letter's id
    #[arg(value_name = "LETTER")]
    pub id: LetterId,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq replay`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ReplayArgs {
    /// Which letters
    #[command(flatten)]
    pub which: Which,

    /// Every open letter
    #[arg(long)]
    pub all: bool,

    /// Send them; else it only looks
    #[arg(long)]
    pub yes: bool,

    /// Why, for the audit log; at most 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason, required_if_eq("yes", "true"))]
    pub reason: Option<String>,

    /// At most so many letters a second, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=i64::from(PER_SECOND_MAX)))]
    pub per_second: u16,

    /// Send all at once at that rate, instead of one first
    #[arg(long)]
    pub no_canary: bool,

    /// Also those that would be refused again, or whose order is unknown
    #[arg(long)]
    pub also_hopeless: bool,

    /// Do not wait for the outcome: `grantonce ops` does the sending
    #[arg(long)]
    pub no_wait: bool,

    /// Who does it, for the audit log, marked there as self-declared; without it the system's name of the user
    #[arg(long = "as", value_name = "NAME", value_parser = actor)]
    pub by: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq amend`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct AmendToPaidArgs {
    /// Which letters, of those with reason amount_mismatch
    #[command(flatten)]
    pub which: Which,

    /// The new price is what the letter's message says was paid
    #[arg(long, required = true)]
    pub to_what_was_paid: bool,

    /// Every open letter of reason amount_mismatch
    #[arg(long)]
    pub all: bool,

    /// Write the new prices; else it only looks
    #[arg(long)]
    pub yes: bool,

    /// Why, for the audit log; at most 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason, required_if_eq("yes", "true"))]
    pub reason: Option<String>,

    /// Who does it, for the audit log, marked there as self-declared; without it the system's name of the user
    #[arg(long = "as", value_name = "NAME", value_parser = actor)]
    pub by: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq archive`, `dlq restore`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MoveArgs {
    /// Which letters
    #[command(flatten)]
    pub which: Which,

    /// Every one
    #[arg(long)]
    pub all: bool,

    /// Why, for the audit log; at most 500 bytes
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,

    /// Who does it, for the audit log, marked there as self-declared; without it the system's name of the user
    #[arg(long = "as", value_name = "NAME", value_parser = actor)]
    pub by: Option<String>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How something is told.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct JsonArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `dlq peek`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct PeekArgs {
    /// At most so many letters, 1 to 100
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

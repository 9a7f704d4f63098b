//! The command lines of `explain` and `forget`.

use super::{actor, reason};
use crate::domain::AccountId;
use crate::domain::story::SubjectKind;
use clap::Args;

/// Examples for `explain`.
pub(super) const EXPLAIN_EXAMPLES: &str =
    "  grantonce explain 019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f      # an order, or a dead letter
  grantonce explain pi_3QK5example                            # a payment
  grantonce explain stripe::evt_1QK5example --json            # a message
  grantonce explain customer-4711 --kind account --limit 10   # an account's newest orders";

/// Examples for `forget`.
pub(super) const FORGET_EXAMPLES: &str =
    "  grantonce forget customer-4711 --reason 'erasure request, ticket 4711'            # prints what it would do
  grantonce forget customer-4711 --reason 'erasure request, ticket 4711' --as ada --yes";

/// The largest value of `--limit`.
const LIMIT_MAX: i64 = 5_000;

/// The arguments of `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ExplainArgs {
    /// The id of an order, dead letter, message, payment or account; the first match in this order counts
    #[arg(value_name = "ID", value_parser = id)]
    pub id: String,

    /// Look for an id of this kind only: order, letter, message, payment or account
    #[arg(long, value_name = "KIND")]
    pub kind: Option<SubjectKind>,

    /// The most orders of an account (default 50), or the most entries of another story (default 500); the newest stay
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=LIMIT_MAX))]
    pub limit: Option<u16>,

    /// Print one JSON object; its schema is contract/story.v1.schema.json
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `forget`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ForgetArgs {
    /// The account's id
    #[arg(value_name = "ACCOUNT")]
    pub account: AccountId,

    /// The reason for the audit log; at most 500 bytes. Name a ticket, not a person
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: String,

    /// Your name for the audit log, marked there as self-declared; the default is your user name on this system
    #[arg(long = "as", value_name = "NAME", value_parser = actor)]
    pub by: Option<String>,

    /// Erase the data. Without this, it only prints what it would do
    #[arg(long)]
    pub yes: bool,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The rules for account ids allow every other kind of id, too.
fn id(text: &str) -> Result<String, String> {
    AccountId::new(text).map(AccountId::into_string).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn command(line: &[&str]) -> Option<Command> {
        Cli::try_parse_from([&["grantonce"], line].concat()).ok()?.command
    }

    #[test]
    fn an_id_of_any_kind_is_taken_and_bounded() {
        let long = "x".repeat(256);
        for (line, is_taken) in [
            (&["explain", "pi_1"][..], true),
            (&["explain", "customer 4711", "--kind", "account", "--limit", "5000"], true),
            (&["explain"], false),
            (&["explain", ""], false),
            (&["explain", &long], false),
            (&["explain", "a\nb"], false),
            (&["explain", "a", "--kind", "person"], false),
            (&["explain", "a", "--limit", "0"], false),
            (&["explain", "a", "--limit", "5001"], false),
            (&["forget", "acc", "--reason", "x"], true),
            (&["forget", "acc"], false),
            (&["forget", "acc", "--reason", " "], false),
            (&["forget", "", "--reason", "x"], false),
        ] {
            assert_eq!(command(line).is_some(), is_taken, "{line:?}");
        }
    }

    #[test]
    fn who_reads_is_set_up_like_verify_and_who_forgets_like_orders() {}
}

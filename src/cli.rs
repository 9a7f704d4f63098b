//! The command line.

mod dlq;
mod story;

pub use dlq::{AmendToPaidArgs, DlqCommand, JsonArgs, ListArgs, MoveArgs, PeekArgs, ReplayArgs, ShowArgs, Which};

use crate::code::Exit;
use crate::domain::{AMOUNT_MINOR_MAX, Currency, OrderId, tidy};
use crate::role::Role;
use clap::{Args, Parser, Subcommand};
use story::{EXPLAIN_EXAMPLES, FORGET_EXAMPLES};

pub use story::{ExplainArgs, ForgetArgs};

/// The exit codes, for the end of every help text.
fn exit_codes() -> String {
    let line = |exit: Exit| format!("  {:<3}  {}\n", exit.code(), exit.doc().swap_remove(0));
    let lines: String = Exit::ALL.into_iter().map(line).collect();
    format!("Exit codes:\n{lines}\nAll settings: grantonce --help-config")
}

/// Examples for the long help, with the exit codes below.
fn with_examples(examples: &str) -> String {
    format!("Examples:\n{examples}\n\n{}", exit_codes())
}

/// Turn payment webhooks into credits: each payment grants its credits exactly once
#[derive(Debug, Clone, Parser)]
#[command(name = "grantonce", version, after_help = exit_codes(), arg_required_else_help = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Explain every environment variable
    #[arg(long)]
    pub help_config: bool,

    /// The command to run
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands of the program.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Set up the schema in Postgres and the topology in RabbitMQ
    ///
    /// Only this command needs the rights to change them. You can run it again, or twice at once: it leaves what
    /// already exists as it is.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  DATABASE_URL=postgres://owner:…@db/grantonce AMQP_URL=amqp://admin:…@mq/grantonce grantonce migrate"
    ))]
    Migrate,

    /// Receive webhooks: verify them, publish them, and answer when the broker has confirmed
    ///
    /// Needs only RabbitMQ. It keeps accepting webhooks while Postgres is down.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  GRANTONCE_LIVEMODE=true GRANTONCE_STRIPE_WEBHOOK_SECRETS_FILE=/run/secrets/stripe grantonce receiver"
    ))]
    Receiver,

    /// Apply messages in batches: each batch and its grants are one transaction
    ///
    /// You can run many workers: no payment is granted twice, and any worker can apply any message.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  GRANTONCE_LIVEMODE=true grantonce worker\n  GRANTONCE_LIVEMODE=true GRANTONCE_WORKERS=8 grantonce worker"
    ))]
    Worker,

    /// Serve the API: orders, their status, and balances
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  GRANTONCE_API_TOKENS=shop:… GRANTONCE_STATUS_TOKEN_KEY_FILE=/run/secrets/status grantonce api"
    ))]
    Api,

    /// Ask providers about payments that sent no webhook, and publish the answers
    ///
    /// Also captures PayPal payments that the buyer has approved. You can run more than one reconciler: they share the
    /// work and one rate limit.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  GRANTONCE_LIVEMODE=true GRANTONCE_STRIPE_API_KEY_FILE=/run/secrets/stripe-api grantonce reconciler"
    ))]
    Reconciler,

    /// Collect dead letters, replay them, and serve the console for operators
    ///
    /// The console asks for one of the tokens in GRANTONCE_OPS_TOKENS. The audit log shows the name of that token with
    /// each action.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  GRANTONCE_LIVEMODE=true GRANTONCE_OPS_TOKENS_FILE=/run/secrets/ops grantonce ops"
    ))]
    Ops,

    /// Run every role in one process
    #[command(after_help = exit_codes(), after_long_help = with_examples("  grantonce migrate && grantonce all"))]
    All,

    /// Manage dead letters: list, show, replay, archive
    #[command(subcommand, after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce dlq list --groups\n  grantonce dlq replay --reason-is unknown_payment"
    ))]
    Dlq(Box<DlqCommand>),

    /// Connect to Postgres and RabbitMQ, and check that both are set up correctly
    ///
    /// Checks the schema, rights, topology, policies and clocks, and whether Postgres commits. Prints a fix for each
    /// problem, and changes nothing. It sees bindings, policies and alarms only with GRANTONCE_MANAGEMENT_URL.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce check\n  grantonce check --role receiver\n  grantonce check --json"
    ))]
    Check(CheckArgs),

    /// Check the ledger's invariants on the live database
    ///
    /// Reads only. If an invariant is broken, it lists the violations and exits with 1.
    #[command(after_help = exit_codes(), after_long_help = with_examples(
        "  grantonce verify\n  grantonce verify --json"
    ))]
    Verify(VerifyArgs),

    /// Change single orders
    #[command(subcommand, after_help = exit_codes(), after_long_help = with_examples(AMEND_EXAMPLE))]
    Orders(OrdersCommand),

    /// Show the whole story of an order, payment, message, dead letter or account
    ///
    /// Shows the oldest event first, and a summary of what is missing and what to do next. Reads only, and shows no
    /// metadata and no bodies. Exits with 1 if the id is unknown. Needs the same configuration as `verify`.
    #[command(after_help = exit_codes(), after_long_help = with_examples(EXPLAIN_EXAMPLES))]
    Explain(ExplainArgs),

    /// Erase the buyer data of an account: metadata, and the bodies of dead letters
    ///
    /// Without --yes it changes nothing and prints what it would do. The ledger keeps the account's opaque id. An open
    /// dead letter still needs its body: it stays as it is, and the exit code is 1. The audit log records the command.
    /// You can run it again. Needs the same configuration as `orders`.
    #[command(after_help = exit_codes(), after_long_help = with_examples(FORGET_EXAMPLES))]
    Forget(ForgetArgs),
}

/// The arguments of `check`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CheckArgs {
    /// Check only what this role needs, with its configuration; the default is the schema and the whole topology
    #[arg(long, value_name = "ROLE")]
    pub role: Option<Role>,

    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// The commands of `orders`.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum OrdersCommand {
    /// Change the price of an order before its grant
    ///
    /// Use it for a dead letter of reason amount_mismatch or currency_mismatch, when tax or a promotion code changed what
    /// the buyer paid. The audit log records the change and its reason. The command grants nothing: replay the dead
    /// letter afterwards. You can run it again.
    #[command(after_help = exit_codes(), after_long_help = with_examples(AMEND_EXAMPLE))]
    Amend(AmendArgs),
}

/// For `orders` and for `orders amend`.
const AMEND_EXAMPLE: &str = "  grantonce orders amend 019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f --amount-minor 1599 --currency USD \\\n    \
                             --reason 'promotion code SPRING, ticket 4711' --as ada";

/// The arguments of `orders amend`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct AmendArgs {
    /// The order's id
    #[arg(value_name = "ORDER")]
    pub id: OrderId,

    /// The new price in minor units of the currency, such as cents; above zero
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(1..=AMOUNT_MINOR_MAX))]
    pub amount_minor: i64,

    /// The currency code of ISO 4217, in capitals
    #[arg(long, value_name = "CODE")]
    pub currency: Currency,

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

/// Longest reason in the audit log, in bytes.
const REASON_BYTES_MAX: usize = 500;

/// Longest name in the audit log, in bytes.
pub const ACTOR_BYTES_MAX: usize = 100;

fn reason(text: &str) -> Result<String, String> {
    bounded(text, REASON_BYTES_MAX)
}

fn actor(text: &str) -> Result<String, String> {
    bounded(text, ACTOR_BYTES_MAX)
}

/// A text for the audit log: one line, not empty, not cut.
fn bounded(text: &str, bytes_max: usize) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > bytes_max {
        return Err(format!("must have 1 to {bytes_max} bytes"));
    }
    Ok(tidy(text, bytes_max))
}

/// The arguments of `verify`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct VerifyArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    fn command(line: &str) -> Result<Command, ErrorKind> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command.unwrap()).map_err(|error| error.kind())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn bad_usage_is_refused() {
        for (line, kind) in [
            ("grantonce check --role nobody", ErrorKind::ValueValidation),
            ("grantonce demo", ErrorKind::InvalidSubcommand),
            ("grantonce operations", ErrorKind::InvalidSubcommand),
            ("grantonce dlq", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("grantonce dlq replay --all --yes", ErrorKind::MissingRequiredArgument),
            ("grantonce --help-config worker", ErrorKind::ArgumentConflict),
        ] {
            assert_eq!(command(line), Err(kind), "{line}");
        }
    }

    #[test]
    fn an_amendment_has_an_order_a_price_and_a_reason() {
        const ID: &str = "019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f";
        let amend = |id: &str, amount: &str, currency: &str, reason: &str| {
            let line = ["grantonce", "orders", "amend", id, "--amount-minor", amount, "--currency", currency];
            let line = line.into_iter().chain(["--reason", reason]);
            Cli::try_parse_from(line).map(|cli| cli.command.unwrap()).map_err(|error| error.kind())
        };
        let args = AmendArgs {
            id: ID.parse().unwrap(),
            amount_minor: 1599,
            currency: "USD".parse().unwrap(),
            reason: "tax, ticket 4711".to_owned(),
            by: None,
            json: false,
        };
        let expected = Command::Orders(OrdersCommand::Amend(args));
        assert_eq!(amend(ID, "1599", "USD", " tax,\nticket 4711 "), Ok(expected));
        let long = "x".repeat(REASON_BYTES_MAX + 1);
        for (id, amount, currency, reason) in [
            ("not-a-uuid", "1", "USD", "x"),
            ("019b8e2f5c1a7d3e9f002b6a7c8d9e0f", "1", "USD", "x"),
            (ID, "0", "USD", "x"),
            (ID, "-5", "USD", "x"),
            (ID, "1.5", "USD", "x"),
            (ID, "1000000000000001", "USD", "x"),
            (ID, "1", "usd", "x"),
            (ID, "1", "XXX", "x"),
            (ID, "1", "USD", ""),
            (ID, "1", "USD", " "),
            (ID, "1", "USD", &long),
        ] {
            let kind = amend(id, amount, currency, reason).unwrap_err();
            assert!(
                matches!(kind, ErrorKind::ValueValidation | ErrorKind::InvalidValue),
                "{id} {amount} {currency}: {kind:?}"
            );
        }
        for (line, kind) in [
            ("grantonce orders", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("grantonce orders amend", ErrorKind::MissingRequiredArgument),
        ] {
            assert_eq!(command(line), Err(kind), "{line}");
        }
    }

    #[test]
    fn nothing_at_all_shows_the_help() {
        let kind = Cli::try_parse_from(["grantonce"]).unwrap_err().kind();
        assert_eq!(kind, ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
        assert!(Cli::try_parse_from(["grantonce", "--help-config"]).unwrap().help_config);
    }

    #[test]
    fn every_long_help_tells_the_exit_codes_and_an_example() {
        fn check(command: &mut clap::Command) {
            for command in command.get_subcommands_mut() {
                // clap's own.
                if command.get_name() == "help" {
                    continue;
                }
                let help = command.render_long_help().to_string();
                assert!(help.contains("Exit codes:") && help.contains("Examples:\n  "), "{help}");
                check(command);
            }
        }
        check(&mut Cli::command());
    }
}

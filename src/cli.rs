//! The command line.

use crate::config::Role;
use crate::sim::DemoArgs;
use clap::{Args, Parser, Subcommand};

const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  ran and found a fault
  2  bad usage or configuration
  3  a dependency is out of reach

What can be set: grantonce --help-config";

/// Examples for the long help, with the exit codes below.
fn with_examples(examples: &str) -> String {
    format!("Examples:\n{examples}\n\n{EXIT_CODES}")
}

/// Payment webhooks go in, credits come out: each payment grants its credits exactly once.
#[derive(Debug, Clone, Parser)]
#[command(name = "grantonce", version, after_help = EXIT_CODES, arg_required_else_help = true)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Explain every environment variable
    #[arg(long)]
    pub help_config: bool,

    /// What to run
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Set up the schema in Postgres and the topology in RabbitMQ
    ///
    /// The only command that needs rights to change either. Safe to run again, and to run twice at once: what is
    /// there already stays as it is.
    #[command(after_help = EXIT_CODES, after_long_help = with_examples(
        "  DATABASE_URL=postgres://owner:…@db/grantonce AMQP_URL=amqp://admin:…@mq/grantonce grantonce migrate"
    ))]
    Migrate,

    /// Take webhooks in: verify them, publish them, answer once the broker has confirmed
    ///
    /// Needs RabbitMQ only, and keeps accepting while Postgres is down.
    #[command(after_help = EXIT_CODES, after_long_help = with_examples(
        "  GRANTONCE_LIVEMODE=true GRANTONCE_STRIPE_WEBHOOK_SECRETS_FILE=/run/secrets/stripe grantonce receiver"
    ))]
    Receiver,

    /// Apply messages: whole batches of them, each in one transaction with its grant
    ///
    /// Run as many as you want: no payment is granted twice, and none is tied to one worker.
    #[command(after_help = EXIT_CODES, after_long_help = with_examples(
        "  GRANTONCE_LIVEMODE=true grantonce worker\n  GRANTONCE_LIVEMODE=true GRANTONCE_WORKERS=8 grantonce worker"
    ))]
    Worker,

    /// Serve orders, their status, and balances
    #[command(after_help = EXIT_CODES, after_long_help = with_examples(
        "  GRANTONCE_API_TOKENS=shop:… GRANTONCE_STATUS_TOKEN_KEY_FILE=/run/secrets/status grantonce api"
    ))]
    Api,

    /// Run every role in one process
    #[command(after_help = EXIT_CODES, after_long_help = with_examples("  grantonce migrate && grantonce all"))]
    All,

    /// Connect, and compare schema, topology and rights with what a role needs
    ///
    /// Says what to do about every difference, and changes nothing.
    #[command(after_help = EXIT_CODES, after_long_help = with_examples(
        "  grantonce check\n  grantonce check --role receiver"
    ))]
    Check(CheckArgs),

    /// Check the ledger's invariants on the live database
    ///
    /// Reads only. Exits 1 and lists what is broken, if anything is.
    #[command(after_help = EXIT_CODES, after_long_help = with_examples(
        "  grantonce verify\n  grantonce verify --json"
    ))]
    Verify(VerifyArgs),

    /// Run the whole flow with a simulated provider
    ///
    /// To try by hand with curl, or headless: then it pays a number of orders, counts what was granted, and
    /// exits 1 unless nothing was lost, doubled or invented.
    #[command(after_help = EXIT_CODES, after_long_help = with_examples(
        "  grantonce demo\n  grantonce demo --headless --orders 1000 --duplicates 5 --seed 7 --json\n  \
         grantonce demo --headless --workers 3 --kill-workers"
    ))]
    Demo(DemoArgs),
}

/// What `check` looks at.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct CheckArgs {
    /// Check what this role needs, with this role's configuration; else the schema and the whole topology
    #[arg(long, value_name = "ROLE", value_parser = checkable)]
    pub role: Option<Role>,
}

/// How `verify` tells what it found.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct VerifyArgs {
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

impl Command {
    /// Whose configuration the command needs.
    pub fn role(&self) -> Role {
        match self {
            Self::Migrate => Role::Migrate,
            Self::Receiver => Role::Receiver,
            Self::Worker => Role::Worker,
            Self::Api => Role::Api,
            Self::All => Role::All,
            Self::Check(args) => args.role.unwrap_or(Role::Check),
            Self::Verify(_) => Role::Verify,
            Self::Demo(_) => Role::Demo,
        }
    }
}

/// The roles that `check --role` takes: those that run until they are told to stop.
const CHECKABLE: [Role; 5] = [Role::Migrate, Role::Receiver, Role::Worker, Role::Api, Role::All];

fn checkable(name: &str) -> Result<Role, String> {
    name.parse().ok().filter(|role| CHECKABLE.contains(role)).ok_or_else(|| {
        let names: Vec<_> = CHECKABLE.iter().map(|role| role.name()).collect();
        format!("must be one of {}", names.join(", "))
    })
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
    fn commands_name_the_role_whose_configuration_they_need() {
        for (line, role) in [
            ("grantonce migrate", Role::Migrate),
            ("grantonce receiver", Role::Receiver),
            ("grantonce worker", Role::Worker),
            ("grantonce api", Role::Api),
            ("grantonce all", Role::All),
            ("grantonce check", Role::Check),
            ("grantonce check --role receiver", Role::Receiver),
            ("grantonce verify --json", Role::Verify),
            ("grantonce demo", Role::Demo),
        ] {
            assert_eq!(command(line).map(|command| command.role()), Ok(role), "{line}");
        }
    }

    #[test]
    fn the_demo_has_defaults_and_bounds() {
        let defaults = DemoArgs {
            headless: false,
            orders: 200,
            duplicates: 3,
            seed: 1,
            json: false,
            kill_workers: false,
            workers: 2,
        };
        assert_eq!(command("grantonce demo"), Ok(Command::Demo(defaults.clone())));
        let set = "grantonce demo --headless --orders 5 --duplicates 1 --seed 9 --json --kill-workers --workers 4";
        let args =
            DemoArgs { headless: true, orders: 5, duplicates: 1, seed: 9, json: true, kill_workers: true, workers: 4 };
        assert_eq!(command(set), Ok(Command::Demo(args)));
        for (line, kind) in [
            ("grantonce demo --orders 0", ErrorKind::ValueValidation),
            ("grantonce demo --orders 1000001", ErrorKind::ValueValidation),
            ("grantonce demo --duplicates 0", ErrorKind::ValueValidation),
            ("grantonce demo --json", ErrorKind::MissingRequiredArgument),
            ("grantonce check --role nobody", ErrorKind::ValueValidation),
            ("grantonce check --role demo", ErrorKind::ValueValidation),
            ("grantonce reconciler", ErrorKind::InvalidSubcommand),
            ("grantonce --help-config worker", ErrorKind::ArgumentConflict),
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
        for command in Cli::command().get_subcommands_mut() {
            let help = command.render_long_help().to_string();
            assert!(help.contains("Exit codes:") && help.contains("Examples:\n  "), "{help}");
        }
    }
}

//! The command line.

use clap::Parser;

/// How to run it, with examples. `./dev demo` sets the variables.
const HELP: &str = "\
Examples:
  grantonce-demo
  grantonce-demo --headless --orders 1000 --duplicates 5 --seed 7 --json
  grantonce-demo --headless --workers 3 --kill-workers
  grantonce-demo --headless --drop-webhooks 0.3

Environment:
  DATABASE_URL               Postgres, with a user who may create databases
  AMQP_URL                   RabbitMQ
  GRANTONCE_MANAGEMENT_URL   RabbitMQ's HTTP API, with a user who may create virtual hosts. Without it the demo uses
                             the virtual host of AMQP_URL.

Exit codes:
  0  every payment granted its credits exactly once
  1  it did not, or the run failed
  2  bad usage or a bad URL
  3  Postgres or RabbitMQ is out of reach";

/// The whole flow of grantonce, with a simulated provider, a shop and buyers
///
/// Runs the program `grantonce` that lies beside it. Try it by hand, in a shop that opens for it or with curl. Or run it
/// headless: it sells a number of orders as fast as it can, and then some at a steady rate. It counts what was granted, and
/// exits with 1 unless nothing was lost, doubled or invented.
#[derive(Debug, Clone, PartialEq, Eq, Parser)]
#[command(name = "grantonce-demo", version, after_help = HELP)]
pub(crate) struct Args {
    /// Sell orders to simulated buyers, print a summary, and end: with 1 unless every payment granted exactly once
    #[arg(long)]
    pub(crate) headless: bool,
    /// Number of orders to sell (headless)
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) orders: u32,
    /// How often each webhook is sent
    #[arg(long, value_name = "D", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) duplicates: u32,
    /// Decides everything that is left to chance: the same seed repeats a run
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub(crate) seed: u64,
    /// Print the summary as one JSON object (headless)
    #[arg(long, requires = "headless")]
    pub(crate) json: bool,
    /// Share of the payments, 0 to 1, whose webhooks are never sent: the reconciler has to find them (headless)
    #[arg(long, value_name = "SHARE", requires = "headless", default_value = "0")]
    pub(crate) drop_webhooks: Share,
    /// After the phase under load: sell this many orders a second for 10 seconds, and report how long buyers wait; 0: do not
    /// (headless)
    #[arg(long, value_name = "R", requires = "headless", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    pub(crate) steady_rate: u32,
    /// Kill a worker every second while it runs, and start it again
    #[arg(long)]
    pub(crate) kill_workers: bool,
    /// Number of worker processes
    #[arg(long, value_name = "K", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub(crate) workers: u32,
}

/// A number from 0 to 1, kept in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Share(u32);

impl Share {
    /// Whether it is zero.
    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }

    /// The number.
    pub(crate) fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl std::str::FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = "must be a number from 0 to 1, with up to six decimals";
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = !whole.is_empty() && (1..=6).contains(&part.len());
        let digits = format!("{whole}{part:0<6}");
        let millionths = digits.parse().ok().filter(|_| is_number && digits.bytes().all(|b| b.is_ascii_digit()));
        millionths.filter(|millionths| *millionths <= 1_000_000).map(Self).ok_or(fault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use clap::error::ErrorKind;

    fn args(line: &str) -> Result<Args, ErrorKind> {
        Args::try_parse_from(line.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_arguments_have_defaults_and_bounds() {
        Args::command().debug_assert();
        let defaults = Args {
            headless: false,
            orders: 200,
            duplicates: 3,
            seed: 1,
            json: false,
            drop_webhooks: Share::default(),
            steady_rate: 50,
            kill_workers: false,
            workers: 2,
        };
        assert_eq!(args("grantonce-demo"), Ok(defaults));
        let set = "grantonce-demo --headless --orders 5 --duplicates 1 --seed 9 --json --kill-workers --workers 4 \
                   --drop-webhooks 0.25 --steady-rate 0";
        let expected = Args {
            headless: true,
            orders: 5,
            duplicates: 1,
            seed: 9,
            json: true,
            drop_webhooks: "0.25".parse().unwrap(),
            steady_rate: 0,
            kill_workers: true,
            workers: 4,
        };
        assert_eq!(args(set), Ok(expected));
        for (line, kind) in [
            ("grantonce-demo --orders 0", ErrorKind::ValueValidation),
            ("grantonce-demo --orders 1000001", ErrorKind::ValueValidation),
            ("grantonce-demo --duplicates 0", ErrorKind::ValueValidation),
            ("grantonce-demo --json", ErrorKind::MissingRequiredArgument),
            ("grantonce-demo --drop-webhooks 0.5", ErrorKind::MissingRequiredArgument),
            ("grantonce-demo --headless --drop-webhooks 1.5", ErrorKind::ValueValidation),
            ("grantonce-demo --headless --steady-rate 1001", ErrorKind::ValueValidation),
            ("grantonce-demo --steady-rate 10", ErrorKind::MissingRequiredArgument),
        ] {
            assert_eq!(args(line), Err(kind), "{line}");
        }
    }

    #[test]
    fn a_share_is_read_exactly() {
        for (text, share) in [("0", 0), ("1", 1_000_000), ("0.25", 250_000), ("1.0", 1_000_000), ("0.000001", 1)] {
            assert_eq!(text.parse(), Ok(Share(share)), "{text}");
        }
        for text in ["", ".5", "1.000001", "2", "-0.1", "0.1234567", "1.", "0,5", "1e-1", "+1", "0x1"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert!((Share(250_000).as_f64() - 0.25).abs() < 1e-9);
    }
}

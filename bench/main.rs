//! What grantonce takes, measured beside what others take and what the machine gives: `./dev bench --help`.
//!
//! The real binary, the real servers, full durability: quorum queues, `fsync` and `synchronous_commit` as the server has
//! them. Whoever is compared takes turns with the others in every round (A B A B), because the speed of a machine drifts;
//! ratios are those of a round, and their median. After each round the ledger is checked. How it is meant and what came of
//! it: docs/performance.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::wildcard_enum_match_arm,
    reason = "a measuring tool may panic and prints its result"
)]

mod chart;
mod cpu;
mod drain;
mod facts;
mod figures;
mod footprint;
mod growth;
mod ingest;
mod latency;
mod load;
mod peers;
mod places;
mod probes;
mod sides;

use clap::{Parser, Subcommand};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

#[derive(Parser)]
#[command(name = "./dev bench", about = "Measures grantonce beside its peers and the machine's limits")]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Ends with one JSON object on standard output
    #[arg(long, global = true)]
    json: bool,
    /// What `cargo bench` adds by itself
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Messages a second from a full queue
    #[command(
        after_help = "Examples:\n  ./dev bench drain --quick --json\n  ./dev bench drain --rounds 5 --plot drain.svg\n  ./dev bench drain --only grantonce,combined --orders 10000000"
    )]
    Drain(drain::Args),
    /// Webhooks a second that are answered once the broker has confirmed them
    #[command(after_help = "Examples:\n  ./dev bench ingest\n  ./dev bench ingest --rounds 3 --seconds 5 --json")]
    Ingest(ingest::Args),
    /// From a webhook to the answer that its order is fulfilled
    #[command(after_help = "Examples:\n  ./dev bench latency\n  ./dev bench latency --rates 1000 --rounds 5 --json")]
    Latency(latency::Args),
    /// Whether a drain slows down as the inbox and the ledger grow
    #[command(
        after_help = "Takes about 450 bytes of disk a row: 25 GiB for fifty million.\n\nExamples:\n  ./dev bench growth --millions 1,10\n  ./dev bench growth --json"
    )]
    Growth(growth::Args),
    /// Memory, size, and how soon a worker is of use
    #[command(after_help = "Example:\n  ./dev bench footprint --json")]
    Footprint(footprint::Args),
    /// The probe of `ingest`
    #[command(name = ingest::PROBE, hide = true)]
    ConfirmLimit,
}

#[tokio::main]
async fn main() {
    let Cli { what, json, .. } = Cli::parse();
    let measuring = async {
        match what {
            What::Drain(args) => drain::drain(&args, json).await,
            What::Ingest(args) => ingest::ingest(&args, json).await,
            What::Latency(args) => latency::latency(&args, json).await,
            What::Growth(args) => growth::growth(&args, json).await,
            What::Footprint(args) => footprint::footprint(&args, json).await,
            What::ConfirmLimit => ingest::confirm_limit().await,
        }
    };
    let code = tokio::select! {
        // Its panic is told already.
        ended = AssertUnwindSafe(measuring).catch_unwind() => if ended.is_ok() { 0 } else { 1 },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("stopping; what was made on the servers is removed");
            130
        }
    };
    places::Servers::of_environment().remove_all().await;
    std::process::exit(code);
}

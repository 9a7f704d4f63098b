//! Measures grantonce beside its peers and the limits of the machine: `./dev bench --help`.
//!
//! It runs the real binary on real servers with full durability: quorum queues, and `fsync` and `synchronous_commit` as the
//! server has them. The speed of a machine drifts, so all sides run in every round (A B A B). A ratio compares two sides in
//! one round, and the result is the median of all rounds. The ledger is checked after each round. The method and the results
//! are in docs/performance.md.

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
mod pace;
mod peers;
mod places;
mod probes;
mod sides;

use clap::{Parser, Subcommand};
use futures_util::FutureExt;
use std::panic::AssertUnwindSafe;

#[derive(Parser)]
#[command(name = "./dev bench", about = "Measures grantonce beside its peers and the limits of the machine")]
struct Cli {
    #[command(subcommand)]
    what: What,
    /// Print the result as one JSON object
    #[arg(long, global = true)]
    json: bool,
    /// `cargo bench` adds this option by itself
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Subcommand)]
enum What {
    /// Measure how many messages a second are drained from a full queue
    #[command(
        after_help = "Examples:\n  ./dev bench drain --quick --json\n  ./dev bench drain --rounds 5 --plot drain.svg\n  ./dev bench drain --only grantonce,combined --orders 10000000"
    )]
    Drain(drain::Args),
    /// Measure how many webhooks a second are confirmed by the broker and answered
    #[command(after_help = "Examples:\n  ./dev bench ingest\n  ./dev bench ingest --rounds 3 --seconds 5 --json")]
    Ingest(ingest::Args),
    /// Measure the time from a webhook until a buyer sees the order fulfilled, and the processor time of each process
    #[command(
        after_help = "Examples:\n  ./dev bench latency\n  ./dev bench latency --rates 100,1000 --rounds 5 --json"
    )]
    Latency(latency::Args),
    /// Measure the worker's time and processor time for a message at given rates, and compare settings by turns
    #[command(
        after_help = "Examples:\n  ./dev bench pace --rates 100,1000\n  ./dev bench pace --compare GRANTONCE_WORKERS=1 --compare GRANTONCE_WORKERS=6 --json"
    )]
    Pace(pace::Args),
    /// Measure whether a drain slows down as the inbox and the ledger grow
    #[command(
        after_help = "Each row needs about 450 bytes of disk: 25 GiB for fifty million rows.\n\nExamples:\n  ./dev bench growth --millions 1,10\n  ./dev bench growth --json"
    )]
    Growth(growth::Args),
    /// Measure a worker's memory, the size of the binary, and the time from start to the first message
    #[command(after_help = "Example:\n  ./dev bench footprint --json")]
    Footprint(footprint::Args),
    /// Run the probe of `ingest`
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
            What::Pace(args) => pace::pace(&args, json).await,
            What::Growth(args) => growth::growth(&args, json).await,
            What::Footprint(args) => footprint::footprint(&args, json).await,
            What::ConfirmLimit => ingest::confirm_limit().await,
        }
    };
    let code = tokio::select! {
        // A panic has already printed its message.
        ended = AssertUnwindSafe(measuring).catch_unwind() => if ended.is_ok() { 0 } else { 1 },
        _ = tokio::signal::ctrl_c() => {
            eprintln!("stopping: databases and virtual hosts of this run are being removed");
            130
        }
    };
    places::Servers::of_environment().remove_all().await;
    std::process::exit(code);
}

//! `dlq replay`: look, ask, send, and wait for what becomes of it.

use super::{failed, selection, tell};
use crate::broker::{Publisher, PublisherSettings};
use crate::cli::ReplayArgs;
use crate::clock::Clock;
use crate::code::Exit;
use crate::config::DlqConfig;
use crate::ops::prospects::{self, Preview, Terms};
use crate::ops::replay::Runner;
use crate::run::actor::actor;
use crate::run::{RunError, print};
use crate::store::{Actor, NewReplay, Replay, ReplayPace, ReplayState, Store, StoreError};
use crate::telemetry::Metrics;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How long a confirm is awaited.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(10);

/// The pause between two rounds.
const ROUND_EVERY: Duration = Duration::from_millis(200);

/// How long after everything is sent outcomes are waited for; what is still open then shows in the console.
const OUTCOMES_PATIENCE: Duration = Duration::from_secs(60);

/// Looks, and sends where that was said.
pub(super) async fn run(
    args: ReplayArgs,
    config: DlqConfig,
    store: Store,
    clock: Clock,
    stop: CancellationToken,
) -> Result<Exit, RunError> {
    let filter = selection(&args.which, args.all, &clock)?;
    let terms: Terms = config.terms.into();
    let preview = prospects::preview(&store, &terms, filter.clone(), clock.now()).await.map_err(failed)?;
    let letters = if args.also_hopeless { preview.all.clone() } else { preview.helpful.clone() };
    if !args.json {
        print(&tell::preview(&preview, args.also_hopeless))?;
    }
    if !args.yes {
        if args.json {
            print(&format!("{}\n", json!({ "outcome": "looked", "preview": preview_json(&preview) })))?;
        } else if !letters.is_empty() {
            print("nothing was sent. To send: the same with --yes and --reason\n")?;
        }
        return Ok(Exit::Done);
    }
    let by = actor(args.by.clone());
    let replay = NewReplay {
        letters,
        selection: filter,
        per_s_max: args.per_second,
        pace: if args.no_canary { ReplayPace::Steady } else { ReplayPace::Canary },
        by: by.clone(),
        reason: args.reason.clone().unwrap_or_default(),
        now: clock.now(),
    };
    let Some(begun) = store.begin_replay(replay).await.map_err(failed)? else {
        if args.json {
            print(&format!("{}\n", json!({ "outcome": "nothing_to_send", "preview": preview_json(&preview) })))?;
        } else {
            print(
                "nothing was sent: there is no such letter that a replay would help and that nobody else has taken\n",
            )?;
        }
        return Ok(if preview.all.is_empty() { Exit::Done } else { Exit::Fault });
    };
    let ended = if args.no_wait {
        store.replay(begun.id).await.map_err(failed)?
    } else {
        let publisher = Publisher::start(&PublisherSettings {
            url: config.broker.url,
            name: "dlq replay",
            lanes: 1,
            waiting_max: 2_048,
            confirm_deadline: CONFIRM_DEADLINE,
            clock: clock.clone(),
        });
        let runner = Runner { store: store.clone(), publisher, terms, clock: clock.clone(), metrics: Metrics::new() };
        wait(&runner, begun.id, begun.letters, by, &stop).await.map_err(failed)?
    };
    let Some(ended) = ended else { return Ok(Exit::Fault) };
    if args.json {
        print(&format!("{}\n", json!({ "outcome": "replayed", "replay": ended, "preview": preview_json(&preview) })))?;
    } else {
        print(&format!("{}\n", tell::ended(&ended)))?;
    }
    let counts = &ended.counts;
    let went_wrong = counts.dead_again + counts.canceled + counts.unanswered > 0;
    Ok(if went_wrong && !args.no_wait { Exit::Fault } else { Exit::Done })
}

fn preview_json(preview: &Preview) -> serde_json::Value {
    json!({
        "letters": preview.by_verdict.values().sum::<usize>(),
        "helpful": preview.helpful.len(),
        "by_verdict": preview.by_verdict,
        "credits": preview.credits,
        "is_cut": preview.is_cut,
    })
}

/// Sends until the replay has ended, or `stop`: then what was not sent is open again.
async fn wait(
    runner: &Runner,
    id: i64,
    letters: usize,
    by: Actor,
    stop: &CancellationToken,
) -> Result<Option<Replay>, StoreError> {
    // Where nobody looks it draws nothing.
    let bar =
        ProgressBar::with_draw_target(Some(u64::try_from(letters).unwrap_or(u64::MAX)), ProgressDrawTarget::stderr());
    let style = ProgressStyle::with_template("{elapsed_precise} {wide_bar} {pos}/{len} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let mut quiet = tokio::time::Instant::now();
    let mut last = None;
    let ended = loop {
        if let Err(error) = runner.round().await {
            tracing::warn!(event = "replay_interrupted", cause = %error, "trying again");
        }
        let Some(replay) = runner.store.replay(id).await? else { break None };
        let counts = replay.counts;
        if last != Some(counts) {
            (last, quiet) = (Some(counts), tokio::time::Instant::now());
        }
        let known = counts.resolved + counts.dead_again + counts.canceled + counts.unanswered;
        bar.set_position(u64::try_from(known).unwrap_or(0));
        bar.set_message(match counts.dead_again {
            0 => String::new(),
            again => format!("{again} refused again"),
        });
        let is_sending = matches!(replay.state, ReplayState::Canary | ReplayState::Running) && counts.queued > 0;
        if replay.ended_at.is_some() || (!is_sending && quiet.elapsed() >= OUTCOMES_PATIENCE) {
            break Some(replay);
        }
        // The pace of the rounds; what they look for cannot be awaited.
        if stop.run_until_cancelled(tokio::time::sleep(ROUND_EVERY)).await.is_none() {
            let now = runner.clock.now();
            runner.store.cancel_replay(id, by, "interrupted".to_owned(), now).await?;
            break runner.store.replay(id).await?;
        }
    };
    bar.finish_and_clear();
    Ok(ended)
}

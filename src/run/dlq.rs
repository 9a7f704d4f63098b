//! `dlq`: dead letters on the command line.

mod amend;
mod replay;
mod tell;

use super::actor::actor;
use super::check;
use super::{RunError, print};
use crate::broker::{self, DepthGauge, Management, PeekError};
use crate::cli::{DlqCommand, JsonArgs, ListArgs, MoveArgs, PeekArgs, ShowArgs, Which};
use crate::clock::Clock;
use crate::code::{Code, Exit};
use crate::config::DlqConfig;
use crate::domain::LetterId;
use crate::ops::prospects::{self, Terms};
use crate::store::{LetterFilter, Profile, Store};
use serde_json::{Value, json};
use std::time::Duration;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

/// How long one transaction may take before its outcome counts as unknown.
const DEADLINE: Duration = Duration::from_secs(60);

/// Letters that are read at once.
const PAGE: u32 = 500;

/// Letters that a list for people has, where nothing else is said.
const LISTED: u32 = 50;

fn failed(error: crate::store::StoreError) -> RunError {
    RunError::of_store("cannot work on dead letters", error)
}

fn usage(what: &str) -> RunError {
    RunError::new(Code::UsageInvalid, "which letters?", std::io::Error::other(what.to_owned()))
}

/// Runs one of them.
pub(super) async fn run(command: DlqCommand, config: DlqConfig, stop: CancellationToken) -> Result<Exit, RunError> {
    let settings = check::settings(config.database.url.clone(), Profile::Operations, DEADLINE);
    let store = Store::new(&settings).map_err(failed)?;
    let clock = Clock::system();
    match command {
        DlqCommand::List(args) if args.groups => groups(args, &store, &clock).await,
        DlqCommand::List(args) => list(args, &store, &clock).await,
        DlqCommand::Show(args) => show(args, &store, config.terms.into(), &clock).await,
        DlqCommand::Replay(args) => replay::run(args, config, store, clock, stop).await,
        DlqCommand::Amend(args) => amend::run(args, config.terms.into(), &store, &clock).await,
        DlqCommand::Archive(args) => archive(args, &store, &clock, true).await,
        DlqCommand::Restore(args) => archive(args, &store, &clock, false).await,
        DlqCommand::Stats(args) => stats(args, config, &store, &clock).await,
        DlqCommand::Peek(args) => peek(args, config).await,
    }
}

/// What narrows letters down, as the store takes it.
fn filter(which: &Which, now: OffsetDateTime) -> LetterFilter {
    LetterFilter {
        ids: (!which.ids.is_empty()).then(|| which.ids.iter().map(|id| id.0).collect()),
        states: vec![],
        reason: which.reason_is.clone(),
        provider: which.provider.clone(),
        cause: which.cause.clone(),
        verdict: which.verdict.clone(),
        order_id: which.order.map(|id| id.0),
        payment_id: which.payment.clone(),
        account_id: which.account.clone(),
        message_id: which.message.clone(),
        text: which.text.clone(),
        before: which.older_than.map(|age| now - age),
        since: which.newer_than.map(|age| now - age),
    }
}

/// The letters that a command is about; nothing narrows them down only where that was said.
fn selection(which: &Which, all: bool, clock: &Clock) -> Result<LetterFilter, RunError> {
    if which.is_everything() && !all {
        return Err(usage("name letters, narrow them down (--reason-is, --provider, --order …), or say --all"));
    }
    Ok(filter(which, clock.now()))
}

async fn list(args: ListArgs, store: &Store, clock: &Clock) -> Result<Exit, RunError> {
    let now = clock.now();
    let filter = LetterFilter { states: args.state, ..filter(&args.which, now) };
    let mut left = args.limit.unwrap_or(if args.json { u32::MAX } else { LISTED });
    let (mut after, mut seen) = (None, 0_usize);
    while left > 0 {
        let page = store.letters(filter.clone(), after, left.min(PAGE)).await.map_err(failed)?;
        seen += page.letters.len();
        left = left.saturating_sub(u32::try_from(page.letters.len()).unwrap_or(u32::MAX));
        for letter in &page.letters {
            let text = if args.json { json!(letter).to_string() } else { tell::row(letter, now) };
            print(&format!("{text}\n"))?;
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    if !args.json {
        match (seen, after.is_some()) {
            (0, _) => print("no such letters\n")?,
            (_, true) => print(&format!("… there are more: --limit, or --groups. Shown: {seen}\n"))?,
            (_, false) => {}
        }
    }
    Ok(Exit::Done)
}

async fn groups(args: ListArgs, store: &Store, clock: &Clock) -> Result<Exit, RunError> {
    let now = clock.now();
    let filter = LetterFilter { states: args.state, ..filter(&args.which, now) };
    let groups = store.letter_groups(filter).await.map_err(failed)?;
    for group in &groups {
        let text = if args.json { json!(group).to_string() } else { tell::group(group, now) };
        print(&format!("{text}\n"))?;
    }
    if groups.is_empty() && !args.json {
        print("no such letters\n")?;
    }
    Ok(Exit::Done)
}

/// Which letters somebody asks for by its id.
async fn found(store: &Store, id: LetterId) -> Result<Option<crate::store::Letter>, RunError> {
    store.letter(id).await.map_err(failed)
}

async fn show(args: ShowArgs, store: &Store, terms: Terms, clock: &Clock) -> Result<Exit, RunError> {
    // Looked at now: what it came to before may be old.
    let now = clock.now();
    prospects::preview(store, &terms, LetterFilter::of_ids([args.id]), now).await.map_err(failed)?;
    let Some(letter) = found(store, args.id).await? else {
        if args.json {
            print(&format!("{}\n", json!({ "error": "no such letter", "id": args.id })))?;
        } else {
            print(&format!("there is no letter {}: it was deleted after its retention, or never there\n", args.id))?;
        }
        return Ok(Exit::Fault);
    };
    if args.json {
        let mut object = json!(letter);
        if let Value::Object(fields) = &mut object {
            let text = letter.body.as_deref().map(String::from_utf8_lossy);
            fields.insert("body".to_owned(), json!(text));
        }
        print(&format!("{object}\n"))?;
    } else {
        print(&tell::letter(&letter, now))?;
    }
    Ok(Exit::Done)
}

async fn archive(args: MoveArgs, store: &Store, clock: &Clock, away: bool) -> Result<Exit, RunError> {
    let filter = selection(&args.which, args.all, clock)?;
    let (by, now) = (actor(args.by), clock.now());
    let moved = if away {
        store.archive_letters(filter, by, args.reason, now).await
    } else {
        store.restore_letters(filter, by, args.reason, now).await
    };
    let moved = moved.map_err(failed)?;
    let what = if away { "archived" } else { "restored" };
    if args.json {
        print(&format!("{}\n", json!({ "outcome": what, "letters": moved })))?;
    } else {
        print(&format!("{what}: {moved} letters\n"))?;
    }
    Ok(if moved > 0 { Exit::Done } else { Exit::Fault })
}

async fn stats(args: JsonArgs, config: DlqConfig, store: &Store, clock: &Clock) -> Result<Exit, RunError> {
    let now = clock.now();
    let open = store.open_letters(now).await.map_err(failed)?;
    let states = store.letter_counts().await.map_err(failed)?;
    let under_way = store.replays_under_way().await.map_err(failed)?;
    let mut gauge = DepthGauge::new(config.broker.url);
    let depths = gauge.read().await;
    gauge.close().await;
    let depths = depths.inspect_err(|error| tracing::warn!(event = "queues_unknown", cause = %error)).ok();
    if args.json {
        let by_state: serde_json::Map<String, Value> =
            states.iter().map(|(state, count)| (state.name().to_owned(), json!(count))).collect();
        let by_reason: serde_json::Map<String, Value> =
            open.by_reason.iter().map(|(reason, count)| (reason.clone(), json!(count))).collect();
        let object = json!({
            "letters": by_state,
            "open_by_reason": by_reason,
            "oldest_open_s": open.oldest_at.map(|at| (now - at).whole_seconds()),
            "grants_missing": open.grants_missing,
            "overpaid_orders": open.overpaid_orders,
            "replays_under_way": under_way,
            "queues": depths,
        });
        print(&format!("{object}\n"))?;
    } else {
        print(&tell::stats(&open, &states, &under_way, depths.as_ref(), now))?;
    }
    Ok(Exit::Done)
}

async fn peek(args: PeekArgs, config: DlqConfig) -> Result<Exit, RunError> {
    let management =
        config.management_url.map(|url| Management::new(url, &config.broker.url.current().vhost)).transpose();
    let management =
        management.map_err(|error| RunError::new(Code::ConfigInvalid, "GRANTONCE_MANAGEMENT_URL", error))?;
    let peeked = broker::peek(&config.broker.url, management.as_ref(), args.count).await;
    let letters = peeked.map_err(|error| match error {
        PeekError::Broker(error) => RunError::of_broker("cannot look at the dead letters' queue", error),
        PeekError::Management(_) => {
            RunError::new(Code::ManagementUnreachable, "cannot look at the dead letters' queue", error)
        }
        PeekError::Dangerous(_) | PeekError::CannotTell => RunError::new(Code::PeekUnsafe, "did not look", error),
    })?;
    if letters.is_empty() && !args.json {
        print("the broker holds no dead letters: they are collected, or there are none\n")?;
    }
    for letter in &letters {
        let text = if args.json { tell::peeked_json(letter).to_string() } else { tell::peeked(letter) };
        print(&format!("{text}\n"))?;
    }
    Ok(Exit::Done)
}

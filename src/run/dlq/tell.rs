//! Dead letters in words, for a terminal of 100 columns or more.

use crate::broker::{Delivery, Depths};
use crate::domain::{LetterState, Outlook, VerdictKind};
use crate::message::{DETAIL_HEADER, REASON_HEADER};
use crate::ops::amending::Proposals;
use crate::ops::prospects::Preview;
use crate::store::{Letter, LetterGroup, LetterRow, OpenLetters, Replay};
use serde_json::{Value, json};
use std::fmt::Write as _;
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};

/// What is shown of a body that is no JSON, in bytes.
const BODY_SHOWN_BYTES_MAX: usize = 4_000;

/// How long ago, by the largest unit that fits.
pub(super) fn age(since: OffsetDateTime, now: OffsetDateTime) -> String {
    let seconds = (now - since).max(Duration::ZERO).whole_seconds();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn at(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

/// A text of somebody else's on a terminal: no control characters, which could move the cursor or set its title.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// A letter in two lines.
pub(super) fn row(letter: &LetterRow, now: OffsetDateTime) -> String {
    let content = letter.said.as_deref().unwrap_or("unreadable");
    let verdict = letter.verdict_detail.as_deref().unwrap_or("not looked at yet");
    let payment = letter.payment_id.as_deref().unwrap_or("-");
    plain(&format!(
        "{} {} {} · {} · {} {payment} · {content} · {} ago\n    {}\n    {verdict}",
        letter.id,
        letter.state.name(),
        letter.reason,
        letter.message_id,
        letter.provider,
        age(letter.first_seen_at, now),
        letter.detail,
    ))
}

/// A group in two lines.
pub(super) fn group(group: &LetterGroup, now: OffsetDateTime) -> String {
    let provider = if group.provider.is_empty() { "no provider" } else { &group.provider };
    plain(&format!(
        "{:>7} {} · {provider} · oldest {} ago · a replay would help {}\n        {}",
        group.letters,
        group.reason,
        age(group.oldest_at, now),
        group.helpful,
        group.cause
    ))
}

/// A whole letter, the cause first.
pub(super) fn letter(letter: &Letter, now: OffsetDateTime) -> String {
    let row = &letter.row;
    let mut out = String::new();
    let mut tell = |name: &str, text: &str| {
        let _ = writeln!(out, "{name:<10} {}", plain(text));
    };
    tell("cause", &format!("{}: {}", row.reason, row.detail));
    tell("a replay", row.verdict_detail.as_deref().unwrap_or("not looked at yet"));
    let by = row.state_by.as_deref().map_or(String::new(), |by| format!(" by {by}"));
    let why = row.state_reason.as_deref().map_or(String::new(), |why| format!(": {why}"));
    tell("state", &format!("{}{by} for {}{why}", row.state.name(), age(row.state_at, now)));
    tell("letter", &row.id.to_string());
    tell("message", &row.message_id);
    tell("says", row.said.as_deref().unwrap_or("it cannot be read"));
    tell("payment", &format!("{} {}", row.provider, row.payment_id.as_deref().unwrap_or("-")));
    let account = row.account_id.as_deref().map_or(String::new(), |id| format!(" of account {id}"));
    tell("order", &row.order_id.map_or("-".to_owned(), |id| format!("{id}{account}")));
    for other in letter.orders.iter().filter(|id| Some(**id) != row.order_id) {
        tell("also", &format!("order {other}"));
    }
    tell("given up", &format!("by the {} after {} attempts", row.origin, row.attempts));
    tell("seen", &format!("{} times, first {}, last {}", row.seen, at(row.first_seen_at), at(row.last_seen_at)));
    for replay in &letter.history {
        let ended = replay.ended_at.map_or("not known yet".to_owned(), at);
        let text = format!(
            "{} by {} ({}), in replay {}: {} {ended}",
            at(replay.asked_at),
            replay.actor,
            replay.reason,
            replay.replay_id,
            replay.state
        );
        tell(&format!("replay {}", replay.number), &text);
    }
    tell("type", &row.kind);
    tell("key", &letter.routing_key);
    tell("headers", &letter.headers.to_string());
    let _ = write!(out, "\n{}\n", plain(&body(letter)));
    out
}

fn body(letter: &Letter) -> String {
    let Some(body) = letter.body.as_deref() else { return "(its body was emptied)".to_owned() };
    if let Ok(json) = serde_json::from_slice::<Value>(body) {
        return serde_json::to_string_pretty(&json).unwrap_or_default();
    }
    let shown = body.get(..BODY_SHOWN_BYTES_MAX.min(body.len())).unwrap_or_default();
    let rest = letter.body_bytes - i32::try_from(shown.len()).unwrap_or(i32::MAX);
    let more = if rest > 0 { format!("\n… {rest} bytes more; --json has what is kept") } else { String::new() };
    format!("{}{more}", String::from_utf8_lossy(shown))
}

/// What a replay would come to.
pub(super) fn preview(preview: &Preview, also_hopeless: bool) -> String {
    let mut out = String::new();
    for name in VerdictKind::NAMES.iter().copied() {
        let Some(count) = preview.by_verdict.get(name) else { continue };
        let _ = writeln!(out, "{count:>7} {name}");
        for (id, outlook) in preview.examples.iter().filter(|(_, outlook)| outlook.name() == name) {
            let _ = writeln!(out, "        {id}  {}", plain(&Outlook::to_string(outlook)));
        }
    }
    let taken = if also_hopeless { preview.all.len() } else { preview.helpful.len() };
    let _ = writeln!(out, "{taken:>7} to be sent, {:+} credits", preview.credits);
    if preview.is_cut {
        out.push_str("        there are more than one replay takes: run it again afterwards\n");
    }
    out
}

/// What orders would cost if they cost what was paid.
pub(super) fn proposals(proposals: &Proposals) -> String {
    let mut out = String::new();
    for proposal in &proposals.all {
        let _ = match (proposal.order, &proposal.outcome) {
            (Some((order, before)), Ok(change)) => {
                writeln!(
                    out,
                    "order {order}: {} → {}; a replay {}",
                    before.written(),
                    change.price.written(),
                    plain(&change.then.to_string())
                )
            }
            (Some((order, before)), Err(stays)) => {
                writeln!(out, "order {order}: stays at {}: {}", before.written(), plain(&stays.to_string()))
            }
            (None, outcome) => {
                let why = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
                let letters = proposal.letters.iter().map(ToString::to_string).collect::<Vec<_>>();
                writeln!(out, "letter {}: {}", letters.join(", "), plain(&why))
            }
        };
    }
    let changes = proposals.changes();
    let _ = writeln!(out, "{changes:>7} orders to be amended, {} stay as they are", proposals.all.len() - changes);
    if proposals.is_cut {
        out.push_str("        there are more letters than one look takes, and these are the oldest: run it again when these are replayed, or\n        narrow the letters down\n");
    }
    out
}

/// How a replay ended, in one line.
pub(super) fn ended(replay: &Replay) -> String {
    let counts = &replay.counts;
    let note = replay.note.as_deref().map_or(String::new(), |note| format!(": {note}"));
    format!(
        "replay {} {}{note}\n{} applied, {} refused again, {} not sent, {} of which nothing was heard, {} on their way",
        replay.id,
        replay.state.name(),
        counts.resolved,
        counts.dead_again,
        counts.canceled + counts.queued,
        counts.unanswered,
        counts.sent,
    )
}

/// Prints counts: open letters by reason, letters by state, replays under way, and messages in the queues.
pub(super) fn stats(
    open: &OpenLetters,
    states: &[(LetterState, i64)],
    under_way: &[Replay],
    depths: Option<&Depths>,
    now: OffsetDateTime,
) -> String {
    let mut out = String::new();
    for (state, count) in states {
        let _ = writeln!(out, "{count:>9} {}", state.name());
    }
    if states.is_empty() {
        out.push_str("no letters were collected yet\n");
    }
    for (reason, count) in &open.by_reason {
        let _ = writeln!(out, "{count:>9} open: {reason}");
    }
    if let Some(oldest) = open.oldest_at {
        let _ = writeln!(out, "{:>9} old is the oldest open one", age(oldest, now));
    }
    let _ = writeln!(
        out,
        "{:>9} paid orders without their credits, as far as letters and providers tell",
        open.grants_missing
    );
    let _ = writeln!(out, "{:>9} orders of which more money is kept than they cost", open.overpaid_orders);
    for replay in under_way {
        let _ = writeln!(out, "\n{}", ended(replay));
    }
    match depths {
        Some(depths) => {
            for (name, depth) in
                [("fulfilment", depths.fulfilment), ("payments.hints", depths.hints), ("fulfilment.dead", depths.dead)]
            {
                let _ = writeln!(out, "{:>9} ready in {name}, {} consumers", depth.ready, depth.consumers);
            }
        }
        None => out.push_str("the queues cannot be asked: is AMQP_URL right?\n"),
    }
    out
}

/// A letter in the broker's queue.
pub(super) fn peeked_json(letter: &Delivery) -> Value {
    json!({
        "message_id": letter.message_id,
        "type": letter.kind,
        "routing_key": letter.routing_key,
        "reason": letter.headers.text(REASON_HEADER),
        "detail": letter.headers.text(DETAIL_HEADER),
        "headers": letter.headers.to_json(),
        "body": String::from_utf8_lossy(&letter.body),
        "body_bytes": letter.unreadable.as_ref().map_or(json!(letter.body.len()), |it| json!(it.body_bytes)),
        "unreadable": letter.unreadable.as_ref().map(|it| &it.faults),
    })
}

/// The same in words.
pub(super) fn peeked(letter: &Delivery) -> String {
    let given_up = letter.death.as_ref().map(|death| death.reason.as_str());
    let refusal = letter.refusal();
    let reason = letter.headers.text(REASON_HEADER).or(given_up).unwrap_or("without a reason");
    let body = letter.body.get(..BODY_SHOWN_BYTES_MAX.min(letter.body.len())).unwrap_or_default();
    plain(&format!(
        "{} · {reason} · {}\n    {}\n    {}",
        letter.message_id.as_deref().unwrap_or("without an id"),
        letter.routing_key,
        letter.headers.text(DETAIL_HEADER).or(refusal.as_ref().map(|it| it.detail.as_str())).unwrap_or("-"),
        String::from_utf8_lossy(body)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    #[test]
    fn ages_have_the_unit_that_fits() {
        let now = datetime!(2026-01-05 12:00 UTC);
        for (seconds, text) in [
            (0, "0 s"),
            (119, "119 s"),
            (120, "2 min"),
            (7_199, "119 min"),
            (7_200, "2 h"),
            (172_800, "2 d"),
            (-5, "0 s"),
        ] {
            assert_eq!(age(now - Duration::seconds(seconds), now), text);
        }
    }

    #[test]
    fn nothing_of_somebody_elses_moves_the_cursor() {
        assert_eq!(plain("a\u{1b}[2Jb\r\nc"), "a\u{fffd}[2Jb\u{fffd}\nc");
    }
}

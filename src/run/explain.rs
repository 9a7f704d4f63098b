//! `explain`: a story for a terminal, or as JSON.

use super::{RunError, check, print};
use crate::cli::ExplainArgs;
use crate::clock::Clock;
use crate::code::{Code, Exit};
use crate::config::VerifyConfig;
use crate::domain::story::{Entry, Missing, OrderLine, Story, SubjectKind};
use crate::domain::tidy;
use crate::store::{Asked, ExplainTerms, Profile, Store};
use serde_json::json;
use std::io::IsTerminal as _;
use std::time::Duration;
use time::{OffsetDateTime, UtcOffset};

/// How long the reading may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Most orders of an account, where nothing else is asked for.
const ORDERS: u16 = 50;

/// Most entries of a story, where nothing else is asked for.
const ENTRIES: u16 = 500;

/// What is looked for, and where.
const LOOKED_IN: [(SubjectKind, &str); 5] = [
    (SubjectKind::Order, "orders, and orders that messages name"),
    (SubjectKind::Letter, "dead letters"),
    (SubjectKind::Message, "the inbox, notes of messages, dead letters"),
    (SubjectKind::Payment, "payments, notes of messages, dead letters, looks at providers"),
    (SubjectKind::Account, "accounts of orders"),
];

/// Why something that was there may not be found.
const PRUNED: &str = "the inbox forgets messages after GRANTONCE_INBOX_RETENTION: ask by the order or the payment";

/// Tells what is known by an id; exit 1 where nothing is.
pub(super) async fn run(args: ExplainArgs, config: VerifyConfig) -> Result<Exit, RunError> {
    let failed = |error| RunError::of_store("cannot read the story", error);
    let asked =
        Asked::new(&args.id, args.kind).map_err(|error| RunError::new(Code::UsageInvalid, "this is no id", error))?;
    let store = Store::new(&check::settings(config.database.url, Profile::Audit, DEADLINE)).map_err(failed)?;
    let terms = ExplainTerms {
        now: Clock::system().now(),
        dispute_policy: config.dispute_policy,
        orders_max: args.limit.unwrap_or(ORDERS),
        entries_max: args.limit.unwrap_or(ENTRIES),
    };
    let story = store.explain(asked, terms).await.map_err(failed)?;
    let exit = if story.is_some() { Exit::Done } else { Exit::Fault };
    let out = match (story, args.json) {
        (Some(story), true) => format!("{}\n", json!(story)),
        (Some(story), false) => text(&story, Paint { is_on: std::io::stdout().is_terminal() }),
        (None, true) => {
            let kinds: Vec<_> = looked_in(args.kind).map(|(kind, _)| kind).collect();
            format!("{}\n", json!({ "found": false, "id": args.id, "looked_for": kinds, "hint": PRUNED }))
        }
        (None, false) => {
            let places: Vec<_> =
                looked_in(args.kind).map(|(kind, place)| format!("  {}: {place}\n", kind.name())).collect();
            format!("nothing is known by {}; looked for\n{}{PRUNED}\n", clean(&args.id), places.concat())
        }
    };
    print(&out)?;
    Ok(exit)
}

fn looked_in(kind: Option<SubjectKind>) -> impl Iterator<Item = (SubjectKind, &'static str)> {
    LOOKED_IN.into_iter().filter(move |(known, _)| kind.is_none_or(|wanted| wanted == *known))
}

/// Colours, on a terminal only.
#[derive(Clone, Copy)]
struct Paint {
    is_on: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.is_on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn alarm(self, text: &str) -> String {
        self.with("1;31", text)
    }

    fn faint(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// Columns of a line.
const WIDTH: usize = 120;

/// Longest text that is shown whole, in bytes; above all that is written to the tables.
const TEXT_BYTES_MAX: usize = 4_000;

/// Nothing that providers or people have written may steer the terminal.
fn clean(text: &str) -> String {
    tidy(text, TEXT_BYTES_MAX)
}

/// The text in lines that fit behind an indent; a word that is too long has a line of its own.
fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![];
    let mut line = String::new();
    for word in clean(text).split_whitespace() {
        if !line.is_empty() && indent + line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::take(&mut line));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines
}

/// A paragraph whose first line begins with `head`, which is `indent` columns wide.
fn paragraph(head: &str, indent: usize, text: &str) -> String {
    let lines = wrapped(text, indent);
    let rest = format!("\n{}", " ".repeat(indent));
    format!("{head}{}\n", lines.join(&rest))
}

fn moment(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!("{} {:02}:{:02}:{:02}Z", at.date(), at.hour(), at.minute(), at.second())
}

fn text(story: &Story, paint: Paint) -> String {
    let subject = format!("{} {}", story.subject.kind.name(), clean(&story.subject.id));
    let mut out = format!("{}\n", paint.bold(&subject));
    out.push_str(&paragraph("  ", 2, &story.summary.text));
    for missing in &story.summary.missing {
        out.push_str(&missing_lines(missing, 2, paint));
    }
    let is_account = story.subject.kind == SubjectKind::Account;
    if !story.orders.is_empty() {
        out.push('\n');
    }
    for order in &story.orders {
        out.push_str(&order_line(order, is_account, paint));
    }
    if !story.entries.is_empty() {
        out.push('\n');
    }
    if story.entries_left_out > 0 {
        out.push_str(&format!("… {} earlier entries are left out; see --limit\n", story.entries_left_out));
    }
    for entry in &story.entries {
        out.push_str(&entry_lines(entry, paint));
    }
    for gap in &story.gaps {
        out.push_str(&paragraph("note: ", 6, gap));
    }
    out
}

fn missing_lines(missing: &Missing, indent: usize, paint: Paint) -> String {
    let blank = " ".repeat(indent);
    let mark = if missing.needs_attention { paint.alarm("!") } else { paint.faint("·") };
    let mut out = paragraph(&format!("{blank}{mark} "), indent + 2, &missing.text);
    if let Some(next) = &missing.next {
        out.push_str(&paragraph(&format!("{blank}  next: "), indent + 8, next));
    }
    out
}

fn order_line(order: &OrderLine, is_in_list: bool, paint: Paint) -> String {
    let payments = match order.payment_ids.as_slice() {
        [] => "no payment".to_owned(),
        ids => ids.join(" "),
    };
    let line = format!(
        "{}  {}  {}/{} credits  {} {} (minor units)  {} {payments}",
        moment(order.created_at),
        order.order_id,
        order.credits_granted,
        order.credits,
        order.amount_minor,
        order.currency,
        order.provider
    );
    let status = order.status.name();
    let head = format!("{} ", if order.needs_attention { paint.alarm(status) } else { paint.bold(status) });
    let mut out = paragraph(&head, status.len() + 1, &line);
    if is_in_list {
        out.extend(order.missing.iter().map(|missing| missing_lines(missing, 2, paint)));
    }
    out
}

/// Wide enough for every kind.
const KIND_COLUMNS: usize = 18;

fn entry_lines(entry: &Entry, paint: Paint) -> String {
    let at = moment(entry.at);
    let kind = format!("{:KIND_COLUMNS$}", entry.what.kind());
    let indent = at.len() + 2 + KIND_COLUMNS + 2;
    paragraph(&format!("{}  {}  ", paint.faint(&at), paint.bold(&kind)), indent, &entry.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_paragraph_keeps_to_the_columns_and_hangs() {
        let text = "a sentence of words, ".repeat(20);
        let told = paragraph("head  ", 6, &text);
        let lines: Vec<&str> = told.lines().collect();
        assert!(lines.len() > 3 && lines.iter().all(|line| line.len() <= WIDTH), "{told}");
        assert!(lines[0].starts_with("head  a ") && lines[1..].iter().all(|line| line.starts_with("      ")), "{told}");
        let word = "x".repeat(300);
        assert_eq!(wrapped(&format!("a {word} b"), 0), ["a", word.as_str(), "b"]);
    }

    #[test]
    fn what_others_wrote_does_not_steer_the_terminal() {
        let told = paragraph("", 0, "a\x1b[2Jb\r\nc");
        assert!(!told.contains('\x1b') && !told.contains('\r'), "{told:?}");
        let plain = Paint { is_on: false };
        assert_eq!((plain.alarm("x").as_str(), Paint { is_on: true }.bold("x").as_str()), ("x", "\x1b[1mx\x1b[0m"));
    }

    #[test]
    fn every_kind_is_told_where_it_is_looked_for() {
        assert_eq!(LOOKED_IN.map(|(kind, _)| kind), SubjectKind::ALL);
        assert_eq!(looked_in(Some(SubjectKind::Letter)).count(), 1);
    }
}

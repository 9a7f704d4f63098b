//! The log of a child while it is written: the end in memory, the whole log in a file.

use crate::lock;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::ChildStderr;
use tokio::sync::watch;

/// The number of last lines that are kept in memory.
const LINES_MAX: usize = 1000;

/// The number of "ready" lines that are kept beyond that. They come first, and tests ask for them last.
const READY_LINES_MAX: usize = 64;

/// Longest line in bytes. The rest becomes the next line.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// One line of a child's log, JSON or not.
#[derive(Debug, Clone)]
pub struct LogLine {
    text: Arc<str>,
}

impl LogLine {
    pub(super) fn new(text: &str) -> Self {
        Self { text: Arc::from(text) }
    }

    /// The line as the child wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A field of a JSON line, at its top or under `fields`. Strings have no quotes.
    pub fn field(&self, name: &str) -> Option<String> {
        if !self.text.starts_with('{') {
            return None;
        }
        let line: serde_json::Value = serde_json::from_str(&self.text).ok()?;
        let value = line.get("fields").and_then(|fields| fields.get(name)).or_else(|| line.get(name))?;
        Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
    }

    fn says_ready(&self) -> bool {
        self.text.contains("\"listening\"") || self.text.contains("\"consuming\"")
    }
}

/// The log of one process.
#[derive(Debug, Default)]
pub(super) struct Log {
    lines: Mutex<Lines>,
    written: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Lines {
    ready: Vec<LogLine>,
    last: VecDeque<LogLine>,
    ended: bool,
}

impl Log {
    /// Reads the log to its end in a separate task, so the child never waits for a reader.
    pub(super) fn follow(from: Option<ChildStderr>, mut file: tokio::fs::File) -> Arc<Self> {
        let log = Arc::new(Self::default());
        let Some(from) = from else {
            log.end();
            return log;
        };
        let following = Arc::clone(&log);
        tokio::spawn(async move {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            // An error ends the log: there is nothing more to read.
            while let Ok(1..) = (&mut from).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await {
                // A full disk loses the file, and the run continues.
                let _ = file.write_all(&line).await;
                let _ = file.flush().await;
                following.add(String::from_utf8_lossy(&line).trim_end());
                line.clear();
            }
            following.end();
        });
        log
    }

    pub(super) fn add(&self, text: &str) {
        let line = LogLine::new(text);
        let mut lines = lock(&self.lines);
        if line.says_ready() && lines.ready.len() < READY_LINES_MAX {
            lines.ready.push(line.clone());
        }
        if lines.last.len() == LINES_MAX {
            lines.last.pop_front();
        }
        lines.last.push_back(line);
        drop(lines);
        self.written.send_modify(|written| *written += 1);
    }

    pub(super) fn end(&self) {
        lock(&self.lines).ended = true;
        self.written.send_modify(|written| *written += 1);
    }

    /// Waits until `pick` finds a line, oldest first. Returns `None` if the log has ended without it.
    pub(super) async fn find<T>(&self, pick: impl Fn(&LogLine) -> Option<T>) -> Option<T> {
        let mut written = self.written.subscribe();
        loop {
            written.mark_unchanged();
            let (found, ended) = {
                let lines = lock(&self.lines);
                (lines.ready.iter().chain(&lines.last).find_map(&pick), lines.ended)
            };
            if found.is_some() || ended {
                return found;
            }
            // The sender lives as long as `self`.
            let _ = written.changed().await;
        }
    }

    /// The last lines.
    pub(super) fn tail(&self, count: usize) -> String {
        let lines = lock(&self.lines);
        let skipped = lines.last.len().saturating_sub(count);
        lines.last.iter().skip(skipped).map(|line| format!("  | {}\n", line.text())).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_stands_at_the_top_or_nested() {
        let nested = LogLine::new(r#"{"level":"INFO","fields":{"event":"listening","port":80}}"#);
        assert_eq!(nested.field("event").as_deref(), Some("listening"));
        assert_eq!(nested.field("port").as_deref(), Some("80"));
        assert_eq!(nested.field("level").as_deref(), Some("INFO"));
        assert_eq!(nested.field("absent"), None);
        assert_eq!(LogLine::new(r#"{"event":"listening"}"#).field("event").as_deref(), Some("listening"));
        assert_eq!(LogLine::new("event=listening").field("event"), None);
    }

    #[tokio::test]
    async fn what_was_ready_first_is_still_known_after_much_talk() {
        let log = Log::default();
        log.add(r#"{"event":"listening","listener":"api"}"#);
        for n in 0..2 * LINES_MAX {
            log.add(&format!("line {n}"));
        }
        assert!(log.find(|line| line.says_ready().then_some(())).await.is_some());
        assert_eq!(lock(&log.lines).last.len(), LINES_MAX);
        assert_eq!(log.tail(1), "  | line 1999\n");
        log.end();
        assert!(log.find(|line| (line.text() == "line 0").then_some(())).await.is_none());
    }
}

//! Log lines. Each has an `event`, ids and a cause; never a body, a signature or a secret. Logging never waits for stderr.

use super::log_queue::LogQueue;
use prometheus_client::metrics::counter::Counter;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal as _};
use std::panic::PanicHookInfo;
use std::str::FromStr;
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{EnvFilter, Registry};

/// What is logged where `RUST_LOG` says nothing. Postgres' notices ("relation exists, skipping") tell an operator
/// nothing, and what goes wrong with the broker is told by us, once, with what we do about it: the AMQP client's own lines
/// say it a second time, and also for connections that we close.
const FILTER_DEFAULT: &str = "info,sqlx::postgres::notice=warn,lapin=off";

/// How long the process waits at its end for stderr to take the last lines.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// The process's lines on their way to stderr.
static QUEUE: OnceLock<LogQueue> = OnceLock::new();

/// The lines that were dropped.
static DROPPED: LazyLock<Counter> = LazyLock::new(Counter::default);

named! {
    /// How log lines look.
    pub enum LogFormat {
        /// Lines of text for people.
        Text = "text",
        /// One JSON object a line.
        Json = "json",
    }
}

impl LogFormat {
    /// Text where stderr is a terminal, else JSON.
    pub fn suited() -> Self {
        if std::io::stderr().is_terminal() { Self::Text } else { Self::Json }
    }
}

/// What is logged: the directives of `RUST_LOG`, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFilter(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self(FILTER_DEFAULT.to_owned())
    }
}

impl FromStr for LogFilter {
    type Err = tracing_subscriber::filter::ParseError;
    fn from_str(directives: &str) -> Result<Self, Self::Err> {
        parse(directives)?;
        Ok(Self(directives.to_owned()))
    }
}

fn parse(directives: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into()).parse(directives)
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// It can be set up once a process.
    #[error("logging was set up before")]
    Twice(#[from] TryInitError),
    /// The thread that writes to stderr could not be started.
    #[error("the thread that writes the log cannot be started")]
    Thread(#[from] io::Error),
}

/// Sends the process's log lines, and what a panic says, to stderr. Once a process.
pub fn init_logging(format: LogFormat, filter: &LogFilter) -> Result<(), LoggingError> {
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty());
    let queue = queue()?;
    subscriber(format, filter, colours, move || queue).try_init()?;
    // Rust's own hook writes to stderr directly, and so may wait for ever.
    std::panic::set_hook(Box::new(log_panic));
    Ok(())
}

fn queue() -> io::Result<&'static LogQueue> {
    match QUEUE.get() {
        Some(queue) => Ok(queue),
        None => {
            let queue = LogQueue::start(io::stderr(), DROPPED.clone())?;
            Ok(QUEUE.get_or_init(|| queue))
        }
    }
}

/// Says something to whoever started the process, also before logging is set up and whatever is logged.
pub fn say(text: &str) {
    // Without the thread there are no lines before this one, and nothing that could wait for us.
    match queue() {
        Ok(queue) => queue.push(format!("{text}\n").as_bytes()),
        Err(_) => drop(io::Write::write_all(&mut io::stderr(), format!("{text}\n").as_bytes())),
    }
}

/// Waits until stderr has taken the last lines, at most for a second. To be called before the process ends.
pub fn flush_log() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH_DEADLINE);
    }
}

/// The counter of lines that were dropped, because stderr was not read or could not be written to.
pub(super) fn lines_dropped() -> Counter {
    DROPPED.clone()
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let cause = panic.payload_as_str().unwrap_or("a panic without a text");
    let place = panic.location().map(ToString::to_string);
    let place = place.as_deref().unwrap_or("an unknown place");
    // Only where RUST_BACKTRACE asks for it.
    let backtrace = Some(Backtrace::capture()).filter(|trace| trace.status() == BacktraceStatus::Captured);
    let backtrace = backtrace.map(|trace| trace.to_string());
    if tracing::enabled!(Level::ERROR) {
        tracing::error!(event = "panicked", place, cause, backtrace, "a fault of grantonce, please report it");
    } else {
        say(&format!("grantonce: panicked at {place}: {cause}"));
    }
}

fn subscriber<W>(format: LogFormat, filter: &LogFilter, colours: bool, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let directives = parse(&filter.0).unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let filter = directives.and(filter_fn(|metadata| !may_hold_bodies(metadata)));
    // The queue takes every line. What cannot be formatted must not be told to stderr directly.
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        // The innermost span is enough: all that there are hold one trace's id, and a list would repeat it.
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).with_ansi(false).boxed(),
    };
    Registry::default().with(lines.with_filter(filter))
}

/// Whether a line of the AMQP client may show a message's body or the broker's password: it logs a returned message
/// whole, at WARN, and every frame whole at TRACE. No setting of `RUST_LOG` brings these back.
fn may_hold_bodies(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let is_of_amqp = target.starts_with("lapin") || target.starts_with("amq_protocol");
    target.starts_with("lapin::returned_messages") || (is_of_amqp && *metadata.level() == Level::TRACE)
}

/// An error and what caused it, in one line: `cannot connect: connection refused`.
pub fn causes(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many libraries' errors say their cause themselves.
        if !line.ends_with(&cause_text) {
            let _ = write!(line, ": {cause_text}");
        }
        next = cause.source();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, filter: &LogFilter, say: impl FnOnce()) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        tracing::subscriber::with_default(subscriber(format, filter, false, move || writer.clone()), say);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn no_filter_brings_bodies_into_the_log() {
        for filter in
            ["trace", "lapin=trace", "lapin::returned_messages=warn,error", "lapin::returned_messages=trace,info"]
        {
            let output = logged(LogFormat::Text, &filter.parse().unwrap(), || {
                tracing::warn!(target: "lapin::returned_messages", message = "body one");
                tracing::error!(target: "lapin::returned_messages", "body two");
                tracing::trace!(target: "lapin::channels", "body three");
                // It shows the address that it connects to, password and all.
                tracing::trace!(target: "amq_protocol_tcp", uri = "body four", "Connecting.");
                tracing::error!(target: "lapin::channels", "what an operator needs");
            });
            assert!(!output.contains("body"), "{filter}: {output}");
            assert!(output.contains("what an operator needs"), "{filter}: {output}");
        }
    }

    #[test]
    fn the_default_shows_info_and_hides_statements() {
        let output = logged(LogFormat::Text, &LogFilter::default(), || {
            tracing::info!(event = "listening", "shown one");
            tracing::debug!("hidden");
            tracing::debug!(target: "sqlx::query", "hidden");
            tracing::info!(target: "sqlx::postgres::notice", "hidden");
            tracing::warn!(target: "sqlx::query", "shown two");
        });
        assert!(output.contains("shown one") && output.contains("shown two") && !output.contains("hidden"), "{output}");
    }

    #[test]
    fn json_has_the_fields_at_the_top() {
        let output = logged(LogFormat::Json, &LogFilter::default(), || {
            tracing::info!(event = "listening", listener = "receiver", address = %"127.0.0.1:80", "listening");
        });
        let line: serde_json::Value = serde_json::from_str(&output).unwrap();
        assert_eq!(line["event"], "listening");
        assert_eq!(line["listener"], "receiver");
        assert_eq!(line["address"], "127.0.0.1:80");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_line_within_a_span_names_its_trace_once() {
        let filter = "warn".parse().unwrap();
        let output = |format| {
            logged(format, &filter, || {
                let _webhook = tracing::error_span!("webhook", trace_id = "0af7651916cd43dd8448eb211c80319c").entered();
                tracing::warn!(event = "webhook_not_published", endpoint = "stripe");
            })
        };
        let json = output(LogFormat::Json);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(line["span"]["trace_id"], "0af7651916cd43dd8448eb211c80319c");
        for lines in [json, output(LogFormat::Text)] {
            assert_eq!(lines.matches("0af7651916cd43dd8448eb211c80319c").count(), 1, "{lines}");
        }
    }

    #[test]
    fn a_filter_is_checked() {
        assert!("info,lapin=debug".parse::<LogFilter>().is_ok());
        assert!("info,=".parse::<LogFilter>().is_err());
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] Middle);
        #[derive(Debug, thiserror::Error)]
        #[error("middle: {0}")]
        struct Middle(#[source] io::Error);
        let error = Outer(Middle(io::Error::other("inner")));
        assert_eq!(causes(&error), "outer: middle: inner");
    }
}

//! Between the threads that log and a stderr that may not take anything: a bounded queue, and one thread that writes.
//!
//! A pipe holds 64 KiB. When nobody reads it, the next write waits for ever, and a thread that logs would wait with it.
//! Here only the writing thread waits. What does not fit into the queue is dropped and counted.

use prometheus_client::metrics::counter::Counter;
use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Most bytes that wait to be written. The writing thread has at most as many in hand. This bounds the number of lines, too.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Most bytes of one write of several lines. The system writes so many to a pipe as a whole (POSIX's `PIPE_BUF` on Linux), so that
/// lines of several processes that share a pipe are not mixed.
const WRITE_BYTES_MAX: usize = 4096;

/// How long the writing thread waits before it tries again, where stderr is set not to block.
const NON_BLOCKING_PAUSE: Duration = Duration::from_millis(10);

/// Lines on their way to one writer. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub(super) struct LogQueue(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct State {
    /// Whole lines, one after the other.
    waiting: Vec<u8>,
    is_writing: bool,
}

impl LogQueue {
    /// Starts the thread that writes to `to`. Lines that are lost count in `dropped`.
    pub(super) fn start(to: impl Write + Send + 'static, dropped: Counter) -> io::Result<Self> {
        let (state, filled, emptied) = (Mutex::default(), Condvar::new(), Condvar::new());
        let shared = Arc::new(Shared { state, filled, emptied, dropped });
        let writing = Arc::clone(&shared);
        thread::Builder::new().name("log".to_owned()).spawn(move || writing.write_on(to))?;
        Ok(Self(shared))
    }

    /// Queues one or more whole lines, or drops them when the queue is full. Never waits for the writer.
    pub(super) fn push(&self, lines: &[u8]) {
        let mut state = self.0.lock();
        if state.waiting.len() + lines.len() > WAITING_BYTES_MAX {
            drop(state);
            self.0.dropped.inc_by(count(lines));
        } else {
            state.waiting.extend_from_slice(lines);
            self.0.filled.notify_one();
        }
    }

    /// Waits until everything that was queued is written, at most for so long. Gives whether it is.
    pub(super) fn flush(&self, within: Duration) -> bool {
        let is_left = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let waited = self.0.emptied.wait_timeout_while(self.0.lock(), within, is_left);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }
}

/// The subscriber writes each event by one call.
impl Write for &LogQueue {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.push(lines);
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_on(&self, mut to: impl Write) {
        let (mut lines, mut dropped_before) = (Vec::new(), 0);
        loop {
            self.take(&mut lines);
            let lost = write(&mut to, &lines);
            lines.clear();
            self.dropped.inc_by(lost);
            let dropped = self.dropped.get();
            // Only a writer that works can say it.
            if lost == 0 && dropped > dropped_before {
                dropped_before = dropped;
                tracing::warn!(
                    event = "log_lines_dropped",
                    dropped_total = dropped,
                    "stderr was not read fast enough: log lines are missing above this one"
                );
            }
        }
    }

    /// Waits for lines and exchanges them for the empty buffer.
    fn take(&self, lines: &mut Vec<u8>) {
        let mut state = self.lock();
        state.is_writing = false;
        self.emptied.notify_all();
        while state.waiting.is_empty() {
            state = self.filled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        mem::swap(lines, &mut state.waiting);
        state.is_writing = true;
    }
}

/// Writes all lines; gives how many could not be written.
fn write(to: &mut impl Write, mut lines: &[u8]) -> u64 {
    let mut lost = 0;
    while !lines.is_empty() {
        let (some, rest) = lines.split_at(whole_lines(lines));
        if write_some(to, some).is_err() {
            lost += count(some);
        }
        lines = rest;
    }
    lost
}

/// How many bytes the next write has: as many whole lines as fit, at least one.
fn whole_lines(lines: &[u8]) -> usize {
    let fitting = lines.get(..WRITE_BYTES_MAX).unwrap_or(lines);
    let end = fitting.iter().rposition(|byte| *byte == b'\n');
    end.or_else(|| lines.iter().position(|byte| *byte == b'\n')).map_or(lines.len(), |end| end + 1)
}

fn write_some(to: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody with whom we share it has set it so. Nothing tells this thread when there is room again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::park_timeout(NON_BLOCKING_PAUSE),
            Err(error) => return Err(error),
        }
    }
    to.flush()
}

fn count(lines: &[u8]) -> u64 {
    u64::try_from(lines.iter().filter(|byte| **byte == b'\n').count()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Receiver, Sender, channel};

    /// Longer than any thread takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(20);

    /// A writer that does as it is told, once a write: takes the bytes, or fails. It waits until it is told.
    struct ScriptedWriter {
        told: Receiver<io::Result<()>>,
        written: Sender<Vec<u8>>,
    }

    impl Write for ScriptedWriter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.told.recv().unwrap()?;
            self.written.send(bytes.to_vec()).unwrap();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn queue() -> (LogQueue, Counter, Sender<io::Result<()>>, Receiver<Vec<u8>>) {
        let ((tell, told), (written, read), dropped) = (channel(), channel(), Counter::default());
        (LogQueue::start(ScriptedWriter { told, written }, dropped.clone()).unwrap(), dropped, tell, read)
    }

    #[test]
    fn a_writer_that_takes_nothing_holds_up_nobody_and_what_is_dropped_is_counted() {
        let (queue, dropped, tell, read) = queue();
        let line = format!("{}\n", "x".repeat(1023));
        // More than both buffers hold. The writer has nothing to say: it is blocked.
        for _ in 0..3 * WAITING_BYTES_MAX / line.len() {
            queue.push(line.as_bytes());
        }
        let lost = dropped.get();
        assert!(lost >= 1024, "{lost}");
        assert!(!queue.flush(Duration::ZERO));

        let kept = 3 * 1024 - lost;
        let mut lines = 0;
        while lines < kept {
            tell.send(Ok(())).unwrap();
            let written = read.recv_timeout(PATIENCE).unwrap();
            assert!(written.len() <= WRITE_BYTES_MAX && written.ends_with(b"\n"));
            lines += count(&written);
        }
        assert_eq!(lines, kept);
        assert!(queue.flush(PATIENCE));
        // It takes lines again.
        queue.push(b"again\n");
        tell.send(Ok(())).unwrap();
        assert_eq!(read.recv_timeout(PATIENCE).unwrap(), b"again\n");
        assert_eq!(dropped.get(), lost);
    }

    #[test]
    fn a_writer_that_fails_costs_lines_and_nothing_else() {
        let (queue, dropped, tell, read) = queue();
        tell.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
        queue.push(b"one\ntwo\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(dropped.get(), 2);
        for told in [io::ErrorKind::Interrupted, io::ErrorKind::WouldBlock] {
            tell.send(Err(told.into())).unwrap();
        }
        tell.send(Ok(())).unwrap();
        queue.push(b"three\n");
        assert_eq!(read.recv_timeout(PATIENCE).unwrap(), b"three\n");
        assert!(queue.flush(PATIENCE));
        assert_eq!(dropped.get(), 2);
    }

    #[test]
    fn a_write_has_whole_lines() {
        let long = format!("{}\n", "x".repeat(WRITE_BYTES_MAX));
        for (lines, bytes) in [
            ("a\nb\n".to_owned(), 4),
            (format!("a\n{long}"), 2),
            (format!("{long}a\n"), WRITE_BYTES_MAX + 1),
            ("no end".to_owned(), 6),
        ] {
            assert_eq!(whole_lines(lines.as_bytes()), bytes);
        }
    }
}

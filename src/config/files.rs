//! Secrets that come as files (`NAME_FILE`), read at the start and then again and again: a secret can be changed without a
//! restart. What counts is the content: Kubernetes swaps a symbolic link above the file, and its times say nothing.

use super::parse::Demand;
use crate::clock::Clock;
use crate::telemetry::Metrics;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Largest file of a secret, in bytes.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// How often the files are read.
const EVERY: Duration = Duration::from_millis(500);

/// A new content counts when it is still the same after this time: it may be half written.
const SETTLE: Duration = Duration::from_millis(50);

/// How long somebody waits for a look at the files. A file system may hang.
const LOOK_DEADLINE: Duration = Duration::from_secs(1);

/// Takes a new content, or says what is wrong with it, without a part of it.
type Take = Box<dyn Fn(&str) -> Result<(), Demand> + Send + Sync>;

/// The files that a process's secrets came from. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct FollowedFiles(Arc<Inner>);

#[derive(Default)]
struct Inner {
    files: Vec<FollowedFile>,
    /// Somebody wants them to be looked at now.
    wanted: Notify,
    /// Looks that have begun, and looks that have ended.
    begun: AtomicU64,
    ended: watch::Sender<u64>,
}

/// One file, and what has been seen in it.
pub(super) struct FollowedFile {
    /// The variable whose value it holds.
    variable: &'static str,
    path: String,
    take: Take,
    seen: Mutex<Seen>,
}

/// A content, without the content.
type Fingerprint = [u8; 32];

struct Seen {
    /// Of the value in use.
    in_use: Fingerprint,
    /// At the last look; none where the file could not be read.
    last: Option<Fingerprint>,
    /// What was wrong at the last look.
    problem: Option<String>,
}

/// What a look at a file came to.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It holds the value in use.
    Unchanged,
    /// It holds another one, which was not there at the last look.
    New,
    /// It holds another value, which is in use from now on.
    Taken,
    /// It holds nothing that could be used. The value in use stays.
    Refused {
        problem: String,
        /// Whether the look before said the same.
        is_known: bool,
    },
}

impl FollowedFile {
    /// A file that was read, and what takes its next content.
    pub(super) fn new(variable: &'static str, path: String, text: &str, take: Take) -> Self {
        let in_use = fingerprint(text);
        Self { variable, path, take, seen: Mutex::new(Seen { in_use, last: Some(in_use), problem: None }) }
    }

    fn look(&self) -> Look {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let problem = match read_regular_file(&self.path) {
            Ok(text) => {
                let found = fingerprint(&text);
                let is_second = seen.last.replace(found) == Some(found);
                if found == seen.in_use {
                    seen.problem = None;
                    return Look::Unchanged;
                }
                if !is_second {
                    return Look::New;
                }
                match (self.take)(&text) {
                    Ok(()) => {
                        *seen = Seen { in_use: found, last: Some(found), problem: None };
                        return Look::Taken;
                    }
                    Err(demand) => demand,
                }
            }
            Err(problem) => {
                seen.last = None;
                format!("names a file that {problem}")
            }
        };
        let is_known = seen.problem.replace(problem.clone()).is_some_and(|before| before == problem);
        Look::Refused { problem, is_known }
    }
}

impl FollowedFiles {
    pub(super) fn new(files: Vec<FollowedFile>) -> Self {
        Self(Arc::new(Inner { files, ..Inner::default() }))
    }

    /// Reads the files until `stop`. What cannot be read or used is logged once and counted each time; the last good value
    /// stays in use.
    pub async fn follow(self, clock: Clock, metrics: Metrics, stop: CancellationToken) {
        if self.0.files.is_empty() {
            return;
        }
        for file in &self.0.files {
            metrics.secret_file_refused(file.variable, 0);
        }
        metrics.secret_files_read(clock.now());
        let following = async {
            loop {
                // Whichever comes first: both mean to look.
                drop(tokio::time::timeout(EVERY, self.0.wanted.notified()).await);
                let look = self.0.begun.fetch_add(1, Ordering::SeqCst) + 1;
                let mut looks = self.look().await;
                if looks.contains(&Look::New) {
                    // A writer tells nobody when it is done.
                    tokio::time::sleep(SETTLE).await;
                    looks = self.look().await;
                }
                self.tell(&looks, &clock, &metrics);
                self.0.ended.send_replace(look);
                // Not one look after the other because somebody keeps sending wrong signatures.
                tokio::time::sleep(SETTLE).await;
            }
        };
        stop.run_until_cancelled(following).await;
    }

    /// Has the files read now and waits for it: somebody was about to be refused, by a value that may have been replaced a
    /// moment ago. Calls at the same time share a look.
    pub async fn refresh(&self) {
        if self.0.files.is_empty() {
            return;
        }
        // One that has begun already may have passed the file.
        let begun = self.0.begun.load(Ordering::SeqCst);
        let mut ended = self.0.ended.subscribe();
        self.0.wanted.notify_one();
        let looked = ended.wait_for(|ended| *ended > begun);
        if !matches!(tokio::time::timeout(LOOK_DEADLINE, looked).await, Ok(Ok(_))) {
            tracing::warn!(event = "secret_files_slow", "the files of secrets could not be read in time");
        }
    }

    async fn look(&self) -> Vec<Look> {
        let files = self.clone();
        // Not on a thread that others need.
        let looking = tokio::task::spawn_blocking(move || files.0.files.iter().map(FollowedFile::look).collect());
        // A panic has been reported, and nothing was seen.
        looking.await.unwrap_or_default()
    }

    fn tell(&self, looks: &[Look], clock: &Clock, metrics: &Metrics) {
        for (file, look) in self.0.files.iter().zip(looks) {
            let variable = file.variable;
            match look {
                Look::Unchanged | Look::New => {}
                Look::Taken => tracing::info!(event = "secret_file_taken", variable, "a new value is in use"),
                Look::Refused { problem, is_known } => {
                    metrics.secret_file_refused(variable, 1);
                    if !is_known {
                        tracing::error!(
                            event = "secret_file_refused",
                            variable,
                            cause = format!("{variable}_FILE {problem}"),
                            "the last good value stays in use"
                        );
                    }
                }
            }
        }
        if looks.iter().all(|look| matches!(look, Look::Unchanged | Look::Taken)) && !looks.is_empty() {
            metrics.secret_files_read(clock.now());
        }
    }
}

impl fmt::Debug for FollowedFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.files.iter().map(|file| file.variable)).finish()
    }
}

fn fingerprint(text: &str) -> Fingerprint {
    Sha256::digest(text).into()
}

/// A pipe gives its content once, and may hang.
pub(super) fn is_regular_file(path: &str) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file())
}

fn read_regular_file(path: &str) -> Result<String, String> {
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => Err("cannot be read (it is no file)".to_owned()),
        Ok(_) | Err(_) => read_secret_file(path),
    }
}

/// Reads a secret, or says why not: without the path, which may be the secret itself, put under the wrong name.
pub(super) fn read_secret_file(path: &str) -> Result<String, String> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(SECRET_FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Err(error) => Err(format!("cannot be read ({error})")),
        Ok(bytes) if bytes as u64 > SECRET_FILE_BYTES_MAX => Err(format!("is above {SECRET_FILE_BYTES_MAX} bytes")),
        Ok(_) => match text.trim() {
            "" => Err("is empty".to_owned()),
            text => Ok(text.to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::followed::Followed;

    #[test]
    fn o14_a_file_is_followed_and_the_last_good_value_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        let value = Followed::new(1_u8);
        let taken = value.clone();
        let take = move |text: &str| taken.replace(text.parse().map_err(|_| "must be a number".to_owned())?);
        let file = FollowedFile::new("NAME", path.to_str().unwrap().to_owned(), "1", Box::new(take));
        let refused = |look: Look, part: &str, known: bool| {
            let Look::Refused { problem, is_known } = look else { panic!("{look:?}") };
            assert!(problem.contains(part) && is_known == known, "{problem} {is_known}");
        };

        write("1\n");
        assert_eq!((file.look(), *value.current()), (Look::Unchanged, 1));
        // Seen twice before it counts: it may be half written.
        write("2");
        assert_eq!((file.look(), *value.current()), (Look::New, 1));
        write("23");
        assert_eq!((file.look(), *value.current()), (Look::New, 1));
        assert_eq!((file.look(), *value.current()), (Look::Taken, 23));
        assert_eq!(file.look(), Look::Unchanged);

        write("hunter2");
        assert_eq!(file.look(), Look::New);
        refused(file.look(), "must be a number", false);
        refused(file.look(), "must be a number", true);
        std::fs::remove_file(&path).unwrap();
        refused(file.look(), "cannot be read", false);
        refused(file.look(), "cannot be read", true);
        write("\n");
        refused(file.look(), "is empty", false);
        write(&"3".repeat(64 * 1024 + 1));
        refused(file.look(), "is above 65536 bytes", false);
        assert_eq!(*value.current(), 23);
        // Back to what is in use: nothing is wrong any more.
        write("23");
        assert_eq!(file.look(), Look::Unchanged);
        write("hunter2");
        assert_eq!(file.look(), Look::New);
        refused(file.look(), "must be a number", false);
    }
}

//! Connections, and the one way to use them: every operation runs in a task of its own that is never dropped half-way.

mod servers;
mod slots;

use super::error::StoreError;
use crate::address::DatabaseAddress;
use crate::followed::Followed;
use servers::Servers;
pub(super) use slots::Session;
use slots::{Slot, Slots};
use sqlx::PgConnection;
use sqlx::postgres::{PgListener, PgPoolOptions};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{MappedMutexGuard, Mutex, MutexGuard, OwnedMutexGuard};
use tokio::time::timeout;

/// How many connections may be opened at the same time. To open one is work for both sides. If a busy process opened all its
/// connections at once, none would be ready in time, and it would begin again for ever.
const CONNECTING_MAX: usize = 2;

/// How long a connection may be idle before it is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long a connection is used before it is replaced.
const LIFETIME_MAX: Duration = Duration::from_secs(30 * 60);

/// The purpose of a role's connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The worker: only look-ups by key and statements with arrays.
    Batches,
    /// The API: reads orders and accounts by their keys.
    Requests,
    /// Operators: lists with filters. Each filter needs a plan of its own.
    Operations,
    /// `verify` and similar commands: they may read whole tables and take long.
    Audit,
}

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The address and the credentials.
    pub url: Followed<DatabaseAddress>,
    /// The largest number of connections that this process opens.
    pub connections_max: u32,
    /// How long a caller waits for a whole transaction. After that the outcome is unknown.
    pub deadline: Duration,
    /// The purpose of the connections.
    pub profile: Profile,
}

/// The database, as one role uses it. Clones are cheap and share everything.
#[derive(Clone)]
pub struct Store {
    slots: Arc<Slots>,
    deadline: Duration,
    /// Whether the operations only read.
    is_reading: bool,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A connection that one operation uses until it ends.
#[derive(Debug)]
pub(super) struct PooledConnection(Arc<Mutex<Session>>);

impl PooledConnection {
    /// The connection for one statement outside of a transaction.
    pub(super) async fn connection(&self) -> Result<MappedMutexGuard<'_, PgConnection>, StoreError> {
        let mut session = self.0.try_lock().map_err(|_| used_twice())?;
        session.roll_back().await.map_err(StoreError::sql("rolling back"))?;
        Ok(MutexGuard::map(session, |session| &mut session.connection))
    }

    /// The connection for a transaction. No transaction is open on it.
    pub(super) async fn session(&self) -> Result<OwnedMutexGuard<Session>, StoreError> {
        let mut session = Arc::clone(&self.0).try_lock_owned().map_err(|_| used_twice())?;
        session.roll_back().await.map_err(StoreError::sql("rolling back"))?;
        Ok(session)
    }
}

fn used_twice() -> StoreError {
    StoreError::impossible("using a connection", "an operation uses it for two things at the same time")
}

impl Store {
    /// Prepares the connections. The first use connects, so a role can start while the database is away. Must be called
    /// inside a tokio runtime.
    pub fn new(settings: &Settings) -> Result<Self, StoreError> {
        let slots = Slots::new(Servers::new(settings), settings);
        Ok(Self { slots, deadline: settings.deadline, is_reading: false })
    }

    /// The same store for operations that only read. If there are many connections, some are reserved for these operations,
    /// which then continue while all others wait for a commit.
    pub(super) fn for_reading(&self) -> Self {
        Self { is_reading: true, ..self.clone() }
    }

    /// Runs an operation in a task of its own, for at most the deadline of the settings.
    ///
    /// A *caller* may stop waiting, and the task still continues. If a future of sqlx is dropped half-way, the state of its
    /// connection is unknown: a transaction may be open on it. So nothing here is cancelled when an HTTP client disconnects,
    /// and a connection is used again only after its operation has ended.
    pub(super) async fn run<T, F, Work>(&self, what: &'static str, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(PooledConnection) -> Work + Send + 'static,
        Work: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let mut slot = self.slots.slot(what, self.is_reading, self.deadline / 2).await?;
        // This wait is not part of the deadline: if no connection comes, that is no reason to give up the others.
        let session = slot.session(self.deadline / 2).await?;
        let (slots, deadline) = (Arc::clone(&self.slots), self.deadline);
        let task = tokio::spawn(async move {
            let work = async move {
                let session = Arc::new(Mutex::new(session));
                let result = operation(PooledConnection(Arc::clone(&session))).await;
                if let Some(session) = Arc::into_inner(session) {
                    take_back(slot, session.into_inner(), result.as_ref().err()).await;
                }
                result
            };
            // The timeout is inside the task, because the task must end also if its caller has gone. A connection that is
            // dropped half-way is closed and never used again.
            match timeout(deadline, work).await {
                Ok(result) => result,
                Err(_elapsed) => {
                    // The timeouts of the server are shorter. So the network is cut without a sign, perhaps for every
                    // connection, or the statement hangs in a commit, which has no timeout.
                    slots.give_up_idle();
                    Err(StoreError::Deadline { what, after: deadline })
                }
            }
        });
        match task.await {
            Ok(result) => result,
            // sqlx panics at a time that the crate `time` cannot represent, such as `infinity` in Postgres. To try again
            // does not help.
            Err(ended) if ended.is_panic() => Err(StoreError::impossible(
                what,
                "it panicked, perhaps at a value that was written by hand; see the log",
            )),
            Err(_canceled) => Err(StoreError::Lost { what }),
        }
    }

    /// How long a caller waits for a whole transaction.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Opens a connection that listens to a channel.
    pub(super) async fn listen(&self, channel: &str) -> Result<Listening, StoreError> {
        const WHAT: &str = "listening";
        // This finds the server that can be used now.
        self.ping().await?;
        let mut slot = self.slots.slot(WHAT, self.is_reading, self.deadline / 2).await?;
        let host = self.slots.servers.for_listener();
        let (options, id) = host.ok_or_else(|| StoreError::impossible(WHAT, "no server answered the ping"))?;
        // The listener of sqlx opens its connection by itself. It must never reconnect, because the new session would not
        // have our settings.
        let pool =
            PgPoolOptions::new().max_connections(1).acquire_timeout(self.deadline / 2).connect_lazy_with(options);
        let mut listener = PgListener::connect_with(&pool).await.map_err(StoreError::sql(WHAT))?;
        listener.eager_reconnect(false);
        slot.holds(id.clone());
        let begun = async {
            self.slots.servers.begin_session(&mut listener, &id).await?;
            listener.listen(channel).await.map_err(StoreError::sql(WHAT))
        };
        let begun = timeout(self.deadline / 2, begun).await;
        begun.unwrap_or(Err(StoreError::Deadline { what: WHAT, after: self.deadline / 2 }))?;
        Ok(Listening { listener, pool, slot })
    }

    /// Closes all connections and waits for them, at most until `deadline`.
    pub async fn close(&self, deadline: Duration) {
        if timeout(deadline, self.slots.close()).await.is_err() {
            tracing::warn!(event = "store_close_timed_out", "connections to Postgres did not close in time");
        }
    }

    /// The number of deadlocks that Postgres has found in this database since its statistics were reset, in all sessions.
    pub async fn deadlocks(&self) -> Result<i64, StoreError> {
        const WHAT: &str = "counting deadlocks";
        self.run(WHAT, |pool| async move {
            sqlx::query_scalar("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
                .fetch_one(&mut *pool.connection().await?)
                .await
                .map_err(StoreError::sql(WHAT))
        })
        .await
    }

    /// Checks whether the database answers.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run("ping", |pool| async move {
            sqlx::query("SELECT 1").execute(&mut *pool.connection().await?).await.map_err(StoreError::sql("ping"))?;
            Ok(())
        })
        .await
    }
}

/// Whether a pooler that shares sessions among clients is in front of Postgres. An error means that it is not known.
pub async fn is_session_shared(url: &Followed<DatabaseAddress>, deadline: Duration) -> Result<bool, StoreError> {
    match connect(url, deadline).await {
        Ok(connection) => {
            slots::say_goodbye(connection).await;
            Ok(false)
        }
        Err(StoreError::SharedSession) => Ok(true),
        Err(error) => Err(error),
    }
}

/// Opens a single connection for the statements of a command. The caller must close it.
pub(super) async fn connect(url: &Followed<DatabaseAddress>, deadline: Duration) -> Result<PgConnection, StoreError> {
    let settings = Settings { url: url.clone(), connections_max: 1, deadline, profile: Profile::Audit };
    Ok(Servers::new(&settings).connect().await?.0)
}

/// Keeps the connection for others if they can use it. Otherwise the connection and its slot are given up.
async fn take_back(slot: Slot, mut session: Session, failure: Option<&StoreError>) {
    if failure.is_some_and(StoreError::ends_session) {
        slot.give_up_idle();
    } else if session.roll_back().await.is_ok() {
        slot.put_back(session).await;
    }
}

/// A connection that listens. It has a slot of its own.
pub(super) struct Listening {
    listener: PgListener,
    pool: sqlx::PgPool,
    slot: Slot,
}

impl Listening {
    /// Waits for the next announcement. Returns `None` if the connection is lost.
    pub(super) async fn hear(&mut self) -> Option<String> {
        loop {
            match timeout(IDLE_MAX / 2, self.listener.try_recv()).await {
                Ok(Ok(heard)) => return heard.map(|heard| heard.payload().to_owned()),
                Ok(Err(_lost)) => return None,
                // If nothing arrives, the network may be cut, and the server would end a session that is idle for long.
                Err(_elapsed) => {
                    let ping = sqlx::query("SELECT 1").execute(&mut self.listener);
                    if !matches!(timeout(IDLE_MAX / 4, ping).await, Ok(Ok(_))) {
                        return None;
                    }
                }
            }
        }
    }

    /// Closes the connection in the regular way, within `deadline`.
    pub(super) async fn close(self, deadline: Duration) {
        let Self { listener, pool, slot } = self;
        drop(listener);
        if timeout(deadline, pool.close()).await.is_ok() {
            slot.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn connections_are_made_a_few_at_a_time() {
        // This server accepts connections and never sends anything.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://user:password@{}/database", listener.local_addr().unwrap());
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
                // The tasks that have ended must be counted first.
                tokio::task::yield_now().await;
                seen.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let open = Arc::clone(&open);
                tokio::spawn(async move {
                    while client.read(&mut [0; 64]).await.is_ok_and(|bytes| bytes > 0) {}
                    open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        let deadline = Duration::from_millis(400);
        let settings =
            Settings { url: url.parse().unwrap(), connections_max: 17, deadline, profile: Profile::Requests };
        let store = Store::new(&settings).unwrap();
        let answers = join_all((0..50).map(|_| store.ping())).await;
        assert!(answers.iter().all(Result::is_err));
        let most = most.load(Ordering::SeqCst);
        assert!((1..=CONNECTING_MAX).contains(&most), "{most} at the same time");
        assert_eq!(store.slots.count_given_up(), 0, "no connection that was there was given up");
    }

    #[tokio::test]
    async fn a_worker_has_all_its_connections_for_batches_and_the_api_keeps_some_for_reading() {
        for (profile, for_writing) in [(Profile::Batches, 9), (Profile::Requests, 5)] {
            let url = "postgres://user:password@localhost/database".parse().unwrap();
            let settings = Settings { url, connections_max: 9, deadline: Duration::from_secs(1), profile };
            let store = Store::new(&settings).unwrap();
            let slots = join_all((0..9).map(|_| store.slots.slot("a test", false, Duration::ZERO))).await;
            assert_eq!(slots.iter().filter(|slot| slot.is_ok()).count(), for_writing, "{profile:?}");
        }
    }
}

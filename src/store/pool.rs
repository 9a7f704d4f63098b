//! Connections, and the one way to use them: in a task of its own that is never dropped half-way.

use super::connect;
use super::error::StoreError;
use crate::address::DatabaseAddress;
use crate::followed::Followed;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Executor, PgConnection, PgPool};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a connection may take to come.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How many connections are in the making at the same time. To make one is work for both sides: a process that is short of
/// time and begins all that it may have at once finishes none in time, and begins anew for ever.
const CONNECTING_MAX: usize = 2;

/// What a role's connections are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// The worker: key look-ups and array statements only.
    Batches,
    /// The API: orders and accounts, by their keys.
    Requests,
    /// Operators, and who looks around for them: lists with filters, of which each wants a plan of its own.
    Operations,
    /// `verify` and the like: may read everything, and take its time.
    Audit,
}

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where it is, and who connects.
    pub url: Followed<DatabaseAddress>,
    /// Most connections this process opens.
    pub connections_max: u32,
    /// How long a waiter waits for a whole transaction before it takes the outcome for unknown.
    pub deadline: Duration,
    /// What they are for.
    pub profile: Profile,
}

/// The database, as one role uses it. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Store {
    current: Arc<RwLock<Numbered>>,
    options: PgPoolOptions,
    connect: PgConnectOptions,
    deadline: Duration,
    cut_off: CutOff,
}

/// The connections in use, and how many sets of them were given up before.
#[derive(Clone, Debug)]
struct Numbered {
    number: u64,
    pool: PgPool,
    /// Turns at making a connection.
    connecting: Arc<Semaphore>,
}

impl Numbered {
    fn new(number: u64, options: &PgPoolOptions, connect: &PgConnectOptions) -> Self {
        let pool = options.clone().connect_lazy_with(connect.clone());
        Self { number, pool, connecting: Arc::new(Semaphore::new(CONNECTING_MAX)) }
    }

    /// Waits for a turn where the next operation will have to make its connection. To be held until it is done.
    async fn turn(&self, what: &'static str, patience: Duration) -> Result<Option<OwnedSemaphorePermit>, StoreError> {
        if self.pool.num_idle() > 0 || self.pool.size() >= self.pool.options().get_max_connections() {
            return Ok(None);
        }
        match tokio::time::timeout(patience, Arc::clone(&self.connecting).acquire_owned()).await {
            // It is never closed.
            Ok(turn) => Ok(turn.ok()),
            Err(_elapsed) => Err(StoreError::Sql { what, source: sqlx::Error::PoolTimedOut }),
        }
    }
}

fn options(address: &DatabaseAddress, profile: Profile, deadline: Duration) -> PgConnectOptions {
    let statement_ms = (deadline * 3 / 4).as_millis().to_string();
    let lock_ms = (deadline / 2).as_millis().to_string();
    // The server ends what the client has lost sight of, and before the client does: all three are 0, that is never, by
    // default.
    let mut settings = vec![
        ("statement_timeout", statement_ms.clone()),
        ("lock_timeout", lock_ms),
        ("idle_in_transaction_session_timeout", statement_ms),
        ("timezone", "UTC".to_owned()),
        // Error texts reach operators; SQLSTATE decides, but one language is easier to search for.
        ("application_name", "grantonce".to_owned()),
    ];
    if matches!(profile, Profile::Batches | Profile::Requests) {
        // Every statement looks rows up by their keys. With fresh or skewed statistics the planner may think that reading a
        // whole table is cheaper; it never is, and a plan that was made while a table was empty is kept when it is not.
        // And none of them is worth compiling, or planning anew for the arrays of the day.
        let off = ["enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"];
        settings.extend(off.map(|name| (name, "off".to_owned())));
        settings.push(("plan_cache_mode", "force_generic_plan".to_owned()));
    }
    connect::options(address).options(settings).disable_statement_logging()
}

impl Store {
    /// Prepares the pool; connects when first used, so that a role starts while the database is away.
    pub fn new(settings: &Settings) -> Result<Self, StoreError> {
        let connect = options(&settings.url.current(), settings.profile, settings.deadline);
        let cut_off = CutOff::default();
        let seen = cut_off.clone();
        let options = PgPoolOptions::new()
            .max_connections(settings.connections_max)
            // Below the waiter's own deadline: a connection that does not come is no reason to give up on the others.
            .acquire_timeout(CONNECT_DEADLINE.min(settings.deadline / 2))
            // A connection that was waiting is asked whether it is still there by the statement itself: a failure is
            // an ordinary transient error, and one round trip less for every transaction.
            .test_before_acquire(false)
            .idle_timeout(Duration::from_secs(60))
            .max_lifetime(Duration::from_secs(30 * 60))
            .after_release(move |connection, _| Box::pin(leave_no_transaction_open(connection, seen.is_possible())));
        let current = Arc::new(RwLock::new(Numbered::new(0, &options, &connect)));
        Ok(Self { current, options, connect, deadline: settings.deadline, cut_off })
    }

    fn current(&self) -> Numbered {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs an operation in a task of its own and waits for it at most as long as the settings say.
    ///
    /// The *waiter* gives up, never the task: a future of sqlx that is dropped half-way can hand a connection back with
    /// a transaction still open, and the next user's writes would vanish with it. So nothing here is ever cancelled,
    /// also when an HTTP client goes away.
    pub(super) async fn run<T, F, Work>(&self, what: &'static str, operation: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(PgPool) -> Work,
        Work: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let current = self.current();
        let turn = current.turn(what, self.deadline / 2).await?;
        let operation = self.cut_off.watch(operation(current.pool.clone()));
        let mut task = tokio::spawn(async move {
            let _turn = turn;
            operation.await
        });
        match tokio::time::timeout(self.deadline, &mut task).await {
            Ok(Ok(result)) => result,
            Ok(Err(_ended)) => Err(StoreError::Lost { what }),
            Err(_elapsed) => {
                // The server's own timeouts are shorter: its silence means that the way to it is cut without a word,
                // and may be so for every connection.
                self.give_up_on(&current);
                // Its connection belongs to a closed pool: what is aborted now is never lent to anyone again.
                task.abort();
                Err(StoreError::Deadline { what, after: self.deadline })
            }
        }
    }

    /// How long a waiter waits for a whole transaction.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The connections themselves, for the listener alone.
    pub(super) fn pool(&self) -> PgPool {
        self.current().pool
    }

    /// Gives up on all connections, without waiting for any: those that hang are closed when they answer, and no
    /// longer used by anyone. The next operation connects anew.
    pub fn abandon(&self) {
        self.give_up_on(&self.current());
    }

    fn give_up_on(&self, dead: &Numbered) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        // Of many that wait in vain the first one replaces the connections.
        if current.number == dead.number {
            *current = Numbered::new(dead.number + 1, &self.options, &self.connect);
            // The call alone closes it for lending; the task then waits for those that are lent.
            drop(dead.pool.close());
            let pool = dead.pool.clone();
            tokio::spawn(async move { pool.close().await });
        }
    }

    /// Closes all connections and waits for them, at most as long as `deadline`.
    pub async fn close(&self, deadline: Duration) {
        if tokio::time::timeout(deadline, self.current().pool.close()).await.is_err() {
            tracing::warn!(event = "store_close_timed_out", "connections to Postgres did not close in time");
        }
    }

    /// Whether the database answers at all.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.run("ping", |pool| async move {
            sqlx::query("SELECT 1").execute(&pool).await.map_err(StoreError::sql("ping"))?;
            Ok(())
        })
        .await
    }
}

/// Ends a transaction that was left open on a connection which comes back to the pool, where there may be one.
///
/// sqlx 0.9.0 can hand back a connection whose `begin()` was cancelled after `BEGIN` was sent (transact-rs/sqlx#4385).
/// [`Store::run`] never cancels one; this is the second lock on the same door. `BEGIN` first, because a lone `ROLLBACK`
/// outside a transaction writes a warning into the server's log each time.
async fn leave_no_transaction_open(connection: &mut PgConnection, may_be_open: bool) -> Result<bool, sqlx::Error> {
    if may_be_open {
        connection.execute("BEGIN; ROLLBACK").await?;
    }
    Ok(true)
}

/// Whether an operation of a store may have been dropped or broken off half-way, now or at any time before.
#[derive(Clone, Debug, Default)]
struct CutOff(Arc<AtomicUsize>);

impl CutOff {
    fn is_possible(&self) -> bool {
        self.0.load(Ordering::SeqCst) > 0
    }

    /// Runs an operation such that it is known in time when it does not come to its end. In time: before anything of it is
    /// dropped, its connection among it. So it counts while it is being polled, and for ever where that panics.
    fn watch<F: Future>(&self, operation: F) -> Watched<F> {
        Watched { operation: Box::pin(operation), has_ended: false, cut_off: self.clone() }
    }
}

/// An operation whose end is watched.
struct Watched<F> {
    operation: Pin<Box<F>>,
    has_ended: bool,
    cut_off: CutOff,
}

impl<F: Future> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        self.cut_off.0.fetch_add(1, Ordering::SeqCst);
        let polled = self.operation.as_mut().poll(context);
        self.cut_off.0.fetch_sub(1, Ordering::SeqCst);
        self.has_ended = polled.is_ready();
        polled
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.cut_off.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::future::join_all;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn connections_are_made_a_few_at_a_time() {
        // A server that takes connections and never says a word.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("postgres://user:password@{}/database", listener.local_addr().unwrap());
        let (open, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let seen = Arc::clone(&most);
        tokio::spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.unwrap();
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
        assert_eq!(store.current().number, 0, "no connection that was there was given up");
    }

    #[tokio::test]
    async fn an_operation_that_does_not_end_is_known_before_anything_of_it_is_dropped() {
        /// What an operation holds, like a connection: says at its end whether the pool would look after it.
        struct Held(CutOff, Arc<AtomicUsize>);
        impl Drop for Held {
            fn drop(&mut self) {
                self.1.fetch_add(usize::from(self.0.is_possible()), Ordering::SeqCst);
            }
        }
        let looked_after = Arc::new(AtomicUsize::new(0));
        let held = |cut_off: &CutOff| Held(cut_off.clone(), Arc::clone(&looked_after));

        let cut_off = CutOff::default();
        cut_off.watch(async { tokio::task::yield_now().await }).await;
        assert!(!cut_off.is_possible(), "it came to its end");

        let of_it = held(&cut_off);
        let mut dropped = cut_off.watch(async move {
            let _held = of_it;
            std::future::pending::<()>().await;
        });
        assert!(futures_util::poll!(&mut dropped).is_pending());
        assert!(!cut_off.is_possible());
        drop(dropped);
        assert!(cut_off.is_possible());
        assert_eq!(looked_after.load(Ordering::SeqCst), 1);

        let cut_off = CutOff::default();
        let of_it = held(&cut_off);
        let panics = cut_off.watch(async move {
            let _held = of_it;
            tokio::task::yield_now().await;
            panic!("on purpose");
        });
        assert!(tokio::spawn(panics).await.is_err());
        assert!(cut_off.is_possible());
        assert_eq!(looked_after.load(Ordering::SeqCst), 2);
    }
}

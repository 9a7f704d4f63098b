//! The connections of one store: how many there may be, which are free, and which were given up.
//!
//! A connection counts until the server has ended its session, not until the client closes its socket. A session that waits
//! in COMMIT for a synchronous standby does not notice its client, and no timeout of the server ends it.

use super::servers::{Alive, Servers, SessionId};
use super::{CONNECTING_MAX, IDLE_MAX, LIFETIME_MAX, Profile, Settings};
use crate::store::error::{NoneFree, StoreError};
use sqlx::{Connection, Executor, PgConnection};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};

/// How long it may take to close a session at the server in the regular way.
const GOODBYE_DEADLINE: Duration = Duration::from_secs(1);

/// The shortest and the longest pause between two checks of sessions that were given up.
const LOOK_FIRST: Duration = Duration::from_millis(50);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The number of connections that are reserved for operations that only read, if there are more than twice as many. These
/// operations continue while all others wait for a commit.
const READING: u32 = 4;

/// How long to wait for a connection if every connection was given up. To wait longer hardly helps.
const PATIENCE_WITHOUT_ANY: Duration = Duration::from_secs(1);

/// An open connection to the server.
#[derive(Debug)]
pub(in crate::store) struct Session {
    pub(in crate::store) connection: PgConnection,
    /// Whether a transaction was begun on the connection and its end is not known.
    pub(in crate::store) may_be_open: bool,
    id: SessionId,
    made_at: Instant,
    idle_since: Instant,
}

impl Session {
    /// Rolls back a transaction that was left open.
    pub(in crate::store) async fn roll_back(&mut self) -> Result<(), sqlx::Error> {
        if self.may_be_open {
            self.connection.execute("ROLLBACK").await?;
            self.may_be_open = false;
        }
        Ok(())
    }
}

/// All connections of a store.
pub(super) struct Slots {
    pub(super) servers: Servers,
    connections_max: u32,
    /// One permit for each connection that is not in use and was not given up.
    free: Lane,
    /// The permits of the connections that are reserved for reading.
    reading: Option<Lane>,
    /// Limits how many connections are opened at the same time.
    connecting: Semaphore,
    state: Mutex<State>,
}

/// A part of the connections.
struct Lane {
    size: u32,
    permits: Arc<Semaphore>,
}

impl Lane {
    fn new(size: u32) -> Self {
        let permits = usize::try_from(size).unwrap_or(Semaphore::MAX_PERMITS).clamp(1, Semaphore::MAX_PERMITS);
        Self { size, permits: Arc::new(Semaphore::new(permits)) }
    }

    async fn close(&self) {
        let _all = self.permits.acquire_many(self.size).await;
        self.permits.close();
    }
}

/// There are never more idle connections than free permits.
#[derive(Default)]
struct State {
    /// The last connection of the list was used last.
    idle: Vec<Session>,
    given_up: Vec<GivenUp>,
    is_looking: bool,
    /// Why the last check of the connections that were given up has failed.
    blind: Option<Arc<StoreError>>,
}

struct GivenUp {
    id: SessionId,
    is_committing: bool,
    _permit: OwnedSemaphorePermit,
}

/// The right to have one connection. If it is dropped with a session that was not put back, the session is given up and
/// counts until the server has ended it.
pub(super) struct Slot {
    slots: Arc<Slots>,
    permit: Option<OwnedSemaphorePermit>,
    session: Option<SessionId>,
}

impl Slots {
    /// Must be called inside a tokio runtime.
    pub(super) fn new(servers: Servers, settings: &Settings) -> Arc<Self> {
        let connections_max = settings.connections_max;
        // Only the API has operations that need reserved connections.
        let has_readers = settings.profile == Profile::Requests && connections_max > 2 * READING;
        let reading = if has_readers { READING } else { 0 };
        let slots = Arc::new(Self {
            servers,
            connections_max,
            free: Lane::new(connections_max - reading),
            reading: (reading > 0).then(|| Lane::new(reading)),
            connecting: Semaphore::new(CONNECTING_MAX),
            state: Mutex::default(),
        });
        tokio::spawn(close_idle(Arc::downgrade(&slots)));
        slots
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the right to have a connection.
    pub(super) async fn slot(
        self: &Arc<Self>,
        what: &'static str,
        is_reading: bool,
        patience: Duration,
    ) -> Result<Slot, StoreError> {
        let lane = self.reading.as_ref().filter(|_| is_reading).unwrap_or(&self.free);
        let all_given_up = self.state().given_up.len() >= usize::try_from(lane.size).unwrap_or(usize::MAX);
        let patience = if all_given_up { patience.min(PATIENCE_WITHOUT_ANY) } else { patience };
        match timeout(patience, Arc::clone(&lane.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(Slot { slots: Arc::clone(self), permit: Some(permit), session: None }),
            Ok(Err(_closed)) => Err(StoreError::Sql { what, source: sqlx::Error::PoolClosed }),
            Err(_elapsed) => Err(StoreError::NoConnection { what, why: self.none_free(lane.size) }),
        }
    }

    fn none_free(&self, connections_max: u32) -> NoneFree {
        let state = self.state();
        NoneFree {
            connections_max,
            given_up: state.given_up.len(),
            committing: state.given_up.iter().filter(|given_up| given_up.is_committing).count(),
            blind: state.blind.clone(),
        }
    }

    /// Gives up all idle connections. A failure of another connection shows that these may be dead or lead to the wrong
    /// server.
    pub(super) fn give_up_idle(self: &Arc<Self>) {
        let idle = std::mem::take(&mut self.state().idle);
        for session in idle {
            let mut lanes = std::iter::once(&self.free).chain(&self.reading);
            if let Some(permit) = lanes.find_map(|lane| Arc::clone(&lane.permits).try_acquire_owned().ok()) {
                self.give_up(session.id.clone(), permit);
            }
        }
    }

    fn give_up(self: &Arc<Self>, id: SessionId, permit: OwnedSemaphorePermit) {
        let mut state = self.state();
        state.given_up.push(GivenUp { id, is_committing: false, _permit: permit });
        // At the very end of a process there may be no runtime.
        if !state.is_looking
            && let Ok(runtime) = Handle::try_current()
        {
            state.is_looking = true;
            runtime.spawn(look_after(Arc::downgrade(self)));
        }
    }

    /// Returns the sessions to check. If there are none, checking ends.
    fn given_up(&self) -> Vec<SessionId> {
        let mut state = self.state();
        state.is_looking = !state.given_up.is_empty();
        state.given_up.iter().map(|given_up| given_up.id.clone()).collect()
    }

    /// Frees the slots of sessions that the server has ended.
    fn learn(&self, asked: &[SessionId], seen: Result<Vec<Alive>, StoreError>) {
        let mut state = self.state();
        match seen {
            Ok(alive) => {
                state.blind = None;
                state.given_up.retain_mut(|given_up| {
                    let found = alive.iter().find(|alive| alive.id == given_up.id);
                    given_up.is_committing = found.is_some_and(|alive| alive.is_committing);
                    found.is_some() || !asked.contains(&given_up.id)
                });
            }
            Err(error) => state.blind = Some(Arc::new(error)),
        }
    }

    /// Waits until no connection is in use and closes all of them. After that no operation can begin.
    pub(super) async fn close(&self) {
        for lane in std::iter::once(&self.free).chain(&self.reading) {
            lane.close().await;
        }
        let idle = std::mem::take(&mut self.state().idle);
        for session in idle {
            say_goodbye(session.connection).await;
        }
    }

    #[cfg(test)]
    pub(super) fn count_given_up(&self) -> usize {
        self.state().given_up.len()
    }
}

impl Slot {
    /// Returns an idle connection, or opens one within `patience`. The future may be dropped half-way, because nobody has
    /// used the new connection yet.
    pub(super) async fn session(&mut self, patience: Duration) -> Result<Session, StoreError> {
        let idle = self.slots.state().idle.pop();
        let session = match idle {
            Some(session) => session,
            None => {
                let in_vain = || Err(StoreError::Unanswered { what: "connecting to Postgres", after: patience });
                let until = Instant::now() + patience;
                let connect = async {
                    // The permit is held until the connection is open. The semaphore is never closed.
                    let _turn = self.slots.connecting.acquire().await;
                    // If the time is over, the connection is not opened, because it would be given up at once.
                    if Instant::now() >= until {
                        return in_vain();
                    }
                    self.slots.servers.connect().await
                };
                let (connection, id) = timeout(patience, connect).await.unwrap_or_else(|_elapsed| in_vain())?;
                let now = Instant::now();
                Session { connection, may_be_open: false, id, made_at: now, idle_since: now }
            }
        };
        self.session = Some(session.id.clone());
        Ok(session)
    }

    /// Registers a session that the holder has opened by itself. It counts from now on.
    pub(super) fn holds(&mut self, id: SessionId) {
        self.session = Some(id);
    }

    /// The session was closed in the regular way, so its slot is free.
    pub(super) fn release(mut self) {
        self.session = None;
    }

    /// Returns the connection, so that others can use it.
    pub(super) async fn put_back(mut self, mut session: Session) {
        if session.made_at.elapsed() > LIFETIME_MAX {
            say_goodbye(session.connection).await;
        } else {
            session.idle_since = Instant::now();
            self.slots.state().idle.push(session);
        }
        self.session = None;
    }

    pub(super) fn give_up_idle(&self) {
        self.slots.give_up_idle();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let (Some(id), Some(permit)) = (self.session.take(), self.permit.take()) {
            self.slots.give_up(id, permit);
        }
    }
}

/// Closes the connection in the regular way. If the server does not answer, it is closed all the same.
pub(super) async fn say_goodbye(connection: PgConnection) {
    let _ = timeout(GOODBYE_DEADLINE, connection.close()).await;
}

/// Closes connections that were idle for long.
async fn close_idle(slots: Weak<Slots>) {
    loop {
        sleep(IDLE_MAX / 4).await;
        let Some(slots) = slots.upgrade() else { return };
        let old: Vec<_> =
            slots.state().idle.extract_if(.., |session| session.idle_since.elapsed() > IDLE_MAX).collect();
        for session in old {
            say_goodbye(session.connection).await;
        }
    }
}

/// Asks the server about the sessions that were given up, until all of them have ended.
async fn look_after(slots: Weak<Slots>) {
    let (mut pause, began) = (LOOK_FIRST, Instant::now());
    let mut most = 0;
    loop {
        let Some(slots) = slots.upgrade() else { return };
        let asked = slots.given_up();
        if asked.is_empty() {
            let seconds = began.elapsed().as_secs();
            tracing::info!(
                event = "sessions_over",
                sessions = most,
                seconds,
                "all sessions that were given up have ended"
            );
            return;
        }
        if asked.len() > most {
            most = asked.len();
            tracing::warn!(
                event = "sessions_given_up",
                sessions = most,
                connections_max = slots.connections_max,
                "connections to Postgres were given up; they count until the server has ended their sessions"
            );
        }
        let seen = slots.servers.alive(&asked).await;
        slots.learn(&asked, seen);
        drop(slots);
        // This is a poll, because nothing announces that a session has ended.
        sleep(pause).await;
        pause = (pause * 2).min(LOOK_EVERY);
    }
}

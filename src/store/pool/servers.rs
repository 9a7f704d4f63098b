//! The servers of `DATABASE_URL`: which one is used, and the first statement of every session.

use super::{Profile, Settings};
use crate::address::{DatabaseAddress, DatabaseHost, SessionAttributes};
use crate::followed::Followed;
use crate::store::batch::LOCK_WAIT;
use crate::store::connect;
use crate::store::error::StoreError;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::timeout;

/// How long it may take to connect to one host.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a pooler may take to give a second client a session of its own.
const SECOND_SESSION_DEADLINE: Duration = Duration::from_secs(2);

/// How often two clients compare their sessions. One comparison is enough for an idle pooler. Under load, sessions change
/// their clients all the time.
const COMPARISONS: usize = 3;

/// The first key of the advisory lock that marks a session as one of grantonce's: the letters "gran". The second key is the
/// mark of the session.
const MARK_KEY: i32 = 0x6772_616e;

const CONNECTING: &str = "connecting to Postgres";

/// A session on one of the servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SessionId {
    host: Arc<DatabaseHost>,
    /// The second key of the session's advisory lock. Postgres holds the lock exactly as long as the session lives, also
    /// behind a pooler, and every session can see it.
    mark: i32,
}

impl SessionId {
    fn on(host: Arc<DatabaseHost>) -> Self {
        Self { host, mark: fastrand::i32(0..) }
    }
}

/// A session that was given up and has not ended yet.
#[derive(Debug)]
pub(super) struct Alive {
    pub(super) id: SessionId,
    /// Whether the session waits until a synchronous standby has its commit.
    pub(super) is_committing: bool,
}

/// The servers that a store may use, in this order.
pub(super) struct Servers {
    address: Followed<DatabaseAddress>,
    /// The first statement of a session, which sets and reads what is needed. The session's mark replaces `{mark}`, and the
    /// address's own settings replace `{own}`.
    set_up: String,
    connections_max: u32,
    /// How long connecting may take, over all hosts. It is less than the deadline of the caller.
    deadline: Duration,
    /// The host of the last connection.
    good: Mutex<Option<Arc<DatabaseHost>>>,
    /// Whether it is known that each session belongs to one client.
    is_session_ours: AtomicBool,
}

impl Servers {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            address: settings.url.clone(),
            set_up: set_up(settings.profile, settings.deadline),
            connections_max: settings.connections_max,
            deadline: settings.deadline / 2,
            good: Mutex::default(),
            is_session_ours: AtomicBool::new(false),
        }
    }

    fn good(&self) -> MutexGuard<'_, Option<Arc<DatabaseHost>>> {
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn host_deadline(&self, address: &DatabaseAddress) -> Duration {
        let count = u32::try_from(address.hosts.len()).unwrap_or(u32::MAX).max(1);
        address.connect_timeout.unwrap_or(CONNECT_DEADLINE).min(self.deadline / count)
    }

    /// Connects to the host that was used last. If that fails, it connects to the next host that accepts writes.
    pub(super) async fn connect(&self) -> Result<(PgConnection, SessionId), StoreError> {
        let address = self.address.current();
        let deadline = self.host_deadline(&address);
        let good = self.good().clone();
        let first = address.hosts.iter().position(|host| good.as_deref() == Some(host)).unwrap_or(0);
        let mut failure: Option<StoreError> = None;
        for host in address.hosts.iter().cycle().skip(first).take(address.hosts.len()) {
            let host = Arc::new(host.clone());
            match self.connect_to(&address, &host, deadline).await {
                Ok(connected) => {
                    *self.good() = Some(host);
                    return Ok(connected);
                }
                // The error of a server says more than the message that another host is not there.
                Err(error) => {
                    if failure.as_ref().is_none_or(|before| !before.is_from_server()) {
                        failure = Some(error);
                    }
                }
            }
        }
        Err(failure.unwrap_or_else(|| StoreError::impossible(CONNECTING, "there is no host to connect to")))
    }

    async fn connect_to(
        &self,
        address: &DatabaseAddress,
        host: &Arc<DatabaseHost>,
        deadline: Duration,
    ) -> Result<(PgConnection, SessionId), StoreError> {
        let connected = timeout(deadline, async {
            let options = options(address, host);
            let mut connection = options.connect().await.map_err(|error| self.refused(error))?;
            // This check comes before any setting: on a shared session, a setting would also apply to other clients.
            if !self.is_session_ours.load(Ordering::Relaxed) && self.is_shared(&options, &mut connection).await? {
                return Err(StoreError::SharedSession);
            }
            let id = SessionId::on(Arc::clone(host));
            self.begin_session(&mut connection, &id).await?;
            Ok((connection, id))
        });
        connected.await.unwrap_or(Err(StoreError::Unanswered { what: CONNECTING, after: deadline }))
    }

    fn refused(&self, source: sqlx::Error) -> StoreError {
        // The SQLSTATE of too_many_connections.
        if source.as_database_error().and_then(|error| error.code()).as_deref() == Some("53300") {
            return StoreError::TooManyConnections { connections_max: self.connections_max, source };
        }
        StoreError::Sql { what: CONNECTING, source }
    }

    /// The options with which a listener connects to the host that was used last, and the id of its session. The session
    /// must be begun with [`Servers::begin_session`].
    pub(super) fn for_listener(&self) -> Option<(PgConnectOptions, SessionId)> {
        let host = self.good().clone()?;
        Some((options(&self.address.current(), &host), SessionId::on(host)))
    }

    /// Makes every setting of a session, marks it, and checks whether it accepts writes. All of this is done with
    /// statements. Some poolers refuse startup parameters, and others drop them without an error.
    pub(super) async fn begin_session<'c, E>(&self, executor: E, id: &SessionId) -> Result<(), StoreError>
    where
        E: Executor<'c, Database = sqlx::Postgres>,
    {
        let address = self.address.current();
        let needs_writes = address.session == SessionAttributes::ReadWrite;
        let own = address.options.iter().map(|(name, value)| setting(name, value)).collect::<String>();
        let sql = self.set_up.replace("{mark}", &id.mark.to_string()).replace("{own}", &own);
        let row = executor.fetch_one(AssertSqlSafe(sql)).await.map_err(StoreError::sql("setting up a session"))?;
        let is_read_only: bool = row.try_get("is_read_only").map_err(StoreError::sql("setting up a session"))?;
        if is_read_only && needs_writes { Err(StoreError::ReadOnly) } else { Ok(()) }
    }

    /// Whether other clients use this session between two statements, as behind a pooler in transaction mode. A second
    /// client opens a transaction, and the pooler must find a session for it. It either takes the session that the first
    /// client seemed to have, or gives the first client another one afterwards.
    async fn is_shared(&self, options: &PgConnectOptions, first: &mut PgConnection) -> Result<bool, StoreError> {
        const COMPARING: &str = "comparing sessions";
        let own = backend(first, "SELECT pg_backend_pid()").await.map_err(StoreError::sql(COMPARING))?;
        let compare = async {
            let mut second = options.connect().await?;
            for _ in 0..COMPARISONS {
                let asked = backend(&mut second, "BEGIN; SELECT pg_backend_pid()");
                let Ok(other) = timeout(SECOND_SESSION_DEADLINE, asked).await else {
                    // A client that has to wait cannot have the session of the first one.
                    break;
                };
                let other = other?;
                let now = backend(first, "SELECT pg_backend_pid()").await?;
                if other == own || now != own {
                    return Ok(true);
                }
                second.execute("ROLLBACK").await?;
            }
            // The second connection is no longer needed, so an error does not matter.
            let _ = timeout(SECOND_SESSION_DEADLINE, second.close()).await;
            Ok(false)
        };
        match compare.await {
            Ok(is_shared) => {
                self.is_session_ours.store(!is_shared, Ordering::Relaxed);
                Ok(is_shared)
            }
            // The SQLSTATE of protocol_violation: a pooler in statement mode accepts no transactions.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("08P01") => Ok(true),
            // The server has no room for a second client. The next connection checks again.
            Err(sqlx::Error::Database(_)) => Ok(false),
            Err(error) => Err(StoreError::Sql { what: COMPARING, source: error }),
        }
    }

    /// Returns those of these sessions that still exist. A session that only waits for its client is ended. The others end
    /// by themselves. A session on a host that is no longer used counts as ended, because the limit applies to each server.
    pub(super) async fn alive(&self, ids: &[SessionId]) -> Result<Vec<Alive>, StoreError> {
        const WHAT: &str = "looking after sessions that were given up";
        let (mut connection, here) = self.connect().await?;
        let deadline = self.host_deadline(&self.address.current());
        let ids: Vec<_> = ids.iter().filter(|id| id.host == here.host).collect();
        let marks = ids.iter().map(|id| id.mark.to_string()).collect::<Vec<_>>().join(", ");
        let mut alive = vec![];
        if !ids.is_empty() {
            // A session that waits for a commit is left alone: to end it would show others data that no standby has.
            let sql = format!(
                "SELECT l.objid::int8 AS mark, coalesce(a.wait_event = 'SyncRep', false) AS is_committing,
                        CASE WHEN a.state = 'idle' THEN pg_terminate_backend(a.pid) END AS is_ended
                 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
                 WHERE l.locktype = 'advisory' AND l.classid = {MARK_KEY} AND l.objsubid = 2 AND l.objid IN ({marks})
                   AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())"
            );
            let rows = timeout(deadline, connection.fetch_all(AssertSqlSafe(sql))).await;
            let rows = rows
                .map_err(|_elapsed| StoreError::Unanswered { what: WHAT, after: deadline })?
                .map_err(StoreError::sql(WHAT))?;
            for row in rows {
                let read = |row: &PgRow| Ok((row.try_get("mark")?, row.try_get("is_committing")?));
                let (mark, is_committing): (i64, bool) = read(&row).map_err(StoreError::sql(WHAT))?;
                let of_mark = ids.iter().filter(|id| i64::from(id.mark) == mark);
                alive.extend(of_mark.map(|id| Alive { id: SessionId::clone(id), is_committing }));
            }
        }
        // The connection is no longer needed, so an error does not matter.
        let _ = timeout(deadline, connection.close()).await;
        Ok(alive)
    }
}

fn options(address: &DatabaseAddress, host: &DatabaseHost) -> PgConnectOptions {
    let options = connect::options_for(address, host);
    let options =
        if options.get_application_name().is_none() { options.application_name("grantonce") } else { options };
    // Some poolers refuse this startup parameter. Since Postgres 12 the default prints floating point numbers exactly.
    options.extra_float_digits(None).disable_statement_logging()
}

async fn backend(connection: &mut PgConnection, sql: &'static str) -> Result<i32, sqlx::Error> {
    connection.fetch_one(sql).await?.try_get(0)
}

/// The one statement that begins a session.
fn set_up(profile: Profile, deadline: Duration) -> String {
    // The server ends what the client has lost, and it does so earlier than the client. All of these timeouts are off by
    // default.
    let ms = |time: Duration| time.as_millis().to_string();
    let lock_wait = match profile {
        Profile::Batches => (deadline / 2).min(LOCK_WAIT),
        Profile::Requests | Profile::Operations | Profile::Audit => deadline / 2,
    };
    let mut settings = vec![
        // What is committed by a single statement relies on it, as every transaction does.
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", ms(deadline * 3 / 4)),
        ("lock_timeout", ms(lock_wait)),
        ("idle_in_transaction_session_timeout", ms(deadline * 3 / 4)),
        // No session is idle for so long.
        ("idle_session_timeout", ms(super::IDLE_MAX * 5)),
        // These end a statement whose client has gone, and a session whose client has gone without a sign.
        ("client_connection_check_interval", "5s".to_owned()),
        ("tcp_keepalives_idle", "30".to_owned()),
        ("tcp_keepalives_interval", "10".to_owned()),
        ("tcp_keepalives_count", "3".to_owned()),
        ("tcp_user_timeout", "60s".to_owned()),
    ];
    if matches!(profile, Profile::Batches | Profile::Requests) {
        // Every statement finds its rows by their keys. With fresh or skewed statistics the planner may believe that it is
        // cheaper to read a whole table. It never is, and a plan that was made for an empty table is kept when the table
        // grows. No statement is worth being compiled, or planned again for other arrays.
        let off = ["enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"];
        settings.extend(off.map(|name| (name, "off".to_owned())));
        settings.push(("plan_cache_mode", "force_generic_plan".to_owned()));
    }
    let settings = settings.iter().map(|(name, value)| setting(name, value)).collect::<String>();
    // Postgres 17 and newer have a timeout for the whole transaction, including its pauses. The operator's own settings come
    // first, because they must not change the settings that safety depends on.
    format!(
        "SELECT {{own}}{settings}
                CASE WHEN current_setting('transaction_timeout', true) IS NOT NULL
                     THEN set_config('transaction_timeout', '{}', false) END,
                pg_advisory_lock_shared({MARK_KEY}, {{mark}}),
                current_setting('transaction_read_only')::bool AS is_read_only",
        deadline.as_millis()
    )
}

/// A part of the statement that begins a session.
fn setting(name: &str, value: &str) -> String {
    let quoted = |text: &str| text.replace('\'', "''").replace('\\', "\\\\");
    format!("set_config(E'{}', E'{}', false), ", quoted(name), quoted(value))
}

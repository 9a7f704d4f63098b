//! Reads orders together. Requests that arrive while others are being answered share the next statement.
//!
//! One statement for each request would be one round trip and one connection for each. The first request after a pause does
//! not wait. In a busy process, statements begin [`READ_EVERY`] apart, so each of them answers several requests. Only a change
//! that somebody waits for is read at once.

use super::error::{Class, StoreError};
use super::orders::OrderView;
use super::pool::Store;
use crate::domain::OrderId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

/// The number of statements that run at the same time. One that hangs does not delay all readers.
const STATEMENTS_MAX: usize = 2;

/// The largest number of requests that one statement answers.
const TOGETHER_MAX: usize = 500;

/// The shortest time between the beginnings of two statements, unless one is full or reads a change. A statement costs both
/// sides much more than one more row.
const READ_EVERY: Duration = Duration::from_millis(4);

/// The answer to a reader of an order. Readers who asked at the same time share the order, or the error.
pub type OrderRead = Result<Option<Arc<OrderView>>, Arc<StoreError>>;

/// The last read of a watched order. `None` means that it was not read since it is watched.
pub(super) type LastRead = watch::Sender<Option<OrderRead>>;

struct Request {
    id: OrderId,
    answer: Answer,
}

impl Request {
    /// Whether it is about a change. Announcements already gather changes.
    fn is_of_change(&self) -> bool {
        matches!(self.answer, Answer::Waiting(_))
    }
}

/// Where an answer goes.
enum Answer {
    /// To the one caller who asked.
    Caller(oneshot::Sender<OrderRead>),
    /// To everybody who waits for a change of the order.
    Waiting(LastRead),
}

impl Answer {
    /// If the reader has gone, nobody reads the answer.
    fn send(self, read: OrderRead) {
        match self {
            Self::Caller(caller) => drop(caller.send(read)),
            Self::Waiting(last_read) => drop(last_read.send(Some(read))),
        }
    }
}

/// Reads orders for many readers at once. Clones are cheap. The tasks end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct OrderReader {
    queue: mpsc::Sender<Request>,
    deadline: Duration,
}

/// What the tasks share.
struct Queue {
    requests: mpsc::Receiver<Request>,
    not_before: Instant,
}

impl OrderReader {
    /// Starts the tasks that read. At most `waiting_max` requests wait. Must be called inside a tokio runtime.
    pub fn start(store: &Store, waiting_max: usize) -> Self {
        let (queue, requests) = mpsc::channel(waiting_max.max(1));
        let shared = Arc::new(Mutex::new(Queue { requests, not_before: Instant::now() }));
        for _ in 0..STATEMENTS_MAX {
            tokio::spawn(read_on(store.for_reading(), Arc::clone(&shared)));
        }
        // A request may wait for the statement before it and for its own.
        Self { queue, deadline: store.deadline() * 2 }
    }

    /// Reads an order as it is now or later, never as it was before the call. Returns `None` if there is no such order.
    pub async fn order(&self, id: OrderId) -> OrderRead {
        const WHAT: &str = "reading an order";
        let (caller, answered) = oneshot::channel();
        let read = async {
            let lost = || Arc::new(StoreError::Lost { what: WHAT });
            let request = Request { id, answer: Answer::Caller(caller) };
            self.queue.send(request).await.map_err(|_ended| lost())?;
            answered.await.unwrap_or_else(|_ended| Err(lost()))
        };
        let in_vain = || Err(Arc::new(StoreError::Deadline { what: WHAT, after: self.deadline }));
        tokio::time::timeout(self.deadline, read).await.unwrap_or_else(|_elapsed| in_vain())
    }

    /// Reads a changed order for everybody who waits for it. Returns `false` if too many requests wait.
    pub(super) fn read_again(&self, id: OrderId, last_read: &LastRead) -> bool {
        self.queue.try_send(Request { id, answer: Answer::Waiting(last_read.clone()) }).is_ok()
    }
}

async fn read_on(store: Store, shared: Arc<Mutex<Queue>>) {
    let mut some = Vec::new();
    loop {
        {
            let mut queue = shared.lock().await;
            if queue.requests.recv_many(&mut some, TOGETHER_MAX).await == 0 {
                return;
            }
            let may_wait = |some: &[Request]| some.len() < TOGETHER_MAX && !some.iter().any(Request::is_of_change);
            let until = queue.not_before;
            while may_wait(&some)
                && let room = TOGETHER_MAX - some.len()
                && let Ok(1..) = timeout_at(until, queue.requests.recv_many(&mut some, room)).await
            {}
            queue.not_before = Instant::now() + READ_EVERY;
        }
        let ids: HashSet<_> = some.iter().map(|request| request.id).collect();
        let orders = read(&store, ids.into_iter().collect()).await;
        for Request { id, answer } in some.drain(..) {
            answer.send(orders.get(&id).cloned().unwrap_or(Ok(None)));
        }
    }
}

/// Reads these orders. Orders that do not exist are left out.
async fn read(store: &Store, ids: Vec<OrderId>) -> HashMap<OrderId, OrderRead> {
    let mut all = HashMap::with_capacity(ids.len());
    // Postgres returned the rows, and one of them cannot be read. The other orders of this statement must not fail for it.
    let is_of_one_row = |error: &StoreError| error.class() == Class::Bug && error.code().is_none() && ids.len() > 1;
    match store.orders(&ids).await {
        Ok(orders) => all.extend(orders.into_iter().map(|order| (order.id, Ok(Some(Arc::new(order)))))),
        Err(error) if is_of_one_row(&error) => {
            for id in ids {
                let alone = store.orders(&[id]).await;
                all.insert(id, alone.map(|mut orders| orders.pop().map(Arc::new)).map_err(Arc::new));
            }
        }
        Err(error) => {
            let error = Arc::new(error);
            all.extend(ids.into_iter().map(|id| (id, Err(Arc::clone(&error)))));
        }
    }
    all
}

//! Reads orders together. Orders that are requested while others are being read share the next statement.
//!
//! One statement for each request would be one round trip and one connection for each. One announcement wakes all readers
//! who wait for the orders of a batch. If nothing is being read, a request does not wait for others.

use super::error::{Class, StoreError};
use super::orders::OrderView;
use super::pool::Store;
use crate::domain::OrderId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};

/// The number of statements that run at the same time. One that hangs does not delay all readers.
const STATEMENTS_MAX: usize = 2;

/// The largest number of requests that one statement answers.
const TOGETHER_MAX: usize = 500;

/// The answer to a reader of an order. Readers who asked at the same time share the order, or the error.
pub type OrderRead = Result<Option<Arc<OrderView>>, Arc<StoreError>>;

struct Request {
    id: OrderId,
    answer: oneshot::Sender<OrderRead>,
}

/// Reads orders for many readers at once. Clones are cheap. The tasks end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct OrderReader {
    queue: mpsc::Sender<Request>,
    deadline: Duration,
}

impl OrderReader {
    /// Starts the tasks that read. At most `waiting_max` requests wait. Must be called inside a tokio runtime.
    pub fn start(store: &Store, waiting_max: usize) -> Self {
        let (queue, waiting) = mpsc::channel(waiting_max.max(1));
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..STATEMENTS_MAX {
            tokio::spawn(read_on(store.for_reading(), Arc::clone(&waiting)));
        }
        // A request may wait for the statement before it and for its own.
        Self { queue, deadline: store.deadline() * 2 }
    }

    /// Reads an order as it is now or later, never as it was before the call. Returns `None` if there is no such order.
    pub async fn order(&self, id: OrderId) -> OrderRead {
        const WHAT: &str = "reading an order";
        let (answer, answered) = oneshot::channel();
        let read = async {
            let lost = || Arc::new(StoreError::Lost { what: WHAT });
            self.queue.send(Request { id, answer }).await.map_err(|_ended| lost())?;
            answered.await.unwrap_or_else(|_ended| Err(lost()))
        };
        let in_vain = || Err(Arc::new(StoreError::Deadline { what: WHAT, after: self.deadline }));
        tokio::time::timeout(self.deadline, read).await.unwrap_or_else(|_elapsed| in_vain())
    }
}

async fn read_on(store: Store, waiting: Arc<Mutex<mpsc::Receiver<Request>>>) {
    let mut some = Vec::new();
    loop {
        {
            let mut waiting = waiting.lock().await;
            if waiting.recv_many(&mut some, TOGETHER_MAX).await == 0 {
                return;
            }
            // If one event wakes many readers, the first one arrives here before the others could ask.
            tokio::task::yield_now().await;
            while some.len() < TOGETHER_MAX
                && let Ok(more) = waiting.try_recv()
            {
                some.push(more);
            }
        }
        let ids: HashSet<_> = some.iter().map(|request| request.id).collect();
        let orders = read(&store, ids.into_iter().collect()).await;
        for Request { id, answer } in some.drain(..) {
            // If the reader has gone, nobody reads the answer.
            drop(answer.send(orders.get(&id).cloned().unwrap_or(Ok(None))));
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

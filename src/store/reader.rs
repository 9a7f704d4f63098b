//! Reading orders together: those that are asked for while others are being read share the next statement.
//!
//! A statement of its own for each request is a round trip and a connection for each, and one announcement wakes all who
//! wait for the orders of a batch. With nothing under way nobody waits for company.

use super::error::{Class, StoreError};
use super::orders::OrderView;
use super::pool::Store;
use crate::domain::OrderId;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};

/// Statements under way side by side: one that hangs does not hold up all readers.
const STATEMENTS_MAX: usize = 2;

/// Most requests that are answered by one statement.
const TOGETHER_MAX: usize = 500;

/// What an order's reader is told. Those who asked together share an order, and a failure.
pub type OrderRead = Result<Option<Arc<OrderView>>, Arc<StoreError>>;

struct Request {
    id: OrderId,
    answer: oneshot::Sender<OrderRead>,
}

/// Reads orders for many at once. Cheap to clone; its tasks end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct OrderReader {
    queue: mpsc::Sender<Request>,
    deadline: Duration,
}

impl OrderReader {
    /// Starts reading; at most `waiting_max` requests wait. Must be called inside a tokio runtime.
    pub fn start(store: &Store, waiting_max: usize) -> Self {
        let (queue, waiting) = mpsc::channel(waiting_max.max(1));
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..STATEMENTS_MAX {
            tokio::spawn(read_on(store.for_reading(), Arc::clone(&waiting)));
        }
        // Of the statement before, and of its own.
        Self { queue, deadline: store.deadline() * 2 }
    }

    /// Reads an order as it is now or later, never as it was before the call. `None` when there is no such order.
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
            // The first of many that were woken together is here before the others have had their turn to ask.
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
            // Who has gone does not read the answer.
            drop(answer.send(orders.get(&id).cloned().unwrap_or(Ok(None))));
        }
    }
}

/// What is known of each of these orders; those that do not exist are left out.
async fn read(store: &Store, ids: Vec<OrderId>) -> HashMap<OrderId, OrderRead> {
    let mut all = HashMap::with_capacity(ids.len());
    // Postgres gave the rows, and one of them cannot be read: no reason to fail those that were asked for at the same time.
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

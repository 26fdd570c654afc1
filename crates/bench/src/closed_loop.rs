//! The closed loop: a fixed number of requests in flight, the next begins when one ends. It finds capacity and the
//! cost per request.
//!
//! Its latencies are honest only about the loop itself: a stall holds back the requests that would have met it. Use
//! the open loop ([`crate::open_loop`]) to learn what users of a certain rate would see.
//!
//! Invariant: never more requests in flight than asked for, and as many as asked for while the target answers.

use std::{rc::Rc, time::Duration};

use tokio::task::{JoinHandle, spawn_local};

use crate::{
    clock,
    target::{BatchConnection, Connection, OpError},
    window::Shared,
};

/// Pause after a failure without answer, so that a target that is gone is not asked a million times a second.
const BACK_OFF: Duration = Duration::from_millis(10);

/// Starts `in_flight` callers, spread evenly over the connections.
pub(crate) fn calls<C: Connection>(
    connections: &[C],
    in_flight: usize,
    shared: &Rc<Shared>,
) -> Vec<JoinHandle<()>> {
    (0..in_flight)
        .map(|caller| {
            spawn_local(call_loop(connections[caller % connections.len()].clone(), shared.clone()))
        })
        .collect()
}

async fn call_loop<C: Connection>(mut connection: C, shared: Rc<Shared>) {
    // The end of one request is the beginning of the next: one reading of the clock per request.
    let mut began = clock::now();
    while !shared.is_stopped() {
        let op = shared.next_op();
        let ticket = shared.begin(began, op.is_put());
        let result = connection.call(op).await;
        let unreachable = result.as_ref().is_err_and(OpError::is_unreachable);
        began = ticket.end(result);
        if unreachable {
            tokio::time::sleep(BACK_OFF).await;
            began = clock::now();
        }
    }
}

/// Keeps `in_flight` requests under way in messages of `batch`, spread over the connections by whole messages.
/// `in_flight` is a multiple of `batch`.
pub(crate) fn batches<B: BatchConnection>(
    connections: &[B],
    in_flight: usize,
    batch: usize,
    shared: &Rc<Shared>,
) -> Vec<JoinHandle<()>> {
    let messages = in_flight / batch;
    let used = messages.min(connections.len());
    (0..used)
        .map(|index| {
            let share = messages / used + usize::from(index < messages % used);
            spawn_local(batch_loop(
                connections[index].clone(),
                share * batch,
                batch,
                shared.clone(),
            ))
        })
        .collect()
}

async fn batch_loop<B: BatchConnection>(
    connection: B,
    in_flight: usize,
    batch: usize,
    shared: Rc<Shared>,
) {
    let guard = Abandon { connection: &connection, shared: &shared };
    let mut free = in_flight;
    let mut ops = Vec::with_capacity(batch);
    let mut completions = Vec::with_capacity(in_flight);
    let mut now = clock::now();
    loop {
        while free >= batch && !shared.is_stopped() {
            ops.extend((0..batch).map(|_| (shared.next_op(), now)));
            shared.begin_many(batch);
            free -= batch;
            connection.start(&mut ops);
        }
        if free == in_flight {
            break;
        }
        connection.completed(&mut completions).await;
        now = clock::now();
        free += completions.len();
        let mut unreachable = false;
        for completion in completions.drain(..) {
            unreachable |= completion.result.as_ref().is_err_and(OpError::is_unreachable);
            shared.completed(now, completion.began, completion.is_put, completion.result);
        }
        if unreachable {
            tokio::time::sleep(BACK_OFF).await;
            now = clock::now();
        }
    }
    drop(guard);
}

/// Counts what is in flight as unanswered when its loop ends or is cancelled.
pub(crate) struct Abandon<'a, B: BatchConnection> {
    /// Whose requests.
    pub(crate) connection: &'a B,
    /// Where they are counted.
    pub(crate) shared: &'a Rc<Shared>,
}

impl<B: BatchConnection> Drop for Abandon<'_, B> {
    fn drop(&mut self) {
        let now = clock::now();
        for began in self.connection.abandon() {
            self.shared.unanswered(now, began);
        }
    }
}

//! The handlers of a connection's requests, polled by the task of the connection itself.
//!
//! A task for each request would wake the connection once an answer, and every answer would leave in a write of its
//! own. Polled together, all answers that are ready at a time (those of one group commit above all) leave in one.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use futures_util::{FutureExt, StreamExt, stream::FuturesUnordered};
use hyper::rt::Executor;

type Handler = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Takes the handlers that hyper starts for the requests of one connection.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    started: Arc<Mutex<Vec<Handler>>>,
}

impl Handlers {
    fn started(&self) -> MutexGuard<'_, Vec<Handler>> {
        self.started.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Executor<F> for Handlers {
    fn execute(&self, handler: F) {
        let guarded = AssertUnwindSafe(handler).catch_unwind().map(|ended| {
            // The stream was reset when its handler was dropped; the others of the connection go on.
            if ended.is_err() {
                tracing::error!("a bug ended a request; see the message of the panic");
            }
        });
        self.started().push(Box::pin(guarded));
    }
}

/// A connection together with the handlers of its requests. Ends with the connection; what still runs then has
/// nobody to answer and is dropped.
pub(crate) struct WithHandlers<C> {
    connection: Pin<Box<C>>,
    handlers: Handlers,
    running: FuturesUnordered<Handler>,
}

impl<C> WithHandlers<C> {
    /// `handlers` is the executor that `connection` was made with.
    pub(crate) fn new(connection: Pin<Box<C>>, handlers: Handlers) -> WithHandlers<C> {
        WithHandlers { connection, handlers, running: FuturesUnordered::new() }
    }

    /// The connection alone.
    pub(crate) fn connection(&mut self) -> Pin<&mut C> {
        self.connection.as_mut()
    }
}

impl<C: Future> Future for WithHandlers<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        loop {
            // Answers first: the connection then writes all of them at once, and reads the next requests.
            // What the handlers want of the store's threads is announced once for all of them.
            runtime::bell::together(|| {
                while let Poll::Ready(Some(())) = this.running.poll_next_unpin(cx) {}
            });
            if let Poll::Ready(ended) = this.connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let mut started = this.handlers.started();
            if started.is_empty() {
                return Poll::Pending;
            }
            this.running.extend(started.drain(..));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use tokio::sync::oneshot;

    use super::*;

    /// Starts its handlers when it is polled first; counts how many had ended at each of its turns.
    struct FakeConnection {
        executor: Handlers,
        starts: Vec<Handler>,
        ended: Arc<Mutex<usize>>,
        turns: Vec<usize>,
        ends_at_turn: usize,
    }

    impl Future for FakeConnection {
        type Output = Vec<usize>;

        fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Vec<usize>> {
            let ended = *self.ended.lock().unwrap();
            self.turns.push(ended);
            for handler in std::mem::take(&mut self.starts) {
                self.executor.execute(handler);
            }
            if self.turns.len() < self.ends_at_turn {
                return Poll::Pending;
            }
            Poll::Ready(std::mem::take(&mut self.turns))
        }
    }

    fn connection(
        handlers: Vec<Handler>,
        ended: &Arc<Mutex<usize>>,
        ends_at_turn: usize,
    ) -> WithHandlers<FakeConnection> {
        let executor = Handlers::default();
        let connection = FakeConnection {
            executor: executor.clone(),
            starts: handlers,
            ended: ended.clone(),
            turns: Vec::new(),
            ends_at_turn,
        };
        WithHandlers::new(Box::pin(connection), executor)
    }

    fn poll<C: Future + Unpin>(connection: &mut C) -> Poll<C::Output> {
        Pin::new(connection).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn answers_that_are_ready_together_cost_the_connection_one_turn() {
        let ended = Arc::new(Mutex::new(0));
        let (gates, handlers): (Vec<_>, Vec<_>) = (0..16)
            .map(|_| {
                let (gate, opened) = oneshot::channel::<()>();
                let ended = ended.clone();
                let handler: Handler = Box::pin(async move {
                    opened.await.unwrap();
                    *ended.lock().unwrap() += 1;
                });
                (gate, handler)
            })
            .unzip();
        // Two turns to start them: one that brings them, one after they have been polled.
        let mut connection = connection(handlers, &ended, 3);
        assert!(poll(&mut connection).is_pending());
        gates.into_iter().for_each(|gate| gate.send(()).unwrap());
        let Poll::Ready(turns) = poll(&mut connection) else {
            panic!("its third turn is its last")
        };
        assert_eq!(turns, [0, 0, 16]);
    }

    #[test]
    fn a_panic_ends_one_request_and_no_other() {
        let ended = Arc::new(Mutex::new(0));
        let counted = ended.clone();
        let handlers: Vec<Handler> = vec![
            Box::pin(async { panic!("a bug") }),
            Box::pin(async move { *counted.lock().unwrap() += 1 }),
        ];
        let mut connection = connection(handlers, &ended, 2);
        let Poll::Ready(turns) = poll(&mut connection) else {
            panic!("its second turn is its last")
        };
        assert_eq!(turns, [0, 1]);
    }
}

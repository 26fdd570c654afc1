//! How far the log is durable, and who waits for it.
//!
//! On the path of every request: whether a point is durable costs one atomic load. Only those whose point is not take
//! the lock and wait, and a sync wakes exactly those whose point it reached.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use tokio::sync::{oneshot, watch};

use crate::{Error, LogPosition, Result};

/// How far the log is durable.
#[derive(Debug)]
pub(super) struct Progress {
    durable: AtomicU64,
    /// Those who wait, by their point. Bounded by the requests that a server admits.
    waiting: Mutex<BTreeMap<LogPosition, Vec<oneshot::Sender<Result<()>>>>>,
    stopped: watch::Sender<Option<Error>>,
}

/// What a request has to do before it may answer.
#[derive(Debug)]
pub(super) enum Wait {
    /// Nothing.
    Over,
    /// Wait for this.
    For(oneshot::Receiver<Result<()>>),
}

impl Progress {
    pub(super) fn new(durable: LogPosition) -> Progress {
        Progress {
            durable: AtomicU64::new(durable.0),
            waiting: Mutex::default(),
            stopped: watch::Sender::new(None),
        }
    }

    /// Waits until the log is durable up to `position`.
    pub(super) fn wait_for(&self, position: LogPosition) -> Wait {
        if self.is_durable(position) {
            return Wait::Over;
        }
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.waiting();
        // Checked again under the lock that `advance` and `stop` take, so that neither passes unseen.
        if self.is_durable(position) {
            return Wait::Over;
        }
        match self.check() {
            Ok(()) => waiting.entry(position).or_default().push(sender),
            // The receiver takes it; if it is gone nobody wants to know.
            Err(error) => drop(sender.send(Err(error))),
        }
        Wait::For(receiver)
    }

    /// Everything up to `position` is durable.
    pub(super) fn advance(&self, position: LogPosition) {
        let mut waiting = self.waiting();
        self.durable.store(position.0, Ordering::Release);
        let later = waiting.split_off(&LogPosition(position.0 + 1));
        let reached = std::mem::replace(&mut *waiting, later);
        drop(waiting);
        for sender in reached.into_values().flatten() {
            // Who has gone does not want to know.
            let _ = sender.send(Ok(()));
        }
    }

    /// Nothing more becomes durable. The first cause stays.
    pub(super) fn stop(&self, cause: &Error) {
        let mut waiting = self.waiting();
        self.stopped.send_if_modified(|stopped| {
            let is_first = stopped.is_none();
            stopped.get_or_insert_with(|| cause.clone());
            is_first
        });
        let all = std::mem::take(&mut *waiting);
        drop(waiting);
        for sender in all.into_values().flatten() {
            let _ = sender.send(Err(cause.clone()));
        }
    }

    /// The cause, if it was stopped.
    pub(super) fn check(&self) -> Result<()> {
        match &*self.stopped.borrow() {
            Some(cause) => Err(cause.clone()),
            None => Ok(()),
        }
    }

    /// Returns the cause once it is stopped.
    pub(super) async fn stopped(&self) -> Error {
        let mut stopped = self.stopped.subscribe();
        let cause = stopped.wait_for(Option::is_some).await;
        cause.ok().and_then(|cause| cause.clone()).unwrap_or(Error::ShutDown)
    }

    fn is_durable(&self, position: LogPosition) -> bool {
        position.0 <= self.durable.load(Ordering::Acquire)
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<LogPosition, Vec<oneshot::Sender<Result<()>>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wait {
    pub(super) async fn over(self) -> Result<()> {
        match self {
            Wait::Over => Ok(()),
            Wait::For(receiver) => receiver.await.unwrap_or(Err(Error::ShutDown)),
        }
    }

    pub(super) fn over_blocking(self) -> Result<()> {
        match self {
            Wait::Over => Ok(()),
            Wait::For(receiver) => receiver.blocking_recv().unwrap_or(Err(Error::ShutDown)),
        }
    }
}

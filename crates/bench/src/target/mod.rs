//! What load is put on: the traits that loops and reports know, and the ways to open one of the targets.
//!
//! A target offers connections of one of two kinds. A [`Connection`] carries one request at a time per clone of it
//! (unary gRPC). A [`BatchConnection`] carries messages of many requests whose answers come in any order. Loops are
//! generic over both, so a request costs no virtual call; whole runs go through the object-safe [`Target`].
//!
//! Invariant: a request is `Ok` only if the answer says so and, for reads, if the value fits its key.

pub(crate) mod echo;
pub(crate) mod etcd;
mod routes;
pub(crate) mod tikv;
pub(crate) mod tikv_batch;
mod wire;

use std::{future::Future, pin::Pin, rc::Rc, time::Instant};

use bytes::Bytes;
use tokio::task::JoinHandle;

use crate::{
    error::Error,
    keys::Dataset,
    window::{Plan, Shared},
    workload::Op,
};

/// A future that stays on its thread.
pub(crate) type LocalFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpError {
    /// No answer: connection or gRPC failure.
    #[error("no answer: {0}")]
    Rpc(String),
    /// A region error that trying again did not cure.
    #[error("region error: {0}")]
    Region(String),
    /// An answer that says no.
    #[error("refused: {0}")]
    Refused(String),
    /// A key that should be there is not.
    #[error("no value under a key that was loaded")]
    Missing,
    /// A value that does not fit its key.
    #[error("a value does not fit its key: its checksum is wrong")]
    Mismatch,
    /// Not answered in the grace time after the window.
    #[error("not answered within the grace time after the window")]
    Unanswered,
}

impl OpError {
    /// Whether the target, or the way to it, is gone for the moment: callers wait before they go on.
    pub(crate) fn is_unreachable(&self) -> bool {
        matches!(self, OpError::Rpc(_) | OpError::Region(_))
    }
}

impl From<tonic::Status> for OpError {
    fn from(status: tonic::Status) -> OpError {
        OpError::Rpc(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// A connection that carries one request per clone at a time.
pub(crate) trait Connection: Clone + 'static {
    /// Executes one request and checks its answer.
    fn call(&mut self, op: Op) -> impl Future<Output = Result<(), OpError>>;

    /// Writes pairs in ascending order of keys, as many at once as the target takes.
    fn put_many(&mut self, pairs: Vec<(Bytes, Bytes)>)
    -> impl Future<Output = Result<(), OpError>>;
}

/// The end of a request that went out in a batch.
#[derive(Debug)]
pub(crate) struct Completion {
    /// The moment that was handed to [`BatchConnection::start`].
    pub(crate) began: Instant,
    /// Whether it was a write.
    pub(crate) is_put: bool,
    /// How it ended.
    pub(crate) result: Result<(), OpError>,
}

/// A connection whose messages carry many requests. Clones share it.
pub(crate) trait BatchConnection: Clone + 'static {
    /// Sends the requests as one message (one per store, where they go to several) and empties the list. Latency
    /// counts from the moment beside each.
    fn start(&self, ops: &mut Vec<(Op, Instant)>);

    /// Waits until requests have ended and moves all of them to `out`.
    fn completed(&self, out: &mut Vec<Completion>) -> impl Future<Output = ()>;

    /// Gives up what is in flight; returns when each of those requests began. Their answers are ignored.
    fn abandon(&self) -> Vec<Instant>;
}

/// What is known of the processes behind a target.
#[derive(Clone, Debug, Default)]
pub(crate) struct Servers {
    /// Their process ids; empty if they are not known (another machine).
    pub(crate) pids: Vec<u32>,
    /// Where they offer metrics (host:port).
    pub(crate) status: Vec<String>,
}

/// Something that load can be put on. Dropping it stops what it started.
pub(crate) trait Target {
    /// The name in reports.
    fn name(&self) -> &'static str;

    /// The data set as this target holds it.
    fn dataset(&self) -> Rc<Dataset>;

    /// The processes whose costs are reported.
    fn servers(&self) -> &Servers;

    /// Requests per message, if they go out in batches.
    fn batch(&self) -> Option<usize>;

    /// Writes the keys unless they are there.
    fn load(&self, seed: u64) -> LocalFuture<'_, Result<(), Error>>;

    /// Starts the load of one window.
    fn spawn(&self, plan: &Plan, shared: &Rc<Shared>) -> Vec<JoinHandle<()>>;
}

#[cfg(test)]
mod tests;

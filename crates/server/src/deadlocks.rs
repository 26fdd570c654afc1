//! Who waits for whose lock, in the whole cluster: one store keeps the graph, the others ask it.
//!
//! It is the store that leads the region with the first key, as with TiKV. When that changes, a new graph begins empty;
//! who waits then asks again when its wait is over, and meets the new one. A circle that is missed so long ends by the
//! time-outs of those in it.
//!
//! Who waits holds a stream of its own to the detector, on a connection that all share. Its end, of whatever cause, takes
//! the edge back.

use std::{
    fmt,
    future::pending,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use proto::deadlock::{DeadlockRequest, DeadlockRequestType, deadlock_client::DeadlockClient};
use runtime::Clock;
use storage::Storage;
use tonic::transport::{Channel, Endpoint};
use txn::{
    KeyError, LockInfo, WaitFor,
    deadlock::{Circle, Deadlocks, key_hash},
};
use types::{Code, TimeStamp};

use crate::{
    convert_txn,
    placement::{Placement, PlacementError},
};

/// How long a connection to the detector may take.
const DIAL_WITHIN: Duration = Duration::from_secs(1);

/// The graph of this store, and the way to the one that counts. Clones share it.
#[derive(Clone)]
pub(crate) struct DeadlockDetector {
    inside: Arc<Inside>,
}

struct Inside {
    storage: Storage,
    placement: Placement,
    clock: Arc<dyn Clock>,
    graph: Mutex<Deadlocks>,
    /// The way to the detector that was asked last, if that is another store.
    channel: Mutex<Option<Channel>>,
}

impl DeadlockDetector {
    pub(crate) fn new(
        storage: Storage,
        placement: Placement,
        clock: Arc<dyn Clock>,
    ) -> DeadlockDetector {
        let (graph, channel) = (Mutex::default(), Mutex::default());
        let inside = Inside { storage, placement, clock, graph, channel };
        DeadlockDetector { inside: Arc::new(inside) }
    }

    /// Ends when transaction `start_ts` must not wait for `locked`: a circle would be closed. Nobody knows of the wait any
    /// more when this is dropped.
    pub(crate) async fn detect(&self, start_ts: TimeStamp, locked: &LockInfo) -> KeyError {
        let edge = WaitFor { start_ts, wait_for_ts: locked.start_ts, key: locked.key.clone() };
        if self.leads() {
            let mut watch = self.watch();
            return match watch.wait(edge.clone()) {
                Some(circle) => error(&edge, circle),
                None => pending().await,
            };
        }
        match self.ask(&edge).await {
            Ok(circle) => error(&edge, circle),
            Err(refused) => {
                tracing::debug!(error = %refused, "the deadlock detector could not be asked");
                self.forget_channel();
                pending().await
            }
        }
    }

    /// Whether this store is the detector.
    pub(crate) fn leads(&self) -> bool {
        let storage = &self.inside.storage;
        let (Some(raft), Some(first)) = (storage.raft(), storage.region_at(&[])) else {
            return false;
        };
        raft.views().find(first.id).is_some_and(|view| view.leads_in.is_some())
    }

    /// A place for edges, which are taken back when it is dropped.
    pub(crate) fn watch(&self) -> Watch {
        Watch { detector: self.clone(), edges: Vec::new() }
    }

    /// All edges that are known here.
    pub(crate) fn edges(&self) -> Vec<WaitFor> {
        self.graph().edges()
    }

    fn graph(&self) -> MutexGuard<'_, Deadlocks> {
        // Nothing panics between two changes that belong together.
        self.inside.graph.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn channel(&self) -> MutexGuard<'_, Option<Channel>> {
        self.inside.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_channel(&self) {
        *self.channel() = None;
    }

    /// Waits for a circle, at the store that leads the first region.
    async fn ask(&self, edge: &WaitFor) -> Result<Circle, PlacementError> {
        let channel = self.connect().await?;
        let entry = convert_txn::wait_to_proto(edge);
        let tp = DeadlockRequestType::Detect.into();
        let request = DeadlockRequest { tp, entry: Some(entry), ..DeadlockRequest::default() };
        // It says one thing and then stays open: its end takes the edge back.
        let requests =
            futures_util::stream::once(async { request }).chain(futures_util::stream::pending());
        let mut answers = DeadlockClient::new(channel).detect(requests).await?.into_inner();
        match answers.next().await {
            Some(Ok(found)) => {
                let chain = found.wait_chain.into_iter().map(convert_txn::wait).collect();
                Ok(Circle { chain, key: found.deadlock_key })
            }
            Some(Err(status)) => Err(status.into()),
            None => {
                Err(PlacementError::new(Code::SchedulerUnreachable, "the detector has stopped"))
            }
        }
    }

    async fn connect(&self) -> Result<Channel, PlacementError> {
        let Inside { placement, .. } = &*self.inside;
        let cached = self.channel().clone();
        if let Some(channel) = cached {
            return Ok(channel);
        }
        let unreachable = |reason: String| PlacementError::new(Code::SchedulerUnreachable, reason);
        let leader = placement.first_leader().await?;
        let leader = leader.ok_or_else(|| unreachable("nobody leads the first region".into()))?;
        let address = placement.store_address(leader).await?;
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|error| unreachable(error.to_string()))?;
        let channel = endpoint.connect_timeout(DIAL_WITHIN).tcp_nodelay(true).connect().await;
        let channel = channel.map_err(|error| unreachable(error.to_string()))?;
        *self.channel() = Some(channel.clone());
        Ok(channel)
    }
}

/// Edges that somebody has put into the graph here.
pub(crate) struct Watch {
    detector: DeadlockDetector,
    edges: Vec<WaitFor>,
}

impl Watch {
    /// Puts one more, unless it closes a circle.
    pub(crate) fn wait(&mut self, edge: WaitFor) -> Option<Circle> {
        let now = self.detector.inside.clock.monotonic().as_millis() as u64;
        let circle = self.detector.graph().wait(edge.clone(), now);
        if circle.is_none() {
            self.edges.push(edge);
        }
        circle
    }

    /// Takes one back.
    pub(crate) fn forget(&mut self, edge: &WaitFor) {
        self.detector.graph().forget(edge);
        self.edges.retain(|other| other != edge);
    }

    /// Takes all of a transaction back.
    pub(crate) fn forget_txn(&mut self, start_ts: TimeStamp) {
        self.detector.graph().forget_txn(start_ts);
        self.edges.retain(|other| other.start_ts != start_ts);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut graph = self.detector.graph();
        self.edges.iter().for_each(|edge| graph.forget(edge));
    }
}

/// The error for who would have closed the circle.
fn error(edge: &WaitFor, circle: Circle) -> KeyError {
    KeyError::Deadlock {
        lock_ts: edge.wait_for_ts,
        lock_key: edge.key.clone(),
        deadlock_key_hash: key_hash(&circle.key),
        wait_chain: circle.chain,
    }
}

impl fmt::Debug for DeadlockDetector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DeadlockDetector").field(&self.inside.storage.ident().store_id).finish()
    }
}

//! One process of a cluster: a scheduler, a store, or both. Starts, reports, stops.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use runtime::{Clock, Fs, real::RealClock, real::RealFs};
use storage::Storage;
use tokio::{sync::watch, task::JoinSet};
use types::ClusterId;

use crate::{
    Config, StartError, StopCause,
    listen::Phase,
    placement::{Placement, Remote},
    scheduler_node::SchedulerNode,
    store_node::StoreNode,
};

/// What a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Roles {
    /// Runs a scheduler.
    pub scheduler: bool,
    /// Runs a store.
    pub store: bool,
}

impl Roles {
    /// A whole cluster in one process.
    pub const ALL: Roles = Roles { scheduler: true, store: true };
}

/// Where a started process listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The cluster that it is part of.
    pub cluster_id: ClusterId,
    /// The scheduler's port: gRPC and HTTP.
    pub scheduler: Option<SocketAddr>,
    /// The stores' ports: gRPC.
    pub stores: Vec<SocketAddr>,
    /// The stores' status ports: HTTP.
    pub statuses: Vec<SocketAddr>,
}

impl Ready {
    /// The port of the first store.
    pub fn store(&self) -> Option<SocketAddr> {
        self.stores.first().copied()
    }

    /// The status port of the first store.
    pub fn status(&self) -> Option<SocketAddr> {
        self.statuses.first().copied()
    }
}

/// What the parts of a process share: time, files, phases, and a way to say that it is over.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) stopped: watch::Sender<Option<StopCause>>,
}

impl Process {
    pub(crate) fn new() -> Process {
        Process {
            clock: Arc::new(RealClock::new()),
            fs: Arc::new(RealFs::new()),
            phase: watch::Sender::new(Phase::Running),
            stopped: watch::Sender::new(None),
        }
    }

    /// The phase, to wait for.
    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Says that a part has failed for good. The first cause stays.
    pub(crate) fn stop(&self, cause: StopCause) {
        self.stopped.send_if_modified(|stopped| {
            let first = stopped.is_none();
            stopped.get_or_insert(cause);
            first
        });
    }
}

/// A running process. Dropping it stops it at once; [`Server::shutdown`] stops it gracefully.
#[derive(Debug)]
pub struct Server {
    ready: Ready,
    process: Process,
    /// Everything that serves, in no particular order.
    tasks: JoinSet<()>,
    scheduler: Option<SchedulerNode>,
    stores: Vec<StoreNode>,
}

impl Server {
    /// Starts the parts that `roles` names, on the caller's tokio runtime.
    ///
    /// # Errors
    /// A taken port, a data directory that is locked, damaged, of a newer format or of something else, a scheduler
    /// that does not answer, a setting that contradicts what the cluster was created with. Nothing runs then.
    pub async fn start(config: Config, roles: Roles) -> Result<Server, StartError> {
        let config = Arc::new(config);
        let process = Process::new();
        let mut tasks = JoinSet::new();
        let scheduler = match roles.scheduler {
            true => Some(SchedulerNode::start(&config, &process, &mut tasks).await?),
            false => None,
        };
        let placement = match &scheduler {
            Some(scheduler) => Placement::Local(scheduler.local()),
            None => Placement::Remote(Arc::new(Remote::new(config.scheduler.endpoints.clone()))),
        };
        let mut stores = Vec::new();
        for nth in 0..if roles.store { config.node.stores } else { 0 } {
            let config = Arc::new(config.of_store(nth));
            let placement = placement.clone();
            stores.push(StoreNode::start(&config, nth, &process, placement, &mut tasks).await?);
        }
        let cluster_id = match (&scheduler, stores.first()) {
            (Some(scheduler), _) => scheduler.local().cluster_id,
            (None, Some(store)) => store.storage().ident().cluster_id,
            (None, None) => ClusterId(0),
        };
        let ready = Ready {
            cluster_id,
            scheduler: scheduler.as_ref().and_then(SchedulerNode::addr),
            stores: stores.iter().filter_map(StoreNode::addr).collect(),
            statuses: stores.iter().filter_map(StoreNode::status_addr).collect(),
        };
        Ok(Server { ready, process, tasks, scheduler, stores })
    }

    /// Where it listens.
    pub fn ready(&self) -> Ready {
        self.ready.clone()
    }

    /// The first store's data, for callers in the same process.
    pub fn storage(&self) -> Option<&Storage> {
        self.stores.first().map(StoreNode::storage)
    }

    /// Resolves when a part has failed for good and nothing more is acknowledged; never in good times.
    pub fn stopped(&self) -> impl Future<Output = StopCause> + Send + 'static {
        let mut stopped = self.process.stopped.subscribe();
        async move {
            let cause = stopped.wait_for(Option::is_some).await.map(|cause| cause.clone());
            match cause {
                Ok(cause) => cause.expect("was waited for"),
                // The server is gone, and with it whoever could fail.
                Err(_) => std::future::pending().await,
            }
        }
    }

    /// Takes no new requests, lets those under way end within `deadline`, makes everything durable, and stops.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.process.phase.send_replace(Phase::Draining);
        for store in &self.stores {
            store.disconnect();
        }
        let drained = tokio::time::timeout(deadline, async {
            while self.tasks.join_next().await.is_some() {}
        });
        if drained.await.is_err() {
            tracing::warn!(?deadline, "requests were still under way at the deadline");
        }
        self.process.phase.send_replace(Phase::Stopped);
        self.tasks.shutdown().await;
        let (stores, scheduler) = (std::mem::take(&mut self.stores), self.scheduler.take());
        // Both join threads that may sit in a sync.
        let stopped = tokio::task::spawn_blocking(move || {
            for store in stores {
                store.stop();
            }
            if let Some(scheduler) = scheduler {
                scheduler.stop();
            }
        });
        if let Err(error) = stopped.await {
            tracing::error!(%error, "a part did not stop cleanly");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.process.phase.send_replace(Phase::Stopped);
    }
}

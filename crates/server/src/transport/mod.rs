//! What carries messages and snapshots from store to store.
//!
//! Each store dials each other store that it has something to say to, and sends batches of messages on one stream; what
//! is said back comes over the other's own connection. A snapshot has a connection for itself, so that its megabytes
//! hold up nobody.
//!
//! ```text
//!  raftstore ── send ──► Outbox ──► connect: batches ─── gRPC ──► receive: checks ── deliver ──► raftstore
//!      │   (never waits)  (one a store)                                                            ▲
//!      └── send_snapshot ──────────────► snapshots: parts of a file ──► a file, durable ── deliver ┘
//! ```
//!
//! Lossy throughout: what does not fit, can't go or has no place where it arrives is dropped and counted. Raft sends
//! again what matters. What must not happen is that something arrives damaged, or at somebody else than it was meant
//! for: payloads have checksums, and a stream begins with the names of the cluster and of both stores.

mod connect;
mod counters;
mod handshake;
mod outbox;
mod receive;
mod snapshots;
mod wire;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroU64,
    path::PathBuf,
    sync::{Arc, PoisonError, RwLock},
};

use futures_util::future::BoxFuture;
use proto::internal::store_transport_server::StoreTransportServer;
use raftstore::{
    StoreMessage,
    shell::{Inbox, Transport},
    snapshot::{Descriptor, Snapshots},
};
use runtime::Rng;
use tokio::{runtime::Handle, sync::watch};
use types::{ClusterId, StoreId, limits};

use crate::placement::PlacementError;

pub(crate) use counters::{COUNTERS, Counter, Counters};
pub(crate) use receive::Receiver;

use outbox::Outbox;
use snapshots::Sends;

/// Says where stores are.
pub(crate) trait Addresses: fmt::Debug + Send + Sync + 'static {
    /// The address of a store, `host:port`, as of now.
    ///
    /// # Errors
    /// The store is unknown or gone for good, or nobody knows at the moment.
    fn address(&self, store: StoreId) -> BoxFuture<'static, Result<String, PlacementError>>;
}

/// How the transport is set.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// Bytes a second that one snapshot may take on its way out; as fast as it goes if none are said.
    pub(crate) snapshot_bytes_per_second: Option<NonZeroU64>,
}

/// The way from this store to all others. Dropping it, or [`StoreTransport::stop`], ends all its tasks and streams.
#[derive(Debug)]
pub(crate) struct StoreTransport {
    shared: Arc<Shared>,
    runtime: Handle,
    addresses: Arc<dyn Addresses>,
    sends: Arc<Sends>,
}

/// What the tasks and the service know of the whole.
#[derive(Debug)]
struct Shared {
    cluster: ClusterId,
    own: StoreId,
    options: Options,
    counters: Arc<Counters>,
    life: watch::Sender<Life>,
    /// One for each store that there was something to say to: as many as the cluster has had.
    outboxes: RwLock<BTreeMap<StoreId, Arc<Outbox>>>,
}

/// How far the store is.
#[derive(Clone, Debug)]
enum Life {
    /// It can't take messages yet.
    Starting,
    /// It takes messages.
    Running(Arc<Running>),
    /// Everything ends.
    Stopped,
}

/// Where messages and snapshots go.
#[derive(Debug)]
struct Running {
    inbox: Arc<dyn Inbox>,
    snapshots: Snapshots,
}

impl StoreTransport {
    /// The transport of store `own`, and the service for its port. Both are of use at once; what arrives before
    /// [`StoreTransport::start`] is dropped. Must be called on a tokio runtime, on which all its tasks will run.
    pub(crate) fn new(
        cluster: ClusterId,
        own: StoreId,
        addresses: Arc<dyn Addresses>,
        options: Options,
    ) -> (Arc<StoreTransport>, StoreTransportServer<Receiver>) {
        let shared = Arc::new(Shared {
            cluster,
            own,
            options,
            counters: Arc::default(),
            life: watch::Sender::new(Life::Starting),
            outboxes: RwLock::default(),
        });
        let receiver = Receiver::new(shared.clone());
        let service = StoreTransportServer::new(receiver)
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        let runtime = Handle::current();
        let sends = Arc::default();
        (Arc::new(StoreTransport { shared, runtime, addresses, sends }), service)
    }

    /// From now on messages are delivered to `inbox`, and snapshots laid into `snapshots`.
    pub(crate) fn start(&self, inbox: Arc<dyn Inbox>, snapshots: Snapshots) {
        self.shared.life.send_modify(|life| {
            if matches!(life, Life::Starting) {
                *life = Life::Running(Arc::new(Running { inbox, snapshots }));
            }
        });
    }

    /// Ends all streams in both directions, and lets go of the inbox. Whoever drains the process calls this when no
    /// write is under way any more (the answers of followers come in over these streams): other stores never end
    /// their streams by themselves, and would hold up the end of the process.
    pub(crate) fn stop(&self) {
        self.shared.life.send_replace(Life::Stopped);
    }

    /// What it has done so far.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// What waits for `store`. At the first time it begins the task that carries it there; `None` after the end.
    fn outbox(&self, store: StoreId) -> Option<Arc<Outbox>> {
        let outboxes = self.shared.outboxes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outbox) = outboxes.get(&store) {
            return Some(outbox.clone());
        }
        drop(outboxes);
        if self.shared.is_stopped() {
            return None;
        }
        let mut outboxes = self.shared.outboxes.write().unwrap_or_else(PoisonError::into_inner);
        let outbox = outboxes.entry(store).or_insert_with(|| {
            let outbox = Arc::new(Outbox::new(store));
            outbox.open();
            let connection = connect::Connection::new(
                self.shared.clone(),
                self.addresses.clone(),
                outbox.clone(),
                Rng::from_entropy(),
            );
            self.runtime.spawn(connection.run());
            outbox
        });
        Some(outbox.clone())
    }
}

impl Transport for StoreTransport {
    fn send(&self, mut messages: Vec<StoreMessage>) {
        while let Some(first) = messages.first() {
            let store = first.to.store_id;
            let those = messages.extract_if(.., |message| message.to.store_id == store);
            match self.outbox(store) {
                Some(outbox) => outbox.push(those, &self.shared.counters),
                None => drop(those.count()),
            }
        }
    }

    fn send_snapshot(&self, message: Box<StoreMessage>, descriptor: Descriptor, file: PathBuf) {
        let (shared, addresses) = (self.shared.clone(), self.addresses.clone());
        let send =
            snapshots::send(shared, addresses, self.sends.clone(), message, descriptor, file);
        self.runtime.spawn(send);
    }
}

impl Drop for StoreTransport {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn is_stopped(&self) -> bool {
        matches!(*self.life.borrow(), Life::Stopped)
    }

    /// Returns when everything ends.
    async fn stopped(&self) {
        // The sender is in `self`.
        let _ = self.life.subscribe().wait_for(|life| matches!(life, Life::Stopped)).await;
    }

    /// Where messages go, if the store takes any.
    fn running(&self) -> Option<Arc<Running>> {
        match &*self.life.borrow() {
            Life::Running(running) => Some(running.clone()),
            Life::Starting | Life::Stopped => None,
        }
    }

    /// Where messages go, as soon as the store takes any; `None` if it never will.
    async fn wait_until_running(&self) -> Option<Arc<Running>> {
        let mut life = self.life.subscribe();
        match &*life.wait_for(|life| !matches!(life, Life::Starting)).await.ok()? {
            Life::Running(running) => Some(running.clone()),
            Life::Starting | Life::Stopped => None,
        }
    }

    /// Another store lives: what waits for it need not wait any longer.
    fn hear(&self, store: StoreId) {
        let outboxes = self.outboxes.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(outbox) = outboxes.get(&store) {
            outbox.hear();
        }
    }
}

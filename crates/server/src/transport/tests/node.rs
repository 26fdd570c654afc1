//! Stores without regions: a transport, its service on a port of loopback, and an inbox that remembers.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use proto::internal::{StreamHello, store_transport_client::StoreTransportClient};
use raft::MessageBody;
use raftstore::{
    StoreMessage,
    message::MessageBody as StoreBody,
    shell::{Inbox, Transport as _},
    snapshot::{Descriptor, Snapshots},
    state::ApplyState,
};
use runtime::{Fs, sim::SimFs};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{interval, timeout},
};
use tonic::transport::Channel;
use types::{ClusterId, Code, KeyRange, PeerId, Region, RegionEpoch, RegionId, StoreId};

use super::messages::{OWN, peer, raft};
use crate::{
    listen::{self, Phase, Protocol},
    placement::PlacementError,
    transport::{Addresses, Counter, Options, StoreTransport, connect, wire},
};

pub(super) const CLUSTER: ClusterId = ClusterId(7);
/// Where snapshots lie, on each store's own disk.
const DIR: &str = "/store/snapshots";
/// A test that waits longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where stores are.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    addresses: Arc<Mutex<BTreeMap<StoreId, String>>>,
    asked: Arc<AtomicUsize>,
}

impl Directory {
    pub(super) fn set(&self, store: StoreId, address: impl Into<String>) {
        self.addresses.lock().unwrap().insert(store, address.into());
    }

    /// How often somebody was looked for.
    pub(super) fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Addresses for Directory {
    fn address(&self, store: StoreId) -> BoxFuture<'static, Result<String, PlacementError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let found = self.addresses.lock().unwrap().get(&store).cloned();
        let unknown = || PlacementError::new(Code::SchedulerUnreachable, "nobody knows");
        Box::pin(std::future::ready(found.ok_or_else(unknown)))
    }
}

/// What a store was told.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    pub(super) messages: Vec<StoreMessage>,
    pub(super) unreachable: Vec<(RegionId, PeerId)>,
    pub(super) snapshots: Vec<(RegionId, PeerId, bool)>,
}

/// Remembers everything; takes messages as long as it has room.
#[derive(Debug)]
pub(super) struct Memory {
    told: watch::Sender<Told>,
    pub(super) room: Mutex<usize>,
}

impl Inbox for Memory {
    fn deliver(&self, mut messages: Vec<StoreMessage>) -> usize {
        let mut room = self.room.lock().unwrap();
        messages.truncate(*room);
        *room -= messages.len();
        let taken = messages.len();
        self.told.send_modify(|told| told.messages.extend(messages));
        taken
    }

    fn snapshot_sent(&self, region_id: RegionId, to: PeerId, arrived: bool) {
        self.told.send_modify(|told| told.snapshots.push((region_id, to, arrived)));
    }

    fn unreachable(&self, region_id: RegionId, peer: PeerId) {
        self.told.send_modify(|told| told.unreachable.push((region_id, peer)));
    }
}

/// A store.
pub(super) struct Node {
    pub(super) store: StoreId,
    pub(super) transport: Arc<StoreTransport>,
    pub(super) inbox: Arc<Memory>,
    pub(super) fs: SimFs,
    pub(super) snapshots: Snapshots,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) address: String,
    served: JoinHandle<()>,
}

impl Node {
    /// A store of [`CLUSTER`] that is found in `directory`.
    pub(super) async fn start(store: StoreId, directory: &Directory) -> Node {
        Node::start_in(CLUSTER, store, directory, Options::default()).await
    }

    pub(super) async fn start_in(
        cluster: ClusterId,
        store: StoreId,
        directory: &Directory,
        options: Options,
    ) -> Node {
        let listener = listen::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        directory.set(store, address.clone());
        let (transport, service) =
            StoreTransport::new(cluster, store, Arc::new(directory.clone()), options);
        let phase = watch::Sender::new(Phase::Running);
        let served =
            tokio::spawn(listen::serve(listener, Protocol::Http2, service, phase.subscribe()));
        let fs = SimFs::new();
        fs.create_dir_all(Path::new("/store")).unwrap();
        let snapshots = Snapshots::open(Arc::new(fs.clone()), Path::new(DIR)).unwrap();
        let room = Mutex::new(usize::MAX);
        let inbox = Arc::new(Memory { told: watch::Sender::default(), room });
        transport.start(inbox.clone(), snapshots.clone());
        Node { store, transport, inbox, fs, snapshots, phase, address, served }
    }

    /// Waits until what it was told is so.
    #[track_caller]
    pub(super) fn told(&self, so: impl FnMut(&Told) -> bool) -> impl Future<Output = Told> {
        let mut told = self.inbox.told.subscribe();
        let at = std::panic::Location::caller();
        async move {
            let waited = timeout(PATIENCE, told.wait_for(so)).await;
            let is_so = waited.unwrap_or_else(|_| panic!("{at}: it is not so"));
            is_so.expect("the inbox is there").clone()
        }
    }

    /// What it was told so far.
    pub(super) fn told_now(&self) -> Told {
        self.inbox.told.borrow().clone()
    }

    pub(super) fn count(&self, counter: Counter) -> u64 {
        self.transport.counters().get(counter)
    }

    /// Sends what `message` makes again and again, as Raft does, until `done`.
    pub(super) async fn send_until<T>(
        &self,
        message: impl Fn() -> StoreMessage,
        done: impl Future<Output = T>,
    ) -> T {
        let mut again = interval(Duration::from_millis(20));
        let mut done = std::pin::pin!(done);
        loop {
            tokio::select! {
                result = &mut done => return result,
                _ = again.tick() => self.transport.send(vec![message()]),
            }
        }
    }

    /// A client of this store's service that says what it likes.
    pub(super) async fn client(&self) -> StoreTransportClient<Channel> {
        StoreTransportClient::new(connect::dial(&self.address).await.unwrap())
    }

    /// What [`OWN`] says to this store first.
    pub(super) fn hello(&self) -> StreamHello {
        StreamHello {
            version: wire::VERSION,
            cluster_id: CLUSTER.0,
            from_store: OWN.0,
            to_store: self.store.0,
        }
    }

    /// Makes the file of a snapshot of `region` for `to`.
    pub(super) fn make(&self, region: u64, to: StoreId, bytes: &[u8]) -> Made {
        let made = describe(region, to, bytes.len() as u64);
        let Descriptor { region, applied, .. } = &made.descriptor;
        let file = self.snapshots.made(region.id, *applied);
        self.fs.replace(&file, bytes).unwrap();
        made
    }

    pub(super) fn send_snapshot(&self, made: &Made) {
        let Descriptor { region, applied, .. } = &made.descriptor;
        let file = self.snapshots.made(region.id, *applied);
        let message = Box::new(made.message.clone());
        self.transport.send_snapshot(message, made.descriptor.clone(), file);
    }

    /// The file of a snapshot that has arrived.
    pub(super) fn received(&self, made: &Made) -> Option<Vec<u8>> {
        let Descriptor { region, applied, .. } = &made.descriptor;
        self.fs.read(&self.snapshots.received(region.id, *applied)).unwrap()
    }

    /// Its files of snapshots.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.fs.list(Path::new(DIR)).unwrap()
    }

    /// Waits until something is so of which nobody is told.
    #[track_caller]
    pub(super) fn until(&self, mut so: impl FnMut(&Node) -> bool) -> impl Future<Output = ()> {
        let at = std::panic::Location::caller();
        async move {
            let mut again = interval(Duration::from_millis(1));
            let wait = async {
                while !so(self) {
                    again.tick().await;
                }
            };
            if timeout(PATIENCE, wait).await.is_err() {
                panic!("{at}: it is not so");
            }
        }
    }

    /// Ends as a process does that drains.
    pub(super) async fn drain(self) {
        self.phase.send_replace(Phase::Draining);
        timeout(PATIENCE, self.served).await.expect("streams hold up the end").unwrap();
    }

    /// Ends as a process does that is killed.
    pub(super) async fn kill(self) {
        self.transport.stop();
        self.served.abort();
        let _ = self.served.await;
    }
}

/// A snapshot: its message, and what it says of the file.
#[derive(Clone)]
pub(super) struct Made {
    pub(super) message: StoreMessage,
    pub(super) descriptor: Descriptor,
}

/// A snapshot of `bytes` bytes of `region` for the peer on `to`.
pub(super) fn describe(region: u64, to: StoreId, bytes: u64) -> Made {
    let applied = ApplyState { index: 9, term: 1 };
    let peers = vec![peer(region, OWN), peer(region, to)];
    let range = KeyRange::new("a", "b");
    let state = Region { id: RegionId(region), range, epoch: RegionEpoch::FIRST, peers };
    let descriptor = Descriptor { region: state, applied, bytes };
    let message = raft(region, to, MessageBody::Snapshot(Box::new(descriptor.to_raft())));
    Made { message, descriptor }
}

/// The numbers of [`numbered`](super::messages::numbered) messages.
pub(super) fn numbers(messages: &[StoreMessage]) -> Vec<u64> {
    let number = |message: &StoreMessage| match &message.body {
        StoreBody::Raft { message, .. } => match message.body {
            MessageBody::HeartbeatResponse { round } => Some(round),
            _ => None,
        },
        _ => None,
    };
    messages.iter().filter_map(number).collect()
}

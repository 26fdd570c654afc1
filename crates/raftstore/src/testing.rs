//! Stores in a box: the real store, applier, log and snapshots on simulated disks, with a network that does what a seed
//! says. No thread and no clock; the caller decides what happens next, or lets [`Cluster::anything`] draw it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{
    Engine, Family, MemoryEngine,
    raft_log::{self, RaftLog, RaftLogWriter},
};
use raft::MessageBody as RaftBody;
use runtime::{Fs, Rng, sim::SimFs};
use types::{
    Bytes, Cf, KeyRange, Modify, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionError,
    RegionId, StoreId,
    codec::{Reader, Writer},
};

use crate::{
    SplitChild,
    apply::{Applier, Changes, Machine, Task},
    config::StoreConfig,
    message::{MessageBody, StoreMessage},
    snapshot::{Descriptor, Snapshots},
    store::{self, Input, Output, Request, RequestKind, Response, Store, Token, check_read},
};

/// Puts pairs into the default family; answers what was there before the first one.
#[derive(Debug)]
pub struct KvMachine;

impl Machine for KvMachine {
    type Answer = Option<Bytes>;

    fn apply(
        &mut self,
        command: &Bytes,
        changes: &mut Changes<'_>,
    ) -> Result<Option<Bytes>, engine::Error> {
        let mut reader = Reader::new(command);
        let mut before = None;
        while reader.remaining() > 0 {
            let (key, value) = (reader.owned().unwrap(), reader.owned().unwrap());
            before = before.or(changes.get(Cf::Default, &key)?);
            changes.push(Modify::Put { cf: Cf::Default, key, value });
        }
        Ok(before)
    }
}

/// The command that puts a pair.
pub fn put(key: &[u8], value: &[u8]) -> Bytes {
    Writer::new().bytes(key).bytes(value).finish().into()
}

type Answer = Option<Bytes>;

/// One store and what is under way there.
#[derive(Debug)]
pub struct Node {
    fs: SimFs,
    /// The engine.
    pub engine: Arc<MemoryEngine>,
    log_writer: RaftLogWriter,
    snapshots: Snapshots,
    /// The store.
    pub store: Store<Answer>,
    applier: Applier<KvMachine>,
    tasks: VecDeque<Task>,
    syncs_log: bool,
    syncs_engine: bool,
    makes: VecDeque<RegionId>,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// A write was carried out; what was there before.
    Written(Answer),
    /// A region was changed.
    Changed(Vec<Region>),
    /// Something was begun.
    Begun,
    /// A read has seen this.
    Read(Option<Bytes>),
    /// It was refused, or nobody knows.
    Error(RegionError),
}

/// Stores and the network between them.
#[derive(Debug)]
pub struct Cluster {
    config: StoreConfig,
    rng: Rng,
    /// The stores that run.
    pub nodes: BTreeMap<StoreId, Node>,
    /// The disks of those that do not.
    off: BTreeMap<StoreId, (SimFs, Arc<MemoryEngine>)>,
    network: Vec<StoreMessage>,
    /// Stores that hear and say nothing.
    pub cut: BTreeSet<StoreId>,
    /// What became of requests.
    pub fates: BTreeMap<Token, Fate>,
    reads: BTreeMap<Token, Bytes>,
    last_token: u64,
    next_id: u64,
}

fn dir() -> PathBuf {
    PathBuf::from("/store")
}

impl Cluster {
    /// Stores 1 to `stores`, of which the first `replicas` have one region with everything.
    pub fn new(seed: u64, stores: u64, replicas: u64, config: StoreConfig) -> Cluster {
        let mut cluster = Cluster {
            config,
            rng: Rng::new(seed),
            nodes: BTreeMap::new(),
            off: BTreeMap::new(),
            network: Vec::new(),
            cut: BTreeSet::new(),
            fates: BTreeMap::new(),
            reads: BTreeMap::new(),
            last_token: 0,
            next_id: 1000,
        };
        let member =
            |id: u64| Peer { id: PeerId(id), store_id: StoreId(id), role: PeerRole::Voter };
        let region = Region {
            id: RegionId(1),
            range: KeyRange::all(),
            epoch: RegionEpoch::FIRST,
            peers: (1..=replicas).map(member).collect(),
        };
        for id in 1..=stores {
            let engine = MemoryEngine::with_journal();
            if id <= replicas {
                store::bootstrap(&engine, std::slice::from_ref(&region)).unwrap();
            }
            let fs = SimFs::new();
            fs.create_dir_all(&dir()).unwrap();
            fs.sync_dir(Path::new("/")).unwrap();
            cluster.off.insert(StoreId(id), (fs, Arc::new(engine)));
            cluster.start(StoreId(id));
        }
        cluster
    }

    /// An id that was never used.
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// Starts a store from its disk.
    pub fn start(&mut self, id: StoreId) {
        let Some((fs, engine)) = self.off.remove(&id) else { return };
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let options = raft_log::Options { segment_bytes: 1 << 16, ..raft_log::Options::default() };
        let (log, log_writer) =
            RaftLog::open(Arc::clone(&shared), &dir().join("raft"), &options, &mut |_| {}).unwrap();
        let snapshots = Snapshots::open(shared, &dir().join("snapshots")).unwrap();
        let config = StoreConfig { store_id: id, ..self.config.clone() };
        let rng = self.rng.fork();
        let store =
            Store::open(config, Arc::clone(&engine) as Arc<dyn Engine>, log, &snapshots, rng)
                .unwrap_or_else(|error| panic!("store {id}: {error}"));
        let applier = Applier::new(Arc::clone(&engine) as Arc<dyn Engine>, KvMachine);
        let node = Node {
            fs,
            engine,
            log_writer,
            snapshots,
            store,
            applier,
            tasks: VecDeque::new(),
            syncs_log: false,
            syncs_engine: false,
            makes: VecDeque::new(),
        };
        self.nodes.insert(id, node);
        self.turn(id);
    }

    /// The power of a store goes.
    pub fn crash(&mut self, id: StoreId) {
        let Some(node) = self.nodes.remove(&id) else { return };
        let fs = node.fs.crash(&mut self.rng);
        let engine = Arc::new(node.engine.crash(&mut self.rng));
        self.off.insert(id, (fs, engine));
    }

    /// Stores that do not run.
    pub fn off(&self) -> Vec<StoreId> {
        self.off.keys().copied().collect()
    }

    /// Sends a request to a store; its fate is noted under the token.
    pub fn request(&mut self, to: StoreId, region: &Region, kind: RequestKind) -> Token {
        self.last_token += 1;
        let token = Token(self.last_token);
        let Some(node) = self.nodes.get_mut(&to) else { return token };
        let request = Request {
            token,
            region_id: region.id,
            epoch: region.epoch,
            store_id: StoreId(0),
            kind,
        };
        node.store.step(Input::Request(request)).unwrap();
        self.turn(to);
        token
    }

    /// Asks a store to put a pair.
    pub fn put(&mut self, to: StoreId, region: &Region, key: &str, value: &str) -> Token {
        let first = Bytes::copy_from_slice(key.as_bytes());
        let command = put(key.as_bytes(), value.as_bytes());
        let last = first.clone();
        self.request(to, region, RequestKind::Write { first, last, command })
    }

    /// Asks a store for a value.
    pub fn get(&mut self, to: StoreId, region: &Region, key: &str, replica_read: bool) -> Token {
        self.reads.insert(Token(self.last_token + 1), Bytes::copy_from_slice(key.as_bytes()));
        self.request(to, region, RequestKind::Read { replica_read })
    }

    /// The region with `key` as the store that leads it knows it.
    pub fn leader_of(&self, key: &[u8]) -> Option<(StoreId, Region)> {
        let mut best: Option<(u64, StoreId, Region)> = None;
        for (id, node) in &self.nodes {
            for region in node.store.regions().filter(|region| region.range.contains(key)) {
                let Some(status) = node.store.raft_status(region.id) else { continue };
                let leads = status.role == raft::RoleKind::Leader;
                if leads && best.as_ref().is_none_or(|best| best.0 < status.term) {
                    best = Some((status.term, *id, region.clone()));
                }
            }
        }
        best.map(|(_, id, region)| (id, region))
    }

    /// Lets the store do what its inputs have brought about.
    fn turn(&mut self, id: StoreId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let outputs = node.store.turn().unwrap_or_else(|error| panic!("store {id}: {error}"));
        if let Err(both) = node.store.check_ranges() {
            panic!("store {id}: {both:?} overlap");
        }
        for output in outputs {
            match output {
                Output::Send(message) => self.network.push(*message),
                Output::SyncLog => node.syncs_log = true,
                Output::SyncEngine => node.syncs_engine = true,
                Output::Apply(task) => node.tasks.push_back(task),
                Output::Install { peer_id, descriptor } => {
                    let source = node.snapshots.source(&descriptor).unwrap();
                    let Descriptor { region, applied, .. } = descriptor;
                    node.tasks.push_back(Task::Install { peer_id, region, applied, source });
                }
                Output::MakeSnapshot { region_id } => node.makes.push_back(region_id),
                Output::ForgetSnapshot { region_id, applied } => {
                    node.snapshots.forget_received(region_id, applied).unwrap();
                }
                Output::Reply { token, result } => {
                    let fate = match result {
                        Ok(Response::Written(answer)) => Fate::Written(answer),
                        Ok(Response::Changed(regions)) => Fate::Changed(regions),
                        Ok(Response::Begun) => Fate::Begun,
                        Err(error) => Fate::Error(error),
                    };
                    assert!(
                        self.fates.insert(token, fate).is_none(),
                        "{token:?} is answered twice"
                    );
                }
                Output::Read { token, region_id, version } => {
                    let snapshot = node.engine.snapshot().unwrap();
                    let fate = match check_read(&*snapshot, region_id, version) {
                        Ok(_) => {
                            let value = snapshot.get(Family::Default, &self.reads[&token]).unwrap();
                            Fate::Read(value)
                        }
                        Err(error) => Fate::Error(error.unwrap()),
                    };
                    assert!(
                        self.fates.insert(token, fate).is_none(),
                        "{token:?} is answered twice"
                    );
                }
                Output::Role { .. } => {}
            }
        }
    }

    fn step(&mut self, id: StoreId, input: Input<Answer>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.store.step(input).unwrap_or_else(|error| panic!("store {id}: {error}"));
        self.turn(id);
    }

    /// A tick passes at a store.
    pub fn tick(&mut self, id: StoreId) {
        self.step(id, Input::Tick);
    }

    /// The disk and the applier of a store do one thing. Returns whether there was one.
    pub fn work(&mut self, id: StoreId) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let mut things: Vec<u64> = Vec::new();
        for (number, is_there) in
            [node.syncs_log, node.syncs_engine, !node.tasks.is_empty(), !node.makes.is_empty()]
                .into_iter()
                .enumerate()
        {
            if is_there {
                things.push(number as u64);
            }
        }
        if things.is_empty() {
            return false;
        }
        let thing = things[self.rng.range(0..things.len() as u64) as usize];
        let input = match thing {
            0 => {
                node.syncs_log = false;
                Input::LogSynced(node.log_writer.sync().unwrap())
            }
            1 => {
                node.syncs_engine = false;
                node.engine.sync().unwrap();
                Input::EngineSynced
            }
            2 => {
                let count = self.rng.range(1..=node.tasks.len() as u64) as usize;
                let tasks = node.tasks.drain(..count).collect();
                Input::Applied(node.applier.apply(tasks).unwrap())
            }
            _ => {
                let region_id = node.makes.pop_front().unwrap();
                let descriptor = node.snapshots.make(&*node.engine, region_id).unwrap();
                Input::SnapshotMade { region_id, descriptor }
            }
        };
        self.step(id, input);
        true
    }

    /// A message arrives, perhaps not the first. Returns whether there was one.
    pub fn deliver(&mut self, loss: f64, doubling: f64) -> bool {
        if self.network.is_empty() {
            return false;
        }
        let at = self.rng.range(0..self.network.len() as u64) as usize;
        let message = match self.rng.chance(doubling) {
            true => self.network[at].clone(),
            false => self.network.remove(at),
        };
        let (from, to) = (message.from.store_id, message.to.store_id);
        let is_lost = self.rng.chance(loss)
            || self.cut.contains(&from)
            || self.cut.contains(&to)
            || !self.nodes.contains_key(&to);
        if let MessageBody::Raft { message: raft, .. } = &message.body
            && let RaftBody::Snapshot(snapshot) = &raft.body
        {
            let descriptor = Descriptor::decode(&snapshot.data).unwrap();
            let arrived = !is_lost && self.copy_snapshot(from, to, &descriptor);
            let (region_id, peer) = (message.region_id, message.to.id);
            if arrived {
                self.step(to, Input::Message(Box::new(message)));
            }
            self.step(from, Input::SnapshotSent { region_id, to: peer, arrived });
        } else if !is_lost {
            self.step(to, Input::Message(Box::new(message)));
        }
        true
    }

    fn copy_snapshot(&mut self, from: StoreId, to: StoreId, descriptor: &Descriptor) -> bool {
        let (Some(sender), Some(receiver)) = (self.nodes.get(&from), self.nodes.get(&to)) else {
            return false;
        };
        let (region, applied) = (descriptor.region.id, descriptor.applied);
        let Some(bytes) = sender.fs.read(&sender.snapshots.made(region, applied)).unwrap() else {
            return false;
        };
        let path: PathBuf = receiver.snapshots.received(region, applied);
        receiver.fs.replace(Path::new(&path), &bytes).unwrap();
        true
    }

    /// Something happens: a tick, a message, work of a disk.
    pub fn anything(&mut self, loss: f64, doubling: f64) {
        let ids: Vec<StoreId> = self.nodes.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[self.rng.range(0..ids.len() as u64) as usize];
        match self.rng.range(0..100) {
            0..3 => self.tick(id),
            3..50 => {
                self.deliver(loss, doubling);
            }
            _ => {
                self.work(id);
            }
        }
    }

    /// Everything happens until `done`, without losses: `most` rounds of a tick at most.
    ///
    /// # Panics
    /// If it is never done.
    pub fn until(&mut self, most: u32, what: &str, mut done: impl FnMut(&mut Cluster) -> bool) {
        for _ in 0..most {
            let ids: Vec<StoreId> = self.nodes.keys().copied().collect();
            for id in &ids {
                self.tick(*id);
            }
            for _ in 0..10_000 {
                let mut any = self.deliver(0.0, 0.0);
                for id in &ids {
                    any |= self.work(*id);
                }
                if !any {
                    break;
                }
            }
            if done(self) {
                return;
            }
        }
        panic!("never: {what}\n{}", self.describe());
    }

    /// What each store believes, a line for each peer.
    pub fn describe(&self) -> String {
        let mut text = String::new();
        for (id, node) in &self.nodes {
            for status in node.store.statuses() {
                text += &format!("store {id}: {status}\n");
            }
        }
        text
    }

    /// The pairs of a region on a store.
    pub fn pairs(&self, id: StoreId, region: &Region) -> Vec<(Bytes, Bytes)> {
        let snapshot = self.nodes[&id].engine.snapshot().unwrap();
        let mut iter = snapshot.iter(Family::Default, &region.range).unwrap();
        let mut pairs = Vec::new();
        let mut valid = iter.seek_to_first().unwrap();
        while valid {
            pairs.push((iter.key_bytes(), iter.value_bytes()));
            valid = iter.next().unwrap();
        }
        pairs
    }

    /// Ids for a split of `region` at `key`.
    pub fn split_child(&mut self, region: &Region, key: &str) -> SplitChild {
        SplitChild {
            start: Bytes::copy_from_slice(key.as_bytes()),
            region_id: RegionId(self.new_id()),
            peer_ids: region.peers.iter().map(|_| PeerId(self.new_id())).collect(),
        }
    }

    /// The generator of the run.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

//! Stores in a box: the real store, applier, log and snapshots on simulated disks, with a network that does what a seed
//! says. No thread and no clock; the caller decides what happens next, or lets [`Cluster::anything`] draw it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod machine;
mod network;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    sync::Arc,
};

use engine::{
    Engine, Family, MemoryEngine,
    raft_log::{self, RaftLog, RaftLogWriter},
};
use runtime::{Fs, Rng, sim::SimFs};
use types::{
    Bytes, Cf, KeyRange, Modify, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionError,
    RegionId, StoreId,
};

use crate::{
    PeerView, RegionReport, SplitChild,
    apply::{Applier, Task},
    config::StoreConfig,
    hash::HashJob,
    snapshot::{Descriptor, Snapshots},
    split_check::{KeyForm, SplitJob},
    store::{self, Input, Output, Request, RequestKind, Response, Store, Token, check_read},
};

pub use machine::{KvMachine, command, put};
pub use network::TICK;
use network::{Filter, UnderWay};

type Answer = Option<Bytes>;

/// One store and what is under way there.
#[derive(Debug)]
pub struct Node {
    fs: SimFs,
    /// The engine.
    pub engine: Arc<MemoryEngine>,
    /// Its Raft log.
    pub log: RaftLog,
    log_writer: RaftLogWriter,
    snapshots: Snapshots,
    /// The store.
    pub store: Store<Answer>,
    applier: Applier<KvMachine>,
    tasks: VecDeque<Task>,
    syncs_log: bool,
    syncs_engine: bool,
    makes: VecDeque<RegionId>,
    /// How many snapshots were to be made at once.
    pub most_makes: usize,
    checks: VecDeque<SplitJob>,
    hashes: VecDeque<HashJob>,
    /// What was said of its peers last.
    pub views: BTreeMap<RegionId, PeerView>,
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
    /// A scan has seen these pairs, as many as are in the region.
    Scanned(Vec<(Bytes, Bytes)>),
    /// It was refused, or nobody knows.
    Error(RegionError),
}

/// What a read wants to see, of the default family.
#[derive(Clone, Debug)]
enum Wanted {
    Key(Bytes),
    Range(KeyRange),
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
    network: Vec<UnderWay>,
    filters: Vec<Filter>,
    now: u64,
    /// How many milliseconds a message takes, when time passes.
    pub delays: RangeInclusive<u64>,
    /// Stores that hear and say nothing.
    pub cut: BTreeSet<StoreId>,
    /// Stores whose engines are not synced for now.
    pub held: BTreeSet<StoreId>,
    /// Stores whose appliers do nothing.
    pub stalled: BTreeSet<StoreId>,
    /// What the scheduler was told last of each region.
    pub reports: BTreeMap<RegionId, RegionReport>,
    /// How many reports there were.
    pub reported: u64,
    /// Whether the scheduler gives ids to those who want to split a region.
    pub splits: bool,
    /// What the scheduler was asked to have split and was not.
    pub asked: Vec<(Region, Vec<Bytes>)>,
    /// Peers about whose regions the scheduler was asked.
    pub looked_up: BTreeSet<(StoreId, RegionId)>,
    /// Snapshots can't be made, as if there were no room for their files.
    pub makes_fail: bool,
    /// Replicas that were found to differ from their leader's.
    pub inconsistent: Vec<(StoreId, RegionId)>,
    /// How many replicas were hashed.
    pub hashed: u64,
    /// What the scheduler was told to be split.
    pub was_split: Vec<Vec<Region>>,
    /// What became of requests.
    pub fates: BTreeMap<Token, Fate>,
    reads: BTreeMap<Token, Wanted>,
    /// How many messages were sent.
    pub sent: u64,
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
            filters: Vec::new(),
            now: 0,
            delays: 1..=5,
            cut: BTreeSet::new(),
            held: BTreeSet::new(),
            stalled: BTreeSet::new(),
            reports: BTreeMap::new(),
            reported: 0,
            splits: false,
            asked: Vec::new(),
            looked_up: BTreeSet::new(),
            makes_fail: false,
            inconsistent: Vec::new(),
            hashed: 0,
            was_split: Vec::new(),
            fates: BTreeMap::new(),
            reads: BTreeMap::new(),
            sent: 0,
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
        let store = Store::open(
            config,
            Arc::clone(&engine) as Arc<dyn Engine>,
            log.clone(),
            &snapshots,
            rng,
        )
        .unwrap_or_else(|error| panic!("store {id}: {error}"));
        let applier = Applier::new(Arc::clone(&engine) as Arc<dyn Engine>, KvMachine);
        let node = Node {
            fs,
            engine,
            log,
            log_writer,
            snapshots,
            store,
            applier,
            tasks: VecDeque::new(),
            syncs_log: false,
            syncs_engine: false,
            makes: VecDeque::new(),
            most_makes: 0,
            checks: VecDeque::new(),
            hashes: VecDeque::new(),
            views: BTreeMap::new(),
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

    /// The engine of a store that is off has lost everything but its first state, which must not happen.
    pub fn lose_engine(&mut self, id: StoreId, first: &Region) {
        let engine = MemoryEngine::with_journal();
        store::bootstrap(&engine, std::slice::from_ref(first)).unwrap();
        if let Some((_, lost)) = self.off.get_mut(&id) {
            *lost = Arc::new(engine);
        }
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

    /// Asks a store to make a change of one key.
    ///
    /// # Panics
    /// If it is one of a range.
    pub fn write(&mut self, to: StoreId, region: &Region, change: &Modify) -> Token {
        let (Modify::Put { key, .. } | Modify::Delete { key, .. }) = change else {
            panic!("{change:?} is not of one key");
        };
        let (first, last) = (key.clone(), key.clone());
        let command = command(std::slice::from_ref(change));
        self.request(to, region, RequestKind::Write { first, last, command })
    }

    /// Asks a store to put a pair.
    pub fn put(&mut self, to: StoreId, region: &Region, key: &str, value: &str) -> Token {
        self.write(to, region, &put(key, value))
    }

    /// Asks a store for a value.
    pub fn get(&mut self, to: StoreId, region: &Region, key: &str, replica_read: bool) -> Token {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.read(to, region, Wanted::Key(key), replica_read)
    }

    /// Asks the leader for the pairs of `range` that are in the region.
    pub fn scan(&mut self, to: StoreId, region: &Region, range: KeyRange) -> Token {
        self.read(to, region, Wanted::Range(range), false)
    }

    fn read(&mut self, to: StoreId, region: &Region, wanted: Wanted, replica_read: bool) -> Token {
        self.reads.insert(Token(self.last_token + 1), wanted);
        self.request(to, region, RequestKind::Read { replica_read })
    }

    /// The region with `key` as the store that leads it knows it. If several believe to lead it, the one that knows the
    /// newer range, or the later term.
    pub fn leader_of(&self, key: &[u8]) -> Option<(StoreId, Region)> {
        let mut best: Option<((u64, u64), StoreId, &Region)> = None;
        for (id, node) in &self.nodes {
            for region in node.store.regions().filter(|region| region.range.contains(key)) {
                let Some(status) = node.store.raft_status(region.id) else { continue };
                let newness = (region.epoch.version, status.term);
                let leads = status.role == raft::RoleKind::Leader;
                if leads && best.as_ref().is_none_or(|best| best.0 < newness) {
                    best = Some((newness, *id, region));
                }
            }
        }
        best.map(|(_, id, region)| (id, region.clone()))
    }

    /// Lets the store do what its inputs have brought about.
    fn turn(&mut self, id: StoreId) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let outputs = node.store.turn().unwrap_or_else(|error| panic!("store {id}: {error}"));
        if let Err(both) = node.store.check_ranges() {
            panic!("store {id}: {both:?} overlap");
        }
        let (mut letters, mut asked) = (Vec::new(), Vec::new());
        for output in outputs {
            match output {
                Output::Send(message) => letters.push(*message),
                Output::SyncLog => node.syncs_log = true,
                Output::SyncEngine => node.syncs_engine = true,
                Output::Apply(task) => node.tasks.push_back(task),
                Output::Install { peer_id, descriptor } => {
                    let source = node.snapshots.source(&descriptor).unwrap();
                    let Descriptor { region, applied, .. } = descriptor;
                    node.tasks.push_back(Task::Install { peer_id, region, applied, source });
                }
                Output::MakeSnapshot { region_id } => {
                    node.makes.push_back(region_id);
                    node.most_makes = node.most_makes.max(node.makes.len());
                }
                Output::ForgetSnapshot { region_id, applied } => {
                    node.snapshots.forget_received(region_id, applied).unwrap();
                }
                Output::ForgetMade { region_id, applied } => {
                    node.snapshots.forget_made(region_id, applied).unwrap();
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
                Output::Read { token, region_id, version, term } => {
                    let snapshot = node.engine.snapshot().unwrap();
                    let fate = match check_read(&*snapshot, region_id, version, term) {
                        Ok(region) => self.reads[&token].see(&*snapshot, region),
                        Err(error) => Fate::Error(error.unwrap()),
                    };
                    assert!(
                        self.fates.insert(token, fate).is_none(),
                        "{token:?} is answered twice"
                    );
                }
                Output::View(view) => drop(node.views.insert(view.region.id, *view)),
                Output::Lease { .. } | Output::Gone { .. } => {}
                Output::Report(report) => {
                    self.reported += 1;
                    self.reports.insert(report.region.id, *report);
                }
                Output::AskRegion { region_id } => drop(self.looked_up.insert((id, region_id))),
                Output::CheckSplit(job) => node.checks.push_back(job),
                Output::AskSplit { region, keys } => asked.push((region, keys)),
                Output::WasSplit { regions } => self.was_split.push(regions),
                Output::ComputeHash(job) => node.hashes.push_back(*job),
                Output::Inconsistent { region, .. } => self.inconsistent.push((id, region.id)),
            }
        }
        for letter in letters {
            self.sent += 1;
            self.post(letter);
        }
        for (region, keys) in asked {
            if !self.splits {
                self.asked.push((region, keys));
                continue;
            }
            let children = keys.into_iter().map(|key| self.child_at(&region, key)).collect();
            self.request(id, &region, RequestKind::Split { children });
        }
    }

    fn step(&mut self, id: StoreId, input: Input<Answer>) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        node.store.step(input).unwrap_or_else(|error| panic!("store {id}: {error}"));
        self.turn(id);
    }

    /// The scheduler tells a store what it knows of a region.
    pub fn region_known(&mut self, id: StoreId, region: Region) {
        self.step(id, Input::RegionKnown(region));
    }

    /// A tick passes at a store.
    pub fn tick(&mut self, id: StoreId) {
        self.step(id, Input::Tick);
    }

    /// The disk and the applier of a store do one thing. Returns whether there was one.
    pub fn work(&mut self, id: StoreId) -> bool {
        let Some(node) = self.nodes.get_mut(&id) else { return false };
        let mut things: Vec<u64> = Vec::new();
        let is_there = [
            node.syncs_log,
            node.syncs_engine && !self.held.contains(&id),
            !node.tasks.is_empty() && !self.stalled.contains(&id),
            !node.makes.is_empty(),
            !node.checks.is_empty(),
            !node.hashes.is_empty(),
        ];
        for (number, is_there) in is_there.into_iter().enumerate() {
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
            3 => {
                let region_id = node.makes.pop_front().unwrap();
                let descriptor = match self.makes_fail {
                    true => None,
                    false => node.snapshots.make(&*node.engine, region_id).unwrap(),
                };
                Input::SnapshotMade { region_id, descriptor }
            }
            4 => {
                let job = node.checks.pop_front().unwrap();
                let found = job.run(&*node.engine, &self.config.split, KeyForm::Raw).unwrap();
                let SplitJob { region_id, epoch, .. } = job;
                Input::SplitChecked { region_id, epoch, found }
            }
            _ => {
                let job = node.hashes.pop_front().unwrap();
                self.hashed += 1;
                let (region_id, index, hash) = (job.region.id, job.index, job.run().unwrap());
                Input::HashComputed { region_id, index, hash }
            }
        };
        self.step(id, input);
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

    /// The files of snapshots, and where they lie.
    pub fn snapshot_files(&self) -> Vec<(StoreId, PathBuf)> {
        let files = |(id, node): (&StoreId, &Node)| {
            let files = node.fs.list(&dir().join("snapshots")).unwrap();
            files.into_iter().map(|file| (*id, file)).collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(files).collect()
    }

    /// The pairs of a region on a store.
    pub fn pairs(&self, id: StoreId, region: &Region) -> Vec<(Bytes, Bytes)> {
        pairs(&*self.nodes[&id].engine.snapshot().unwrap(), &region.range)
    }

    /// What the engine of a store has under a key.
    pub fn value(&self, id: StoreId, cf: Cf, key: &str) -> Option<Bytes> {
        self.nodes[&id].engine.snapshot().unwrap().get(Family::from(cf), key.as_bytes()).unwrap()
    }

    /// Ids for a split of `region` at `key`.
    pub fn split_child(&mut self, region: &Region, key: &str) -> SplitChild {
        self.child_at(region, Bytes::copy_from_slice(key.as_bytes()))
    }

    fn child_at(&mut self, region: &Region, start: Bytes) -> SplitChild {
        SplitChild {
            start,
            region_id: RegionId(self.new_id()),
            peer_ids: region.peers.iter().map(|_| PeerId(self.new_id())).collect(),
        }
    }

    /// The generator of the run.
    pub fn rng(&mut self) -> &mut Rng {
        &mut self.rng
    }
}

impl Wanted {
    fn see(&self, snapshot: &dyn engine::Snapshot, region: Region) -> Fate {
        match self {
            Wanted::Key(key) if !region.range.contains(key) => {
                let (key, region) = (key.clone(), Box::new(region));
                Fate::Error(RegionError::KeyNotInRegion { key, region })
            }
            Wanted::Key(key) => Fate::Read(snapshot.get(Family::Default, key).unwrap()),
            Wanted::Range(range) => Fate::Scanned(pairs(snapshot, &range.intersect(&region.range))),
        }
    }
}

fn pairs(snapshot: &dyn engine::Snapshot, range: &KeyRange) -> Vec<(Bytes, Bytes)> {
    let mut iter = snapshot.iter(Family::Default, range).unwrap();
    let mut pairs = Vec::new();
    let mut valid = iter.seek_to_first().unwrap();
    while valid {
        pairs.push((iter.key_bytes(), iter.value_bytes()));
        valid = iter.next().unwrap();
    }
    pairs
}

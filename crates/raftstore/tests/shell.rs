//! Stores with their real threads, clocks and files, and a network of function calls.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, Weak,
        mpsc::{Receiver, Sender, channel},
    },
    task::Waker,
    time::Duration,
};

use engine::{Engine, Family, MemoryEngine, Snapshot, raft_log::RaftLog};
use raftstore::{
    PeerView, RegionReport, StoreConfig, StoreMessage,
    shell::{Events, Inbox, Options, Parts, StoreHandle, StoreShell, Transport, Waiter},
    snapshot::{Descriptor, Snapshots},
    split_check::KeyForm,
    store::{self, RequestKind, Response, check_read},
    testing::{KvMachine, command, put},
};
use runtime::{Fs, Rng, real::RealClock, sim::SimFs};
use types::{
    Bytes, Cf, KeyRange, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionError, RegionId,
    StoreId,
};

type Answer = Option<Bytes>;
type Handle = StoreHandle<Answer, Wait>;

/// What became of a request.
#[derive(Debug)]
enum Fate {
    Answered(Result<(), RegionError>),
    MayRead,
}

/// A waiter that says it to a channel.
struct Wait(Sender<Fate>);

impl Waiter<Answer> for Wait {
    fn answer(self, result: Result<Response<Answer>, RegionError>) -> Option<Waker> {
        let _ = self.0.send(Fate::Answered(result.map(|_| ())));
        None
    }

    fn may_read(self, _: u64) -> Option<Waker> {
        let _ = self.0.send(Fate::MayRead);
        None
    }
}

/// The network: function calls.
#[derive(Debug, Default)]
struct Network {
    stores: Mutex<BTreeMap<StoreId, (Weak<Handle>, SimFs)>>,
}

impl Network {
    fn inbox(&self, store: StoreId) -> Option<(Arc<Handle>, SimFs)> {
        let stores = self.stores.lock().unwrap();
        let (handle, fs) = stores.get(&store)?;
        Some((handle.upgrade()?, fs.clone()))
    }
}

/// A store's end of it.
#[derive(Debug)]
struct Link {
    network: Arc<Network>,
    fs: SimFs,
    own: StoreId,
}

impl Transport for Link {
    fn send(&self, messages: Vec<StoreMessage>) {
        for message in messages {
            if let Some((handle, _)) = self.network.inbox(message.to.store_id) {
                handle.deliver(vec![message]);
            }
        }
    }

    fn send_snapshot(&self, message: Box<StoreMessage>, descriptor: Descriptor, file: PathBuf) {
        let (region_id, to) = (message.region_id, message.to.id);
        let target = self.network.inbox(message.to.store_id);
        let bytes = self.fs.read(&file).unwrap();
        let arrived = match (target, bytes) {
            (Some((handle, fs)), Some(bytes)) => {
                let snapshots = Snapshots::open(Arc::new(fs.clone()), &dir("snapshots")).unwrap();
                let path = snapshots.received(descriptor.region.id, descriptor.applied);
                fs.replace(&path, &bytes).unwrap();
                handle.deliver(vec![*message]) == 1
            }
            _ => false,
        };
        if let Some((handle, _)) = self.network.inbox(self.own) {
            handle.snapshot_sent(region_id, to, arrived);
        }
    }
}

#[derive(Debug)]
struct Silent;

impl Events for Silent {
    fn report(&self, _: RegionReport) {}
    fn ask_region(&self, _: RegionId) {}
    fn ask_split(&self, _: Region, _: Vec<Bytes>) {}
    fn was_split(&self, _: Vec<Region>) {}
    fn stopped(&self, _: &raftstore::Error) {}
}

fn dir(name: &str) -> PathBuf {
    Path::new("/store").join(name)
}

/// A store that runs, and what it leaves when it does not.
struct Node {
    shell: StoreShell<Answer, Wait>,
    handle: Arc<Handle>,
    engine: Arc<MemoryEngine>,
}

struct Cluster {
    network: Arc<Network>,
    nodes: BTreeMap<StoreId, Node>,
    disks: BTreeMap<StoreId, (SimFs, Arc<MemoryEngine>)>,
}

impl Cluster {
    fn new(stores: u64) -> Cluster {
        let member =
            |id: u64| Peer { id: PeerId(id), store_id: StoreId(id), role: PeerRole::Voter };
        let region = Region {
            id: RegionId(1),
            range: KeyRange::all(),
            epoch: RegionEpoch::FIRST,
            peers: (1..=stores).map(member).collect(),
        };
        let mut cluster =
            Cluster { network: Arc::default(), nodes: BTreeMap::new(), disks: BTreeMap::new() };
        for id in 1..=stores {
            let engine = MemoryEngine::with_journal();
            store::bootstrap(&engine, std::slice::from_ref(&region)).unwrap();
            let fs = SimFs::new();
            fs.create_dir_all(Path::new("/store")).unwrap();
            fs.sync_dir(Path::new("/")).unwrap();
            cluster.disks.insert(StoreId(id), (fs, Arc::new(engine)));
            cluster.start(StoreId(id));
        }
        cluster
    }

    fn start(&mut self, id: StoreId) {
        let (fs, engine) = self.disks[&id].clone();
        let shared: Arc<dyn Fs> = Arc::new(fs.clone());
        let (log, log_writer) = RaftLog::open(
            Arc::clone(&shared),
            &dir("raft"),
            &engine::raft_log::Options { segment_bytes: 1 << 20, ..Default::default() },
            &mut |_| {},
        )
        .unwrap();
        let parts = Parts {
            engine: Arc::clone(&engine) as Arc<dyn Engine>,
            log,
            log_writer,
            snapshots: Snapshots::open(shared, &dir("snapshots")).unwrap(),
            machine: KvMachine,
            transport: Arc::new(Link {
                network: Arc::clone(&self.network),
                fs: fs.clone(),
                own: id,
            }),
            events: Arc::new(Silent),
            clock: Arc::new(RealClock::new()),
            rng: Rng::new(id.0),
        };
        let options = Options {
            config: StoreConfig::new(id),
            tick: Duration::from_millis(10),
            key_form: Arc::new(|| KeyForm::Raw),
            has_room: Arc::new(|| true),
        };
        let shell = StoreShell::start(options, parts).unwrap();
        let handle = Arc::new(shell.handle().clone());
        self.network.stores.lock().unwrap().insert(id, (Arc::downgrade(&handle), fs));
        self.nodes.insert(id, Node { shell, handle, engine });
    }

    fn stop(&mut self, id: StoreId) {
        let Node { shell, handle, .. } = self.nodes.remove(&id).unwrap();
        self.network.stores.lock().unwrap().remove(&id);
        drop(handle);
        shell.stop();
    }

    /// The store that leads the region of a key, and its view.
    fn leader(&self, key: &[u8]) -> Option<(StoreId, PeerView)> {
        self.nodes.iter().find_map(|(id, node)| {
            let view = node
                .handle
                .views()
                .all()
                .into_iter()
                .find(|view| view.region.range.contains(key))?;
            (view.leader?.id == view.peer_id).then_some((*id, view))
        })
    }

    /// Sends a request until somebody has carried it out.
    fn ask(&self, key: &[u8], kind: impl Fn(&Region) -> RequestKind) -> (StoreId, Fate) {
        loop {
            let Some((store, view)) = self.leader(key) else {
                std::thread::yield_now();
                continue;
            };
            let (sender, fate): (_, Receiver<Fate>) = channel();
            let region = &view.region;
            self.nodes[&store].handle.ask(region.id, region.epoch, kind(region), Wait(sender));
            match fate.recv().unwrap() {
                Fate::Answered(Err(_)) => std::thread::yield_now(),
                fate => return (store, fate),
            }
        }
    }

    fn put(&self, key: &str, value: &str) {
        let bytes = Bytes::copy_from_slice(key.as_bytes());
        self.ask(key.as_bytes(), |_| RequestKind::Write {
            first: bytes.clone(),
            last: bytes.clone(),
            command: command(&[put(key, value)]),
        });
    }

    fn get_by_index(&self, key: &str) -> Option<Bytes> {
        let (store, _) = self.ask(key.as_bytes(), |_| RequestKind::Read { replica_read: false });
        self.value(&*self.nodes[&store].engine.snapshot().unwrap(), key)
    }

    /// Reads by a lease, as soon as somebody has one.
    fn get_by_lease(&self, key: &str) -> Option<Bytes> {
        loop {
            for node in self.nodes.values() {
                let views = node.handle.views();
                let moment = views.moment();
                let snapshot = node.engine.snapshot().unwrap();
                let all = views.all();
                let Some(view) = all.iter().find(|view| view.region.range.contains(key.as_bytes()))
                else {
                    continue;
                };
                let id = view.region.id;
                if views.check(id, moment, |_, holds| holds) == Some(true) {
                    return self.value(&*snapshot, key);
                }
            }
            std::thread::yield_now();
        }
    }

    fn value(&self, snapshot: &dyn Snapshot, key: &str) -> Option<Bytes> {
        snapshot.get(Family::from(Cf::Default), key.as_bytes()).unwrap()
    }
}

#[test]
fn writes_survive_the_loss_of_each_store_in_turn() {
    let mut cluster = Cluster::new(3);
    for round in 0..3 {
        for n in 0..20 {
            cluster.put(&format!("k{n}"), &format!("{round}"));
        }
        let (leader, _) = cluster.leader(b"k").unwrap();
        cluster.stop(leader);
        for n in 0..20 {
            let (key, value) = (format!("k{n}"), Some(Bytes::from(format!("{round}"))));
            assert_eq!(cluster.get_by_index(&key), value, "round {round}");
            assert_eq!(cluster.get_by_lease(&key), value, "round {round}");
        }
        cluster.start(leader);
    }
}

#[test]
fn a_store_alone_reads_by_its_lease_at_once_and_remembers() {
    let mut cluster = Cluster::new(1);
    cluster.put("a", "1");
    assert_eq!(cluster.get_by_lease("a"), Some(Bytes::from_static(b"1")));
    cluster.stop(StoreId(1));
    // What was applied and not synced is applied again from the log.
    let (fs, engine) = cluster.disks[&StoreId(1)].clone();
    let engine = Arc::new(engine.crash(&mut Rng::new(1)));
    cluster.disks.insert(StoreId(1), (fs, engine));
    cluster.start(StoreId(1));
    assert_eq!(cluster.get_by_index("a"), Some(Bytes::from_static(b"1")));
}

#[test]
fn a_split_region_is_found_on_both_sides() {
    let cluster = Cluster::new(3);
    cluster.put("a", "1");
    cluster.put("m", "2");
    cluster.ask(b"a", |region| RequestKind::Split {
        children: vec![raftstore::SplitChild {
            start: Bytes::from_static(b"m"),
            region_id: RegionId(2),
            peer_ids: region.peers.iter().map(|peer| PeerId(peer.id.0 + 10)).collect(),
        }],
    });
    cluster.put("z", "3");
    for (key, value) in [("a", "1"), ("m", "2"), ("z", "3")] {
        assert_eq!(cluster.get_by_lease(key), Some(Bytes::from_static(value.as_bytes())));
    }
    let (_, view) = cluster.leader(b"z").unwrap();
    assert_eq!((view.region.id, view.region.range.start.as_ref()), (RegionId(2), &b"m"[..]));
    assert_eq!(view.region.epoch.version, 2);
    let node = cluster.nodes.values().next().unwrap();
    let snapshot = node.engine.snapshot().unwrap();
    assert!(
        check_read(&*snapshot, RegionId(2), 1, u64::MAX).is_err(),
        "an older version is refused"
    );
}

#[test]
fn who_was_granted_a_read_in_an_earlier_term_may_not_show_a_later_one() {
    let cluster = Cluster::new(3);
    cluster.put("a", "1");
    let (leader, view) = cluster.leader(b"a").unwrap();
    let snapshot = cluster.nodes[&leader].engine.snapshot().unwrap();
    let (id, version) = (view.region.id, view.region.epoch.version);
    let term = raftstore::state::apply_state(&*snapshot, id).unwrap().unwrap().term;
    assert!(check_read(&*snapshot, id, version, term).is_ok());
    let refused = check_read(&*snapshot, id, version, term - 1).unwrap_err().unwrap();
    assert_eq!(refused, RegionError::NotLeader { region: id, leader: None });
}

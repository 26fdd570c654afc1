//! The safe point of a region: how it is remembered, and who gets it.

use std::{
    path::Path,
    sync::{Arc, Mutex},
};

use engine::{Engine, MemoryEngine, WriteBatch};
use raft::{Entry, EntryKind};
use runtime::{Fs, sim::SimFs};
use types::{Bytes, Peer, PeerId, PeerRole, Region, RegionEpoch, RegionId, StoreId, TimeStamp};

use super::{Applier, Changes, Machine, Task};
use crate::{
    command::{AdminCommand, Payload, SplitChild},
    snapshot::Snapshots,
    state::{self, ApplyState, PeerState, RegionState},
};

/// A command is the safe point that it raises; remembers with which ones data were installed.
#[derive(Clone, Default)]
struct Raising(Arc<Mutex<Vec<TimeStamp>>>);

impl Machine for Raising {
    type Answer = ();

    fn apply(&mut self, command: &Bytes, changes: &mut Changes<'_>) -> engine::Result<()> {
        let safe_point = command[..].try_into().expect("a number of 8 bytes");
        changes.raise_safe_point(TimeStamp(u64::from_be_bytes(safe_point)));
        Ok(())
    }

    fn installing(&mut self, safe_point: TimeStamp) {
        self.0.lock().unwrap().push(safe_point);
    }
}

const OWN: PeerId = PeerId(10);

fn region() -> Region {
    Region {
        id: RegionId(1),
        epoch: RegionEpoch::FIRST,
        peers: vec![Peer { id: OWN, store_id: StoreId(1), role: PeerRole::Voter }],
        ..Region::default()
    }
}

/// An applier of a store with one region, and its engine.
fn applier() -> (Applier<Raising>, MemoryEngine) {
    let engine = MemoryEngine::new();
    let mut batch = WriteBatch::new();
    let state = RegionState { state: PeerState::Normal, region: region() };
    state::put_region_state(&mut batch, &state);
    state::put_apply_state(&mut batch, RegionId(1), ApplyState::FIRST);
    engine.write(batch).unwrap();
    (restarted(&engine), engine)
}

fn restarted(engine: &MemoryEngine) -> Applier<Raising> {
    let mut applier = Applier::new(Arc::new(engine.clone()), Raising::default());
    let region = state::region_state(&*engine.snapshot().unwrap(), RegionId(1)).unwrap().unwrap();
    let applied = state::apply_state(&*engine.snapshot().unwrap(), RegionId(1)).unwrap().unwrap();
    applier.apply(vec![Task::Register { region: region.region, peer_id: OWN, applied }]).unwrap();
    applier
}

fn entry(index: u64, payload: &Payload) -> Entry {
    Entry { term: 5, index, kind: EntryKind::Normal, data: payload.encode() }
}

fn raise(index: u64, safe_point: u64) -> Entry {
    let command = Bytes::copy_from_slice(&safe_point.to_be_bytes());
    entry(index, &Payload::Write { version: 1, command })
}

fn apply(applier: &mut Applier<Raising>, entries: Vec<Entry>) {
    applier.apply(vec![Task::Entries { region_id: RegionId(1), peer_id: OWN, entries }]).unwrap();
}

fn safe_point(engine: &MemoryEngine, region: u64) -> u64 {
    state::safe_point(&*engine.snapshot().unwrap(), RegionId(region)).unwrap().0
}

#[test]
fn a_safe_point_only_grows_also_after_a_start() {
    let (mut applier, engine) = applier();
    assert_eq!(safe_point(&engine, 1), 0);
    apply(&mut applier, vec![raise(6, 20), raise(7, 10)]);
    assert_eq!(safe_point(&engine, 1), 20);
    let mut applier = restarted(&engine);
    apply(&mut applier, vec![raise(8, 15)]);
    assert_eq!(safe_point(&engine, 1), 20, "it was read at the start");
    apply(&mut applier, vec![raise(9, 25)]);
    assert_eq!(safe_point(&engine, 1), 25);
}

#[test]
fn the_regions_that_a_split_makes_have_the_safe_point_of_theirs() {
    let (mut applier, engine) = applier();
    let child = SplitChild {
        start: Bytes::from_static(b"m"),
        region_id: RegionId(2),
        peer_ids: vec![PeerId(20)],
    };
    let command = AdminCommand::Split { children: vec![child] };
    let split = Payload::Admin { epoch: RegionEpoch::FIRST, command };
    // All in one batch.
    apply(&mut applier, vec![raise(6, 20), entry(7, &split)]);
    assert_eq!((safe_point(&engine, 1), safe_point(&engine, 2)), (20, 20));
    let newest = state::newest_safe_point(&*engine.snapshot().unwrap()).unwrap();
    assert_eq!(newest, TimeStamp(20));
}

#[test]
fn a_snapshot_brings_its_safe_point_and_says_so_before_its_data() {
    let (mut sender, engine) = applier();
    apply(&mut sender, vec![raise(6, 20)]);
    let fs = SimFs::new();
    fs.create_dir_all(Path::new("/store")).unwrap();
    let snapshots = Snapshots::open(Arc::new(fs.clone()), Path::new("/store/snapshots")).unwrap();
    let made = snapshots.make(&engine, RegionId(1)).unwrap().unwrap();
    let bytes = fs.read(&snapshots.made(RegionId(1), made.applied)).unwrap().unwrap();
    fs.replace(&snapshots.received(RegionId(1), made.applied), &bytes).unwrap();
    let found = snapshots.find_received(RegionId(1), made.applied).unwrap();
    assert_eq!(found, Some(made.clone()));

    let engine = MemoryEngine::new();
    let machine = Raising::default();
    let installed = machine.clone();
    let mut receiver = Applier::new(Arc::new(engine.clone()), machine);
    let source = snapshots.source(&made).unwrap();
    let (region, applied) = (made.region, made.applied);
    receiver.apply(vec![Task::Install { peer_id: OWN, region, applied, source }]).unwrap();
    assert_eq!(safe_point(&engine, 1), 20);
    assert_eq!(*installed.0.lock().unwrap(), [TimeStamp(20)]);
}

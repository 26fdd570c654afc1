//! One machine with a store: what runs, and what its disks keep.

use std::{collections::VecDeque, path::Path, sync::Arc};

use engine::{
    Engine, MemoryEngine,
    raft_log::{self, RaftLog, RaftLogWriter},
};
use raftstore::{Applier, Store, StoreConfig, apply::Task, snapshot::Snapshots};
use runtime::{Fs, Rng, sim::SimFs};
use types::StoreId;

use super::command::Kv;

/// What a store answers a write: what was there before, 0 for nothing.
pub(super) type Answer = u64;

/// The files and the engine of a machine, which outlive the process.
#[derive(Clone, Debug)]
pub(super) struct Disks {
    pub(super) fs: SimFs,
    pub(super) engine: Arc<MemoryEngine>,
}

impl Disks {
    /// Empty ones.
    pub(super) fn new() -> Disks {
        let fs = SimFs::new();
        let made =
            fs.create_dir_all(Path::new("/store")).and_then(|()| fs.sync_dir(Path::new("/")));
        made.expect("an empty disk takes a folder");
        Disks { fs, engine: Arc::new(MemoryEngine::with_journal()) }
    }

    /// What a power cut leaves.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        self.fs = self.fs.crash(rng);
        self.engine = Arc::new(self.engine.crash(rng));
    }
}

/// What runs on a machine.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) store: Store<Answer>,
    pub(super) applier: Applier<Kv>,
    pub(super) log: RaftLog,
    pub(super) log_writer: RaftLogWriter,
    pub(super) snapshots: Snapshots,
    /// Given to the applier and not begun.
    pub(super) tasks: VecDeque<Task>,
    pub(super) applies: bool,
    pub(super) syncs_log: bool,
    /// The log has to be synced again after the sync that is under way.
    pub(super) syncs_log_again: bool,
    /// Snapshots that are being sent.
    pub(super) sends: usize,
}

impl Process {
    /// Starts a store from what its disks have.
    pub(super) fn open(
        store_id: StoreId,
        disks: &Disks,
        config: &StoreConfig,
        segment_bytes: u32,
        padding: usize,
        rng: Rng,
    ) -> raftstore::Result<Process> {
        let fs: Arc<dyn Fs> = Arc::new(disks.fs.clone());
        let engine = Arc::clone(&disks.engine) as Arc<dyn Engine>;
        let options = raft_log::Options {
            segment_bytes,
            cache_bytes: 16 << 10,
            purge_bytes: 4 * u64::from(segment_bytes),
            spares_max: 1,
        };
        let dir = Path::new("/store");
        let (log, log_writer) =
            RaftLog::open(Arc::clone(&fs), &dir.join("raft"), &options, &mut |_| {})?;
        let snapshots = Snapshots::open(fs, &dir.join("snapshots"))?;
        let config = StoreConfig { store_id, ..config.clone() };
        let store = Store::open(config, Arc::clone(&engine), log.clone(), &snapshots, rng)?;
        Ok(Process {
            store,
            applier: Applier::new(engine, Kv { padding }),
            log,
            log_writer,
            snapshots,
            tasks: VecDeque::new(),
            applies: false,
            syncs_log: false,
            syncs_log_again: false,
            sends: 0,
        })
    }
}

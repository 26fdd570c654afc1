//! One machine with a store: what runs, and what its disks keep.

use std::{collections::VecDeque, path::Path, sync::Arc, time::Duration};

use engine::{
    Engine, MemoryEngine,
    raft_log::{self, RaftLog, RaftLogWriter},
};
use raft::ReadMode;
use raftstore::{
    Applier, Store, StoreConfig,
    apply::Task,
    shell::{TickTimes, Views},
    snapshot::Snapshots,
};
use runtime::{
    Clock, Fs, Rng,
    sim::{SimClock, SimFs},
};
use types::StoreId;

use super::{command::Kv, options::Options, world::Executor};

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
    /// What readers on other threads know.
    pub(super) views: Arc<Views>,
    pub(super) clock: Arc<SimClock>,
    /// What the clock shows, in microseconds.
    pub(super) shown: u64,
    pub(super) tick_times: TickTimes,
    /// Snapshots that are being sent.
    pub(super) sends: usize,
    /// What requests of transactions share.
    pub(super) txns: Executor,
}

impl Process {
    /// Starts a store from what its disks have.
    pub(super) fn open(
        store_id: StoreId,
        disks: &Disks,
        options: &Options,
        now: u64,
        rng: Rng,
    ) -> raftstore::Result<Process> {
        let fs: Arc<dyn Fs> = Arc::new(disks.fs.clone());
        let engine = Arc::clone(&disks.engine) as Arc<dyn Engine>;
        let Options { store: config, segment_bytes, padding, tick, .. } = options;
        let (segment_bytes, padding) = (*segment_bytes, *padding);
        let log_options = raft_log::Options {
            segment_bytes,
            cache_bytes: 16 << 10,
            purge_bytes: 4 * u64::from(segment_bytes),
            spares_max: 1,
            grow_bytes: 4 << 10,
        };
        let dir = Path::new("/store");
        let (log, log_writer) =
            RaftLog::open(Arc::clone(&fs), &dir.join("raft"), &log_options, &mut |_| {})?;
        let snapshots = Snapshots::open(fs, &dir.join("snapshots"))?;
        let config_mode = config.core.read_mode;
        let config = StoreConfig { store_id, ..config.clone() };
        let store = Store::open(config, Arc::clone(&engine), log.clone(), &snapshots, rng)?;
        // As the store's threads have it.
        let lease = match config_mode {
            ReadMode::Lease { ticks, drift_percent } => {
                Duration::from_micros(*tick) * ticks * (100 - drift_percent) / 100
            }
            ReadMode::Index => Duration::ZERO,
        };
        let clock = Arc::new(SimClock::new(Duration::ZERO));
        clock.advance(Duration::from_micros(now));
        Ok(Process {
            views: Arc::new(Views::new(Arc::clone(&clock) as Arc<dyn Clock>, lease)),
            clock,
            shown: now,
            tick_times: TickTimes::new(Duration::from_micros(now)),
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
            txns: Executor::default(),
        })
    }
}

impl Process {
    /// Lets the process's clock show `now`, in microseconds.
    pub(super) fn set_clock(&mut self, now: u64) {
        self.clock.advance(Duration::from_micros(now.saturating_sub(self.shown)));
        self.shown = self.shown.max(now);
    }

    /// A tick begins, at the time that the clock shows.
    pub(super) fn tick_begins(&mut self) {
        self.tick_times.begin(Duration::from_micros(self.shown));
    }
}

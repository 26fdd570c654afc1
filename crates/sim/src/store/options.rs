//! What a seed gets beside its [`Swarm`]: how regions, stores and people behave.

use raft::ReadMode;
use raftstore::{StoreConfig, split_check::SplitLimits};
use runtime::Rng;
use types::StoreId;

use crate::{
    rng::{Seed, index, log_uniform, pick},
    swarm::{SECOND, Swarm},
};

/// Settings of one run. Times are in microseconds.
#[derive(Clone, Debug)]
pub struct Options {
    /// A tick of each store's own clock.
    pub tick: u64,
    /// The stores' settings; the store's id is each one's own.
    pub store: StoreConfig,
    /// Replicas that placement wants of a region.
    pub replicas: usize,
    /// Keys that clients know.
    pub keys: usize,
    /// Bytes of each value beside its number.
    pub padding: usize,
    /// Clients that do one thing after the other.
    pub threads: usize,
    /// Clients with transactions.
    pub txn_threads: usize,
    /// Accounts between which transactions move money.
    pub accounts: usize,
    /// How long a client thinks between two operations, on average.
    pub think: u64,
    /// How long a client waits for an answer.
    pub patience: u64,
    /// By how many percent one clock may run faster than another.
    pub drift_percent: u32,
    /// How often a client uses a route that it knows to be old.
    pub stale_routes: f64,
    /// How long a request is under way, on average; a few are for a hundred times as long.
    pub request_delay: u64,
    /// How often a follower is asked to read.
    pub follower_reads: f64,
    /// Most regions.
    pub regions_max: usize,
    /// The mean time between two splits that somebody asks for.
    pub split_every: u64,
    /// The mean time between two steps of placement.
    pub place_every: u64,
    /// How often placement moves something that could stay.
    pub mischief: f64,
    /// The mean time between two transfers of leaderships.
    pub transfer_every: u64,
    /// After how long silence placement gives a store up.
    pub down_after: u64,
    /// How long a sync of the engine takes beside what the disk takes, on average.
    pub engine_sync: u64,
    /// How far appliers lag behind, on average.
    pub apply_lag: u64,
    /// How long what the applier did is under way to the store, on average.
    pub applied_delay: u64,
    /// How long a read is under way from the store to its snapshot, on average.
    pub read_delay: u64,
    /// How long it takes to make a snapshot, on average.
    pub snapshot_delay: u64,
    /// Snapshots that a store sends, or receives, at once.
    pub snapshots_max: usize,
    /// Bytes of a segment of the Raft log.
    pub segment_bytes: u32,
}

impl Options {
    /// What `seed` gets.
    pub fn draw(seed: Seed, swarm: &Swarm) -> Options {
        let rng = &mut seed.stream("store options");
        let replicas = match swarm.machines {
            1 | 2 => 1,
            3 | 4 => *pick(rng, &[1, 3, 3, 3, 3]),
            _ => *pick(rng, &[1, 3, 3, 3, 3, 5]),
        };
        let tick = 100_000;
        let log_gc_entries = log_uniform(rng, 5.0, 500.0) as u64;
        let max_keys = log_uniform(rng, 6.0, 300.0) as u64;
        let store = StoreConfig {
            report_ticks: rng.range(5..=100) as u32,
            log_gc_bytes: log_uniform(rng, 1_000.0, 1e6) as u64,
            snapshots_making_max: 1 + index(rng, 3),
            snapshots_sending_max: 1 + index(rng, 4),
            snapshots_receiving_max: 1 + index(rng, 3),
            snapshot_ticks: rng.range(5..=100),
            down_ticks: rng.range(20..=200),
            split_check_ticks: rng.range(1..=50) as u32,
            split: SplitLimits {
                max_bytes: log_uniform(rng, 200.0, 100_000.0) as u64,
                split_bytes: log_uniform(rng, 100.0, 200.0) as u64,
                max_keys,
                split_keys: 1 + max_keys / 2,
            },
            split_checks_max: 1 + index(rng, 4),
            log_gc_ticks: rng.range(1..=20) as u32,
            log_gc_entries,
            log_gc_spare: (log_gc_entries as f64 * rng.f64()) as u64,
            ..store(rng, swarm)
        };
        Options {
            tick,
            store,
            replicas,
            keys: log_uniform(rng, 3.0, 1_000.0) as usize,
            padding: *pick(rng, &[0, 0, 20, 300]),
            threads: 1 + index(rng, 8),
            txn_threads: *pick(rng, &[0, 2, 4, 8]),
            accounts: *pick(rng, &[4, 6, 12]),
            think: log_uniform(rng, 4_000.0, 150_000.0) as u64,
            patience: log_uniform(rng, 0.2e6, 3e6) as u64,
            stale_routes: maybe(rng, 0.01, 0.3),
            drift_percent: swarm.drift_percent,
            request_delay: log_uniform(rng, 20.0, 3_000.0) as u64,
            follower_reads: *pick(rng, &[0.0, 0.2, 0.5]),
            regions_max: log_uniform(rng, 3.0, 40.0) as usize,
            split_every: log_uniform(rng, 0.3e6, 4e6) as u64,
            place_every: log_uniform(rng, 0.1e6, 2e6) as u64,
            mischief: *pick(rng, &[0.0, 0.2, 0.5, 0.9]),
            transfer_every: log_uniform(rng, 0.3e6, 10e6) as u64,
            down_after: log_uniform(rng, 2e6, 20e6) as u64,
            engine_sync: lag(rng, 2_000_000.0),
            apply_lag: lag(rng, 500_000.0),
            applied_delay: lag(rng, 100_000.0),
            read_delay: lag(rng, 100_000.0),
            snapshot_delay: log_uniform(rng, 1_000.0, 2_000_000.0) as u64,
            snapshots_max: 1 + index(rng, 4),
            segment_bytes: *pick(rng, &[16 << 10, 64 << 10, 1 << 20]),
        }
    }

    /// The longest time until a follower that hears nothing campaigns.
    pub(super) fn election_max(&self) -> u64 {
        2 * u64::from(self.store.core.election_ticks) * self.tick
    }

    /// After this long, healed, everything must be as it should be: time for a dozen elections that fail, for lost
    /// snapshots to be sent again, for peers that nobody needs to notice it, and for slow disks and appliers.
    pub(super) fn liveness_bound(&self) -> u64 {
        let snapshot = u64::from(self.store.core.snapshot_ticks) * self.tick;
        let stale = u64::from(self.store.stale_ticks) * self.tick;
        let doze = self.store.doze_ticks * self.tick;
        let lags = self.apply_lag + self.applied_delay + self.read_delay + self.snapshot_delay;
        12 * self.election_max()
            + 4 * snapshot
            + 4 * stale
            + 2 * doze
            + 40 * lags
            + 20 * self.place_every
            + 2 * self.down_after
            + 30 * SECOND
    }
}

fn store(rng: &mut Rng, swarm: &Swarm) -> StoreConfig {
    let mut config = StoreConfig::new(StoreId(0));
    let core = &mut config.core;
    core.election_ticks = *pick(rng, &[5, 8, 8, 12]);
    core.heartbeat_ticks = 1 + index(rng, 2) as u32;
    if rng.chance(0.5) {
        let ticks = core.election_ticks - 1;
        core.read_mode = ReadMode::Lease { ticks, drift_percent: swarm.drift_percent };
    }
    core.max_message_bytes = *pick(rng, &[0, 1_000, 1 << 20]);
    core.max_apply_bytes = *pick(rng, &[0, 1_000, 1 << 20]);
    core.max_inflight_messages = *pick(rng, &[1, 8, 256]);
    core.max_uncommitted_bytes = *pick(rng, &[10_000, 1 << 20]);
    core.snapshot_ticks = rng.range(10..=60) as u32;
    core.lazy_commit = rng.chance(0.7);
    config.stale_ticks = core.election_ticks * (2 + index(rng, 4) as u32);
    config.early_messages_max = *pick(rng, &[1, 8, 256]);
    config.doze_ticks = *pick(rng, &[100, 600]);
    config
}

/// Nothing to speak of, or up to `most` microseconds.
fn lag(rng: &mut Rng, most: f64) -> u64 {
    if rng.chance(0.5) { log_uniform(rng, 100.0, most) as u64 } else { 20 }
}

fn maybe(rng: &mut Rng, low: f64, high: f64) -> f64 {
    let strength = log_uniform(rng, low, high);
    if rng.chance(0.7) { strength } else { 0.0 }
}

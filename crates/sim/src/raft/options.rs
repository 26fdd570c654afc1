//! How a seed's Raft nodes are set: timeouts, limits, which features are on, how slow their owners are.

use raft::{Config, ReadMode};
use runtime::Rng;

use crate::{
    rng::{Seed, log_uniform, pick},
    swarm::{SECOND, Swarm},
};

/// The settings of a group and of those who use it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Options {
    /// Microseconds of a tick.
    pub(crate) tick: u64,
    /// The cores' settings; id, applied and priority are each node's own.
    pub(crate) core: Config,
    /// Whether nodes have different priorities.
    pub(crate) priorities: bool,
    /// How many machines begin as voters.
    pub(crate) voters: usize,
    /// Applied entries that the log keeps before it is compacted.
    pub(crate) log_limit: u64,
    /// Microseconds between the commit and the application of entries; 0: at once.
    pub(crate) apply_lag: u64,
    /// Readies that may be under way at once.
    pub(crate) flights: usize,
    /// Microseconds until a snapshot that somebody wants is there.
    pub(crate) snapshot_delay: u64,
    /// Microseconds between two writes of clients, on average.
    pub(crate) write_every: u64,
    /// Microseconds between two reads, on average.
    pub(crate) read_every: u64,
    /// Microseconds between two changes of the members, on average; none without.
    pub(crate) change_every: Option<u64>,
    /// Microseconds between two transfers of the leadership, on average; none without.
    pub(crate) transfer_every: Option<u64>,
    /// How often clients go to the machine that leads, and not to any.
    pub(crate) ask_leader: f64,
    /// Registers.
    pub(crate) keys: u64,
    /// Writes that a client proposes at once, at most.
    pub(crate) batch: u64,
    /// Bytes by which commands are made longer, at most.
    pub(crate) padding: u64,
    /// How often a `buggify!` point that is on makes trouble.
    pub(crate) buggify: f64,
}

impl Options {
    /// What `seed` gets in the world of `swarm`.
    pub(crate) fn draw(seed: Seed, swarm: &Swarm) -> Options {
        let rng = &mut seed.stream("options");
        let tick = log_uniform(rng, 10_000.0, 80_000.0) as u64;
        let core = core(rng, swarm);
        // Without pre-vote a node with a short log can keep raising the term faster than one that has to wait longer
        // campaigns: priorities need it.
        let priorities = core.pre_vote && rng.chance(0.4);
        let voters = if rng.chance(0.6) { swarm.machines } else { 1 + below(rng, swarm.machines) };
        Options {
            tick,
            core,
            priorities,
            voters,
            log_limit: log_uniform(rng, 3.0, 300.0) as u64,
            apply_lag: if rng.chance(0.5) { log_uniform(rng, 100.0, 300_000.0) as u64 } else { 0 },
            flights: *pick(rng, &[1, 2, 4, 16]),
            snapshot_delay: log_uniform(rng, 10.0, 100_000.0) as u64,
            write_every: log_uniform(rng, 5_000.0, 300_000.0) as u64,
            read_every: log_uniform(rng, 5_000.0, 300_000.0) as u64,
            change_every: rng
                .chance(0.6)
                .then(|| (log_uniform(rng, 0.1, 3.0) * SECOND as f64) as u64),
            transfer_every: rng
                .chance(0.5)
                .then(|| (log_uniform(rng, 0.2, 5.0) * SECOND as f64) as u64),
            ask_leader: *pick(rng, &[0.3, 0.8, 0.95]),
            keys: *pick(rng, &[1, 3, 10]),
            batch: *pick(rng, &[1, 1, 8]),
            padding: *pick(rng, &[0, 50, 500]),
            buggify: if rng.chance(0.5) { log_uniform(rng, 0.001, 0.2) } else { 0.0 },
        }
    }

    /// The shortest time until a follower that hears nothing campaigns, in microseconds.
    pub(crate) fn election_min(&self) -> u64 {
        u64::from(self.core.election_ticks) * self.tick
    }

    /// The longest time until a follower that hears nothing campaigns, in microseconds.
    pub(crate) fn election_max(&self) -> u64 {
        let waits = if self.priorities { 2 + u64::from(Config::PRIORITY_MAX) } else { 2 };
        waits * u64::from(self.core.election_ticks) * self.tick
    }

    /// After this long, healed, a write must be committed and a read answered: time for a dozen elections that fail,
    /// for a snapshot that was lost to be sent again, and for slow disks.
    pub(crate) fn liveness_bound(&self) -> u64 {
        let snapshot = u64::from(self.core.snapshot_ticks) * self.tick;
        12 * self.election_max() + 2 * snapshot + 5 * self.apply_lag + 10 * SECOND
    }
}

fn core(rng: &mut Rng, swarm: &Swarm) -> Config {
    let mut core = Config::new(1);
    core.election_ticks = rng.range(4..=20) as u32;
    core.heartbeat_ticks = 1 + below(rng, 2.min(core.election_ticks as usize / 3)) as u32;
    core.pre_vote = rng.chance(0.75);
    core.check_quorum = rng.chance(0.8);
    if core.check_quorum && rng.chance(0.6) {
        let most = core.election_ticks - 1;
        // The longest lease is the most dangerous one.
        let ticks = if rng.chance(0.6) { most } else { rng.range(1..=u64::from(most)) as u32 };
        core.read_mode = ReadMode::Lease { ticks, drift_percent: swarm.drift_percent };
    }
    core.max_message_bytes = *pick(rng, &[0, 100, 1_000, 1 << 20]);
    core.max_apply_bytes = *pick(rng, &[0, 1_000, 1 << 20]);
    core.max_inflight_messages = *pick(rng, &[1, 2, 8, 256]);
    core.max_inflight_bytes = *pick(rng, &[100, 2_000, 1 << 20]);
    core.max_uncommitted_bytes = *pick(rng, &[1_000, 10_000, 1 << 20]);
    core.max_entry_bytes = *pick(rng, &[400, 1 << 20]);
    core.snapshot_ticks = rng.range(5..=60) as u32;
    core
}

fn below(rng: &mut Rng, len: usize) -> usize {
    crate::rng::index(rng, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_gets_settings_that_are_valid() {
        let mut leases = 0;
        for seed in 0..500 {
            let swarm = Swarm::draw(Seed(seed), None);
            let options = Options::draw(Seed(seed), &swarm);
            options.core.validate().unwrap();
            assert!((1..=swarm.machines).contains(&options.voters));
            leases += u32::from(options.core.read_mode != ReadMode::Index);
        }
        assert!((150..350).contains(&leases), "{leases}");
    }
}

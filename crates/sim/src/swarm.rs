//! What kind of world a seed gets: which faults, how strong, how many machines, how bad the clocks.
//!
//! Every class of faults is left out of about half of the seeds. A run with all faults at once mostly shows how
//! everything is slow; one with two of them gets far enough to go wrong (swarm testing, Groce et al., 2012).
//! Strengths are drawn log-uniformly: mostly mild, sometimes fierce.

use crate::{
    rng::{Seed, log_uniform, pick},
    world::{DiskOptions, MachineClock, NetworkOptions, TieBreak, TraceText, WorldOptions},
};
use runtime::Rng;

/// Microseconds of a second.
pub const SECOND: u64 = 1_000_000;

/// The kinds of faults that strike from time to time. (Loss, duplication and the like are in the network's options.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The power of one machine goes.
    Crash,
    /// The power of all machines goes at once.
    PowerLoss,
    /// The network falls into parts, or lets through one direction only.
    Partition,
    /// The machine that leads is cut off.
    IsolateLeader,
    /// A machine that was just elected is cut off or loses its power. (What matters is its first entry.)
    NewLeader,
    /// One link holds everything back, or all links to one machine.
    Clog,
    /// A process stands still.
    Freeze,
    /// A machine's date jumps.
    WallJump,
    /// A disk stands still.
    Stall,
    /// A sync fails.
    SyncError,
    /// A disk is full.
    FullDisk,
    /// A bit of durable data flips while the machine is off.
    BitFlip,
    /// A machine loses its disk.
    Wipe,
    /// One machine does not hear the leader. When it has lost patience, the leader is cut off and all others restart,
    /// so that nobody remembers that the leader was alive. (What matters is what they promised it.)
    Usurp,
}

impl FaultKind {
    /// All of them, with the seconds between two strikes: fierce, and mild.
    pub const ALL: [(FaultKind, f64, f64); 14] = [
        (FaultKind::Crash, 0.4, 8.0),
        (FaultKind::PowerLoss, 2.0, 20.0),
        (FaultKind::Partition, 0.6, 8.0),
        (FaultKind::IsolateLeader, 0.8, 8.0),
        (FaultKind::NewLeader, 0.2, 3.0),
        (FaultKind::Clog, 0.3, 5.0),
        (FaultKind::Freeze, 0.6, 8.0),
        (FaultKind::WallJump, 1.0, 8.0),
        (FaultKind::Stall, 0.5, 8.0),
        (FaultKind::SyncError, 1.0, 10.0),
        (FaultKind::FullDisk, 2.0, 15.0),
        (FaultKind::BitFlip, 1.5, 10.0),
        (FaultKind::Wipe, 2.0, 12.0),
        (FaultKind::Usurp, 1.0, 10.0),
    ];
}

/// The world of one seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Swarm {
    /// How many machines there are.
    pub machines: usize,
    /// The order of events of one moment.
    pub tie_break: TieBreak,
    /// The network while faults strike.
    pub network: NetworkOptions,
    /// The network afterwards.
    pub healthy_network: NetworkOptions,
    /// The disks while faults strike.
    pub disk: DiskOptions,
    /// The disks afterwards.
    pub healthy_disk: DiskOptions,
    /// By how many percent one clock may run faster than another; all clocks keep to it.
    pub drift_percent: u32,
    /// The clocks.
    pub clocks: Vec<MachineClock>,
    /// The kinds of faults that strike, with the mean time between two strikes in microseconds.
    pub faults: Vec<(FaultKind, u64)>,
    /// How long faults last, on average, in microseconds.
    pub fault_duration: u64,
}

impl Swarm {
    /// What `seed` gets; with so many machines, if that is given.
    pub fn draw(seed: Seed, machines: Option<usize>) -> Swarm {
        let rng = &mut seed.stream("swarm");
        let drawn = *pick(rng, &[1, 2, 3, 3, 3, 4, 5, 5, 5, 6, 7]);
        let machines = machines.unwrap_or(drawn);
        let tie_break = if rng.chance(0.5) { TieBreak::Fifo } else { TieBreak::Random };
        let healthy_network = NetworkOptions::healthy(
            log_uniform(rng, 20.0, 1_000.0) as u64,
            log_uniform(rng, 50.0, 3_000.0) as u64,
        );
        let network = NetworkOptions {
            slow: maybe(rng, 0.001, 0.05),
            loss: maybe(rng, 0.001, 0.3),
            duplicate: maybe(rng, 0.001, 0.3),
            reorder: maybe(rng, 0.01, 1.0),
            corrupt: maybe(rng, 0.001, 0.05),
            ..healthy_network.clone()
        };
        let healthy_disk = DiskOptions {
            latency_min: log_uniform(rng, 10.0, 500.0) as u64,
            latency_mean: log_uniform(rng, 20.0, 5_000.0) as u64,
            slow: 0.0,
        };
        let disk = DiskOptions { slow: maybe(rng, 0.001, 0.05), ..healthy_disk.clone() };
        let drift_percent = if rng.chance(0.5) { rng.range(1..=10) as u32 } else { 0 };
        let clocks = (0..machines).map(|_| clock(rng, drift_percent)).collect();
        // Some runs without any of these, so that a plain network's faults have their runs as well.
        let share = *pick(rng, &[0.0, 0.25, 0.5, 0.5, 0.75]);
        let faults = FaultKind::ALL
            .iter()
            .filter_map(|&(kind, fierce, mild)| {
                let every = (log_uniform(rng, fierce, mild) * SECOND as f64) as u64;
                rng.chance(share).then_some((kind, every))
            })
            .collect();
        let fault_duration = (log_uniform(rng, 0.05, 3.0) * SECOND as f64) as u64;
        Swarm {
            machines,
            tie_break,
            network,
            healthy_network,
            disk,
            healthy_disk,
            drift_percent,
            clocks,
            faults,
            fault_duration,
        }
    }

    /// How the world is built.
    pub fn world_options(&self, text: TraceText) -> WorldOptions {
        WorldOptions {
            tie_break: self.tie_break,
            network: self.network.clone(),
            disk: self.disk.clone(),
            clocks: self.clocks.clone(),
            text,
        }
    }
}

/// Nothing, or something between `low` and `high`.
fn maybe(rng: &mut Rng, low: f64, high: f64) -> f64 {
    let strength = log_uniform(rng, low, high);
    if rng.chance(0.5) { strength } else { 0.0 }
}

/// A clock whose rate is such that no clock runs faster than another by more than `drift_percent`.
fn clock(rng: &mut Rng, drift_percent: u32) -> MachineClock {
    let drift = u64::from(drift_percent) * 10_000;
    // The extremes are where bounds are wrong.
    let rate = match rng.range(0..3) {
        0 => 0,
        1 => drift,
        _ => rng.range(0..=drift),
    };
    let offset = rng.range(0..1_000_000 * SECOND);
    let wall = rng.range(0..7_200 * SECOND) as i64 - 3_600 * SECOND as i64;
    MachineClock::new(offset, rate as i32, wall)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn seeds_cover_every_size_and_every_fault_and_leave_each_out() {
        let swarms: Vec<Swarm> = (0..300).map(|seed| Swarm::draw(Seed(seed), None)).collect();
        let sizes: BTreeSet<usize> = swarms.iter().map(|swarm| swarm.machines).collect();
        assert_eq!(sizes, (1..=7).collect());
        for (kind, ..) in FaultKind::ALL {
            let with = swarms
                .iter()
                .filter(|swarm| swarm.faults.iter().any(|fault| fault.0 == kind))
                .count();
            assert!((60..240).contains(&with), "{kind:?}: {with}");
        }
        assert_eq!(Swarm::draw(Seed(7), None), Swarm::draw(Seed(7), None));
    }

    #[test]
    fn no_clock_is_faster_than_another_by_more_than_declared() {
        for swarm in (0..200).map(|seed| Swarm::draw(Seed(seed), None)) {
            let passed: Vec<u64> = swarm
                .clocks
                .iter()
                .map(|clock| clock.monotonic(100 * SECOND) - clock.monotonic(0))
                .collect();
            let (slow, fast) = (passed.iter().min().unwrap(), passed.iter().max().unwrap());
            assert!(fast * 100 <= slow * u64::from(100 + swarm.drift_percent) + 100);
        }
    }
}

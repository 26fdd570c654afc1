//! Stores as something that is run over many seeds.

use std::collections::BTreeMap;

use super::{
    faults::FaultKind,
    required::REQUIRED,
    run::{self, Counters},
};
use crate::{
    required::Required,
    runner::{Run, Settings, Simulation},
    swarm::SECOND,
};

/// Stores with regions.
#[derive(Clone, Copy, Debug)]
pub struct Stores;

/// Known bugs of stores, and of transactions on them.
const MUTANTS: [(&str, &str); raftstore::MUTANTS.len() + txn::MUTANTS.len()] = {
    let mut all = [("", ""); raftstore::MUTANTS.len() + txn::MUTANTS.len()];
    let mut at = 0;
    while at < all.len() {
        all[at] = match at < raftstore::MUTANTS.len() {
            true => raftstore::MUTANTS[at],
            false => txn::MUTANTS[at - raftstore::MUTANTS.len()],
        };
        at += 1;
    }
    all
};

impl Simulation for Stores {
    const COMMAND: &'static str = "store ";
    const USUAL: Settings = Settings::of(60 * SECOND);
    const REQUIRED: &'static [Required] = REQUIRED;
    const MUTANTS: &'static [(&'static str, &'static str)] = &MUTANTS;

    fn run(seed: u64, settings: Settings) -> Run {
        let outcome = run::run(seed, settings);
        Run {
            seed,
            hash: outcome.hash,
            violation: outcome.violation,
            counts: outcome.counters.named(),
            marks: outcome.marks,
        }
    }
}

impl Counters {
    fn named(&self) -> BTreeMap<&'static str, u64> {
        let network = &self.network;
        let fault = |kind: FaultKind| self.faults.get(&kind).copied().unwrap_or(0);
        let mut named = self.named.clone();
        named.extend([
            ("events", self.events),
            ("virtual_microseconds", self.virtual_time),
            ("crashes", fault(FaultKind::Crash)),
            ("power_cuts", fault(FaultKind::CutPower)),
            ("kills", fault(FaultKind::Kill)),
            ("power_losses", fault(FaultKind::PowerLoss)),
            ("crash_loops", fault(FaultKind::CrashLoop)),
            ("partitions", fault(FaultKind::Partition) + fault(FaultKind::IsolateLeader)),
            ("leaders_isolated", fault(FaultKind::IsolateLeader)),
            ("clogs", fault(FaultKind::Clog)),
            ("freezes", fault(FaultKind::Freeze)),
            ("disk_stalls", fault(FaultKind::Stall)),
            ("applier_stalls", fault(FaultKind::StallApplier)),
            ("sync_errors", fault(FaultKind::SyncError)),
            ("deaths", fault(FaultKind::Death)),
            ("messages_lost", network.lost),
            ("messages_blocked", network.blocked),
            ("messages_doubled", network.duplicated),
        ]);
        named
    }
}

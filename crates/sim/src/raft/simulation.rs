//! A Raft group as something that is run over many seeds.

use std::collections::BTreeMap;

use super::group::{self, Counters};
use crate::{
    required::{REQUIRED, REQUIRED_COUNTS, Required},
    runner::{Run, Settings, Simulation},
    swarm::{FaultKind, SECOND},
};

/// One Raft group.
#[derive(Clone, Copy, Debug)]
pub struct RaftGroup;

impl Simulation for RaftGroup {
    const COMMAND: &'static str = "";
    const USUAL: Settings = Settings::of(20 * SECOND);
    const REQUIRED: &'static [Required] =
        &[Required { from_seeds: 400, marks: REQUIRED, counts: REQUIRED_COUNTS }];
    const MUTANTS: &'static [(&'static str, &'static str)] = raft::MUTANTS;

    fn run(seed: u64, settings: Settings) -> Run {
        let outcome = group::run(seed, settings);
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
        BTreeMap::from([
            ("events", self.events),
            ("virtual_microseconds", self.virtual_time),
            ("process_starts", self.starts),
            ("crashes", fault(FaultKind::Crash)),
            ("power_losses", fault(FaultKind::PowerLoss)),
            ("partitions", fault(FaultKind::Partition) + fault(FaultKind::IsolateLeader)),
            ("leaders_isolated", fault(FaultKind::IsolateLeader)),
            ("new_leaders_struck", fault(FaultKind::NewLeader)),
            ("clogs", fault(FaultKind::Clog)),
            ("freezes", fault(FaultKind::Freeze)),
            ("clock_jumps", fault(FaultKind::WallJump)),
            ("disk_stalls", fault(FaultKind::Stall)),
            ("sync_errors", fault(FaultKind::SyncError)),
            ("full_disks", fault(FaultKind::FullDisk)),
            ("bit_flips", fault(FaultKind::BitFlip)),
            ("bit_flips_noticed", self.damaged),
            ("disks_lost", fault(FaultKind::Wipe)),
            ("usurpations", fault(FaultKind::Usurp)),
            ("torn_logs", self.torn),
            ("frames_sent", network.sent),
            ("frames_lost", network.lost),
            ("frames_blocked", network.blocked),
            ("frames_doubled", network.duplicated),
            ("frames_damaged", network.corrupted),
            ("frames_damage_noticed", network.detected),
            ("elections", self.elections),
            ("entries_committed", self.committed),
            ("conf_changes_applied", self.changes),
            ("snapshots_installed", self.snapshots),
            ("compactions", self.compactions),
            ("operations_checked", self.operations),
            ("operations_open", self.open),
            ("writes_acknowledged", self.answers.written),
            ("writes_lost_for_certain", self.answers.lost),
            ("reads_answered", self.answers.read),
            ("requests_refused", self.answers.refused),
        ])
    }
}

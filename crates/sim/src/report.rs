//! What many seeds came to, as a table for people and as JSON for programs.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    raft::group::{Outcome, Settings},
    required::{REQUIRED, REQUIRED_COUNTS},
    runner::add_counts,
    swarm::{FaultKind, SECOND},
};

/// A seed that failed.
#[derive(Clone, Debug, Serialize)]
pub struct Red {
    /// The seed.
    pub seed: u64,
    /// The number of the event at which it was noticed.
    pub event: u64,
    /// What did not hold.
    pub property: String,
    /// What happened.
    pub details: String,
    /// The command that shows it again.
    pub replay: String,
}

/// Sums over seeds.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// The first seed.
    pub from: u64,
    /// Seeds that were run.
    pub seeds: u64,
    /// Those that failed.
    pub violations: Vec<Red>,
    /// The time that threads spent, together.
    busy: Duration,
    /// The time that passed.
    passed: Duration,
    /// A hash over all seeds' hashes, whatever their order.
    hash: u64,
    counts: BTreeMap<&'static str, u64>,
    marks: BTreeMap<&'static str, u64>,
}

/// For programs.
#[derive(Debug, Serialize)]
struct Json<'a> {
    from: u64,
    seeds: u64,
    violations: usize,
    red: &'a [Red],
    virtual_hours: f64,
    seconds: f64,
    real_time_factor: f64,
    hash: String,
    #[serde(flatten)]
    counts: &'a BTreeMap<&'static str, u64>,
    sometimes: &'a BTreeMap<&'static str, u64>,
    sometimes_missing: Vec<&'static str>,
}

/// The command that runs a seed again.
fn replay_command(seed: u64, settings: &Settings) -> String {
    let mut command = format!("cargo run --release -p sim -- replay {seed} --trace");
    if settings.chaos != Settings::USUAL.chaos {
        command += &format!(" --chaos {}", settings.chaos / SECOND);
    }
    if let Some(machines) = settings.machines {
        command += &format!(" --machines {machines}");
    }
    if let Some(mutant) = settings.mutant {
        command += &format!(" --mutant {mutant}");
    }
    command
}

impl Totals {
    /// Sums from nothing.
    pub fn new(from: u64) -> Totals {
        Totals { from, ..Totals::default() }
    }

    /// Adds what became of a seed that was run with `settings` and took `busy`.
    pub fn add(&mut self, outcome: Outcome, settings: &Settings, busy: Duration) {
        self.seeds += 1;
        self.busy += busy;
        self.hash ^= crate::hash::mix(outcome.hash ^ outcome.seed);
        if let Some((violation, event)) = outcome.violation {
            let seed = outcome.seed;
            self.violations.push(Red {
                seed,
                event,
                property: violation.property.into(),
                details: violation.details,
                replay: replay_command(seed, settings),
            });
            self.violations.sort_by_key(|red| red.seed);
        }
        let counters = outcome.counters;
        let network = counters.network;
        let fault = |kind: FaultKind| counters.faults.get(&kind).copied().unwrap_or(0);
        let counts = [
            ("events", counters.events),
            ("virtual_microseconds", counters.virtual_time),
            ("process_starts", counters.starts),
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
            ("bit_flips_noticed", counters.damaged),
            ("disks_lost", fault(FaultKind::Wipe)),
            ("usurpations", fault(FaultKind::Usurp)),
            ("torn_logs", counters.torn),
            ("frames_sent", network.sent),
            ("frames_lost", network.lost),
            ("frames_blocked", network.blocked),
            ("frames_doubled", network.duplicated),
            ("frames_damaged", network.corrupted),
            ("frames_damage_noticed", network.detected),
            ("elections", counters.elections),
            ("entries_committed", counters.committed),
            ("conf_changes_applied", counters.changes),
            ("snapshots_installed", counters.snapshots),
            ("compactions", counters.compactions),
            ("operations_checked", counters.operations),
            ("operations_open", counters.open),
            ("writes_acknowledged", counters.answers.written),
            ("writes_lost_for_certain", counters.answers.lost),
            ("reads_answered", counters.answers.read),
            ("requests_refused", counters.answers.refused),
        ];
        add_counts(&mut self.counts, counts);
        add_counts(&mut self.marks, outcome.marks);
    }

    /// The run is over after `passed`.
    pub fn ended(mut self, passed: Duration) -> Totals {
        self.passed = passed;
        self
    }

    /// What must have happened and has not.
    pub fn missing(&self) -> Vec<&'static str> {
        let marks = REQUIRED.iter().filter(|name| !self.marks.contains_key(*name));
        let counts = REQUIRED_COUNTS
            .iter()
            .filter(|name| self.counts.get(*name).is_none_or(|count| *count == 0));
        marks.chain(counts).copied().collect()
    }

    /// Virtual hours.
    pub fn virtual_hours(&self) -> f64 {
        self.counts.get("virtual_microseconds").copied().unwrap_or(0) as f64 / 3.6e9
    }

    /// How much faster than the world one core was.
    pub fn real_time_factor(&self) -> f64 {
        self.virtual_hours() * 3600.0 / self.busy.as_secs_f64().max(1e-9)
    }

    /// For programs.
    pub fn json(&self) -> String {
        let json = Json {
            from: self.from,
            seeds: self.seeds,
            violations: self.violations.len(),
            red: &self.violations,
            virtual_hours: self.virtual_hours(),
            seconds: self.passed.as_secs_f64(),
            real_time_factor: self.real_time_factor(),
            hash: format!("{:016x}", self.hash),
            counts: &self.counts,
            sometimes: &self.marks,
            sometimes_missing: self.missing(),
        };
        serde_json::to_string_pretty(&json).expect("names and numbers become JSON")
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(["what", "count"]);
        table.add_row(["seeds".into(), format!("{} from {}", self.seeds, self.from)]);
        table.add_row(["violations".into(), self.violations.len().to_string()]);
        table.add_row(["virtual hours".into(), format!("{:.2}", self.virtual_hours())]);
        table.add_row(["seconds".into(), format!("{:.1}", self.passed.as_secs_f64())]);
        let factor = format!("{:.0} times real time a core", self.real_time_factor());
        table.add_row(["speed".into(), factor]);
        for (name, count) in &self.counts {
            if *name != "virtual_microseconds" {
                table.add_row([name.replace('_', " "), count.to_string()]);
            }
        }
        let mut text = table.to_string();
        text.push_str("\n\nRare events:\n");
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(["sometimes", "count"]);
        for (name, count) in &self.marks {
            table.add_row([(*name).to_owned(), count.to_string()]);
        }
        text + &table.to_string()
    }
}

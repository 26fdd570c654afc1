//! What a run against a cluster did and found. Names of fields are an interface: they are only ever added.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    history::{Counts, Judgement},
    nemesis::Nemesis,
    probe::percentile,
};

/// How many violations a report spells out.
const VIOLATIONS_SHOWN_MAX: usize = 20;

/// The name among the gaps of those between two nemeses.
const RESTS: &str = "between faults";

/// A nemesis that was executed.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    /// Which one.
    pub nemesis: String,
    /// Whom it met, and how.
    pub whom: String,
    /// When it began, in milliseconds since the load began.
    pub at_ms: u64,
    /// How long it took until the cluster was whole again.
    pub took_ms: u64,
    /// The longest time without an acknowledged write of the probe.
    pub gap_ms: u64,
}

/// Times without a write around one kind of nemesis.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gaps {
    /// How many.
    pub count: usize,
    /// The middle one.
    pub p50_ms: u64,
    /// 99 of 100 are not longer.
    pub p99_ms: u64,
    /// The longest.
    pub max_ms: u64,
}

/// The result of one run.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ClusterReport {
    /// `cluster`.
    pub scenario: &'static str,
    /// The seed that repeats the decisions of the run.
    pub seed: u64,
    /// Kills of stores that were asked for.
    pub kills_requested: u32,
    /// Kills of stores that were executed: of one, of the leader's, of all at once.
    pub kills: u32,
    /// Keys whose acknowledged writes are gone.
    pub lost: u64,
    /// Whether one order explains all answers, key by key.
    pub linearizable: bool,
    /// Time without an acknowledged write after a kill of the leader's store: the middle one.
    pub unavailable_p50_ms: u64,
    /// 99 of 100 are not longer.
    pub unavailable_p99_ms: u64,
    /// What this machine does not permit, and why.
    pub skipped: Vec<String>,
    /// How often each nemesis was executed.
    pub nemeses: BTreeMap<&'static str, u64>,
    /// Times without an acknowledged write, by nemesis.
    pub gaps: BTreeMap<String, Gaps>,
    /// What clients did.
    #[serde(flatten)]
    pub counts: Counts,
    /// Reads that stores answered which were asked past every route.
    pub direct_reads: u64,
    /// Reads at the end, of every key at every replica.
    pub replica_reads: u64,
    /// Regions at the end.
    pub regions: usize,
    /// How long it took.
    pub seconds: u64,
    /// Everything else that the product must not do.
    pub other_violations: u64,
    /// The first violations, in words.
    pub violations: Vec<String>,
    /// What was done, in order.
    pub events: Vec<Event>,
    #[serde(skip)]
    rests: Vec<u64>,
    /// Where logs and data are, if something went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kept_in: Option<String>,
}

impl ClusterReport {
    /// An empty report of a run that is asked for `kills` kills.
    pub fn new(seed: u64, kills: u32) -> ClusterReport {
        ClusterReport {
            scenario: "cluster",
            seed,
            kills_requested: kills,
            nemeses: Nemesis::ALL.iter().map(|nemesis| (nemesis.name(), 0)).collect(),
            ..ClusterReport::default()
        }
    }

    /// Notes that a nemesis was executed.
    pub fn executed(&mut self, nemesis: Nemesis, event: Event) {
        *self.nemeses.entry(nemesis.name()).or_default() += 1;
        self.kills += u32::from(nemesis.is_kill());
        self.events.push(event);
    }

    /// Notes the longest time without an acknowledged write between two nemeses.
    pub fn rested(&mut self, gap_ms: u64) {
        self.rests.push(gap_ms);
    }

    /// Takes over what the judges and the ledger say.
    pub fn finish(&mut self, judgement: Judgement, others: &[String]) {
        self.lost = judgement.lost;
        self.linearizable = judgement.unexplained == 0;
        self.other_violations = others.len() as u64;
        self.violations = judgement.violations;
        self.violations.extend_from_slice(others);
        self.violations.truncate(VIOLATIONS_SHOWN_MAX);
        let mut gaps: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for event in &self.events {
            gaps.entry(event.nemesis.clone()).or_default().push(event.gap_ms);
        }
        gaps.insert(RESTS.to_owned(), self.rests.clone());
        self.gaps = gaps.into_iter().map(|(nemesis, gaps)| (nemesis, summary(gaps))).collect();
        let of_leader = self.gaps.get(Nemesis::KillLeader.name()).copied().unwrap_or_default();
        self.unavailable_p50_ms = of_leader.p50_ms;
        self.unavailable_p99_ms = of_leader.p99_ms;
    }

    /// Whether every kill was executed, something was written, and nothing was broken.
    pub fn passed(&self) -> bool {
        !self.events.is_empty()
            && self.kills_requested <= self.kills
            && 0 < self.counts.acknowledged_writes
            && self.lost == 0
            && self.linearizable
            && self.other_violations == 0
    }

    /// The report as people read it. Its last line is the result.
    pub fn to_text(&self) -> String {
        let mut text = format!("chaos cluster: seed {}, {} s\n", self.seed, self.seconds);
        for why in &self.skipped {
            text += &format!("SKIPPED: {why}\n");
        }
        let rests = (RESTS, self.rests.len() as u64);
        for (nemesis, count) in
            self.nemeses.iter().map(|(nemesis, count)| (*nemesis, *count)).chain([rests])
        {
            text += &format!("{nemesis}: {count}");
            if 0 < count {
                let gaps = self.gaps.get(nemesis).copied().unwrap_or_default();
                text += &format!(
                    " (no write for: p50 {} ms, p99 {} ms, max {} ms)",
                    gaps.p50_ms, gaps.p99_ms, gaps.max_ms
                );
            }
            text.push('\n');
        }
        let counts = self.counts;
        text += &format!(
            "operations: {}, acknowledged writes: {}, reads: {}, unknown: {}, refused: {}\n\
             direct reads: {}, reads of replicas at the end: {}, regions: {}\n",
            counts.operations,
            counts.acknowledged_writes,
            counts.reads,
            counts.unknown,
            counts.refused,
            self.direct_reads,
            self.replica_reads,
            self.regions
        );
        if !self.violations.is_empty() {
            for event in &self.events {
                text += &format!(
                    "at {} ms for {} ms: {} {}\n",
                    event.at_ms, event.took_ms, event.nemesis, event.whom
                );
            }
        }
        for violation in &self.violations {
            text += &format!("VIOLATION: {violation}\n");
        }
        if let Some(kept_in) = &self.kept_in {
            text += &format!("logs and data are kept in {kept_in}\n");
        }
        text += &format!(
            "kills: {}, lost: {}, linearizable: {}, other violations: {}, unavailable after the loss of the leader: \
             p50 {} ms, p99 {} ms\n",
            self.kills,
            self.lost,
            self.linearizable,
            self.other_violations,
            self.unavailable_p50_ms,
            self.unavailable_p99_ms
        );
        text
    }
}

fn summary(mut gaps: Vec<u64>) -> Gaps {
    gaps.sort_unstable();
    Gaps {
        count: gaps.len(),
        p50_ms: percentile(&gaps, 50),
        p99_ms: percentile(&gaps, 99),
        max_ms: gaps.last().copied().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(nemesis: Nemesis, gap_ms: u64) -> Event {
        let whom = "store-1".to_owned();
        Event { nemesis: nemesis.name().to_owned(), whom, at_ms: 1, took_ms: 2, gap_ms }
    }

    #[test]
    fn a_run_passes_only_with_all_its_kills_and_writes_and_without_violations() {
        let mut report = ClusterReport::new(1, 2);
        report.finish(Judgement::default(), &[]);
        assert!(!report.passed(), "nothing was done");
        report.executed(Nemesis::KillLeader, event(Nemesis::KillLeader, 900));
        report.executed(Nemesis::KillAll, event(Nemesis::KillAll, 4000));
        report.executed(Nemesis::Pause, event(Nemesis::Pause, 10));
        report.finish(Judgement::default(), &[]);
        assert!(!report.passed(), "nothing was written");
        report.counts.acknowledged_writes = 1;
        assert!(report.passed());
        assert_eq!((report.kills, report.nemeses["pause"]), (2, 1));
        assert_eq!((report.unavailable_p50_ms, report.unavailable_p99_ms), (900, 900));

        let lost = Judgement { lost: 1, ..Judgement::default() };
        let stale = Judgement { unexplained: 1, ..Judgement::default() };
        for (judgement, others) in
            [(lost, vec![]), (stale, vec![]), (Judgement::default(), vec!["no end".to_owned()])]
        {
            report.finish(judgement, &others);
            assert!(!report.passed(), "{}", report.to_text());
        }
        report.kills_requested = 3;
        report.finish(Judgement::default(), &[]);
        assert!(!report.passed(), "a kill is missing");
    }

    #[test]
    fn the_fields_that_others_read_have_their_names() {
        let json = serde_json::to_value(ClusterReport::new(1, 2)).unwrap();
        for field in
            ["kills", "lost", "linearizable", "unavailable_p50_ms", "unavailable_p99_ms", "skipped"]
        {
            assert!(json.get(field).is_some(), "{field}");
        }
        assert_eq!(json["nemeses"]["power-cut"], 0);
    }
}

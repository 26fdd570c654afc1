//! What a run did and found. A run that did nothing says so, and is not taken for a success.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use crate::{
    load::Tally,
    model::{Model, Violation},
};

/// How many violations a report spells out.
const VIOLATIONS_SHOWN_MAX: usize = 20;

/// The result of one run of one scenario.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// `kill`, `pause`, `power-cut`, `disk-full`.
    pub scenario: String,
    /// `storage.engine`, or `default`.
    pub engine: String,
    /// The seed that repeats the run, as far as the machine's scheduling allows.
    pub seed: u64,
    /// Rounds that were asked for.
    pub rounds_requested: u32,
    /// Rounds whose fault has happened and whose outcome was checked.
    pub rounds_executed: u32,
    /// Why nothing could be executed here.
    pub skipped: Option<String>,
    /// Writes that the product acknowledged.
    pub acknowledged_writes: u64,
    /// Writes and reads whose outcome stayed unknown.
    pub unanswered: u64,
    /// Calls that were refused.
    pub refused: u64,
    /// The first of the refusals.
    pub refusals: Vec<String>,
    /// Reads, ids and timestamps that were held against the ledgers.
    pub reads_checked: u64,
    /// Acknowledged writes that are not there, or deletes that are undone.
    pub lost: u64,
    /// Violations of any other kind.
    pub other_violations: u64,
    /// The first violations, in words.
    pub violations: Vec<String>,
    /// Milliseconds from start to ready: the middle one of all starts.
    pub start_ms_p50: u64,
    /// Milliseconds from start to ready: the longest of all starts.
    pub start_ms_max: u64,
    /// What else the scenario counted.
    pub counts: BTreeMap<String, u64>,
    /// What the process has said last, if something went wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_tail: Option<String>,
    #[serde(skip)]
    starts: Vec<Duration>,
}

impl Report {
    /// An empty report.
    pub fn new(scenario: &str, engine: Option<&str>, seed: u64, rounds: u32) -> Report {
        Report {
            scenario: scenario.into(),
            engine: engine.unwrap_or("default").into(),
            seed,
            rounds_requested: rounds,
            ..Report::default()
        }
    }

    /// The report of a run that is not possible on this machine.
    #[must_use]
    pub fn skip(mut self, why: String) -> Report {
        self.skipped = Some(why);
        self
    }

    /// Adds what a load met.
    pub fn add(&mut self, tally: Tally) {
        self.unanswered += tally.unanswered;
        self.refused += tally.refused;
        self.reads_checked += tally.reads;
        for refusal in tally.refusals {
            if !self.refusals.contains(&refusal) && self.refusals.len() < VIOLATIONS_SHOWN_MAX {
                self.refusals.push(refusal);
            }
        }
    }

    /// Adds one to a count of the scenario's own.
    pub fn count(&mut self, what: &str) {
        *self.counts.entry(what.into()).or_default() += 1;
    }

    /// Notes how long a start took.
    pub fn started(&mut self, took: Duration) {
        self.starts.push(took);
        let mut sorted = self.starts.clone();
        sorted.sort_unstable();
        let millis = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        self.start_ms_p50 = millis(sorted[sorted.len() / 2]);
        self.start_ms_max = millis(sorted[sorted.len() - 1]);
    }

    /// Takes over what the ledger knows.
    pub fn finish(&mut self, model: &Model) {
        self.acknowledged_writes = model.acknowledged();
        self.lost = 0;
        self.other_violations = 0;
        self.violations.clear();
        for violation in model.violations() {
            match violation {
                Violation::Lost { .. }
                | Violation::Resurrected { .. }
                | Violation::StepLost { .. } => self.lost += 1,
                _ => self.other_violations += 1,
            }
            if self.violations.len() < VIOLATIONS_SHOWN_MAX {
                self.violations.push(violation.to_string());
            }
        }
    }

    /// Whether every round was executed, wrote something, and nothing was broken.
    pub fn passed(&self) -> bool {
        self.skipped.is_none()
            && 0 < self.rounds_executed
            && self.rounds_executed == self.rounds_requested
            && 0 < self.acknowledged_writes
            && self.lost == 0
            && self.other_violations == 0
    }

    /// The report as people read it. Its last line is the result.
    pub fn to_text(&self) -> String {
        let mut text =
            format!("chaos {}: engine {}, seed {}\n", self.scenario, self.engine, self.seed);
        if let Some(why) = &self.skipped {
            text += &format!("SKIPPED: {why}\n");
        } else {
            text += &format!(
                "checked: {} reads; unanswered: {}; refused: {}; start: p50 {} ms, max {} ms\n",
                self.reads_checked,
                self.unanswered,
                self.refused,
                self.start_ms_p50,
                self.start_ms_max
            );
        }
        for (what, count) in &self.counts {
            text += &format!("{what}: {count}\n");
        }
        // A process that was killed refuses everything; that is of interest only to those who search a failure.
        for refusal in self.refusals.iter().filter(|_| !self.violations.is_empty()) {
            text += &format!("refusal: {refusal}\n");
        }
        for violation in &self.violations {
            text += &format!("VIOLATION: {violation}\n");
        }
        if let Some(tail) = &self.log_tail {
            text += tail;
            text += "\n";
        }
        text += &format!(
            "rounds executed: {}, acknowledged writes: {}, lost: {}, other violations: {}\n",
            self.rounds_executed, self.acknowledged_writes, self.lost, self.other_violations
        );
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Effect;

    fn written() -> Model {
        let mut model = Model::default();
        let (ticket, _) = model.begin(&"k".into(), Effect::Put);
        model.acknowledge(ticket);
        model
    }

    #[test]
    fn a_run_that_did_less_than_asked_has_not_passed() {
        let mut report = Report::new("kill", None, 1, 2);
        assert!(!report.passed());
        report.rounds_executed = 2;
        assert!(!report.passed(), "nothing was written");
        report.finish(&written());
        assert!(report.passed());
        report.rounds_executed = 1;
        assert!(!report.passed());
        assert!(!Report::new("power-cut", None, 1, 0).skip("no root".into()).passed());
    }

    #[test]
    fn violations_fail_a_run_and_are_spelled_out() {
        let mut model = written();
        model.check(&"k".into(), None);
        model.report(Violation::IdTwice { id: 7 });
        let mut report = Report::new("kill", Some("fjall"), 1, 1);
        report.rounds_executed = 1;
        report.finish(&model);
        assert_eq!((report.passed(), report.lost, report.other_violations), (false, 1, 1));
        let text = report.to_text();
        assert!(
            text.contains("VIOLATION: lost write: k has nothing, write 1 was acknowledged"),
            "{text}"
        );
        assert!(text.contains("VIOLATION: id 7 was handed out twice"), "{text}");
        assert!(
            text.ends_with(
                "rounds executed: 1, acknowledged writes: 1, lost: 1, other violations: 1\n"
            ),
            "{text}"
        );
    }
}

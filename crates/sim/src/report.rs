//! What many seeds came to, as a table for people and as JSON for programs.

use std::{collections::BTreeMap, time::Duration};

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::{
    required::Required,
    runner::{Run, add_counts},
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
    required: &'static [Required],
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

impl Totals {
    /// Sums from nothing.
    pub fn new(from: u64, required: &'static [Required]) -> Totals {
        Totals { from, required, ..Totals::default() }
    }

    /// Adds what became of a seed that took `busy`; `replay` is the command that shows it again.
    pub fn add(&mut self, run: Run, replay: String, busy: Duration) {
        self.seeds += 1;
        self.busy += busy;
        self.hash ^= crate::hash::mix(run.hash ^ run.seed);
        if let Some((violation, event)) = run.violation {
            self.violations.push(Red {
                seed: run.seed,
                event,
                property: violation.property.into(),
                details: violation.details,
                replay,
            });
            self.violations.sort_by_key(|red| red.seed);
        }
        add_counts(&mut self.counts, run.counts);
        add_counts(&mut self.marks, run.marks);
    }

    /// The run is over after `passed`.
    pub fn ended(mut self, passed: Duration) -> Totals {
        self.passed = passed;
        self
    }

    /// What must have happened in so many seeds and has not.
    pub fn missing(&self) -> Vec<&'static str> {
        let due = self.required.iter().filter(|required| required.from_seeds <= self.seeds);
        let missing = |required: &Required| {
            let marks = required.marks.iter().filter(|name| !self.marks.contains_key(*name));
            let is_zero = |name: &&&str| self.counts.get(**name).is_none_or(|count| *count == 0);
            marks.chain(required.counts.iter().filter(is_zero)).copied().collect::<Vec<_>>()
        };
        due.flat_map(missing).collect()
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

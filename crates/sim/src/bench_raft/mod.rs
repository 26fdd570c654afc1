//! The core against raft-rs 0.7 in one process: the same group of three, the same entries, the same storage in memory,
//! messages handed over as they are.
//!
//! Both are driven the way their documentation says, by the loop that a store would have: propose what came in, take
//! each Ready, persist (into memory), send, apply, until everybody is quiet. Rounds of all variants are interleaved, and
//! ratios are medians of the rounds' ratios, so that a busy machine disturbs all alike.

mod idle;
mod ours;
mod theirs;

use runtime::{Clock, real::RealClock};
use serde::Serialize;

pub use idle::{IdleResult, Kind, measure as measure_idle};

/// Bytes of a proposal.
const PROPOSAL_BYTES: usize = 256;

/// How long a variant runs in each round.
const SLICE_SECONDS: f64 = 0.3;

/// A group of three with a leader.
trait Group {
    /// Proposes `count` entries at the leader and runs until everybody has applied them.
    fn commit(&mut self, count: usize);

    /// Messages handed over so far.
    fn messages(&self) -> u64;

    /// Entries that the leader has applied so far.
    fn applied(&self) -> u64;
}

/// What the comparison came to.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// Rounds that were run.
    pub rounds: usize,
    /// Ours over raft-rs with `batch_append`, one proposal at a time.
    pub batch1_ratio: f64,
    /// Ours over raft-rs as it is by default, 64 proposals at a time.
    pub batch64_ratio: f64,
    /// Ours over raft-rs with `batch_append`, 64 proposals at a time.
    pub batch64_append_ratio: f64,
    /// Our messages for each proposal, 64 at a time.
    pub messages_per_proposal: f64,
    /// Proposals a second, medians.
    pub proposals_per_second: Vec<Speed>,
    /// Idle groups.
    pub idle: Vec<IdleComparison>,
}

/// The speed of one variant.
#[derive(Clone, Debug, Serialize)]
pub struct Speed {
    /// The variant.
    pub name: String,
    /// Proposals at a time.
    pub batch: usize,
    /// Committed proposals a second.
    pub proposals: f64,
    /// Messages for each proposal.
    pub messages: f64,
}

/// Many groups that do nothing.
#[derive(Clone, Debug, Serialize)]
pub struct IdleComparison {
    /// How many groups of three.
    pub groups: usize,
    /// Our time over theirs, for each group and tick.
    pub time_ratio: f64,
    /// Ours.
    pub ours: IdleResult,
    /// Theirs.
    pub theirs: IdleResult,
}

struct Variant {
    name: &'static str,
    batch: usize,
    group: Box<dyn Group>,
    speeds: Vec<f64>,
    messages: f64,
}

/// Compares, in `rounds` rounds.
pub fn compare(rounds: usize, idle: impl Fn(Kind, usize) -> IdleResult) -> Comparison {
    let clock = RealClock::new();
    let mut variants = Vec::new();
    for batch in [1, 64] {
        let groups: [(&'static str, Box<dyn Group>); 3] = [
            ("ours", Box::new(ours::Ours::new())),
            ("raft-rs", Box::new(theirs::Theirs::new(false))),
            ("raft-rs batch_append", Box::new(theirs::Theirs::new(true))),
        ];
        for (name, group) in groups {
            variants.push(Variant { name, batch, group, speeds: Vec::new(), messages: 0.0 });
        }
    }
    // The first round warms up.
    for round in 0..=rounds {
        for variant in &mut variants {
            let speed = run_slice(variant, &clock);
            if round > 0 {
                variant.speeds.push(speed);
            }
        }
    }
    let find = |name: &str, batch: usize| {
        variants
            .iter()
            .find(|variant| variant.name == name && variant.batch == batch)
            .expect("all variants were run")
    };
    let ratio = |name: &str, batch: usize| {
        let pairs = find("ours", batch).speeds.iter().zip(&find(name, batch).speeds);
        median(pairs.map(|(ours, theirs)| ours / theirs).collect())
    };
    let speed = |variant: &Variant| Speed {
        name: variant.name.into(),
        batch: variant.batch,
        proposals: median(variant.speeds.clone()),
        messages: variant.messages,
    };
    Comparison {
        rounds,
        batch1_ratio: ratio("raft-rs batch_append", 1),
        batch64_ratio: ratio("raft-rs", 64),
        batch64_append_ratio: ratio("raft-rs batch_append", 64),
        messages_per_proposal: find("ours", 64).messages,
        proposals_per_second: variants.iter().map(speed).collect(),
        idle: [1_000, 10_000].map(|groups| compare_idle(groups, rounds, &idle)).into(),
    }
}

fn compare_idle(
    groups: usize,
    rounds: usize,
    idle: &impl Fn(Kind, usize) -> IdleResult,
) -> IdleComparison {
    // Fresh processes, so that memory is what it says; three are enough for a median.
    let pairs: Vec<(IdleResult, IdleResult)> = (0..rounds.min(3))
        .map(|_| (idle(Kind::Ours, groups), idle(Kind::RaftRs, groups)))
        .collect();
    let middle = |of: fn(&(IdleResult, IdleResult)) -> f64| median(pairs.iter().map(of).collect());
    IdleComparison {
        groups,
        time_ratio: middle(|(ours, theirs)| ours.nanoseconds / theirs.nanoseconds),
        ours: IdleResult { nanoseconds: middle(|p| p.0.nanoseconds), bytes: middle(|p| p.0.bytes) },
        theirs: IdleResult {
            nanoseconds: middle(|p| p.1.nanoseconds),
            bytes: middle(|p| p.1.bytes),
        },
    }
}

fn run_slice(variant: &mut Variant, clock: &RealClock) -> f64 {
    let begin = clock.monotonic();
    let (messages, applied) = (variant.group.messages(), variant.group.applied());
    loop {
        for _ in 0..(256 / variant.batch).max(1) {
            variant.group.commit(variant.batch);
        }
        let passed = clock.monotonic().saturating_sub(begin).as_secs_f64();
        if SLICE_SECONDS <= passed {
            let proposals = (variant.group.applied() - applied) as f64;
            variant.messages = (variant.group.messages() - messages) as f64 / proposals;
            return proposals / passed;
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_groups_commit_what_is_proposed_and_count_their_messages() {
        let groups: [Box<dyn Group>; 3] = [
            Box::new(ours::Ours::new()),
            Box::new(theirs::Theirs::new(false)),
            Box::new(theirs::Theirs::new(true)),
        ];
        for mut group in groups {
            let (messages, applied) = (group.messages(), group.applied());
            for _ in 0..100 {
                group.commit(7);
            }
            assert_eq!(group.applied() - applied, 700);
            assert!(group.messages() - messages >= 200);
        }
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
    }
}

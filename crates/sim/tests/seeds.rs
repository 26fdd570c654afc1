//! A few seeds in a debug build: that they hold, and that a seed is a run.
//!
//! The long runs are `cargo run --release -p sim -- run`; docs/RELIABILITY.md has what they came to.

use sim::{
    raft::{RaftGroup, group},
    runner::{Settings, Simulation},
    store::{self, Stores},
    swarm::SECOND,
};

const SHORT: Settings = Settings::of(2 * SECOND);

#[test]
fn the_same_seed_is_the_same_run_event_for_event() {
    let mut hashes = Vec::new();
    for seed in 1000..1020 {
        let (one, two) = (group::run(seed, SHORT), group::run(seed, SHORT));
        assert_eq!((one.hash, one.counters.events), (two.hash, two.counters.events), "seed {seed}");
        assert_eq!(one.marks, two.marks, "seed {seed}");
        hashes.push(one.hash);
    }
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), 20, "seeds differ");
}

#[test]
fn every_property_holds_in_a_few_seeds() {
    for seed in 1..=40 {
        let outcome = group::run(seed, SHORT);
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
        assert!(outcome.counters.events > 100, "seed {seed} did nothing");
    }
}

#[test]
fn a_run_can_be_ended_after_any_event() {
    let whole = group::run(7, SHORT);
    let part = group::run(7, Settings { until: Some(500), ..SHORT });
    assert!(part.counters.events < whole.counters.events && part.violation.is_none());
    assert!(500 <= part.counters.events);
}

#[test]
fn a_known_bug_of_the_core_is_caught() {
    let settings = Settings { mutant: Some("conf_change_applied_twice"), ..RaftGroup::USUAL };
    let caught = (1..=20).find_map(|seed| group::run(seed, settings).violation);
    assert!(caught.is_some(), "twenty seeds do not notice a change that is made twice");
}

#[test]
fn the_same_seed_of_stores_is_the_same_run_event_for_event() {
    for seed in 1000..1006 {
        let (one, two) = (Stores::run(seed, SHORT), Stores::run(seed, SHORT));
        assert_eq!((one.hash, one.counts), (two.hash, two.counts), "seed {seed}");
        assert_eq!(one.marks, two.marks, "seed {seed}");
    }
}

#[test]
fn every_property_of_stores_holds_in_a_few_seeds() {
    for seed in 1..=12 {
        let outcome = store::run(seed, SHORT);
        assert!(outcome.violation.is_none(), "seed {seed}: {:?}", outcome.violation);
        assert!(outcome.counters.events > 100, "seed {seed} did nothing");
    }
}

#[test]
fn a_known_bug_of_stores_is_caught() {
    let settings = Settings { mutant: Some("read_before_applied"), ..Stores::USUAL };
    let caught = (1..=20).find_map(|seed| store::run(seed, settings).violation);
    assert!(caught.is_some(), "twenty seeds do not notice reads that come too early");
}

//! Random clusters of stores that come, die, come back and are sent away, while heartbeats and orders are lost, late
//! and out of order and the scheduler is restarted: in the end every region has its replicas on stores that are there,
//! stores hold about the same, and nothing moves any more. On the way the scheduler never takes a majority away, never
//! uses an id twice, and never does what the known bugs in `scheduler::MUTANTS` do: each of them is switched on to see
//! that it is found.
//!
//! A run is a function of its seed. `CONVERGENCE_SEEDS=1000` runs more of them, `CONVERGENCE_FROM=77` begins elsewhere,
//! `CONVERGENCE_TRACE=1` prints every event.
#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

mod chaos;
mod checks;
mod group;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
};

use types::marks;

use world::World;

/// Rare events that a run of many seeds must have seen, or it proves less than it says.
const REQUIRED: [&str; 5] = [
    "a leader that loses its vote is found in a joint state",
    "an operator ends because its region was split",
    "an operator ends because somebody else changed the peers",
    "an operator takes too long",
    "a removal waits for a majority",
];

/// Seeds in each run. Known bugs must be found by one of those that hold without them.
const SEEDS: u64 = 16;

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

/// What is wrong with this seed, if anything.
fn run(seed: u64) -> Result<World, String> {
    let run = || {
        let mut world = World::new(seed);
        world.run();
        world
    };
    catch_unwind(AssertUnwindSafe(run)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    })
}

#[test]
fn clusters_converge_whatever_happens() {
    let (from, seeds) = (number("CONVERGENCE_FROM", 1), number("CONVERGENCE_SEEDS", SEEDS));
    marks::set_mutant(None);
    marks::take_counts();
    let mut done = BTreeMap::new();
    for seed in from..from + seeds {
        let world = run(seed).unwrap_or_else(|what| panic!("seed {seed}: {what}"));
        for (what, times) in world.counts {
            *done.entry(what).or_insert(0) += times;
        }
    }
    let marks = marks::take_counts();
    println!("{seeds} seeds: {done:?}, {marks:?}");
    if SEEDS <= seeds {
        for mark in REQUIRED {
            assert!(marks.contains_key(mark), "it never happened that {mark}");
        }
    }
}

#[test]
fn known_bugs_are_found() {
    let mut found = Vec::new();
    let mut missed = Vec::new();
    for (name, breaks) in scheduler::MUTANTS {
        marks::set_mutant(Some(name));
        let violation = (1..=SEEDS).find_map(|seed| Some((seed, run(seed).err()?)));
        match violation {
            Some((seed, what)) => found.push(format!("{name}: seed {seed}: {what}")),
            None => missed.push(format!("{name}: {breaks}")),
        }
    }
    marks::set_mutant(None);
    println!("{}", found.join("\n"));
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
    assert!(15 <= found.len());
}

/// Each switch in the code is in the table, and each of its rows is a switch.
#[test]
fn the_table_of_mutants_is_complete() {
    let (mut switches, mut folders) = (BTreeSet::new(), vec![PathBuf::from("src")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            let uses = text.split("mutant!(\"").skip(1);
            switches.extend(uses.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
    }
    let table: Vec<String> = scheduler::MUTANTS.iter().map(|(name, _)| (*name).into()).collect();
    assert_eq!(table, switches.into_iter().collect::<Vec<_>>(), "sorted, each once");
}

#[test]
fn a_seed_is_one_run() {
    let end = |seed| run(seed).map(|world| (world.counts, world.scheduler.position()));
    assert_eq!(end(3), end(3));
}

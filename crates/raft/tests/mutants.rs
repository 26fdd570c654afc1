//! The table of mutants is what the code has: each switch is in it, and each of its rows is a switch.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

/// Switches in the core that only whole stores, with disks of their own, show: they are in the table of `raftstore`.
const OF_STORES: [&str; 1] = ["leader_ignores_its_disk"];

#[test]
fn the_table_of_mutants_is_complete() {
    let mut switches = BTreeSet::new();
    for file in std::fs::read_dir("src").unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let text = std::fs::read_to_string(path).unwrap();
        for rest in text.split("mutant!(\"").skip(1) {
            let switch = rest.split('"').next().unwrap();
            if !OF_STORES.contains(&switch) {
                switches.insert(switch.to_owned());
            }
        }
    }
    let table: Vec<String> = raft::MUTANTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(table, switches.into_iter().collect::<Vec<_>>(), "sorted, each once");
    assert!(15 <= table.len());
}

//! Random histories: clients that run transactions of every kind, give up, ask twice and meet each other's locks, in
//! any order. At the end everything is resolved, and an oracle is asked whether it fits together:
//!
//! - a transaction is committed on all its keys at one timestamp, or on none, and as its client was told;
//! - every read saw what was committed at or before its timestamp, whenever it was done;
//! - no two transactions that wrote the same key ran at the same time;
//! - keys that must not exist did not, and what a pessimistic lock showed was still so at the commit.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod client;
mod oracle;
mod world;

use proptest::{collection::vec, prelude::*, test_runner::RngSeed};

use world::{Action, World};

/// The numbers are taken modulo whatever there is to choose from.
fn action() -> impl Strategy<Value = Action> {
    (any::<u8>(), any::<u8>(), any::<u8>(), any::<u8>())
        .prop_map(|(what, who, key, flags)| Action { what, who, key, flags })
}

/// `TXN_HISTORIES` says how many, `TXN_SEED` which.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

fn config() -> ProptestConfig {
    ProptestConfig {
        cases: number("TXN_HISTORIES", 2_000).try_into().expect("fewer than 2^32"),
        rng_seed: RngSeed::Fixed(number("TXN_SEED", 0x7478_6e73)),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn histories_are_snapshot_isolated(actions in vec(action(), 1..300)) {
        let mut world = World::new();
        for action in actions {
            world.step(action);
        }
        world.finish();
    }
}

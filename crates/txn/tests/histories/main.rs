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

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 60_000,
        rng_seed: RngSeed::Fixed(0x77),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn histories_are_snapshot_isolated(actions in vec(action(), 1..300)) {
        let mut world = World::new();
        for action in actions {
            world.step(action);
        }
        world.finish();
    }
}

//! The deterministic simulator: cores under every fault, from one seed.
//!
//! A seed draws a world ([`swarm`]): machines with disks and clocks, a network, which faults strike and how often. Events
//! happen in virtual time on one thread ([`world`]); a [`nemesis`] breaks things; what runs on the machines is the real
//! code of the cores, with the I/O of the simulation around it ([`raft`]). [`checker`]s hear everything and say when a
//! property does not hold. The same seed gives the same run, event for event: a red one is replayed and read.
//!
//! docs/RELIABILITY.md says how to run it and what it has found to hold.
#![forbid(unsafe_code)]

pub mod bench_raft;
pub mod checker;
pub mod hash;
pub mod nemesis;
pub mod panics;
pub mod raft;
pub mod report;
pub mod required;
pub mod rng;
pub mod runner;
pub mod store;
pub mod swarm;
mod switches;
pub mod world;

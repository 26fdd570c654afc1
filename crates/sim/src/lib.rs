//! The deterministic simulator.
#![forbid(unsafe_code)]
pub mod checker;
pub mod hash;
pub mod rng;
pub mod world;

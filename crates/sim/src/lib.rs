//! The deterministic simulator.
#![forbid(unsafe_code)]
pub mod rng;
pub mod world;

//! The raft log against a model: what it holds, what a crash may leave of it, which damage it must refuse.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod basics;
mod crash_states;
mod faults;
mod golden;
mod model;
mod property;
mod rewrites;
mod threads;

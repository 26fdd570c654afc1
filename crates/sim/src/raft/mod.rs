//! A Raft group in the simulated world: its processes, its clients, its operator, and the judge over them.

mod codec;
mod command;
pub mod group;
mod judge;
mod log;
mod members;
mod node;
mod options;
mod simulation;

pub use judge::Answers;
pub use simulation::RaftGroup;

//! Stores in the simulator: the real stores, appliers, Raft logs and snapshots under every fault, from one seed.
//!
//! `world` is machines with stores in virtual time; `clients` write and read by routes that may be old, `txn` moves money
//! in transactions; `placement` plays the scheduler; `faults` strike; `judge` hears what stores do, and `check::history` judges what clients saw.
//! `run` plays a seed from the first event to the verdict.

mod clients;
mod command;
mod faults;
mod judge;
mod machine;
pub mod options;
mod placement;
mod required;
mod run;
mod simulation;
mod txn;
mod world;

pub use faults::FaultKind;
pub use run::{Counters, Outcome, run};
pub use simulation::Stores;

use crate::world::MachineId;
use faults::Plan;
use raftstore::store::Token;
use types::RegionId;

/// What happens outside of machines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A client has thought enough.
    Client(usize),
    /// A client has waited long.
    Patience(usize, Token),
    /// A client with transactions has thought enough.
    Txn(usize),
    /// A client with transactions has waited long.
    TxnPatience(usize, Token),
    /// Stores report to placement.
    Report,
    /// Placement takes a step.
    Place,
    /// Placement has a region split.
    Split,
    /// Placement has this region split.
    SplitOf(RegionId),
    /// Placement has a leadership handed over.
    Transfer,
    /// A fault strikes, or ends.
    Fault(Plan),
    /// A machine is switched on.
    Boot(MachineId),
    /// The power of a machine goes.
    Crash(MachineId),
    /// Whether the aim of the phase is reached is looked at.
    Look,
}

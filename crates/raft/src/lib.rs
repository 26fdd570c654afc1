//! Raft as a step machine.
#![forbid(unsafe_code)]

mod conf_change;
mod config;
mod election;
mod entry;
mod error;
mod invariants;
mod log;
mod membership;
mod message;
mod mutants;
mod node;
mod output;
mod progress;
mod quorum;
mod read;
mod ready;
mod replication;
mod role;
mod snapshot;
mod storage;
#[cfg(feature = "testing")]
pub mod testing;
mod transfer;

pub use config::{Config, ReadMode};
pub use entry::{Entry, EntryKind, HardState, NUMBER_MAX, Snapshot, SnapshotMeta};
pub use error::{Error, ProposeError, ReadError, StorageError, TransferError};
pub use membership::{ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Transition};
pub use message::{Message, MessageBody, RejectHint};
pub use mutants::MUTANTS;
pub use node::{Node, PeerStatus, ProgressKind, Rng, Status};
pub use ready::{ReadState, Ready, RoleKind, RoleState, SnapshotStatus};
pub use storage::{MemStorage, Storage};

//! Raft as a step machine.
#![forbid(unsafe_code)]

mod config;
mod entry;
mod error;
mod membership;
mod message;
mod node;
mod ready;
mod storage;

pub use config::{Config, ReadMode};
pub use entry::{Entry, EntryKind, HardState, NUMBER_MAX, Snapshot, SnapshotMeta};
pub use error::{Error, ProposeError, ReadError, StorageError, TransferError};
pub use membership::{ConfChange, ConfChangeKind, ConfChangeSingle, ConfState, Transition};
pub use message::{Message, MessageBody, RejectHint};
pub use node::{MUTANTS, Node, PeerStatus, ProgressKind, Rng, Status};
pub use ready::{ReadState, Ready, RoleKind, RoleState, SnapshotStatus};
pub use storage::{MemStorage, Storage};

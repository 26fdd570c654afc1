//! Requests become commands: API modes, raw key-value, expiry, and the group commit of a store with one replica.
//!
//! A **read** runs on its caller's thread: [`Storage::view`] takes one engine snapshot and one reading of the clock,
//! and every read of that [`View`] sees the same moment. A **write** becomes a command (`command.rs`) in one queue
//! (`commit.rs`). Whoever leads the next group takes what has gathered, works out its effects (`applier.rs`), writes
//! them to the engine, syncs once, and then answers all of it (`shell/writer.rs`).
//!
//! Invariants:
//! 1. No answer leaves before the sync that covers it has returned; after a failed write or sync nothing more is
//!    acknowledged, and a write whose fate is unknown is never answered with a definite "no".
//! 2. Commands take effect in the order in which they were proposed. A conditional command (compare-and-swap, removal
//!    of an expired key) is decided when it is applied, and sees everything before it.
//! 3. A read takes its snapshot first and is checked against the region afterwards.
//!
//! All files but those in `shell/` are cores: they read no clock, start no thread and wait for nothing but the
//! engine. No gRPC here: `server` turns wire messages into these calls.
#![forbid(unsafe_code)]

mod applier;
mod command;
mod commit;
mod entry;
mod error;
mod expiry;
pub mod identity;
mod key_mode;
mod layout;
mod machine;
mod raw;
mod read;
mod regions;
mod safe_point;
mod shell;
mod statistics;
mod value;

pub use command::Swapped;
pub use error::{Error, Result};
pub use expiry::Sweep;
pub use identity::{Identity, StoreIdent};
pub use key_mode::{KeyModeLatch, Latching};
pub use read::{Checksum, KvPair, RawBatchScan, RawScan};
pub use shell::{
    Asking, Commits, LockWait, Locking, Proposal, RaftHandle, Replication, Storage, StorageOptions,
    Timestamps, VersionCollection, View, Wanted, user_range,
};
pub use statistics::Statistics;

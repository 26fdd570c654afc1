//! Many Raft groups on one store, as step machines.
//!
//! A [`Store`] has a peer of each of its regions; a peer is a Raft core, its log and what waits for it. The
//! [`Applier`] carries out what is committed. Neither waits for anything: an owner moves inputs in and performs
//! outputs, in production with threads, in the simulator with virtual time.
//!
//! ```text
//!  requests, messages, ticks          LogSynced, Applied, EngineSynced
//!            │                                     ▲
//!            ▼                                     │
//!  store/ Store::step ── peer/ propose ── raft ── turn ──► log batch, messages, tasks
//!                                                               │
//!                                        apply/ Applier ◄───────┘ committed entries, snapshots
//! ```
//!
//! # What is durable when
//!
//! Entries, votes and terms go into the Raft log (`engine::raft_log`), which is synced once for all regions of a turn;
//! what promises them is sent when that has returned. Applied entries go into the engine with their index, without a
//! sync. Before the log is compacted, before the log of a region that is gone is removed, and before the file of an
//! installed snapshot is, the engine is synced (`Output::SyncEngine`). So the log always begins where the engine
//! certainly is, or a snapshot's file is there that says the rest; anything else refuses to start (`store/open.rs`).
#![forbid(unsafe_code)]

pub mod apply;
mod command;
mod config;
mod error;
pub mod hash;
mod log_storage;
pub mod message;
mod mutants;
mod peer;
mod report;
pub mod shell;
pub mod snapshot;
pub mod split_check;
pub mod state;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;

pub use apply::{Applier, Machine};
pub use command::{AdminCommand, SplitChild};
pub use config::StoreConfig;
pub use error::{Error, Result};
pub use message::StoreMessage;
pub use mutants::MUTANTS;
pub use peer::view::{Lease, PeerView};
pub use report::RegionReport;
pub use store::Store;

//! The scheduler: the placement role of a cluster. It knows the stores and the regions, hands out ids and timestamps,
//! and keeps the safe points. (TiKV calls it PD.)
//!
//! # The protocol
//!
//! The state is what a sequence of [`Record`]s makes of an empty one. A request that changes it appends records; only
//! records change it. The records go to a log ([`storage`]), from which the next start makes the same state again.
//!
//! Whoever asks may be told only what a crash can't take back. So every answer carries the position in the log that it
//! rests on ([`Answer::after`]) and is held back until the log is durable up to there. Most answers rest on records
//! that are durable since long and are not held back at all:
//!
//! - **Timestamps and ids** come out of windows that were made durable before. Only the first one beyond a window waits.
//! - **Stores, settings, safe points, the key mode**: an answer rests on the last change of that part.
//! - **Regions** are hints: a store checks the epoch of every request. Answers rest on the bootstrap alone. But a
//!   report about a region is acknowledged once all reports before it are durable, so that a client that was told of
//!   a split finds it here, also after a restart.
//! - **Refusals** rest on everything before them.
//!
//! What reports bring and lose quickly (sizes, flows, heartbeats) is not recorded.
//!
//! # Placement
//!
//! Stores and the leaders of regions report how they are, and are told what to do ([`Order`]). Reports and orders may
//! come late, twice or not at all. What is to be done is decided by pure functions of a picture of the cluster:
//!
//! ```text
//!  reports ──▶ cluster/ ──picture──▶ checker/, balance/ ──plan──▶ operator/ ──order──▶ the region's leader
//!                 ▲                                                   │ a step is done when a report shows it
//!                 └───────────────────────────────────────────────────┘
//! ```
//!
//! [`Scheduler::tick`] turns that wheel (`placement.rs`); the step of an operator is the answer to a heartbeat, and is
//! pushed again when the leader is silent. Operators are not recorded: after a restart the checkers see what is left
//! half done.
//!
//! # Core and shell
//!
//! [`Scheduler`] is a core: it has no clock, thread, randomness or I/O. Time comes in with the request ([`Now`]),
//! records go out through [`Scheduler::take_outbox`]. [`SchedulerHandle`] is the shell of a process: a mutex around the
//! core, a thread that writes and syncs the log for all who wait, and futures for those who wait.
//!
//! There is one member today. With more, the log becomes a Raft log and "durable" means "on a quorum"; the core stays.
#![forbid(unsafe_code)]

mod balance;
mod checker;
mod cluster;
mod config;
mod error;
mod filter;
mod id_alloc;
mod mutants;
mod operator;
mod placement;
mod record;
mod safe_point;
mod scheduler;
mod shell;
mod split;
pub mod storage;
mod store_life;
#[cfg(feature = "testing")]
pub mod testing;
mod tso;

use std::time::Duration;

pub use cluster::{
    ClusterConfig, RegionInfo, Store, StoreFilter, StoreInfo, StoreRegions, StoreState, StoreStats,
};
pub use config::{ChangeStyle, ScheduleConfig};
pub use error::{Error, Result};
pub use filter::Refusal;
pub use id_alloc::IdBatch;
pub use mutants::MUTANTS;
pub use operator::{
    Change, Instruction, OperatorInfo, Order, PeerChange, PeerChangeKind, Status, Step,
};
pub use record::Record;
pub use safe_point::ServiceSafePoint;
pub use scheduler::Scheduler;
pub use shell::{Options, SchedulerHandle};
pub use split::SplitIds;

/// The time, as a core is told it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Since some fixed moment of this process; never goes back.
    pub monotonic: Duration,
    /// Milliseconds since 1970 by the clock on the wall, which may jump in both directions.
    pub wall_ms: u64,
}

/// How many records lie in the log before a point of it, since the cluster was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPosition(pub u64);

/// An answer, and what must be durable before anybody may see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "an answer is held back until the log is durable up to `after`"]
pub struct Answer<T> {
    /// The answer.
    pub value: T,
    /// The point of the log that it rests on.
    pub after: LogPosition,
}

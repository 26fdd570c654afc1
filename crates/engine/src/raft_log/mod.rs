//! One append-only log for all Raft groups of a store.
//!
//! Batches of many regions are appended in memory ([`RaftLog::append`]) and readable at once. One owner, the
//! [`RaftLogWriter`], makes durable what has come together: all of it becomes one *group*, which costs one write and one
//! sync. Between syncs the same owner does a little housekeeping at a time ([`RaftLogWriter::maintain`]).
//!
//! # The contract
//!
//! 1. **Atomicity.** A [`LogBatch`] takes effect as a whole over all its regions, also after a crash.
//! 2. **Order.** Batches take effect in the order of their [`Ticket`]s. After a crash a prefix of that order is there,
//!    and at least everything up to the last ticket that [`RaftLogWriter::sync`] has returned.
//! 3. **Reads** see what is appended, durable or not. Who must not speak of what is not durable compares tickets.
//! 4. **Poison.** After a failed write, sync, read or checksum the log refuses appends, syncs and reads of entries, for
//!    good. Nothing is tried again, and nothing is durable after it that was not before.
//! 5. **Damage.** A group that is torn by a crash can only be the last one, and is cut off at the next start. Any other
//!    damage is refused, with file and offset: at the start, or, in the data of an entry of a sealed segment, when the
//!    entry is read. Nothing is dropped silently. (Damage to the very last group looks like a torn one.)
//!
//! A region that was never mentioned has an empty log with base (0, 0) and no state; the first operation that mentions
//! it creates it.
//!
//! docs/formats.md describes the bytes.

mod batch;
mod cache;
mod error;
mod format;
mod index;
mod log;
mod maintenance;
mod options;
mod pending;
mod recovery;
mod replay;
mod scan;
mod segments;
mod state;
mod writer;

pub use batch::{LogBatch, LogEntry, STATE_BYTES_MAX};
pub use error::{Error, Result};
pub use log::{Bounds, RaftLog, Ticket};
pub use maintenance::{Maintenance, Pinning};
pub use options::{Options, Progress, Statistics};
pub use writer::RaftLogWriter;

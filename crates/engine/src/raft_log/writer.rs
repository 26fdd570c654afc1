//! The log as its one writer sees it.

#![expect(unused_variables, reason = "bodies follow")]
#![expect(clippy::unimplemented, reason = "bodies follow")]

use super::{Result, Ticket};

/// What makes the log durable and keeps its house. There is one, and it is owned: by the thread of the log, or by
/// whoever has the duty to commit.
#[derive(Debug)]
pub struct RaftLogWriter {}

/// What a step of housekeeping came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance {
    /// Whether another step has something to do already now.
    pub more: bool,
    /// Everything up to this ticket is durable: a step may have written what was waiting.
    pub durable: Ticket,
    /// Who keeps the oldest segment from being freed though the log is too large, by bytes, most first; at most
    /// [`PINNING_MAX`](Maintenance::PINNING_MAX). Compacting their logs makes room.
    pub pinning: Vec<Pinning>,
}

impl Maintenance {
    /// Most regions that are named at once.
    pub const PINNING_MAX: usize = 64;
}

/// A region that has live entries in the oldest segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinning {
    /// Which one.
    pub region: u64,
    /// How many entries.
    pub entries: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl RaftLogWriter {
    /// Makes everything durable that was appended before this call: one write and one sync (and a few more when a
    /// segment is full). Without anything to do it costs nothing.
    ///
    /// # Errors
    /// `Failed`: the log has stopped, for good. What was not durable before may be there after a restart, or not.
    pub fn sync(&mut self) -> Result<Ticket> {
        unimplemented!()
    }

    /// Does a bounded step of housekeeping, of about `budget_bytes` of I/O: prepares the next segment, finishes a full
    /// one, frees the oldest one or writes again what is still needed of it. To be called after a sync, when nothing
    /// is waiting, and again soon while it says `more`.
    ///
    /// # Errors
    /// `Failed`: as of [`sync`](RaftLogWriter::sync). A full disk is none: then no segment is prepared.
    pub fn maintain(&mut self, budget_bytes: u64) -> Result<Maintenance> {
        unimplemented!()
    }
}

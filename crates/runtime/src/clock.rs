//! Time.

use std::{fmt, time::Duration};

/// A source of time. Shared by shells; cores get its readings as inputs.
pub trait Clock: fmt::Debug + Send + Sync {
    /// Time since some fixed moment of this process. Never goes back.
    fn monotonic(&self) -> Duration;

    /// Time since 1970-01-01 UTC. May jump in both directions.
    fn wall(&self) -> Duration;

    /// Milliseconds since 1970-01-01 UTC.
    fn wall_ms(&self) -> u64 {
        u64::try_from(self.wall().as_millis()).unwrap_or(u64::MAX)
    }
}

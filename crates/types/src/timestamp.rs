//! Timestamps of the cluster's one clock, the timestamp oracle (TSO).

use std::fmt;

/// 46 bits of Unix milliseconds (`physical`) and 18 bits of a counter (`logical`), as TiKV and PD have them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimeStamp(pub u64);

/// How many bits of a [`TimeStamp`] count within one millisecond.
pub const LOGICAL_BITS: u32 = 18;
/// One more than the largest logical part.
pub const LOGICAL_END: u64 = 1 << LOGICAL_BITS;

impl TimeStamp {
    /// No timestamp.
    pub const ZERO: TimeStamp = TimeStamp(0);
    /// Later than every timestamp: "the newest version".
    pub const MAX: TimeStamp = TimeStamp(u64::MAX);

    /// Composes a timestamp. `logical` must be below [`LOGICAL_END`].
    pub fn compose(physical_ms: u64, logical: u64) -> TimeStamp {
        debug_assert!(logical < LOGICAL_END, "logical part overflows into the physical one");
        TimeStamp((physical_ms << LOGICAL_BITS) + logical)
    }

    /// Unix milliseconds.
    pub fn physical_ms(self) -> u64 {
        self.0 >> LOGICAL_BITS
    }

    /// The counter within the millisecond.
    pub fn logical(self) -> u64 {
        self.0 & (LOGICAL_END - 1)
    }
}

impl fmt::Display for TimeStamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_survive_composition() {
        let ts = TimeStamp::compose(1_763_800_000_123, 262_143);
        assert_eq!((ts.physical_ms(), ts.logical()), (1_763_800_000_123, 262_143));
        assert!(ts < TimeStamp::compose(1_763_800_000_124, 0));
    }
}

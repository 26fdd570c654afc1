//! The machine's clock.
//!
//! On Linux the monotonic reading is `CLOCK_BOOTTIME`: it goes on while the machine sleeps. A leader that wakes up
//! from a suspended virtual machine must find its lease expired, and `CLOCK_MONOTONIC`, which stands still
//! meanwhile, would let it serve reads that another leader has overtaken.

use std::time::{Duration, SystemTime};

use crate::Clock;

/// The machine's clock. Monotonic readings count from its creation.
#[derive(Debug)]
pub struct RealClock {
    start: boot::Moment,
}

impl RealClock {
    /// A clock whose monotonic readings begin at zero.
    pub fn new() -> RealClock {
        RealClock { start: boot::now() }
    }
}

impl Default for RealClock {
    fn default() -> RealClock {
        RealClock::new()
    }
}

impl Clock for RealClock {
    fn monotonic(&self) -> Duration {
        boot::since(&self.start)
    }

    fn wall(&self) -> Duration {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the machine's date enters"
        )]
        let now = SystemTime::now();
        // A clock that stands before 1970 is not set at all; zero says so as well as any number.
        now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod boot {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    /// Time since the machine was started.
    pub(super) type Moment = Duration;

    pub(super) fn now() -> Moment {
        let time = clock_gettime(ClockId::Boottime);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        let nanos = u32::try_from(time.tv_nsec).unwrap_or_default();
        Duration::new(seconds, nanos)
    }

    pub(super) fn since(start: &Moment) -> Duration {
        now().saturating_sub(*start)
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod boot {
    use std::time::{Duration, Instant};

    pub(super) type Moment = Instant;

    pub(super) fn now() -> Moment {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the machine's monotonic clock enters"
        )]
        Instant::now()
    }

    pub(super) fn since(start: &Moment) -> Duration {
        start.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monotonic_readings_never_go_back() {
        let clock = RealClock::new();
        let mut last = Duration::ZERO;
        for _ in 0..10_000 {
            let now = clock.monotonic();
            assert!(last <= now);
            last = now;
        }
    }

    #[test]
    fn the_date_is_later_than_this_code() {
        assert!(RealClock::new().wall_ms() > 1_750_000_000_000, "the machine's date is not set");
    }
}

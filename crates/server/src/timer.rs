//! Timers of what a process does now and then.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

/// A timer whose first tick is one interval away. After a tick that came late the next one is a whole interval away.
pub(crate) fn ticks(interval: Duration) -> Interval {
    let interval = interval.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now() + interval, interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

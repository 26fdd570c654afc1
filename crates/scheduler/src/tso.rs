//! The timestamp oracle: one increasing sequence for the whole cluster.
//!
//! A timestamp is the wall clock's millisecond and a counter within it. The oracle follows the clock forwards and
//! never backwards: while the clock is behind, because it jumped back or because more timestamps were asked for than a
//! millisecond has, the millisecond stays, and moves on by one whenever its counter is used up.
//!
//! Invariant: every timestamp handed out lies below the end of a *window* that was made durable first. After a restart
//! the oracle begins at the end of the last window, above everything that was ever handed out, whatever the clock says.
//!
//! Demand can push timestamps ahead of the clock, but not without bound ([`TSO_AHEAD_MAX`]): timestamps are taken for
//! times, by lock time-outs for one. A clock that jumped back is no reason to refuse: the bound is then measured
//! against where the clock would be without the jump.

use std::time::Duration;

use types::{
    TimeStamp,
    limits::{TSO_AHEAD_MAX, TSO_COUNT_MAX, TSO_WINDOW},
    timestamp::{LOGICAL_BITS, LOGICAL_END},
};

use crate::Now;

/// The first millisecond that a timestamp has no room for.
const PHYSICAL_END: u64 = 1 << (64 - LOGICAL_BITS);

/// How far a window reaches beyond the present timestamps when they are ahead of the clock already. Short, since a
/// restart takes its timestamps from behind the window: many restarts in a row must not carry them away.
const WINDOW_WHEN_AHEAD: Duration = Duration::from_millis(100);

/// The state of the oracle.
#[derive(Clone, Debug, Default)]
pub(crate) struct Oracle {
    /// The millisecond of the last timestamp.
    physical_ms: u64,
    /// The counter of the last timestamp; 0 if its millisecond has none yet. 0 itself is never handed out.
    logical: u64,
    /// Timestamps of this millisecond and later ones are not covered by a window.
    window_end_ms: u64,
    /// A moment at which the clock was not behind, or the first one.
    anchor: Option<Anchor>,
    /// Whether timestamps were taken since the window was last extended.
    in_use: bool,
}

/// Where the clock stood at a moment of the monotonic clock.
#[derive(Clone, Copy, Debug)]
struct Anchor {
    monotonic: Duration,
    clock_ms: u64,
}

/// Why there is no timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// A window up to `end_ms` is needed first. Nothing has changed.
    NeedWindow {
        /// Where it should end.
        end_ms: u64,
    },
    /// Between 1 and [`TSO_COUNT_MAX`] timestamps can be asked for.
    Count,
    /// More timestamps than time.
    TooFarAhead,
    /// The clock is beyond what a timestamp can say.
    Exhausted,
}

impl Oracle {
    /// Takes `count` timestamps in a row within one millisecond, and returns the last of them.
    pub(crate) fn allocate(&mut self, now: Now, count: u32) -> Result<TimeStamp, Refusal> {
        if count == 0 || TSO_COUNT_MAX < count {
            return Err(Refusal::Count);
        }
        let (mut physical_ms, mut logical) = self.follow(now);
        if LOGICAL_END <= logical + u64::from(count) {
            physical_ms += 1;
            logical = 0;
        }
        if PHYSICAL_END <= physical_ms.saturating_add(millis(TSO_WINDOW)) {
            return Err(Refusal::Exhausted);
        }
        if self.clock_without_jumps(now).saturating_add(millis(TSO_AHEAD_MAX)) < physical_ms {
            return Err(Refusal::TooFarAhead);
        }
        if self.window_end_ms <= physical_ms {
            return Err(Refusal::NeedWindow { end_ms: window_for(physical_ms, now) });
        }
        let last = TimeStamp::compose(physical_ms, logical + u64::from(count));
        assert!(
            TimeStamp::compose(self.physical_ms, self.logical) < last,
            "timestamps never go back"
        );
        (self.physical_ms, self.logical) = (physical_ms, last.logical());
        self.in_use = true;
        Ok(last)
    }

    /// The window that should be made durable before requests have to wait for it: half of the present one is over,
    /// and somebody used it. An idle oracle writes nothing.
    pub(crate) fn wanted_window(&self, now: Now) -> Option<u64> {
        let (physical_ms, _) = self.follow(now);
        let end_ms = window_for(physical_ms, now);
        let runs_out = self.window_end_ms < end_ms - (end_ms - physical_ms) / 2;
        (self.in_use && runs_out && end_ms < PHYSICAL_END).then_some(end_ms)
    }

    /// The window was extended. The caller keeps back what lies beyond the durable end until this one is durable.
    pub(crate) fn extend(&mut self, window_end_ms: u64) {
        assert!(self.window_end_ms < window_end_ms, "windows only grow");
        self.window_end_ms = window_end_ms;
        self.in_use = false;
    }

    /// Takes everything in the window as handed out: it may have been, before a restart.
    pub(crate) fn restart(&mut self) {
        (self.physical_ms, self.logical) = (self.physical_ms.max(self.window_end_ms), 0);
        self.anchor = None;
    }

    /// The end of the window.
    pub(crate) fn window_end_ms(&self) -> u64 {
        self.window_end_ms
    }

    /// The time by the oracle: the clock's, and never behind a timestamp.
    pub(crate) fn time_ms(&self, now: Now) -> u64 {
        self.follow(now).0
    }

    /// The millisecond to take timestamps from, and how much of it is used.
    fn follow(&self, now: Now) -> (u64, u64) {
        if self.physical_ms < now.wall_ms {
            (now.wall_ms, 0)
        } else {
            (self.physical_ms, self.logical)
        }
    }

    /// Where the clock is, or would be if it had not jumped back since it was last ahead of all timestamps.
    fn clock_without_jumps(&mut self, now: Now) -> u64 {
        match self.anchor {
            Some(anchor) if now.wall_ms < self.physical_ms => {
                let passed = now.monotonic.saturating_sub(anchor.monotonic);
                anchor.clock_ms.saturating_add(millis(passed)).max(now.wall_ms)
            }
            _ => {
                let clock_ms = now.wall_ms.max(self.physical_ms);
                self.anchor = Some(Anchor { monotonic: now.monotonic, clock_ms });
                clock_ms
            }
        }
    }
}

/// Where a window ends that serves `physical_ms`.
fn window_for(physical_ms: u64, now: Now) -> u64 {
    let ahead_of_clock = now.wall_ms.saturating_add(millis(TSO_WINDOW));
    ahead_of_clock.max(physical_ms.saturating_add(millis(WINDOW_WHEN_AHEAD)))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1000;

    fn now(monotonic_ms: u64, wall_ms: u64) -> Now {
        Now { monotonic: Duration::from_millis(monotonic_ms), wall_ms }
    }

    /// An oracle whose caller makes every window durable at once.
    fn take(oracle: &mut Oracle, now: Now, count: u32) -> Result<TimeStamp, Refusal> {
        match oracle.allocate(now, count) {
            Err(Refusal::NeedWindow { end_ms }) => {
                oracle.extend(end_ms);
                oracle.allocate(now, count)
            }
            other => other,
        }
    }

    fn parts(ts: TimeStamp) -> (u64, u64) {
        (ts.physical_ms(), ts.logical())
    }

    #[test]
    fn a_window_comes_first() {
        let mut oracle = Oracle::default();
        let at = now(0, 10_000);
        assert_eq!(oracle.allocate(at, 5), Err(Refusal::NeedWindow { end_ms: 13_000 }));
        assert_eq!(
            oracle.allocate(at, 5),
            Err(Refusal::NeedWindow { end_ms: 13_000 }),
            "it changed nothing"
        );
        oracle.extend(13_000);
        assert_eq!(oracle.allocate(at, 5).map(parts), Ok((10_000, 5)));
        assert_eq!(oracle.allocate(now(0, 12_999), 1).map(parts), Ok((12_999, 1)));
        assert_eq!(oracle.allocate(now(0, 13_000), 1), Err(Refusal::NeedWindow { end_ms: 16_000 }));
    }

    #[test]
    fn a_batch_lies_in_one_millisecond() {
        let mut oracle = Oracle::default();
        let at = now(0, 10_000);
        assert_eq!(take(&mut oracle, at, TSO_COUNT_MAX).map(parts), Ok((10_000, LOGICAL_END - 1)));
        assert_eq!(take(&mut oracle, at, 1).map(parts), Ok((10_001, 1)));
        assert_eq!(take(&mut oracle, at, TSO_COUNT_MAX).map(parts), Ok((10_002, LOGICAL_END - 1)));
        assert_eq!(oracle.allocate(at, 0), Err(Refusal::Count));
        assert_eq!(oracle.allocate(at, TSO_COUNT_MAX + 1), Err(Refusal::Count));
    }

    #[test]
    fn demand_runs_ahead_of_the_clock_and_not_without_bound() {
        let mut oracle = Oracle::default();
        let bound = millis(TSO_AHEAD_MAX);
        let at = now(0, 10_000);
        let mut last = 0;
        while let Ok(ts) = take(&mut oracle, at, TSO_COUNT_MAX) {
            last = ts.physical_ms();
        }
        assert_eq!(last, 10_000 + bound);
        assert_eq!(take(&mut oracle, at, 1), Err(Refusal::TooFarAhead));
        assert_eq!(
            take(&mut oracle, now(1, 10_001), 7).map(parts),
            Ok((10_001 + bound, 7)),
            "a ms has passed"
        );
    }

    #[test]
    fn a_clock_that_jumps_back_stops_nothing() {
        let mut oracle = Oracle::default();
        take(&mut oracle, now(0, 7_200_000), 1).unwrap();
        // An hour back. For an hour the millisecond stays or is pushed on, as fast as time passes.
        let mut last = TimeStamp::ZERO;
        for second in 1..3600 {
            let at = now(second * SECOND, 3_600_000 + second * SECOND);
            for _ in 0..1000 {
                let ts = take(&mut oracle, at, TSO_COUNT_MAX).unwrap();
                assert!(last < ts);
                last = ts;
            }
        }
        assert_eq!(
            take(&mut oracle, now(3600 * SECOND, 7_200_000), 1).unwrap().physical_ms(),
            10_799_001
        );
    }

    #[test]
    fn a_clock_that_jumps_forward_is_followed() {
        let mut oracle = Oracle::default();
        take(&mut oracle, now(0, 10_000), 1).unwrap();
        let later = now(1, 90_000_000);
        assert_eq!(oracle.allocate(later, 1), Err(Refusal::NeedWindow { end_ms: 90_003_000 }));
        assert_eq!(take(&mut oracle, later, 1).map(parts), Ok((90_000_000, 1)));
        assert_eq!(take(&mut oracle, now(2, 10_001), 1).map(parts), Ok((90_000_000, 2)));
    }

    #[test]
    fn a_restart_begins_behind_the_window_whatever_the_clock_says() {
        let mut oracle = Oracle::default();
        take(&mut oracle, now(0, 10_000), 1).unwrap();
        for wall_ms in [0, 10_000, 13_000] {
            let mut restarted = oracle.clone();
            restarted.restart();
            assert_eq!(take(&mut restarted, now(0, wall_ms), 1).map(parts), Ok((13_000, 1)));
        }
        oracle.restart();
        assert_eq!(take(&mut oracle, now(0, 14_000), 1).map(parts), Ok((14_000, 1)));
    }

    #[test]
    fn many_restarts_do_not_carry_timestamps_away() {
        let mut oracle = Oracle::default();
        for restart in 0..1000 {
            let clock = 10_000 + restart * 100;
            let ts = take(&mut oracle, now(restart * 100, clock), 1).unwrap();
            assert!(ts.physical_ms() <= clock + 3000, "{} ms ahead", ts.physical_ms() - clock);
            oracle.restart();
        }
    }

    #[test]
    fn the_window_is_extended_in_time_and_only_if_it_is_used() {
        let mut oracle = Oracle::default();
        assert_eq!(oracle.wanted_window(now(0, 10_000)), None, "nobody has asked");
        take(&mut oracle, now(0, 10_000), 1).unwrap();
        assert_eq!(oracle.wanted_window(now(0, 11_500)), None);
        assert_eq!(oracle.wanted_window(now(0, 11_501)), Some(14_501));
        oracle.extend(14_501);
        assert_eq!(oracle.wanted_window(now(0, 14_501)), None, "nobody has asked since");
    }

    #[test]
    fn the_end_of_time_is_refused() {
        let mut oracle = Oracle::default();
        for wall_ms in [PHYSICAL_END - 3000, PHYSICAL_END, u64::MAX] {
            assert_eq!(oracle.allocate(now(0, wall_ms), 1), Err(Refusal::Exhausted));
            assert_eq!(oracle.wanted_window(now(0, wall_ms)), None);
        }
        assert!(take(&mut oracle, now(0, PHYSICAL_END - 3001), 1).is_ok());
    }
}

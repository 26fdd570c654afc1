//! The clock of one machine: it started at another moment, runs at another rate, and its date may be wrong.

use super::queue::Time;

/// Turns the world's time into what one machine believes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct MachineClock {
    /// What the monotonic clock showed when the world began, in microseconds.
    offset: u64,
    /// Parts per million by which the machine's clock is faster than the world's, or slower.
    rate_ppm: i32,
    /// Microseconds between the machine's date and its monotonic reading.
    wall_offset: i64,
}

impl MachineClock {
    /// A clock that showed `offset` when the world began and gains `rate_ppm` microseconds a second.
    pub fn new(offset: u64, rate_ppm: i32, wall_offset: i64) -> MachineClock {
        assert!((-500_000..=500_000).contains(&rate_ppm), "no clock is that wrong: {rate_ppm}");
        MachineClock { offset, rate_ppm, wall_offset }
    }

    /// The monotonic reading at `now`. It never goes back.
    pub fn monotonic(&self, now: Time) -> u64 {
        let gained = i128::from(now) * i128::from(self.rate_ppm) / 1_000_000;
        let passed = i128::from(now) + gained;
        self.offset + u64::try_from(passed).expect("a rate above -50 % keeps time positive")
    }

    /// The date at `now`, in microseconds. It jumps.
    pub fn wall(&self, now: Time) -> i64 {
        let monotonic = i64::try_from(self.monotonic(now)).expect("292,000 years are enough");
        monotonic + self.wall_offset
    }

    /// How long the world waits while this clock moves on by `local` microseconds; never less than it takes.
    pub fn world_duration(&self, local: u64) -> Time {
        let rate =
            u128::try_from(1_000_000 + i64::from(self.rate_ppm)).expect("rates are positive");
        let world = (u128::from(local) * 1_000_000).div_ceil(rate);
        u64::try_from(world).expect("a timer is shorter than the world") + 1
    }

    /// The date jumps by `by` microseconds. The monotonic reading does not.
    pub fn jump_wall(&mut self, by: i64) {
        self.wall_offset += by;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_clock_gains_and_a_slow_one_loses() {
        let fast = MachineClock::new(100, 50_000, 0);
        let slow = MachineClock::new(0, -50_000, 0);
        assert_eq!(fast.monotonic(1_000_000), 100 + 1_050_000);
        assert_eq!(slow.monotonic(1_000_000), 950_000);
    }

    #[test]
    fn a_timer_never_fires_before_its_clock_says_so() {
        for rate in [-50_000, -1, 0, 1, 33_333, 50_000] {
            let clock = MachineClock::new(7, rate, 0);
            for local in [1, 10, 999, 100_000, 12_345_678] {
                for start in [0, 1, 12_345] {
                    let end = start + clock.world_duration(local);
                    let passed = clock.monotonic(end) - clock.monotonic(start);
                    assert!(local <= passed && passed <= local + 4, "{rate} {local} {passed}");
                }
            }
        }
    }

    #[test]
    fn the_date_jumps_alone() {
        let mut clock = MachineClock::new(0, 0, 5);
        let before = clock.monotonic(10);
        clock.jump_wall(-3_600_000_000);
        assert_eq!((clock.monotonic(10), clock.wall(10)), (before, 15 - 3_600_000_000));
    }
}

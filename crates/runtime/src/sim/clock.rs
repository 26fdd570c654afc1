//! A clock that stands still until somebody moves it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::Clock;

/// A clock that stands still until somebody moves it. The date may jump, the monotonic reading may not.
#[derive(Debug)]
pub struct SimClock {
    hands: Mutex<Hands>,
}

#[derive(Debug)]
struct Hands {
    monotonic: Duration,
    wall: Duration,
}

impl SimClock {
    /// A clock whose monotonic reading is zero and whose date is `wall` (time since 1970).
    pub fn new(wall: Duration) -> SimClock {
        SimClock { hands: Mutex::new(Hands { monotonic: Duration::ZERO, wall }) }
    }

    /// Lets time pass: both readings move on.
    pub fn advance(&self, time: Duration) {
        let mut hands = self.hands();
        hands.monotonic += time;
        hands.wall += time;
    }

    /// Sets the date, forwards or backwards. The monotonic reading stays.
    pub fn set_wall(&self, wall: Duration) {
        self.hands().wall = wall;
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for SimClock {
    fn monotonic(&self) -> Duration {
        self.hands().monotonic
    }

    fn wall(&self) -> Duration {
        self.hands().wall
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_date_jumps_alone() {
        let clock = SimClock::new(Duration::from_secs(1000));
        clock.advance(Duration::from_secs(5));
        clock.set_wall(Duration::from_secs(10));
        assert_eq!((clock.monotonic(), clock.wall_ms()), (Duration::from_secs(5), 10_000));
        clock.advance(Duration::from_millis(1));
        assert_eq!((clock.monotonic(), clock.wall_ms()), (Duration::from_millis(5001), 10_001));
    }
}

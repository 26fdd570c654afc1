//! How long to wait before the next try.
//!
//! Each kind of obstacle has a curve of its own: the wait doubles from a first value up to a cap. Half of each wait
//! is fixed and half is drawn, so that clients that failed together do not come back together. There is no limit on
//! the number of tries here: the caller has a deadline, and gives up when the next wait would end behind it.
//!
//! The random numbers come from a seed, not from the machine: the simulator replays every wait.

use std::time::Duration;

/// What stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// The route was wrong and is known better now. The first retry goes out at once.
    Route,
    /// Nobody leads the region at the moment; an election takes about a second.
    NoLeader,
    /// The store has too much to do.
    Busy,
    /// The store cannot be reached.
    Store,
    /// The scheduler cannot be reached, or does not know the answer yet.
    Scheduler,
    /// Another transaction has the key.
    Lock,
    /// Another transaction was first; a newer timestamp helps. The first retry goes out at once.
    Conflict,
}

/// First wait and cap of an obstacle, in milliseconds.
const CURVES: [(u64, u64); 7] = [
    (2, 500),    // Route
    (20, 500),   // NoLeader
    (50, 2_000), // Busy
    (20, 1_000), // Store
    (20, 1_000), // Scheduler
    (10, 1_000), // Lock
    (2, 500),    // Conflict
];

/// The waits of one request.
#[derive(Clone, Debug)]
pub struct Backoff {
    tries: [u32; CURVES.len()],
    random: u64,
}

impl Backoff {
    /// No try has failed yet. Requests with different seeds wait differently.
    pub fn new(seed: u64) -> Backoff {
        Backoff { tries: [0; CURVES.len()], random: seed }
    }

    /// How long to wait now; zero is "not at all".
    pub fn next(&mut self, obstacle: Obstacle) -> Duration {
        let tries = &mut self.tries[obstacle as usize];
        let (first, cap) = CURVES[obstacle as usize];
        let before = *tries;
        *tries = tries.saturating_add(1);
        // A corrected route or timestamp deserves one free try, no more: a store that always answers "not here" must not be
        // asked in a tight loop.
        let doublings = match (obstacle, before) {
            (Obstacle::Route | Obstacle::Conflict, 0) => return Duration::ZERO,
            (Obstacle::Route | Obstacle::Conflict, n) => n - 1,
            (_, n) => n,
        };
        let full = first.checked_shl(doublings.min(16)).map_or(cap, |wait| wait.min(cap)) * 1000;
        let drawn = splitmix64(&mut self.random) % (full / 2 + 1);
        Duration::from_micros(full / 2 + drawn)
    }

    /// A seed for a request that grows out of this one.
    pub fn fork(&mut self) -> u64 {
        splitmix64(&mut self.random)
    }
}

/// The next number of Steele, Lea and Flood's generator: 64 bits of state, every seed is as good as another.
pub(crate) fn splitmix64(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Obstacle; 7] = [
        Obstacle::Route,
        Obstacle::NoLeader,
        Obstacle::Busy,
        Obstacle::Store,
        Obstacle::Scheduler,
        Obstacle::Lock,
        Obstacle::Conflict,
    ];

    #[test]
    fn waits_double_up_to_the_cap_and_keep_half() {
        for obstacle in ALL {
            let (first, cap) = CURVES[obstacle as usize];
            let mut backoff = Backoff::new(7);
            if matches!(obstacle, Obstacle::Route | Obstacle::Conflict) {
                assert_eq!(backoff.next(obstacle), Duration::ZERO);
            }
            for i in 0..40 {
                let full =
                    Duration::from_millis(first.checked_shl(i).map_or(cap, |wait| wait.min(cap)));
                let wait = backoff.next(obstacle);
                assert!(
                    full / 2 <= wait && wait <= full,
                    "{obstacle:?} try {i}: {wait:?} of {full:?}"
                );
            }
        }
    }

    #[test]
    fn obstacles_count_for_themselves() {
        let mut backoff = Backoff::new(1);
        for _ in 0..10 {
            backoff.next(Obstacle::Busy);
        }
        assert!(backoff.next(Obstacle::Store) <= Duration::from_millis(20));
    }

    #[test]
    fn seeds_decide_and_nothing_else() {
        let waits = |seed| {
            let mut backoff = Backoff::new(seed);
            [(); 20].map(|()| backoff.next(Obstacle::NoLeader))
        };
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
    }

    #[test]
    fn the_generator_has_its_published_numbers() {
        let mut state = 1234567;
        assert_eq!(splitmix64(&mut state), 6457827717110365317);
        assert_eq!(splitmix64(&mut state), 3203168211198807973);
    }
}

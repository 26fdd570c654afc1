//! Random numbers from a seed.

use std::ops::RangeBounds;

/// A generator of random numbers. The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// Starts from `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(fastrand::Rng::with_seed(seed))
    }

    /// Starts from the machine's entropy. Only for shells that begin something new (a cluster id, say).
    pub fn from_entropy() -> Rng {
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where the machine's entropy enters"
        )]
        Rng(fastrand::Rng::new())
    }

    /// Any number.
    pub fn u64(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number in `range`, which must not be empty.
    pub fn range(&mut self, range: impl RangeBounds<u64>) -> u64 {
        self.0.u64(range)
    }

    /// A number from 0 up to but without 1.
    pub fn f64(&mut self) -> f64 {
        self.0.f64()
    }

    /// True with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.0.f64() < probability
    }

    /// A generator of its own, for a part that must not shift the numbers of others.
    pub fn fork(&mut self) -> Rng {
        Rng(self.0.fork())
    }

    /// Fills `bytes`.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill(bytes);
    }
}
